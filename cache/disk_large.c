/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns large copies: files of their own beside the store, of which the store has one entry each,
 * with a checksum of every piece that is there. What is there is never written to again: another
 * version is another file. So who has one open, or mapped, is not disturbed by anything but its
 * end, which leaves him what he has.
 *
 * Changing: in the process that writes, within a transaction. A file is made before the entry that
 * names it is there, and goes after that is gone; one that no entry names, since something ended in
 * between, goes at the next start.
 */
#include "cache/disk_impl.h"
#include "cache/fill.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

/* Smaller ones are in the store in pieces: they shrink there. */
#define LARGE_MIN_BYTES (UINT64_C(1) << 20)
#define NAME_BYTES sizeof(STG_DISK_LARGE "/0123456789abcdef")
/* Of the map, what is left free beside large copies, for the store to grow into meanwhile. */
#define SLACK_PART 16

/* ---- the form ---- */

bool stg_disk_is_large(const struct stg_disk_name *name) {
    uint64_t size_bytes = (uint64_t)name->now.size_bytes;
    uint64_t piece_bytes;

    if (name->now.size_bytes <= (int64_t)LARGE_MIN_BYTES || name->offset >= size_bytes ||
        !name->bytes || name->bytes > size_bytes - name->offset)
        return false;
    if (!name->offset && name->bytes == size_bytes)
        return size_bytes > STG_DISK_ENTRY_MAX_BYTES;
    piece_bytes = stg_fill_piece_bytes(size_bytes);
    return !(name->offset % piece_bytes) &&
           (!(name->bytes % piece_bytes) || name->offset + name->bytes == size_bytes);
}

/* Behind all that is kept of the file otherwise. */
bool stg_disk_large_key(const char *path, struct stg_disk_key *ret_key) {
    struct stg_disk_name name = {.path = path, .offset = UINT64_MAX, .bytes = UINT64_MAX};

    return stg_disk_key_make(&name, ret_key);
}

bool stg_disk_is_large_key(const MDB_val *key) {
    static const char last[2 * sizeof(uint64_t)] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                    -1, -1, -1, -1, -1, -1, -1, -1};

    return key->mv_size > sizeof(last) &&
           !memcmp((const char *)key->mv_data + key->mv_size - sizeof(last), last, sizeof(last));
}

void stg_disk_part_of(const struct stg_disk_key *key, uint64_t *ret_offset, uint64_t *ret_bytes) {
    uint64_t part[2];

    memcpy(part, key->text + key->bytes - sizeof(part), sizeof(part));
    *ret_offset = be64toh(part[0]);
    *ret_bytes = be64toh(part[1]);
}

static uint64_t pieces_of(uint64_t size_bytes) {
    uint64_t piece_bytes = stg_fill_piece_bytes(size_bytes);

    return (size_bytes + piece_bytes - 1) / piece_bytes;
}

size_t stg_disk_large_value_bytes(uint64_t size_bytes) {
    return sizeof(struct stg_disk_large) + pieces_of(size_bytes) * sizeof(uint64_t);
}

struct stg_disk_large *stg_disk_large_make(const struct stg_identity *now, uint64_t number) {
    uint64_t size_bytes = (uint64_t)now->size_bytes;
    struct stg_disk_large *large = calloc(1, stg_disk_large_value_bytes(size_bytes));

    if (!large)
        return NULL;
    large->head = (struct stg_disk_head){.size_bytes = now->size_bytes,
                                         .mtime_ns = now->mtime_ns,
                                         .ctime_ns = now->ctime_ns,
                                         .ino = now->ino,
                                         .raw_bytes = size_bytes,
                                         .is_packed = STG_DISK_IS_LARGE};
    large->number = number;
    large->piece_bytes = stg_fill_piece_bytes(size_bytes);
    large->count = pieces_of(size_bytes);
    return large;
}

void stg_disk_large_seal(struct stg_disk_large *large) {
    large->head.checksum =
        stg_disk_checksum(large, stg_disk_large_value_bytes(large->head.raw_bytes));
}

