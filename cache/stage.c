/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns who wants a copy, who holds one, and the threads that fetch.
 *
 * A fetch and a change of the file can meet in three ways. The change comes before the fetch reads
 * its version: then the fetch reads the new content. It comes while the fetch is on its way: the
 * versions differ at the end, and nothing is kept. It comes after: the object is HOT and is
 * invalidated like any other. In each case a change that the source shows by itself is seen by
 * fill.c, too.
 */
#include "cache/stage.h"

#include "cache/fill.h"
#include "cache/stage_impl.h"
#include "util/clock.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <string.h>
#include <time.h>

#define GHOSTS 65536
/* A file that changes faster than it can be fetched: the copies in use are of what it was. */
#define REWRITES_MAX 16
/* A file that changed as often while it was read is taken as it is read. */
#define WHOLE_TRIES 4
/* Compression works on the stack, too. */
#define WORKER_STACK_BYTES ((size_t)1 << 20)

/* ---- states, holds, waiters ---- */

static void list_absent_locked(struct stg_cache *cache, struct stg_object *object) {
    if (object->listed || object->freed || !cache->source->ops->absent)
        return;
    object->listed = true;
    object->refs++;
    object->next_absent = cache->absent;
    cache->absent = object;
}

void stg_stage_move_locked(struct stg_cache *cache, struct stg_object *object,
                           enum stg_state state) {
    if (!stg_state_may_become(object->state, state))
        stg_error("a staged object moves from %s to %s", stg_state_name(object->state),
                  stg_state_name(state));
    object->state = (uint8_t)state;
    if (state == STG_ABSENT)
        list_absent_locked(cache, object);
}

static struct stg_object *take_absent(struct stg_cache *cache) {
    struct stg_object *object;

    stg_lock_take(&cache->lock);
    object = cache->absent;
    if (object) {
        cache->absent = object->next_absent;
        object->listed = false;
    }
    stg_lock_drop(&cache->lock);
    return object;
}

void stg_stage_tell_absent(struct stg_cache *cache) {
    struct stg_object *object;

    if (!cache->source->ops->absent)
        return;
    while ((object = take_absent(cache))) {
        cache->source->ops->absent(cache->source->context, object->key, object);
        stg_object_unref(cache, object);
    }
}

struct stg_waiter *stg_stage_take_waiters_locked(struct stg_object *object) {
    struct stg_waiter *waiters = object->waiters;

    object->waiters = NULL;
    return waiters;
}

static void add_waiter_locked(struct stg_object *object, struct stg_waiter *waiter) {
    if (!waiter)
        return;
    waiter->next = object->waiters;
    object->waiters = waiter;
}

void stg_stage_tell(struct stg_waiter *waiters, int result) {
    while (waiters) {
        struct stg_waiter *next = waiters->next; /* the waiter's memory is his again afterwards */

        waiters->done(waiters, result);
        waiters = next;
    }
}

void stg_stage_hold_locked(struct stg_object *object, const struct stg_waiter *waiter) {
    object->holds++;
    object->used = true;
    if (!waiter || !waiter->goes_on)
        stg_fifo_use(&object->hot);
}

void stg_stage_hold_for_locked(struct stg_object *object, const struct stg_waiter *waiters) {
    for (; waiters; waiters = waiters->next)
        stg_stage_hold_locked(object, waiters);
}

void stg_stage_make_hot_locked(struct stg_cache *cache, struct stg_object *object,
                               struct stg_copy *copy) {
    stg_stage_move_locked(cache, object, STG_HOT);
    object->copy = *copy;
    *copy = (struct stg_copy){0};
    stg_fifo_add(&cache->hot, &object->hot, object->hash,
                 stg_store_copy_cost_bytes(&object->copy, object->copy.bytes));
}

struct stg_copy stg_stage_take_copy_locked(struct stg_object *object) {
    struct stg_copy copy = object->copy;

    object->copy = (struct stg_copy){0};
    return copy;
}

