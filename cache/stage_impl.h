/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What stage.c (wanting, fetching, holding) and reclaim.c (going cold, coming back, going away)
 * share. For these two alone.
 *
 * `busy` marks an object that one thread works on without the lock: it is being fetched, packed or
 * unpacked. Nobody else moves its state meanwhile; a change of the file is left in `version`, which
 * the working thread compares when it is done. A working thread has a reference.
 */
#ifndef STG_CACHE_STAGE_IMPL_H
#define STG_CACHE_STAGE_IMPL_H

#include "cache/budget.h"
#include "cache/fifo.h"
#include "cache/stage.h"

struct stg_object {
    struct stg_queue_entry fetch; /* protected by the queue's lock */
    struct stg_fifo_entry hot;    /* protected by cache->lock, as all below but the constants */
    struct stg_fifo_entry cold;
    void *key;                    /* constant */
    struct stg_range range;       /* constant */
    bool by_disk;                 /* constant; as of stg_object_by_disk() */
    uint64_t hash;                /* constant */
    struct stg_identity identity; /* of the copy or blob; constant while somebody holds it */
    struct stg_identity seen;     /* of the file, by somebody who looked while it was busy */
    bool is_seen;                 /* since the fetch began */
    struct stg_copy copy;
    void *blob;
    size_t blob_bytes;
    uint64_t raw_bytes; /* of the blob when inflated */
    struct stg_waiter *waiters;
    struct stg_object *next_absent; /* of the list of those that the owner is to be told of */
    uint32_t version;               /* raised by each change of the file */
    uint32_t holds;
    uint32_t refs; /* the owner's, and those of working threads */
    uint8_t state; /* enum stg_state */
    bool busy;
    bool freed; /* by its owner */
    bool used;
    bool shared; /* with writers, who keep it current: no refresh but theirs */
    bool listed; /* on the list of absent ones, which has a reference */
};

struct stg_cache {
    struct stg_cache_config config; /* constant */
    const struct stg_source *source;
    struct stg_store *store;
    struct stg_lock lock;
    struct stg_fifo hot;       /* protected by lock */
    struct stg_fifo cold;      /* the same */
    struct stg_object *absent; /* became so, and the owner has not been told; protected by lock */
    struct stg_budget hot_budget;
    struct stg_budget cold_budget;
    uint64_t cold_raw_bytes;   /* protected by lock */
    atomic_bool files_refused; /* see stg_cache_refuse_files() */
    struct stg_queue queue;
    struct stg_cache_stats stats;
    pthread_cond_t rewritten; /* a refresh is done */
    pthread_t *threads;       /* protected by lock, as all below; ended by stg_cache_stop() */
    unsigned thread_count;
    unsigned idle; /* of the threads those that wait for work */
    bool stopping;
};

#define STG_OBJECT_OF(entry, member)                                                               \
    ((struct stg_object *)(void *)((char *)(entry)-offsetof(struct stg_object, member)))

