/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A bounded cache of O_PATH descriptors, one per inode at most, with CLOCK eviction.
 *
 * One lock, held for a few instructions and never across a system call: an evicted descriptor is
 * closed by the caller after the lock is dropped.
 */
#ifndef STG_FS_FDCACHE_H
#define STG_FS_FDCACHE_H

#include <stdint.h>

struct stg_inode;

/* Prepares room for `capacity` descriptors (1 to 65534). Returns 0 or -ENOMEM. */
int stg_fdcache_init(unsigned capacity);
void stg_fdcache_fini(void);

/* The inode's descriptor, held until stg_fdcache_put(slot); -1 where none is cached. */
int stg_fdcache_get(struct stg_inode *inode, uint16_t *ret_slot);

/*
 * Gives `fd` to the cache, held as by get. Where another thread was faster, `fd` is closed and the
 * other's is returned; where no slot is free, `*ret_slot` is 0 and the caller keeps `fd`.
 */
int stg_fdcache_add(struct stg_inode *inode, int fd, uint16_t *ret_slot);

void stg_fdcache_put(uint16_t slot);

/*
 * Gives the inode's descriptor up; closed now, or by the last who holds it: the answer to a request
 * lets the kernel forget the inode while the request's thread has not yet put what it was lent.
 */
void stg_fdcache_drop(struct stg_inode *inode);

#endif
