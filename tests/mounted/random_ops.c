/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The operations of the randomised test. A row of the table draws its arguments and does the
 * operation on one side; the loop does each step on both sides and compares what came back: the
 * result, errno, and all bytes or attributes that were read.
 *
 * Left out, because the kernel's FUSE part answers and no daemon can change it: collapse and insert
 * of ranges, clearing O_APPEND by fcntl on a passed-through file, set-id bits that are set while
 * the file is open. Also left out, because a plain directory does not repeat itself there: sizes of
 * directories, allocated blocks, SEEK_DATA (both depend on when the disk was written), access
 * times.
 */
#include "random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

struct args {
    int base, base2; /* slots whose directory the paths are relative to; -1: the top */
    char path[RT_PATH_BYTES], path2[RT_PATH_BYTES];
    int slot, slot2;
    unsigned map;
    int flags;
    mode_t mode;
    off_t offset, offset2;
    size_t bytes;
    uint64_t fill;
    uid_t uid;
    gid_t gid;
    struct timespec times[2];
    char name[24]; /* of an extended attribute */
};

/* What came back on one side. The bytes are in the runner's buffer of that side. */
struct outcome {
    long ret;
    int err;
    size_t bytes;
};

struct op {
    const char *name;
    unsigned weight;
    void (*draw)(struct rt_runner *r, struct args *a);
    void (*run)(struct rt_runner *r, int side, const struct args *a, struct outcome *o);
    bool not_in_chaos;
};

/* ---- drawing ---- */

uint64_t stg_rt_next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t stg_rt_below(uint64_t *state, uint64_t n) { return stg_rt_next(state) % n; }

void stg_rt_fill(char *data, size_t bytes, uint64_t seed) {
    while (bytes >= 8) {
        uint64_t word = stg_rt_next(&seed);
        memcpy(data, &word, 8);
        data += 8;
        bytes -= 8;
    }
    uint64_t word = stg_rt_next(&seed);
    memcpy(data, &word, bytes);
}

static uint64_t below(struct rt_runner *r, uint64_t n) { return stg_rt_below(&r->rng, n); }

static bool one_in(struct rt_runner *r, uint64_t n) { return below(r, n) == 0; }

static void add_component(struct rt_runner *r, char *path) {
    size_t used = strlen(path);
    snprintf(path + used, RT_PATH_BYTES - used, "%s%c", used ? "/" : "", 'a' + (int)below(r, 7));
}

static void draw_path(struct rt_runner *r, int *base, char *path) {
    *base = -1;
    path[0] = '\0';
    if (one_in(r, 12)) {
        int slot = (int)below(r, RT_SLOTS);
        if (r->slots[slot][RT_MOUNT] >= 0)
            *base = slot;
    }
    if (*base < 0 && r->n_paths > 0 && !one_in(r, 3)) {
        memcpy(path, r->paths[below(r, r->n_paths)], RT_PATH_BYTES);
        if (one_in(r, 4) && strlen(path) < 40)
            add_component(r, path);
    } else {
        unsigned depth = *base < 0 ? 1 + (unsigned)below(r, 3) : 1;
        while (depth-- > 0)
            add_component(r, path);
    }
    switch (below(r, 200)) {
    case 0:
        memset(path, 'n', 255);
        path[255] = '\0';
        break;
    case 1:
        memset(path, 'n', 256);
        path[256] = '\0';
        break;
    case 2:
        strcpy(path, ".");
        break;
    case 3:
        path[0] = '\0';
        break;
    case 4:
    case 5:
        strcat(path, "/");
        break;
    default:
        break;
    }
}

/* Something was made at a path: later steps should find it there. */
static void remember(struct rt_runner *r, int base, const char *path) {
    if (base >= 0 || strlen(path) > 40)
        return;
    unsigned i = r->n_paths < RT_PATHS ? r->n_paths++ : (unsigned)below(r, RT_PATHS);
    snprintf(r->paths[i], RT_PATH_BYTES, "%s", path);
}

static int base_fd(const struct rt_runner *r, int side, int base) {
    return base < 0 ? r->top[side] : r->slots[base][side];
}

static off_t draw_offset(struct rt_runner *r) {
    switch (below(r, 4)) {
    case 0:
        return 0;
    case 1:
        return (off_t)(4096 * below(r, 64));
    case 2:
        return (off_t)below(r, 20000);
    default:
        return (off_t)below(r, 400000);
    }
}

