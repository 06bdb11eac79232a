/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns what the daemon knows of large copies: which of their pieces were found to be right since
 * the mount, and who uses one as a whole. A copy is looked through once; after that the kernel
 * reads it, as it does any file.
 */
#include "cache/disk_impl.h"
#include "util/cleanup.h"
#include "util/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Of so many files is it known. */
#define KNOWN_MAX 4096
/* So many may be in use, as each has a descriptor; and of what there may be this part. */
#define TAKEN_MAX 1024
#define TAKEN_PART 8

struct stg_disk_whole_entry {
    struct stg_disk_whole_entry *next;
    uint64_t number;
    uint64_t count; /* of pieces */
    uint64_t left;  /* of them those that were not looked at */
    int fd;         /* who has taken it has that; borrowed */
    bool is_taken;
    bool is_gone; /* it has no name any more, and may be written to */
    uint8_t checked[];
};

/* ---- what is known, under the lock ---- */

/* Where the entry is, or would be. */
static struct stg_disk_whole_entry **place_locked(struct stg_disk *disk, uint64_t number) {
    struct stg_disk_whole_entry **at = &disk->wholes[number % STG_DISK_WHOLE_BUCKETS];

    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

static void remove_locked(struct stg_disk *disk, struct stg_disk_whole_entry **at) {
    struct stg_disk_whole_entry *entry = *at;

    *at = entry->next;
    free(entry);
    disk->whole_count--;
}

/* Forgets those that are not in use. */
static void thin_out_locked(struct stg_disk *disk) {
    for (unsigned i = 0; i < STG_DISK_WHOLE_BUCKETS; i++)
        for (struct stg_disk_whole_entry **at = &disk->wholes[i]; *at;) {
            if ((*at)->is_taken)
                at = &(*at)->next;
            else
                remove_locked(disk, at);
        }
}

/* NULL without memory, or where the file is not what it was taken for. */
static struct stg_disk_whole_entry *have_locked(struct stg_disk *disk,
                                                const struct stg_disk_large *large) {
    struct stg_disk_whole_entry *entry = *place_locked(disk, large->number);

    if (entry)
        return entry->count == large->count ? entry : NULL;
    if (disk->whole_count >= KNOWN_MAX)
        thin_out_locked(disk);
    entry = calloc(1, sizeof(*entry) + (large->count + 7) / 8);
    if (!entry)
        return NULL;
    entry->number = large->number;
    entry->count = entry->left = large->count;
    *place_locked(disk, large->number) = entry;
    disk->whole_count++;
    return entry;
}

static bool is_checked(const struct stg_disk_whole_entry *entry, uint64_t index) {
    return entry->checked[index / 8] & 1U << index % 8;
}

void stg_disk_whole_checked(struct stg_disk *disk, const struct stg_disk_large *large,
                            uint64_t index) {
    struct stg_disk_whole_entry *entry;

    stg_lock_take(&disk->whole_lock);
    entry = have_locked(disk, large);
    if (entry && !is_checked(entry, index)) {
        entry->checked[index / 8] |= (uint8_t)(1U << index % 8);
        entry->left--;
    }
    stg_lock_drop(&disk->whole_lock);
}

/* The first piece from there on that was not looked at; `count` where there is none. */
static uint64_t next_unchecked(struct stg_disk *disk, const struct stg_disk_large *large,
                               uint64_t index) {
    const struct stg_disk_whole_entry *entry;

    stg_lock_take(&disk->whole_lock);
    entry = *place_locked(disk, large->number);
    while (entry && entry->count == large->count && index < large->count &&
           is_checked(entry, index))
        index++;
    stg_lock_drop(&disk->whole_lock);
    return index;
}

static unsigned taken_max(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur / TAKEN_PART > TAKEN_MAX)
        return TAKEN_MAX;
    return (unsigned)(limit.rlim_cur / TAKEN_PART);
}

/* For one user: he may be the one who has to write to it. */
static int take_it(struct stg_disk *disk, const struct stg_disk_large *large, int fd) {
    struct stg_disk_whole_entry *entry;
    int error = 0;

    stg_lock_take(&disk->whole_lock);
    entry = *place_locked(disk, large->number);
    if (!entry || entry->count != large->count || entry->left) /* it was thinned out just now */
        error = -EAGAIN;
    else if (entry->is_taken)
        error = -EBUSY;
    else if (disk->taken_count >= taken_max())
        error = -EMFILE;
    if (!error) {
        entry->is_taken = true;
        entry->fd = fd;
        disk->taken_count++;
    }
    stg_lock_drop(&disk->whole_lock);
    return error;
}

void stg_disk_whole_fini(struct stg_disk *disk) {
    for (unsigned i = 0; i < STG_DISK_WHOLE_BUCKETS; i++)
        while (disk->wholes[i])
            remove_locked(disk, &disk->wholes[i]);
}

/* ---- looking through ---- */

