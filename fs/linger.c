/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the queue of inodes whose backing id may be waiting to be closed, and the thread that
 * sweeps it every half second while it is not empty.
 *
 * An entry is a hint: the inode may have been opened again since. The sweeper comes from the other
 * end of the lock order (queue, then inode), so it only tries the inode's io lock and leaves the
 * entry for the next round where that is taken. It needs no reference: an inode is taken off the
 * queue, under its lock, before it is freed.
 */
#include "fs/linger.h"

#include "fs/backing.h"
#include "fs/inode.h"

#include <errno.h>
#include <time.h>

#define SWEEP_NS 500000000L
#define AGE_ROUNDS 2 /* so an id is kept for 0.5 s to 1 s */

struct entry {
    struct stg_inode *inode;
    unsigned round;
};

static struct entry queue[STG_LINGER_MAX]; /* protected by lock, as all below */
static unsigned queued;
static unsigned current_round;
static bool stopping;
static bool running;
static pthread_t thread;
static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);
static pthread_cond_t wake;

/* Both locks are held. */
static void close_id_locked(struct stg_inode *inode) {
    if (inode->io_mode != STG_IO_PASSTHROUGH || inode->opens)
        return;
    stg_backing_close(inode->backing_id);
    inode->backing_id = 0;
    inode->io_mode = STG_IO_IDLE;
}

static void remove_locked(unsigned index) {
    queue[index].inode->queued = false;
    queue[index] = queue[--queued];
}

bool stg_linger_add_locked(struct stg_inode *inode) {
    bool added = inode->queued;

    if (added)
        return true;
    stg_lock_take(&lock);
    if (queued < STG_LINGER_MAX && !stopping) {
        if (!queued)
            pthread_cond_signal(&wake);
        queue[queued++] = (struct entry){inode, current_round};
        inode->queued = true;
        added = true;
    }
    stg_lock_drop(&lock);
    return added;
}

void stg_linger_drop(struct stg_inode *inode) {
    struct stg_lock *io_lock;

    if (!stg_inode_is_regular(inode))
        return;
    io_lock = stg_inode_io_lock(inode);
    stg_lock_take(io_lock);
    if (inode->queued) {
        stg_lock_take(&lock);
        for (unsigned i = 0; i < queued; i++) {
            if (queue[i].inode == inode) {
                remove_locked(i);
                break;
            }
        }
        stg_lock_drop(&lock);
    }
    close_id_locked(inode);
    stg_lock_drop(io_lock);
}

/* The queue's lock is held. `all`: whatever their age. */
static void sweep_locked(bool all) {
    for (unsigned i = 0; i < queued;) {
        struct stg_inode *inode = queue[i].inode;
        struct stg_lock *io_lock = stg_inode_io_lock(inode);

        if ((!all && current_round - queue[i].round < AGE_ROUNDS) || !stg_lock_try(io_lock)) {
            i++;
            continue;
        }
        close_id_locked(inode);
        remove_locked(i);
        stg_lock_drop(io_lock);
    }
}

static void *sweep_forever(void *unused) {
    (void)unused;
    stg_lock_take(&lock);
    while (!stopping) {
        struct timespec until;

        if (!queued) {
            (void)stg_lock_wait(&lock, &wake, NULL); /* woken for a new state */
            continue;
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail for this clock */
        until.tv_nsec += SWEEP_NS;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        if (stg_lock_wait(&lock, &wake, &until) == ETIMEDOUT) {
            current_round++;
            sweep_locked(false);
        }
    }
    sweep_locked(true);
    stg_lock_drop(&lock);
    return NULL;
}

int stg_linger_start(void) {
    pthread_condattr_t attributes;
    int error;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&wake, &attributes);
    pthread_condattr_destroy(&attributes);
    stopping = false;
    error = pthread_create(&thread, NULL, sweep_forever, NULL);
    running = !error;
    return -error;
}

void stg_linger_stop(void) {
    if (!running)
        return;
    stg_lock_take(&lock);
    stopping = true;
    pthread_cond_signal(&wake);
    stg_lock_drop(&lock);
    pthread_join(thread, NULL);
    running = false;
}
