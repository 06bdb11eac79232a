/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The folders of a tree that does not change, as an earlier mount has seen them: names, attributes,
 * and what is not there, without a look at the source.
 *
 * With coherence=frozen, read-only, and with stage_dir=, each folder that is looked into at the
 * source is read whole, behind who looks, and kept on disk. The next such mount answers from that.
 * Together with the copies of files that are kept there a build needs the source for nothing.
 *
 * Once it may not be what the source has, all of it is given up, for good: at a sync, by a mount
 * that may change the tree or that looks at it, where the top of the source has other times than it
 * had, and where a file that has to be read after all is another. Where something is mounted below
 * the source at the start it is not used.
 *
 * Left to the source is what lies on another device, and what has several names where it has no
 * number that lasts.
 */
#ifndef STG_FS_CATALOG_H
#define STG_FS_CATALOG_H

#include "cache/folder.h"
#include "fs/inode.h"

/*
 * Decides whether there is one for this mount, and forgets what is kept where there is none; after
 * the tier and the root are there, before there are other threads.
 */
void stg_catalog_start(void);

/* May there be one, by the options alone? */
bool stg_catalog_is_possible(void);

/* Ends the threads that read folders. */
void stg_catalog_stop(void);

/* Forgets what was doubted, once nobody asks any more; before the tier ends. */
void stg_catalog_fini(void);

/* Is there one for this mount? Constant while the mount is there, as the next. */
bool stg_catalog_is_there(void);

/* Was there one, which is not used any more? */
bool stg_catalog_is_over(void);

/*
 * Have files other numbers here than the source tells, so that those are not to be compared?
 */
bool stg_catalog_has_own_numbers(void);

/* What is kept of the folder, for as long as the inode is; NULL: it is to be looked into itself. */
const struct stg_folder *stg_catalog_folder(struct stg_inode *folder);

/* Is it kept of the folder that the name is not there? */
bool stg_catalog_lacks(struct stg_inode *folder, const char *name);

/* As stg_lookup(), from what is kept; -EAGAIN: the source is to be asked. */
int stg_catalog_lookup(struct stg_inode *folder, const char *name, struct stg_inode **ret_inode,
                       struct statx *ret_stx);

/* What is kept of the object: its attributes. False: the source is to be asked. */
bool stg_catalog_attributes(struct stg_inode *inode, struct statx *ret_stx);

/* The target of a symbolic link, into PATH_MAX + 1 bytes; false as above. */
bool stg_catalog_target(struct stg_inode *inode, char *target);

/* What a question for the extended attribute is answered, -errno; 0: the source is to be asked. */
int stg_catalog_xattr_error(struct stg_inode *inode, const char *name);

/* The number under which the entry of the folder is shown, before stg_volume_ino(). */
uint64_t stg_catalog_number(const struct stg_inode *folder, const struct stg_folder_entry *entry);

/* The folder was looked into at the source: it is kept for the next mount. */
void stg_catalog_asked(struct stg_inode *folder);

/*
 * Is what `stx` describes of the source what the inode, which is known from the catalog, stands
 * for? Where it does not fit, all of the catalog is doubted. Under any lock but for the last
 * rank's, as the next.
 */
bool stg_catalog_fits(struct stg_inode *inode, const struct statx *stx);

/* The inode is not where it was found; of one that is known from the catalog, that is doubted. */
void stg_catalog_is_gone(const struct stg_inode *inode);

/* The tree is being changed through the mount, which was made writable: the catalog is doubted. */
void stg_catalog_changing(void);

/* Nothing that was kept is used any more; by the thread that syncs. Changes the disk. */
void stg_catalog_drop(void);

/* How many folders were taken from it, and how many written to it. */
uint64_t stg_catalog_taken(void);
uint64_t stg_catalog_written(void);

/* Frees what the inode has. */
void stg_catalog_free(struct stg_inode *inode);

#endif
