/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the list of inodes whose copy is held for nobody but a mapping that may be there, and the
 * thread that goes through it.
 *
 * The list is linked through `staged`, and each entry has a reference to its inode. Only the thread
 * takes entries out, all at once; those that are still mapped go back.
 */
#include "fs/keep.h"

#include "fs/staging.h"
#include "util/cleanup.h"
#include "util/sweeper.h"

#include <fcntl.h>

#define SWEEP_NS 500000000L

static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);
static struct stg_inode *list; /* protected by lock */

static bool has_work(void);
static void next_round_locked(void);
static struct stg_sweeper sweeper = {.lock = &lock,
                                     .interval_ns = SWEEP_NS,
                                     .has_work = has_work,
                                     .sweep_locked = next_round_locked};

static bool has_work(void) { return list != NULL; }

static void add(struct stg_inode *inode) {
    stg_lock_take(&lock);
    if (!list)
        stg_sweeper_wake_locked(&sweeper);
    inode->staged->next_kept = list;
    list = inode;
    stg_lock_drop(&lock);
}

bool stg_keep_locked(struct stg_inode *inode) {
    if (inode->staged->kept || !sweeper.running)
        return false;
    inode->staged->kept = true;
    stg_inode_ref(inode);
    add(inode);
    return true;
}

bool stg_keep_is_mapped_locked(struct stg_inode *inode) {
    stg_auto_fd int fd = -1;

    if (!inode->staged->kept)
        return false;
    fd = stg_store_open(stg_cache_store(stg_staging_cache()),
                        stg_object_copy(inode->staged->object), O_RDONLY);
    if (fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK))
        return true;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* the close that follows would drop it, too */
    return false;
}

/* True where the hold can be given back: the copy is not mapped, or has an open of its own again.
 */
static bool let_go(struct stg_inode *inode, bool all) {
    struct stg_lock *io_lock = stg_inode_io_lock(inode);
    bool free_now;

    stg_lock_take(io_lock);
    free_now = all || inode->opens || !stg_keep_is_mapped_locked(inode);
    if (free_now)
        inode->staged->kept = false;
    stg_lock_drop(io_lock);
    return free_now;
}

static void sweep(bool all) {
    struct stg_inode *inode;

    stg_lock_take(&lock);
    inode = list;
    list = NULL;
    stg_lock_drop(&lock);
    while (inode) {
        struct stg_inode *next = inode->staged->next_kept;

        if (let_go(inode, all)) {
            stg_staged_put(inode);
            stg_inode_unref(inode);
        } else {
            add(inode);
        }
        inode = next;
    }
}

void stg_keep_sweep(void) { sweep(false); }

static void next_round_locked(void) {
    stg_lock_drop(&lock);
    sweep(false);
    stg_lock_take(&lock);
}

int stg_keep_start(void) { return stg_sweeper_start(&sweeper); }

void stg_keep_stop(void) {
    stg_sweeper_stop(&sweeper);
    sweep(true);
}
