/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where an inode was last seen: parent and name, the way back to it on a volume that has no file
 * handles. A place holds a reference to its parent. One lock for all places, never held across
 * I/O: paths are walked on copies.
 */
#ifndef STG_FS_PLACE_H
#define STG_FS_PLACE_H

#include <stdbool.h>
#include <stdint.h>

struct stg_inode;

/*
 * Who answers the kernel knows where an object is: the kernel keeps lookups and renames of a name
 * apart. Who looks by himself has asked for the moves before he looked.
 */
#define STG_PLACE_CERTAIN UINT64_MAX
uint64_t stg_place_moves(void);

/* Something was renamed through the mount; the new places are set after this. */
void stg_place_moving(void);

/*
 * Sets where the inode was found, when there had been `seen_moves`: where there are more since, a
 * place that it has stands. Returns 0 or -ENOMEM; then the old place stands.
 */
int stg_place_set(struct stg_inode *inode, struct stg_inode *parent, const char *name,
                  uint64_t seen_moves);

/* Is that where the inode was found before? True, too, where a rename since then may have moved it,
 * and where nothing is known. */
bool stg_place_may_be(struct stg_inode *inode, struct stg_inode *parent, const char *name,
                      uint64_t seen_moves);

/* A copy of the place: `*ret_parent` referenced, `*ret_name` owned. -ESTALE where there is none. */
int stg_place_get(struct stg_inode *inode, struct stg_inode **ret_parent, char **ret_name);

/* Frees the place. Returns its parent, whose reference is the caller's; NULL: there was none. */
struct stg_inode *stg_place_free(struct stg_inode *inode);

/* Frees the place alone: for the end of the mount, when every inode is freed anyway. */
void stg_place_discard(struct stg_inode *inode);

/* Keeps a duplicate of `fd` (O_PATH) in the inode: its name is going. 0 or -errno. */
int stg_inode_pin_to(struct stg_inode *inode, int fd);

/* Keeps `fd` itself, consumed, where nothing is pinned yet. */
void stg_inode_pin_take(struct stg_inode *inode, int fd);

/* The pinned descriptor, open while the inode lives, or -1. */
int stg_place_pinned(struct stg_inode *inode);

#endif
