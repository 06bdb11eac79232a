/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns how the store is changed, in the process that does it: each batch one transaction, and what
 * goes to make room for it.
 *
 * Where a transaction fails the store is as it was before, and so are the totals, which belong to
 * it. LMDB never reuses pages within the transaction that freed them, so some of the map is kept
 * free of entries; where that does not do, entries go in a transaction of their own.
 *
 * Large files may take what the map does not: as that grows, they go. Where it has become so large
 * that there is little room beside it, their pieces are kept in it, like those of small files.
 */
#include "cache/disk_impl.h"
#include "cache/guard.h"
#include "util/cleanup.h"

#include <endian.h>
#include <string.h>

/* Of the limit, what new entries have to themselves once there are used ones. */
#define NEW_PART 10
/* Of the map, what is so much that large files are kept beside the store or not at all. */
#define BESIDE_PART 4

/* ---- the order in which entries go ---- */

static void order_of(enum stg_disk_class class, uint64_t number,
                     unsigned char order[STG_DISK_ORDER_BYTES]) {
    uint64_t big = htobe64(number);

    order[0] = (unsigned char)class;
    memcpy(order + 1, &big, sizeof(big));
}

/* False where it is none of ours. */
bool stg_disk_parse_order(const MDB_val *value, enum stg_disk_class *ret_class,
                          uint64_t *ret_number) {
    const unsigned char *at = value->mv_data;
    uint64_t big;

    if (value->mv_size != STG_DISK_ORDER_BYTES || at[0] >= STG_DISK_CLASSES)
        return false;
    memcpy(&big, at + 1, sizeof(big));
    *ret_class = (enum stg_disk_class)at[0];
    *ret_number = be64toh(big);
    return true;
}

/* What the value of `order` has: the cost, and the key behind it. */
bool stg_disk_parse_cost(const MDB_val *value, uint64_t *ret_cost, MDB_val *ret_key) {
    if (value->mv_size <= sizeof(*ret_cost) ||
        value->mv_size - sizeof(*ret_cost) > STG_DISK_KEY_MAX_BYTES)
        return false;
    memcpy(ret_cost, value->mv_data, sizeof(*ret_cost));
    *ret_key =
        (MDB_val){value->mv_size - sizeof(*ret_cost), (char *)value->mv_data + sizeof(*ret_cost)};
    return true;
}

static int add_order(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                     enum stg_disk_class class, MDB_val key, uint64_t cost) {
    unsigned char order[STG_DISK_ORDER_BYTES];
    char value[sizeof(cost) + STG_DISK_KEY_MAX_BYTES];
    MDB_val order_value = {sizeof(order), order};
    MDB_val cost_value = {sizeof(cost) + key.mv_size, value};
    int error;

    order_of(class, totals->next_number++, order);
    memcpy(value, &cost, sizeof(cost));
    memcpy(value + sizeof(cost), key.mv_data, key.mv_size);
    error = mdb_put(txn, disk->order, &order_value, &cost_value, 0);
    if (!error)
        error = mdb_put(txn, disk->places, &key, &order_value, 0);
    totals->bytes[class] += cost;
    return error;
}

/* Takes the entry out of the order. Its class and cost are given back; MDB_NOTFOUND: it has none.
 */
static int take_order(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                      MDB_val key, enum stg_disk_class *ret_class, uint64_t *ret_number,
                      uint64_t *ret_cost) {
    unsigned char order[STG_DISK_ORDER_BYTES];
    MDB_val order_value;
    MDB_val cost_value;
    MDB_val unused;
    int error = mdb_get(txn, disk->places, &key, &order_value);

    if (error)
        return error;
    if (!stg_disk_parse_order(&order_value, ret_class, ret_number))
        return MDB_CORRUPTED;
    memcpy(order, order_value.mv_data, sizeof(order)); /* pages move with what is changed */
    order_value.mv_data = order;
    error = mdb_get(txn, disk->order, &order_value, &cost_value);
    if (!error && !stg_disk_parse_cost(&cost_value, ret_cost, &unused))
        error = MDB_CORRUPTED;
    if (!error)
        error = mdb_del(txn, disk->order, &order_value, NULL);
    if (error)
        return error == MDB_NOTFOUND ? MDB_CORRUPTED : error;
    totals->bytes[*ret_class] -=
        *ret_cost < totals->bytes[*ret_class] ? *ret_cost : totals->bytes[*ret_class];
    return 0;
}