void stg_stage_drop_copy(struct stg_cache *cache, struct stg_copy *copy) {
    uint64_t cost_bytes = stg_store_copy_cost_bytes(copy, copy->bytes);

    if (!copy->number && !copy->memory)
        return;
    stg_stage_give_back(cache, copy);
    stg_store_drop(cache->store, copy);
    stg_budget_release(&cache->hot_budget, cost_bytes);
}

void stg_stage_withdraw(struct stg_cache *cache, const struct stg_object *object,
                        const struct stg_copy *copy) {
    if (copy->number && cache->source->ops->withdraw)
        cache->source->ops->withdraw(cache->source->context, object->key, copy->number);
}

void stg_object_ref(struct stg_cache *cache, struct stg_object *object) {
    stg_lock_take(&cache->lock);
    object->refs++;
    stg_lock_drop(&cache->lock);
}

void stg_object_unref(struct stg_cache *cache, struct stg_object *object) {
    bool last;

    stg_lock_take(&cache->lock);
    last = !--object->refs;
    stg_lock_drop(&cache->lock);
    if (!last)
        return;
    if (cache->source->ops->release)
        cache->source->ops->release(cache->source->context, object->key);
    free(object);
}

/* ---- fetching ---- */

int64_t stg_stage_now_ns(const struct stg_cache *cache) {
    return cache->config.now_ns ? cache->config.now_ns() : stg_clock_realtime_ns();
}

/* A fetch, and the version that the file had when it began. */
struct fetching {
    struct stg_cache *cache;
    struct stg_object *object;
    uint32_t version;
    /* By who wanted the content alone: a use that is over before there is a copy counts, too. */
    bool is_used;
    bool begun_by_hasty;
};

/* Takes the waiters that want the content as soon as it was read; of that version alone. */
static struct stg_waiter *take_hasty(struct fetching *fetching) {
    struct stg_waiter *taken = NULL;
    struct stg_waiter **at = &fetching->object->waiters;

    stg_lock_take(&fetching->cache->lock);
    while (*at && fetching->object->version == fetching->version) {
        struct stg_waiter *waiter = *at;

        if (waiter->came) {
            *at = waiter->next;
            waiter->next = taken;
            taken = waiter;
            fetching->is_used = true;
            fetching->begun_by_hasty = fetching->begun_by_hasty || !waiter->goes_on;
        } else {
            at = &waiter->next;
        }
    }
    stg_lock_drop(&fetching->cache->lock);
    return taken;
}

static void content_came(void *context, const struct stg_filled *filled) {
    struct fetching *fetching = context;
    const struct stg_source *source = fetching->cache->source;
    struct stg_waiter *waiters = take_hasty(fetching);

    while (waiters) {
        struct stg_waiter *next = waiters->next; /* the waiter's memory is his again afterwards */

        waiters->came(waiters, filled);
        waiters = next;
    }
    if (source->ops->content && !fetching->object->range.offset)
        source->ops->content(source->context, fetching->object->key, filled->content,
                             filled->bytes);
}

/*
 * The most that is fetched. A limit that was lowered, as memory got short, is none to a copy in
 * use: whoever has it open has to see what the file is.
 */
static uint64_t most_bytes(const struct stg_cache *cache, bool in_use) {
    uint64_t limit_bytes = atomic_load(&cache->hot_budget.limit_bytes);

    if (cache->config.file_bytes)
        return cache->config.file_bytes;
    return in_use && limit_bytes < cache->config.hot_bytes ? cache->config.hot_bytes : limit_bytes;
}

/* For a copy in use (`fetching` is NULL) whatever the file is now will do. */
static int fill(struct stg_cache *cache, const struct stg_object *object, struct fetching *fetching,
                bool may_mix, struct stg_filled *ret_filled) {
    bool again = !fetching;
    struct stg_fill_limits limits = {.max_bytes = most_bytes(cache, again),
                                     .again = again,
                                     .may_mix = may_mix,
                                     .now_ns = stg_stage_now_ns(cache),
                                     .settle_ns = again ? 0 : cache->config.settle_ns,
                                     .came = again ? NULL : content_came,
                                     .context = fetching};

    return stg_fill(cache->source, object->key, object->range, limits, ret_filled);
}

