/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the thread that follows the mount table for the source's own mount. */
#include "fs/reattach.h"

#include "fs/coherence.h"
#include "fs/fdcache.h"
#include "fs/inode.h"
#include "fs/kernel_abi.h"
#include "fs/linger.h"
#include "fs/mounts.h"
#include "fs/notify.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#define TABLE "/proc/self/mountinfo"
/* For a moment the place may lead elsewhere than the table says; and may not be to be had at all.
 */
#define AGAIN_FIRST_MS 100
#define AGAIN_MAX_MS 10000
#define NAMES_MAX_S 60.0

static pthread_t thread;
static bool running;
static atomic_bool stopping;
static int wake_fd = -1;
static int table_fd = -1;

static void let_go(struct stg_inode *inode, void *unused) {
    (void)unused;
    stg_fdcache_drop(inode);
    stg_linger_drop(inode);
}

static void mark_replaced(const struct stg_volume *by) {
    for (struct stg_volume *volume = stg_volume_first(); volume; volume = volume->next)
        if (volume != by && atomic_load(&volume->own))
            atomic_store(&volume->replaced, true);
}

/* The place's descriptor, where it leads to the mount of that ID; -1: not now. */
static int open_place(uint64_t mount_id) {
    stg_auto_fd int fd = open(stg_fs.options.source, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct statx stx;

    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &stx) ||
        stx.stx_mnt_id != mount_id)
        return -1;
    return stg_fd_steal(&fd);
}

/* Are names of the old source over by themselves, or can they be dropped? */
static bool can_drop_names(void) {
    return stg_coherence_has_epoch() || stg_coherence_longest_name_s() <= NAMES_MAX_S;
}

/*
 * Takes the mount for the source. Whoever has the number of the old descriptor has the new one from
 * then on, in one step; what was opened below the old one is found to be another's (is_still()), as
 * the IDs of mounts by which volumes are told are never given again.
 */
static bool take(uint64_t mount_id) {
    struct stg_volume *volume;
    struct statx stx;
    stg_auto_fd int fd = open_place(mount_id);

    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx) ||
        stg_volume_get(fd, &stx, &volume))
        return false;
    if (!(stx.stx_mask & STG_STATX_MNT_ID_UNIQUE) || volume->handles || !can_drop_names()) {
        stg_warning("the source %s was mounted again; mount this anew to be served from there",
                    stg_fs.options.source);
        stg_mounts_succeed(mount_id);
        return true;
    }
    atomic_store(&volume->own, true);
    mark_replaced(volume);
    if (dup3(fd, stg_fs.source_fd, O_CLOEXEC) < 0)
        return false;
    stg_mounts_succeed(mount_id);
    (void)stg_inode_each(let_go, NULL); /* without memory: until they are evicted */
    stg_coherence_doubt_all();
    (void)stg_notify_inode(stg_fs.root, true);
    stg_info("the source %s was mounted again, and is served from there", stg_fs.options.source);
    return true;
}

/* False where it is to be tried once more. */
static bool follow(void) {
    uint64_t mount_id = stg_mounts_successor();

    return !mount_id || take(mount_id);
}

static void *work(void *unused) {
    struct pollfd fds[] = {{.fd = wake_fd, .events = POLLIN}, {.fd = table_fd, .events = POLLPRI}};
    int wait_ms = -1;

    (void)unused;
    while (!atomic_load(&stopping)) {
        int ready = poll(fds, 2, wait_ms);

        if (ready < 0)
            continue; /* a signal came */
        if (ready > 0)
            wait_ms = -1; /* something is mounted otherwise now: from the begin */
        if (atomic_load(&stopping) || follow())
            wait_ms = -1;
        else
            wait_ms = wait_ms < 0 ? AGAIN_FIRST_MS : wait_ms < AGAIN_MAX_MS ? 2 * wait_ms : wait_ms;
    }
    return NULL;
}

int stg_reattach_start(void) {
    struct statx stx;
    int error = 0;

    if (!stg_fs.root->volume->remote || stg_fs.root->volume->handles)
        return 0; /* those with handles, as NFS, find their server again by themselves */
    if (statx(stg_fs.source_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &stx))
        return -errno;
    if (stg_mounts_note_source(stx.stx_mnt_id))
        return 0; /* in another namespace of mounts: nobody will see it come back */
    table_fd = open(TABLE, O_RDONLY | O_CLOEXEC);
    wake_fd = table_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC);
    if (wake_fd < 0)
        error = -errno;
    if (!error)
        error = -pthread_create(&thread, NULL, work, NULL);
    running = !error;
    if (error)
        stg_reattach_stop();
    return error;
}

void stg_reattach_stop(void) {
    atomic_store(&stopping, true);
    if (running) {
        (void)eventfd_write(wake_fd, 1);  /* cannot fail */
        (void)pthread_join(thread, NULL); /* cannot fail for a thread of ours */
    }
    running = false;
    stg_fd_close(stg_fd_steal(&wake_fd));
    stg_fd_close(stg_fd_steal(&table_fd));
    stg_mounts_forget_source();
}