static size_t draw_bytes(struct rt_runner *r) {
    switch (below(r, 5)) {
    case 0:
        return below(r, 20);
    case 1:
        return 4096;
    case 2:
        return 4096 * (1 + below(r, 16));
    default:
        return below(r, 20000);
    }
}

static void draw_times(struct rt_runner *r, struct args *a) {
    for (int i = 0; i < 2; i++) {
        a->times[i].tv_sec = 1000000000 + (time_t)below(r, 200000000);
        a->times[i].tv_nsec = (long)below(r, 1000000000);
        if (one_in(r, 6))
            a->times[i].tv_nsec = one_in(r, 2) ? UTIME_NOW : UTIME_OMIT;
    }
}

static void draw_at(struct rt_runner *r, struct args *a) {
    draw_path(r, &a->base, a->path);
    a->mode = (mode_t)below(r, 0777 + 1);
}

static void draw_two(struct rt_runner *r, struct args *a) {
    static const unsigned kinds[] = {0, 0, 0, 1 /* NOREPLACE */, 2 /* EXCHANGE */, 3};
    draw_path(r, &a->base, a->path);
    draw_path(r, &a->base2, a->path2);
    a->flags = (int)kinds[below(r, sizeof(kinds) / sizeof(kinds[0]))];
}

static void draw_chown(struct rt_runner *r, struct args *a) {
    static const unsigned ids[] = {0, 0, 1000, 1001, (unsigned)-1};
    draw_path(r, &a->base, a->path);
    a->slot = (int)below(r, RT_SLOTS);
    a->uid = ids[below(r, 5)];
    a->gid = ids[below(r, 5)];
}

static void draw_utimens(struct rt_runner *r, struct args *a) {
    draw_path(r, &a->base, a->path);
    a->slot = (int)below(r, RT_SLOTS);
    a->flags = one_in(r, 2) ? AT_SYMLINK_NOFOLLOW : 0;
    draw_times(r, a);
}

/* A pipe's open would wait for its other end. */
static int no_waiting(struct rt_runner *r, const struct args *a) {
    struct stat st;
    int base = base_fd(r, RT_PLAIN, a->base);
    if (!r->chaos && fstatat(base, a->path, &st, 0) == 0 && S_ISFIFO(st.st_mode))
        return O_NONBLOCK;
    return 0;
}

