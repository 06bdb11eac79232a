/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel is told to forget.
 *
 * The kernel may wait in such a call: for pages that are being read, whose READ somebody has to
 * answer; for a folder in which a request is under way. So no thread that answers requests makes
 * one, but stg_notify_touched(); some have it made by threads for that.
 */
#ifndef STG_FS_NOTIFY_H
#define STG_FS_NOTIFY_H

#include "fs/inode.h"

/* Starts the threads; 0 or -errno. */
int stg_notify_start(void);

/*
 * Nothing is told from now on. Where somebody waits in the kernel for requests that nobody answers
 * any more, the connection is aborted. Before the unmount.
 */
void stg_notify_stop(void);

/* Takes the mount away and aborts its connection: who waits for an answer is given an error. */
void stg_notify_abort(void);

/* Ends the threads. */
void stg_notify_fini(void);

/*
 * Drops the attributes, and the pages, or listing of a folder, too. False where the kernel does not
 * know the inode: never did, forgot it, or has not yet taken the answer that tells of it.
 */
bool stg_notify_inode(struct stg_inode *inode, bool pages);

/*
 * The attributes of the inode were changed by the request that the caller is about to answer, which
 * is about that inode, or a name of it or in it. The kernel forgets them by itself then, but takes
 * what it is answered to a question of before that (fuse_invalidate_attr_mask(), Linux 6.18, leaves
 * the attributes' version as it is): that it refuses where it was told. Does not wait: pages and
 * names are left alone, and who waits for the answer holds the inode.
 */
void stg_notify_touched(struct stg_inode *inode);

/* Drops a name in the folder, there or not. Waits for lookups and listings in it that go on. */
void stg_notify_name(struct stg_inode *folder, const char *name);

/*
 * Has a name looked up again when it is asked for next. Unlike a drop that leaves a mount on it
 * alone. Waits as that does.
 */
void stg_notify_name_again(struct stg_inode *folder, const char *name);

/*
 * Do those two, and the next, wait? Linux 6.19 looks for the name without the folder's lock first:
 * what is being looked up is not seen then, and has to be dropped once more when it has been taken.
 */
bool stg_notify_waits(void);

/* How long that takes, to all experience: the caller sleeps until his answer comes. */
#define STG_NOTIFY_TAKEN_NS 20000000L

/* Waits for lookups and listings in the folder that go on, and drops nothing. */
void stg_notify_await(struct stg_inode *folder);

/* Has every name looked up again. False where the kernel has no such thing. */
bool stg_notify_names(void);

/* Drops the kernel's listing of the folder, when it has taken the answer that is being given. */
void stg_notify_listing_later(struct stg_inode *folder);

/* Drops attributes and pages, by a thread, when the answer that is being given has been taken. */
void stg_notify_pages_later(struct stg_inode *inode);

/* Drops attributes and pages, by a thread, and waits for it, a second at most. True: it is done. */
bool stg_notify_pages_wait(struct stg_inode *inode);

/* Counted since the start. */
uint64_t stg_notify_count_names(void);
uint64_t stg_notify_count_inodes(void);

#endif
