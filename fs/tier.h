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
#include "util/profile.h"

#include <limits.h>

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

/* The mount is gone, and the rest of this process is going. */
void stg_tier_ending(void);

/* Writes what is queued; nobody asks any more. */
void stg_tier_stop(void);

/* NULL where there is none. */
struct stg_disk *stg_tier_disk(void);

/* Where it is: an absolute path without symbolic links; NULL where there is none. */
const char *stg_tier_path(void);

/* What is kept of folders, see catalog.h, is below that name, which no file's begins with. */
#define STG_TIER_FOLDERS "/tree"
#define STG_TIER_NAME_BYTES (PATH_MAX + sizeof(STG_TIER_FOLDERS) + 1)

/* What is kept of the folder has that name; false: it has none. May look at the source. */
bool stg_tier_folder_name(struct stg_inode *folder, char name[STG_TIER_NAME_BYTES]);

/* Adds the folders that copies are kept of, where these are told apart by paths. */
void stg_tier_add_folders(struct stg_profile *profile);

/* As of source.h. May look at the source. */
bool stg_tier_lasting(struct stg_inode *inode, char *path, bool *ret_numbers_last);

/*
 * What is kept of the beginning of the file, as of what `now` describes, which the caller frees;
 * NULL: nothing.
 */
char *stg_tier_find(struct stg_inode *inode, const struct stg_identity *now, uint64_t *ret_bytes);

/* Is there a large copy of all of the file, as of what `now` describes? Reads the disk. */
bool stg_tier_has_whole(struct stg_inode *inode, const struct stg_identity *now);

/* The content of the file was changed, or may have been. */
void stg_tier_changed(struct stg_inode *inode);

/*
 * The times of the file are set through the mount: before that, so that no copy is taken for what
 * it is then, and after it, so that none is kept of what it was.
 */
void stg_tier_retimed(struct stg_inode *inode);

/* The name in the folder becomes another object's, by a rename or a link; before it, and after. */
void stg_tier_renamed(struct stg_inode *folder, const char *name, bool is_folder);

#endif
