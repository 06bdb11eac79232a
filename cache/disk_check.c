/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the look at a stage directory that no mount has. */
#include "cache/disk.h"

#include "cache/disk_impl.h"
#include "cache/guard.h"
#include "util/cleanup.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct checking {
    struct stg_disk *disk;
    struct stg_disk_report *report;
    bool repair;
    int error;
};

/* The length of the part of a file that the key names; 0 where it is no key. */
static uint64_t bytes_of(const MDB_val *key) {
    uint64_t big;

    if (key->mv_size <= 2 * sizeof(big) || key->mv_size > STG_DISK_KEY_MAX_BYTES)
        return 0;
    memcpy(&big, (const char *)key->mv_data + key->mv_size - sizeof(big), sizeof(big));
    return be64toh(big);
}

enum finding { RIGHT, DAMAGED, GONE };

/* The pieces of a large file. `*ret_bytes` is what is there. */
static enum finding check_large(struct stg_disk *disk, const MDB_val *value, uint64_t *ret_bytes) {
    stg_auto_free struct stg_disk_large *large = NULL;
    stg_auto_free char *content = NULL;
    stg_auto_fd int fd = -1;
    struct stat info;

    if (stg_disk_large_parse(value, NULL, &large))
        return DAMAGED;
    fd = stg_disk_large_open(disk, large->number, O_RDONLY);
    if (fd == -ENOENT) /* somebody wrote to it, after he had taken its name away */
        return GONE;
    if (fd >= 0 && (fstat(fd, &info) || (uint64_t)info.st_size != large->head.raw_bytes))
        return DAMAGED;
    content = malloc(large->piece_bytes);
    for (uint64_t i = 0; i < large->count; i++) {
        if (!large->checksums[i])
            continue;
        if (fd < 0 || !content || stg_disk_large_read_piece(fd, large, i, content))
            return DAMAGED;
        *ret_bytes += stg_disk_large_piece_length(large, i);
    }
    return RIGHT;
}

/* The content of the entry, of `*ret_bytes`. */
static enum finding check_content(struct stg_disk *disk, const MDB_val *key, const MDB_val *value,
                                  uint64_t *ret_bytes) {
    char *content = NULL;
    int error;

    *ret_bytes = 0;
    if (stg_disk_is_large_key(key))
        return check_large(disk, value, ret_bytes);
    *ret_bytes = bytes_of(key);
    error = stg_disk_entry_read(value, NULL, *ret_bytes, &content);
    free(content);
    return error ? DAMAGED : RIGHT;
}

/* Is it where it should be in the order in which entries go? 0, or an error of LMDB's. */
static int check_place(struct checking *checking, MDB_txn *txn, const MDB_val *key) {
    MDB_val wanted = *key;
    MDB_val order;
    MDB_val value;
    MDB_val named;
    enum stg_disk_class class;
    uint64_t number;
    uint64_t cost;
    int error = mdb_get(txn, checking->disk->places, &wanted, &order);

    if (!error && !stg_disk_parse_order(&order, &class, &number))
        error = MDB_CORRUPTED;
    if (!error)
        error = mdb_get(txn, checking->disk->order, &order, &value);
    if (!error && (!stg_disk_parse_cost(&value, &cost, &named) || named.mv_size != key->mv_size ||
                   memcmp(named.mv_data, key->mv_data, key->mv_size) != 0))
        error = MDB_CORRUPTED;
    return error == MDB_NOTFOUND ? MDB_CORRUPTED : error;
}

/* The tables are to have the same entries. */
static int check_counts(struct checking *checking, MDB_txn *txn) {
    MDB_stat copies;
    MDB_stat order;
    MDB_stat places;
    int error = mdb_stat(txn, checking->disk->copies, &copies);

    if (!error)
        error = mdb_stat(txn, checking->disk->order, &order);
    if (!error)
        error = mdb_stat(txn, checking->disk->places, &places);
    if (!error && (copies.ms_entries != order.ms_entries || copies.ms_entries != places.ms_entries))
        error = MDB_CORRUPTED;
    return error;
}

