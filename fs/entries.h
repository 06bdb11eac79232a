/* SPDX-License-Identifier: GPL-2.0-only */
/* The names in a folder, for the daemon's own use. */
#ifndef STG_FS_ENTRIES_H
#define STG_FS_ENTRIES_H

#include "fs/inode.h"

/* A name and its type (DT_*), borrowed. Goes on where it returns 0. */
typedef int stg_entries_visit(const char *name, unsigned char type, void *context);

/*
 * Calls `visit` with each name but for the folder itself and what is above it; from the catalog,
 * where that has the folder, else the source is read. Returns what `visit` did, or -errno. No lock
 * may be held.
 */
int stg_entries_each(struct stg_inode *folder, stg_entries_visit *visit, void *context);

#endif
