/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: read and write in all their forms, offsets, appending, sizes, limits, signals. */
#include "parity.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static void rounds(struct pt *t) {
    static const size_t sizes[] = {1, 511, 4095, 4096, 4097, 65536, 131073, 1048577};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        pt_fill(t, "f", sizes[i], (unsigned)i);
        pt_look(t, "f");
        pt_show(t, "f");
    }
}

static void offsets(struct pt *t) {
    char buffer[32];
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    pt_bytes(t, "read", buffer, read(fd, buffer, 4));
    pt_bytes(t, "pread", buffer, pread(fd, buffer, 4, 8));
    T(pread(fd, buffer, 4, 10));
    T(pread(fd, buffer, 4, 1000000));
    T(pread(fd, buffer, 4, -1));
    T(pwrite(fd, "x", 1, -1));
    T(lseek(fd, 0, SEEK_CUR));
    T(write(fd, "WW", 2));
    T(pwrite(fd, "PP", 2, 8));
    T(lseek(fd, 0, SEEK_CUR));
    T(lseek(fd, -100, SEEK_CUR));
    T(lseek(fd, -1, SEEK_SET));
    T(lseek(fd, 5, SEEK_END));
    T(read(fd, buffer, 4));
    T(write(fd, "E", 1));
    T(lseek(fd, 0, 77));
    T(read(fd, buffer, 0));
    T(write(fd, "", 0));
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void bad_buffers(struct pt *t) {
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    T(syscall(SYS_read, fd, (void *)8, 4));
    T(syscall(SYS_write, fd, (void *)8, 4));
    T(syscall(SYS_pread64, fd, (void *)8, 4, 0));
    T(syscall(SYS_read, fd, (void *)8, 0));
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void vectors(struct pt *t) {
    char a[5] = {0}, b[7] = {0}, c[20] = {0};
    struct iovec in[3] = {{a, 5}, {b, 7}, {c, 20}};
    pt_make(t, "f", "");
    int fd = OK(open("f", O_RDWR));
    struct iovec out[4] = {{"one ", 4}, {"", 0}, {"two ", 4}, {"three", 5}};
    T(writev(fd, out, 4));
    T(pwritev(fd, out, 4, 20));
    T(lseek(fd, 0, SEEK_SET));
    T(readv(fd, in, 3));
    pt_bytes(t, "a", a, 5);
    pt_bytes(t, "b", b, 7);
    pt_bytes(t, "c", c, 20);
    T(preadv(fd, in, 2, 22));
    pt_bytes(t, "a", a, 5);
    T(readv(fd, in, 0));
    T(syscall(SYS_readv, fd, in, -1));
    T(syscall(SYS_readv, fd, in, 2000));
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void vector_flags(struct pt *t) {
    char a[8];
    struct iovec out = {"data", 4}, in = {a, 8};
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    T(pwritev2(fd, &out, 1, 0, RWF_APPEND));
    T(pwritev2(fd, &out, 1, -1, RWF_APPEND));
    T(lseek(fd, 0, SEEK_CUR));
    T(pwritev2(fd, &out, 1, 2, RWF_SYNC));
    T(pwritev2(fd, &out, 1, -1, RWF_DSYNC));
    T(lseek(fd, 0, SEEK_CUR));
    T(preadv2(fd, &in, 1, 3, RWF_HIPRI));
    T(preadv2(fd, &in, 1, -1, 0));
    T(preadv2(fd, &in, 1, 0, 0x40000000));
    T(pwritev2(fd, &out, 1, 0, 0x40000000));
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void append(struct pt *t) {
    pt_make(t, "f", "start.");
    int fd = OK(open("f", O_RDWR | O_APPEND));
    T(lseek(fd, 0, SEEK_CUR));
    T(write(fd, "one.", 4));
    T(lseek(fd, 0, SEEK_CUR));
    T(lseek(fd, 0, SEEK_SET));
    T(write(fd, "two.", 4));
    T(pwrite(fd, "three.", 6, 0));
    T(lseek(fd, 0, SEEK_CUR));
    T(ftruncate(fd, 3));
    T(write(fd, "four.", 5));
    T(ftruncate(fd, 30));
    T(write(fd, "five.", 5));
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void append_two(struct pt *t) {
    pt_make(t, "f", "");
    int a = OK(open("f", O_WRONLY | O_APPEND)), b = OK(open("f", O_WRONLY | O_APPEND));
    for (int i = 0; i < 50; i++)
        if (write(i % 2 ? a : b, i % 2 ? "a-line\n" : "b\n", i % 2 ? 7 : 2) < 0)
            pt_outcome(t, "write", -1);
    close(a), close(b);
    pt_look(t, "f");
}

enum { LINES = 400, LINE = 16, WRITERS = 3 };

/* Whole lines, none lost and none torn: counts by writer. */
static void count_lines(struct pt *t) {
    int fd = OK(open("f", O_RDONLY)), counts[WRITERS] = {0}, torn = 0;
    char line[LINE];
    while (read(fd, line, LINE) == LINE) {
        int who = line[0] - 'A';
        bool whole = who >= 0 && who < WRITERS && line[LINE - 1] == '\n';
        for (int i = 1; whole && i < LINE - 1; i++)
            whole = line[i] == line[0];
        if (whole)
            counts[who]++;
        else
            torn++;
    }
    close(fd);
    for (int i = 0; i < WRITERS; i++)
        SAY("writer %d: %d lines", i, counts[i]);
    SAY("torn: %d", torn);
    pt_show(t, "f");
}

static void write_lines(struct pt *t, int who) {
    char line[LINE];
    memset(line, 'A' + who, LINE);
    line[LINE - 1] = '\n';
    int fd = open("f", O_WRONLY | O_APPEND);
    for (int i = 0; i < LINES; i++)
        if (write(fd, line, LINE) != LINE)
            pt_outcome(t, "append", -1);
    close(fd);
}

static void append_processes(struct pt *t) {
    pid_t pids[WRITERS];
    pt_make(t, "f", "");
    for (int i = 0; i < WRITERS; i++)
        if ((pids[i] = pt_spawn(t)) == 0) {
            write_lines(t, i);
            pt_end();
        }
    for (int i = 0; i < WRITERS; i++)
        pt_reap(t, pids[i]);
    count_lines(t);
}

struct writer {
    struct pt *t;
    int who;
};

static void *writer_thread(void *arg) {
    struct writer *w = arg;
    write_lines(w->t, w->who);
    return NULL;
}

static void append_threads(struct pt *t) {
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    pt_make(t, "f", "");
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){t, i};
        if (pthread_create(&threads[i], NULL, writer_thread, &writers[i]) != 0)
            SAY("no thread");
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    count_lines(t);
}

/* Threads write disjoint stripes of one file through one descriptor. */
struct stripes {
    int fd, who;
};

static void *stripe_thread(void *arg) {
    struct stripes *s = arg;
    char block[3000];
    memset(block, 'a' + s->who, sizeof(block));
    for (int i = 0; i < 40; i++)
        if (pwrite(s->fd, block, sizeof(block), (off_t)(i * 4 + s->who) * 3000) != sizeof(block))
            return (void *)1;
    return NULL;
}

static void striped(struct pt *t) {
    pthread_t threads[4];
    struct stripes work[4];
    pt_make(t, "f", "");
    int fd = OK(open("f", O_RDWR));
    for (int i = 0; i < 4; i++) {
        work[i] = (struct stripes){fd, i};
        pthread_create(&threads[i], NULL, stripe_thread, &work[i]);
    }
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(threads[i], &bad);
        SAY("thread %d %s", i, bad ? "failed" : "done");
    }
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void large(struct pt *t) {
    char buffer[16];
    const off_t five_g = 5LL << 30;
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    T(pwrite(fd, "far away", 8, five_g));
    pt_showfd(t, "f", fd);
    pt_bytes(t, "there", buffer, pread(fd, buffer, 16, five_g));
    pt_bytes(t, "before", buffer, pread(fd, buffer, 16, five_g - 10));
    T(lseek(fd, five_g - 4, SEEK_SET));
    T(write(fd, "abcd1234", 8));
    T(lseek(fd, 0, SEEK_CUR));
    pt_bytes(t, "both", buffer, pread(fd, buffer, 16, five_g - 8));
    T(ftruncate(fd, (1LL << 32) + 1));
    pt_showfd(t, "f", fd);
    T(ftruncate(fd, (1LL << 40)));
    T(lseek(fd, -5, SEEK_END));
    T(read(fd, buffer, 16));
    pt_showfd(t, "f", fd);
    struct stat st;
    T(fstat(fd, &st));
    T(st.st_blocks < 1000);
    close(fd);
}

static void too_big(struct pt *t) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    T(ftruncate(fd, -1));
    T(truncate("f", -1));
    T(ftruncate(fd, INT64_MAX));
    T(truncate("f", INT64_MAX));
    T(pwrite(fd, "x", 1, INT64_MAX - 1));
    T(pwrite(fd, "x", 1, INT64_MAX));
    T(pwrite(fd, "xy", 2, (16LL << 40) - 4096));
    T(pwrite(fd, "xy", 2, 1LL << 50));
    pt_showfd(t, "f", fd);
    close(fd);
}

static void size_limit(struct pt *t) {
    char block[4096] = {0};
    signal(SIGXFSZ, SIG_IGN);
    T(setrlimit(RLIMIT_FSIZE, &(struct rlimit){10000, 10000}));
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    for (int i = 0; i < 4; i++)
        T(write(fd, block, 4096));
    T(pwrite(fd, "x", 1, 20000));
    T(ftruncate(fd, 10000));
    T(ftruncate(fd, 10001));
    T(truncate("f", 20000));
    T(fallocate(fd, 0, 0, 20000));
    pt_showfd(t, "f", fd);
    close(fd);
}

static void size_signal(struct pt *t) {
    char block[4096] = {0};
    CHILD() {
        T(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096}));
        int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
        T(write(fd, block, 4096));
        T(write(fd, block, 1));
        T(0);
    }
    pt_show(t, "f");
}

static void overwrite_times(struct pt *t) {
    pt_make(t, "f", "0123456789");
    pt_age(t, "f");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    int fd = OK(open("f", O_RDWR));
    pt_movedfd(t, "opened", fd, &before);
    T(pwrite(fd, "", 0, 0));
    pt_movedfd(t, "nothing written", fd, &before);
    T(pwrite(fd, "x", 1, 0));
    pt_movedfd(t, "written", fd, &before);
    pt_moved(t, "f", &before);
    before = pt_stampfd(fd);
    pt_tick();
    T(pwrite(fd, "x", 1, 100));
    pt_movedfd(t, "extended", fd, &before);
    before = pt_stampfd(fd);
    pt_tick();
    close(fd);
    pt_moved(t, "f", &before);
}

static void ftruncate_times(struct pt *t) {
    static const off_t sizes[] = {10, 5, 20, 20, 0, 0};
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        pt_age(t, "f");
        struct pt_stamp before = pt_stampfd(fd);
        pt_tick();
        T(ftruncate(fd, sizes[i]));
        pt_movedfd(t, "ftruncate", fd, &before);
        pt_age(t, "f");
        before = pt_stampfd(fd);
        pt_tick();
        T(truncate("f", sizes[i]));
        pt_movedfd(t, "truncate", fd, &before);
    }
    close(fd);
}

