/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns what waits to be written, and the thread that hands it to the process that writes: batches
 * of what was queued, in its order.
 */
#include "cache/disk_impl.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <string.h>

#define QUEUE_MAX_BYTES (UINT64_C(64) << 20)
/* A batch waits so long for more, */
#define GATHER_NS INT64_C(500000000)
/* or until there is that much; a part of the map at most. */
#define BATCH_MAX_BYTES (UINT64_C(8) << 20)
#define BATCH_MAP_PART 32
/* A disk that was full is tried again after that. */
#define FULL_NS INT64_C(60000000000)

/* ---- the queue ---- */

bool stg_disk_is_usable(struct stg_disk *disk) {
    return atomic_load(&disk->is_open) && atomic_load(&disk->state) != STG_DISK_FAILED;
}

/* Is the path the one that is forgotten, or below it where that goes, too? */
static bool covers(const char *forgotten, bool with_below, const char *path) {
    size_t bytes = strlen(forgotten);

    return !strncmp(path, forgotten, bytes) && (!path[bytes] || (with_below && path[bytes] == '/'));
}

/* Was the path forgotten since there were so many? Where that is too long ago to be known, yes. */
static bool was_forgotten_locked(const struct stg_disk *disk, const char *path, uint64_t since) {
    if (disk->forgotten - since > STG_DISK_RECENT)
        return true;
    for (uint64_t i = since; i < disk->forgotten; i++) {
        const struct stg_disk_recent *recent = &disk->recent[i % STG_DISK_RECENT];

        if (covers(recent->path, recent->with_below, path))
            return true;
    }
    return false;
}

static void note_forgotten_locked(struct stg_disk *disk, const struct stg_disk_work *work) {
    struct stg_disk_recent *recent = &disk->recent[disk->forgotten++ % STG_DISK_RECENT];

    recent->with_below = work->with_below;
    memcpy(recent->path, work->key.text, work->key.bytes);
}

uint64_t stg_disk_forgotten(struct stg_disk *disk) {
    uint64_t forgotten;

    stg_lock_take(&disk->lock);
    forgotten = disk->forgotten;
    stg_lock_drop(&disk->lock);
    return forgotten;
}

static uint64_t batch_bytes(const struct stg_disk *disk) {
    uint64_t part = disk->map_bytes / BATCH_MAP_PART;

    return part < BATCH_MAX_BYTES ? part : BATCH_MAX_BYTES;
}

/* `forgotten` as of stg_disk_put(), for that alone. */
static bool push(struct stg_disk *disk, struct stg_disk_work *work, uint64_t forgotten) {
    bool is_first;
    bool taken;

    stg_lock_take(&disk->lock);
    taken = !disk->stopping;
    if (work->kind == STG_DISK_PUT)
        taken = taken && disk->queued_bytes + work->content_bytes <= QUEUE_MAX_BYTES &&
                !was_forgotten_locked(disk, work->key.text, forgotten);
    if (work->kind == STG_DISK_FORGET)
        note_forgotten_locked(disk, work);
    if (taken) {
        is_first = !disk->first;
        if (is_first)
            disk->first = work;
        else
            disk->last->next = work;
        disk->last = work;
        disk->pushed++;
        disk->queued_bytes += work->content_bytes + sizeof(*work);
        disk->forgets += work->kind == STG_DISK_FORGET;
        /* Between these the thread gathers, and would be woken for nothing. */
        if (is_first || disk->queued_bytes >= batch_bytes(disk))
            pthread_cond_signal(&disk->filled);
    }
    stg_lock_drop(&disk->lock);
    return taken;
}

/* Is it worth trying? */
static bool may_write(struct stg_disk *disk) {
    return atomic_load(&disk->state) == STG_DISK_OPEN ||
           stg_clock_monotonic_ns() >= atomic_load(&disk->full_until_ns);
}

bool stg_disk_put(struct stg_disk *disk, const struct stg_disk_name *name, char *content,
                  uint64_t forgotten) {
    struct stg_disk_work *work = NULL;

    if (stg_disk_is_usable(disk) && may_write(disk) && name->bytes &&
        (stg_disk_is_large(name) ||
         (name->bytes <= STG_DISK_ENTRY_MAX_BYTES && name->bytes <= disk->limit_bytes / 8)))
        work = calloc(1, sizeof(*work));
    if (work && stg_disk_key_make(name, &work->key)) {
        work->kind = STG_DISK_PUT;
        work->now = name->now;
        work->content = content;
        work->content_bytes = name->bytes;
        if (push(disk, work, forgotten))
            return true;
    }
    atomic_fetch_add(&disk->overrun, 1);
    free(work);
    free(content);
    return false;
}

