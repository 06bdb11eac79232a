/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the way from an inode to a descriptor: pinned, cached, by file handle, or by walking the
 * places from the source down and checking that what is found there is still the same object.
 */
#include "fs/inode.h"

#include "fs/catalog.h"
#include "fs/fdcache.h"
#include "fs/kernel_abi.h"
#include "fs/place.h"
#include "util/cleanup.h"
#include "util/handle.h"

#include <stdio.h>

/* Deeper than any path: a loop of places, made by renames behind the mount, ends here. */
#define DEPTH_MAX 2048

/* On volumes with handles, which fail for what is gone, but not for what was changed. */
static int check_kept(struct stg_inode *inode, int fd) {
    struct statx stx;

    if (!inode->kept_what)
        return 0;
    if (statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx))
        return -errno;
    return stg_catalog_fits(inode, &stx) ? 0 : -ESTALE;
}

static int open_handle(struct stg_inode *inode, int mount_fd, int flags) {
    struct stg_file_handle handle = {
        .head = {.handle_bytes = inode->handle_bytes, .handle_type = inode->handle_type}};
    int fd;
    int error;

    memcpy(handle.head.f_handle, inode->handle, inode->handle_bytes);
    fd = stg_handle_open(mount_fd, &handle.head, flags | O_CLOEXEC);
    if (fd == -ESTALE)
        stg_catalog_is_gone(inode);
    error = fd < 0 ? 0 : check_kept(inode, fd);
    if (!error)
        return fd;
    stg_fd_close(fd);
    return error;
}

/*
 * Is the object behind `fd` the one that the inode stands for? On volumes without handles. What is
 * known from the catalog has a number of its own, and is told by what it is.
 */
static bool is_still(struct stg_inode *inode, int fd) {
    struct statx stx;
    struct stg_volume *volume;

    if (statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx) || stg_volume_get(fd, &stx, &volume))
        return false;
    if (volume != inode->volume) {
        stg_catalog_is_gone(inode); /* something is mounted there now */
        return false;
    }
    if (inode->kept_what)
        return stg_catalog_fits(inode, &stx);
    return stx.stx_ino == inode->ino && (int8_t)(stx.stx_mode >> 12) == inode->type;
}

static int lend(struct stg_inode *inode, unsigned depth, struct stg_lent_fd *ret_lent);

static int open_place(struct stg_inode *inode, unsigned depth) {
    stg_auto_free char *name = NULL;
    struct stg_lent_fd lent = STG_LENT_NONE;
    struct stg_inode *parent;
    int fd = -1;
    int error = stg_place_get(inode, &parent, &name);

    if (error)
        return error;
    error = depth < DEPTH_MAX ? lend(parent, depth + 1, &lent) : -ESTALE;
    if (!error) {
        fd = openat(lent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            error = errno == ENOENT || errno == ENOTDIR ? -ESTALE : -errno;
        if (error == -ESTALE)
            stg_catalog_is_gone(inode);
        if (!error && !is_still(inode, fd))
            error = -ESTALE;
    }
    stg_inode_fd_put(&lent);
    stg_inode_unref(parent);
    if (error) {
        stg_fd_close(fd);
        return error;
    }
    return fd;
}

static int lend(struct stg_inode *inode, unsigned depth, struct stg_lent_fd *ret_lent) {
    uint16_t slot = 0;
    int fd = inode == stg_fs.root ? stg_fs.source_fd : stg_place_pinned(inode);

    if (fd >= 0) {
        *ret_lent = (struct stg_lent_fd){.fd = fd, .borrowed = true};
        return 0;
    }
    fd = stg_fdcache_get(inode, &slot);
    if (fd < 0) {
        fd = inode->volume->handles ? open_handle(inode, inode->volume->mount_fd, O_PATH)
                                    : open_place(inode, depth);
        if (fd < 0)
            return fd;
        fd = stg_fdcache_add(inode, fd, &slot);
    }
    *ret_lent = (struct stg_lent_fd){.fd = fd, .slot = slot};
    return 0;
}

int stg_inode_fd(struct stg_inode *inode, struct stg_lent_fd *ret_lent) {
    return lend(inode, 0, ret_lent);
}

void stg_inode_fd_put(struct stg_lent_fd *lent) {
    if (lent->fd < 0 || lent->borrowed)
        return;
    if (lent->slot)
        stg_fdcache_put(lent->slot);
    else
        stg_fd_close(lent->fd);
    lent->fd = -1;
}

void stg_proc_fd(char path[STG_PROC_FD_BYTES], int fd) {
    (void)snprintf(path, STG_PROC_FD_BYTES, "/proc/self/fd/%d", fd); /* always fits */
}

static int clean_flags(int flags) {
    return (flags & ~(O_CREAT | O_EXCL | O_NOFOLLOW)) | O_CLOEXEC | O_NOCTTY;
}

int stg_reopen(int fd, int flags) {
    char path[STG_PROC_FD_BYTES];
    int opened;

    stg_proc_fd(path, fd);
    opened = open(path, clean_flags(flags));
    if (opened <
        0) /* the name is that of our descriptor: what is not there is what it stands for */
        return errno == ENOENT ? -ESTALE : -errno;
    return opened;
}

int stg_inode_open(struct stg_inode *inode, int flags) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    int error;

    if (inode->volume->handles && inode->volume->data_fd >= 0)
        return open_handle(inode, inode->volume->data_fd, clean_flags(flags));
    error = stg_inode_fd(inode, &lent);
    return error ? error : stg_reopen(lent.fd, flags);
}
