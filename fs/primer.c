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
#include <linux/openat2.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Of the time: until then names are listed, files are begun to be read, and what is left is for
 * waiting for those. */
#define LIST_NS (STG_PRIMER_WALK_NS / 2)
#define READ_NS (STG_PRIMER_WALK_NS / 10 * 9)
/* The store's own list is gone through for so long, while nobody is answered. */
#define TELL_NS (STG_PRIMER_WALK_NS / 5)
/* The walk does not begin later than that after the daemon has begun to wait for it; */
#define START_NS (STG_PRIMER_WALK_NS * 5)
/* which knows its requests for longer than it may take then, on a busy machine, too. */
#define KNOWN_NS (STG_PRIMER_WALK_NS * 10)
/* The kernel, and the daemon, keep about a kilobyte for each. */
#define NAMES_MAX 100000
/* Of each listing only what the first request brings comes with attributes: so it asks for much. */
#define LISTING_BYTES (1 << 20)
/* A file is read where one piece has all of it (fill.h, stg_fill_piece_bytes()); and all together.
 */
#define FILE_MAX_BYTES (256 << 10)
#define CONTENT_MAX_BYTES (UINT64_C(64) << 20)
#define FILES_MAX 50000

/* What the daemon tells: each of these with a path from the top behind it, and a NUL. */
#define IS_ABSENT '-'
#define IS_FILE 'r'

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
    size_t reads;   /* of the files that were told those that are being read */
    uint64_t bytes; /* of them */
};

/*
 * Opens what has that path in the mount, and nothing that a link or another mount has put there:
 * where that leads, somebody might wait for ever.
 */
static int open_inside(const struct walk *walk, const char *path, uint64_t flags) {
    struct open_how how = {.flags = flags | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};

    return (int)syscall(SYS_openat2, walk->root_fd, path, &how, sizeof(how));
}

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
    stg_auto_fd int fd = open_inside(walk, path, O_RDONLY | O_DIRECTORY);
    ssize_t got;

    while (fd >= 0 && (got = getdents64(fd, walk->buffer, LISTING_BYTES)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(void *)(walk->buffer + at);

            if (!stg_name_is_dots(entry->d_name)) {
                walk->names++;
                if (entry->d_type == DT_DIR)
                    add_folder(walk, path, entry->d_name);
            }
            at += entry->d_reclen;
        }
    }
}

static bool has_time(const struct walk *walk) { return stg_clock_monotonic_ns() < walk->until_ns; }

/* From above: what is nearer to the top is asked for by more. */
static void list_all(struct walk *walk) {
    list(walk, ".");
    for (; walk->next < walk->count && walk->names < NAMES_MAX && has_time(walk); walk->next++)
        list(walk, walk->paths[walk->next]);
}

static bool ask(struct walk *walk, const char *path) {
    stg_fd_close(open_inside(walk, path, O_PATH)); /* the answer is the kernel's */
    return true;
}

/* Opens the file, if it is one that is to be read. A descriptor, or negative. */
static int open_file(const struct walk *walk, const char *path, struct stat *ret_info) {
    stg_auto_fd int fd = open_inside(walk, path, O_PATH); /* what is a device now is left alone */

    if (fd < 0 || fstat(fd, ret_info) || !S_ISREG(ret_info->st_mode) || !ret_info->st_size ||
        ret_info->st_size > FILE_MAX_BYTES)
        return -1;
    return open_inside(walk, path, O_RDONLY | O_NONBLOCK);
}

/* Has the kernel begin to read the file. False once there is enough of that. */
static bool read_file(struct walk *walk, const char *path) {
    struct stat info;
    stg_auto_fd int fd = open_file(walk, path, &info);

    walk->reads++;
    if (fd < 0)
        return true;
    walk->bytes += (uint64_t)info.st_size;
    (void)posix_fadvise(fd, 0, info.st_size, POSIX_FADV_WILLNEED); /* or it is read later */
    return walk->bytes < CONTENT_MAX_BYTES;
}

