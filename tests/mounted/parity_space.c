/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: holes, preallocation, and what truncation leaves behind. */
#include "parity.h"

#include <linux/falloc.h>
#include <sys/mman.h>

enum { K = 1024, BLOCK = 64 * K };

static void seek_map(struct pt *t, int fd) {
    off_t end = lseek(fd, 0, SEEK_END);
    SAY("end %lld", (long long)end);
    for (off_t at = 0; at < end;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0) {
            pt_outcome(t, "SEEK_DATA", -1);
            break;
        }
        off_t hole = lseek(fd, data, SEEK_HOLE);
        SAY("data %lld to %lld", (long long)data, (long long)hole);
        if (hole <= data)
            break;
        at = hole;
    }
}

static void holes(struct pt *t) {
    char block[BLOCK];
    pt_pattern(block, BLOCK, 1);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    T(lseek(fd, 0, SEEK_DATA));
    T(lseek(fd, 0, SEEK_HOLE));
    T(pwrite(fd, block, BLOCK, BLOCK));
    T(pwrite(fd, block, BLOCK, 5 * BLOCK));
    T(ftruncate(fd, 10 * BLOCK));
    T(fsync(fd));
    seek_map(t, fd);
    T(lseek(fd, BLOCK + 5, SEEK_DATA));
    T(lseek(fd, BLOCK + 5, SEEK_HOLE));
    T(lseek(fd, 10 * BLOCK, SEEK_DATA));
    T(lseek(fd, 10 * BLOCK, SEEK_HOLE));
    T(lseek(fd, 8 * BLOCK, SEEK_DATA));
    T(lseek(fd, -1, SEEK_DATA));
    T(lseek(fd, 3 * BLOCK, SEEK_DATA));
    T(lseek(fd, 0, SEEK_CUR));
    close(fd);
}

static void holes_readonly(struct pt *t) {
    char block[BLOCK];
    pt_pattern(block, BLOCK, 1);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    T(pwrite(fd, block, BLOCK, 3 * BLOCK));
    T(fsync(fd));
    close(fd);
    fd = OK(open("f", O_RDONLY));
    seek_map(t, fd);
    T(unlink("f"));
    seek_map(t, fd);
    close(fd);
    pt_mkdir(t, "d", 0755);
    fd = OK(open("d", O_RDONLY));
    T(lseek(fd, 0, SEEK_DATA) == -1);
    close(fd);
}

struct mode_row {
    int mode;
    off_t at, count;
};

/* One fallocate on a file of four blocks; everything that can show is shown. */
static void allocate(struct pt *t) {
    const struct mode_row *row = t->arg;
    struct stat st;
    pt_fill(t, "f", 4 * BLOCK, 2);
    int fd = OK(open("f", O_RDWR)), watch = OK(open("f", O_RDONLY));
    pt_lookfd(t, "before", watch);
    T(fsync(fd));
    pt_age(t, "f");
    struct pt_stamp before = pt_stampfd(fd);
    pt_tick();
    T(fallocate(fd, row->mode, row->at, row->count));
    pt_movedfd(t, "times", fd, &before);
    T(fsync(fd));
    T(fstat(fd, &st));
    T(st.st_size);
    T(st.st_blocks);
    pt_lookfd(t, "other descriptor", watch);
    seek_map(t, watch);
    T(pwrite(fd, "x", 1, row->at));
    pt_lookfd(t, "after a write", watch);
    close(fd), close(watch);
    pt_look(t, "f");
}

#define ALLOCATE(text, mode, at, count)                                                            \
    {                                                                                              \
        "fallocate: " text, allocate, 0, &(const struct mode_row) { mode, at, count }              \
    }

static void allocate_errors(struct pt *t) {
    pt_make(t, "f", "x");
    pt_mkdir(t, "d", 0755);
    T(mkfifo("p", 0600));
    int rw = OK(open("f", O_RDWR)), ro = OK(open("f", O_RDONLY)), dir = OK(open("d", O_RDONLY));
    int fifo = OK(open("p", O_RDWR));
    T(fallocate(rw, 0, 0, 0));
    T(fallocate(rw, 0, -1, 10));
    T(fallocate(rw, 0, 0, -1));
    T(fallocate(ro, 0, 0, 10));
    T(fallocate(dir, 0, 0, 10));
    T(fallocate(fifo, 0, 0, 10));
    T(fallocate(rw, FALLOC_FL_PUNCH_HOLE, 0, 10));
    T(fallocate(rw, 0x4000, 0, 10));
    T(fallocate(rw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 10));
    T(fallocate(rw, 0, INT64_MAX - 5, 10));
    T(fallocate(rw, 0, 1LL << 60, 10));
    T(posix_fallocate(rw, 0, 5000));
    T(posix_fallocate(rw, 0, 0));
    pt_show(t, "f");
    close(rw), close(ro), close(dir), close(fifo);
}

static void allocate_unlinked(struct pt *t) {
    pt_make(t, "f", "text");
    int fd = OK(open("f", O_RDWR));
    T(unlink("f"));
    T(fallocate(fd, 0, 0, BLOCK));
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 2));
    pt_showfd(t, "f", fd);
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void allocate_append(struct pt *t) {
    pt_make(t, "f", "text");
    int fd = OK(open("f", O_WRONLY | O_APPEND));
    T(fallocate(fd, 0, 0, 100));
    T(write(fd, "end", 3));
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1000));
    T(write(fd, "end", 3));
    close(fd);
    pt_look(t, "f");
    pt_show(t, "f");
}

