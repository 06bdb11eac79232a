/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Telling the kernel what has become of a lease, by threads for that: the kernel lets who tells of
 * a name wait for lookups and listings in its folder, and who looks at leases has no time for that.
 */
#ifndef STG_FS_LEASE_TELL_H
#define STG_FS_LEASE_TELL_H

#include "fs/inode.h"

/*
 * Has the name in the folder asked for again when it is used next, and the attributes of the inode,
 * where that is not NULL. What the name leads to, where that is another by then, the kernel finds
 * itself: so nothing is taken away that is mounted on it, and who works in it finds it there. With
 * the name "", the folder's own, which the kernel has not, without effect.
 */
void stg_lease_tell(struct stg_inode *folder, const char *name, struct stg_inode *inode);

/* Ends the threads. When nothing is told any more (notify.h), so that they are not waited for. */
void stg_lease_tell_stop(void);

#endif
