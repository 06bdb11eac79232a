/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns attributes: getattr, statx, setattr, statfs, and what a write takes away. */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/creds.h"
#include "fs/held.h"
#include "fs/iomode.h"
#include "fs/lease.h"
#include "fs/live.h"
#include "fs/reply.h"
#include "fs/staging.h"
#include "fs/tier.h"
#include "fs/waits.h"
#include "util/cleanup.h"

#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

static int get_attributes(struct stg_inode *inode, int flags, struct statx *ret_stx) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    int error;

    if (stg_catalog_attributes(inode, ret_stx)) {
        stg_staging_saw(inode, ret_stx);
        return 0;
    }
    error = stg_inode_fd(inode, &lent);
    if (error)
        return error;
    if (inode->staged) /* what was stored through a mapping of a copy has moved its times */
        (void)stg_live_sync(inode); /* errors are told to who syncs the file */
    if (statx(lent.fd, "", AT_EMPTY_PATH | flags, STG_STATX_MASK, ret_stx))
        return -errno;
    stg_inode_saw(inode, ret_stx);
    stg_staging_saw(inode, ret_stx);
    return 0;
}

#define WAS_ANSWERED 1

/* The same, or WAS_ANSWERED by others, where the source does not answer (waits.h). */
static int get_attributes_for(fuse_req_t req, struct stg_inode *inode, int flags,
                              struct statx *ret_stx) {
    struct stg_wait wait = {0};
    int error;

    if (!inode->volume->remote)
        return get_attributes(inode, flags, ret_stx);
    stg_inode_ref(inode); /* the kernel may forget it once it is answered */
    stg_wait_begin(&wait, req);
    error = get_attributes(inode, flags, ret_stx);
    if (!stg_wait_end(&wait))
        error = WAS_ANSWERED;
    stg_inode_unref(inode);
    return error;
}

/* `changed`: through the mount, just now, which says nothing of the pages. */
static void reply_attributes(fuse_req_t req, struct stg_inode *inode, bool changed) {
    stg_auto_look look = stg_coherence_enter();
    double timeout_s =
        stg_reply_attr_timeout(inode); /* before the look: a mapping may go between */
    struct statx stx;
    struct stat attr;
    int error = get_attributes_for(req, inode, 0, &stx);

    if (error == WAS_ANSWERED)
        return;
    if (error) {
        stg_reply_result(req, error);
        return;
    }
    if (changed)
        stg_coherence_changed(inode);
    else
        stg_coherence_saw(inode, &stx);
    if (changed && stg_coherence_is_kept(inode))
        timeout_s = 0; /* the kernel takes these whatever it was told meanwhile */
    if (!changed)
        timeout_s = stg_lease_attr_timeout_s(inode, &stx, timeout_s);
    stg_reply_fill_stat(inode->volume, &stx, &attr);
    (void)fuse_reply_attr(req, &attr, timeout_s); /* nothing to undo */
}

