/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The option readahead=: how much the kernel reads ahead in this mount.
 *
 * What is less than the kernel's own setting is negotiated when the mount begins. What is more is
 * not to be had there; root may set it afterwards, in the mount's own entry below /sys/class/bdi.
 * What is passed through to the source is read ahead as the source's mount has it.
 */
#ifndef STG_FS_READAHEAD_H
#define STG_FS_READAHEAD_H

#include "fs/fs.h"

/* What the kernel reads ahead by itself: it brings in smaller files with the first read. */
#define STG_READAHEAD_KERNEL_BYTES ((uint64_t)128 << 10)

/* Is more asked for than the kernel's own? That needs root. */
bool stg_readahead_is_raised(void);

/* Negotiates; from the session's init. */
void stg_readahead_init(struct fuse_conn_info *conn);

/* Sets what is more as soon as the mount answers, in a thread of its own. 0 or -errno. */
int stg_readahead_start(void);

/* Once the mount is over, or answers no more. Without a start before: nothing. */
void stg_readahead_stop(void);

#endif
