/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parity: several opens of one inode, with different flags, by several processes, in every order,
 * with truncate, rename and unlink between them. Passthrough makes these one shared backing file;
 * an error (EIO above all) or old content shows here.
 */
#include "parity.h"

#include <fcntl.h>
#include <sys/mman.h>

static const struct {
    int flags;
    const char *name;
} ways[] = {
    {O_RDONLY, "O_RDONLY"},
    {O_WRONLY, "O_WRONLY"},
    {O_RDWR, "O_RDWR"},
    {O_RDWR | O_APPEND, "O_RDWR|O_APPEND"},
    {O_RDWR | O_TRUNC, "O_RDWR|O_TRUNC"},
    {O_RDWR | O_CREAT, "O_RDWR|O_CREAT"},
    {O_RDONLY | O_DIRECT, "O_RDONLY|O_DIRECT"},
    {O_RDWR | O_DIRECT, "O_RDWR|O_DIRECT"},
    {O_RDONLY | O_NOATIME, "O_RDONLY|O_NOATIME"},
    {O_WRONLY | O_SYNC, "O_WRONLY|O_SYNC"},
    {O_PATH, "O_PATH"},
};
enum { WAYS = sizeof(ways) / sizeof(*ways) };

static void *aligned(void) {
    static char room[8192];
    return (void *)(((uintptr_t)room + 4095) & ~(uintptr_t)4095);
}

/* One write and one read of a whole aligned page, which every way of opening understands. */
static void use(struct pt *t, const char *who, int fd) {
    char *page = aligned();
    memset(page, *who, 4096);
    SAY("%s:", who);
    T(pwrite(fd, page, 4096, 0));
    T(pread(fd, page, 4096, 0));
    pt_showfd(t, who, fd);
}

static void pair(struct pt *t) {
    size_t first = (size_t)(uintptr_t)t->arg;
    for (size_t second = 0; second < WAYS; second++) {
        pt_fill(t, "f", 10000, (unsigned)second);
        SAY("%s then %s", ways[first].name, ways[second].name);
        int a = OK(open("f", ways[first].flags, 0644));
        int b = OK(open("f", ways[second].flags, 0644));
        use(t, "a", a);
        use(t, "b", b);
        T(truncate("f", 5000));
        use(t, "after truncate", a);
        T(rename("f", "g"));
        use(t, "second after rename", b);
        T(close(a));
        use(t, "b alone", b);
        a = OK(open("g", ways[first].flags, 0644));
        T(close(b));
        use(t, "opened again", a);
        T(unlink("g"));
        use(t, "unlinked", a);
        T(close(a));
    }
}

#define PAIR(index, text)                                                                          \
    { "first " text ", then every other way", pair, 0, (const void *)(uintptr_t)(index) }

/* Every order of open and close of three descriptors. */
static void orders(struct pt *t) {
    static const int flags[3] = {O_RDONLY, O_WRONLY, O_RDWR | O_APPEND};
    static const int order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int o = 0; o < 6; o++) {
        for (int c = 0; c < 6; c++) {
            int fds[3];
            pt_make(t, "f", "0123456789");
            for (int i = 0; i < 3; i++)
                fds[order[o][i]] = OK(open("f", flags[order[o][i]]));
            for (int i = 0; i < 3; i++) {
                char byte = 0;
                SAY("open order %d close order %d step %d", o, c, i);
                T(write(fds[order[c][i]], "W", 1));
                T(pread(fds[order[c][i]], &byte, 1, 0));
                T(close(fds[order[c][i]]));
            }
            pt_look(t, "f");
        }
    }
}

static void forked(struct pt *t) {
    pt_make(t, "f", "shared offset: ");
    int fd = OK(open("f", O_RDWR));
    T(lseek(fd, 0, SEEK_END));
    CHILD() {
        T(write(fd, "child ", 6));
        close(fd);
    }
    T(write(fd, "parent ", 7));
    T(lseek(fd, 0, SEEK_CUR));
    CHILD() { T(lseek(fd, 0, SEEK_SET)); }
    T(lseek(fd, 0, SEEK_CUR));
    pt_lookfd(t, "f", fd);
    T(close(fd));
}