void stg_op_getattr(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi) {
    (void)fi; /* may be stale or absent; the inode is enough */
    reply_attributes(req, stg_inode_of(nodeid), false);
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void stg_op_statx(fuse_req_t req, fuse_ino_t nodeid, int flags, int mask,
                  struct fuse_file_info *fi) {
    stg_auto_look look = stg_coherence_enter();
    struct stg_inode *inode = stg_inode_of(nodeid);
    double timeout_s = stg_reply_attr_timeout(inode);
    struct statx stx;
    struct stat attr;
    int error;

    (void)fi;
    (void)mask; /* the whole answer costs the same, and the kernel caches it */
    error = get_attributes_for(req, inode, flags & AT_STATX_SYNC_TYPE, &stx);
    if (error == WAS_ANSWERED)
        return;
    if (error) {
        stg_reply_result(req, error);
        return;
    }
    stg_coherence_saw(inode, &stx);
    if (!(flags & AT_STATX_DONT_SYNC)) /* else it may be of the past already */
        timeout_s = stg_lease_attr_timeout_s(inode, &stx, timeout_s);
    stg_reply_fill_stat(inode->volume, &stx, &attr);
    stx.stx_ino = attr.st_ino;
    stx.stx_mode = (uint16_t)attr.st_mode;
    if (!attr.st_rdev)
        stx.stx_rdev_major = stx.stx_rdev_minor = 0;
    (void)fuse_reply_statx(req, 0, &stx, timeout_s); /* nothing to undo */
}
#endif

static int drop_capabilities(const char *path) {
    if (removexattr(path, "security.capability") && errno != ENODATA && errno != EOPNOTSUPP)
        return -errno;
    return 0;
}

int stg_kill_privileges(fuse_req_t req, int fd) {
    char path[STG_PROC_FD_BYTES];
    struct stat info;
    mode_t mode;

    if (!stg_fs.privileged)
        return 0; /* the source does it: the writer is the daemon, and has no capabilities */
    stg_proc_fd(path, fd);
    if (fstat(fd, &info))
        return -errno;
    if (!S_ISREG(info.st_mode))
        return 0;
    mode = info.st_mode & ~(mode_t)S_ISUID;
    /* Set-group-ID without group execute survives one who is in the file's group, or could be. */
    if ((mode & S_ISGID) && ((mode & S_IXGRP) || !(stg_creds_in_group(req, info.st_gid) ||
                                                   stg_creds_may_keep_setid(req))))
        mode &= ~(mode_t)S_ISGID;
    if (mode != info.st_mode && chmod(path, mode & 07777))
        return -errno;
    return drop_capabilities(path);
}

static void fill_times(const struct stat *attr, int to_set, struct timespec times[2]) {
    times[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
    times[1] = times[0];
    if (to_set & FUSE_SET_ATTR_ATIME_NOW)
        times[0].tv_nsec = UTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_ATIME)
        times[0] = attr->st_atim;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW)
        times[1].tv_nsec = UTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_MTIME)
        times[1] = attr->st_mtim;
}

/* As the caller: whether set-group-ID survives depends on the caller's groups. */
static int chown_as_caller(fuse_req_t req, int fd, uid_t uid, gid_t gid) {
    struct stg_creds creds;
    int error = stg_creds_assume(req, STG_CREDS_GROUPS, &creds);

    if (error)
        return error;
    error = fchownat(fd, "", uid, gid, AT_EMPTY_PATH) ? -errno : 0;
    stg_creds_restore(&creds);
    return error;
}

static int change_owner(fuse_req_t req, int fd, const struct stat *attr, int to_set) {
    uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
    gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;
    int error;

    if (!fuse_req_ctx(req)->uid)
        return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) ? -errno : 0;
    error = chown_as_caller(req, fd, uid, gid);
    if (error == -EPERM && stg_fs.privileged) /* the caller had a capability of its own */
        error = fchownat(fd, "", uid, gid, AT_EMPTY_PATH) ? -errno : 0;
    return error;
}

static int change_size(struct stg_inode *inode, const char *path, off_t size,
                       const struct fuse_file_info *fi) {
    stg_auto_fd int fd = -1;

    if (fi && fi->fh)
        return ftruncate((int)fi->fh - 1, size) ? -errno : 0;
    if (inode->volume->data_fd < 0 && !truncate(path, size))
        return 0;
    if (inode->volume->data_fd < 0 && errno != EACCES)
        return -errno;
    if (inode->volume->data_fd < 0) {
        fd = stg_held_open(inode, O_WRONLY);
        return fd < 0 ? fd : ftruncate(fd, size) ? -errno : 0;
    }
    fd = stg_inode_open(inode, O_WRONLY); /* a read-only mount refuses here */
    if (fd < 0)
        return fd;
    return ftruncate(fd, size) ? -errno : 0;
}

#define ANY_TIME                                                                                   \
    (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)
#define ANY_CHANGE                                                                                 \
    (ANY_TIME | FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE)

/* Where nobody tells of opens, who could write the file is taken to be writing it. */
static bool may_write(fuse_req_t req, int fd) {
    struct stg_caller caller;
    struct stg_creds creds;
    bool may = !fuse_req_ctx(req)->uid;

    if (may || stg_caller_of(req, &caller))
        return may;
    if (!stg_creds_become(&caller, &creds)) {
        may = !syscall(SYS_faccessat2, fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS);
        stg_creds_restore(&creds);
    }
    stg_caller_fini(&caller);
    return may;
}

/*
 * A change of nothing is what the kernel sends before a passed-through write that takes privileges
 * away (file_remove_privs()): the set-id bits, unless the writer has CAP_FSETID, and file
 * capabilities from everybody. chown(-1, -1) looks the same, moves the ctime, and clears the
 * set-id bits for everybody. A write by somebody with CAP_FSETID is announced only where there were
 * capabilities to clear, and the kernel has removed those by a request of its own just before
 * (setattr_prepare()): without that it was chown. And so it was where nobody has the file open for
 * writing. What cannot be told apart is chown(-1, -1) by a user who does not own a file that is
 * open for writing: it succeeds as a write would, and is not refused.
 */
