/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files that are staged by range: cut into pieces of equal size, each of which is fetched when it
 * is first read, kept, compressed and evicted like a small file. For what is too large to be
 * fetched whole, and for all files where there is no kernel passthrough.
 *
 * Such a file is served from the kernel's page cache, which the daemon fills from the pieces. They
 * are all of one version of the file: where it is seen to be another, they go.
 */
#ifndef STG_FS_RANGES_H
#define STG_FS_RANGES_H

#include "fs/staging.h"

struct stg_ranges;

/*
 * Prepares the inode for being opened so, the source having been looked at. `*ret_keep`: the
 * content that the kernel may have cached is still good; NULL where it is not for an open. False
 * without memory.
 */
bool stg_ranges_open(struct stg_inode *inode, bool *ret_keep);

/*
 * Answers a READ from the pieces, now or when they have been fetched. False where it does not: the
 * inode is not staged so, or is being written.
 */
bool stg_ranges_read(fuse_req_t req, struct stg_inode *inode, size_t size, off_t offset);

/*
 * A descriptor of the source for a fetch, which the caller owns, where one is kept for that; -1
 * elsewhere: then one that was opened can be lent, and is kept while the file is open.
 */
int stg_ranges_source_fd(struct stg_inode *inode);
void stg_ranges_lend(struct stg_inode *inode, int fd);

/* The last open is gone; the io lock is held. */
void stg_ranges_idle_locked(struct stg_inode *inode);

/*
 * Has all of the file fetched, as far as there is room for it; does not wait. True where some of it
 * was not there, and comes now.
 */
bool stg_ranges_prefetch(struct stg_inode *inode);

/* The source is seen to be `now`: pieces of another version go. */
void stg_ranges_compare(struct stg_inode *inode, const struct stg_identity *now);

/* The source is going to be another, or is: it is looked at before the file is staged again. */
void stg_ranges_unsee(struct stg_inode *inode);

/* All pieces go. */
void stg_ranges_drop(struct stg_inode *inode);

/* One of the pieces has nothing any more; under the io lock. */
void stg_ranges_absent_locked(struct stg_inode *inode, struct stg_object *object);

/* Adds up what is there of the file. */
void stg_ranges_view(struct stg_inode *inode, struct stg_staging_view *view);

/* Frees what the inode has, all pieces being gone. */
void stg_ranges_free(struct stg_staged *staged);

#endif
