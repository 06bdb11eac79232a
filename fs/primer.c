/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the walk: what is listed, in which order, and when that is enough. */
#include "fs/primer.h"

#include "fs/absent.h"
#include "fs/catalog.h"
#include "fs/names.h"
#include "fs/staging.h"
#include "fs/tier.h"
#include "util/cleanup.h"
#include "util/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Who is to wait for longer than that for a mount would rather have it than know all its names. */
#define WALK_NS INT64_C(1000000000)
/* With the last request, on a busy machine. */
#define KNOWN_NS (INT64_C(5) * 1000000000)
/* The kernel, and the daemon, keep about a kilobyte for each. */
#define NAMES_MAX 100000
/* Of each listing only what the first request brings comes with attributes: so it asks for much. */
#define LISTING_BYTES (1 << 20)

/* Of larger files what is read is not all that is read of them; and of all together. */
#define FILE_MAX_BYTES (1 << 20)
#define CONTENT_MAX_BYTES (UINT64_C(64) << 20)
#define FILES_MAX 50000

/* What the daemon tells: each of these with a path from the top behind it, and a NUL. */
#define IS_ABSENT '-'
#define IS_READ 'r'
#define IS_OPENED 'o' /* each open is told, and the copy that serves it is made then */

/* ---- the walk ---- */

struct walk {
    int root_fd;
    int64_t until_ns;
    char *buffer;
    char **paths; /* folders that are to be listed, and before `next` those that were */
    size_t count;
    size_t room;
    size_t next;
    size_t names;
    uint64_t bytes; /* of what is read */
};

/* One folder more, which is left out where there is no memory for it. */
static void add_folder(struct walk *walk, const char *parent, const char *name) {
    char *path = NULL;

    if (walk->count == walk->room) {
        size_t room = walk->room ? walk->room * 2 : 256;
        char **paths = reallocarray(walk->paths, room, sizeof(*paths));

        if (!paths)
            return;
        walk->paths = paths;
        walk->room = room;
    }
    if (asprintf(&path, "%s/%s", parent, name) >= 0)
        walk->paths[walk->count++] = path;
}

static void list(struct walk *walk, const char *path) {
    stg_auto_fd int fd =
        openat(walk->root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t got;

    while (fd >= 0 && (got = getdents64(fd, walk->buffer, LISTING_BYTES)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(void *)(walk->buffer + at);

            if (entry->d_type == DT_DIR && !stg_name_is_dots(entry->d_name))
                add_folder(walk, path, entry->d_name);
            walk->names++;
            at += entry->d_reclen;
        }
    }
}

/* Is there room and time for more? */
static bool goes_on(const struct walk *walk) {
    return walk->names < NAMES_MAX && stg_clock_monotonic_ns() < walk->until_ns;
}

static void ask(struct walk *walk, const char *path) {
    struct stat info;

    (void)fstatat(walk->root_fd, path, &info, AT_SYMLINK_NOFOLLOW); /* the answer is the kernel's */
}

/* The kernel reads it, while this goes on. */
static void read_file(struct walk *walk, const char *path, bool is_read) {
    struct stat info;
    int fd;

    if (fstatat(walk->root_fd, path, &info, AT_SYMLINK_NOFOLLOW) || !S_ISREG(info.st_mode) ||
        info.st_size > FILE_MAX_BYTES || walk->bytes + (uint64_t)info.st_size > CONTENT_MAX_BYTES)
        return;
    walk->bytes += (uint64_t)info.st_size;
    /* With O_NONBLOCK the source would be asked. */
    fd = openat(walk->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && is_read)
        (void)posix_fadvise(fd, 0, info.st_size, POSIX_FADV_WILLNEED); /* or it is read later */
    stg_fd_close(fd);
}

static void walk_told(struct walk *walk, const char *told, size_t told_bytes) {
    for (size_t at = 0; at < told_bytes && goes_on(walk); at += strlen(told + at) + 1) {
        const char *path = told + at + 1;

        walk->names++;
        if (told[at] == IS_ABSENT)
            ask(walk, path);
        else
            read_file(walk, path, told[at] == IS_READ);
    }
}

void stg_primer_walk(const char *mountpoint, const char *told, size_t told_bytes) {
    struct walk walk = {.until_ns = stg_clock_monotonic_ns() + WALK_NS};

    walk.root_fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    walk.buffer = malloc(LISTING_BYTES);
    if (walk.root_fd >= 0 && walk.buffer) {
        list(&walk, ".");
        /* Those above first: what is nearer to the top is asked for by more. */
        for (; walk.next < walk.count && goes_on(&walk); walk.next++)
            list(&walk, walk.paths[walk.next]);
        if (told_bytes && !told[told_bytes - 1])
            walk_told(&walk, told, told_bytes);
    }
    for (size_t i = 0; i < walk.count; i++)
        free(walk.paths[i]);
    free(walk.paths);
    free(walk.buffer);
    stg_fd_close(walk.root_fd);
}

/* ---- what is told ---- */

struct told {
    FILE *stream;
    char kind;
    size_t left;
};

static void tell(struct told *told, const char *path) {
    (void)fputc(told->kind, told->stream); /* what went wrong the stream says in the end */
    (void)fputs(path, told->stream);
    (void)fputc('\0', told->stream);
}

static void tell_absent(const char *path, void *context) { tell(context, path); }

static bool tell_file(const char *path, void *context) {
    struct told *told = context;

    tell(told, path);
    return --told->left;
}

/* False without memory. */
static bool tell_all(char **ret_told, size_t *ret_bytes) {
    struct told told = {.stream = open_memstream(ret_told, ret_bytes), .kind = IS_ABSENT};
    bool failed;

    if (!told.stream)
        return false;
    stg_absent_each(tell_absent, &told);
    told.kind = stg_fs.no_open ? IS_READ : IS_OPENED;
    told.left = FILES_MAX;
    stg_disk_each_recent(stg_tier_disk(), tell_file, &told);
    failed = ferror(told.stream);
    failed = fclose(told.stream) || failed;
    if (failed)
        free(*ret_told);
    return !failed;
}

/* ---- who walks ---- */

static atomic_int walker; /* 0: nobody does */
static int64_t known_until_ns;

bool stg_primer_begin(pid_t pid, char **ret_told, size_t *ret_bytes) {
    if (!stg_catalog_folder(stg_fs.root) || !tell_all(ret_told, ret_bytes))
        return false;
    known_until_ns = stg_clock_monotonic_ns() + KNOWN_NS;
    atomic_store(&walker, pid);
    return true;
}

bool stg_primer_asks(fuse_req_t req) {
    pid_t pid = atomic_load_explicit(&walker, memory_order_relaxed);

    if (!pid)
        return false;
    if (stg_clock_monotonic_ns() > known_until_ns) { /* and the number may be another's by now */
        atomic_store(&walker, 0);
        return false;
    }
    return fuse_req_ctx(req)->pid == pid;
}

/* Nothing is read to find that out but the disk: what is not kept of the file is not kept of its
 * content, either. */
bool stg_primer_asks_too_much(fuse_req_t req, struct stg_inode *inode) {
    struct stg_identity now;
    struct statx stx;

    if (!stg_primer_asks(req))
        return false;
    if (!stg_catalog_attributes(inode, &stx))
        return true;
    now = stg_staging_identity(&stx);
    return !stg_tier_has(inode, &now);
}
