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

#include <fcntl.h>
#include <time.h>

#define SWEEP_NS 500000000L

static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);
static struct stg_inode *list; /* protected by lock, as all below */
static bool stopping;
static bool running;
static pthread_t thread;
static pthread_cond_t wake;

static void add(struct stg_inode *inode) {
    stg_lock_take(&lock);
    if (!list)
        pthread_cond_signal(&wake);
    inode->staged->next_kept = list;
    list = inode;
    stg_lock_drop(&lock);
}

bool stg_keep_locked(struct stg_inode *inode) {
    if (inode->staged->kept || !running)
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

static void *sweep_forever(void *unused) {
    (void)unused;
    stg_lock_take(&lock);
    while (!stopping) {
        struct timespec until;

        if (!list) {
            (void)stg_lock_wait(&lock, &wake, NULL); /* woken for a new state */
            continue;
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail for this clock */
        until.tv_nsec += SWEEP_NS;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        if (stg_lock_wait(&lock, &wake, &until) != ETIMEDOUT)
            continue;
        stg_lock_drop(&lock);
        sweep(false);
        stg_lock_take(&lock);
    }
    stg_lock_drop(&lock);
    return NULL;
}

int stg_keep_start(void) {
    pthread_condattr_t attributes;
    int error;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&wake, &attributes);
    pthread_condattr_destroy(&attributes);
    error = pthread_create(&thread, NULL, sweep_forever, NULL);
    running = !error;
    return -error;
}

void stg_keep_stop(void) {
    if (!running)
        return;
    stg_lock_take(&lock);
    stopping = true;
    pthread_cond_signal(&wake);
    stg_lock_drop(&lock);
    (void)pthread_join(thread, NULL); /* ours, and joined once */
    running = false;
    sweep(true);
}