static void count_fill(struct stg_cache *cache, const struct stg_object *object, int error,
                       const struct stg_filled *filled) {
    struct stg_cache_stats *stats = &cache->stats;

    if (!error) {
        stg_stage_count(&stats->fills);
        if (object->range.bytes)
            stg_stage_count(&stats->range_fills);
        atomic_fetch_add(&stats->filled_bytes, filled->bytes);
        stg_histogram_add(&stats->fill_ns, filled->took_ns);
        if (cache->source->ops->fetched)
            cache->source->ops->fetched(cache->source->context, object->key, filled->bytes,
                                        filled->took_ns);
    } else if (error == -ESTALE) {
        stg_stage_count(&stats->changed_fills);
    } else if (error == -ENOSPC || error == -EFBIG || error == -ENOMEM) {
        stg_stage_count(&stats->refused_fills);
    } else {
        stg_stage_count(&stats->failed_fills);
    }
}

/* Was the file seen to be another since the fetch began? */
static bool is_overtaken_locked(const struct stg_object *object, const struct stg_filled *filled) {
    return object->is_seen && !stg_identity_equal(&object->seen, &filled->identity);
}

/* Fetches an object that is FILLING and busy, and tells who waits. */
static void fetch(struct stg_cache *cache, struct stg_object *object) {
    struct stg_filled filled = {0};
    struct stg_copy copy = {0};
    struct fetching fetching = {.cache = cache, .object = object};
    struct stg_waiter *waiters;
    struct stg_stage_begun begun = stg_stage_begin(cache);
    bool from_disk = false;
    int error;

    stg_lock_take(&cache->lock);
    fetching.version = object->version;
    object->is_seen = false; /* what was seen before is not newer than what comes now */
    error = object->freed ? -ECANCELED : 0;
    stg_lock_drop(&cache->lock);
    if (!error)
        from_disk = stg_stage_adopt(cache, object, &copy, &filled) ||
                    (!object->by_disk && stg_stage_from_disk(cache, object, &filled));
    if (!error && !from_disk)
        error = object->by_disk ? -ENODATA : fill(cache, object, &fetching, false, &filled);
    /* While it is busy: it is not queued again. */
    stg_queue_fetched(&cache->queue, &object->fetch,
                      from_disk || object->by_disk ? 0
                      : error                      ? -1
                                                   : (int64_t)filled.bytes);
    if (!error && !copy.file)
        error = stg_reclaim_keep(cache, filled.content, filled.bytes, &copy);
    stg_lock_take(&cache->lock);
    if (!error && (object->version != fetching.version || object->freed ||
                   is_overtaken_locked(object, &filled)))
        error = object->freed ? -ECANCELED : -ESTALE;
    waiters = stg_stage_take_waiters_locked(object);
    object->busy = false;
    if (error || (copy.file && !waiters)) { /* one that is on the disk is there for who has it */
        stg_stage_move_locked(cache, object, STG_ABSENT);
    } else {
        object->identity = filled.identity;
        object->used = fetching.is_used;
        stg_stage_make_hot_locked(cache, object, &copy);
        if (fetching.begun_by_hasty)
            stg_fifo_use(&object->hot);
        stg_stage_hold_for_locked(object, waiters);
    }
    stg_lock_drop(&cache->lock);
    stg_stage_drop_copy(cache, &copy);
    if (!from_disk && !object->by_disk)
        count_fill(cache, object, error, &filled);
    stg_stage_tell(waiters, error ? error : STG_WANT_READY);
    if (!error && !from_disk) /* behind those who wait */
        stg_stage_to_disk(cache, object, begun, &filled);
    stg_filled_fini(&filled);
    stg_object_unref(cache, object);
}

static struct stg_queue_entry *next_fetch(struct stg_cache *cache) {
    struct stg_queue_entry *entry = stg_queue_try_pop(&cache->queue);

    if (entry)
        return entry;
    stg_lock_take(&cache->lock);
    cache->idle++;
    stg_lock_drop(&cache->lock);
    entry = stg_queue_pop(&cache->queue);
    stg_lock_take(&cache->lock);
    cache->idle--;
    stg_lock_drop(&cache->lock);
    return entry;
}

