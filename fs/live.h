/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files that somebody writes while others read a staged copy of them.
 *
 * The kernel insists that all opens of an inode are served from one file (iomode.h), so the writer
 * has the copy, too. What it writes goes to the source first and then to the copy. What it stores
 * through a mapping reaches the copy alone, and is carried to the source when the writer syncs or
 * closes, and every half second. For that a shadow is kept of what the copy had when it was last
 * looked at (shadow.h): what differs from it was stored by a caller, and nothing else is written.
 *
 * It ends with the last open for writing, however many readers there still are, or with the last
 * mapping, which may outlive that: then the writer's open counts on until a read lease on the copy
 * proves that nobody can store into it any more. From then on the copy follows the source again.
 */
#ifndef STG_FS_LIVE_H
#define STG_FS_LIVE_H

#include "fs/inode.h"

/* Starts the thread that carries; 0 or -errno. */
int stg_live_start(void);

/* Ends the carrying, with whatever is left carried. Before the copies go. */
void stg_live_stop(void);

/*
 * An open that may store through mappings has joined. Returns 0 or -errno: then it must be released
 * again.
 */
int stg_live_begin(struct stg_inode *inode);

/*
 * Writes to the source by `fd` and to the copy, as pwrite(2) does; what is not live, to the source
 * alone. Returns the bytes written or -errno.
 */
ssize_t stg_live_write(struct stg_inode *inode, int fd, const void *buffer, size_t bytes,
                       off_t offset);

/* Reads what those who share the copy see. -EOPNOTSUPP where the inode is not live. */
ssize_t stg_live_read(struct stg_inode *inode, void *buffer, size_t bytes, off_t offset);

/* Carries what was stored through mappings to the source. 0 or -errno; 0 where nothing is live. */
int stg_live_sync(struct stg_inode *inode);

/*
 * Changes the source in a way other than write(2), by `change`; the copy is fetched anew. Returns
 * what `change` does.
 */
int stg_live_change(struct stg_inode *inode, int (*change)(void *context), void *context);

/* An open with these flags is released, perhaps some time later. */
void stg_live_release(struct stg_inode *inode, int flags);

#endif