static void syncs(struct pt *t) {
    pt_fill(t, "f", 100000, 5);
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDWR)), dir = OK(open("d", O_RDONLY)), ro = OK(open("f", O_RDONLY));
    T(fsync(fd));
    T(fdatasync(fd));
    T(fsync(ro));
    T(fsync(dir));
    T(fdatasync(dir));
    T(pwrite(fd, "x", 1, 0));
    T(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    T(sync_file_range(fd, 0, 4096,
                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                          SYNC_FILE_RANGE_WAIT_AFTER));
    T(sync_file_range(fd, -1, 4096, SYNC_FILE_RANGE_WRITE));
    T(sync_file_range(fd, 0, 0, 64));
    T(syncfs(fd));
    T(syncfs(dir));
    T(unlink("f"));
    T(fsync(fd));
    T(fdatasync(fd));
    T(rmdir("d"));
    T(fsync(dir));
    T(fsync(-1));
    close(fd), close(dir), close(ro);
}

static void hints(struct pt *t) {
    pt_fill(t, "f", 100000, 5);
    int fd = OK(open("f", O_RDWR));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    T(posix_fadvise(fd, 0, -1, POSIX_FADV_NORMAL));
    T(posix_fadvise(fd, 0, 0, 77));
    T(readahead(fd, 0, 65536));
    pt_lookfd(t, "f", fd);
    close(fd);
    fd = OK(open("f", O_WRONLY));
    T(readahead(fd, 0, 65536));
    close(fd);
}