static void *work(void *argument) {
    struct stg_cache *cache = argument;
    struct stg_queue_entry *entry;

    while ((entry = next_fetch(cache))) {
        fetch(cache, STG_OBJECT_OF(entry, fetch));
        stg_stage_tell_absent(cache);
    }
    return NULL;
}

/* One thread more, where all that there are have work. Returns 0, or -errno where there is none. */
static int add_worker_locked(struct stg_cache *cache) {
    pthread_attr_t attributes;
    int error;

    if (cache->stopping)
        return -ECANCELED;
    if (cache->idle > stg_queue_length(&cache->queue) ||
        cache->thread_count == cache->config.workers)
        return 0;
    (void)pthread_attr_init(&attributes); /* these cannot fail with valid arguments */
    (void)pthread_attr_setstacksize(&attributes, WORKER_STACK_BYTES);
    error = pthread_create(&cache->threads[cache->thread_count], &attributes, work, cache);
    (void)pthread_attr_destroy(&attributes);
    if (!error)
        cache->thread_count++;
    return cache->thread_count ? 0 : -error; /* fewer do, too */
}

/* ---- wanting ---- */

static int begin_fetch_locked(struct stg_cache *cache, struct stg_object *object,
                              enum stg_priority priority, struct stg_waiter *waiter) {
    int error = object->freed ? -ECANCELED : add_worker_locked(cache);

    if (error)
        return error;
    if (!stg_queue_push(&cache->queue, &object->fetch, priority))
        return -ECANCELED;
    if (waiter)
        stg_stage_count(&cache->stats.waits);
    if (waiter && object->range.bytes)
        stg_stage_count(&cache->stats.range_waits);
    stg_stage_move_locked(cache, object, STG_FILLING);
    object->busy = true;
    object->refs++;
    add_waiter_locked(object, waiter);
    return 0;
}

int stg_object_want(struct stg_cache *cache, struct stg_object *object, enum stg_priority priority,
                    struct stg_waiter *waiter) {
    bool inflate = false;
    uint32_t version;
    int result = 0;

    stg_lock_take(&cache->lock);
    version = object->version;
    if (object->busy) {
        add_waiter_locked(object, waiter);
        if (object->state == STG_FILLING)
            stg_queue_raise(&cache->queue, &object->fetch, priority);
    } else if (!waiter && (object->state == STG_HOT || object->state == STG_COLD)) {
        result = STG_WANT_READY;
    } else if (object->state == STG_HOT) {
        stg_stage_hold_locked(object, waiter);
        stg_stage_count(&cache->stats.hot_hits);
        if (object->range.bytes)
            stg_stage_count(&cache->stats.hot_range_hits);
        result = STG_WANT_READY;
    } else if (object->state == STG_COLD) {
        object->busy = inflate = true;
        object->refs++;
    } else if (object->state == STG_STALE) {
        result = -EBUSY;
    } else {
        result = begin_fetch_locked(cache, object, priority, waiter);
    }
    stg_lock_drop(&cache->lock);
    if (!inflate)
        return result;
    result = stg_reclaim_inflate(cache, object, version);
    stg_stage_tell_absent(cache);
    /* What was damaged is fetched again. */
    return result == -EBADMSG ? stg_object_want(cache, object, priority, waiter) : result;
}

const struct stg_copy *stg_object_copy(const struct stg_object *object) { return &object->copy; }

struct stg_range stg_object_range(const struct stg_object *object) {
    return object->range;
}

const struct stg_identity *stg_object_identity(const struct stg_object *object) {
    return &object->identity;
}

/*
 * The copy that nobody holds any more, and that is stale; or one on the disk, which takes a
 * descriptor, and room where it was evicted there.
 */
static struct stg_copy take_left_over_locked(struct stg_cache *cache, struct stg_object *object) {
    if (object->holds || object->busy ||
        !(object->state == STG_STALE || (object->state == STG_HOT && object->copy.file)))
        return (struct stg_copy){0};
    if (object->state == STG_HOT)
        stg_fifo_remove(&cache->hot, &object->hot);
    stg_stage_move_locked(cache, object, STG_ABSENT);
    return stg_stage_take_copy_locked(object);
}

