/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies that may still be mapped when nobody has them open any more.
 *
 * A passed-through mapping holds the copy's file and not ours, so RELEASE comes at close(2) while
 * the mapping lives on. Such a copy must neither be evicted (its memory would be used, and not
 * counted) nor be bypassed by a writer (whose writes the mapping would not show). So the hold of
 * the last open is kept until a write lease on the copy's file can be had: the kernel grants one
 * only where nobody else has the file open, by descriptor or mapping (fs/locks.c:
 * check_conflicting_open()). That is tried after half a second, and when a writer comes.
 */
#ifndef STG_FS_KEEP_H
#define STG_FS_KEEP_H

#include <stdbool.h>

struct stg_inode;

/* Starts the thread that lets go; 0 or -errno. */
int stg_keep_start(void);

/* Lets go of everything and ends the thread. */
void stg_keep_stop(void);

/*
 * Keeps the hold of the last open of a COPY inode that is being released; the io lock is held.
 * False where one is kept already: the caller gives its own back.
 */
bool stg_keep_locked(struct stg_inode *inode);

/* Lets go of what is not mapped, at once. Without locks. */
void stg_keep_sweep(void);

/* Is the copy of a COPY inode without opens in use through a mapping? The io lock is held. */
bool stg_keep_is_mapped_locked(struct stg_inode *inode);

#endif
