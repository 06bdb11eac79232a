/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel knows of the source: one node for each file, by file handle, so that none costs a
 * descriptor (where the source has no handles, or is several file systems: by O_PATH descriptor).
 */
#ifndef SLOWFS_NODE_H
#define SLOWFS_NODE_H

#define FUSE_USE_VERSION 318
#include <fuse_lowlevel.h>

/* Opens the source. 0 or -errno. */
int slow_node_init(const char *source);

/* An O_PATH descriptor of the file, which the caller closes, or -errno. */
int slow_node_open(fuse_ino_t ino);

/* Looks a name up and counts it as known to the kernel once more: fills the inode, its number and
 * attributes. 0 or -errno. */
int slow_node_lookup(int parent_fd, const char *name, struct fuse_entry_param *ret_entry);

void slow_node_forget(fuse_ino_t ino, uint64_t times);

#endif