/* The file that the entry names goes with it. One that it cannot name goes at the next start. */
static void leave_file(struct stg_disk *disk, MDB_txn *txn, MDB_val key) {
    struct stg_disk_large *large;
    MDB_val value;

    if (mdb_get(txn, disk->copies, &key, &value) || stg_disk_large_parse(&value, NULL, &large))
        return;
    stg_disk_numbers_add(&disk->leaving, large->number);
    free(large);
}

int stg_disk_remove(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                    MDB_val key) {
    enum stg_disk_class class;
    uint64_t number;
    uint64_t cost;
    int error = take_order(disk, txn, totals, key, &class, &number, &cost);

    if (!error)
        error = mdb_del(txn, disk->places, &key, NULL);
    if (!error && stg_disk_is_large_class(class)) {
        totals->large -= totals->large > 0;
        leave_file(disk, txn, key);
    }
    if (!error) {
        totals->entries -= totals->entries > 0;
        error = mdb_del(txn, disk->copies, &key, NULL);
    }
    return error == MDB_NOTFOUND ? 0 : error;
}

static bool is_place_of(struct stg_disk *disk, MDB_txn *txn, const MDB_val *key,
                        const MDB_val *order) {
    MDB_val wanted = *key;
    MDB_val place;

    return !mdb_get(txn, disk->places, &wanted, &place) && place.mv_size == order->mv_size &&
           !memcmp(place.mv_data, order->mv_data, place.mv_size);
}

/* What is in the store (`kind` is STG_DISK_NEW), or beside it (STG_DISK_LARGE_NEW). */
static uint64_t used_bytes(const struct stg_disk_totals *totals, enum stg_disk_class kind) {
    return totals->bytes[kind] + totals->bytes[kind + 1];
}

/* The first entry from there on in the order that is of that kind. 0, or an error of LMDB's. */
static int find_first(MDB_cursor *cursor, enum stg_disk_class kind, enum stg_disk_class class,
                      MDB_val *order_value, MDB_val *cost_value) {
    unsigned char order[STG_DISK_ORDER_BYTES];
    uint64_t number;
    int error;

    order_of(class, 0, order);
    *order_value = (MDB_val){sizeof(order), order};
    error = mdb_cursor_get(cursor, order_value, cost_value, MDB_SET_RANGE);
    if (error)
        return error;
    if (!stg_disk_parse_order(order_value, &class, &number))
        return MDB_CORRUPTED;
    return class > kind + 1 ? MDB_NOTFOUND : 0;
}

/* Evicts one entry of the kind, as of used_bytes(). MDB_NOTFOUND where there is none. */
static int evict_one(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                     enum stg_disk_class kind, uint64_t limit_bytes) {
    bool new_first = totals->bytes[kind] > limit_bytes / NEW_PART || !totals->bytes[kind + 1];
    struct stg_disk_key key;
    MDB_val order_value;
    MDB_val cost_value;
    MDB_val found;
    MDB_cursor *cursor;
    uint64_t cost;
    int error = mdb_cursor_open(txn, disk->order, &cursor);

    if (error)
        return error;
    error = find_first(cursor, kind, kind + !new_first, &order_value, &cost_value);
    if (error ==
        MDB_NOTFOUND) /* the totals are a guess after a crash of old; there may be others */
        error = find_first(cursor, kind, kind, &order_value, &cost_value);
    if (!error && !stg_disk_parse_cost(&cost_value, &cost, &found))
        error = MDB_CORRUPTED;
    if (!error && !is_place_of(disk, txn, &found, &order_value))
        error = MDB_CORRUPTED; /* taking it out would leave it there, and be no progress */
    if (!error) {
        key.bytes = found.mv_size;
        memcpy(key.text, found.mv_data, found.mv_size);
    }
    mdb_cursor_close(cursor);
    if (error)
        return error;
    error = stg_disk_remove(disk, txn, totals, (MDB_val){key.bytes, key.text});
    if (!error)
        atomic_fetch_add(&disk->evicted, 1);
    return error;
}

