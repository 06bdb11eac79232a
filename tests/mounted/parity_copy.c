/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: data that moves inside the kernel: copy_file_range, sendfile, splice. */
#include "parity.h"

#include <sys/sendfile.h>
#include <sys/socket.h>

static void range_whole(struct pt *t) {
    pt_fill(t, "a", 100000, 1);
    pt_make(t, "b", "");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_RDWR));
    T(copy_file_range(in, NULL, out, NULL, 100000, 0));
    T(lseek(in, 0, SEEK_CUR));
    T(lseek(out, 0, SEEK_CUR));
    T(copy_file_range(in, NULL, out, NULL, 100000, 0));
    pt_lookfd(t, "b", out);
    pt_showfd(t, "b", out);
    close(in), close(out);
}

static void range_offsets(struct pt *t) {
    off_t from = 1000, to = 50;
    pt_fill(t, "a", 10000, 2);
    pt_make(t, "b", "0123456789");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_RDWR));
    T(copy_file_range(in, &from, out, &to, 500, 0));
    T(from);
    T(to);
    T(lseek(in, 0, SEEK_CUR));
    T(lseek(out, 0, SEEK_CUR));
    from = 9900;
    T(copy_file_range(in, &from, out, NULL, 5000, 0));
    T(from);
    T(lseek(out, 0, SEEK_CUR));
    from = 20000;
    T(copy_file_range(in, &from, out, &to, 10, 0));
    T(copy_file_range(in, NULL, out, &to, 0, 0));
    pt_lookfd(t, "b", out);
    close(in), close(out);
}

static void range_same(struct pt *t) {
    off_t from = 0, to = 5000;
    pt_fill(t, "a", 5000, 3);
    int fd = OK(open("a", O_RDWR)), other = OK(open("a", O_RDONLY));
    T(copy_file_range(fd, &from, fd, &to, 5000, 0));
    from = 100, to = 200;
    T(copy_file_range(fd, &from, fd, &to, 1000, 0)); /* overlaps */
    from = 100, to = 200;
    T(copy_file_range(other, &from, fd, &to, 1000, 0));
    from = 0, to = 20000;
    T(copy_file_range(other, &from, fd, &to, 1000, 0));
    pt_lookfd(t, "a", fd);
    close(fd), close(other);
}

static void range_errors(struct pt *t) {
    off_t at = -1;
    int ends[2];
    pt_fill(t, "a", 5000, 3);
    pt_make(t, "b", "");
    pt_mkdir(t, "d", 0755);
    int ro = OK(open("a", O_RDONLY)), wo = OK(open("b", O_WRONLY));
    int app = OK(open("b", O_WRONLY | O_APPEND)), dir = OK(open("d", O_RDONLY));
    T(pipe(ends));
    T(copy_file_range(wo, NULL, wo, NULL, 10, 0));
    T(copy_file_range(ro, NULL, ro, NULL, 10, 0));
    T(copy_file_range(ro, NULL, app, NULL, 10, 0));
    T(copy_file_range(dir, NULL, wo, NULL, 10, 0));
    T(copy_file_range(ro, NULL, dir, NULL, 10, 0));
    T(copy_file_range(ro, NULL, ends[1], NULL, 10, 0));
    T(copy_file_range(ro, NULL, wo, NULL, 10, 1234));
    T(copy_file_range(ro, &at, wo, NULL, 10, 0));
    T(copy_file_range(-1, NULL, wo, NULL, 10, 0));
    pt_show(t, "b");
}

static void range_open_elsewhere(struct pt *t) {
    off_t at = 0;
    pt_fill(t, "a", 30000, 4);
    pt_fill(t, "b", 40000, 5);
    int in = OK(open("a", O_RDWR)), out = OK(open("b", O_RDWR)), watch = OK(open("b", O_RDONLY));
    T(pwrite(in, "fresh", 5, 0)); /* what was just written is what is copied */
    pt_lookfd(t, "watch", watch);
    T(copy_file_range(in, &at, out, NULL, 30000, 0));
    pt_lookfd(t, "watch", watch);
    T(ftruncate(out, 100));
    at = 0;
    T(copy_file_range(in, &at, out, NULL, 100, 0));
    pt_lookfd(t, "watch", watch);
    T(unlink("a"));
    T(unlink("b"));
    at = 10;
    T(copy_file_range(in, &at, out, NULL, 1000, 0));
    pt_lookfd(t, "watch", watch);
    close(in), close(out), close(watch);
}

static void range_times(struct pt *t) {
    pt_fill(t, "a", 3000, 4);
    pt_make(t, "b", "");
    pt_age(t, "b");
    struct pt_stamp before = pt_stamp("b");
    pt_tick();
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_WRONLY));
    T(copy_file_range(in, NULL, out, NULL, 3000, 0));
    pt_movedfd(t, "b", out, &before);
    close(in), close(out);
    pt_moved(t, "b", &before);
}

static void range_sparse(struct pt *t) {
    off_t from = 0, to = 0;
    int in = OK(open("a", O_RDWR | O_CREAT, 0644)), out = OK(open("b", O_RDWR | O_CREAT, 0644));
    T(ftruncate(in, 1 << 20));
    T(pwrite(in, "middle", 6, 500000));
    for (int i = 0; i < 64; i++)
        if (copy_file_range(in, &from, out, &to, 1 << 20, 0) <= 0)
            break;
    T(from);
    T(to);
    pt_lookfd(t, "b", out);
    close(in), close(out);
}

