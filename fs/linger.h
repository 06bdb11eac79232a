/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Backing ids outlive the last close of their file by up to a second: a build opens the same
 * headers over and over, and registering an id costs as much as the open itself.
 *
 * A kept id pins the source file (the space of an unlinked one, the mount that holds it), so it is
 * dropped at once where a name of the file is removed. At most STG_LINGER_MAX ids are kept.
 */
#ifndef STG_FS_LINGER_H
#define STG_FS_LINGER_H

#include <stdbool.h>

#define STG_LINGER_MAX 1024

struct stg_inode;

/* Starts the sweeping thread; 0 or -errno. */
int stg_linger_start(void);

/* Drops every kept id and ends the thread. */
void stg_linger_stop(void);

/*
 * Keeps the backing id of an inode that has just lost its last open. The io lock is held. False
 * where there is no room: the caller closes the id.
 */
bool stg_linger_add_locked(struct stg_inode *inode);

/* Closes the inode's kept id, if it has one and no open. Takes the io lock. */
void stg_linger_drop(struct stg_inode *inode);

#endif