static void draw_open(struct rt_runner *r, struct args *a) {
    static const int extra[] = {O_CREAT,  O_CREAT,    O_CREAT | O_EXCL, O_TRUNC,  O_CREAT | O_TRUNC,
                                O_APPEND, O_NOFOLLOW, O_DIRECTORY,      O_DIRECT, 0,
                                0,        0};
    static const int access[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
    draw_at(r, a);
    a->slot = (int)below(r, RT_SLOTS);
    a->flags = access[below(r, 4)] | extra[below(r, sizeof(extra) / sizeof(extra[0]))];
    if (one_in(r, 3))
        a->flags |= extra[below(r, sizeof(extra) / sizeof(extra[0]))];
    if (one_in(r, 30))
        a->flags = O_PATH | (one_in(r, 2) ? O_NOFOLLOW : 0);
    a->flags |= no_waiting(r, a);
}

static void draw_opendir(struct rt_runner *r, struct args *a) {
    draw_at(r, a);
    a->slot = (int)below(r, RT_SLOTS);
    a->flags = O_RDONLY | O_DIRECTORY;
}

static void draw_tmpfile(struct rt_runner *r, struct args *a) {
    draw_at(r, a);
    a->slot = (int)below(r, RT_SLOTS);
    a->flags = O_TMPFILE | (one_in(r, 4) ? O_EXCL : 0) | (one_in(r, 4) ? O_WRONLY : O_RDWR);
    char *slash = strrchr(a->path, '/'); /* more often a directory */
    if (slash != NULL && !one_in(r, 4))
        *slash = '\0';
}

static void draw_io(struct rt_runner *r, struct args *a) {
    a->slot = (int)below(r, RT_SLOTS);
    a->slot2 = (int)below(r, RT_SLOTS);
    a->map = (unsigned)below(r, RT_MAPS);
    a->offset = draw_offset(r);
    a->offset2 = draw_offset(r);
    a->bytes = draw_bytes(r);
    a->fill = stg_rt_next(&r->rng);
    a->flags = (int)below(r, 6);
    a->mode = (mode_t)below(r, 0777 + 1);
    draw_times(r, a);
}

static void draw_path_io(struct rt_runner *r, struct args *a) {
    draw_io(r, a);
    draw_path(r, &a->base, a->path);
}

static void draw_xattr(struct rt_runner *r, struct args *a) {
    static const char *const space[] = {"user", "user", "user", "trusted"};
    draw_path(r, &a->base, a->path);
    a->slot = (int)below(r, RT_SLOTS);
    snprintf(a->name, sizeof(a->name), "%s.x%u", space[below(r, 4)], (unsigned)below(r, 4));
    a->bytes = below(r, 200);
    a->fill = stg_rt_next(&r->rng);
    a->flags = one_in(r, 2) ? 0 : (one_in(r, 2) ? XATTR_CREATE : XATTR_REPLACE);
}

static void draw_slots(struct rt_runner *r, struct args *a) {
    a->slot = (int)below(r, RT_SLOTS);
    a->slot2 = (int)below(r, RT_SLOTS);
    a->flags = (int)below(r, 8);
    draw_path(r, &a->base, a->path);
}

/* ---- doing ---- */

static void put_result(struct outcome *o, long ret) {
    o->ret = ret;
    o->err = ret < 0 ? errno : 0;
}

static void print_stat(struct rt_runner *r, int side, const struct stat *st, struct outcome *o) {
    char mtime[64] = "now";
    if (S_ISFIFO(st->st_mode)) /* the kernel's pipe moves it, and on FUSE does not */
        strcpy(mtime, "any");
    else if (st->st_mtim.tv_sec < RT_SET_TIMES_END)
        snprintf(mtime, sizeof(mtime), "%lld.%09ld", (long long)st->st_mtim.tv_sec,
                 st->st_mtim.tv_nsec);
    o->bytes = (size_t)snprintf(r->buffer[side], RT_BUFFER_BYTES,
                                "mode %o uid %u gid %u nlink %lu rdev %lx size %lld mtime %s",
                                st->st_mode, st->st_uid, st->st_gid, (unsigned long)st->st_nlink,
                                (unsigned long)st->st_rdev,
                                S_ISDIR(st->st_mode) ? 0LL : (long long)st->st_size, mtime);
}

/* Puts a new descriptor into its slot; the number itself is no result. */
static void put_slot(struct rt_runner *r, int side, int slot, int fd, struct outcome *o) {
    put_result(o, fd);
    if (fd < 0)
        return;
    o->ret = 0;
    if (r->slots[slot][side] >= 0)
        (void)close(r->slots[slot][side]); /* its errors are the close operation's matter */
    r->slots[slot][side] = fd;
}

static void run_open(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int flags = a->flags | O_CLOEXEC;
    put_slot(r, side, a->slot, openat(base_fd(r, side, a->base), a->path, flags, a->mode), o);
}

/* The same file opened once more, with other flags, though it may have no name by now. */
static void run_reopen(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    static const int flags[] = {
        O_RDONLY, O_WRONLY,          O_RDWR, O_RDWR | O_APPEND, O_RDWR | O_TRUNC,
        O_RDONLY, O_RDWR | O_DIRECT, O_PATH};
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", r->slots[a->slot][side]);
    put_slot(r, side, a->slot2, open(path, flags[a->flags] | O_NONBLOCK | O_CLOEXEC), o);
}

static void run_dup(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_slot(r, side, a->slot2, fcntl(r->slots[a->slot][side], F_DUPFD_CLOEXEC, 3), o);
}

static void run_close(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, close(r->slots[a->slot][side]));
    r->slots[a->slot][side] = -1;
}

/*
 * Direct I/O that is not aligned fails natively, too, but not at once: what lies before the first
 * gap between the file's extents has been transferred by then, and where the gaps are is the disk's
 * own affair. So it is left out.
 */
static bool is_unaligned_direct(int fd, off_t offset, size_t bytes) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT) && ((offset | (off_t)bytes) & 4095);
}

/* The same of a write, which O_APPEND sends to the end of the file. */
static bool is_unaligned_direct_write(int fd, off_t offset, size_t bytes) {
    int flags = fcntl(fd, F_GETFL);
    struct stat st;
    if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &st) == 0)
        offset = st.st_size;
    return is_unaligned_direct(fd, offset, bytes);
}

