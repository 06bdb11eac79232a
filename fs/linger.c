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
#include "util/sweeper.h"

#define SWEEP_NS 500000000L
#define AGE_ROUNDS 2 /* so an id is kept for 0.5 s to 1 s */

struct entry {
    struct stg_inode *inode;
    unsigned round;
};

static struct entry queue[STG_LINGER_MAX]; /* protected by lock, as all below */
static unsigned queued;
static unsigned current_round;
static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);

static bool has_work(void);
static void next_round_locked(void);
static struct stg_sweeper sweeper = {.lock = &lock,
                                     .interval_ns = SWEEP_NS,
                                     .has_work = has_work,
                                     .sweep_locked = next_round_locked};

static bool has_work(void) { return queued > 0; }

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
    if (queued < STG_LINGER_MAX && !sweeper.stopping) {
        if (!queued)
            stg_sweeper_wake_locked(&sweeper);
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

static void next_round_locked(void) {
    current_round++;
    sweep_locked(false);
}

int stg_linger_start(void) { return stg_sweeper_start(&sweeper); }

void stg_linger_stop(void) {
    stg_sweeper_stop(&sweeper);
    stg_lock_take(&lock);
    sweep_locked(true);
    stg_lock_drop(&lock);
}
