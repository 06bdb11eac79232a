/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which copy goes when room is needed: S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all
 * you need for cache eviction", SOSP 2023), with sizes in bytes.
 *
 * New entries pass a small queue first; those that are used twice while there move on to the main
 * one, the others go, and only their keys are remembered for a while (the ghosts). So a scan, which
 * uses each thing once, flows through the small queue and leaves the main one alone.
 *
 * Not thread-safe: the owner has a lock. Entries are part of the owner's objects; nothing is
 * allocated after stg_fifo_init().
 */
#ifndef STG_CACHE_FIFO_H
#define STG_CACHE_FIFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stg_fifo_queue { STG_FIFO_NONE, STG_FIFO_SMALL, STG_FIFO_MAIN };

struct stg_fifo_entry {
    struct stg_fifo_entry *older; /* towards the end from which entries are taken */
    struct stg_fifo_entry *newer;
    uint64_t key; /* for the ghosts: the same whenever the same thing comes back */
    uint64_t bytes;
    uint8_t queue; /* enum stg_fifo_queue */
    uint8_t uses;  /* since it came into its queue; 3 at most */
};

struct stg_fifo_list {
    struct stg_fifo_entry *oldest;
    struct stg_fifo_entry *newest;
    uint64_t bytes;
    uint64_t entries;
};

struct stg_fifo {
    struct stg_fifo_list small;
    struct stg_fifo_list main;
    uint64_t *ghosts; /* a ring of keys in the order in which they went; 0: none */
    uint32_t ghost_count;
    uint32_t ghost_next;
    uint32_t *ghost_table; /* open addressing: index into the ring plus one */
    uint32_t ghost_mask;
};

/* Remembers up to `ghosts` keys of what went (at least 1). Returns 0 or -ENOMEM. */
int stg_fifo_init(struct stg_fifo *fifo, uint32_t ghosts);
void stg_fifo_fini(struct stg_fifo *fifo);

/* Adds the entry, which is in no queue; `key` is not 0. */
void stg_fifo_add(struct stg_fifo *fifo, struct stg_fifo_entry *entry, uint64_t key,
                  uint64_t bytes);

/* Notes a use. */
void stg_fifo_use(struct stg_fifo_entry *entry);

/* Takes the entry out, for a reason other than room; without effect where it is in no queue. */
void stg_fifo_remove(struct stg_fifo *fifo, struct stg_fifo_entry *entry);

/*
 * Picks what shall go, takes it out of its queue, remembers its key, and returns it. Entries that
 * `may_go` refuses are passed over and stay (they are in use). NULL where nothing may go.
 */
struct stg_fifo_entry *
stg_fifo_evict(struct stg_fifo *fifo,
               bool (*may_go)(const struct stg_fifo_entry *entry, void *context), void *context);

static inline uint64_t stg_fifo_bytes(const struct stg_fifo *fifo) {
    return fifo->small.bytes + fifo->main.bytes;
}

#endif
