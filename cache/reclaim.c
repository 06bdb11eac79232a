/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns how room is made and given back: hot copies go cold where they shrink and there is room for
 * that, or go; cold ones come back when they are wanted, or go.
 *
 * An object that is being packed or unpacked is busy and in no queue; the thread at work is the one
 * that puts it back. Waiters that came meanwhile are answered from what became of it.
 */
#include "cache/codec.h"
#include "cache/stage_impl.h"
#include "util/cleanup.h"

#include <string.h>

static bool may_go(const struct stg_fifo_entry *entry, void *context) {
    const struct stg_object *object = STG_OBJECT_OF(entry, hot);

    (void)context;
    return !object->holds;
}

static bool may_go_cold(const struct stg_fifo_entry *entry, void *context) {
    const struct stg_object *object = STG_OBJECT_OF(entry, cold);

    (void)context;
    return !object->busy; /* one that is being unpacked is still in the queue */
}

/* ---- cold copies ---- */

void stg_reclaim_drop_blob_locked(struct stg_cache *cache, struct stg_object *object) {
    stg_fifo_remove(&cache->cold, &object->cold);
    stg_budget_release(&cache->cold_budget, object->blob_bytes);
    cache->cold_raw_bytes -= object->raw_bytes;
    free(object->blob);
    object->blob = NULL;
    object->blob_bytes = 0;
}

static void note_evicted(struct stg_cache *cache, const struct stg_object *object) {
    stg_stage_count(&cache->stats.evicted);
    if (object->used)
        return;
    stg_stage_count(&cache->stats.evicted_unused);
    atomic_fetch_add(&cache->stats.evicted_unused_bytes, object->raw_bytes);
}

/* Evicts one cold copy. False where there is none that may go. */
static bool evict_cold_locked(struct stg_cache *cache) {
    struct stg_fifo_entry *entry = stg_fifo_evict(&cache->cold, may_go_cold, NULL);
    struct stg_object *object;

    if (!entry)
        return false;
    object = STG_OBJECT_OF(entry, cold);
    note_evicted(cache, object);
    stg_reclaim_drop_blob_locked(cache, object);
    stg_stage_move_locked(cache, object, STG_ABSENT);
    return true;
}

/* Reserves cold room; what goes for that is gone at once. */
static bool reserve_cold_locked(struct stg_cache *cache, uint64_t bytes) {
    if (bytes > atomic_load(&cache->cold_budget.limit_bytes))
        return false;
    while (!stg_budget_reserve(&cache->cold_budget, bytes))
        if (!evict_cold_locked(cache))
            return false;
    return true;
}

/* The copy as a blob, or 0 where it does not shrink or cannot be read. */
static size_t pack(struct stg_cache *cache, const struct stg_copy *copy, void **ret_blob) {
    stg_auto_free char *raw = NULL;
    ssize_t packed = -1;

    if (copy->file) /* it is on a disk, and takes no memory as it is */
        return 0;
    if (!atomic_load(&cache->cold_budget.limit_bytes) || !cache->config.compress_level)
        return 0;
    raw = malloc(copy->bytes ? copy->bytes : 1);
    if (raw && stg_store_read(cache->store, copy, raw, copy->bytes, 0) == (ssize_t)copy->bytes)
        packed = stg_codec_pack(raw, copy->bytes, cache->config.compress_level, ret_blob);
    if (packed == -E2BIG)
        stg_stage_count(&cache->stats.incompressible);
    return packed > 0 ? (size_t)packed : 0;
}

void stg_reclaim_ask_again(struct stg_cache *cache, struct stg_object *object,
                           struct stg_waiter *waiters) {
    while (waiters) {
        struct stg_waiter *next = waiters->next;
        int result = stg_object_want(cache, object, STG_PRIORITY_WAITING, waiters);

        if (result)
            waiters->done(waiters, result);
        waiters = next;
    }
}

/* Takes a hot object, out of its queue and busy, to the cold side, or away. */
static void demote(struct stg_cache *cache, struct stg_object *object, uint32_t version) {
    void *blob = NULL;
    size_t blob_bytes = pack(cache, &object->copy, &blob);
    struct stg_waiter *waiters;
    struct stg_copy copy;

    stg_lock_take(&cache->lock);
    copy = stg_stage_take_copy_locked(object);
    object->raw_bytes = copy.bytes;
    if (blob && object->version == version && !object->freed &&
        reserve_cold_locked(cache, blob_bytes)) {
        stg_stage_move_locked(cache, object, STG_COLD);
        object->blob = blob;
        object->blob_bytes = blob_bytes;
        cache->cold_raw_bytes += object->raw_bytes;
        blob = NULL;
        stg_fifo_add(&cache->cold, &object->cold, object->hash, blob_bytes);
        stg_stage_count(&cache->stats.packed);
    } else {
        stg_stage_move_locked(cache, object, STG_ABSENT);
        note_evicted(cache, object);
    }
    object->busy = false;
    waiters = stg_stage_take_waiters_locked(object);
    stg_lock_drop(&cache->lock);
    free(blob);
    stg_stage_withdraw(cache, object, &copy);
    stg_stage_drop_copy(cache, &copy);
    stg_reclaim_ask_again(cache, object, waiters);
    stg_object_unref(cache, object);
}

/* Nobody else may change the object until demote() has given it up; returns its version. */
static uint32_t make_busy_locked(struct stg_object *object) {
    object->busy = true;
    object->refs++;
    return object->version;
}

