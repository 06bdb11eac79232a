/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the private tmpfs and the names in it. Budgets, states and eviction are above it.
 *
 * Why not a memfd for each copy: the descriptor would have to be kept to read the copy again (a
 * backing id cannot be opened), and ten thousand copies must fit under a limit of 1024 descriptors.
 * Large folios, where the kernel has them, make reads of large copies as fast as those of a disk
 * file system's page cache.
 */
#include "cache/store.h"

#include "util/cleanup.h"
#include "util/io.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#define PAGE_BYTES 4096U
#define OVERHEAD_BYTES 1024U /* inode and dentry of a tmpfs file, measured: 700 to 1000 */
#define NAME_BYTES 24
#define COPY_BYTES ((size_t)1 << 20)

struct stg_store {
    int tree; /* the root of the tmpfs, or -1 */
    _Atomic uint64_t next_number;
};

static int configure(int context, uint64_t limit_bytes) {
    char size[32];

    (void)snprintf(size, sizeof(size), "%ju", (uintmax_t)limit_bytes); /* always fits */
    if (fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0) ||
        fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "0", 0) ||
        fsconfig(context, FSCONFIG_SET_STRING, "mode", "0700", 0))
        return -errno;
    /* These are worth having and may be unknown to the kernel: 6.4, and huge pages compiled in. */
    (void)fsconfig(context, FSCONFIG_SET_FLAG, "noswap", NULL, 0);
    (void)fsconfig(context, FSCONFIG_SET_STRING, "huge", "within_size", 0);
    return fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ? -errno : 0;
}

/* A tmpfs of our own: a descriptor of its root, or -errno. */
static int make_tree(uint64_t limit_bytes) {
    stg_auto_fd int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    int error = context < 0 ? -errno : configure(context, limit_bytes);
    int tree;

    if (error)
        return error;
    tree = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return tree < 0 ? -errno : tree;
}

int stg_store_new(uint64_t limit_bytes, bool in_memory, struct stg_store **ret_store) {
    struct stg_store *store = calloc(1, sizeof(*store));

    if (!store)
        return -ENOMEM;
    /* A size of 0 means no limit to tmpfs. */
    store->tree = in_memory ? -EPERM : make_tree(limit_bytes ? limit_bytes : PAGE_BYTES);
    if (store->tree < 0) {
        stg_debug("copies are kept in memory: %s", strerror(-store->tree));
        store->tree = -1;
    }
    store->next_number = 1;
    *ret_store = store;
    return 0;
}

void stg_store_free(struct stg_store *store) {
    if (!store)
        return;
    stg_fd_close(store->tree);
    free(store);
}

bool stg_store_has_files(const struct stg_store *store) { return store->tree >= 0; }

uint64_t stg_store_cost_bytes(uint64_t bytes) {
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES + OVERHEAD_BYTES;
}

uint64_t stg_store_copy_cost_bytes(const struct stg_copy *copy, uint64_t bytes) {
    return copy->file ? OVERHEAD_BYTES : stg_store_cost_bytes(bytes);
}

static void name_of(uint64_t number, char name[NAME_BYTES]) {
    (void)snprintf(name, NAME_BYTES, "%jx", (uintmax_t)number); /* always fits */
}

static int write_all(int fd, const char *content, uint64_t bytes, uint64_t offset) {
    uint64_t done = 0;

    while (done < bytes) {
        ssize_t put = pwrite(fd, content + done, bytes - done, (off_t)(offset + done));

        if (put < 0 && errno != EINTR)
            return -errno;
        if (put > 0)
            done += (uint64_t)put;
    }
    return 0;
}

