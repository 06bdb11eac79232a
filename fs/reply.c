/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the form in which objects of the source are shown. */
#include "fs/reply.h"

#include "fs/coherence.h"
#include "fs/iomode.h"
#include "fs/lease.h"
#include "fs/staging.h"

#include <errno.h>
#include <sys/sysmacros.h>

static void fill_time(struct timespec *time, const struct statx_timestamp *stamp) {
    time->tv_sec = stamp->tv_sec;
    time->tv_nsec = stamp->tv_nsec;
}

void stg_reply_fill_stat(const struct stg_volume *volume, const struct statx *stx,
                         struct stat *ret_stat) {
    *ret_stat = (struct stat){
        .st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
        .st_ino = stg_volume_ino(volume, stx->stx_ino),
        .st_mode = stx->stx_mode,
        .st_nlink = stx->stx_nlink,
        .st_uid = stx->stx_uid,
        .st_gid = stx->stx_gid,
        .st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
        .st_size = (off_t)stx->stx_size,
        .st_blksize = stx->stx_blksize,
        .st_blocks = (blkcnt_t)stx->stx_blocks,
    };
    fill_time(&ret_stat->st_atim, &stx->stx_atime);
    fill_time(&ret_stat->st_mtim, &stx->stx_mtime);
    fill_time(&ret_stat->st_ctim, &stx->stx_ctime);
    if (volume->mask_suid && S_ISREG(stx->stx_mode))
        ret_stat->st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
    if (volume->mask_dev && (S_ISCHR(stx->stx_mode) || S_ISBLK(stx->stx_mode)))
        ret_stat->st_rdev = 0;
}

double stg_reply_attr_timeout(struct stg_inode *inode) {
    return stg_io_may_be_mapped(inode) || stg_staging_is_outdated(inode)
               ? 0
               : stg_coherence_attr_timeout_s(inode);
}

void stg_reply_fill_entry(struct stg_inode *parent, struct stg_inode *inode,
                          const struct statx *stx, struct fuse_entry_param *ret_entry) {
    *ret_entry = (struct fuse_entry_param){
        .ino = stg_inode_id(inode),
        .attr_timeout = stg_reply_attr_timeout(inode),
        .entry_timeout = stg_coherence_entry_timeout_s(parent),
    };
    stg_reply_fill_stat(inode->volume, stx, &ret_entry->attr);
}

static void reply_entry(fuse_req_t req, struct stg_inode *inode,
                        const struct fuse_entry_param *entry) {
    if (fuse_reply_entry(req, entry) == -ENOENT)
        stg_inode_forget(inode, 1);
}

void stg_reply_entry(fuse_req_t req, struct stg_inode *parent, const char *name,
                     struct stg_inode *inode, const struct statx *stx) {
    struct fuse_entry_param entry;

    stg_reply_fill_entry(parent, inode, stx, &entry);
    stg_lease_grant(parent, name, inode, stx, &entry);
    reply_entry(req, inode, &entry);
}

void stg_reply_linked(fuse_req_t req, struct stg_inode *parent, struct stg_inode *inode,
                      const struct statx *stx) {
    struct fuse_entry_param entry;

    stg_reply_fill_entry(parent, inode, stx, &entry);
    if (stg_coherence_is_kept(inode))
        entry.attr_timeout = 0;
    reply_entry(req, inode, &entry);
}

void stg_reply_result(fuse_req_t req, int result) {
    /* Fails only where the request is gone; nothing is to be undone then. */
    (void)fuse_reply_err(req, -result);
}
