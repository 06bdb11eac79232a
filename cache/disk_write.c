/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns how the store is changed, in the process that does it: each batch one transaction, and what
 * goes to make room for it.
 *
 * Where a transaction fails the store is as it was before, and so are the totals, which belong to
 * it. LMDB never reuses pages within the transaction that freed them, so some of the map is kept
 * free of entries; where that does not do, entries go in a transaction of their own.
 */
#include "cache/disk_impl.h"
#include "cache/guard.h"
#include "util/cleanup.h"

#include <endian.h>
#include <string.h>

/* Of the limit, what new entries have to themselves once there are used ones. */
#define NEW_PART 10

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

int stg_disk_remove(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                    MDB_val key) {
    enum stg_disk_class class;
    uint64_t number;
    uint64_t cost;
    int error = take_order(disk, txn, totals, key, &class, &number, &cost);

    if (!error)
        error = mdb_del(txn, disk->places, &key, NULL);
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

/* Evicts one entry. MDB_NOTFOUND where there is none. */
static int evict_one(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals) {
    bool new_first =
        totals->bytes[STG_DISK_NEW] > disk->limit_bytes / NEW_PART || !totals->bytes[STG_DISK_USED];
    unsigned char order[STG_DISK_ORDER_BYTES];
    struct stg_disk_key key;
    MDB_val order_value = {sizeof(order), order};
    MDB_val cost_value;
    MDB_val found;
    MDB_cursor *cursor;
    uint64_t cost;
    int error = mdb_cursor_open(txn, disk->order, &cursor);

    if (error)
        return error;
    order_of(new_first ? STG_DISK_NEW : STG_DISK_USED, 0, order);
    error = mdb_cursor_get(cursor, &order_value, &cost_value, MDB_SET_RANGE);
    if (error ==
        MDB_NOTFOUND) /* the totals are a guess after a crash of old; there may be others */
        error = mdb_cursor_get(cursor, &order_value, &cost_value, MDB_FIRST);
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

static uint64_t used_bytes(const struct stg_disk_totals *totals) {
    return totals->bytes[STG_DISK_NEW] + totals->bytes[STG_DISK_USED];
}

static int evict_to(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                    uint64_t bytes) {
    int error = 0;

    while (!error && used_bytes(totals) > bytes)
        error = evict_one(disk, txn, totals);
    return error == MDB_NOTFOUND ? 0 : error;
}

/* ---- what is queued ---- */

static int apply_put(struct stg_disk *disk, MDB_txn *txn, struct stg_disk_totals *totals,
                     const struct stg_disk_work *work) {
    stg_auto_free void *entry = NULL;
    MDB_val key = {work->key.bytes, (void *)work->key.text};
    MDB_val value;
    uint64_t cost;
    int error =
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
    if (class == STG_DISK_USED && totals->next_number - number < totals->entries / 2)
        return 0;
    error = take_order(disk, txn, totals, key, &class, &number, &cost);
    return error ? error : add_order(disk, txn, totals, STG_DISK_USED, key, cost);
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
    atomic_store(&disk->used_bytes, used_bytes(totals));
    atomic_store(&disk->entries, totals->entries);
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
    for (const struct stg_disk_work *work = writing->batch; !error && work; work = work->next)
        if (work->kind == STG_DISK_FORGET || !writing->forgets_alone)
            error = apply(disk, txn, &totals, work);
    if (error)
        mdb_txn_abort(txn);
    else
        error = mdb_txn_commit(txn);
    if (!error)
        note_totals(disk, &totals);
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
    int error;
};

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
    if (!counting.error)
        note_totals(disk, &counting.totals);
    return counting.error;
}