int stg_disk_large_parse(const MDB_val *value, const struct stg_identity *now,
                         struct stg_disk_large **ret_large) {
    struct stg_disk_large *large;
    int error = 0;

    if (value->mv_size < sizeof(*large))
        return -EBADMSG;
    large = malloc(value->mv_size);
    if (!large)
        return -ENOMEM;
    memcpy(large, value->mv_data, value->mv_size);
    if (now && !stg_disk_head_is_of(&large->head, now))
        error = -ENOENT;
    else if (large->head.checksum != stg_disk_checksum(large, value->mv_size) ||
             large->head.is_packed != STG_DISK_IS_LARGE || large->head.size_bytes <= 0 ||
             large->head.raw_bytes != (uint64_t)large->head.size_bytes ||
             value->mv_size != stg_disk_large_value_bytes(large->head.raw_bytes) ||
             large->piece_bytes != stg_fill_piece_bytes(large->head.raw_bytes) ||
             large->count != pieces_of(large->head.raw_bytes))
        error = -EBADMSG;
    if (error)
        free(large);
    else
        *ret_large = large;
    return error;
}

uint64_t stg_disk_large_piece_length(const struct stg_disk_large *large, uint64_t index) {
    uint64_t left_bytes = large->head.raw_bytes - index * large->piece_bytes;

    return left_bytes < large->piece_bytes ? left_bytes : large->piece_bytes;
}

/* 0 stands for a piece that is not there. */
uint64_t stg_disk_large_checksum(const char *content, uint64_t bytes) {
    uint64_t checksum = XXH3_64bits(content, bytes);

    return checksum ? checksum : 1;
}

bool stg_disk_large_is_whole(const struct stg_disk_large *large) {
    uint64_t there = 0;

    while (there < large->count && large->checksums[there])
        there++;
    return there == large->count;
}

static uint64_t present_bytes(const struct stg_disk_large *large) {
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < large->count; i++)
        bytes += large->checksums[i] ? stg_disk_large_piece_length(large, i) : 0;
    return bytes;
}

/* What it takes, with its entry. */
uint64_t stg_disk_large_cost(const struct stg_disk_large *large, size_t key_bytes) {
    return present_bytes(large) +
           stg_disk_entry_cost(key_bytes, stg_disk_large_value_bytes(large->head.raw_bytes));
}

/* ---- files ---- */

static void name_of(uint64_t number, char name[NAME_BYTES]) {
    (void)snprintf(name, NAME_BYTES, STG_DISK_LARGE "/%jx", (uintmax_t)number); /* fits */
}