static void run_write(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd = r->slots[a->slot][side];
    put_result(o, 0);
    if (!is_unaligned_direct_write(fd, lseek(fd, 0, SEEK_CUR), a->bytes))
        put_result(o, write(fd, r->data, a->bytes));
}

static void run_pwrite(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd = r->slots[a->slot][side];
    put_result(o, 0);
    if (!is_unaligned_direct_write(fd, a->offset, a->bytes))
        put_result(o, pwrite(fd, r->data, a->bytes, a->offset));
}

static void run_append(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd =
        openat(base_fd(r, side, a->base), a->path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC);
    put_result(o, fd);
    if (fd < 0)
        return;
    put_result(o, write(fd, r->data, a->bytes));
    if (close(fd) != 0)
        put_result(o, -1);
}

static void run_read(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd = r->slots[a->slot][side];
    put_result(o, 0);
    if (!is_unaligned_direct(fd, lseek(fd, 0, SEEK_CUR), a->bytes))
        put_result(o, read(fd, r->buffer[side], a->bytes));
    o->bytes = o->ret > 0 ? (size_t)o->ret : 0;
}

static void run_pread(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd = r->slots[a->slot][side];
    put_result(o, 0);
    if (!is_unaligned_direct(fd, a->offset, a->bytes))
        put_result(o, pread(fd, r->buffer[side], a->bytes, a->offset));
    o->bytes = o->ret > 0 ? (size_t)o->ret : 0;
}

static void run_lseek(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    static const int whence[] = {SEEK_SET, SEEK_CUR, SEEK_END, SEEK_SET, SEEK_SET, SEEK_END};
    int fd = r->slots[a->slot][side];
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        put_result(o, 0); /* a directory's offsets are its file system's own */
        return;
    }
    off_t offset = whence[a->flags] == SEEK_SET ? a->offset : a->offset % 4000 - 2000;
    put_result(o, lseek(fd, offset, whence[a->flags]));
}

static void run_truncate(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    char path[RT_PATH_BYTES + 64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", base_fd(r, side, a->base), a->path);
    put_result(o, truncate(path, a->offset));
}

static void run_ftruncate(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, ftruncate(r->slots[a->slot][side], a->offset));
}

static void run_fallocate(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    static const int modes[] = {0,
                                FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    put_result(o, fallocate(r->slots[a->slot][side], modes[a->flags], a->offset, (off_t)a->bytes));
}

/* Not with O_DIRECT: copying between such descriptors wants aligned offsets in a plain directory,
 * and the mount's requests do not say how the file was opened. */
static void run_copy(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    off_t from = a->offset, to = a->offset2;
    int in = r->slots[a->slot][side], out = r->slots[a->slot2][side];
    int flags_in = fcntl(in, F_GETFL), flags_out = fcntl(out, F_GETFL);
    put_result(o, 0);
    if (flags_in >= 0 && flags_out >= 0 && ((flags_in | flags_out) & O_DIRECT))
        return;
    put_result(o, copy_file_range(in, a->flags & 1 ? &from : NULL, out, a->flags & 2 ? &to : NULL,
                                  a->bytes * 4, 0));
}

static void run_fsync(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd = r->slots[a->slot][side];
    put_result(o, a->flags & 1 ? fsync(fd) : fdatasync(fd));
}

/* The bytes of a slot's file that may be touched through a mapping, from the offset on. */
static size_t mappable(int fd, off_t offset, size_t bytes) {
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= offset)
        return 0;
    off_t rest = st.st_size - offset;
    return (off_t)bytes < rest ? bytes : (size_t)rest;
}

static void run_mmap(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int fd = r->slots[a->slot][side];
    off_t start = a->offset & ~(off_t)4095;
    size_t bytes = mappable(fd, start, a->bytes);
    int protection = a->flags < 4 ? PROT_READ | PROT_WRITE : PROT_READ;
    void *p = mmap(NULL, bytes ? bytes : 4096, protection, a->flags & 1 ? MAP_PRIVATE : MAP_SHARED,
                   fd, start);
    put_result(o, p == MAP_FAILED ? -1 : (long)bytes);
    if (p == MAP_FAILED)
        return;
    memcpy(r->buffer[side], p, bytes);
    o->bytes = bytes;
    if (protection & PROT_WRITE)
        memcpy(p, r->data, bytes);
    (void)munmap(p, bytes ? bytes : 4096); /* our own range: cannot fail */
}

