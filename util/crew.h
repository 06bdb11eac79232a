/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue of work, and the threads that do it: started one by one when there is more than those
 * that are there have hands for, and kept until the end.
 *
 * Thread-safe. The crew's lock is held for its own lists alone.
 */
#ifndef STG_UTIL_CREW_H
#define STG_UTIL_CREW_H

#include "util/lock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define STG_CREW_THREADS_MAX 64

/* The first member of what is queued. */
struct stg_crew_work {
    struct stg_crew_work *next;
};

struct stg_crew {
    struct stg_lock lock;
    const char *name;     /* for people: what cannot be done where no thread can be started */
    unsigned threads_max; /* at most STG_CREW_THREADS_MAX */
    uint64_t length_max;  /* what is queued then is refused; 0: nothing is */
    /* Does the work, which is its own from then on; called without the lock, by several threads. */
    void (*work)(struct stg_crew_work *work);
    /* Gives up what was not begun at the end, in the order of the queue; the same. */
    void (*drop)(struct stg_crew_work *work);

    /* Protected by the lock. */
    pthread_cond_t filled;
    struct stg_crew_work *first;
    struct stg_crew_work *last;
    uint64_t length;
    pthread_t threads[STG_CREW_THREADS_MAX];
    unsigned thread_count;
    unsigned idle;
    bool stopping;
};

/* For a static crew: the rank of its lock, then the public members. */
#define STG_CREW(rank, ...)                                                                        \
    { .lock = STG_LOCK(rank), .filled = PTHREAD_COND_INITIALIZER, __VA_ARGS__ }

/* Queues the work behind all other. False where it is refused, and stays the caller's. */
bool stg_crew_push(struct stg_crew *crew, struct stg_crew_work *work);

/* How much is queued and not begun. */
uint64_t stg_crew_length(struct stg_crew *crew);

/*
 * Ends the threads, each after what it does just now; what comes later is refused, and what was not
 * begun is dropped.
 */
void stg_crew_stop(struct stg_crew *crew);

#endif