/* Evicts one hot copy. False where all are held, or there is none. */
static bool evict_one(struct stg_cache *cache) {
    struct stg_fifo_entry *entry;
    struct stg_object *object = NULL;
    uint32_t version = 0;

    stg_lock_take(&cache->lock);
    entry = stg_fifo_evict(&cache->hot, may_go, NULL);
    if (entry) {
        object = STG_OBJECT_OF(entry, hot);
        version = make_busy_locked(object);
    }
    stg_lock_drop(&cache->lock);
    if (object)
        demote(cache, object, version);
    return object != NULL;
}

/* Reserves `cost_bytes` of hot room, by evicting where need be. False where that cannot be. */
bool stg_reclaim_make_room(struct stg_cache *cache, uint64_t cost_bytes) {
    bool pressed = false;

    if (cost_bytes > atomic_load(&cache->hot_budget.limit_bytes))
        return false;
    while (!stg_budget_reserve(&cache->hot_budget, cost_bytes)) {
        if (evict_one(cache))
            continue;
        if (pressed || !cache->source->ops->press)
            return false;
        cache->source->ops->press(cache->source->context);
        pressed = true;
    }
    return true;
}

int stg_reclaim_keep(struct stg_cache *cache, const void *content, uint64_t bytes,
                     struct stg_copy *ret_copy) {
    uint64_t cost_bytes = stg_store_cost_bytes(bytes);
    int error;

    if (!stg_reclaim_make_room(cache, cost_bytes))
        return -ENOSPC;
    error = stg_store_put(cache->store, content, bytes, ret_copy);
    if (error)
        stg_budget_release(&cache->hot_budget, cost_bytes);
    return error;
}

bool stg_reclaim_take_in(struct stg_cache *cache, const struct stg_copy *copy) {
    return stg_reclaim_make_room(cache, stg_store_copy_cost_bytes(copy, copy->bytes));
}

int stg_reclaim_rewrite(struct stg_cache *cache, struct stg_copy *copy, const void *content,
                        uint64_t bytes) {
    uint64_t old_cost = stg_store_cost_bytes(copy->bytes);
    uint64_t new_cost = stg_store_cost_bytes(bytes);
    int error;

    if (new_cost > old_cost && !stg_reclaim_make_room(cache, new_cost - old_cost))
        stg_budget_force(&cache->hot_budget, new_cost - old_cost);
    error = stg_store_rewrite(cache->store, copy, content, bytes);
    /* What the file takes now is at least accounted for, if it could not be rewritten whole. */
    if (error && new_cost > old_cost)
        copy->bytes = bytes;
    else if (!error && new_cost < old_cost)
        stg_budget_release(&cache->hot_budget, old_cost - new_cost);
    return error;
}

void stg_reclaim_released(struct stg_cache *cache, struct stg_object *object) {
    uint32_t version = 0;
    bool goes;

    if (!stg_budget_excess(&cache->hot_budget))
        return;
    stg_lock_take(&cache->lock);
    goes = object->state == STG_HOT && !object->holds && !object->busy;
    if (goes) {
        stg_fifo_remove(&cache->hot, &object->hot);
        version = make_busy_locked(object);
    }
    stg_lock_drop(&cache->lock);
    if (goes)
        demote(cache, object, version);
}

void stg_reclaim_shrink(struct stg_cache *cache) {
    while (stg_budget_excess(&cache->hot_budget) && evict_one(cache))
        ;
    stg_lock_take(&cache->lock);
    while (stg_budget_excess(&cache->cold_budget) && evict_cold_locked(cache))
        ;
    stg_lock_drop(&cache->lock);
}

/* ---- back again ---- */

/* The blob's content as a hot copy. 0 or -errno. */
static int unpack(struct stg_cache *cache, const struct stg_object *object,
                  struct stg_copy *ret_copy) {
    ssize_t raw_bytes = stg_codec_raw_bytes(object->blob, object->blob_bytes);
    stg_auto_free char *raw = NULL;

    if (raw_bytes < 0)
        return (int)raw_bytes;
    raw = malloc((size_t)raw_bytes);
    if (!raw)
        return -ENOMEM;
    if (stg_codec_unpack(object->blob, object->blob_bytes, raw, (size_t)raw_bytes) != raw_bytes)
        return -EBADMSG;
    return stg_reclaim_keep(cache, raw, (uint64_t)raw_bytes, ret_copy);
}

int stg_reclaim_inflate(struct stg_cache *cache, struct stg_object *object, uint32_t version) {
    struct stg_copy copy = {0};
    struct stg_waiter *waiters;
    int error = unpack(cache, object, &copy); /* the blob is ours while the object is busy */

    stg_lock_take(&cache->lock);
    if (object->version != version || object->freed)
        error = object->freed ? -ECANCELED : -ESTALE;
    waiters = stg_stage_take_waiters_locked(object);
    object->busy = false;
    if (!error) {
        stg_reclaim_drop_blob_locked(cache, object);
        stg_stage_make_hot_locked(cache, object, &copy);
        stg_stage_hold_locked(object, NULL);
        stg_stage_hold_for_locked(object, waiters);
        stg_stage_count(&cache->stats.cold_hits);
    } else if (error == -EBADMSG || error == -ESTALE || error == -ECANCELED) {
        stg_reclaim_drop_blob_locked(cache, object);
        stg_stage_move_locked(cache, object, STG_ABSENT);
        if (error == -EBADMSG)
            stg_stage_count(&cache->stats.corrupt);
    }
    stg_lock_drop(&cache->lock);
    stg_stage_drop_copy(cache, &copy);
    if (error == -EBADMSG)
        stg_reclaim_ask_again(cache, object, waiters);
    else
        stg_stage_tell(waiters, error ? error : STG_WANT_READY);
    stg_object_unref(cache, object);
    return error ? error : STG_WANT_READY;
}
