/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which names were asked for in a remote tree, and are not there: kept on disk, so that the next
 * mount can tell the kernel before anybody asks for them again, see primer.h. A compiler asks for
 * each header in one folder after another.
 *
 * That a name is not there the catalog says, or the source, at the time; what is kept here is only
 * which names.
 */
#ifndef STG_FS_ABSENT_H
#define STG_FS_ABSENT_H

#include "fs/inode.h"

/* Takes what an earlier mount has kept; after stg_catalog_start(), before there are threads. */
void stg_absent_start(void);

/* The name was asked for in the folder, and is not there. Any thread, without a lock. */
void stg_absent_asked(struct stg_inode *folder, const char *name);

/* Has what was asked for kept, and forgets it; nobody asks any more. Before the tier ends. */
void stg_absent_stop(void);

/* Calls `visit` with the path of each, from the top; before there are requests. */
void stg_absent_each(void (*visit)(const char *path, void *context), void *context);

#endif