static int change_nothing(fuse_req_t req, struct stg_inode *inode, int fd) {
    char path[STG_PROC_FD_BYTES];
    bool lost_capability = stg_inode_take_capability_lost(inode);
    struct stat info;

    stg_proc_fd(path, fd);
    if (fstat(fd, &info))
        return -errno;
    if (stg_fs.privileged && !(stg_fs.no_open ? may_write(req, fd) : stg_io_is_written(inode)))
        return chown_as_caller(req, fd, (uid_t)-1, (gid_t)-1);
    if (!S_ISREG(info.st_mode) || !stg_fs.privileged)
        return fchownat(fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH) && errno != EPERM ? -errno : 0;
    if (!lost_capability || !stg_creds_may_keep_setid(req)) {
        int error = stg_kill_privileges(req, fd);

        if (error || fstat(fd, &info))
            return error ? error : -errno;
    }
    if (chmod(path, info.st_mode & 07777)) /* moves the ctime */
        return -errno;
    return drop_capabilities(path);
}

struct resizing {
    struct stg_inode *inode;
    const char *path;
    off_t size;
    const struct fuse_file_info *fi;
};

static int resize(void *context) {
    const struct resizing *what = context;

    return change_size(what->inode, what->path, what->size, what->fi);
}

static void hold_before_chmod(struct stg_inode *inode, int fd, mode_t mode) {
    struct stat info;

    if (stg_fs.no_open && !stg_fs.privileged && !fstat(fd, &info))
        stg_held_before_chmod(inode, info.st_mode, mode);
}

static int change(fuse_req_t req, struct stg_inode *inode, int fd, const struct stat *attr,
                  int to_set, const struct fuse_file_info *fi) {
    char path[STG_PROC_FD_BYTES];
    struct timespec times[2];
    int error = 0;

    stg_proc_fd(path, fd);
    /*
     * With HANDLE_KILLPRIV_V2 a truncation by somebody without CAP_FSETID comes with the bit
     * FATTR_KILL_SUIDGID. chown clears the bits by itself.
     */
    if (!(to_set & ANY_CHANGE))
        error = change_nothing(req, inode, fd);
    else if ((to_set & FUSE_SET_ATTR_KILL_SUID) && (to_set & FUSE_SET_ATTR_SIZE))
        error = stg_kill_privileges(req, fd);
    if (to_set & FUSE_SET_ATTR_MODE)
        hold_before_chmod(inode, fd, attr->st_mode);
    if (!error && (to_set & FUSE_SET_ATTR_MODE))
        error = chmod(path, attr->st_mode & 07777) ? -errno : 0;
    if (!error && (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
        error = change_owner(req, fd, attr, to_set);
    if (!error && (to_set & FUSE_SET_ATTR_SIZE)) {
        struct resizing what = {inode, path, attr->st_size, fi};

        error = stg_live_change(inode, resize, &what);
    }
    if (!error && (to_set & ANY_TIME)) {
        fill_times(attr, to_set, times);
        stg_tier_retimed(inode);
        error = utimensat(fd, "", times, AT_EMPTY_PATH) ? -errno : 0;
        stg_tier_retimed(inode);
    }
    return error;
}

void stg_op_setattr(fuse_req_t req, fuse_ino_t nodeid, struct stat *attr, int to_set,
                    struct fuse_file_info *fi) {
    struct stg_inode *inode = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    int error = stg_inode_fd(inode, &lent);

    stg_catalog_changing();
    if (!error)
        error = change(req, inode, lent.fd, attr, to_set, fi);
    if (error)
        stg_reply_result(req, error);
    else
        reply_attributes(req, inode, true);
}

void stg_op_statfs(fuse_req_t req, fuse_ino_t nodeid) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct stg_inode *inode = stg_inode_of(nodeid);
    struct statvfs info;
    /* What is in the catalog is of the source's own file system, and need not be looked for. */
    int error = stg_inode_fd(inode->kept_what ? stg_fs.root : inode, &lent);

    if (!error && fstatvfs(lent.fd, &info))
        error = -errno;
    if (error)
        stg_reply_result(req, error);
    else
        (void)fuse_reply_statfs(req, &info); /* nothing to undo */
}
