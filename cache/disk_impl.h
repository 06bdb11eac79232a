/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the disk's store share. For these alone.
 *
 *   disk        the folder, opening and end, reading
 *   disk_queue  what waits to be written, and the thread that hands it over
 *   disk_child  the process that writes
 *   disk_write  how it changes the store
 *   disk_entry  the form of what is kept
 *   disk_large  files of their own beside the store
 *   disk_whole  of these what the daemon has looked through, and who uses it
 *   disk_check  without a mount
 *
 * LMDB trusts what it finds: a tree that a failing disk has damaged can lead it to write anywhere
 * in memory, or round in a circle. So a process of its own changes the store, and can be lost
 * without harm; the daemon only reads, from a mapping that it cannot write to, and guarded.
 *
 * The store has three tables:
 *   copies  key → head, content
 *   order   class, number → key, cost: in which order entries go
 *   places  key → class, number
 * The key is the path, a NUL, and the part of the file; so what is below a folder is one stretch.
 * A large file has one entry, with the last key that a path can have, for all of its pieces; these
 * are in a file beside the store.
 */
#ifndef STG_CACHE_DISK_IMPL_H
#define STG_CACHE_DISK_IMPL_H

#include "cache/disk.h"
#include "util/lock.h"

#include <lmdb.h>
#include <stdatomic.h>

/* The file of the store, by LMDB. */
#define STG_DISK_DATA "data.mdb"

/* LMDB's own limit on keys is 511 (mdb_env_get_maxkeysize). */
#define STG_DISK_KEY_MAX_BYTES 511
#define STG_DISK_PATH_MAX_BYTES (STG_DISK_KEY_MAX_BYTES - 1 - 2 * sizeof(uint64_t))

struct stg_disk_key {
    size_t bytes;
    char text[STG_DISK_KEY_MAX_BYTES];
};

/* In front of the content, as it lies in memory. */
struct stg_disk_head {
    uint64_t checksum; /* XXH3 of all that follows, the content included */
    int64_t size_bytes;
    int64_t mtime_ns;
    int64_t ctime_ns;
    uint64_t ino;
    uint64_t raw_bytes;
    uint64_t is_packed; /* the content is a blob of codec.h */
};

/* Of is_packed: what follows is the rest of a struct stg_disk_large. */
#define STG_DISK_IS_LARGE 2

/* The entry of a large file, as it lies in memory. */
struct stg_disk_large {
    struct stg_disk_head head; /* its raw_bytes: the file's size */
    uint64_t number;           /* the name of the file */
    uint64_t piece_bytes;
    uint64_t count;       /* of pieces */
    uint64_t checksums[]; /* XXH3 of each; 0: it is not there */
};

/* Where these files are. */
#define STG_DISK_LARGE "large"

/* What goes first to make room: of the store, and of what is beside it. */
enum stg_disk_class {
    STG_DISK_NEW,  /* not asked for since it was written */
    STG_DISK_USED, /* asked for again */
    STG_DISK_LARGE_NEW,
    STG_DISK_LARGE_USED,
    STG_DISK_CLASSES
};

static inline bool stg_disk_is_large_class(enum stg_disk_class class) {
    return class >= STG_DISK_LARGE_NEW;
}

#define STG_DISK_ORDER_BYTES (1 + sizeof(uint64_t))

struct stg_disk_totals {
    uint64_t bytes[STG_DISK_CLASSES];
    uint64_t entries;
    uint64_t large; /* of the entries those of large files */
    uint64_t next_number;
};

#define STG_DISK_LARGE_FILES 8
struct stg_disk_large_file {
    int fd; /* -1: none */
    uint64_t number;
};

struct stg_disk_numbers {
    uint64_t *all;
    size_t count;
    size_t room;
};

enum stg_disk_work_kind { STG_DISK_PUT, STG_DISK_TOUCH, STG_DISK_FORGET };

/* The last changes that something was forgotten for, so that what was fetched before is not kept.
 */
#define STG_DISK_RECENT 64

struct stg_disk_recent {
    bool with_below;
    char path[STG_DISK_PATH_MAX_BYTES + 1];
};

struct stg_disk_work {
    struct stg_disk_work *next;
    enum stg_disk_work_kind kind;
    bool with_below;
    struct stg_identity now;
    char *content; /* owned */
    uint64_t content_bytes;
    struct stg_disk_key key; /* to be forgotten: the path with its NUL */
};

