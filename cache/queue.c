/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the order of what is fetched; does not know how, or by whom. */
#include "cache/queue.h"

#include "util/clock.h"

#include <stddef.h>

/* Of what is expected each fetch makes up so much. */
#define EXPECTED_PART 8
#define EXPECTED_FIRST_BYTES 65536
#define OWED_MAX_NS INT64_C(10000000000)

void stg_queue_init(struct stg_queue *queue, uint64_t bytes_per_s, unsigned most) {
    *queue = (struct stg_queue){.bytes_per_s = bytes_per_s, .expected_bytes = EXPECTED_FIRST_BYTES};
    stg_depth_init(&queue->depth, most);
    stg_lock_init(&queue->lock, STG_RANK_QUEUE);
    (void)pthread_cond_init(&queue->filled, NULL); /* cannot fail */
}

void stg_queue_fini(struct stg_queue *queue) {
    pthread_cond_destroy(&queue->filled);
    stg_lock_fini(&queue->lock);
}

static void append_locked(struct stg_queue *queue, struct stg_queue_entry *entry,
                          enum stg_priority priority) {
    struct stg_queue_list *list = &queue->lists[priority];

    *entry = (struct stg_queue_entry){
        .previous = list->last, .priority = (uint8_t)priority, .queued = true};
    if (list->last)
        list->last->next = entry;
    else
        list->first = entry;
    list->last = entry;
    queue->entries++;
}

static void take_locked(struct stg_queue *queue, struct stg_queue_entry *entry) {
    struct stg_queue_list *list = &queue->lists[entry->priority];

    if (entry->previous)
        entry->previous->next = entry->next;
    else
        list->first = entry->next;
    if (entry->next)
        entry->next->previous = entry->previous;
    else
        list->last = entry->previous;
    *entry = (struct stg_queue_entry){0};
    queue->entries--;
}

bool stg_queue_push(struct stg_queue *queue, struct stg_queue_entry *entry,
                    enum stg_priority priority) {
    bool open;

    stg_lock_take(&queue->lock);
    open = !queue->closed;
    if (open && entry->queued && entry->priority < priority)
        take_locked(queue, entry);
    if (open && !entry->queued) {
        append_locked(queue, entry, priority);
        pthread_cond_signal(&queue->filled);
    }
    stg_lock_drop(&queue->lock);
    return open;
}

void stg_queue_raise(struct stg_queue *queue, struct stg_queue_entry *entry,
                     enum stg_priority priority) {
    stg_lock_take(&queue->lock);
    if (entry->queued && entry->priority < priority) {
        take_locked(queue, entry);
        append_locked(queue, entry, priority);
        (void)pthread_cond_signal(&queue->filled); /* it may have been held; cannot fail */
    }
    stg_lock_drop(&queue->lock);
}

bool stg_queue_remove(struct stg_queue *queue, struct stg_queue_entry *entry) {
    bool queued;

    stg_lock_take(&queue->lock);
    queued = entry->queued;
    if (queued)
        take_locked(queue, entry);
    stg_lock_drop(&queue->lock);
    return queued;
}

/* ---- what may be popped ---- */

static struct stg_queue_entry *first_locked(struct stg_queue *queue, enum stg_priority least) {
    for (int priority = STG_PRIORITIES - 1; priority >= (int)least; priority--)
        if (queue->lists[priority].first)
            return queue->lists[priority].first;
    return NULL;
}

/* Is there something that nobody waits for, and too much of that under way? */
static bool is_any_held_locked(const struct stg_queue *queue) {
    return (queue->lists[STG_PRIORITY_PREDICTED].first ||
            queue->lists[STG_PRIORITY_EXPLICIT].first) &&
           !stg_depth_has_room(&queue->depth);
}

/* What may be popped now; NULL where there is nothing, or nothing before `*ret_until_ns`. */
static struct stg_queue_entry *due_locked(struct stg_queue *queue, int64_t *ret_until_ns) {
    int64_t now_ns = stg_clock_monotonic_ns();
    bool is_early = queue->bytes_per_s && queue->free_at_ns > now_ns;
    bool is_full = is_any_held_locked(queue);
    struct stg_queue_entry *entry;

    if (is_full && now_ns >= stg_depth_stuck_ns(&queue->depth)) {
        stg_depth_unstick(&queue->depth, now_ns);
        is_full = is_any_held_locked(queue);
    }
    entry =
        first_locked(queue, is_early || is_full ? STG_PRIORITY_WAITING : STG_PRIORITY_PREDICTED);
    *ret_until_ns = 0;
    if (!entry && is_early && queue->entries)
        *ret_until_ns = queue->free_at_ns;
    if (!entry && is_full && stg_depth_stuck_ns(&queue->depth) > *ret_until_ns)
        *ret_until_ns = stg_depth_stuck_ns(&queue->depth);
    return entry;
}

