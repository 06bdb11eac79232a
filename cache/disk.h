/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Staged copies that outlive the mount: a folder on a local disk with an LMDB store, from which
 * copies are taken instead of from a slow source.
 *
 * What is kept is a part of a file's content, with what the file was then: it is given for that
 * alone. It is written behind, by one thread, some of it in one transaction that is on the disk
 * whole or not at all; by a process of its own, as what a damaged store does to that is of no
 * account then. What comes faster than the disk takes it is not kept. Each entry has a
 * checksum, and what is damaged is never given. Where the limit is reached, what was never asked
 * for again goes first, and then what was longest not asked for.
 *
 * The folder is one source's, one user's, and one mount's at a time. Nothing outside of it is
 * touched, and nothing in it that is not ours. A disk that is full or fails costs what it would
 * have kept, and is told once.
 *
 * What is fetched in parts of files larger than 1 MiB is in files of their own beside the store, of
 * which the store has the checksums. Once all of such a file is there, and was found to be right
 * since the mount, it can be opened.
 *
 * Why LMDB: one file that is consistent after each crash without a log to be replayed, readers that
 * never wait for the writer, and a size that it never goes beyond (http://www.lmdb.tech/doc/).
 *
 * Thread-safe from stg_disk_start() on; a lock of rank STG_RANK_QUEUE over the queue, which is not
 * held across I/O.
 */
#ifndef STG_CACHE_DISK_H
#define STG_CACHE_DISK_H

#include "cache/fill.h"

#include <stdio.h>

struct stg_disk;

/* Which part of which version of which file. */
struct stg_disk_name {
    const char *path;        /* what the file is called whenever the source is mounted */
    struct stg_identity now; /* of it what lasts from one mount of the source to the next: the
                                device is 0, and the ino where numbers are given anew */
    uint64_t offset;
    uint64_t bytes;
};

/* The largest content that is kept in the store itself. */
#define STG_DISK_ENTRY_MAX_BYTES (UINT64_C(16) << 20)
/* The least that a store can be. */
#define STG_DISK_MIN_BYTES (UINT64_C(4) << 20)

/* What the store in the folder takes now, with what lies beside it; 0 where there is none. */
uint64_t stg_disk_bytes_in(const char *path);

/*
 * Takes the folder `path`, which is made where it is absent, for the source that `source` describes
 * in a line. Says what is wrong with it and what to do: -EINVAL, it holds something else, or the
 * copies of another source; -EPERM, it is another user's, or others may write to it; -EBUSY,
 * another process has it, and keeps it (one that ends is waited for); or -errno. Nothing was
 * changed then.
 */
int stg_disk_claim(const char *path, const char *source, struct stg_disk **ret_disk);

/*
 * Opens the store, which shall not take more than `size_bytes` with all that belongs to it, and
 * starts to write. In the process that will use it, before that has other threads: it forks. A
 * store that is damaged or larger than that is begun anew. Returns 0, or -errno where there is none
 * to be had, after saying so; everything else may be called all the same, and finds and keeps
 * nothing.
 */
int stg_disk_start(struct stg_disk *disk, uint64_t size_bytes);

/* Where it is, as it was claimed; borrowed. */
const char *stg_disk_path(const struct stg_disk *disk);

/* The mount ends: who wants the folder next waits for that. */
void stg_disk_ending(struct stg_disk *disk);

/* Writes what is queued, as far as that does not take long, and closes the store. */
void stg_disk_stop(struct stg_disk *disk);

/* Gives the folder back; after stg_disk_stop(). NULL is fine. */
void stg_disk_free(struct stg_disk *disk);

/* The content of `name`, which the caller frees; NULL where there is none. May read the disk. */
char *stg_disk_get(struct stg_disk *disk, const struct stg_disk_name *name);

/*
 * The same of what is of a length that is not known: sets `name->bytes`. Not counted as a hit.
 * There is one at most for each path and offset where only one was ever put.
 */
char *stg_disk_find(struct stg_disk *disk, struct stg_disk_name *name);

/* Is anything kept of that path, or below it? Reads the disk; false where it is not to be read. */
bool stg_disk_has_below(struct stg_disk *disk, const char *path);

/* How much was forgotten so far: to be asked before something is fetched that is to be kept. */
uint64_t stg_disk_forgotten(struct stg_disk *disk);

/* Is there all of the large file, as far as is known without reading it? Reads the disk. */
bool stg_disk_has_whole(struct stg_disk *disk, const struct stg_disk_name *name);

struct stg_disk_whole {
    int fd; /* O_PATH; the caller's, to be closed after it was given back */
    uint64_t number;
};

/*
 * Has the large file for the caller, all of it, to be opened by others for reading; it does not
 * change until stg_disk_leave_whole(). What was not looked at since the start is read, and compared
 * with its checksums, until `until_ns` (monotonic; 0: however long that takes). Returns 0; -ENOENT,
 * it is not there, or not all; -EAGAIN, the time is over, and the next call goes on there; -EBUSY,
 * somebody has it; -EMFILE, too many are had; -EBADMSG, it was damaged; -EOPNOTSUPP, of files of
 * that disk it cannot be told whether they are open; or the disk's error.
 */
int stg_disk_take_whole(struct stg_disk *disk, const struct stg_disk_name *name, int64_t until_ns,
                        struct stg_disk_whole *ret_whole);

/* A file of the caller's without a name, on that disk: a descriptor, or -errno. */
int stg_disk_scratch(struct stg_disk *disk);

/* Gives it back, before its descriptor is closed. */
void stg_disk_release_whole(struct stg_disk *disk, uint64_t number);

/* It is not in the stage directory any more, and so may be written to by who has it. */
void stg_disk_leave_whole(struct stg_disk *disk, uint64_t number);

/*
 * Has the content kept, which is taken over. Does not wait: `name` is copied, and what cannot be
 * queued is dropped; so is what was forgotten since stg_disk_forgotten() gave `forgotten`. False:
 * it was dropped.
 */
bool stg_disk_put(struct stg_disk *disk, const struct stg_disk_name *name, char *content,
                  uint64_t forgotten);

/*
 * Nothing of the file `path` is given any more, nor (`with_below`) of what is below it, not by
 * another process after this one was killed, either: that the store has to be changed is on the
 * disk when this returns. For a change that an identity might not show.
 */
void stg_disk_forget(struct stg_disk *disk, const char *path, bool with_below);

/*
 * Calls `visit` with the path of each folder that files are kept of, "" for the top, in the order
 * of paths. Not for names that are no paths, which begin with a slash. Reads the disk; what is not
 * to be read is left out.
 */
void stg_disk_each_folder(struct stg_disk *disk, void (*visit)(const char *folder, void *context),
                          void *context);

/*
 * Calls `visit` with the path of each file of which the beginning is kept, what was asked for last
 * first, until that says false, or until `until_ns` (monotonic). As above.
 */
void stg_disk_each_recent(struct stg_disk *disk, int64_t until_ns,
                          bool (*visit)(const char *path, void *context), void *context);

/* What was changed cannot be named: nothing is given any more, to nobody. */
void stg_disk_give_up(struct stg_disk *disk);

/* Waits until what was queued before is on the disk, or lost. */
void stg_disk_flush(struct stg_disk *disk);

enum stg_disk_state {
    STG_DISK_OPEN,
    STG_DISK_FULL,   /* of the file system: nothing is written for a while */
    STG_DISK_FAILED, /* not used any more */
};

struct stg_disk_view {
    enum stg_disk_state state;
    uint64_t limit_bytes;
    uint64_t used_bytes; /* by entries, with their overhead; without large files */
    uint64_t entries;
    uint64_t large_files; /* beside the store */
    uint64_t large_bytes; /* what they take */
    uint64_t passed;      /* since the start: how often one was taken whole */
    uint64_t hits;        /* since the start, as all below */
    uint64_t hit_bytes;
    uint64_t written;       /* entries */
    uint64_t written_bytes; /* of content */
    uint64_t evicted;
    uint64_t overrun; /* not kept: the disk was slower than what came, full, or failed */
    uint64_t corrupt;
    uint64_t queued_bytes;
};
struct stg_disk_view stg_disk_view(struct stg_disk *disk);

/* ---- without a mount ---- */

struct stg_disk_report {
    char source[8192];
    uint64_t entries;
    uint64_t bytes;   /* of content */
    uint64_t damaged; /* entries that do not say what they said */
    bool unreadable;  /* the store as a whole */
    bool unfinished;  /* something was still to be forgotten: the next mount begins anew */
    bool repaired;
};

/*
 * Reads all of the folder's store. With `repair` what is damaged is taken out, and a store that
 * cannot be read is begun anew. Says what is wrong with the folder itself, as stg_disk_claim().
 */
int stg_disk_check(const char *path, bool repair, struct stg_disk_report *ret_report);

#endif
