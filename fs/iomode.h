/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the opens of one inode are served. The kernel fixes an inode's way of I/O with its first
 * open and answers EIO to an open that disagrees (fs/fuse/iomode.c), so the decision is the
 * inode's, not the open's:
 *
 *   IDLE --first open--> PASSTHROUGH(id of the source), COPY(id of a staged copy) or CACHED
 *        --last release--> IDLE
 *
 * A PASSTHROUGH inode without opens is lingering: its id is kept for the next open, for a while. A
 * COPY inode without opens keeps its id for as long as the copy is there. A file that cannot be
 * passed through is CACHED until its last release, whatever became possible meanwhile.
 *
 * Who has to open a COPY inode for writing while others read it gets the copy's id too, as the
 * kernel insists on that, with direct I/O: the kernel then sends reads and writes to the daemon,
 * which keeps source and copy the same (live.h).
 */
#ifndef STG_FS_IOMODE_H
#define STG_FS_IOMODE_H

#include <stdbool.h>
#include <stdint.h>

struct stg_copy;
struct stg_inode;

/* How an open is answered. */
struct stg_io_answer {
    int32_t backing_id; /* 0: it is served from the page cache */
    bool outdated;      /* the copy that is shared is of an earlier content */
    bool of_source;     /* the kernel opens the source's file, and not a copy */
    bool direct;        /* reads and writes come to the daemon nevertheless */
};

/*
 * Counts an open with the open(2) `flags` of a regular file that the source is to serve. Returns 0
 * and how to answer it; or -errno, nothing counted.
 */
int stg_io_open(struct stg_inode *inode, int flags, struct stg_io_answer *ret_answer);

/*
 * Counts an open for reading that the daemon is to serve through the page cache. Returns 0, or
 * -EBUSY where the inode's other opens are passed through: nothing counted.
 */
int stg_io_open_cached(struct stg_inode *inode, int flags);

/*
 * Counts an open for reading that a staged copy is to serve; the caller holds the copy, and its
 * hold becomes the open's. Returns 0; or -EBUSY where the inode's other opens are served otherwise
 * by now, or another -errno: nothing counted, and the caller keeps the hold.
 */
int stg_io_open_copy(struct stg_inode *inode, int flags, const struct stg_copy *copy,
                     struct stg_io_answer *ret_answer);

/* The copy of that number goes: its id is closed, if it is registered. Nobody has it open. */
void stg_io_withdraw_copy(struct stg_inode *inode, uint64_t number);

/*
 * May a copy be made, or used, for the next open? Not while somebody writes, or may through a
 * mapping; nor while other opens are served from the source.
 */
bool stg_io_may_be_staged(struct stg_inode *inode);

/* Is no open of it served otherwise than by a copy? Then the next one can be. */
bool stg_io_may_use_copy(struct stg_inode *inode);

/*
 * Undoes an open with the same flags: the file was released, or the open not delivered. Not with
 * locks held that giving up a copy takes.
 */
void stg_io_release(struct stg_inode *inode, int flags);

/* Has anybody the inode open for writing through the mount? */
bool stg_io_is_written(struct stg_inode *inode);

/* True while stores through a mapping may move the file's times without the kernel telling. */
bool stg_io_may_be_mapped(struct stg_inode *inode);

#endif