/* What is due once the lock is dropped after a copy was taken out of an object, or none was. */
static void give_up(struct stg_cache *cache, const struct stg_object *object,
                    struct stg_copy *copy) {
    stg_stage_withdraw(cache, object, copy);
    stg_stage_drop_copy(cache, copy);
    stg_stage_tell_absent(cache);
}

void stg_object_put(struct stg_cache *cache, struct stg_object *object) {
    struct stg_copy copy = {0};

    stg_lock_take(&cache->lock);
    object->refs++; /* with the last hold it may be retired by others before this is done */
    object->holds--;
    copy = take_left_over_locked(cache, object);
    stg_lock_drop(&cache->lock);
    stg_reclaim_released(cache, object);
    give_up(cache, object, &copy);
    stg_object_unref(cache, object);
}

void stg_object_join(struct stg_cache *cache, struct stg_object *object, bool writing) {
    if (writing) /* of a copy that is held it is constant whether it is a file of the disk's */
        stg_stage_leave_disk(cache, &object->copy);
    stg_lock_take(&cache->lock);
    stg_stage_hold_locked(object, NULL);
    if (writing && object->state == STG_HOT) {
        stg_fifo_remove(&cache->hot, &object->hot);
        stg_stage_move_locked(cache, object, STG_STALE);
    }
    object->version += writing;
    object->shared = object->shared || writing;
    stg_lock_drop(&cache->lock);
}

void stg_object_unshare(struct stg_cache *cache, struct stg_object *object) {
    stg_lock_take(&cache->lock);
    object->shared = false;
    stg_lock_drop(&cache->lock);
}

void stg_object_await(struct stg_cache *cache, struct stg_object *object) {
    stg_lock_take(&cache->lock);
    while (object->busy)
        stg_lock_wait(&cache->lock, &cache->rewritten);
    stg_lock_drop(&cache->lock);
}

int stg_object_write(struct stg_cache *cache, struct stg_object *object, const void *buffer,
                     uint64_t bytes, uint64_t offset) {
    uint64_t old_cost;
    uint64_t new_cost;
    int error;

    stg_object_await(cache, object); /* from here on its writer has the copy to himself */
    stg_stage_leave_disk(cache, &object->copy);
    old_cost = stg_store_copy_cost_bytes(&object->copy, object->copy.bytes);
    new_cost = stg_store_copy_cost_bytes(&object->copy, offset + bytes);
    if (new_cost > old_cost && !stg_reclaim_make_room(cache, new_cost - old_cost))
        stg_budget_force(&cache->hot_budget, new_cost - old_cost);
    error = stg_store_write(cache->store, &object->copy, buffer, bytes, offset);
    if (error && new_cost > old_cost)
        stg_budget_release(&cache->hot_budget, new_cost - old_cost);
    stg_stage_tell_absent(cache);
    return error;
}

int stg_object_shorten(struct stg_cache *cache, struct stg_object *object, uint64_t bytes) {
    uint64_t old_cost;
    int error;

    stg_object_await(cache, object);
    stg_stage_leave_disk(cache, &object->copy);
    old_cost = stg_store_copy_cost_bytes(&object->copy, object->copy.bytes);
    error = stg_store_shorten(cache->store, &object->copy, bytes);
    if (!error)
        stg_budget_release(&cache->hot_budget,
                           old_cost - stg_store_copy_cost_bytes(&object->copy, bytes));
    return error;
}

/* ---- changes ---- */

/* Takes away what the object has, as far as nobody holds it. The copy is the caller's to drop. */
static struct stg_copy discard_locked(struct stg_cache *cache, struct stg_object *object) {
    struct stg_copy copy = {0};

    object->version++;
    if (object->busy) /* the working thread sees the version */
        return copy;
    if (object->state == STG_HOT) {
        stg_fifo_remove(&cache->hot, &object->hot);
        stg_stage_move_locked(cache, object, object->holds ? STG_STALE : STG_ABSENT);
        if (!object->holds)
            copy = stg_stage_take_copy_locked(object);
    } else if (object->state == STG_COLD) {
        stg_reclaim_drop_blob_locked(cache, object);
        stg_stage_move_locked(cache, object, STG_ABSENT);
    }
    return copy;
}

