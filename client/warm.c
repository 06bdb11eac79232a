/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the reading of staged files into the kernel's page cache, and the walk to them. */
#include "client/warm.h"

#include "client/cleanup.h"
#include "client/protocol.h"
#include "client/request.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    BLOCK_BYTES = 1024 * 1024,
    DEPTH_MAX = 256, /* of folders: one descriptor each */
    PROGRESS_NS = 10000000,
};

/* ---- mounts ---- */

void stg_warm_fini(struct stg_warm *warm) {
    free(warm->mounts);
    free(warm->buffer);
    *warm = (struct stg_warm){0};
}

static struct stg_warm_mount *find_mount(struct stg_warm *warm, dev_t device) {
    for (size_t i = 0; i < warm->count; i++)
        if (warm->mounts[i].device == device)
            return &warm->mounts[i];
    return NULL;
}

void stg_warm_add(struct stg_warm *warm, dev_t device, uint64_t limit_bytes) {
    struct stg_warm_mount *grown;

    if (find_mount(warm, device))
        return;
    grown = reallocarray(warm->mounts, warm->count + 1, sizeof(*grown));
    if (!grown)
        return; /* its files are then read when they are needed */
    warm->mounts = grown;
    grown[warm->count++] = (struct stg_warm_mount){.device = device, .left_bytes = limit_bytes};
}

void stg_warm_ask(struct stg_warm *warm, dev_t device, int fd) {
    struct stagefs_stats_request stats = {.version = STAGEFS_PROTOCOL_VERSION};

    if (!find_mount(warm, device) && !stg_request_send(fd, STAGEFS_IOC_STATS, &stats) &&
        stats.serve == STAGEFS_SERVE_PAGECACHE)
        stg_warm_add(warm, device, stats.hot_limit_bytes);
}

/* ---- the caller ---- */

static int64_t now_ns(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* it has this clock */
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* True where nothing more is to be read; tells the caller how far it is, now and then. */
static bool is_over(struct stg_warm *warm, const struct stg_warm_mount *mount) {
    if (!warm->stopped && warm->progress && now_ns() - warm->told_ns >= PROGRESS_NS) {
        warm->stopped = warm->progress(warm->result, warm->data);
        warm->told_ns = now_ns();
    }
    return warm->stopped || !mount->left_bytes;
}

static int answer(const struct stg_warm *warm) { return warm->stopped ? -ECANCELED : 0; }

/* ---- one file ---- */

static ssize_t read_block(int fd, char *buffer, size_t bytes, off_t offset) {
    ssize_t got;

    do
        got = pread(fd, buffer, bytes, offset);
    while (got < 0 && errno == EINTR);
    return got;
}

static void read_file(struct stg_warm *warm, struct stg_warm_mount *mount, int fd) {
    off_t offset = 0;

    if (!warm->buffer)
        warm->buffer = malloc(BLOCK_BYTES);
    while (warm->buffer && !is_over(warm, mount)) {
        size_t bytes = mount->left_bytes < BLOCK_BYTES ? (size_t)mount->left_bytes : BLOCK_BYTES;
        ssize_t got = read_block(fd, warm->buffer, bytes, offset);

        if (got <= 0)
            return;
        offset += got;
        warm->read_bytes += (uint64_t)got;
        mount->left_bytes -= (uint64_t)got;
    }
}

/* Who does not own the file may not keep its access time. Returns a descriptor, or -1. */
static int open_file(int dirfd, const char *name, int flags) {
    int fd;

    flags |= O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    fd = openat(dirfd, name, flags | O_NOATIME);
    return fd < 0 && errno == EPERM ? openat(dirfd, name, flags) : fd;
}

/* ---- folders ---- */

static void walk_folder(struct stg_warm *warm, struct stg_warm_mount *mount, int fd,
                        unsigned depth);

static void take(struct stg_warm *warm, struct stg_warm_mount *mount, int fd, mode_t mode,
                 unsigned depth) {
    struct stat st;

    if (S_ISREG(mode)) {
        read_file(warm, mount, fd);
        (void)fstat(fd, &st); /* reading may move the access time: the kernel asks once more */
        stg_client_close(&fd);
    } else {
        walk_folder(warm, mount, fd, depth);
    }
}

static void walk_entry(struct stg_warm *warm, struct stg_warm_mount *mount, int dirfd,
                       const char *name, unsigned depth) {
    struct stat st;
    int fd;

    if (!strcmp(name, ".") || !strcmp(name, "..") ||
        fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) || st.st_dev != mount->device ||
        !(S_ISREG(st.st_mode) || (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)))
        return;
    fd = open_file(dirfd, name, O_NOFOLLOW);
    if (fd >= 0)
        take(warm, mount, fd, st.st_mode, depth + 1);
}

/* Consumes `fd`. */
static void walk_folder(struct stg_warm *warm, struct stg_warm_mount *mount, int fd,
                        unsigned depth) {
    DIR *folder = fdopendir(fd);
    struct dirent *entry;

    if (!folder) {
        stg_client_close(&fd);
        return;
    }
    while (!is_over(warm, mount) && (entry = readdir(folder)))
        walk_entry(warm, mount, fd, entry->d_name, depth);
    (void)closedir(folder); /* it was only read */
}

/* ---- what was named ---- */

int stg_warm_path(struct stg_warm *warm, int dirfd, const char *path, bool recursive) {
    struct stg_warm_mount *mount;
    struct stat st;
    int fd;

    /* Looked at before it is opened: a device may do something at that. */
    if (!warm->count || fstatat(dirfd, path, &st, 0) ||
        !(S_ISREG(st.st_mode) || (S_ISDIR(st.st_mode) && recursive)))
        return 0;
    mount = find_mount(warm, st.st_dev);
    if (!mount || is_over(warm, mount))
        return answer(warm);
    fd = open_file(dirfd, path, 0);
    if (fd >= 0)
        take(warm, mount, fd, st.st_mode, 0);
    return answer(warm);
}

int stg_warm_open(struct stg_warm *warm, int fd) {
    struct stg_warm_mount *mount;
    struct stat st;

    if (!warm->count || fstat(fd, &st) || !S_ISREG(st.st_mode))
        return 0;
    mount = find_mount(warm, st.st_dev);
    if (mount)
        read_file(warm, mount, fd);
    return answer(warm);
}