static void run_map_keep(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    struct rt_map *map = &r->maps[a->map];
    if (map->address[side] != NULL) {
        (void)munmap(map->address[side], RT_BUFFER_BYTES);
        (void)close(map->fd[side]);
        map->address[side] = NULL;
    }
    int fd = fcntl(r->slots[a->slot][side], F_DUPFD_CLOEXEC, 3);
    put_result(o, fd);
    if (fd < 0)
        return;
    void *p = mmap(NULL, RT_BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    put_result(o, p == MAP_FAILED ? -1 : 0);
    if (p == MAP_FAILED) {
        (void)close(fd);
        return;
    }
    map->address[side] = p;
    map->fd[side] = fd;
}

/* msync makes the next store fault again, so that it moves the mtime at a known moment. */
static void run_map_use(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    struct rt_map *map = &r->maps[a->map];
    put_result(o, 0);
    if (map->address[side] == NULL)
        return;
    off_t offset = a->offset % (RT_BUFFER_BYTES / 2);
    size_t bytes = mappable(map->fd[side], offset, a->bytes);
    memcpy(r->buffer[side], (char *)map->address[side] + offset, bytes);
    o->bytes = bytes;
    if (a->flags == 0 && bytes > 0) {
        memcpy((char *)map->address[side] + offset, r->data, bytes);
        put_result(o, msync(map->address[side], RT_BUFFER_BYTES, MS_SYNC));
    }
}

static void run_stat(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    struct stat st;
    put_result(
        o, fstatat(base_fd(r, side, a->base), a->path, &st,
                   (a->flags & 1 ? AT_SYMLINK_NOFOLLOW : 0) | (a->flags & 2 ? AT_EMPTY_PATH : 0)));
    if (o->ret == 0)
        print_stat(r, side, &st, o);
}

static void run_fstat(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    struct stat st;
    put_result(o, fstat(r->slots[a->slot][side], &st));
    if (o->ret == 0)
        print_stat(r, side, &st, o);
}

static void run_statx(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    struct statx sx;
    put_result(o, statx(base_fd(r, side, a->base), a->path,
                        AT_SYMLINK_NOFOLLOW | (a->flags & 1 ? AT_STATX_FORCE_SYNC : 0),
                        STATX_BASIC_STATS | STATX_BTIME, &sx));
    if (o->ret == 0)
        o->bytes = (size_t)snprintf(
            r->buffer[side], RT_BUFFER_BYTES, "mode %o nlink %u size %lld btime %d", sx.stx_mode,
            sx.stx_nlink, S_ISDIR(sx.stx_mode) ? 0LL : (long long)sx.stx_size,
            (sx.stx_mask & STATX_BTIME) != 0);
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void run_readdir(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    char *names[4096];
    size_t n = 0;
    int fd = openat(base_fd(r, side, a->base), a->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    put_result(o, dir == NULL ? -1 : 0);
    if (dir == NULL)
        return;
    struct dirent *entry;
    errno = 0;
    while (n < 4096 && (entry = readdir(dir)) != NULL) {
        if (asprintf(&names[n], "%s %d\n", entry->d_name, entry->d_type) < 0)
            break;
        n++;
        errno = 0;
    }
    if (errno != 0)
        put_result(o, -1);
    (void)closedir(dir);
    qsort(names, n, sizeof(names[0]), compare_strings);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = strlen(names[i]);
        if (o->bytes + bytes < RT_BUFFER_BYTES) {
            memcpy(r->buffer[side] + o->bytes, names[i], bytes);
            o->bytes += bytes;
        }
        free(names[i]);
    }
}

static void run_readlink(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, readlinkat(base_fd(r, side, a->base), a->path, r->buffer[side], 4096));
    o->bytes = o->ret > 0 ? (size_t)o->ret : 0;
}

static void run_rename(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, renameat2(base_fd(r, side, a->base), a->path, base_fd(r, side, a->base2),
                            a->path2, (unsigned)a->flags));
}

static void run_link(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, linkat(base_fd(r, side, a->base), a->path, base_fd(r, side, a->base2), a->path2,
                         a->flags & 1 ? AT_SYMLINK_FOLLOW : 0));
}

static void run_link_slot(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    char path[64];
    int fd = r->slots[a->slot][side];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (a->flags & 1)
        put_result(o,
                   linkat(AT_FDCWD, path, base_fd(r, side, a->base), a->path, AT_SYMLINK_FOLLOW));
    else
        put_result(o, linkat(fd, "", base_fd(r, side, a->base), a->path, AT_EMPTY_PATH));
}