static int evict_to(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                    uint64_t bytes) {
    int error = 0;

    while (!error && used_bytes(totals, STG_DISK_NEW) > bytes)
        error = evict_one(disk, txn, totals, STG_DISK_NEW, disk->limit_bytes);
    return error == MDB_NOTFOUND ? 0 : error;
}

/* Has large files go until these take so much of the `room_bytes` that they may take. */
static int evict_large_to(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                          uint64_t bytes, uint64_t room_bytes) {
    int error = 0;

    while (!error && used_bytes(totals, STG_DISK_LARGE_NEW) > bytes)
        error = evict_one(disk, txn, totals, STG_DISK_LARGE_NEW, room_bytes);
    return error == MDB_NOTFOUND ? 0 : error;
}

/* ---- what is queued ---- */

/* With that the one file is not kept, and no more than that. Where a disk fails, or is full, all
 * is. */
static bool is_of_one_file(int error) {
    return error > 0 && error != ENOSPC && error != EDQUOT && error != EIO;
}

/*
 * The entry of a large file that more pieces of it can be added to. 0, with NULL where there is
 * none; or an error of LMDB's or the system's. What cannot go together with that is removed.
 */
static int find_large(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                      MDB_val key, const struct stg_disk_work *work, uint64_t offset,
                      struct stg_disk_large **ret_large) {
    stg_auto_free struct stg_disk_large *large = NULL;
    bool is_there = false;
    MDB_val value;
    int error = mdb_get(txn, disk->copies, &key, &value);

    *ret_large = NULL;
    if (error)
        return error == MDB_NOTFOUND ? 0 : error;
    error = stg_disk_large_parse(&value, &work->now, &large);
    if (error == -ENOMEM)
        return ENOMEM;
    if (!error)
        error = stg_disk_large_is_there(disk, large, &is_there);
    if (error > 0 && !is_of_one_file(error))
        return error;
    if (!is_there || stg_disk_large_contradicts(large, offset, work->content, work->content_bytes))
        return stg_disk_remove(disk, txn, totals, key);
    *ret_large = large;
    large = NULL;
    return 0;
}

/* Writes the entry, which is in none of the tables but perhaps in `copies`. */
static int write_large(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                       enum stg_disk_class class, MDB_val key, struct stg_disk_large *large) {
    MDB_val value = {stg_disk_large_value_bytes(large->head.raw_bytes), large};
    int error;

    stg_disk_large_seal(large);
    error = mdb_put(txn, disk->copies, &key, &value, 0);
    return error
               ? error
               : add_order(disk, txn, totals, class, key, stg_disk_large_cost(large, key.mv_size));
}

/* Puts pieces beside the store. 0, or as find_large(). */
static int put_beside(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                      const struct stg_disk_work *work, uint64_t offset, MDB_val key,
                      uint64_t room_bytes) {
    stg_auto_free struct stg_disk_large *large = NULL;
    enum stg_disk_class class = STG_DISK_LARGE_NEW;
    uint64_t unused;
    bool is_new;
    int error = find_large(disk, txn, totals, key, work, offset, &large);

    if (error)
        return error;
    is_new = !large;
    if (is_new)
        large = stg_disk_large_make(&work->now, totals->next_number++);
    if (!large)
        return 0; /* it is not kept */
    error = stg_disk_large_write(disk, large, is_new, offset, work->content, work->content_bytes);
    if (error && is_new)
        stg_disk_numbers_add(&disk->leaving, large->number);
    if (error) /* no table was changed for it yet */
        return is_of_one_file(error) ? 0 : error;
    if (!is_new) /* out of the order, so that it does not go itself */
        error = take_order(disk, txn, totals, key, &class, &unused, &unused);
    if (error && error != MDB_NOTFOUND)
        return error;
    /* For what is there of it: the rest may never come. */
    stg_disk_large_note(large, offset, work->content, work->content_bytes);
    error = evict_large_to(disk, txn, totals, room_bytes - stg_disk_large_cost(large, key.mv_size),
                           room_bytes);
    if (error)
        return error;
    totals->entries += is_new;
    totals->large += is_new;
    return write_large(disk, txn, totals, class, key, large);
}

