/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the two queues and the ghosts.
 *
 * The ghosts' table holds each remembered key once. A key that comes back is taken out of the table
 * and its place in the ring becomes 0, so that the ring's turn over that place does not take out a
 * later memory of the same key.
 */
#include "cache/fifo.h"

#include "util/bytes.h"

#include <errno.h>
#include <stdlib.h>

#define USES_MAX 3
#define USES_TO_STAY 2 /* the reader that a copy was made for counts as one */
#define SMALL_SHARE 10 /* the small queue is a tenth of all bytes */

int stg_fifo_init(struct stg_fifo *fifo, uint32_t ghosts) {
    uint32_t places = 2;

    while (places < ghosts * 2)
        places *= 2;
    *fifo = (struct stg_fifo){.ghost_count = ghosts, .ghost_mask = places - 1};
    fifo->ghosts = calloc(ghosts, sizeof(*fifo->ghosts));
    fifo->ghost_table = calloc(places, sizeof(*fifo->ghost_table));
    if (!fifo->ghosts || !fifo->ghost_table) {
        stg_fifo_fini(fifo);
        return -ENOMEM;
    }
    return 0;
}

void stg_fifo_fini(struct stg_fifo *fifo) {
    free(fifo->ghosts);
    free(fifo->ghost_table);
    fifo->ghosts = NULL;
    fifo->ghost_table = NULL;
}

/* ---- ghosts ---- */

static uint32_t home_of(const struct stg_fifo *fifo, uint64_t key) {
    return (uint32_t)stg_hash_u64(key) & fifo->ghost_mask;
}

static uint64_t key_at(const struct stg_fifo *fifo, uint32_t place) {
    return fifo->ghosts[fifo->ghost_table[place] - 1];
}

/* The key's place in the table, or the free one where it would go. */
static uint32_t find_place(const struct stg_fifo *fifo, uint64_t key) {
    uint32_t place = home_of(fifo, key);

    while (fifo->ghost_table[place] && key_at(fifo, place) != key)
        place = (place + 1) & fifo->ghost_mask;
    return place;
}

/* Frees the place; those behind it that can move closer to their home do. */
static void free_place(struct stg_fifo *fifo, uint32_t place) {
    uint32_t next = place;

    fifo->ghosts[fifo->ghost_table[place] - 1] = 0;
    fifo->ghost_table[place] = 0;
    for (;;) {
        uint32_t home;

        next = (next + 1) & fifo->ghost_mask;
        if (!fifo->ghost_table[next])
            return;
        home = home_of(fifo, key_at(fifo, next));
        if (((next - home) & fifo->ghost_mask) >= ((next - place) & fifo->ghost_mask)) {
            fifo->ghost_table[place] = fifo->ghost_table[next];
            fifo->ghost_table[next] = 0;
            place = next;
        }
    }
}

static bool forget_ghost(struct stg_fifo *fifo, uint64_t key) {
    uint32_t place = find_place(fifo, key);

    if (!fifo->ghost_table[place])
        return false;
    free_place(fifo, place);
    return true;
}

static void remember_ghost(struct stg_fifo *fifo, uint64_t key) {
    uint64_t oldest = fifo->ghosts[fifo->ghost_next];

    if (oldest)
        (void)forget_ghost(fifo, oldest); /* it is there */
    (void)forget_ghost(fifo, key);        /* a fresh memory of the same thing replaces the old */
    fifo->ghosts[fifo->ghost_next] = key;
    fifo->ghost_table[find_place(fifo, key)] = fifo->ghost_next + 1;
    fifo->ghost_next = (fifo->ghost_next + 1) % fifo->ghost_count;
}

/* ---- queues ---- */

static struct stg_fifo_list *list_of(struct stg_fifo *fifo, enum stg_fifo_queue queue) {
    return queue == STG_FIFO_SMALL ? &fifo->small : &fifo->main;
}

static void append(struct stg_fifo *fifo, struct stg_fifo_entry *entry, enum stg_fifo_queue queue) {
    struct stg_fifo_list *list = list_of(fifo, queue);

    entry->queue = (uint8_t)queue;
    entry->uses = 0;
    entry->older = list->newest;
    entry->newer = NULL;
    if (list->newest)
        list->newest->newer = entry;
    else
        list->oldest = entry;
    list->newest = entry;
    list->bytes += entry->bytes;
    list->entries++;
}

void stg_fifo_remove(struct stg_fifo *fifo, struct stg_fifo_entry *entry) {
    struct stg_fifo_list *list;

    if (entry->queue == STG_FIFO_NONE)
        return;
    list = list_of(fifo, entry->queue);
    if (entry->older)
        entry->older->newer = entry->newer;
    else
        list->oldest = entry->newer;
    if (entry->newer)
        entry->newer->older = entry->older;
    else
        list->newest = entry->older;
    list->bytes -= entry->bytes;
    list->entries--;
    entry->queue = STG_FIFO_NONE;
    entry->older = entry->newer = NULL;
}

void stg_fifo_add(struct stg_fifo *fifo, struct stg_fifo_entry *entry, uint64_t key,
                  uint64_t bytes) {
    entry->key = key;
    entry->bytes = bytes;
    append(fifo, entry, forget_ghost(fifo, key) ? STG_FIFO_MAIN : STG_FIFO_SMALL);
}

void stg_fifo_use(struct stg_fifo_entry *entry) {
    if (entry->uses < USES_MAX)
        entry->uses++;
}

static void move_to_main(struct stg_fifo *fifo, struct stg_fifo_entry *entry) {
    stg_fifo_remove(fifo, entry);
    append(fifo, entry, STG_FIFO_MAIN);
}

typedef bool (*may_go_fn)(const struct stg_fifo_entry *entry, void *context);

/* The oldest of the small queue that was hardly used; the others move on to the main queue. */
static struct stg_fifo_entry *from_small(struct stg_fifo *fifo, may_go_fn may_go, void *context) {
    struct stg_fifo_entry *entry = fifo->small.oldest;

    while (entry) {
        struct stg_fifo_entry *newer = entry->newer;

        if (entry->uses >= USES_TO_STAY) {
            move_to_main(fifo, entry);
        } else if (may_go(entry, context)) {
            stg_fifo_remove(fifo, entry);
            remember_ghost(fifo, entry->key);
            return entry;
        }
        entry = newer;
    }
    return NULL;
}

/* The oldest of the main queue that was not used; each use of the others buys one more round. */
static struct stg_fifo_entry *from_main(struct stg_fifo *fifo, may_go_fn may_go, void *context) {
    uint64_t steps = fifo->main.entries * (USES_MAX + 1);

    for (; steps && fifo->main.oldest; steps--) {
        struct stg_fifo_entry *entry = fifo->main.oldest;
        uint8_t uses = entry->uses;

        stg_fifo_remove(fifo, entry);
        if (!uses && may_go(entry, context)) {
            remember_ghost(fifo, entry->key);
            return entry;
        }
        append(fifo, entry, STG_FIFO_MAIN);
        entry->uses = uses ? uses - 1 : 0;
    }
    return NULL;
}

struct stg_fifo_entry *stg_fifo_evict(struct stg_fifo *fifo, may_go_fn may_go, void *context) {
    bool small_first = fifo->small.bytes * SMALL_SHARE >= stg_fifo_bytes(fifo);
    struct stg_fifo_entry *entry = NULL;

    if (small_first)
        entry = from_small(fifo, may_go, context);
    if (!entry)
        entry = from_main(fifo, may_go, context);
    if (!entry && !small_first)
        entry = from_small(fifo, may_go, context);
    return entry;
}