static void child_survives(struct pt *t) {
    struct pt_gate closed, done;
    pt_make(t, "f", "0123456789");
    pt_gate_init(t, &closed);
    pt_gate_init(t, &done);
    int fd = OK(open("f", O_RDWR));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        pt_gate_await(t, &closed);
        T(pwrite(fd, "child", 5, 0));
        pt_lookfd(t, "child", fd);
        T(close(fd));
        pt_end();
    }
    T(close(fd));
    T(unlink("f"));
    pt_gate_open(&closed);
    pt_reap(t, pid);
    pt_list(t, ".");
}

static void processes_by_turns(struct pt *t) {
    struct pt_gate ping, pong;
    pt_gate_init(t, &ping);
    pt_gate_init(t, &pong);
    pt_make(t, "f", "");
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        for (int i = 0; i < 20; i++) {
            pt_gate_await(t, &ping);
            int fd = open("f", i % 2 ? O_RDWR | O_APPEND : O_WRONLY | O_TRUNC);
            char text[16];
            int n = snprintf(text, sizeof(text), "turn %d;", i);
            if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd) < 0)
                pt_outcome(t, "child's turn", -1);
            pt_gate_open(&pong);
        }
        pt_end();
    }
    int watch = OK(open("f", O_RDONLY));
    for (int i = 0; i < 20; i++) {
        pt_gate_open(&ping);
        pt_gate_await(t, &pong);
        pt_lookfd(t, "parent sees", watch);
        struct stat st;
        if (stat("f", &st) == 0)
            SAY("size %lld", (long long)st.st_size);
    }
    close(watch);
    pt_reap(t, pid);
}

static void renamed_over(struct pt *t) {
    pt_make(t, "old", "old content");
    pt_make(t, "new", "new");
    int a = OK(open("old", O_RDWR)), b = OK(open("new", O_RDWR));
    T(rename("new", "old"));
    int c = OK(open("old", O_RDWR));
    pt_lookfd(t, "a", a);
    pt_lookfd(t, "b", b);
    pt_lookfd(t, "c", c);
    T(pwrite(a, "A", 1, 0));
    T(pwrite(b, "B", 1, 0));
    pt_lookfd(t, "a", a);
    pt_lookfd(t, "c", c);
    pt_showfd(t, "a", a);
    pt_showfd(t, "c", c);
    T(ftruncate(a, 2));
    pt_lookfd(t, "a", a);
    close(a), close(b), close(c);
    pt_look(t, "old");
}

static void recreated(struct pt *t) {
    for (int i = 0; i < 8; i++) {
        char text[32];
        snprintf(text, sizeof(text), "generation %d", i);
        int fd = OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
        T(write(fd, text, strlen(text)));
        int again = OK(open("f", i % 2 ? O_RDONLY : O_RDWR));
        T(unlink("f"));
        pt_lookfd(t, "again", again);
        if (i % 2)
            close(fd);
        int next = OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0600));
        pt_lookfd(t, "next", next);
        pt_lookfd(t, "again", again);
        T(unlink("f"));
        close(next), close(again);
        if (i % 2 == 0)
            close(fd);
    }
}

static void link_names(struct pt *t) {
    pt_make(t, "a", "one inode");
    T(link("a", "b"));
    int ro = OK(open("a", O_RDONLY)), rw = OK(open("b", O_RDWR));
    T(pwrite(rw, "ONE", 3, 0));
    pt_lookfd(t, "a", ro);
    T(unlink("a"));
    int again = OK(open("b", O_RDWR | O_APPEND));
    T(write(again, "+", 1));
    pt_lookfd(t, "a", ro);
    pt_showfd(t, "a", ro);
    T(unlink("b"));
    T(write(again, "+", 1));
    pt_lookfd(t, "a", ro);
    pt_showfd(t, "a", ro);
    close(ro), close(rw), close(again);
}