static void run_unlink(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, unlinkat(base_fd(r, side, a->base), a->path, 0));
}

static void run_rmdir(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, unlinkat(base_fd(r, side, a->base), a->path, AT_REMOVEDIR));
}

static void run_mkdir(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, mkdirat(base_fd(r, side, a->base), a->path, a->mode));
}

static void run_mkfifo(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, mknodat(base_fd(r, side, a->base), a->path, S_IFIFO | a->mode, 0));
}

static void run_symlink(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, symlinkat(a->path2, base_fd(r, side, a->base), a->path));
}

/* Group inheritance and the sticky bit are for directories: see the head of this file. */
static mode_t mode_for(int base, const char *path, mode_t mode) {
    struct stat st;
    if (fstatat(base, path, &st, AT_EMPTY_PATH) == 0 && S_ISDIR(st.st_mode) && mode % 5 == 0)
        mode |= mode % 2 ? S_ISGID : S_ISVTX;
    return mode;
}

static void run_chmod(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    int base = base_fd(r, side, a->base);
    put_result(o,
               fchmodat(base, a->path, r->chaos ? a->mode : mode_for(base, a->path, a->mode), 0));
}

static void run_fchmod(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, fchmod(r->slots[a->slot][side], a->mode));
}

static void run_chown(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o,
               fchownat(base_fd(r, side, a->base), a->path, a->uid, a->gid, AT_SYMLINK_NOFOLLOW));
}

static void run_fchown(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, fchown(r->slots[a->slot][side], a->uid, a->gid));
}

static void run_utimens(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, utimensat(base_fd(r, side, a->base), a->path, a->times, a->flags));
}

static void run_futimens(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, futimens(r->slots[a->slot][side], a->times));
}

static void xattr_path(const struct rt_runner *r, int side, const struct args *a, char *path,
                       size_t bytes) {
    snprintf(path, bytes, "/proc/self/fd/%d/%s", base_fd(r, side, a->base), a->path);
}

static void run_setxattr(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    char path[RT_PATH_BYTES + 64];
    xattr_path(r, side, a, path, sizeof(path));
    put_result(o, lsetxattr(path, a->name, r->data, a->bytes, a->flags));
}

static void run_fsetxattr(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    put_result(o, fsetxattr(r->slots[a->slot][side], a->name, r->data, a->bytes, a->flags));
}

static void run_removexattr(struct rt_runner *r, int side, const struct args *a,
                            struct outcome *o) {
    char path[RT_PATH_BYTES + 64];
    xattr_path(r, side, a, path, sizeof(path));
    put_result(o, lremovexattr(path, a->name));
}

static void run_getxattr(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    char path[RT_PATH_BYTES + 64];
    xattr_path(r, side, a, path, sizeof(path));
    put_result(o, lgetxattr(path, a->name, r->buffer[side], a->flags ? 64 : 4096));
    o->bytes = o->ret > 0 ? (size_t)o->ret : 0;
}

static void run_listxattr(struct rt_runner *r, int side, const struct args *a, struct outcome *o) {
    char list[4096], *names[256];
    size_t n = 0;
    put_result(o, flistxattr(r->slots[a->slot][side], list, sizeof(list)));
    for (char *p = list; o->ret > 0 && p < list + o->ret && n < 256; p += strlen(p) + 1)
        names[n++] = p;
    qsort(names, n, sizeof(names[0]), compare_strings);
    for (size_t i = 0; i < n; i++)
        o->bytes += (size_t)sprintf(r->buffer[side] + o->bytes, "%s\n", names[i]);
}