#define STG_DISK_IDLE_MAX 64
#define STG_DISK_WHOLE_BUCKETS 256
#define STG_DISK_TOUCHED_BITS (1U << 20)
/* So much is sent to the process that writes at once. */
#define STG_DISK_OUTGOING_BYTES ((size_t)64 << 10)

struct stg_disk {
    char *path;
    char *source;
    int dir_fd;
    int lock_fd;
    MDB_env *env;
    MDB_dbi main; /* the table of tables, and of a number that is raised to have something change */
    MDB_dbi copies;
    MDB_dbi order;
    MDB_dbi places;
    uint64_t map_bytes;
    uint64_t limit_bytes; /* of entries; what is left of the map is for changing them */
    _Atomic int state;    /* enum stg_disk_state */
    atomic_bool is_open;

    /* Held while the mark is made or removed, which is there while something is to be forgotten. */
    struct stg_lock mark_lock;
    bool is_marked;  /* protected by mark_lock, as the next */
    bool keeps_mark; /* something will not be forgotten any more before the end */

    struct stg_lock idle_lock;
    MDB_txn *idle[STG_DISK_IDLE_MAX]; /* that read, and are used again; protected by idle_lock */
    unsigned idle_count;

    struct stg_lock lock;
    pthread_cond_t filled;       /* protected by lock, as all below */
    pthread_cond_t written;      /* a batch is done with */
    struct stg_disk_work *first; /* queued */
    struct stg_disk_work *last;
    struct stg_disk_work
        *underway;         /* the batch that is being written; its items stay until it is */
    uint64_t queued_bytes; /* with those under way */
    uint64_t pushed;
    uint64_t done;
    unsigned forgets; /* of the items that are queued or under way */
    uint64_t
        forgotten; /* how many there ever were; the last of them are in `recent`, by this number */
    struct stg_disk_recent recent[STG_DISK_RECENT];
    unsigned flushing;
    bool stopping;
    bool running;
    pthread_t thread;

    pid_t child;  /* that writes; 0: none */
    int child_fd; /* the socket to it, and in it to us; the writing thread's own */
    char outgoing[STG_DISK_OUTGOING_BYTES]; /* what is to be sent; the same thread's */
    _Atomic int64_t full_until_ns;          /* monotonic */
    struct stg_disk_totals totals;          /* the child's own, as all below that is not atomic */
    struct stg_disk_large_file large_open[STG_DISK_LARGE_FILES]; /* of this transaction */
    unsigned large_next;
    int large_error;                 /* what one of these could not be synced with */
    struct stg_disk_numbers made;    /* large files of the transaction that is under way, */
    struct stg_disk_numbers leaving; /* and those that go with it */
    uint64_t held_bytes;             /* of files that are gone, and that others have open */
    _Atomic uint64_t used_bytes;
    _Atomic uint64_t entries;
    _Atomic uint64_t large_files, large_bytes;
    _Atomic uint64_t hits, hit_bytes, written_entries, written_bytes, evicted, overrun, corrupt;
    _Atomic uint64_t passed; /* large files that were taken whole */
    struct stg_lock whole_lock;
    /* The daemon's own; protected by whole_lock, as the next. */
    struct stg_disk_whole_entry *wholes[STG_DISK_WHOLE_BUCKETS];
    unsigned whole_count;
    unsigned taken_count;
    atomic_bool cannot_lease;                           /* so no file of that disk is given whole */
    _Atomic uint8_t touched[STG_DISK_TOUCHED_BITS / 8]; /* entries that a hit was noted for */
};

/* ---- disk_entry.c ---- */

/* The key; false where the path is too long for one. */
bool stg_disk_key_make(const struct stg_disk_name *name, struct stg_disk_key *ret_key);

/*
 * What is to be kept of the content, packed where that helps. Returns 0 and memory that the caller
 * frees, or -ENOMEM.
 */
int stg_disk_entry_make(const struct stg_identity *now, const char *content, uint64_t bytes,
                        void **ret_value, size_t *ret_bytes);

/*
 * The content of an entry, which the caller frees. Returns 0; -ENOENT, it is of another version;
 * -EBADMSG, it is damaged; -ENOMEM. `*ret_content` is set as soon as there is one. Without `now`
 * any version will do.
 */
int stg_disk_entry_read(const MDB_val *value, const struct stg_identity *now, uint64_t bytes,
                        char **ret_content);

/* What the entry takes of the store: a guess that is rather too high. */
uint64_t stg_disk_entry_cost(size_t key_bytes, size_t value_bytes);

/* The checksum of a value that begins with a head, but for the checksum itself. */
uint64_t stg_disk_checksum(const void *value, size_t bytes);

