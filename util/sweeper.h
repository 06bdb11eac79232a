/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A thread that does a round of work in regular intervals while there is some, and sleeps without
 * waking up while there is none.
 *
 * Everything is under the owner's lock, which the fields that are set by him name.
 */
#ifndef STG_UTIL_SWEEPER_H
#define STG_UTIL_SWEEPER_H

#include "util/lock.h"

struct stg_sweeper {
    /* Set by the owner, before the start. */
    struct stg_lock *lock;
    long interval_ns;           /* less than a second */
    bool (*has_work)(void);     /* the lock is held */
    void (*sweep_locked)(void); /* the same; may drop it meanwhile */

    /* The sweeper's own. */
    pthread_t thread;
    pthread_cond_t wake;
    bool running;
    bool stopping;
};

/* Starts the thread. Returns 0 or -errno. Without the lock. */
int stg_sweeper_start(struct stg_sweeper *sweeper);

/* There is work where there was none. The lock is held. */
void stg_sweeper_wake_locked(struct stg_sweeper *sweeper);

/* Ends the thread, after the round that it is in; without effect where none runs. */
void stg_sweeper_stop(struct stg_sweeper *sweeper);

#endif
