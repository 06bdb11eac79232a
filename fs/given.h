/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Listings of remote folders that the kernel keeps.
 *
 * Who lists a folder of a remote source again and again (find, git, a build system that looks for
 * files) waits for the source each time. So the kernel keeps what it was given of a folder that is
 * in use; each open of the folder asks whether that may go on, and the daemon knows: it looks at
 * such folders several times within each `ttl` (lease.h), and has noted what was given. Where that
 * is not what the folder had at the last look, the kernel drops what it has.
 *
 * What is compared is all that was given, and not the folder's times: not every server has such.
 * Only what one reader was given from the beginning to the end, while nobody else was reading, is
 * known to be what the kernel keeps.
 */
#ifndef STG_FS_GIVEN_H
#define STG_FS_GIVEN_H

#include "fs/inode.h"
#include "fs/listing.h"

struct dirent64;

/* One who lists a folder; zeroed at first, and under its own lock. */
struct stg_giving {
    bool begun;
    struct stg_listing_seen seen;
};

/* Is what the kernel keeps what the folder has, by a look within `ttl`? From now on it is leased.
 */
bool stg_given_is_current(struct stg_inode *folder);

/*
 * May the kernel keep what it is going to be given? Where the folder is listed again, and is looked
 * at from now on: also who holds it open is shown what changes.
 */
bool stg_given_may_be_kept(struct stg_inode *folder);

/* The folder is listed from its beginning; nothing, where that is not for the kernel to keep. */
void stg_given_begin(struct stg_inode *folder, struct stg_giving *giving);

/* That entry is given next. */
void stg_given_entry(struct stg_giving *giving, const struct dirent64 *entry);

/* That was it. `complete`: the folder has no more; else somebody has gone elsewhere, or away. */
void stg_given_end(struct stg_inode *folder, struct stg_giving *giving, bool complete);

/*
 * The folder was looked at, or will not be any more (`looked` false): has the kernel drop what is
 * not what was seen. Not by a thread that answers requests (notify.h).
 */
void stg_given_check(struct stg_inode *folder, bool looked);

/* Frees what the inode has. */
void stg_given_free(struct stg_inode *inode);

#endif