void stg_object_invalidate(struct stg_cache *cache, struct stg_object *object) {
    struct stg_copy copy;

    stg_lock_take(&cache->lock);
    if (object->state == STG_HOT || object->state == STG_COLD)
        stg_stage_count(&cache->stats.invalidated);
    copy = discard_locked(cache, object);
    stg_lock_drop(&cache->lock);
    give_up(cache, object, &copy);
}

bool stg_object_validate(struct stg_cache *cache, struct stg_object *object,
                         const struct stg_identity *now) {
    bool differs;

    stg_lock_take(&cache->lock);
    if (object->busy) { /* what is being fetched is compared with it in the end */
        object->seen = *now;
        object->is_seen = true;
    }
    differs = (object->state == STG_HOT || object->state == STG_COLD) &&
              !stg_identity_equal(&object->identity, now);
    stg_lock_drop(&cache->lock);
    if (differs)
        stg_object_invalidate(cache, object);
    return !differs;
}

/* Brings a held object to where its copy may be rewritten. False where somebody works on it. */
static bool begin_refresh(struct stg_cache *cache, struct stg_object *object, bool by_writer,
                          uint32_t *ret_version) {
    bool begun;

    stg_lock_take(&cache->lock);
    begun = !object->busy && (by_writer || !object->shared) &&
            (object->state == STG_HOT || object->state == STG_STALE);
    if (begun) {
        if (object->state == STG_HOT) {
            stg_fifo_remove(&cache->hot, &object->hot);
            stg_stage_move_locked(cache, object, STG_STALE);
        }
        object->busy = true;
        object->is_seen = false;
        object->refs++;
        *ret_version = object->version;
    }
    stg_lock_drop(&cache->lock);
    return begun;
}

/* Makes the copy of a busy object what the file is. 0 or -errno; `ret_filled` is the caller's. */
static int rewrite(struct stg_cache *cache, struct stg_object *object, bool may_mix,
                   struct stg_filled *ret_filled) {
    int error = object->copy.file ? stg_stage_rewrite_file(cache, object, may_mix, ret_filled)
                                  : fill(cache, object, NULL, may_mix, ret_filled);

    if (error ==
        -EBUSY) /* of the source: ours says that another is at it, and will be waited for */
        return -EIO;
    /* The copy is ours while the object is busy. */
    if (error || object->copy.file)
        return error;
    return stg_reclaim_rewrite(cache, &object->copy, ret_filled->content, ret_filled->bytes);
}

static int refresh(struct stg_cache *cache, struct stg_object *object, bool by_writer,
                   bool may_mix) {
    struct stg_filled filled = {0};
    struct stg_waiter *waiters;
    struct stg_copy copy;
    uint32_t version;
    int error;

    if (!begin_refresh(cache, object, by_writer, &version))
        return -EBUSY;
    error = rewrite(cache, object, may_mix, &filled);
    stg_lock_take(&cache->lock);
    /* Who saw that it changed again has found the object busy, and left it to us. */
    for (int i = 0; i < REWRITES_MAX && !by_writer && !object->freed && object->is_seen &&
                    (error == -ESTALE || (!error && is_overtaken_locked(object, &filled)));
         i++) {
        object->is_seen = false;
        stg_lock_drop(&cache->lock);
        stg_filled_fini(&filled);
        error = rewrite(cache, object, may_mix, &filled);
        stg_lock_take(&cache->lock);
    }
    /* Writers come one at a time; what raised the version for them is their coming. */
    if (!error && ((object->version != version && !by_writer) || object->freed))
        error = -ESTALE;
    object->busy = false;
    waiters = stg_stage_take_waiters_locked(object);
    if (!error)
        stg_stage_count(&cache->stats.refreshed);
    /* Else it stays for those alone who have it, until it is looked at once more. */
    if (!error && !filled.mixed && !object->shared && !is_overtaken_locked(object, &filled) &&
        stg_fill_is_settled(&filled.identity, stg_stage_now_ns(cache), cache->config.settle_ns)) {
        stg_stage_move_locked(cache, object, STG_HOT);
        object->identity = filled.identity;
        stg_fifo_add(&cache->hot, &object->hot, object->hash,
                     stg_store_copy_cost_bytes(&object->copy, object->copy.bytes));
    }
    copy = take_left_over_locked(cache, object);
    pthread_cond_broadcast(&cache->rewritten);
    stg_lock_drop(&cache->lock);
    stg_filled_fini(&filled);
    stg_reclaim_ask_again(cache, object, waiters);
    give_up(cache, object, &copy);
    stg_object_unref(cache, object);
    return error;
}

