/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything that is answered about an inode: attributes as the mount shows them, for as long as
 * the kernel may keep them. -ENOENT from a reply means that the request was interrupted; what the
 * kernel would have taken over (a lookup) is then undone here.
 */
#ifndef STG_FS_REPLY_H
#define STG_FS_REPLY_H

#include "fs/inode.h"

/* What stat(2) shows for `stx` on the inode's volume. */
void stg_reply_fill_stat(const struct stg_volume *volume, const struct statx *stx,
                         struct stat *ret_stat);

/* For how long the kernel may keep the inode's attributes, in seconds. */
double stg_reply_attr_timeout(struct stg_inode *inode);

/* Fills the answer to a lookup in `parent`. */
void stg_reply_fill_entry(struct stg_inode *parent, struct stg_inode *inode,
                          const struct statx *stx, struct fuse_entry_param *ret_entry);

/* Answers a lookup in `parent` with the inode, whose lookup count the caller has raised by one. */
void stg_reply_entry(fuse_req_t req, struct stg_inode *parent, const char *name,
                     struct stg_inode *inode, const struct statx *stx);

/*
 * The same for another name of an inode that the kernel knows. It takes the attributes whatever it
 * was told since they were looked at, so those are not for keeping where nobody looks again.
 */
void stg_reply_linked(fuse_req_t req, struct stg_inode *parent, struct stg_inode *inode,
                      const struct statx *stx);

/* Answers with `result`: 0 or -errno. */
void stg_reply_result(fuse_req_t req, int result);

#endif
