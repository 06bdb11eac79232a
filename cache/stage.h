/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Staged copies and their lives: who wants a file has it fetched once, however many want it; copies
 * that are not used go cold, then away; what changed is never served.
 *
 *   ABSENT → FILLING → HOT ⇄ COLD → ABSENT,  HOT ⇄ STALE → ABSENT while somebody still has it
 *
 * An object stands for one file of the source, by the mount's key. It belongs to who made it, and
 * costs 300 bytes while it is absent; make one where there is something to stage.
 *
 * Thread-safe: one lock of rank STG_RANK_CACHE over states and queues, never held across I/O,
 * compression or a call of a waiter or the source. All but the views may call the source's
 * withdraw() and absent(), for any object, so they are called without the locks that those take.
 */
#ifndef STG_CACHE_STAGE_H
#define STG_CACHE_STAGE_H

#include "cache/fill.h"
#include "cache/histogram.h"
#include "cache/queue.h"
#include "cache/source.h"
#include "cache/store.h"

#include <stdatomic.h>

struct stg_cache;
struct stg_disk;
struct stg_object;

struct stg_cache_config {
    uint64_t hot_bytes;   /* hard limit on hot copies, with their overhead */
    uint64_t cold_bytes;  /* hard limit on compressed ones; 0: copies do not go cold, they go */
    uint64_t store_bytes; /* what hot_bytes may be raised to; 0: not beyond hot_bytes */
    uint64_t file_bytes;  /* the largest file, or range of one, that is fetched; 0: as hot_bytes */
    int64_t settle_ns;    /* as of fill.h */
    int compress_level;   /* as of codec.h */
    uint64_t fetch_bytes_per_s; /* as of queue.h; 0: no limit */
    unsigned workers;           /* threads that fetch, at most; 1 or more; started when needed */
    bool in_memory;             /* as of store.h */
    struct stg_disk *disk;      /* borrowed; where copies outlive the mount; NULL: nowhere */
    int64_t (*now_ns)(void);    /* the time of day; NULL: the system's */
};

/* What happened since the start. */
struct stg_cache_stats {
    _Atomic uint64_t hot_hits;
    _Atomic uint64_t hot_range_hits; /* of those, by ranges */
    _Atomic uint64_t cold_hits;
    _Atomic uint64_t fills;
    _Atomic uint64_t filled_bytes;
    _Atomic uint64_t failed_fills;   /* the source's own errors */
    _Atomic uint64_t changed_fills;  /* the file changed meanwhile */
    _Atomic uint64_t refused_fills;  /* no room, or too large */
    _Atomic uint64_t waits;          /* were told to wait for a fetch */
    _Atomic uint64_t range_waits;    /* of those, for a range */
    _Atomic uint64_t range_fills;    /* of the fills those of a range */
    _Atomic uint64_t refreshed;      /* fetched anew into a copy in use */
    _Atomic uint64_t packed;         /* went cold */
    _Atomic uint64_t incompressible; /* did not shrink, and went away */
    _Atomic uint64_t evicted;        /* went away for want of room */
    _Atomic uint64_t evicted_unused; /* of those, never used by anybody */
    _Atomic uint64_t evicted_unused_bytes;
    _Atomic uint64_t invalidated;
    _Atomic uint64_t corrupt; /* cold copies that did not come back */
    struct stg_histogram fill_ns;
};

/* Somebody who waits for a copy; his memory until `done` is called, exactly once. */
struct stg_waiter {
    /* Called by any thread, without locks; `result` as of stg_object_want(), never 0. */
    void (*done)(struct stg_waiter *waiter, int result);

    /*
     * NULL; or called instead of done() where the copy is being fetched, as soon as the content was
     * read: as of stg_fill_limits' came(), with nothing held. One who reads once needs no more, and
     * is spared the source's second answer.
     */
    void (*came)(struct stg_waiter *waiter, const struct stg_filled *filled);
    struct stg_waiter *next;
    /* It goes on with what it began: that is no second use of the copy, to whoever evicts. */
    bool goes_on;
};

#define STG_WANT_READY 1

/* Starts the workers. `source` is borrowed. Returns 0, -ENOMEM or -EAGAIN (no threads). */
int stg_cache_new(const struct stg_cache_config *config, const struct stg_source *source,
                  struct stg_cache **ret_cache);

/* Fetches nothing more, and waits for what is under way. */
void stg_cache_stop(struct stg_cache *cache);

/* Stops, and frees the rest. All objects must have been freed before. */
void stg_cache_free(struct stg_cache *cache);

/* Copies that are files of the disk are of no use to the owner: there are to be none any more. */
void stg_cache_refuse_files(struct stg_cache *cache);
bool stg_cache_has_refused_files(struct stg_cache *cache);

const struct stg_cache_stats *stg_cache_stats(const struct stg_cache *cache);
struct stg_store *stg_cache_store(const struct stg_cache *cache);

/* Bytes of hot and of cold copies, and the most of each that there ever was. */
struct stg_cache_usage {
    uint64_t hot_bytes, hot_peak_bytes;
    uint64_t hot_limit_bytes, cold_limit_bytes;
    uint64_t cold_bytes, cold_peak_bytes;
    uint64_t cold_raw_bytes; /* what the cold copies are when inflated */
    uint64_t queued;         /* fetches that no worker has begun */
    uint64_t fetch_depth;    /* so many that nobody waits for are under way at once, at most */
};
struct stg_cache_usage stg_cache_usage(struct stg_cache *cache);

