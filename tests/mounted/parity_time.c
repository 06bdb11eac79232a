/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: setting times, who may, and when the filesystem moves them by itself. */
#include "parity.h"

#include <sys/time.h>
#include <utime.h>

static void say_times(struct pt *t, const char *name) {
    struct stat st;
    if (lstat(name, &st) < 0)
        pt_outcome(t, name, -1);
    else
        SAY("%s: atime %lld.%09ld mtime %lld.%09ld", name, (long long)st.st_atim.tv_sec,
            st.st_atim.tv_nsec, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void exact(struct pt *t) {
    static const struct timespec times[][2] = {
        {{1, 1}, {2, 999999999}},
        {{0, 0}, {0, 0}},
        {{1700000000, 123456789}, {1, 0}},
        {{-1, 0}, {-1000000, 5}},
        {{2147483647, 999}, {2147483648, 1}},
        {{4294967295, 7}, {4294967296, 8}},
        {{1, 1000000000}, {1, 1}},
        {{1, -5}, {1, 1}},
        {{1LL << 40, 1}, {-(1LL << 40), 1}},
    };
    pt_make(t, "f", "x");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDONLY));
    for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++) {
        T(utimensat(AT_FDCWD, "f", times[i], 0));
        say_times(t, "f");
        T(utimensat(AT_FDCWD, "d", times[i], 0));
        say_times(t, "d");
        T(futimens(fd, times[sizeof(times) / sizeof(*times) - 1 - i]));
        say_times(t, "f");
    }
    close(fd);
}

static void now_and_omit(struct pt *t) {
    static const long kinds[] = {5, UTIME_NOW, UTIME_OMIT};
    pt_make(t, "f", "x");
    for (int a = 0; a < 3; a++)
        for (int m = 0; m < 3; m++) {
            pt_age(t, "f");
            struct pt_stamp before = pt_stamp("f");
            pt_tick();
            SAY("atime %d mtime %d", a, m);
            T(utimensat(AT_FDCWD, "f",
                        (struct timespec[2]){{1111111111, kinds[a]}, {1222222222, kinds[m]}}, 0));
            pt_moved(t, "f", &before);
        }
    pt_age(t, "f");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    T(utimensat(AT_FDCWD, "f", NULL, 0));
    pt_moved(t, "f", &before);
    struct stat st;
    T(stat("f", &st));
    T(st.st_atim.tv_sec == st.st_mtim.tv_sec && st.st_atim.tv_nsec == st.st_mtim.tv_nsec);
}

static void of_links(struct pt *t) {
    const struct timespec when[2] = {{10, 11}, {12, 13}};
    pt_make(t, "f", "x");
    pt_age(t, "f");
    T(symlink("f", "l"));
    T(symlink("none", "dangling"));
    T(utimensat(AT_FDCWD, "l", when, AT_SYMLINK_NOFOLLOW));
    say_times(t, "l");
    say_times(t, "f");
    T(utimensat(AT_FDCWD, "l", when, 0));
    say_times(t, "f");
    T(utimensat(AT_FDCWD, "dangling", when, 0));
    T(utimensat(AT_FDCWD, "dangling", when, AT_SYMLINK_NOFOLLOW));
    say_times(t, "dangling");
    T(utimensat(AT_FDCWD, "none", when, 0));
    T(mkfifo("p", 0600));
    T(utimensat(AT_FDCWD, "p", when, 0));
    say_times(t, "p");
}

static void old_calls(struct pt *t) {
    pt_make(t, "f", "x");
    T(utimes("f", (struct timeval[2]){{100, 123456}, {200, 654321}}));
    say_times(t, "f");
    T(utime("f", &(struct utimbuf){300, 400}));
    say_times(t, "f");
    T(lutimes("f", (struct timeval[2]){{500, 1}, {600, 2}}));
    say_times(t, "f");
    T(utime("none", NULL));
}

static void unlinked(struct pt *t) {
    struct stat st;
    pt_make(t, "f", "x");
    int fd = OK(open("f", O_RDONLY));
    T(unlink("f"));
    T(futimens(fd, (struct timespec[2]){{10, 11}, {12, 13}}));
    T(fstat(fd, &st));
    T(st.st_atim.tv_nsec);
    T(st.st_mtim.tv_nsec);
    close(fd);
}

