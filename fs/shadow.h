/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a staged copy had when it was last looked at. Where the copy differs from its shadow, a
 * program has stored into it through a mapping, which nobody tells: that, and nothing else, belongs
 * to the source.
 *
 * Not thread-safe: its owner's lock is held over each call, and over each write to the copy.
 */
#ifndef STG_FS_SHADOW_H
#define STG_FS_SHADOW_H

#include <stdint.h>
#include <stdlib.h>

struct stg_inode;
struct stg_object;

/* Zeroed: of an empty copy. */
struct stg_shadow {
    char *content; /* mapped; NULL where it is empty */
    uint64_t bytes;
};

/* Makes the shadow what the copy is now. 0 or -errno; then it is what it was. */
int stg_shadow_take(struct stg_shadow *shadow, struct stg_object *object);

/* The same was written to the copy, and to the source. */
void stg_shadow_write(struct stg_shadow *shadow, const void *buffer, size_t bytes, uint64_t offset);

/* Puts what was stored into the copy to the source. 0 or -errno: what was not put stays to be. */
int stg_shadow_carry(struct stg_shadow *shadow, struct stg_inode *inode, struct stg_object *object);

/*
 * The source was changed otherwise than by its writers: makes the copy what that is, but for what
 * is stored into the copy meanwhile, which goes to the source. The copy is written where it has to
 * be another, and no more: so a store at the same time is lost only where it meets that byte
 * between the look at it and its writing, which nothing but the comparison of a piece comes
 * between. Returns 0 or -errno, and part of it may be what it was: -EFBIG for more than is staged.
 */
int stg_shadow_renew(struct stg_shadow *shadow, struct stg_inode *inode, struct stg_object *object);

/* Frees what it has. */
void stg_shadow_drop(struct stg_shadow *shadow);

#endif