/*
 * What is to be done with pieces of a large file. `*ret_done` is false where they belong into the
 * store: that has grown so much that nothing has room beside it. A file that is larger than the
 * room that there is is not kept: in the store it would drive out all that is beside it.
 */
static int put_large(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                     const struct stg_disk_work *work, uint64_t offset, bool *ret_done) {
    const uint64_t size_bytes = (uint64_t)work->now.size_bytes;
    const uint64_t room_bytes = stg_disk_large_room(disk);
    struct stg_disk_key key;
    MDB_val key_value;
    uint64_t whole_cost;

    *ret_done = stg_disk_large_key(work->key.text, &key);
    if (!*ret_done)
        return 0;
    key_value = (MDB_val){key.bytes, key.text};
    whole_cost =
        size_bytes + stg_disk_entry_cost(key.bytes, stg_disk_large_value_bytes(size_bytes));
    *ret_done = room_bytes >= whole_cost || room_bytes >= disk->map_bytes / BESIDE_PART;
    if (room_bytes < whole_cost)
        return stg_disk_remove(disk, txn, totals, key_value);
    return put_beside(disk, txn, totals, work, offset, key_value, room_bytes);
}

/* Is that a part of a large file? */
static bool is_of_large(const struct stg_disk_work *work, uint64_t *ret_offset) {
    struct stg_disk_name name = {.path = work->key.text, .now = work->now};

    stg_disk_part_of(&work->key, &name.offset, &name.bytes);
    *ret_offset = name.offset;
    return name.bytes == work->content_bytes && stg_disk_is_large(&name);
}

static int apply_put(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                     const struct stg_disk_work *work) {
    stg_auto_free void *entry = NULL;
    MDB_val key = {work->key.bytes, (void *)work->key.text};
    MDB_val value;
    uint64_t offset;
    uint64_t cost;
    bool done = false;
    int error = is_of_large(work, &offset) ? put_large(disk, txn, totals, work, offset, &done) : 0;

    if (error || done || work->content_bytes > STG_DISK_ENTRY_MAX_BYTES ||
        work->content_bytes > disk->limit_bytes / 8)
        return error;
    error =
        stg_disk_entry_make(&work->now, work->content, work->content_bytes, &entry, &value.mv_size);
    if (error)
        return -error;
    value.mv_data = entry;
    cost = stg_disk_entry_cost(key.mv_size, value.mv_size);
    error = stg_disk_remove(disk, txn, totals, key);
    if (!error)
        error = evict_to(disk, txn, totals, disk->limit_bytes - cost);
    if (!error)
        error = mdb_put(txn, disk->copies, &key, &value, 0);
    if (!error)
        error = add_order(disk, txn, totals, STG_DISK_NEW, key, cost);
    totals->entries++;
    return error;
}

/* The entry was asked for: it moves back in the order, unless it is there already. */
static int apply_touch(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                       const struct stg_disk_work *work) {
    MDB_val key = {work->key.bytes, (void *)work->key.text};
    MDB_val order_value;
    enum stg_disk_class class;
    uint64_t number;
    uint64_t cost;
    int error = mdb_get(txn, disk->places, &key, &order_value);

    if (error)
        return error == MDB_NOTFOUND ? 0 : error;
    if (!stg_disk_parse_order(&order_value, &class, &number))
        return MDB_CORRUPTED;
    if ((class == STG_DISK_USED || class == STG_DISK_LARGE_USED) &&
        totals->next_number - number < totals->entries / 2)
        return 0;
    error = take_order(disk, txn, totals, key, &class, &number, &cost);
    class = stg_disk_is_large_class(class) ? STG_DISK_LARGE_USED : STG_DISK_USED;
    return error ? error : add_order(disk, txn, totals, class, key, cost);
}

/* Removes what has keys that begin with `prefix`. */
static int remove_from(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                       const char *prefix, size_t bytes) {
    int error = 0;

    while (!error) {
        struct stg_disk_key key;
        MDB_val at = {bytes, (void *)prefix};
        MDB_val value;
        MDB_cursor *cursor;

        error = mdb_cursor_open(txn, disk->places, &cursor);
        if (error)
            break;
        error = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE);
        if (!error && (at.mv_size > STG_DISK_KEY_MAX_BYTES || at.mv_size < bytes ||
                       memcmp(at.mv_data, prefix, bytes) != 0))
            error = MDB_NOTFOUND;
        if (!error) {
            key.bytes = at.mv_size;
            memcpy(key.text, at.mv_data, at.mv_size);
        }
        mdb_cursor_close(cursor);
        if (!error)
            error = stg_disk_remove(disk, txn, totals, (MDB_val){key.bytes, key.text});
    }
    return error == MDB_NOTFOUND ? 0 : error;
}

