/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the order of what is fetched; does not know how, or by whom. */
#include "cache/queue.h"

#include <stddef.h>

void stg_queue_init(struct stg_queue *queue) {
    *queue = (struct stg_queue){0};
    stg_lock_init(&queue->lock, STG_RANK_QUEUE);
    pthread_cond_init(&queue->filled, NULL);
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

static struct stg_queue_entry *first_locked(struct stg_queue *queue) {
    for (int priority = STG_PRIORITIES - 1; priority >= 0; priority--)
        if (queue->lists[priority].first)
            return queue->lists[priority].first;
    return NULL;
}

static struct stg_queue_entry *pop(struct stg_queue *queue, bool wait) {
    struct stg_queue_entry *entry = NULL;

    stg_lock_take(&queue->lock);
    while (!queue->closed && !(entry = first_locked(queue)) && wait)
        (void)stg_lock_wait(&queue->lock, &queue->filled, NULL); /* looked at again */
    if (entry)
        take_locked(queue, entry);
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
    entry = queue->closed ? first_locked(queue) : NULL;
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