void stg_disk_touch(struct stg_disk *disk, const struct stg_disk_key *key) {
    uint32_t bit = (uint32_t)stg_hash_bytes(key->text, key->bytes, 0) % STG_DISK_TOUCHED_BITS;
    uint8_t mask = (uint8_t)(1U << bit % 8);
    struct stg_disk_work *work;

    if (atomic_fetch_or(&disk->touched[bit / 8], mask) & mask)
        return; /* once is enough */
    work = calloc(1, sizeof(*work));
    if (!work)
        return;
    work->kind = STG_DISK_TOUCH;
    work->key = *key;
    if (!push(disk, work, 0))
        free(work);
}

/* Says on the disk, too, that something is to be forgotten, before it is queued. */
static int push_forget(struct stg_disk *disk, struct stg_disk_work *work) {
    int error;

    stg_lock_take(&disk->mark_lock);
    error = disk->is_marked ? 0 : stg_disk_mark(disk);
    disk->is_marked = disk->is_marked || !error;
    if (!error && !push(disk, work, 0)) {
        disk->keeps_mark = true; /* the mount ends */
        error = -ECANCELED;
    }
    stg_lock_drop(&disk->mark_lock);
    return error;
}

void stg_disk_forget(struct stg_disk *disk, const char *path, bool with_below) {
    size_t bytes = strlen(path) + 1;
    struct stg_disk_work *work;
    int error;

    if (bytes - 1 > STG_DISK_PATH_MAX_BYTES)
        return; /* nothing of such a path is kept */
    if (atomic_load(&disk->state) == STG_DISK_FAILED)
        return; /* it is erased already */
    work = calloc(1, sizeof(*work));
    if (!work) { /* what cannot be marked must not be given: rather nothing is */
        stg_disk_fail(disk, ENOMEM);
        return;
    }
    work->kind = STG_DISK_FORGET;
    work->with_below = with_below;
    work->key.bytes = bytes;
    memcpy(work->key.text, path, bytes);
    error = push_forget(disk, work);
    if (error)
        free(work);
    if (error && error != -ECANCELED)
        stg_disk_fail(disk, -error);
}

/* All that was to be forgotten is. */
static void unmark_if_done(struct stg_disk *disk) {
    bool done;

    stg_lock_take(&disk->mark_lock);
    stg_lock_take(&disk->lock);
    done = disk->is_marked && !disk->keeps_mark && !disk->forgets;
    stg_lock_drop(&disk->lock);
    if (done) {
        stg_disk_unmark(disk);
        disk->is_marked = false;
    }
    stg_lock_drop(&disk->mark_lock);
}

static void keep_mark(struct stg_disk *disk) {
    stg_lock_take(&disk->mark_lock);
    disk->keeps_mark = true;
    stg_lock_drop(&disk->mark_lock);
}

void stg_disk_flush(struct stg_disk *disk) {
    uint64_t until;

    stg_lock_take(&disk->lock);
    until = disk->pushed;
    disk->flushing++;
    pthread_cond_signal(&disk->filled);
    while (disk->running && !disk->stopping && disk->done < until)
        stg_lock_wait(&disk->lock, &disk->written);
    disk->flushing--;
    stg_lock_drop(&disk->lock);
}

static bool is_in(const struct stg_disk_work *list, const char *path) {
    while (list &&
           !(list->kind == STG_DISK_FORGET && covers(list->key.text, list->with_below, path)))
        list = list->next;
    return list != NULL;
}

/* Is the path to be forgotten, and that is not yet done? */
bool stg_disk_is_forgotten(struct stg_disk *disk, const char *path) {
    bool forgotten;

    stg_lock_take(&disk->lock);
    forgotten = disk->forgets && (is_in(disk->first, path) || is_in(disk->underway, path));
    stg_lock_drop(&disk->lock);
    return forgotten;
}

/* ---- the thread ---- */

