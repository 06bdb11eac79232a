/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the thread and its sleep; what a round does is the owner's affair. */
#include "util/sweeper.h"

#include "util/clock.h"

static void *run(void *argument) {
    struct stg_sweeper *sweeper = argument;
    int64_t due_ns = 0; /* when the next round is; 0: there is no work */

    stg_lock_take(sweeper->lock);
    while (!sweeper->stopping) {
        if (!sweeper->has_work()) {
            due_ns = 0;
            stg_lock_wait(sweeper->lock, &sweeper->wake);
            continue;
        }
        if (!due_ns)
            due_ns = stg_clock_monotonic_ns() + sweeper->interval_ns;
        if (!stg_lock_wait_until(sweeper->lock, &sweeper->wake, due_ns)) {
            sweeper->sweep_locked();
            due_ns = 0;
        }
    }
    stg_lock_drop(sweeper->lock);
    return NULL;
}

int stg_sweeper_start(struct stg_sweeper *sweeper) {
    int error;

    (void)pthread_cond_init(&sweeper->wake, NULL); /* cannot fail */
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
