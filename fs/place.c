/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the places and the pins of inodes, and the lock over both. */
#include "fs/place.h"

#include "fs/inode.h"
#include "util/cleanup.h"

#include <stdatomic.h>
#include <string.h>

struct stg_place {
    struct stg_inode *parent; /* referenced */
    char name[];
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static _Atomic uint64_t moves; /* renames through the mount */

static bool is_same(const struct stg_place *place, const struct stg_inode *parent,
                    const char *name) {
    return place && place->parent == parent && !strcmp(place->name, name);
}

uint64_t stg_place_moves(void) { return atomic_load(&moves); }

void stg_place_moving(void) { atomic_fetch_add(&moves, 1); }

/* Takes the place, and gives the old one back; or, where it is older than a rename, that one. */
static struct stg_place *exchange(struct stg_inode *inode, struct stg_place *place,
                                  uint64_t seen_moves) {
    struct stg_place *old;

    stg_lock_take(&lock);
    old = inode->place;
    if (old && seen_moves != STG_PLACE_CERTAIN && seen_moves != atomic_load(&moves))
        old = place;
    else
        inode->place = place;
    stg_lock_drop(&lock);
    return old;
}

int stg_place_set(struct stg_inode *inode, struct stg_inode *parent, const char *name,
                  uint64_t seen_moves) {
    size_t name_bytes = strlen(name) + 1;
    struct stg_place *place;
    bool same;

    stg_lock_take(&lock);
    same = is_same(inode->place, parent, name);
    stg_lock_drop(&lock);
    if (same || inode == stg_fs.root || inode == parent)
        return 0;
    place = malloc(sizeof(*place) + name_bytes);
    if (!place)
        return -ENOMEM;
    place->parent = parent;
    memcpy(place->name, name, name_bytes);
    stg_inode_ref(parent);
    place = exchange(inode, place, seen_moves);
    if (place) {
        stg_inode_unref(place->parent);
        free(place);
    }
    return 0;
}

bool stg_place_may_be(struct stg_inode *inode, struct stg_inode *parent, const char *name,
                      uint64_t seen_moves) {
    bool may_be;

    stg_lock_take(&lock);
    may_be = !inode->place || is_same(inode->place, parent, name) ||
             (seen_moves != STG_PLACE_CERTAIN && seen_moves != atomic_load(&moves));
    stg_lock_drop(&lock);
    return may_be;
}

int stg_place_get(struct stg_inode *inode, struct stg_inode **ret_parent, char **ret_name) {
    int error = -ESTALE;

    stg_lock_take(&lock);
    if (inode->place) {
        *ret_name = strdup(inode->place->name);
        error = *ret_name ? 0 : -ENOMEM;
        if (!error) {
            *ret_parent = inode->place->parent;
            stg_inode_ref(*ret_parent);
        }
    }
    stg_lock_drop(&lock);
    return error;
}

struct stg_inode *stg_place_free(struct stg_inode *inode) {
    struct stg_place *place = inode->place; /* the last user: no lock needed */
    struct stg_inode *parent = place ? place->parent : NULL;

    inode->place = NULL;
    free(place);
    return parent;
}

void stg_place_discard(struct stg_inode *inode) {
    free(inode->place);
    inode->place = NULL;
}

void stg_inode_pin_take(struct stg_inode *inode, int fd) {
    stg_lock_take(&lock);
    if (inode->pinned_fd < 0) {
        inode->pinned_fd = fd;
        fd = -1;
    }
    stg_lock_drop(&lock);
    stg_fd_close(fd);
}

int stg_inode_pin_to(struct stg_inode *inode, int fd) {
    int pin = stg_reopen(fd, O_PATH); /* a real descriptor would count as a writer for leases */

    if (pin < 0)
        return pin;
    stg_inode_pin_take(inode, pin);
    return 0;
}

int stg_place_pinned(struct stg_inode *inode) {
    int fd;

    stg_lock_take(&lock);
    fd = inode->pinned_fd; /* stays open while the inode lives, and it does during the request */
    stg_lock_drop(&lock);
    return fd;
}