static inline void stg_stage_count(_Atomic uint64_t *counter) {
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- stage.c ---- */

/* The time of day, as the configuration has it. */
int64_t stg_stage_now_ns(const struct stg_cache *cache);

void stg_stage_move_locked(struct stg_cache *cache, struct stg_object *object,
                           enum stg_state state);

/* Tells the owner which objects have become absent. Without the lock; at the end of each call. */
void stg_stage_tell_absent(struct stg_cache *cache);

/* Takes all waiters, who are then told by stg_stage_tell(), without the lock. */
struct stg_waiter *stg_stage_take_waiters_locked(struct stg_object *object);
void stg_stage_tell(struct stg_waiter *waiters, int result);

/* Holds the hot object, once or once for each waiter, and says so to the eviction. */
void stg_stage_hold_locked(struct stg_object *object, const struct stg_waiter *waiter);
void stg_stage_hold_for_locked(struct stg_object *object, const struct stg_waiter *waiters);

/* Makes the object hot with `*copy`, which is taken over and becomes none. */
void stg_stage_make_hot_locked(struct stg_cache *cache, struct stg_object *object,
                               struct stg_copy *copy);

/* Takes the copy out of the object; given up by stg_stage_drop_copy() without the lock. */
struct stg_copy stg_stage_take_copy_locked(struct stg_object *object);
void stg_stage_drop_copy(struct stg_cache *cache, struct stg_copy *copy);

/* Has the owner give up what he keeps of an object's copy that nobody holds. Without the lock. */
void stg_stage_withdraw(struct stg_cache *cache, const struct stg_object *object,
                        const struct stg_copy *copy);

/* ---- stage_disk.c ---- */

/* The copy on disk of what the object stands for. False where there is none, or it cannot be said.
 */
bool stg_stage_from_disk(struct stg_cache *cache, const struct stg_object *object,
                         struct stg_filled *ret_filled);

/*
 * The same where the disk has a large file of all of it that may be the copy itself, for which room
 * is reserved. `*ret_filled` has no content.
 */
bool stg_stage_adopt(struct stg_cache *cache, const struct stg_object *object,
                     struct stg_copy *ret_copy, struct stg_filled *ret_filled);

/* The copy goes: what it was on the disk may be another's. */
void stg_stage_give_back(struct stg_cache *cache, const struct stg_copy *copy);

/* The copy is about to be written to: it is none of the disk's any more. */
void stg_stage_leave_disk(struct stg_cache *cache, const struct stg_copy *copy);

/*
 * Makes the copy of a busy object, which is a file, what the source's file is: as a fetch of it,
 * and in parts, as it may be larger than memory.
 */
int stg_stage_rewrite_file(struct stg_cache *cache, struct stg_object *object, bool may_mix,
                           struct stg_filled *ret_filled);

/* What is to be noted when a fetch begins of which something may be kept on disk. */
struct stg_stage_begun {
    int64_t now_ns; /* the time of day */
    uint64_t forgotten;
};
struct stg_stage_begun stg_stage_begin(struct stg_cache *cache);

/*
 * Has what was fetched kept on disk, and takes the content over, unless a later change might not
 * show.
 */
void stg_stage_to_disk(struct stg_cache *cache, const struct stg_object *object,
                       struct stg_stage_begun begun, struct stg_filled *filled);

/* ---- reclaim.c ---- */

/*
 * Keeps `content` as a hot copy, within the budget. Returns 0, -ENOSPC, or the store's error;
 * nothing is kept or reserved then.
 */
int stg_reclaim_keep(struct stg_cache *cache, const void *content, uint64_t bytes,
                     struct stg_copy *ret_copy);

/* Reserves so much of the budget, and evicts for it what is not in use. False where there is none.
 */
bool stg_reclaim_make_room(struct stg_cache *cache, uint64_t cost_bytes);

/* Reserves room for a copy that is there already. False where there is none. */
bool stg_reclaim_take_in(struct stg_cache *cache, const struct stg_copy *copy);

/*
 * Replaces the content of the copy that a busy object has: of one in use, which must not stay what
 * the file no more is, so even beyond the budget. Returns 0 or the store's error; the copy's size
 * is right either way.
 */
int stg_reclaim_rewrite(struct stg_cache *cache, struct stg_copy *copy, const void *content,
                        uint64_t bytes);

/* Evicts until the limits hold, as far as nothing in use is in the way. */
void stg_reclaim_shrink(struct stg_cache *cache);

/* Nobody holds the object any more: it goes where what was in use is more than the limit. */
void stg_reclaim_released(struct stg_cache *cache, struct stg_object *object);

/* Asks again for each of those who came while the object was worked on. */
void stg_reclaim_ask_again(struct stg_cache *cache, struct stg_object *object,
                           struct stg_waiter *waiters);

/* Frees the blob of a cold object, its room too. */
void stg_reclaim_drop_blob_locked(struct stg_cache *cache, struct stg_object *object);

/*
 * Makes a cold object hot again, held for the caller; the object is busy and has a reference for
 * this, both of which end here. `version` is what it was when it became busy: a change after that
 * is left to whoever works on it. Returns STG_WANT_READY or -errno, -EBADMSG for a corrupt blob,
 * which is gone then.
 */
int stg_reclaim_inflate(struct stg_cache *cache, struct stg_object *object, uint32_t version);

#endif
