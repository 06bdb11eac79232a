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

/* What taking damaged entries out may need besides what is there. */
#define ROOM_BYTES (UINT64_C(64) << 20)

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

static bool is_whole(const MDB_val *key, const MDB_val *value) {
    char *content = NULL;
    int error = stg_disk_entry_read(value, NULL, bytes_of(key), &content);

    free(content);
    return !error;
}

/* Looks at one entry, and removes it where it is damaged and that is asked for. */
static int check_entry(struct checking *checking, MDB_txn *txn, const MDB_val *key,
                       const MDB_val *value) {
    struct stg_disk_totals totals = {0};
    struct stg_disk_key copy;
    MDB_val copied = {0, copy.text};
    MDB_val place;
    int error = mdb_get(txn, checking->disk->places, (MDB_val *)key, &place);

    if (error && error != MDB_NOTFOUND)
        return error;
    if (!error && is_whole(key, value)) {
        checking->report->entries++;
        checking->report->bytes += bytes_of(key);
        return 0;
    }
    checking->report->damaged++;
    if (!checking->repair || key->mv_size > sizeof(copy.text))
        return 0;
    copied.mv_size = key->mv_size;
    memcpy(copy.text, key->mv_data, key->mv_size);
    error = stg_disk_remove(checking->disk, txn, &totals, copied);
    if (!error)
        error = mdb_del(txn, checking->disk->copies, &copied, NULL);
    return error == MDB_NOTFOUND ? 0 : error;
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
        if (!error && (!key.mv_size || key.mv_size > sizeof(last.text)))
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
        error = check_all(checking, txn);
        if (!error && checking->repair && checking->report->damaged)
            error = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    checking->error = error;
}

/* In a process of its own: a store that is damaged can lead it anywhere. */
static void check_store(void *argument, void *answer) {
    struct checking *checking = argument;
    struct stg_disk *disk = checking->disk;
    int error = stg_disk_open(disk, disk->map_bytes);

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
        disk->map_bytes = (uint64_t)info.st_size + ROOM_BYTES;
        if (!stg_disk_child_run(check_store, &checking, ret_report, sizeof(*ret_report)))
            ret_report->unreadable = true;
        if (ret_report->unreadable && repair)
            stg_disk_erase(disk);
        ret_report->repaired = repair && (ret_report->unreadable || ret_report->damaged);
    }
    stg_disk_free(disk);
    return 0;
}