static int put_file(struct stg_store *store, const void *content, uint64_t bytes,
                    struct stg_copy *ret_copy) {
    struct stg_copy copy = {.number = store->next_number++, .bytes = bytes};
    char name[NAME_BYTES];
    stg_auto_fd int fd = -1;
    int error;

    name_of(copy.number, name);
    fd = openat(store->tree, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    error = write_all(fd, content, bytes, 0);
    if (error) {
        (void)unlinkat(store->tree, name, 0); /* a file of ours, just made */
        return error;
    }
    *ret_copy = copy;
    return 0;
}

int stg_store_put(struct stg_store *store, const void *content, uint64_t bytes,
                  struct stg_copy *ret_copy) {
    void *memory;

    if (store->tree >= 0)
        return put_file(store, content, bytes, ret_copy);
    memory = malloc(bytes ? bytes : 1);
    if (!memory)
        return -ENOMEM;
    memcpy(memory, content, bytes);
    *ret_copy = (struct stg_copy){.memory = memory, .bytes = bytes};
    return 0;
}

int stg_store_rewrite(struct stg_store *store, struct stg_copy *copy, const void *content,
                      uint64_t bytes) {
    stg_auto_fd int fd = stg_store_open(store, copy, O_WRONLY);
    int error = fd < 0 ? fd : write_all(fd, content, bytes, 0);

    if (!error && ftruncate(fd, (off_t)bytes))
        error = -errno;
    if (!error)
        copy->bytes = bytes;
    return error;
}

int stg_store_write(struct stg_store *store, struct stg_copy *copy, const void *content,
                    uint64_t bytes, uint64_t offset) {
    stg_auto_fd int fd = stg_store_open(store, copy, O_WRONLY);
    int error = fd < 0 ? fd : write_all(fd, content, bytes, offset);

    if (error && fd >= 0)
        (void)ftruncate(fd, (off_t)copy->bytes); /* makes room, and needs none */
    if (!error && offset + bytes > copy->bytes)
        copy->bytes = offset + bytes;
    return error;
}

int stg_store_shorten(struct stg_store *store, struct stg_copy *copy, uint64_t bytes) {
    stg_auto_fd int fd = stg_store_open(store, copy, O_WRONLY);

    if (fd < 0)
        return fd;
    if (ftruncate(fd, (off_t)bytes))
        return -errno;
    copy->bytes = bytes;
    return 0;
}

/* From one file system to another the kernel does not copy. As copy_range(). */
static int copy_by_hand(int from, int to, uint64_t bytes) {
    stg_auto_free char *part = malloc(COPY_BYTES);

    if (!part)
        return -ENOMEM;
    for (uint64_t at = 0; at < bytes;) {
        size_t wanted = bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES;
        ssize_t got = stg_io_read_whole(from, part, wanted, (off_t)at);
        int error = got <= 0 ? (int)(got ? got : -EIO) : write_all(to, part, (uint64_t)got, at);

        if (error)
            return error;
        at += (uint64_t)got;
    }
    return 0;
}

/* 0 or -errno; EIO where the file is shorter than that. */
static int copy_range(int from, int to, uint64_t bytes) {
    loff_t from_offset = 0;
    loff_t to_offset = 0;

    while ((uint64_t)to_offset < bytes) {
        ssize_t copied =
            copy_file_range(from, &from_offset, to, &to_offset, bytes - (uint64_t)to_offset, 0);

        if (copied < 0 && errno == EINTR)
            continue;
        if (copied < 0 && !to_offset)
            return copy_by_hand(from, to, bytes);
        if (copied <= 0)
            return copied ? -errno : -EIO;
    }
    return 0;
}

/* Room for what is longer, where the file system can say so before: 0 or -errno. */
static int reserve(int fd, uint64_t has_bytes, uint64_t bytes) {
    if (bytes <= has_bytes ||
        !fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)has_bytes, (off_t)(bytes - has_bytes)))
        return 0;
    return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR ? 0 : -errno;
}

int stg_store_rewrite_from(struct stg_store *store, struct stg_copy *copy, int from,
                           uint64_t bytes) {
    stg_auto_fd int fd = stg_store_open(store, copy, O_WRONLY);
    int error = fd < 0 ? fd : reserve(fd, copy->bytes, bytes);

    if (!error)
        error = copy_range(from, fd, bytes);
    if (!error && ftruncate(fd, (off_t)bytes))
        error = -errno;
    if (!error)
        copy->bytes = bytes;
    return error;
}

struct stg_copy stg_store_adopt(struct stg_store *store, int fd, uint64_t beside, uint64_t bytes) {
    return (struct stg_copy){
        .number = store->next_number++, .bytes = bytes, .file = fd + 1, .beside = beside};
}

/* The file itself, whatever has its name by now, if it has one at all (proc(5), /proc/pid/fd). */
static int open_elsewhere(const struct stg_copy *copy, int flags) {
    char path[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", copy->file - 1); /* fits */
    fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int stg_store_open(const struct stg_store *store, const struct stg_copy *copy, int flags) {
    char name[NAME_BYTES];
    int fd;

    if (!copy->number)
        return -EOPNOTSUPP;
    if (copy->file)
        return open_elsewhere(copy, flags);
    name_of(copy->number, name);
    fd = openat(store->tree, name, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

ssize_t stg_store_read(const struct stg_store *store, const struct stg_copy *copy, void *buffer,
                       size_t bytes, uint64_t offset) {
    stg_auto_fd int fd = -1;

    if (offset >= copy->bytes)
        return 0;
    if (bytes > copy->bytes - offset)
        bytes = copy->bytes - offset;
    if (!copy->number) {
        memcpy(buffer, (const char *)copy->memory + offset, bytes);
        return (ssize_t)bytes;
    }
    fd = stg_store_open(store, copy, O_RDONLY);
    if (fd < 0)
        return fd;
    return stg_io_read_whole(fd, buffer, bytes, (off_t)offset);
}

void stg_store_drop(struct stg_store *store, struct stg_copy *copy) {
    char name[NAME_BYTES];

    if (copy->file) {
        stg_fd_close(copy->file - 1);
    } else if (copy->number) {
        name_of(copy->number, name);
        (void)unlinkat(store->tree, name, 0); /* a file of ours: it is there */
    }
    free(copy->memory);
    *copy = (struct stg_copy){0};
}