/* Waits until that is read: who comes next is not to wait for it. False after the last. */
static bool wait_for_file(struct walk *walk, const char *path) {
    struct stat info;
    stg_auto_fd int fd = walk->reads ? open_file(walk, path, &info) : -1;
    char byte;

    if (!walk->reads)
        return false;
    walk->reads--;
    if (fd >= 0)
        (void)!pread(fd, &byte, 1, info.st_size - 1); /* what is not kept is not read */
    return true;
}

/* Does `what` with each path of that kind, until it says false, or the time is over. */
static void each_told(const char *told, size_t told_bytes, char kind, struct walk *walk,
                      bool (*what)(struct walk *walk, const char *path)) {
    for (size_t at = 0; at < told_bytes && has_time(walk); at += strlen(told + at) + 1)
        if (told[at] == kind && !what(walk, told + at + 1))
            return;
}

void stg_primer_walk(const char *mountpoint, const char *told, size_t told_bytes,
                     int64_t since_ns) {
    int64_t now_ns = stg_clock_monotonic_ns();
    struct walk walk = {.until_ns = now_ns + LIST_NS};

    if (now_ns - since_ns > START_NS)
        return;
    while (told_bytes && told[told_bytes - 1])
        told_bytes--; /* the last one was not told to its end */
    walk.root_fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    walk.buffer = malloc(LISTING_BYTES);
    if (walk.root_fd >= 0 && walk.buffer) {
        list_all(&walk);
        walk.until_ns = now_ns + READ_NS;
        each_told(told, told_bytes, IS_ABSENT, &walk, ask);
        each_told(told, told_bytes, IS_FILE, &walk, read_file);
        walk.until_ns = now_ns + STG_PRIMER_WALK_NS;
        each_told(told, told_bytes, IS_FILE, &walk, wait_for_file);
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

/* False without memory; what there is is the caller's all the same. */
static bool tell_all(char **ret_told, size_t *ret_bytes) {
    struct told told = {.stream = open_memstream(ret_told, ret_bytes), .kind = IS_ABSENT};
    bool failed;

    if (!told.stream)
        return false;
    stg_absent_each(tell_absent, &told);
    told.kind = IS_FILE;
    told.left = FILES_MAX;
    /* Where opens are told, each asks for its copy; and copies are told by numbers with handles. */
    if (stg_fs.no_open && !stg_fs.root->volume->handles)
        stg_disk_each_recent(stg_tier_disk(), stg_clock_monotonic_ns() + TELL_NS, tell_file, &told);
    failed = ferror(told.stream);
    return !fclose(told.stream) && !failed;
}

/* ---- who walks ---- */

static atomic_int walker; /* 0: nobody does */
static int walker_fd;     /* of the process: its number alone may be another's by now */
static int64_t known_until_ns;

bool stg_primer_begin(pid_t pid, char **ret_told, size_t *ret_bytes) {
    if (!pid || !stg_catalog_folder(stg_fs.root))
        return false;
    walker_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (walker_fd < 0)
        return false;
    if (!tell_all(ret_told, ret_bytes)) {
        stg_fd_close(walker_fd);
        return false;
    }
    known_until_ns = stg_clock_monotonic_ns() + KNOWN_NS;
    atomic_store(&walker, pid);
    return true;
}

/* Is it there, and may it still ask? */
static bool is_walking(void) {
    struct pollfd ended = {.fd = walker_fd, .events = POLLIN};

    return stg_clock_monotonic_ns() < known_until_ns && !poll(&ended, 1, 0);
}

bool stg_primer_asks(fuse_req_t req) {
    pid_t pid = atomic_load_explicit(&walker, memory_order_acquire);

    if (!pid || fuse_req_ctx(req)->pid != pid)
        return false;
    if (is_walking())
        return true;
    atomic_store(&walker, 0); /* its descriptor stays: others may be looking at it */
    return false;
}

char *stg_primer_content(struct stg_inode *inode, uint64_t *ret_bytes, uint64_t *ret_file_bytes) {
    struct stg_identity now;
    struct statx stx;

    if (!stg_catalog_attributes(inode, &stx))
        return NULL;
    now = stg_staging_identity(&stx);
    *ret_file_bytes = stx.stx_size;
    return stg_tier_find(inode, &now, ret_bytes);
}