/* Looks at one entry, and removes it where it is damaged and that is asked for. */
static int check_entry(struct checking *checking, MDB_txn *txn, const MDB_val *key,
                       const MDB_val *value) {
    struct stg_disk_totals totals = {0};
    struct stg_disk_key copy;
    uint64_t bytes;
    int error = check_place(checking, txn, key);

    if (error)
        return error;
    switch (check_content(checking->disk, key, value, &bytes)) {
    case RIGHT:
        checking->report->entries++;
        checking->report->bytes += bytes;
        return 0;
    case GONE:
        return 0; /* nobody is given it; more pieces of the file, or its turn, will replace it */
    default:
        checking->report->damaged++;
    }
    if (!checking->repair)
        return 0;
    copy.bytes = key->mv_size; /* which check_all() has measured */
    memcpy(copy.text, key->mv_data, key->mv_size);
    return stg_disk_remove(checking->disk, txn, &totals, (MDB_val){copy.bytes, copy.text});
}

/* A damaged tree may go in a circle. */
static bool is_after(const MDB_val *key, const struct stg_disk_key *last) {
    size_t common = key->mv_size < last->bytes ? key->mv_size : last->bytes;
    int order = memcmp(key->mv_data, last->text, common);

    return order > 0 || (!order && key->mv_size > last->bytes);
}

/* Each entry by its key, so that one may go meanwhile. */
static int check_all(struct checking *checking, MDB_txn *txn) {
    struct stg_disk_key last = {0};
    int error = 0;

    while (!error) {
        MDB_val key = {last.bytes, last.text};
        MDB_val value;
        MDB_cursor *cursor;

        error = mdb_cursor_open(txn, checking->disk->copies, &cursor);
        if (error)
            return error;
        error = mdb_cursor_get(cursor, &key, &value, last.bytes ? MDB_SET_RANGE : MDB_FIRST);
        if (!error && last.bytes && key.mv_size == last.bytes &&
            !memcmp(key.mv_data, last.text, last.bytes))
            error = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        if (!error && (!key.mv_size || key.mv_size > sizeof(last.text) || !is_after(&key, &last)))
            error = MDB_CORRUPTED;
        if (!error) {
            last.bytes = key.mv_size;
            memcpy(last.text, key.mv_data, key.mv_size);
            error = check_entry(checking, txn, &key, &value);
        }
        mdb_cursor_close(cursor);
    }
    return error == MDB_NOTFOUND ? 0 : error;
}

static void check_guarded(void *argument) {
    struct checking *checking = argument;
    MDB_txn *txn;
    int error = mdb_txn_begin(checking->disk->env, NULL, checking->repair ? 0 : MDB_RDONLY, &txn);

    if (!error) {
        error = check_counts(checking, txn);
        if (!error)
            error = check_all(checking, txn);
        if (!error && checking->repair && checking->report->damaged) {
            error = mdb_txn_commit(txn);
            stg_disk_large_end(checking->disk, !error);
        } else {
            mdb_txn_abort(txn);
        }
    }
    checking->error = error;
}

/* In a process of its own: a store that is damaged can lead it anywhere. */
static void check_store(void *argument, void *answer) {
    struct checking *checking = argument;
    struct stg_disk *disk = checking->disk;
    int error = stg_disk_open(disk, 0, checking->repair);

    checking->report = answer;
    if (!error && !stg_guard_run(check_guarded, checking))
        error = MDB_CORRUPTED;
    if (!error)
        error = checking->error;
    checking->report->unreadable = error != 0;
    if (!error)
        mdb_env_close(disk->env);
}

int stg_disk_check(const char *path, bool repair, struct stg_disk_report *ret_report) {
    struct checking checking = {.repair = repair};
    struct stg_disk *disk;
    struct stat info;
    int error = stg_disk_take(path, NULL, &disk);

    if (error)
        return error;
    *ret_report = (struct stg_disk_report){0};
    (void)snprintf(ret_report->source, sizeof(ret_report->source), "%s", disk->source); /* fits */
    checking.disk = disk;
    /* One that no mount has begun has nothing, and is in order. */
    if (!fstatat(disk->dir_fd, STG_DISK_DATA, &info, AT_SYMLINK_NOFOLLOW)) {
        if (!stg_disk_child_run(disk, check_store, &checking, ret_report, sizeof(*ret_report)))
            ret_report->unreadable = true;
        ret_report->unfinished = stg_disk_has_mark(disk);
        if (repair && (ret_report->unreadable || ret_report->unfinished))
            stg_disk_erase(disk);
        ret_report->repaired = repair && (ret_report->unreadable || ret_report->damaged);
    }
    stg_disk_free(disk);
    return 0;
}
