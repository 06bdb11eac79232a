/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The mount's side of the staging engine: which inode has which staged copy, when one is made or
 * used, and when it is found to be out of date.
 *
 * A copy is looked at against the source's attributes whenever the mount sees these (a lookup, a
 * stat), and before an open where that is longer ago than attributes may be kept. While a copy that
 * went out of date is still open, it is fetched anew in place: an inode's opens are all served from
 * one file, and see one content, as they would at the source.
 *
 * An inode gets its `staged` with the first copy and keeps it; the object in it comes and goes with
 * the copy, and has a reference to the inode.
 */
#ifndef STG_FS_STAGING_H
#define STG_FS_STAGING_H

#include "cache/stage.h"
#include "fs/inode.h"

/* What is known of the staging of an inode. Protected by the io lock. */
struct stg_staged {
    struct stg_object *object;   /* NULL: there is no copy; while it is held it does not change */
    struct stg_ranges *ranges;   /* see ranges.h; NULL: not staged by range */
    struct stg_identity seen;    /* of the source, when it was last looked at */
    struct stg_identity cached;  /* of what the kernel's page cache may have of it */
    uint64_t copy_number;        /* of the copy whose id is registered, where io_mode is COPY */
    int64_t looked_ns;           /* monotonic: when the source was last looked at */
    int64_t retry_ns;            /* monotonic: no fetch before that, the last one failed */
    uint64_t hits;               /* opens that a copy served */
    struct stg_inode *next_kept; /* protected by keep.c's lock */
    uint32_t live_number; /* raised when writers are gone, so that one time is told from the next */
    uint32_t set;         /* as of job.h; 0: none */
    const char *why;      /* constant: the reason for the last decision */
    int8_t mode;          /* enum stg_mode asked for this file; STG_STAGED_NO_MODE: none */
    bool kept;            /* held for a mapping that may be there, see keep.h */
    bool behind;  /* the copy that writers share could not be kept the same: read the source */
    bool leaving; /* unstaged while it was open */
    bool live;    /* writers and readers share the copy, see live.h */
};
#define STG_STAGED_NO_MODE (-1)

/* What a copy is compared by. */
struct stg_identity stg_staging_identity(const struct statx *stx);

/* Starts the engine, where the options ask for staging; after the session is there. 0 or -errno. */
int stg_staging_start(void);

/* Drops every copy; no request may be under way. */
void stg_staging_stop(void);

/* The engine, or NULL where nothing is staged. */
struct stg_cache *stg_staging_cache(void);

/* A local file with nothing asked for it, or no staging: the kernel does what is to be done. */
bool stg_staging_is_left_to_kernel(const struct stg_inode *inode);

/*
 * Asks for a copy to serve an open for reading. Returns
 *   STG_WANT_READY  there is one, held; `*ret_object` has it, referenced;
 *   0               it is being fetched: `waiter` will be told; `*ret_object` as above;
 *   STG_STAGED_BY_RANGE  open it as ranges.h has it; so, too, where the waiter is told -ENODATA;
 *   -errno          serve the source; -EAGAIN where a fetch failed with its error a moment ago.
 * May wait for the source. The reference is given back with stg_staging_unref().
 */
#define STG_STAGED_BY_RANGE 2
int stg_staging_want(struct stg_inode *inode, struct stg_waiter *waiter,
                     struct stg_object **ret_object);
void stg_staging_unref(struct stg_object *object);

/*
 * May a request be answered later, by another thread? Not over io_uring: it would keep its place in
 * a short queue, and libfuse frees that before the engine ends.
 */
bool stg_staging_may_park(void);

/* What came of it: the open is served by the copy, or (`error`) there is none. */
void stg_staging_served(struct stg_inode *inode, int error);

/* Is what a fetch failed with an error of the source, and none of the engine's own? */
bool stg_staging_is_of_source(int error);

