/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors of files that somebody may have open although their mode does not allow it.
 *
 * Where files are opened without telling, the daemon opens the source for each request; and a
 * daemon that is an ordinary user may not, once the mode says so, although the caller's own
 * descriptor is good. So before such a change it opens the file, and keeps that until the kernel
 * forgets it. Whether somebody new may open the file is the kernel's to say, by the new mode.
 */
#ifndef STG_FS_HELD_H
#define STG_FS_HELD_H

#include "fs/inode.h"

/*
 * The mode is going to be changed. What the old one allows the daemon, and the new one does not, is
 * opened and held; nothing where the daemon may open everything, or is told of opens.
 */
void stg_held_before_chmod(struct stg_inode *inode, mode_t old_mode, mode_t new_mode);

/*
 * The file was just created with that mode, and opened as `flags` say: where the mode would not let
 * the daemon open it so again, `fd` is held. It is consumed.
 */
void stg_held_created(struct stg_inode *inode, int fd, int flags, mode_t mode);

/*
 * A duplicate of what is held, for reading, writing or both as `flags` say; the caller owns it.
 * -EACCES where nothing such is held.
 */
int stg_held_open(struct stg_inode *inode, int flags);

/* The kernel has forgotten the inode. */
void stg_held_drop(struct stg_inode *inode);

#endif