static void close_and_reuse(struct pt *t) {
    char text[16];
    for (int i = 0; i < 100; i++) {
        int fd = open("f", O_CREAT | O_RDWR | O_APPEND, 0644);
        int n = snprintf(text, sizeof(text), "%d,", i);
        if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd) < 0)
            pt_outcome(t, "round", -1);
    }
    pt_look(t, "f");
}

const struct pt_case pt_io_cases[] = {
    {"files of many sizes", rounds, 0, 0},
    {"offsets", offsets, 0, 0},
    {"buffers that are not there", bad_buffers, 0, 0},
    {"readv, writev, preadv, pwritev", vectors, 0, 0},
    {"preadv2 and pwritev2 flags", vector_flags, 0, 0},
    {"appending", append, 0, 0},
    {"two appending descriptors", append_two, 0, 0},
    {"three appending processes", append_processes, 0, 0},
    {"three appending threads", append_threads, 0, 0},
    {"four threads write stripes", striped, 0, 0},
    {"offsets beyond 4 GiB", large, 0, 0},
    {"sizes that no file can have", too_big, 0, 0},
    {"RLIMIT_FSIZE gives EFBIG", size_limit, 0, 0},
    {"RLIMIT_FSIZE sends SIGXFSZ", size_signal, 0, 0},
    {"writes move times", overwrite_times, 0, 0},
    {"truncations move times", ftruncate_times, 0, 0},
    {"fsync, fdatasync, sync_file_range, syncfs", syncs, 0, 0},
    {"fadvise and readahead", hints, 0, 0},
    {"a hundred rounds of open, append, close", close_and_reuse, 0, 0},
    {NULL, NULL, 0, NULL},
};