static const struct op ops[] = {
    {"open", 130, draw_open, run_open, false},
    {"opendir", 15, draw_opendir, run_open, false},
    {"tmpfile", 15, draw_tmpfile, run_open, false},
    {"reopen", 35, draw_slots, run_reopen, false},
    {"dup", 15, draw_slots, run_dup, false},
    {"close", 20, draw_slots, run_close, false},
    {"write", 60, draw_io, run_write, false},
    {"pwrite", 70, draw_io, run_pwrite, false},
    {"append", 30, draw_path_io, run_append, false},
    {"read", 50, draw_io, run_read, false},
    {"pread", 60, draw_io, run_pread, false},
    {"lseek", 25, draw_io, run_lseek, false},
    {"truncate", 20, draw_path_io, run_truncate, false},
    {"ftruncate", 25, draw_io, run_ftruncate, false},
    {"fallocate", 35, draw_io, run_fallocate, false},
    {"copy", 30, draw_io, run_copy, false},
    {"fsync", 2, draw_slots, run_fsync, false},
    {"mmap", 45, draw_io, run_mmap, true},
    {"map-keep", 6, draw_io, run_map_keep, true},
    {"map-use", 25, draw_io, run_map_use, true},
    {"stat", 60, draw_path_io, run_stat, false},
    {"fstat", 40, draw_io, run_fstat, false},
    {"statx", 20, draw_path_io, run_statx, false},
    {"readdir", 20, draw_at, run_readdir, false},
    {"readlink", 15, draw_at, run_readlink, false},
    {"rename", 70, draw_two, run_rename, false},
    {"link", 40, draw_two, run_link, false},
    {"link-fd", 20, draw_slots, run_link_slot, false},
    {"unlink", 55, draw_at, run_unlink, false},
    {"mkdir", 55, draw_at, run_mkdir, false},
    {"rmdir", 30, draw_at, run_rmdir, false},
    {"mkfifo", 6, draw_at, run_mkfifo, true},
    {"symlink", 25, draw_two, run_symlink, false},
    {"chmod", 25, draw_at, run_chmod, false},
    {"fchmod", 15, draw_io, run_fchmod, false},
    {"chown", 15, draw_chown, run_chown, false},
    {"fchown", 10, draw_chown, run_fchown, false},
    {"utimens", 30, draw_utimens, run_utimens, false},
    {"futimens", 20, draw_io, run_futimens, false},
    {"setxattr", 25, draw_xattr, run_setxattr, false},
    {"fsetxattr", 20, draw_xattr, run_fsetxattr, false},
    {"removexattr", 15, draw_xattr, run_removexattr, false},
    {"getxattr", 20, draw_xattr, run_getxattr, false},
    {"listxattr", 10, draw_io, run_listxattr, false},
};

/* ---- the loop ---- */

void stg_rt_fail(struct rt_runner *r, const char *format, ...) {
    char *line = NULL, *all = NULL;
    va_list list;
    r->failed = true;
    va_start(list, format);
    if (vasprintf(&line, format, list) < 0)
        line = NULL;
    va_end(list);
    if (line != NULL && asprintf(&all, "%s%s\n", r->report ? r->report : "", line) >= 0) {
        free(r->report);
        r->report = all;
    }
    free(line);
}

static const struct op *draw_op(struct rt_runner *r) {
    unsigned total = 0;
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        total += ops[i].weight;
    for (;;) {
        unsigned at = (unsigned)below(r, total);
        const struct op *op = ops;
        while (at >= op->weight)
            at -= (op++)->weight;
        if (!r->chaos || !op->not_in_chaos)
            return op;
    }
}

static void describe(char *line, unsigned long step, const struct op *op, const struct args *a,
                     const struct outcome *o) {
    snprintf(line, RT_TRACE_BYTES,
             "%lu %s [%d]%.80s [%d]%.80s slots %d %d map %u flags 0x%x mode %o at %lld %lld bytes "
             "%zu %s = %ld %s",
             step, op->name, a->base, a->path, a->base2, a->path2, a->slot, a->slot2, a->map,
             (unsigned)a->flags, a->mode, (long long)a->offset, (long long)a->offset2, a->bytes,
             a->name, o->ret, o->ret < 0 ? strerrorname_np(o->err) : "");
}

