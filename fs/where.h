/* SPDX-License-Identifier: GPL-2.0-only */
/* Where an object is in the source, by its path. */
#ifndef STG_FS_WHERE_H
#define STG_FS_WHERE_H

#include "fs/inode.h"

#include <limits.h>

/*
 * Writes the path of the object from the top of the source; "" for the top itself. False where that
 * cannot be said: its name is gone, or it is known by a handle alone. May look at the source.
 */
bool stg_where(struct stg_inode *inode, char place[PATH_MAX]);

/*
 * The same by where the object, and what is above it, was found last, for a tree in which nothing
 * moves: asks nobody. False where that is not known.
 */
bool stg_where_found(struct stg_inode *inode, char place[PATH_MAX]);

/* What is left of the path below the folder `prefix`; NULL where it is not below it. */
const char *stg_where_below(const char *path, const char *prefix);

#endif