int stg_disk_large_open(const struct stg_disk *disk, uint64_t number, int flags) {
    char name[NAME_BYTES];
    int fd;

    name_of(number, name);
    if ((flags & O_CREAT) && mkdirat(disk->dir_fd, STG_DISK_LARGE, 0700) && errno != EEXIST)
        return -errno;
    fd = openat(disk->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

void stg_disk_large_unlink(const struct stg_disk *disk, uint64_t number) {
    char name[NAME_BYTES];

    name_of(number, name);
    (void)unlinkat(disk->dir_fd, name, 0); /* or at the next start */
}

bool stg_disk_large_exists(const struct stg_disk *disk, uint64_t number) {
    char name[NAME_BYTES];

    name_of(number, name);
    return !faccessat(disk->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

int stg_disk_large_scratch(const struct stg_disk *disk) {
    int fd = openat(disk->dir_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd;
}

int stg_disk_large_read_piece(int fd, const struct stg_disk_large *large, uint64_t index,
                              char *content) {
    uint64_t bytes = stg_disk_large_piece_length(large, index);
    ssize_t got;

    if (!large->checksums[index])
        return -ENOENT;
    got = stg_io_read_whole(fd, content, bytes, (off_t)(index * large->piece_bytes));
    if (got < 0)
        return (int)got;
    if ((uint64_t)got != bytes ||
        stg_disk_large_checksum(content, bytes) != large->checksums[index])
        return -EBADMSG;
    return 0;
}

/* Calls `visit` with each file's name. */
static void each_file(int dir_fd, void (*visit)(int folder, const char *name, void *context),
                      void *context) {
    int fd = openat(dir_fd, STG_DISK_LARGE, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!stream) {
        stg_fd_close(fd);
        return;
    }
    while ((entry = readdir(stream)))
        if (entry->d_name[0] != '.')
            visit(fd, entry->d_name, context);
    (void)closedir(stream); /* read-only */
}

static void remove_file(int folder, const char *name, void *context) {
    (void)context;
    (void)unlinkat(folder, name, 0); /* what cannot be removed is not named by anything */
}

void stg_disk_large_erase(const struct stg_disk *disk) {
    each_file(disk->dir_fd, remove_file, NULL);
    (void)unlinkat(disk->dir_fd, STG_DISK_LARGE, AT_REMOVEDIR); /* it is empty, or stays */
}

static void add_blocks(int folder, const char *name, void *context) {
    uint64_t *bytes = context;
    struct stat info;

    if (!fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW))
        *bytes += (uint64_t)info.st_blocks * 512;
}

uint64_t stg_disk_large_bytes_in(int dir_fd) {
    uint64_t bytes = 0;

    each_file(dir_fd, add_blocks, &bytes);
    return bytes;
}

/* ---- numbers ---- */

/* Without memory a number is left out: a file stays until the next start, or goes with this one. */
void stg_disk_numbers_add(struct stg_disk_numbers *numbers, uint64_t number) {
    if (numbers->count == numbers->room) {
        size_t room = numbers->room ? numbers->room * 2 : 16;
        uint64_t *all = realloc(numbers->all, room * sizeof(*all));

        if (!all)
            return;
        numbers->all = all;
        numbers->room = room;
    }
    numbers->all[numbers->count++] = number;
}

void stg_disk_numbers_fini(struct stg_disk_numbers *numbers) {
    free(numbers->all);
    *numbers = (struct stg_disk_numbers){0};
}

static int compare_numbers(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

static void remove_unnamed(int folder, const char *name, void *context) {
    const struct stg_disk_numbers *named = context;
    uint64_t number = strtoull(name, NULL, 16);
    char right[NAME_BYTES];

    name_of(number, right);
    if (strcmp(strchr(right, '/') + 1, name) != 0 || !named->count ||
        !bsearch(&number, named->all, named->count, sizeof(number), compare_numbers))
        (void)unlinkat(folder, name, 0); /* or the next time */
}

void stg_disk_large_sweep(const struct stg_disk *disk, struct stg_disk_numbers *named) {
    if (named->count)
        qsort(named->all, named->count, sizeof(named->all[0]), compare_numbers);
    each_file(disk->dir_fd, remove_unnamed, named);
}

/* ---- changing ---- */

/* What the map does not take, and may not take soon; nor those who have files that are gone. */
uint64_t stg_disk_large_room(const struct stg_disk *disk) {
    uint64_t kept_bytes = disk->map_bytes / SLACK_PART + disk->held_bytes;
    MDB_envinfo info;
    MDB_stat stat;

    if (mdb_env_info(disk->env, &info) || mdb_env_stat(disk->env, &stat))
        return 0;
    kept_bytes += ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
    return kept_bytes < disk->map_bytes ? disk->map_bytes - kept_bytes : 0;
}

/* What went wrong is told at the end of the transaction, whoever closed it. */
static void close_file(struct stg_disk *disk, struct stg_disk_large_file *file) {
    if (file->fd >= 0 && fdatasync(file->fd) && !disk->large_error)
        disk->large_error = errno;
    stg_fd_close(file->fd);
    file->fd = -1;
}

/* Makes the file anew: a transaction that failed may have left one of that number. */
static int make_file(struct stg_disk *disk, const struct stg_disk_large *large) {
    stg_auto_fd int fd = -1;

    stg_disk_large_unlink(disk, large->number);
    fd = stg_disk_large_open(disk, large->number, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0)
        return fd;
    stg_disk_numbers_add(&disk->made, large->number);
    return ftruncate(fd, (off_t)large->head.raw_bytes) ? -errno : stg_fd_steal(&fd);
}

/* Several are read at a time, mostly, and come by turns. A descriptor, borrowed, or -errno. */
static int have_open(struct stg_disk *disk, const struct stg_disk_large *large, bool is_new) {
    struct stg_disk_large_file *file;

    for (unsigned i = 0; i < STG_DISK_LARGE_FILES; i++)
        if (disk->large_open[i].fd >= 0 && disk->large_open[i].number == large->number)
            return disk->large_open[i].fd;
    file = &disk->large_open[disk->large_next++ % STG_DISK_LARGE_FILES];
    close_file(disk, file);
    file->fd = is_new ? make_file(disk, large) : stg_disk_large_open(disk, large->number, O_RDWR);
    file->number = large->number;
    return file->fd;
}

int stg_disk_large_is_there(struct stg_disk *disk, const struct stg_disk_large *large,
                            bool *ret_is_there) {
    int fd = have_open(disk, large, false);
    struct stat info;

    *ret_is_there = false;
    if (fd < 0)
        return fd == -ENOENT ? 0 : -fd;
    /* The name, too: who has taken it away may have written to what it was. */
    *ret_is_there =
        !fstat(fd, &info) && info.st_nlink && (uint64_t)info.st_size == large->head.raw_bytes;
    return 0;
}

bool stg_disk_large_contradicts(const struct stg_disk_large *large, uint64_t offset,
                                const char *content, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += large->piece_bytes) {
        uint64_t index = (offset + at) / large->piece_bytes;
        uint64_t length = stg_disk_large_piece_length(large, index);

        if (large->checksums[index] &&
            large->checksums[index] != stg_disk_large_checksum(content + at, length))
            return true;
    }
    return false;
}

void stg_disk_large_note(struct stg_disk_large *large, uint64_t offset, const char *content,
                         uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += large->piece_bytes) {
        uint64_t index = (offset + at) / large->piece_bytes;

        large->checksums[index] =
            stg_disk_large_checksum(content + at, stg_disk_large_piece_length(large, index));
    }
}

static int write_piece(int fd, const char *content, uint64_t bytes, uint64_t offset) {
    ssize_t put = stg_io_write_whole(fd, content, bytes, (off_t)offset);

    if (put < 0)
        return (int)-put;
    return (uint64_t)put < bytes ? ENOSPC : 0; /* a disk gets full like that */
}

int stg_disk_large_write(struct stg_disk *disk, const struct stg_disk_large *large, bool is_new,
                         uint64_t offset, const char *content, uint64_t bytes) {
    int fd = have_open(disk, large, is_new);
    int error = fd < 0 ? -fd : 0;

    for (uint64_t at = 0; !error && at < bytes; at += large->piece_bytes) {
        uint64_t index = (offset + at) / large->piece_bytes;

        if (!large->checksums[index]) /* what is there is the same, and is not touched */
            error = write_piece(fd, content + at, stg_disk_large_piece_length(large, index),
                                offset + at);
    }
    return error;
}

int stg_disk_large_sync(struct stg_disk *disk) {
    for (unsigned i = 0; i < STG_DISK_LARGE_FILES; i++)
        close_file(disk, &disk->large_open[i]);
    return disk->large_error;
}

void stg_disk_large_end(struct stg_disk *disk, bool committed) {
    struct stg_disk_numbers *go = committed ? &disk->leaving : &disk->made;

    (void)stg_disk_large_sync(disk); /* what was committed was synced before */
    disk->large_error = 0;
    for (size_t i = 0; i < go->count; i++)
        stg_disk_large_unlink(disk, go->all[i]);
    disk->made.count = 0;
    disk->leaving.count = 0;
}