static void report_difference(struct rt_runner *r, unsigned long step, const struct outcome *o) {
    const struct outcome *m = &o[RT_MOUNT], *p = &o[RT_PLAIN];
    stg_rt_fail(r, "thread %u differs at step %lu; the last steps, with the plain side's results:",
                r->id, step);
    for (unsigned long i = step >= RT_TRACE ? step - RT_TRACE + 1 : 0; i <= step; i++)
        stg_rt_fail(r, "  %s", r->trace[i % RT_TRACE]);
    stg_rt_fail(r, "mount: %ld %s, %zu bytes; plain: %ld %s, %zu bytes", m->ret,
                m->ret < 0 ? strerrorname_np(m->err) : "", m->bytes, p->ret,
                p->ret < 0 ? strerrorname_np(p->err) : "", p->bytes);
    size_t i = 0, least = m->bytes < p->bytes ? m->bytes : p->bytes;
    while (i < least && r->buffer[RT_MOUNT][i] == r->buffer[RT_PLAIN][i])
        i++;
    bool text = true;
    for (size_t k = 0; k < least && k < 500; k++)
        text = text && (r->buffer[RT_PLAIN][k] == '\n' ||
                        (r->buffer[RT_PLAIN][k] >= ' ' && r->buffer[RT_PLAIN][k] < 127));
    if (text)
        stg_rt_fail(r, "mount: %.*s\nplain: %.*s", (int)(m->bytes < 2000 ? m->bytes : 2000),
                    r->buffer[RT_MOUNT], (int)(p->bytes < 2000 ? p->bytes : 2000),
                    r->buffer[RT_PLAIN]);
    else
        stg_rt_fail(r, "the first different byte is %zu", i);
}

/* Errors that no race between well-behaved processes gives. */
static bool is_alarming(int err) {
    return err == EIO || err == ENOTCONN || err == ESTALE || err == ENOSYS || err == ECONNABORTED ||
           err == EPROTO || err == EMFILE || err == ENFILE || err == ENOMEM || err == EFAULT ||
           err == EINTR;
}

static void step_once(struct rt_runner *r, unsigned long step) {
    struct args a = {.base = -1, .base2 = -1};
    struct outcome o[RT_SIDES] = {{0}};
    const struct op *op = draw_op(r);
    op->draw(r, &a);
    stg_rt_fill(r->data, a.bytes < RT_BUFFER_BYTES ? a.bytes : RT_BUFFER_BYTES, a.fill);
    int first = r->chaos ? RT_MOUNT : (int)below(r, 2);
    op->run(r, first, &a, &o[first]);
    if (!r->chaos)
        op->run(r, !first, &a, &o[!first]);
    const struct outcome *right = &o[r->chaos ? RT_MOUNT : RT_PLAIN];
    describe(r->trace[step % RT_TRACE], step, op, &a, right);
    if (r->trace_all)
        printf("# %s\n", r->trace[step % RT_TRACE]);
    if (right->ret >= 0)
        r->succeeded++;
    if (r->chaos) {
        if (right->ret < 0 && is_alarming(right->err))
            stg_rt_fail(r, "thread %u: %s", r->id, r->trace[step % RT_TRACE]);
    } else if (o[0].ret != o[1].ret || o[0].err != o[1].err || o[0].bytes != o[1].bytes ||
               memcmp(r->buffer[0], r->buffer[1], o[0].bytes) != 0) {
        report_difference(r, step, o);
        return;
    }
    if (right->ret >= 0 && (op->run == run_mkdir || op->run == run_open || op->run == run_symlink ||
                            op->run == run_link_slot || op->run == run_mkfifo))
        remember(r, a.base, a.path);
    if (right->ret >= 0 && (op->run == run_rename || op->run == run_link))
        remember(r, a.base2, a.path2);
}

/* Slow, for finding the step after which the trees differ. */
static void check_trees(struct rt_runner *r, unsigned long step) {
    static const struct rt_compare how = {0};
    unsigned long objects;
    if (stg_rt_compare_trees("trees", r->top[RT_MOUNT], r->top[RT_PLAIN], &how, &objects) != 0)
        stg_rt_fail(r, "thread %u: the trees differ after: %s", r->id, r->trace[step % RT_TRACE]);
}

void stg_rt_run(struct rt_runner *r) {
    for (int i = 0; i < RT_SLOTS; i++)
        r->slots[i][RT_MOUNT] = r->slots[i][RT_PLAIN] = -1;
    for (unsigned long step = 0; step < r->steps && !r->failed; step++) {
        step_once(r, step);
        r->done++;
        if (r->check_all && !r->failed)
            check_trees(r, step);
    }
    for (int side = 0; side < RT_SIDES; side++) {
        for (int i = 0; i < RT_SLOTS; i++)
            if (r->slots[i][side] >= 0)
                (void)close(r->slots[i][side]);
        for (int i = 0; i < RT_MAPS; i++)
            if (r->maps[i].address[side] != NULL) {
                (void)munmap(r->maps[i].address[side], RT_BUFFER_BYTES);
                (void)close(r->maps[i].fd[side]);
            }
    }
}