static void who_may(struct pt *t) {
    const struct timespec when[2] = {{10, 11}, {12, 13}};
    const struct timespec omit[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    const struct timespec mixed[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    static const mode_t modes[] = {0600, 0644, 0666};
    T(chmod(".", 0777));
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_make(t, "f", "x");
        T(chmod("f", modes[i]));
        AS(PT_U1, PT_U1, 0) {
            T(utimensat(AT_FDCWD, "f", when, 0));
            T(utimensat(AT_FDCWD, "f", NULL, 0));
            T(utimensat(AT_FDCWD, "f", omit, 0));
            T(utimensat(AT_FDCWD, "f", mixed, 0));
        }
        pt_own(t, "f", PT_U1, PT_U1, 0400);
        AS(PT_U1, PT_U1, 0) {
            T(utimensat(AT_FDCWD, "f", when, 0));
            T(utimensat(AT_FDCWD, "f", NULL, 0));
        }
        T(unlink("f"));
    }
}

static void after_read(struct pt *t) {
    /* relatime: atime moves when it is not after mtime, and not again. */
    char buffer[8];
    pt_make(t, "f", "content");
    static const struct timespec times[][2] = {{{1000, 1}, {2000, 1}}, {{2000, 1}, {1000, 1}}};
    for (int i = 0; i < 2; i++)
        for (int again = 0; again < 2; again++) {
            if (!again)
                T(utimensat(AT_FDCWD, "f", times[i], 0));
            struct pt_stamp before = pt_stamp("f");
            pt_tick();
            int fd = OK(open("f", O_RDONLY));
            pt_movedfd(t, "opened", fd, &before);
            T(read(fd, buffer, 7));
            pt_movedfd(t, "read", fd, &before);
            T(read(fd, buffer, 7));
            T(close(fd));
            pt_moved(t, "f", &before);
        }
}

static void after_recent_read(struct pt *t) {
    char buffer[8];
    pt_make(t, "f", "content");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct timespec times[2] = {now, {.tv_sec = now.tv_sec - 10}};
    times[0].tv_sec -= 5; /* after mtime and ctime lies later: relatime looks at both */
    T(utimensat(AT_FDCWD, "f", times, 0));
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    int fd = OK(open("f", O_RDONLY));
    for (int i = 0; i < 3; i++) {
        T(pread(fd, buffer, 7, 0));
        pt_movedfd(t, "read", fd, &before);
        before = pt_stampfd(fd);
        pt_tick();
    }
    close(fd);
}

static void empty_reads(struct pt *t) {
    char buffer[8];
    pt_make(t, "f", "");
    pt_age(t, "f");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    int fd = OK(open("f", O_RDONLY));
    T(read(fd, buffer, 0));
    pt_movedfd(t, "nothing asked", fd, &before);
    T(read(fd, buffer, 8));
    pt_movedfd(t, "end of file", fd, &before);
    close(fd);
}

static void readlink_atime(struct pt *t) {
    char buffer[8];
    struct stat st;
    T(symlink("f", "l"));
    pt_age(t, "l");
    struct pt_stamp before = pt_stamp("l");
    pt_tick();
    T(readlink("l", buffer, 8));
    pt_moved(t, "l", &before);
    before = pt_stamp("l");
    pt_tick();
    T(stat("l", &st));
    pt_moved(t, "l", &before);
}

static void creation(struct pt *t) {
    struct stat st;
    struct timespec before, after;
    static const char *const names[] = {"f", "d", "l", "p"};
    clock_gettime(CLOCK_REALTIME_COARSE, &before);
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    T(symlink("x", "l"));
    T(mkfifo("p", 0600));
    clock_gettime(CLOCK_REALTIME, &after);
    for (size_t i = 0; i < 4; i++) {
        T(lstat(names[i], &st));
        SAY("%s", names[i]);
        T(st.st_atim.tv_sec >= before.tv_sec && st.st_atim.tv_sec <= after.tv_sec);
        T(st.st_mtim.tv_sec >= before.tv_sec && st.st_mtim.tv_sec <= after.tv_sec);
        T(st.st_atim.tv_sec == st.st_mtim.tv_sec && st.st_atim.tv_nsec == st.st_mtim.tv_nsec);
    }
}

static void xattr_ctime(struct pt *t) {
    pt_make(t, "f", "x");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    T(chmod("f", 0640));
    pt_moved(t, "f", &before);
    before = pt_stamp("f");
    pt_tick();
    T(rename("f", "g"));
    pt_moved(t, "g", &before);
}

static void kept_after_close(struct pt *t) {
    /* cp -p and tar: write, set the times, close: the times stay. */
    const struct timespec when[2] = {{1000000, 5}, {2000000, 7}};
    int fd = OK(open("f", O_CREAT | O_WRONLY, 0644));
    T(write(fd, "content", 7));
    T(futimens(fd, when));
    T(close(fd));
    say_times(t, "f");
    fd = OK(open("f", O_RDWR));
    T(futimens(fd, when));
    T(fsync(fd));
    T(close(fd));
    say_times(t, "f");
    fd = OK(open("f", O_RDWR));
    T(write(fd, "again", 5));
    T(utimensat(AT_FDCWD, "f", when, 0));
    say_times(t, "f");
    T(close(fd));
    say_times(t, "f");
}

const struct pt_case pt_time_cases[] = {
    {"times to the nanosecond", exact, 0, 0},
    {"UTIME_NOW and UTIME_OMIT", now_and_omit, 0, 0},
    {"times of symbolic links", of_links, 0, 0},
    {"utime, utimes, lutimes", old_calls, 0, 0},
    {"times of an unlinked file", unlinked, 0, 0},
    {"who may set times", who_may, PT_ROOT, 0},
    {"atime after reads, relatime", after_read, 0, 0},
    {"atime after a recent read", after_recent_read, 0, 0},
    {"atime after reads of nothing", empty_reads, 0, 0},
    {"atime after readlink", readlink_atime, 0, 0},
    {"times of new objects", creation, 0, 0},
    {"ctime after chmod and rename", xattr_ctime, 0, 0},
    {"times set before close stay", kept_after_close, 0, 0},
    {NULL, NULL, 0, NULL},
};