/* Waits until there is a batch that is worth a transaction; false at the end. */
static bool gather_locked(struct stg_disk *disk) {
    int64_t until_ns;

    while (!disk->first && !disk->stopping)
        stg_lock_wait(&disk->lock, &disk->filled);
    until_ns = stg_clock_monotonic_ns() + GATHER_NS;
    while (disk->first && !disk->stopping && !disk->flushing &&
           disk->queued_bytes < batch_bytes(disk))
        if (!stg_lock_wait_until(&disk->lock, &disk->filled, until_ns))
            break;
    return disk->first != NULL;
}

/* Moves the first items of the queue to `underway`, as many as make a batch. */
static void take_batch_locked(struct stg_disk *disk) {
    uint64_t bytes = disk->first->content_bytes;
    struct stg_disk_work *end = disk->first;

    while (end->next && bytes + end->next->content_bytes <= batch_bytes(disk)) {
        end = end->next;
        bytes += end->content_bytes;
    }
    disk->underway = disk->first;
    disk->first = end->next;
    if (!disk->first)
        disk->last = NULL;
    end->next = NULL;
}

static struct stg_disk_work *end_batch_locked(struct stg_disk *disk) {
    struct stg_disk_work *batch = disk->underway;

    for (const struct stg_disk_work *work = batch; work; work = work->next) {
        disk->queued_bytes -= work->content_bytes + sizeof(*work);
        disk->forgets -= work->kind == STG_DISK_FORGET;
        disk->done++;
    }
    disk->underway = NULL;
    pthread_cond_broadcast(&disk->written);
    return batch;
}

void stg_disk_free_batch(struct stg_disk_work *batch) {
    while (batch) {
        struct stg_disk_work *next = batch->next;

        free(batch->content);
        free(batch);
        batch = next;
    }
}

static void count_written(struct stg_disk *disk, const struct stg_disk_work *batch, bool written) {
    for (; batch; batch = batch->next) {
        if (batch->kind != STG_DISK_PUT)
            continue;
        atomic_fetch_add(written ? &disk->written_entries : &disk->overrun, 1);
        if (written)
            atomic_fetch_add(&disk->written_bytes, batch->content_bytes);
    }
}

/* From one state to the other, unless it is another by now: what failed stays so. */
static bool move(struct stg_disk *disk, int from, enum stg_disk_state to) {
    return atomic_compare_exchange_strong(&disk->state, &from, to);
}

static void note_full(struct stg_disk *disk) {
    atomic_store(&disk->full_until_ns, stg_clock_monotonic_ns() + FULL_NS);
    if (move(disk, STG_DISK_OPEN, STG_DISK_FULL))
        stg_warning("the disk of stage directory %s is full; nothing more is kept there",
                    disk->path);
}

static void write_batch(struct stg_disk *disk, const struct stg_disk_work *batch) {
    struct stg_disk_answer answer = {.error = STG_DISK_GONE};

    if (atomic_load(&disk->state) != STG_DISK_FAILED)
        answer = stg_disk_child_write(disk, batch);
    count_written(disk, batch, answer.written);
    if (!answer.forgotten)
        keep_mark(disk);
    if (answer.error == STG_DISK_LATE)
        return;
    if (answer.error != STG_DISK_GONE) {
        atomic_store(&disk->used_bytes, answer.used_bytes);
        atomic_store(&disk->entries, answer.entries);
        atomic_store(&disk->large_files, answer.large_files);
        atomic_store(&disk->large_bytes, answer.large_bytes);
        atomic_store(&disk->evicted, answer.evicted);
    }
    if (answer.error == ENOSPC || answer.error == EDQUOT)
        note_full(disk);
    else if (answer.error)
        stg_disk_fail(disk, answer.error);
    else if (answer.written && may_write(disk))
        (void)move(disk, STG_DISK_FULL, STG_DISK_OPEN);
}

void *stg_disk_hand_over(void *argument) {
    struct stg_disk *disk = argument;

    stg_lock_take(&disk->lock);
    while (gather_locked(disk)) {
        struct stg_disk_work *batch;

        take_batch_locked(disk);
        stg_lock_drop(&disk->lock);
        write_batch(disk, disk->underway);
        stg_lock_take(&disk->lock);
        batch = end_batch_locked(disk);
        stg_lock_drop(&disk->lock);
        stg_disk_free_batch(batch);
        unmark_if_done(disk);
        stg_lock_take(&disk->lock);
    }
    stg_lock_drop(&disk->lock);
    return NULL;
}