/* 0; -EAGAIN, the time is over; or as of stg_disk_large_read_piece(). */
static int look_through(struct stg_disk *disk, const struct stg_disk_large *large, int fd,
                        int64_t until_ns) {
    stg_auto_free char *content = malloc(large->piece_bytes);
    int error = content ? 0 : -ENOMEM;

    for (uint64_t i = next_unchecked(disk, large, 0); !error && i < large->count;
         i = next_unchecked(disk, large, i + 1)) {
        if (until_ns && stg_clock_monotonic_ns() >= until_ns)
            return -EAGAIN;
        error = stg_disk_large_read_piece(fd, large, i, content);
        if (!error)
            stg_disk_whole_checked(disk, large, i);
    }
    return error;
}

/* Can it be told of the file whether somebody has it open? (fcntl(2), F_SETLEASE) */
static bool can_be_leased(int fd) {
    if (fcntl(fd, F_SETLEASE, F_WRLCK))
        return errno == EAGAIN;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* its close would drop it, too */
    return true;
}

static int check_file(struct stg_disk *disk, const struct stg_disk_large *large, int64_t until_ns) {
    stg_auto_fd int fd = stg_disk_large_open(disk, large->number, O_RDONLY);
    struct stat info;

    if (fd < 0)
        return fd;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode) ||
        (uint64_t)info.st_size != large->head.raw_bytes)
        return -EBADMSG;
    if (!can_be_leased(fd))
        return -EOPNOTSUPP;
    return look_through(disk, large, fd, until_ns);
}

bool stg_disk_has_whole(struct stg_disk *disk, const struct stg_disk_name *name) {
    stg_auto_free struct stg_disk_large *large = NULL;
    struct stg_disk_key key;

    return !atomic_load(&disk->cannot_lease) && !stg_disk_get_large(disk, name, &key, &large) &&
           stg_disk_large_is_whole(large) && stg_disk_large_exists(disk, large->number);
}

int stg_disk_take_whole(struct stg_disk *disk, const struct stg_disk_name *name, int64_t until_ns,
                        struct stg_disk_whole *ret_whole) {
    stg_auto_free struct stg_disk_large *large = NULL;
    struct stg_disk_key key;
    stg_auto_fd int fd = -1;
    int error = stg_disk_get_large(disk, name, &key, &large);

    if (error) {
        stg_disk_note_miss(disk, name->path, error);
        return -ENOENT;
    }
    if (!stg_disk_large_is_whole(large))
        return -ENOENT;
    error = check_file(disk, large, until_ns);
    if (error == -EBADMSG || error == -EIO)
        stg_disk_note_miss(disk, name->path, -EBADMSG);
    if (error == -EOPNOTSUPP)
        atomic_store(&disk->cannot_lease, true);
    fd = error ? -1 : stg_disk_large_open(disk, large->number, O_PATH);
    if (!error)
        error = fd < 0 ? fd : take_it(disk, large, fd);
    if (error)
        return error;
    stg_disk_touch(disk, &key);
    atomic_fetch_add(&disk->passed, 1);
    *ret_whole = (struct stg_disk_whole){.fd = stg_fd_steal(&fd), .number = large->number};
    return 0;
}

void stg_disk_release_whole(struct stg_disk *disk, uint64_t number) {
    struct stg_disk_whole_entry **at;

    stg_lock_take(&disk->whole_lock);
    at = place_locked(disk, number);
    if (*at && (*at)->is_taken) {
        disk->taken_count--;
        (*at)->is_taken = false;
        if ((*at)->is_gone) /* nobody finds it any more */
            remove_locked(disk, at);
    }
    stg_lock_drop(&disk->whole_lock);
}

void stg_disk_leave_whole(struct stg_disk *disk, uint64_t number) {
    struct stg_disk_whole_entry *entry;
    bool is_there = false;

    stg_lock_take(&disk->whole_lock);
    entry = *place_locked(disk, number);
    if (entry && entry->is_taken) {
        is_there = !entry->is_gone;
        entry->is_gone = true;
    }
    stg_lock_drop(&disk->whole_lock);
    if (is_there) /* where that fails, the checksums tell, the next time */
        stg_disk_large_unlink(disk, number);
}

uint64_t stg_disk_whole_held_bytes(struct stg_disk *disk) {
    uint64_t bytes = 0;
    struct stat info;

    stg_lock_take(&disk->whole_lock);
    for (unsigned i = 0; disk->taken_count && i < STG_DISK_WHOLE_BUCKETS; i++)
        for (struct stg_disk_whole_entry *entry = disk->wholes[i]; entry; entry = entry->next)
            if (entry->is_taken && !fstat(entry->fd, &info) && !info.st_nlink)
                bytes += (uint64_t)info.st_blocks * 512;
    stg_lock_drop(&disk->whole_lock);
    return bytes;
}

int stg_disk_scratch(struct stg_disk *disk) { return stg_disk_large_scratch(disk); }
