/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the opens of one inode are served. The kernel fixes an inode's way of I/O with its first
 * open and answers EIO to an open that disagrees (fs/fuse/iomode.c), so the decision is the
 * inode's, not the open's:
 *
 *   IDLE --first open--> PASSTHROUGH(id) or CACHED --last release--> IDLE
 *
 * A PASSTHROUGH inode without opens is lingering: its id is kept for the next open. A file that
 * cannot be passed through is CACHED until its last release, whatever became possible meanwhile.
 */
#ifndef STG_FS_IOMODE_H
#define STG_FS_IOMODE_H

#include <stdbool.h>
#include <stdint.h>

struct stg_inode;

/*
 * Counts an open with the open(2) `flags` of a regular file. Returns 0 and the backing id to
 * answer with, 0 where the open is to be served from the page cache; or -errno, nothing counted.
 */
int stg_io_open(struct stg_inode *inode, int flags, int32_t *ret_backing_id);

/* Undoes stg_io_open() with the same flags: the file was released, or the open not delivered. */
void stg_io_release(struct stg_inode *inode, int flags);

/* Has anybody the inode open for writing through the mount? */
bool stg_io_is_written(struct stg_inode *inode);

/* True while stores through a mapping may move the file's times without the kernel telling. */
bool stg_io_may_be_mapped(struct stg_inode *inode);

#endif