static int apply_forget(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                        const struct stg_disk_work *work) {
    char below[STG_DISK_KEY_MAX_BYTES];
    int error = remove_from(disk, txn, totals, work->key.text, work->key.bytes);

    if (error || !work->with_below)
        return error;
    memcpy(below, work->key.text, work->key.bytes);
    below[work->key.bytes - 1] = '/'; /* where the NUL was */
    return remove_from(disk, txn, totals, below, work->key.bytes);
}

static int apply(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                 const struct stg_disk_work *work) {
    switch (work->kind) {
    case STG_DISK_PUT:
        return apply_put(disk, txn, totals, work);
    case STG_DISK_TOUCH:
        return apply_touch(disk, txn, totals, work);
    default:
        return apply_forget(disk, txn, totals, work);
    }
}

/* ---- transactions ---- */

struct writing {
    struct stg_disk *disk;
    const struct stg_disk_work *batch;
    bool forgets_alone; /* what is to be kept is passed over */
    uint64_t evict_to;  /* UINT64_MAX: nothing goes beforehand */
    int error;
};

static void note_totals(struct stg_disk *disk, const struct stg_disk_totals *totals) {
    disk->totals = *totals;
    atomic_store(&disk->used_bytes, used_bytes(totals, STG_DISK_NEW));
    atomic_store(&disk->entries, totals->entries);
    atomic_store(&disk->large_files, totals->large);
    atomic_store(&disk->large_bytes, used_bytes(totals, STG_DISK_LARGE_NEW));
}

/* Evicts, and changes something in any case: a transaction that changes nothing is none. */
static int make_room(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                     uint64_t bytes) {
    static const char name[] = "\1emptied";
    MDB_val key = {sizeof(name), (void *)name};
    MDB_val value = {sizeof(totals->next_number), &totals->next_number};
    int error = evict_to(disk, txn, totals, bytes);

    totals->next_number++;
    return error ? error : mdb_put(txn, disk->main, &key, &value, 0);
}

static void write_guarded(void *argument) {
    struct writing *writing = argument;
    struct stg_disk *disk = writing->disk;
    struct stg_disk_totals totals = disk->totals;
    MDB_txn *txn;
    int error = mdb_txn_begin(disk->env, NULL, 0, &txn);

    writing->error = error;
    if (error)
        return;
    if (writing->evict_to != UINT64_MAX)
        error = make_room(disk, txn, &totals, writing->evict_to);
    if (!error) { /* the store may have grown */
        uint64_t room_bytes = stg_disk_large_room(disk);

        error = evict_large_to(disk, txn, &totals, room_bytes, room_bytes);
    }
    for (const struct stg_disk_work *work = writing->batch; !error && work; work = work->next)
        if (work->kind == STG_DISK_FORGET || !writing->forgets_alone)
            error = apply(disk, txn, &totals, work);
    if (!error)
        error = stg_disk_large_sync(disk);
    if (error)
        mdb_txn_abort(txn);
    else
        error = mdb_txn_commit(txn);
    if (!error)
        note_totals(disk, &totals);
    stg_disk_large_end(disk, !error);
    writing->error = error;
}

/* 0, or an error of LMDB's or the system's; MDB_PANIC where it was left by a signal. */
static int write_once(struct writing *writing) {
    return stg_guard_run(write_guarded, writing) ? writing->error : MDB_PANIC;
}

/*
 * The map has no room although the limit holds: its free pages are in pieces. Pages that one
 * transaction frees are there for the second after it.
 */
