/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the list of what is held: a few files at any time, in one list under one lock. */
#include "fs/held.h"

#include "util/cleanup.h"

struct held {
    struct held *next;
    const struct stg_inode *inode;
    int fd;
    int access; /* O_RDONLY, O_WRONLY or O_RDWR */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct held *list; /* protected by lock */

static struct held *find_locked(const struct stg_inode *inode) {
    struct held *held = list;

    while (held && held->inode != inode)
        held = held->next;
    return held;
}

/* As much as the mode allows now. Returns a descriptor or -errno. */
static int open_widest(struct stg_inode *inode, int *ret_access) {
    static const int accesses[] = {O_RDWR, O_RDONLY, O_WRONLY};
    int fd = -EACCES;

    for (int i = 0; i < 3 && fd < 0; i++) {
        *ret_access = accesses[i];
        fd = stg_inode_open(inode, accesses[i] | O_NONBLOCK);
    }
    return fd;
}

void stg_held_before_chmod(struct stg_inode *inode) {
    struct held *held;
    bool known;

    if (!stg_fs.no_open || stg_fs.privileged || !stg_inode_is_regular(inode))
        return;
    stg_lock_take(&lock);
    known = find_locked(inode) != NULL;
    stg_lock_drop(&lock);
    held = known ? NULL : malloc(sizeof(*held));
    if (!held)
        return;
    held->inode = inode;
    held->fd = open_widest(inode, &held->access);
    if (held->fd < 0) {
        free(held);
        return;
    }
    stg_lock_take(&lock);
    held->next = list;
    list = held;
    stg_lock_drop(&lock);
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
        held->next = gone;
        gone = held;
    }
    stg_lock_drop(&lock);
    while (gone) {
        struct held *next = gone->next;

        stg_fd_close(gone->fd);
        free(gone);
        gone = next;
    }
}