int stg_object_refresh(struct stg_cache *cache, struct stg_object *object, bool by_writer) {
    return refresh(cache, object, by_writer, false);
}

/* Waits for a refresh that is under way. Has it to be fetched anew then? */
static bool is_stale_at_rest(struct stg_cache *cache, struct stg_object *object) {
    bool stale;

    stg_lock_take(&cache->lock);
    /* Not for what else keeps it busy when nobody has it any more: the end of that is not told. */
    while (object->busy && object->state == STG_STALE)
        stg_lock_wait(&cache->lock, &cache->rewritten);
    stale = object->state == STG_STALE && !object->shared;
    stg_lock_drop(&cache->lock);
    return stale;
}

int stg_object_follow(struct stg_cache *cache, struct stg_object *object) {
    int error = 0;
    int tries = 0;

    while (is_stale_at_rest(cache, object)) {
        error = refresh(cache, object, false, tries >= WHOLE_TRIES);
        if (error == -EBUSY)
            continue; /* somebody was faster */
        if (error != -ESTALE || ++tries > WHOLE_TRIES)
            return error;
    }
    return 0;
}

bool stg_object_needs_refresh(struct stg_cache *cache, struct stg_object *object) {
    bool needs;

    stg_lock_take(&cache->lock);
    needs = object->state == STG_STALE && !object->busy && !object->shared;
    stg_lock_drop(&cache->lock);
    return needs;
}

struct stg_object_view stg_object_view(struct stg_cache *cache, struct stg_object *object) {
    struct stg_object_view view;

    stg_lock_take(&cache->lock);
    view = (struct stg_object_view){.state = object->state,
                                    .size_bytes = (uint64_t)object->identity.size_bytes,
                                    .staged_bytes = object->state == STG_COLD ? object->blob_bytes
                                                                              : object->copy.bytes};
    stg_lock_drop(&cache->lock);
    return view;
}

enum stg_state stg_object_state(struct stg_cache *cache, struct stg_object *object) {
    enum stg_state state;

    stg_lock_take(&cache->lock);
    state = object->state;
    stg_lock_drop(&cache->lock);
    return state;
}

/* ---- objects and caches ---- */

struct stg_object *stg_object_new(struct stg_cache *cache, void *key, struct stg_range range,
                                  uint64_t hash) {
    struct stg_object *object = calloc(1, sizeof(*object));

    (void)cache; /* it has no list of its objects: they are the mount's */
    if (object) {
        object->key = key;
        object->range = range;
        object->hash = hash;
        object->refs = 1;
    }
    return object;
}

void stg_object_by_disk(struct stg_object *object) { object->by_disk = true; }

bool stg_object_is_by_disk(const struct stg_object *object) { return object->by_disk; }

void stg_object_free(struct stg_cache *cache, struct stg_object *object) {
    struct stg_waiter *waiters = NULL;
    struct stg_copy copy;
    bool unqueued;

    if (!object)
        return;
    stg_lock_take(&cache->lock);
    object->freed = true;
    unqueued = stg_queue_remove(&cache->queue, &object->fetch);
    if (unqueued) {
        object->busy = false;
        stg_stage_move_locked(cache, object, STG_ABSENT);
        waiters = stg_stage_take_waiters_locked(object);
    }
    copy = discard_locked(cache, object);
    if (!copy.number && !copy.memory)
        copy = take_left_over_locked(cache, object);
    stg_lock_drop(&cache->lock);
    give_up(cache, object, &copy);
    stg_stage_tell(waiters, -ECANCELED);
    if (unqueued)
        stg_object_unref(cache, object);
    stg_object_unref(cache, object);
}

