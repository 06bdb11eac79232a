/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the thread and its sleep; what a round does is the owner's affair. */
#include "util/sweeper.h"

#include <errno.h>

static struct timespec after_ns(long ns) {
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail for this clock */
    until.tv_nsec += ns;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return until;
}

static void *run(void *argument) {
    struct stg_sweeper *sweeper = argument;

    stg_lock_take(sweeper->lock);
    while (!sweeper->stopping) {
        struct timespec until = after_ns(sweeper->interval_ns);

        if (!sweeper->has_work())
            (void)stg_lock_wait(sweeper->lock, &sweeper->wake, NULL); /* looked at again */
        else if (stg_lock_wait(sweeper->lock, &sweeper->wake, &until) == ETIMEDOUT)
            sweeper->sweep_locked();
    }
    stg_lock_drop(sweeper->lock);
    return NULL;
}

int stg_sweeper_start(struct stg_sweeper *sweeper) {
    pthread_condattr_t attributes;
    int error;

    (void)pthread_condattr_init(&attributes); /* these cannot fail with valid arguments */
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&sweeper->wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    sweeper->stopping = false;
    error = pthread_create(&sweeper->thread, NULL, run, sweeper);
    sweeper->running = !error;
    return -error;
}

void stg_sweeper_wake_locked(struct stg_sweeper *sweeper) {
    if (sweeper->running)
        (void)pthread_cond_signal(&sweeper->wake);
}

void stg_sweeper_stop(struct stg_sweeper *sweeper) {
    if (!sweeper->running)
        return;
    stg_lock_take(sweeper->lock);
    sweeper->stopping = true;
    (void)pthread_cond_signal(&sweeper->wake);
    stg_lock_drop(sweeper->lock);
    (void)pthread_join(sweeper->thread, NULL); /* ours, and joined once */
    sweeper->running = false;
}
