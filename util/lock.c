/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the check of the locks' order: one bit a rank for the locks that a thread holds. */
#include "util/lock.h"

#include "config.h"
#include "util/log.h"

#include <errno.h>
#include <time.h>

#if STG_CHECK_LOCKS

static __thread unsigned held;

static void note_taken(const struct stg_lock *lock, bool waited) {
    unsigned bit = 1U << lock->rank;

    if (waited && held >= bit)
        stg_error("lock of rank %u taken while holding ranks %#x", (unsigned)lock->rank, held);
    if (held & bit)
        stg_error("two locks of rank %u held at once", (unsigned)lock->rank);
    held |= bit;
}

static void note_dropped(const struct stg_lock *lock) {
    unsigned bit = 1U << lock->rank;

    if (!(held & bit))
        stg_error("lock of rank %u dropped by a thread that does not hold it",
                  (unsigned)lock->rank);
    held &= ~bit;
}

#else

static void note_taken(const struct stg_lock *lock, bool waited) {
    (void)lock;
    (void)waited;
}

static void note_dropped(const struct stg_lock *lock) { (void)lock; }

#endif

void stg_lock_init(struct stg_lock *lock, enum stg_rank rank) {
    pthread_mutex_init(&lock->mutex, NULL);
    lock->rank = rank;
}

void stg_lock_fini(struct stg_lock *lock) { pthread_mutex_destroy(&lock->mutex); }

void stg_lock_take(struct stg_lock *lock) {
    note_taken(lock, true); /* first, so that a wrong order is said before it can hang */
    pthread_mutex_lock(&lock->mutex);
}

bool stg_lock_try(struct stg_lock *lock) {
    if (pthread_mutex_trylock(&lock->mutex))
        return false;
    note_taken(lock, false);
    return true;
}

void stg_lock_drop(struct stg_lock *lock) {
    note_dropped(lock);
    pthread_mutex_unlock(&lock->mutex);
}

void stg_lock_wait(struct stg_lock *lock, pthread_cond_t *condition) {
    note_dropped(lock);
    (void)pthread_cond_wait(condition, &lock->mutex); /* cannot fail with a lock that is held */
    note_taken(lock, true);
}

bool stg_lock_wait_until(struct stg_lock *lock, pthread_cond_t *condition, int64_t until_ns) {
    const struct timespec until = {.tv_sec = until_ns / 1000000000,
                                   .tv_nsec = until_ns % 1000000000};
    int result;

    note_dropped(lock);
    result = pthread_cond_clockwait(condition, &lock->mutex, CLOCK_MONOTONIC, &until);
    note_taken(lock, true);
    return result != ETIMEDOUT;
}