bool stg_object_retire(struct stg_cache *cache, struct stg_object *object) {
    bool idle;

    stg_lock_take(&cache->lock);
    idle = object->state == STG_ABSENT && !object->busy && !object->freed;
    if (idle)
        object->freed = true;
    stg_lock_drop(&cache->lock);
    if (idle)
        stg_object_unref(cache, object);
    return idle;
}

int stg_cache_new(const struct stg_cache_config *config, const struct stg_source *source,
                  struct stg_cache **ret_cache) {
    struct stg_cache *cache = calloc(1, sizeof(*cache));
    int error;

    if (!cache)
        return -ENOMEM;
    cache->config = *config;
    cache->source = source;
    stg_lock_init(&cache->lock, STG_RANK_CACHE);
    pthread_cond_init(&cache->rewritten, NULL);
    stg_queue_init(&cache->queue, config->fetch_bytes_per_s, config->workers);
    stg_budget_init(&cache->hot_budget, config->hot_bytes);
    stg_budget_init(&cache->cold_budget, config->cold_bytes);
    error = stg_fifo_init(&cache->hot, GHOSTS);
    if (!error)
        error = stg_fifo_init(&cache->cold, GHOSTS);
    if (!error)
        error = stg_store_new(config->store_bytes > config->hot_bytes ? config->store_bytes
                                                                      : config->hot_bytes,
                              config->in_memory, &cache->store);
    if (!error)
        error = (cache->threads = calloc(config->workers, sizeof(*cache->threads))) ? 0 : -ENOMEM;
    if (error) {
        stg_cache_free(cache);
        return error;
    }
    *ret_cache = cache;
    return 0;
}

void stg_cache_stop(struct stg_cache *cache) {
    unsigned count;

    stg_lock_take(&cache->lock);
    cache->stopping = true; /* no thread is started any more */
    count = cache->thread_count;
    cache->thread_count = 0;
    stg_lock_drop(&cache->lock);
    stg_queue_close(&cache->queue);
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(cache->threads[i], NULL); /* ours, and joined once */
}

void stg_cache_free(struct stg_cache *cache) {
    if (!cache)
        return;
    stg_cache_stop(cache);
    free(cache->threads);
    stg_store_free(cache->store);
    stg_fifo_fini(&cache->hot);
    stg_fifo_fini(&cache->cold);
    stg_queue_fini(&cache->queue);
    pthread_cond_destroy(&cache->rewritten);
    stg_lock_fini(&cache->lock);
    free(cache);
}

void stg_cache_refuse_files(struct stg_cache *cache) { atomic_store(&cache->files_refused, true); }

bool stg_cache_has_refused_files(struct stg_cache *cache) {
    return atomic_load(&cache->files_refused);
}

const struct stg_cache_stats *stg_cache_stats(const struct stg_cache *cache) {
    return &cache->stats;
}

struct stg_store *stg_cache_store(const struct stg_cache *cache) {
    return cache->store;
}

struct stg_cache_usage stg_cache_usage(struct stg_cache *cache) {
    struct stg_cache_usage usage = {.hot_bytes = cache->hot_budget.used_bytes,
                                    .hot_peak_bytes = cache->hot_budget.peak_bytes,
                                    .hot_limit_bytes = cache->hot_budget.limit_bytes,
                                    .cold_bytes = cache->cold_budget.used_bytes,
                                    .cold_peak_bytes = cache->cold_budget.peak_bytes,
                                    .cold_limit_bytes = cache->cold_budget.limit_bytes,
                                    .queued = stg_queue_length(&cache->queue),
                                    .fetch_depth = stg_queue_depth(&cache->queue)};

    stg_lock_take(&cache->lock);
    usage.cold_raw_bytes = cache->cold_raw_bytes;
    stg_lock_drop(&cache->lock);
    return usage;
}

void stg_cache_limit(struct stg_cache *cache, uint64_t hot_bytes, uint64_t cold_bytes) {
    stg_budget_set_limit(&cache->hot_budget, hot_bytes);
    stg_budget_set_limit(&cache->cold_budget, cold_bytes);
    stg_reclaim_shrink(cache);
    stg_stage_tell_absent(cache);
}