/* What cp does: copy_file_range, else sendfile. Out of the mount the first one gives EXDEV. */
static void copy_between(struct pt *t, int in, int out) {
    ssize_t n;
    while ((n = copy_file_range(in, NULL, out, NULL, 1 << 20, 0)) > 0)
        continue;
    if (n < 0)
        while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
            continue;
    if (n < 0)
        pt_outcome(t, "copy", -1);
}

static void leaving(struct pt *t) {
    pt_fill(t, "a", 300000, 6);
    int in = OK(open("a", O_RDONLY));
    int out = OK(openat(t->other, "out", O_RDWR | O_CREAT, 0644));
    copy_between(t, in, out);
    pt_lookfd(t, "out", out);
    int back = OK(open("b", O_RDWR | O_CREAT, 0644));
    T(lseek(out, 0, SEEK_SET));
    copy_between(t, out, back);
    pt_lookfd(t, "back", back);
    close(in), close(out), close(back);
}

static void send_file(struct pt *t) {
    off_t at = 100;
    pt_fill(t, "a", 50000, 7);
    pt_make(t, "b", "");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_RDWR));
    T(sendfile(out, in, &at, 20000));
    T(at);
    T(lseek(in, 0, SEEK_CUR));
    T(sendfile(out, in, NULL, 100000));
    T(lseek(in, 0, SEEK_CUR));
    T(sendfile(out, in, NULL, 100));
    pt_lookfd(t, "b", out);
    T(sendfile(in, out, NULL, 10));
    int app = OK(open("b", O_WRONLY | O_APPEND));
    T(sendfile(app, in, NULL, 10));
    close(in), close(out), close(app);
}

static void send_socket(struct pt *t) {
    int ends[2];
    char buffer[4096];
    off_t at = 5;
    pt_fill(t, "a", 5000, 8);
    int in = OK(open("a", O_RDONLY));
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    T(sendfile(ends[0], in, &at, 3000));
    pt_bytes(t, "received", buffer, recv(ends[1], buffer, 3000, MSG_WAITALL));
    close(in);
}

static void splice_both_ways(struct pt *t) {
    int ends[2];
    loff_t at = 10;
    pt_fill(t, "a", 30000, 9);
    pt_make(t, "b", "");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_RDWR));
    T(pipe(ends));
    T(splice(in, &at, ends[1], NULL, 5000, 0));
    T(at);
    T(splice(ends[0], NULL, out, NULL, 5000, SPLICE_F_MOVE));
    T(lseek(out, 0, SEEK_CUR));
    T(splice(in, NULL, ends[1], NULL, 4096, SPLICE_F_MORE));
    at = 100;
    T(splice(ends[0], NULL, out, &at, 4096, 0));
    T(at);
    T(splice(in, NULL, out, NULL, 10, 0));
    at = 40000;
    T(splice(in, &at, ends[1], NULL, 10, 0));
    pt_lookfd(t, "b", out);
    close(in), close(out);
}

static void splice_append(struct pt *t) {
    int ends[2];
    pt_make(t, "b", "start");
    int out = OK(open("b", O_WRONLY | O_APPEND));
    T(pipe(ends));
    T(write(ends[1], "piped", 5));
    T(splice(ends[0], NULL, out, NULL, 5, 0));
    close(out);
    pt_look(t, "b");
}

static void splice_moves_atime(struct pt *t) {
    int ends[2];
    pt_fill(t, "a", 5000, 9);
    pt_age(t, "a");
    struct pt_stamp before = pt_stamp("a");
    pt_tick();
    int in = OK(open("a", O_RDONLY));
    T(pipe(ends));
    T(splice(in, NULL, ends[1], NULL, 4096, 0));
    close(in);
    pt_moved(t, "a", &before);
}

static void between_users(struct pt *t) {
    pt_fill(t, "a", 1000, 1);
    pt_make(t, "b", "");
    pt_own(t, "a", 0, 0, 0644);
    pt_own(t, "b", PT_U1, PT_U1, 0600);
    AS(PT_U1, PT_U1, 0) {
        int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_RDWR));
        T(copy_file_range(in, NULL, out, NULL, 1000, 0));
        T(lseek(in, 0, SEEK_SET));
        T(sendfile(out, in, NULL, 500));
    }
    pt_look(t, "b");
    pt_show(t, "b");
}

const struct pt_case pt_copy_cases[] = {
    {"copy_file_range of a whole file", range_whole, 0, 0},
    {"copy_file_range with offsets", range_offsets, 0, 0},
    {"copy_file_range inside one file", range_same, 0, 0},
    {"copy_file_range refused", range_errors, 0, 0},
    {"copy_file_range beside other descriptors", range_open_elsewhere, 0, 0},
    {"copy_file_range moves times", range_times, 0, 0},
    {"copy_file_range of a sparse file", range_sparse, 0, 0},
    {"a copy that leaves the tree and comes back", leaving, 0, 0},
    {"sendfile", send_file, 0, 0},
    {"sendfile to a socket", send_socket, 0, 0},
    {"splice into and out of a pipe", splice_both_ways, 0, 0},
    {"splice to an appending descriptor", splice_append, 0, 0},
    {"splice moves the atime", splice_moves_atime, 0, 0},
    {"copies by an ordinary user", between_users, PT_ROOT, 0},
    {NULL, NULL, 0, NULL},
};