static int make_room_and_write(struct writing *writing) {
    static const unsigned parts_of_eight[] = {6, 4, 0};
    struct writing emptying = {.disk = writing->disk};
    int error = MDB_MAP_FULL;

    for (size_t i = 0; i < sizeof(parts_of_eight) / sizeof(parts_of_eight[0]); i++) {
        emptying.evict_to = writing->disk->limit_bytes / 8 * parts_of_eight[i];
        error = write_once(&emptying);
        if (!error)
            error = write_once(&emptying);
        if (!error)
            error = write_once(writing);
        if (error != MDB_MAP_FULL)
            break;
    }
    return error;
}

static bool has_forgets(const struct stg_disk_work *batch) {
    while (batch && batch->kind != STG_DISK_FORGET)
        batch = batch->next;
    return batch != NULL;
}

int stg_disk_apply(struct stg_disk *disk, const struct stg_disk_work *batch, bool *ret_written) {
    struct writing writing = {.disk = disk, .batch = batch, .evict_to = UINT64_MAX};
    int error = write_once(&writing);

    if (error == MDB_MAP_FULL)
        (void)mdb_reader_check(disk->env, NULL); /* who was killed while he read holds pages */
    if (error == MDB_MAP_FULL)
        error = make_room_and_write(&writing);
    *ret_written = !error;
    if (!error || !has_forgets(batch))
        return error == MDB_MAP_FULL ? 0 : error;
    /* What must not be given again has to go; else nothing is to be relied on. */
    writing.forgets_alone = true;
    if (write_once(&writing))
        return MDB_PANIC;
    return error == MDB_MAP_FULL ? 0 : error;
}

/* ---- the totals ---- */

struct counting {
    struct stg_disk *disk;
    struct stg_disk_totals totals;
    struct stg_disk_numbers named; /* large files that have entries */
    int error;
};

/* The number of the large file. 0, or an error of LMDB's. */
static int count_large(struct counting *counting, MDB_txn *txn, MDB_val key) {
    struct stg_disk_large *large;
    MDB_val value;
    int error = mdb_get(txn, counting->disk->copies, &key, &value);

    if (error)
        return error == MDB_NOTFOUND ? MDB_CORRUPTED : error;
    counting->totals.large++;
    if (stg_disk_large_parse(&value, NULL, &large))
        return 0; /* it is found to be damaged when it is asked for */
    stg_disk_numbers_add(&counting->named, large->number);
    if (large->number >= counting->totals.next_number)
        counting->totals.next_number = large->number + 1;
    free(large);
    return 0;
}

static void count_guarded(void *argument) {
    struct counting *counting = argument;
    unsigned char last[STG_DISK_ORDER_BYTES] = {0}; /* numbers begin with 1 */
    MDB_cursor *cursor;
    MDB_val order;
    MDB_val value;
    MDB_txn *txn;
    int error = mdb_txn_begin(counting->disk->env, NULL, MDB_RDONLY, &txn);

    counting->error = error;
    if (error)
        return;
    error = mdb_cursor_open(txn, counting->disk->order, &cursor);
    if (!error) {
        while (!(error = mdb_cursor_get(cursor, &order, &value, MDB_NEXT))) {
            enum stg_disk_class class;
            uint64_t number;
            uint64_t cost;
            MDB_val key;

            if (!stg_disk_parse_order(&order, &class, &number) ||
                !stg_disk_parse_cost(&value, &cost, &key) ||
                memcmp(last, order.mv_data, sizeof(last)) >= 0) { /* a tree may go in a circle */
                error = MDB_CORRUPTED;
                break;
            }
            memcpy(last, order.mv_data, sizeof(last));
            counting->totals.bytes[class] += cost;
            counting->totals.entries++;
            error = stg_disk_is_large_class(class) ? count_large(counting, txn, key) : 0;
            if (error)
                break;
            if (number >= counting->totals.next_number)
                counting->totals.next_number = number + 1;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    counting->error = error == MDB_NOTFOUND ? 0 : error;
}

int stg_disk_count(struct stg_disk *disk) {
    struct counting counting = {.disk = disk};

    if (!stg_guard_run(count_guarded, &counting))
        return MDB_PANIC;
    if (!counting.totals.next_number)
        counting.totals.next_number = 1;
    if (!counting.error) {
        note_totals(disk, &counting.totals);
        stg_disk_large_sweep(disk, &counting.named);
    }
    stg_disk_numbers_fini(&counting.named);
    return counting.error;
}