/* Where something may be popped, or a time has to be waited for, somebody is to do that. */
static void wake_locked(struct stg_queue *queue) {
    int64_t until_ns;

    if (queue->entries && (due_locked(queue, &until_ns) || (until_ns && !queue->timed)))
        (void)pthread_cond_signal(&queue->filled); /* cannot fail */
}

/* ---- the rate ---- */

static int64_t time_for_ns(const struct stg_queue *queue, uint64_t bytes) {
    double ns = (double)bytes * 1e9 / (double)queue->bytes_per_s;

    return ns < (double)OWED_MAX_NS ? (int64_t)ns : OWED_MAX_NS;
}

/* Moves the time from which on it may be fetched; never beyond what may be owed. */
static void owe_locked(struct stg_queue *queue, int64_t more_ns) {
    int64_t most_ns = stg_clock_monotonic_ns() + OWED_MAX_NS;

    queue->free_at_ns += more_ns;
    if (queue->free_at_ns > most_ns)
        queue->free_at_ns = most_ns;
}

/* The time that was not used before is lost; that in which this is fetched is its own. */
static void charge_locked(struct stg_queue *queue, struct stg_queue_entry *entry) {
    int64_t now_ns = stg_clock_monotonic_ns();
    int64_t before_ns;

    if (!queue->bytes_per_s)
        return;
    before_ns = queue->free_at_ns > now_ns ? queue->free_at_ns : now_ns;
    queue->free_at_ns = before_ns;
    owe_locked(queue, time_for_ns(queue, queue->expected_bytes));
    entry->charged_ns = queue->free_at_ns - before_ns;
}

/* What was charged for it, and what it has brought. */
static void settle_locked(struct stg_queue *queue, struct stg_queue_entry *entry, int64_t bytes) {
    if (bytes >= 0)
        owe_locked(queue, time_for_ns(queue, (uint64_t)bytes) - entry->charged_ns);
    entry->charged_ns = 0;
    if (bytes > 0)
        queue->expected_bytes +=
            (uint64_t)bytes / EXPECTED_PART - queue->expected_bytes / EXPECTED_PART;
    queue->timed = false; /* it may be sooner: who waits for that looks again */
}

void stg_queue_fetched(struct stg_queue *queue, struct stg_queue_entry *entry, int64_t bytes) {
    stg_lock_take(&queue->lock);
    if (queue->bytes_per_s)
        settle_locked(queue, entry, bytes);
    if (entry->is_counted)
        stg_depth_end(&queue->depth, stg_clock_monotonic_ns(), bytes > 0 ? (uint64_t)bytes : 0,
                      is_any_held_locked(queue));
    entry->is_counted = false;
    wake_locked(queue);
    stg_lock_drop(&queue->lock);
}

/* ---- popping ---- */

/* Of those that wait for a time one does; who pops something tells the next one. */
static void wait_locked(struct stg_queue *queue, int64_t until_ns) {
    if (!until_ns || queue->timed) {
        stg_lock_wait(&queue->lock, &queue->filled);
        return;
    }
    queue->timed = true;
    (void)stg_lock_wait_until(&queue->lock, &queue->filled, until_ns); /* looked at again */
    queue->timed = false;
}

static struct stg_queue_entry *pop(struct stg_queue *queue, bool wait) {
    struct stg_queue_entry *entry = NULL;
    int64_t until_ns;

    stg_lock_take(&queue->lock);
    while (!queue->closed && !(entry = due_locked(queue, &until_ns)) && wait)
        wait_locked(queue, until_ns);
    if (entry) {
        bool is_waited_for = entry->priority == STG_PRIORITY_WAITING;

        take_locked(queue, entry);
        charge_locked(queue, entry);
        entry->is_counted = !is_waited_for;
        if (!is_waited_for)
            stg_depth_begin(&queue->depth, stg_clock_monotonic_ns());
        wake_locked(queue);
    }
    stg_lock_drop(&queue->lock);
    return entry;
}

struct stg_queue_entry *stg_queue_pop(struct stg_queue *queue) {
    return pop(queue, true);
}

struct stg_queue_entry *stg_queue_try_pop(struct stg_queue *queue) {
    return pop(queue, false);
}

void stg_queue_close(struct stg_queue *queue) {
    stg_lock_take(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->filled);
    stg_lock_drop(&queue->lock);
}

struct stg_queue_entry *stg_queue_drain(struct stg_queue *queue) {
    struct stg_queue_entry *entry;

    stg_lock_take(&queue->lock);
    entry = queue->closed ? first_locked(queue, STG_PRIORITY_PREDICTED) : NULL;
    if (entry)
        take_locked(queue, entry);
    stg_lock_drop(&queue->lock);
    return entry;
}

uint64_t stg_queue_length(struct stg_queue *queue) {
    uint64_t entries;

    stg_lock_take(&queue->lock);
    entries = queue->entries;
    stg_lock_drop(&queue->lock);
    return entries;
}

unsigned stg_queue_depth(struct stg_queue *queue) {
    unsigned limit;

    stg_lock_take(&queue->lock);
    limit = queue->depth.limit;
    stg_lock_drop(&queue->lock);
    return limit;
}
