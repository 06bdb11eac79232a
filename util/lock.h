/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mutexes with a rank. A thread takes locks in rising rank only, so no two threads can wait for
 * each other; docs/locking.md has the ranks in one list.
 *
 * Where STG_CHECK_LOCKS is set (debug and sanitizer builds) each take and drop is checked, and a
 * wrong order is an error in the log: it is found the first time that the code runs, not the first
 * time that two threads meet. Elsewhere a lock is a mutex and nothing more.
 */
#ifndef STG_UTIL_LOCK_H
#define STG_UTIL_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* From the first taken to the last; the owner of each is named in docs/locking.md. */
enum stg_rank {
    STG_RANK_DIRECTORY = 1,
    STG_RANK_SYNC,
    STG_RANK_LIVE,
    STG_RANK_VOLUMES,
    STG_RANK_IO,
    STG_RANK_LINGER,
    STG_RANK_PLACES,
    STG_RANK_INODES,
    STG_RANK_DESCRIPTORS,
    STG_RANK_CACHE,
    STG_RANK_QUEUE,
    STG_RANK_NOTIFY,
};

struct stg_lock {
    pthread_mutex_t mutex;
    enum stg_rank rank; /* constant */
};

/* For locks of static storage. */
#define STG_LOCK(lock_rank)                                                                        \
    { .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (lock_rank) }

void stg_lock_init(struct stg_lock *lock, enum stg_rank rank);
void stg_lock_fini(struct stg_lock *lock);

/* Waits for the lock. No lock of the same or a higher rank is held. */
void stg_lock_take(struct stg_lock *lock);

/* True where the lock could be had at once; it may be of any rank, as nothing is waited for. */
bool stg_lock_try(struct stg_lock *lock);

void stg_lock_drop(struct stg_lock *lock);

/* Waits for `condition` with the lock dropped, and has it again afterwards; may return early. */
void stg_lock_wait(struct stg_lock *lock, pthread_cond_t *condition);

/* The same, at most until that monotonic time; false where that is over. */
bool stg_lock_wait_until(struct stg_lock *lock, pthread_cond_t *condition, int64_t until_ns);

#endif