/* The source's attributes were seen. May wait for the source where a copy in use is outdated. */
void stg_staging_saw(struct stg_inode *inode, const struct statx *stx);

/*
 * The source may have changed: it is looked at where there is a copy, and who has that open sees
 * what it is now when this returns. May wait for the source, and for another thread that does.
 */
void stg_staging_recheck(struct stg_inode *inode);

/* Is an outdated copy of the inode still in use, so that its attributes must not be kept? */
bool stg_staging_is_outdated(struct stg_inode *inode);

/*
 * A READ comes from a kernel that opens files without telling: prepares the file for being staged
 * by range where the mount's rules say so. May look at the source.
 */
void stg_staging_prepare_read(struct stg_inode *inode);

/* The content was changed through the mount: a copy in use is fetched anew, any other dropped. */
void stg_staging_changed(struct stg_inode *inode);

/* The content is going to be changed: no copy is given to anybody from now on. */
void stg_staging_withdraw(struct stg_inode *inode);

/* ---- on request ---- */

/*
 * Stages the file in `mode`, an enum stg_mode or STG_STAGED_NO_MODE, from now on. Returns as
 * stg_staging_want(); -EOPNOTSUPP where there is nothing to copy, which is no failure.
 */
int stg_staging_stage(struct stg_inode *inode, int mode, struct stg_waiter *waiter,
                      struct stg_object **ret_object);

/*
 * Would the file, by what is known of it, be copied whole when somebody opens it, and is it not,
 * nor being copied? Asks nobody.
 */
bool stg_staging_may_predict(struct stg_inode *inode);

/*
 * Has such a file staged without anybody waiting for it. True where that begins now. May look at
 * the source.
 */
bool stg_staging_predict(struct stg_inode *inode);

/* Drops the copy, and what was asked for. Who has it open keeps it until he closes. */
void stg_staging_unstage(struct stg_inode *inode);

/* Makes the file a member of the set. False where it is one already, or without memory. */
bool stg_staging_join_set(struct stg_inode *inode, uint32_t set);

/* What is known of a file, for people. */
struct stg_staging_view {
    enum stg_state state;
    enum stg_mode mode; /* in which it was or would be staged */
    uint32_t set;
    uint32_t opens;
    bool served; /* by a copy, now */
    uint64_t hits;
    uint64_t size_bytes;
    uint64_t staged_bytes;
    const char *why; /* constant */
};
struct stg_staging_view stg_staging_view(struct stg_inode *inode);

/* What can be changed while the mount is there. */
struct stg_staging_settings {
    enum stg_mode mode;
    uint64_t threshold_bytes;
    uint64_t hot_bytes;
    uint64_t cold_bytes;
};
struct stg_staging_settings stg_staging_settings(void);
void stg_staging_set(const struct stg_staging_settings *settings);

/* How many opens the source served, and how many files a readahead hint was given for. */
uint64_t stg_staging_source_opens(void);
uint64_t stg_staging_advised(void);
uint64_t stg_staging_mmap_opens(void); /* served by the source's own pages, in mode mmap */

/* How often memory pressure shrank the limits. */
uint64_t stg_staging_pressure_events(void);

/* Frees what the inode has; it has no copy. */
void stg_staging_free(struct stg_inode *inode);

/* ---- for iomode.c; the io lock is held where the name says so ---- */

/* Opens the file of a copy for registration: a descriptor that the caller owns, or -errno. */
int stg_staging_open_copy(const struct stg_copy *copy);

/* The kernel does not take it: of copies that are on a disk, none is used any more. */
void stg_staging_refused(const struct stg_copy *copy);

/* One more hold on the copy that is open. True where it is of the current content. */
bool stg_staged_join_locked(struct stg_inode *inode, bool writing);

/* The last open is gone, and with it who wrote. */
void stg_staged_unshare_locked(struct stg_inode *inode);

/* Gives the hold of one open back. */
void stg_staged_put(struct stg_inode *inode);

#endif
