/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the cached descriptors. Does not know how one is opened. */
#include "fs/fdcache.h"

#include "fs/inode.h"
#include "util/cleanup.h"

struct slot {
    struct stg_inode *inode; /* NULL: free */
    int fd;
    uint32_t holders;
    bool used;    /* since the hand last came by */
    bool dropped; /* its inode is gone; closed by the last holder */
};

static struct slot *slots; /* slot 0 is never used; protected by lock, as all below */
static unsigned slot_count;
static unsigned hand;
static struct stg_lock lock = STG_LOCK(STG_RANK_DESCRIPTORS);

int stg_fdcache_init(unsigned capacity) {
    slots = calloc(capacity + 1, sizeof(*slots));
    slot_count = capacity + 1;
    hand = 0;
    return slots ? 0 : -ENOMEM;
}

void stg_fdcache_fini(void) {
    for (unsigned i = 1; slots && i < slot_count; i++)
        if (slots[i].inode || slots[i].dropped)
            stg_fd_close(slots[i].fd);
    free(slots);
    slots = NULL;
}

static int hold_locked(struct stg_inode *inode, uint16_t *ret_slot) {
    struct slot *slot = &slots[inode->cache_slot];

    slot->holders++;
    slot->used = true;
    *ret_slot = inode->cache_slot;
    return slot->fd;
}

int stg_fdcache_get(struct stg_inode *inode, uint16_t *ret_slot) {
    int fd = -1;

    stg_lock_take(&lock);
    if (inode->cache_slot)
        fd = hold_locked(inode, ret_slot);
    stg_lock_drop(&lock);
    return fd;
}

/* A slot that is free or has had its second chance; 0 where all are held. */
static unsigned pick_slot_locked(void) {
    for (unsigned steps = 2 * slot_count; steps; steps--) {
        hand = hand + 1 < slot_count ? hand + 1 : 1;
        if (slots[hand].holders)
            continue;
        if (!slots[hand].inode)
            return hand;
        if (!slots[hand].used)
            return hand;
        slots[hand].used = false;
    }
    return 0;
}

int stg_fdcache_add(struct stg_inode *inode, int fd, uint16_t *ret_slot) {
    int unwanted = -1;
    unsigned index;

    stg_lock_take(&lock);
    if (inode->cache_slot) {
        unwanted = fd;
        fd = hold_locked(inode, ret_slot);
    } else {
        index = pick_slot_locked();
        if (index) {
            if (slots[index].inode) {
                slots[index].inode->cache_slot = 0;
                unwanted = slots[index].fd;
            }
            slots[index] = (struct slot){.inode = inode, .fd = fd};
            inode->cache_slot = (uint16_t)index;
            (void)hold_locked(inode, ret_slot); /* gives back `fd` */
        } else {
            *ret_slot = 0;
        }
    }
    stg_lock_drop(&lock);
    stg_fd_close(unwanted);
    return fd;
}

void stg_fdcache_put(uint16_t slot) {
    int unwanted = -1;

    stg_lock_take(&lock);
    if (!--slots[slot].holders && slots[slot].dropped) {
        unwanted = slots[slot].fd;
        slots[slot] = (struct slot){0};
    }
    stg_lock_drop(&lock);
    stg_fd_close(unwanted);
}

void stg_fdcache_drop(struct stg_inode *inode) {
    int unwanted = -1;

    stg_lock_take(&lock);
    if (inode->cache_slot) {
        struct slot *slot = &slots[inode->cache_slot];

        if (slot->holders) { /* by a request that has been answered and is about to end */
            slot->inode = NULL;
            slot->dropped = true;
        } else {
            unwanted = slot->fd;
            *slot = (struct slot){0};
        }
        inode->cache_slot = 0;
    }
    stg_lock_drop(&lock);
    stg_fd_close(unwanted);
}
