/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The mount's copies on disk (stage_dir=): which folder they are in, what a file is called there,
 * and which changes that are made through the mount might not show in what a file is.
 *
 * A file of a file system with handles is called by its inode number, which it keeps for its life
 * and of which its ctime tells the next file's. Elsewhere (FUSE, and so sshfs) numbers are given
 * anew with each mount, and it is called by its path. Such a source may show no ctime of its own,
 * either: then a file that takes the place of another is told from it by size and mtime alone, and
 * what was kept is forgotten where somebody sets an mtime, or gives a file that name.
 *
 * Files of other file systems below the source are not kept: which these are, a later mount could
 * not tell.
 */
#ifndef STG_FS_TIER_H
#define STG_FS_TIER_H

#include "cache/disk.h"
#include "fs/inode.h"

/*
 * What the options say of it, and takes the folder; before anything is mounted. 0, or -errno after
 * saying what is wrong and what to write.
 */
int stg_tier_check(void);

/*
 * Opens it, in the process that serves, before that has other threads. Where that fails, that is
 * said, and nothing is kept.
 */
void stg_tier_start(void);

/* Writes what is queued; nobody asks any more. */
void stg_tier_stop(void);

/* NULL where there is none. */
struct stg_disk *stg_tier_disk(void);

/* As of source.h. May look at the source. */
bool stg_tier_lasting(struct stg_inode *inode, char *path, bool *ret_numbers_last);

/* The times of the file were set through the mount. */
void stg_tier_retimed(struct stg_inode *inode);

/* The name in the folder is another object's from now on, by a rename or a link. */
void stg_tier_renamed(struct stg_inode *folder, const char *name);

#endif