bool stg_disk_head_is_of(const struct stg_disk_head *head, const struct stg_identity *now);

/* ---- disk_large.c ---- */

/* Is it pieces of a file that is kept beside the store? */
bool stg_disk_is_large(const struct stg_disk_name *name);

/* The key of a large file's entry; false where the path is too long for one. */
bool stg_disk_large_key(const char *path, struct stg_disk_key *ret_key);
bool stg_disk_is_large_key(const MDB_val *key);

/* Which part of a file a key is of. */
void stg_disk_part_of(const struct stg_disk_key *key, uint64_t *ret_offset, uint64_t *ret_bytes);

size_t stg_disk_large_value_bytes(uint64_t size_bytes);

/* The entry of a file of which nothing is there. NULL without memory; the caller frees it. */
struct stg_disk_large *stg_disk_large_make(const struct stg_identity *now, uint64_t number);

/* Sets the checksum of the entry itself, when it is what shall be written. */
void stg_disk_large_seal(struct stg_disk_large *large);

/* The entry, which the caller frees. Returns 0 or -errno as stg_disk_entry_read(). */
int stg_disk_large_parse(const MDB_val *value, const struct stg_identity *now,
                         struct stg_disk_large **ret_large);

uint64_t stg_disk_large_piece_length(const struct stg_disk_large *large, uint64_t index);
uint64_t stg_disk_large_checksum(const char *content, uint64_t bytes);
bool stg_disk_large_is_whole(const struct stg_disk_large *large);
uint64_t stg_disk_large_cost(const struct stg_disk_large *large, size_t key_bytes);

/* A descriptor of the file, or -errno. */
int stg_disk_large_open(const struct stg_disk *disk, uint64_t number, int flags);
void stg_disk_large_unlink(const struct stg_disk *disk, uint64_t number);
bool stg_disk_large_exists(const struct stg_disk *disk, uint64_t number);

/* A file without a name on the same disk: a descriptor, or -errno. */
int stg_disk_large_scratch(const struct stg_disk *disk);

/*
 * Reads the piece into `content`, which has room for it. Returns 0; -ENOENT, it is not there;
 * -EBADMSG, it is damaged; or the disk's error.
 */
int stg_disk_large_read_piece(int fd, const struct stg_disk_large *large, uint64_t index,
                              char *content);

/* Removes all of them; removes those that are not among `named`, which is sorted for that. */
void stg_disk_large_erase(const struct stg_disk *disk);
void stg_disk_large_sweep(const struct stg_disk *disk, struct stg_disk_numbers *named);

/* What those in a stage directory, which is open there, take of the disk. */
uint64_t stg_disk_large_bytes_in(int dir_fd);

void stg_disk_numbers_add(struct stg_disk_numbers *numbers, uint64_t number);
void stg_disk_numbers_fini(struct stg_disk_numbers *numbers);

/* In the process that writes, within a transaction, as all below: what large files may take. */
uint64_t stg_disk_large_room(const struct stg_disk *disk);

/* Is its file what it should be? 0 or an errno. */
int stg_disk_large_is_there(struct stg_disk *disk, const struct stg_disk_large *large,
                            bool *ret_is_there);

/* Is one of these pieces there, and another than that? */
bool stg_disk_large_contradicts(const struct stg_disk_large *large, uint64_t offset,
                                const char *content, uint64_t bytes);

/* Writes those of the pieces that are not there. 0 or an errno. */
int stg_disk_large_write(struct stg_disk *disk, const struct stg_disk_large *large, bool is_new,
                         uint64_t offset, const char *content, uint64_t bytes);

/* Notes in the entry that these pieces are there. */
void stg_disk_large_note(struct stg_disk_large *large, uint64_t offset, const char *content,
                         uint64_t bytes);

/* What was written is on the disk, before the transaction is. 0 or an errno. */
int stg_disk_large_sync(struct stg_disk *disk);

/* The transaction is over: files go that are not named any more, or never were. */
void stg_disk_large_end(struct stg_disk *disk, bool committed);

/* ---- disk_whole.c ---- */

/* The piece was read, and is right. */
void stg_disk_whole_checked(struct stg_disk *disk, const struct stg_disk_large *large,
                            uint64_t index);

/* What those take that were taken, and have lost their names since. */
uint64_t stg_disk_whole_held_bytes(struct stg_disk *disk);

void stg_disk_whole_fini(struct stg_disk *disk);

/* ---- disk.c ---- */

