/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the list of what is held, the newest first. It is short: where more is to be held than that,
 * the oldest is let go, and who has that file open is refused by the source from then on.
 */
#include "fs/held.h"

#include "util/cleanup.h"

#define HELD_MAX 64

struct held {
    struct held *next;
    const struct stg_inode *inode;
    int fd;
    int access; /* O_RDONLY, O_WRONLY or O_RDWR */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct held *list; /* protected by lock, as the next */
static unsigned count;

/* What the new mode does not allow the daemon any more, in access modes of open(2); -1: nothing. */
static int lost_access(mode_t old_mode, mode_t new_mode) {
    mode_t lost = old_mode & ~new_mode & (S_IRUSR | S_IWUSR);

    if (!lost)
        return -1;
    return lost == S_IRUSR ? O_RDONLY : lost == S_IWUSR ? O_WRONLY : O_RDWR;
}

static struct held *take_oldest_locked(void) {
    struct held **link = &list;
    struct held *oldest;

    while ((*link)->next)
        link = &(*link)->next;
    oldest = *link;
    *link = NULL;
    count--;
    return oldest;
}

static void free_held(struct held *held) {
    if (held)
        stg_fd_close(held->fd);
    free(held);
}

/* Holds `fd`, which is consumed; -errno: there is none to hold. */
static void hold(struct stg_inode *inode, int fd, int access) {
    struct held *held = fd < 0 ? NULL : malloc(sizeof(*held));
    struct held *oldest = NULL;

    if (!held) {
        stg_fd_close(fd);
        return;
    }
    *held = (struct held){.inode = inode, .access = access, .fd = fd};
    stg_lock_take(&lock);
    if (count == HELD_MAX)
        oldest = take_oldest_locked();
    held->next = list;
    list = held;
    count++;
    stg_lock_drop(&lock);
    free_held(oldest);
}

void stg_held_before_chmod(struct stg_inode *inode, mode_t old_mode, mode_t new_mode) {
    int access = lost_access(old_mode, new_mode);

    if (stg_fs.no_open && !stg_fs.privileged && stg_inode_is_regular(inode) && access >= 0)
        hold(inode, stg_inode_open(inode, access | O_NONBLOCK), access);
}

void stg_held_created(struct stg_inode *inode, int fd, int flags, mode_t mode) {
    int access = flags & O_ACCMODE;
    bool may_read = access == O_WRONLY || (mode & S_IRUSR);
    bool may_write = access == O_RDONLY || (mode & S_IWUSR);

    if (stg_fs.privileged || (may_read && may_write))
        stg_fd_close(fd);
    else
        hold(inode, fd, access);
}

int stg_held_open(struct stg_inode *inode, int flags) {
    int access = flags & O_ACCMODE;
    int fd = -EACCES;

    stg_lock_take(&lock);
    for (const struct held *held = list; held && fd < 0; held = held->next)
        if (held->inode == inode && (held->access == O_RDWR || held->access == access))
            fd = fcntl(held->fd, F_DUPFD_CLOEXEC, 3);
    stg_lock_drop(&lock);
    return fd < 0 ? -EACCES : fd;
}

void stg_held_drop(struct stg_inode *inode) {
    struct held **link = &list;
    struct held *gone = NULL;

    if (!stg_fs.no_open || stg_fs.privileged)
        return; /* nothing was ever held */
    stg_lock_take(&lock);
    while (*link) {
        struct held *held = *link;

        if (held->inode != inode) {
            link = &held->next;
            continue;
        }
        *link = held->next;
        count--;
        held->next = gone;
        gone = held;
    }
    stg_lock_drop(&lock);
    while (gone) {
        struct held *next = gone->next;

        free_held(gone);
        gone = next;
    }
}