/* Sets the limits, and evicts what is over them and not in use. */
void stg_cache_limit(struct stg_cache *cache, uint64_t hot_bytes, uint64_t cold_bytes);

/*
 * An absent object for `range` of `key`, which the source gets back by release() once nothing works
 * with the object any more, perhaps some time after stg_object_free(); `hash` is the same whenever
 * the same file comes back, and not 0. NULL without memory.
 */
struct stg_object *stg_object_new(struct stg_cache *cache, void *key, struct stg_range range,
                                  uint64_t hash);

/*
 * Its copy is to be the large file that the disk has, all of it, or none: then who wants it is told
 * -ENODATA. Before it is wanted.
 */
void stg_object_by_disk(struct stg_object *object);
bool stg_object_is_by_disk(const struct stg_object *object);

/* Further references, for who uses an object that its owner may free meanwhile. */
void stg_object_ref(struct stg_cache *cache, struct stg_object *object);
void stg_object_unref(struct stg_cache *cache, struct stg_object *object);

/*
 * Frees the object as stg_object_free() does where it has nothing: absent, not being worked on,
 * wanted by nobody. True where it did; the owner then forgets it. For use in the source's absent().
 */
bool stg_object_retire(struct stg_cache *cache, struct stg_object *object);

/*
 * Gives the object up, with its copy, which goes with the last hold; whoever has one has a
 * reference of his own, too. Waiters are told -ECANCELED. NULL is fine.
 */
void stg_object_free(struct stg_cache *cache, struct stg_object *object);

/*
 * Asks for the object's copy. Returns
 *   STG_WANT_READY  it is hot, and held for the caller until stg_object_put();
 *   0               it is being fetched; `waiter` will be told the same;
 *   -errno          there will be none: serve the source. -EBUSY while an earlier version is still
 *                   held, -ENOSPC without room, -ECANCELED at the end.
 * Without a `waiter` (a prediction) nothing is held, and a copy that is there stays as it is.
 * A waiter may also be told -ESTALE (it changed meanwhile), -EFBIG, -ENOMEM, or the source's error.
 */
int stg_object_want(struct stg_cache *cache, struct stg_object *object, enum stg_priority priority,
                    struct stg_waiter *waiter);

/* What part of the file it stands for. */
struct stg_range stg_object_range(const struct stg_object *object);

/* The copy of an object that the caller holds. */
const struct stg_copy *stg_object_copy(const struct stg_object *object);
const struct stg_identity *stg_object_identity(const struct stg_object *object);

/*
 * One more hold on a copy that is held already, of this version of the file or not. For who has to
 * share what others have open. Who is `writing` makes it stale: nobody else is given it then. Calls
 * nobody back.
 */
void stg_object_join(struct stg_cache *cache, struct stg_object *object, bool writing);

/*
 * Writes into a copy that the caller holds, and grows it where need be (beyond the budget, if that
 * is full: who has it open must see what was written). Waits for a refresh that is under way; one
 * writer at a time. Returns 0 or the store's error, and the copy is as long as it was.
 */
int stg_object_write(struct stg_cache *cache, struct stg_object *object, const void *buffer,
                     uint64_t bytes, uint64_t offset);

/* The same, for making it shorter: `bytes` is no more than it has. */
int stg_object_shorten(struct stg_cache *cache, struct stg_object *object, uint64_t bytes);

/* The writers are gone. Calls nobody back. */
void stg_object_unshare(struct stg_cache *cache, struct stg_object *object);

/*
 * Fetches the file anew into the copy that the caller holds: whoever has it open or mapped sees the
 * new content. Waits for the source. A copy that is shared with writers is left to them, who say so
 * (`by_writer`). Returns 0; -EBUSY where somebody else is at it; or as a fetch, and the copy is
 * stale.
 */
int stg_object_refresh(struct stg_cache *cache, struct stg_object *object, bool by_writer);

/*
 * Is over when who holds the copy sees what the file was when this was called, or later: a refresh
 * that is under way is waited for, and made once more where it has missed that. A file that is
 * written all the time is taken as who reads it himself would find it. Nothing to do but for a copy
 * that is stale, and not its writers' own. Returns 0; -ESTALE, it was given up meanwhile; or the
 * source's error, and the copy is what it was.
 */
int stg_object_follow(struct stg_cache *cache, struct stg_object *object);

/* Is its copy stale, and nobody at it: neither its writers nor a refresh that is under way? */
bool stg_object_needs_refresh(struct stg_cache *cache, struct stg_object *object);

/* Waits for a refresh that is under way of a copy that the caller holds. */
void stg_object_await(struct stg_cache *cache, struct stg_object *object);

/* Ends a hold. */
void stg_object_put(struct stg_cache *cache, struct stg_object *object);

/*
 * The file changed, or may have: its copy is not served to anybody who asks from now on, and what
 * is being fetched is not kept. Who holds the copy keeps it until he puts it.
 */
void stg_object_invalidate(struct stg_cache *cache, struct stg_object *object);

/* The same where the copy is not of this version. True where it is, or there is none. */
bool stg_object_validate(struct stg_cache *cache, struct stg_object *object,
                         const struct stg_identity *now);

/* A moment's view, for people. */
struct stg_object_view {
    enum stg_state state;
    uint64_t size_bytes;
    uint64_t staged_bytes; /* in memory, compressed or not */
};
struct stg_object_view stg_object_view(struct stg_cache *cache, struct stg_object *object);
enum stg_state stg_object_state(struct stg_cache *cache, struct stg_object *object);

#endif
