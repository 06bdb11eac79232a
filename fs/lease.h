/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names and attributes of a remote source are leased to the kernel: given for longer than `ttl`,
 * and looked at again by the daemon, several times within each `ttl`, for as long as the kernel may
 * keep them. What has changed is dropped from the kernel then. So who asks again and again does not
 * wait for the source, and sees a change within `ttl` as before.
 *
 * There are as many leases as can be looked at in a part of `ttl`, which is measured; the others
 * get `ttl`. Where the source does not answer in time, all that was leased is dropped, and nothing
 * is leased until it answers.
 *
 * What makes this sound: the kernel takes no attributes that were asked for before it was told to
 * drop them, and waits for lookups that are under way when it is told to drop a name (notify.h).
 * Whatever differs from what the lease says, whoever has seen it, is told once more with the next
 * round, when answers of before it have been taken.
 */
#ifndef STG_FS_LEASE_H
#define STG_FS_LEASE_H

#include "fs/inode.h"

/* Starts the thread that looks, where there is anything to lease; 0 or -errno. */
int stg_lease_start(void);

/* Ends it: nothing is looked at, or leased, any more. When nothing is told any more (notify.h). */
void stg_lease_stop(void);

/*
 * The name in the folder is going to be answered as the inode, with those attributes: seen just
 * now. Raises the times in `entry` where it is leased; those that are 0 stay.
 */
void stg_lease_grant(struct stg_inode *folder, const char *name, struct stg_inode *inode,
                     const struct statx *stx, struct fuse_entry_param *entry);

/*
 * The name was made another by a rename through the mount, whose answer makes the kernel keep what
 * it knows by the one by the other, for as long. `inode`: what has that name, or NULL where the
 * kernel does not know it. Before that answer.
 */
void stg_lease_renamed(struct stg_inode *from, const char *name, struct stg_inode *to,
                       const char *new_name, struct stg_inode *inode);

/*
 * How long the kernel may keep that the folder has not that name, which is good for `keep_s` from
 * now on: that, or longer.
 */
double stg_lease_absent_s(struct stg_inode *folder, const char *name, double keep_s);

/*
 * How long these attributes of the inode, seen just now, may be kept, which were to be kept for
 * `timeout_s`: as long as a name that leads to it. The root has none, and is leased by that.
 */
double stg_lease_attr_timeout_s(struct stg_inode *inode, const struct statx *stx, double timeout_s);

/* Is there anything to lease, by the options alone, if the source is remote? And of that folder? */
bool stg_lease_is_possible(void);
bool stg_lease_is_for(const struct stg_inode *folder);

/* May names of the folder, and its listing, be leased at all? */
bool stg_lease_may(struct stg_inode *folder);

/*
 * The folder is listed, and what it has is looked at with each round for as long as a lease is good
 * (given.h). False where there is no time for that.
 */
bool stg_lease_listing(struct stg_inode *folder);

/* How many there are. */
uint64_t stg_lease_count(void);

#endif