static void punched_mapping(struct pt *t) {
    pt_fill(t, "f", 4 * BLOCK, 7);
    int fd = OK(open("f", O_RDWR));
    unsigned char *map = mmap(NULL, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(map == MAP_FAILED ? -1 : 0);
    if (map == MAP_FAILED)
        return;
    pt_bytes(t, "mapped", map + BLOCK - 8, 16);
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK));
    pt_bytes(t, "punched", map + BLOCK - 8, 16);
    T(fallocate(fd, FALLOC_FL_ZERO_RANGE, 3 * BLOCK, 100));
    pt_bytes(t, "zeroed", map + 3 * BLOCK - 8, 16);
    map[BLOCK] = 'm';
    T(msync(map, 4 * BLOCK, MS_SYNC));
    pt_lookfd(t, "f", fd);
    T(munmap(map, 4 * BLOCK));
    close(fd);
}

static void tail_is_zero(struct pt *t) {
    pt_fill(t, "f", 10000, 3);
    int fd = OK(open("f", O_RDWR));
    T(ftruncate(fd, 5000));
    T(ftruncate(fd, 10000));
    pt_lookfd(t, "cut and grown", fd);
    T(truncate("f", 1));
    T(pwrite(fd, "z", 1, 9000));
    pt_lookfd(t, "cut and written behind", fd);
    close(fd);
}

static void truncate_names(struct pt *t) {
    pt_make(t, "f", "0123456789");
    pt_mkdir(t, "d", 0755);
    T(symlink("f", "l"));
    T(symlink("none", "dangling"));
    T(mkfifo("p", 0600));
    T(truncate("f", 5));
    T(truncate("l", 3));
    T(truncate("d", 0));
    T(truncate("dangling", 0));
    T(truncate("p", 0));
    T(truncate("none", 0));
    T(truncate("f/x", 0));
    T(truncate("f", 0));
    T(truncate("f", 4097));
    pt_look(t, "f");
    T(chmod("f", 0400));
    T(truncate("f", 1));
    pt_show(t, "f");
}

static void truncate_open(struct pt *t) {
    struct stat st;
    pt_fill(t, "f", 50000, 3);
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR | O_APPEND));
    static const off_t sizes[] = {100, 60000, 0, 4096, 1};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        T(i % 2 ? ftruncate(a, sizes[i]) : truncate("f", sizes[i]));
        T(fstat(b, &st));
        T(st.st_size);
        T(lseek(b, 0, SEEK_END));
        T(write(b, "!", 1));
        pt_lookfd(t, "a", a);
    }
    close(a), close(b);
}

static void large_allocation(struct pt *t) {
    struct stat st;
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    T(fallocate(fd, 0, 6LL << 30, 1 << 20));
    pt_showfd(t, "f", fd);
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 6LL << 30));
    T(fstat(fd, &st));
    T(st.st_blocks);
    close(fd);
}

#define KEEP FALLOC_FL_KEEP_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO FALLOC_FL_ZERO_RANGE

const struct pt_case pt_space_cases[] = {
    {"SEEK_DATA and SEEK_HOLE", holes, 0, 0},
    {"SEEK_DATA on read-only and unlinked files", holes_readonly, 0, 0},
    ALLOCATE("inside", 0, BLOCK, BLOCK),
    ALLOCATE("beyond the end", 0, 3 * BLOCK, 3 * BLOCK),
    ALLOCATE("far beyond the end", 0, 10 * BLOCK, BLOCK),
    ALLOCATE("odd offsets", 0, 1000, 400000),
    ALLOCATE("keep size inside", KEEP, BLOCK, BLOCK),
    ALLOCATE("keep size beyond the end", KEEP, 4 * BLOCK, 4 * BLOCK),
    ALLOCATE("punch a block", PUNCH, BLOCK, BLOCK),
    ALLOCATE("punch unaligned", PUNCH, BLOCK + 10, BLOCK),
    ALLOCATE("punch within a page", PUNCH, 100, 50),
    ALLOCATE("punch everything", PUNCH, 0, 100 * BLOCK),
    ALLOCATE("punch beyond the end", PUNCH, 8 * BLOCK, BLOCK),
    ALLOCATE("zero a block", ZERO, BLOCK, BLOCK),
    ALLOCATE("zero unaligned", ZERO, 777, 5000),
    ALLOCATE("zero beyond the end", ZERO, 3 * BLOCK, 3 * BLOCK),
    ALLOCATE("zero, keep size, beyond the end", ZERO | KEEP, 3 * BLOCK, 3 * BLOCK),
    {"fallocate refused", allocate_errors, 0, 0},
    {"fallocate of an unlinked file", allocate_unlinked, 0, 0},
    {"fallocate through an appending descriptor", allocate_append, 0, 0},
    {"punch and zero under a mapping", punched_mapping, 0, 0},
    {"what was cut off comes back as zeros", tail_is_zero, 0, 0},
    {"truncate by name", truncate_names, 0, 0},
    {"truncate beside open descriptors", truncate_open, 0, 0},
    {"preallocation beyond 4 GiB", large_allocation, 0, 0},
    {NULL, NULL, 0, NULL},
};