static void mode_taken_away(struct pt *t) {
    pt_make(t, "f", "content");
    int rw = OK(open("f", O_RDWR));
    T(chmod("f", 0));
    int other = OK(open("f", O_RDONLY));
    T(pwrite(rw, "C", 1, 0));
    T(chmod("f", 0200));
    int wo = OK(open("f", O_WRONLY));
    T(pwrite(wo, "D", 1, 1));
    pt_lookfd(t, "rw", rw);
    T(chmod("f", 0444));
    int ro = OK(open("f", O_RDONLY));
    T(pwrite(wo, "E", 1, 2));
    pt_lookfd(t, "ro", ro);
    if (other >= 0)
        close(other);
    close(rw), close(wo), close(ro);
}

static void growing_under_reader(struct pt *t) {
    char buffer[64];
    pt_make(t, "f", "");
    int reader = OK(open("f", O_RDONLY)), writer = OK(open("f", O_WRONLY));
    for (int i = 0; i < 6; i++) {
        T(read(reader, buffer, sizeof(buffer)));
        T(write(writer, "0123456", 7));
        pt_bytes(t, "read", buffer, read(reader, buffer, 5));
        T(lseek(reader, 0, SEEK_END));
        T(lseek(reader, -2, SEEK_CUR));
    }
    T(ftruncate(writer, 3));
    T(read(reader, buffer, sizeof(buffer)));
    T(lseek(reader, 0, SEEK_END));
    T(write(writer, "x", 1)); /* leaves a hole */
    T(lseek(reader, 0, SEEK_END));
    pt_lookfd(t, "f", reader);
    close(reader), close(writer);
}

static void mapped_between(struct pt *t) {
    pt_fill(t, "f", 8192, 4);
    int fd = OK(open("f", O_RDWR));
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(map == MAP_FAILED ? -1 : 0);
    if (map == MAP_FAILED)
        return;
    T(close(fd));
    for (size_t i = 0; i < WAYS; i++) {
        fd = pt_outcome(t, ways[i].name, open("f", ways[i].flags & ~O_TRUNC, 0644));
        map[i] = 'M';
        use(t, "beside the mapping", fd);
        pt_bytes(t, "mapping", map, 16);
        if (fd >= 0)
            T(close(fd));
    }
    T(munmap(map, 8192));
    pt_look(t, "f");
}

const struct pt_case pt_openers_cases[] = {
    PAIR(0, "O_RDONLY"),
    PAIR(1, "O_WRONLY"),
    PAIR(2, "O_RDWR"),
    PAIR(3, "O_APPEND"),
    PAIR(4, "O_TRUNC"),
    PAIR(5, "O_CREAT"),
    PAIR(6, "O_DIRECT for reading"),
    PAIR(7, "O_DIRECT for writing"),
    PAIR(8, "O_NOATIME"),
    PAIR(9, "O_SYNC"),
    PAIR(10, "O_PATH"),
    {"every order of open and close", orders, 0, 0},
    {"a forked process shares the offset", forked, 0, 0},
    {"a forked process keeps an unlinked file", child_survives, 0, 0},
    {"two processes by turns, truncating and appending", processes_by_turns, 0, 0},
    {"a file renamed over an open one", renamed_over, 0, 0},
    {"the same name created again and again", recreated, 0, 0},
    {"one inode opened by two names", link_names, 0, 0},
    {"the mode changes between opens", mode_taken_away, 0, 0},
    {"a file grows and shrinks under a reader", growing_under_reader, 0, 0},
    {"every way of opening beside a mapping", mapped_between, 0, 0},
    {NULL, NULL, 0, NULL},
};