/* An error that is none of LMDB's or the system's: the process that writes is no more. */
#define STG_DISK_GONE (-1)
/* The same: it was too slow, at the end; what was there before is good, and what is missing is
 * missing. */
#define STG_DISK_LATE (-3)
/* The same: what was changed cannot be named. */
#define STG_DISK_UNNAMED (-2)

/*
 * Something is wrong with the disk, or what is on it: it is not used any more, nor by the next
 * mount, as what is changed from now on could not be forgotten.
 */
void stg_disk_fail(struct stg_disk *disk, int error);

/*
 * The entry of the large file, which the caller frees, with its key. 0; an error of LMDB's; or as
 * stg_disk_large_parse(). Not where the path is to be forgotten.
 */
int stg_disk_get_large(struct stg_disk *disk, const struct stg_disk_name *name,
                       struct stg_disk_key *ret_key, struct stg_disk_large **ret_large);

/* There is none, for that reason: what is damaged is forgotten. */
void stg_disk_note_miss(struct stg_disk *disk, const char *path, int error);

/* Takes the folder as stg_disk_claim() does; with `source` NULL that of any. */
int stg_disk_take(const char *path, const char *source, struct stg_disk **ret_disk);

/* Opens the LMDB store, within `map_bytes` (0: as it was). 0, or an error of LMDB's. */
int stg_disk_open(struct stg_disk *disk, uint64_t map_bytes, bool to_change);

/* Removes the store's files. */
void stg_disk_erase(struct stg_disk *disk);

/* Is the error one that says that what is on the disk is not what was written? */
bool stg_disk_is_damage(int error);

/* ---- disk_queue.c ---- */

/* The thread. */
void *stg_disk_hand_over(void *disk);

bool stg_disk_is_usable(struct stg_disk *disk);

/* The entry was asked for. */
void stg_disk_touch(struct stg_disk *disk, const struct stg_disk_key *key);

/* Makes or removes what tells the next mount that something was still to be forgotten. */
int stg_disk_mark(struct stg_disk *disk);
void stg_disk_unmark(struct stg_disk *disk);
bool stg_disk_has_mark(const struct stg_disk *disk);

/* Is the path to be forgotten, and that is not yet done? */
bool stg_disk_is_forgotten(struct stg_disk *disk, const char *path);

void stg_disk_free_batch(struct stg_disk_work *batch);

/* ---- disk_child.c ---- */

struct stg_disk_answer {
    int error;      /* of LMDB's or the system's; STG_DISK_GONE: there is no answer */
    bool written;   /* what was to be kept is */
    bool forgotten; /* what was to be forgotten is */
    uint64_t used_bytes;
    uint64_t entries;
    uint64_t large_files;
    uint64_t large_bytes;
    uint64_t evicted;
};

/*
 * Starts the process that writes, in which the store is opened first. Returns the error of that; no
 * other thread may run. `*ret_answer` says what is there.
 */
int stg_disk_child_start(struct stg_disk *disk, struct stg_disk_answer *ret_answer);

/* Has it write a batch, and waits for that. By one thread. */
struct stg_disk_answer stg_disk_child_write(struct stg_disk *disk,
                                            const struct stg_disk_work *batch);

/* Ends it, and waits for that. */
void stg_disk_child_stop(struct stg_disk *disk);

/*
 * Runs `run` in a process of its own, which writes its answer to `fd`. Returns true where it came
 * to its end and all of the answer was there.
 */
bool stg_disk_child_run(struct stg_disk *disk, void (*run)(void *argument, void *answer),
                        void *argument, void *answer, size_t answer_bytes);

/* ---- disk_write.c: in that process ---- */

/* Adds up what is there. 0, or an error of LMDB's. */
int stg_disk_count(struct stg_disk *disk);

/* Applies a batch. 0, or an error of LMDB's or the system's. */
int stg_disk_apply(struct stg_disk *disk, const struct stg_disk_work *batch, bool *ret_written);

/* The place in the order that an entry of `places` or a key of `order` names; false: none of ours.
 */
bool stg_disk_parse_order(const MDB_val *value, enum stg_disk_class *ret_class,
                          uint64_t *ret_number);

/* What an entry of `order` has: the cost, and the key, which points into it. */
bool stg_disk_parse_cost(const MDB_val *value, uint64_t *ret_cost, MDB_val *ret_key);

/* Takes the entry out, in all three tables. 0, or an error of LMDB's; one that is absent is fine.
 */
int stg_disk_remove(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                    MDB_val key);

#endif
