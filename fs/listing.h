/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Slow folders are read whole.
 *
 * A compiler asks twenty folders for each header, and nineteen say no, one round trip each. After
 * the third lookup in a folder of a remote source the folder is read, once, and who asks for a name
 * that is not there, within the time that absence may be kept, is answered from that. What is there
 * is always looked up; but the source's own client (FUSE, NFS) was given the attributes with the
 * names (READDIRPLUS), and answers from those: so a folder costs a few round trips, and not one for
 * each file, also when it is looked at again after `ttl`. A folder that is asked when its time is
 * nearly over is read anew by a thread, so that who asks it all the time does not wait for it.
 *
 * A source that takes two spellings for one name (upper and lower case, composed and decomposed
 * letters, a point at the end) has names that no listing shows: those are left to it, and where a
 * folder is found to take either case, or that cannot be found out, all are.
 */
#ifndef STG_FS_LISTING_H
#define STG_FS_LISTING_H

#include "fs/inode.h"

/* Is the name surely not in the folder? For how long that may be kept is in `*ret_left_s`. */
bool stg_listing_lacks(struct stg_inode *folder, const char *name, double *ret_left_s);

/* A name was looked up in the folder, which may have it read. */
void stg_listing_asked(struct stg_inode *folder);

/* Reads the folder, where that is of use, nobody does, and it has not been done lately. */
void stg_listing_read(struct stg_inode *folder);

/*
 * May the folder's listing tell, from now on, whether it has got the name? It may where it could
 * when it was read last, and is read in little time.
 */
bool stg_listing_may_tell(struct stg_inode *folder, const char *name);

/* What a folder has at one moment. */
struct stg_listing_look;

/*
 * Has the folder the names that it had with the last look, by its times? They are believed where
 * they had been what they are for longer than a tick of any clock when it was read, or are a minute
 * old, and checked by reading it every now and then: not every server has times for that (FAT,
 * object stores).
 */
bool stg_listing_is_same(struct stg_inode *folder);

/* Reads the folder, waiting for nobody else's reading; NULL where not all of it could be read. */
struct stg_listing_look *stg_listing_look(struct stg_inode *folder);
/* True where that cannot be told of the folder's names, too. */
bool stg_listing_look_has(const struct stg_listing_look *look, const char *name);
void stg_listing_look_end(struct stg_listing_look *look);

/* All that a folder has, with its type, as one number; and when that was seen (monotonic). */
struct stg_listing_sum {
    uint64_t sum;
    int64_t at_ns;
};

/* What an entry adds to that. */
uint64_t stg_listing_hash(const char *name, unsigned char type);

/* What was seen of the folder, by whoever has read it; false: nothing that is still good. */
bool stg_listing_sum(struct stg_inode *folder, struct stg_listing_sum *ret_sum);

/* The folder's times as one number, 0 where they cannot be had; and are they old? */
struct stg_listing_times {
    uint64_t hash;
    bool old;
};

/* What somebody sees who reads a folder: begun before that. */
struct stg_listing_seen {
    uint64_t sum; /* of what was read */
    int64_t at_ns;
    uint64_t generation;
    struct stg_listing_times times;
};
struct stg_listing_seen stg_listing_begin(struct stg_inode *folder);

/* All of the folder was read. */
void stg_listing_note(struct stg_inode *folder, const struct stg_listing_seen *seen);

/* Asks the source. */
struct stg_listing_times stg_listing_times(struct stg_inode *folder);

/* Ends the threads that read folders anew, and readings by others that are going on. */
void stg_listing_stop(void);

/* A name was made in the folder, through the mount; before that is answered. */
void stg_listing_outdate(struct stg_inode *folder);

/* The folder is seen to have that name: it is not answered to be absent any more. */
void stg_listing_saw(struct stg_inode *folder, const char *name);

/* Nothing that was listed before is used any more. */
void stg_listing_doubt_all(void);

/* Frees what the inode has. */
void stg_listing_free(struct stg_inode *inode);

#endif
