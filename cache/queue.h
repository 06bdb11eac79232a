/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is to be fetched, in the order of who waits for it: a reader, then who asked for it, then
 * what was predicted. The same thing is never queued twice; asked for again with more urgency, it
 * moves up.
 *
 * Where a rate is given, what nobody waits for is popped no sooner than the source may send it:
 * each fetch takes the time that its bytes take at that rate, those that somebody waits for, too,
 * which are popped at once; no more than ten seconds are owed. How much a fetch brings is known
 * when it is over; until then it counts as much as those before it did.
 *
 * Of what nobody waits for as many are popped as pay to be fetched at once (depth.h).
 *
 * Thread-safe: one lock of rank STG_RANK_QUEUE, held for a few instructions. Entries are part of
 * the owner's objects, and belong to the queue from push until pop or remove.
 */
#ifndef STG_CACHE_QUEUE_H
#define STG_CACHE_QUEUE_H

#include "cache/depth.h"
#include "util/lock.h"

#include <stdbool.h>
#include <stdint.h>

enum stg_priority { STG_PRIORITY_PREDICTED, STG_PRIORITY_EXPLICIT, STG_PRIORITY_WAITING };
#define STG_PRIORITIES (STG_PRIORITY_WAITING + 1)

struct stg_queue_entry {
    struct stg_queue_entry *next;
    struct stg_queue_entry *previous;
    int64_t charged_ns; /* for which it was popped, until stg_queue_fetched() */
    uint8_t priority;   /* enum stg_priority, while queued */
    bool queued;
    bool is_counted; /* popped as one that nobody waits for, until stg_queue_fetched() */
};

struct stg_queue_list {
    struct stg_queue_entry *first;
    struct stg_queue_entry *last;
};

struct stg_queue {
    struct stg_lock lock;
    pthread_cond_t filled;
    struct stg_queue_list lists[STG_PRIORITIES]; /* protected by lock, as all below */
    uint64_t entries;
    uint64_t bytes_per_s;    /* 0: as many as come; constant */
    uint64_t expected_bytes; /* of a fetch, by those before */
    int64_t free_at_ns;      /* monotonic: what nobody waits for may be fetched from then on */
    struct stg_depth depth;
    bool timed; /* somebody waits for that time; the others are told */
    bool closed;
};

/* `bytes_per_s`: the rate; 0: none. `most`: so many fetches there can be at once; 0: any number. */
void stg_queue_init(struct stg_queue *queue, uint64_t bytes_per_s, unsigned most);

/* Nobody may be in a call. */
void stg_queue_fini(struct stg_queue *queue);

/*
 * Queues the entry behind others of its priority; one that is queued already moves to the end of a
 * higher priority, and stays where it is otherwise. False where the queue is closed.
 */
bool stg_queue_push(struct stg_queue *queue, struct stg_queue_entry *entry,
                    enum stg_priority priority);

/* Moves an entry that is queued, as push does; without effect on one that is not. */
void stg_queue_raise(struct stg_queue *queue, struct stg_queue_entry *entry,
                     enum stg_priority priority);

/* Takes the entry out. False where it is not queued: never was, or has been popped. */
bool stg_queue_remove(struct stg_queue *queue, struct stg_queue_entry *entry);

/*
 * Takes the most urgent entry; waits for one. NULL once the queue is closed, whatever is still in
 * it.
 */
struct stg_queue_entry *stg_queue_pop(struct stg_queue *queue);

/* The same without waiting: NULL where there is none now. */
struct stg_queue_entry *stg_queue_try_pop(struct stg_queue *queue);

/*
 * What was popped has brought so much from the source; 0: nothing; less: nobody knows, as of a file
 * that changed meanwhile, and it counts as was expected. Once for each.
 */
void stg_queue_fetched(struct stg_queue *queue, struct stg_queue_entry *entry, int64_t bytes);

/* Lets everybody in pop go, and takes nothing more. */
void stg_queue_close(struct stg_queue *queue);

/* Takes an entry out of a closed queue, in any order, for its owner to give up; NULL at the end. */
struct stg_queue_entry *stg_queue_drain(struct stg_queue *queue);

/* How many wait to be popped. */
uint64_t stg_queue_length(struct stg_queue *queue);

/* How many that nobody waits for may be under way at once, now. */
unsigned stg_queue_depth(struct stg_queue *queue);

#endif
