/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parity: what clears set-uid, set-gid and file capabilities: every way of changing content, by
 * root and by an ordinary user, of every combination of bits. The file is opened after the bits are
 * set: bits set while a passed-through descriptor is open are a known deviation for root.
 */
#include "parity.h"

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};

static void act_write(struct pt *t, int fd) { T(write(fd, "x", 1)); }
static void act_pwrite(struct pt *t, int fd) { T(pwrite(fd, "x", 1, 1)); }
static void act_write_nothing(struct pt *t, int fd) { T(write(fd, "", 0)); }
static void act_writev(struct pt *t, int fd) { T(writev(fd, &(struct iovec){"x", 1}, 1)); }
static void act_append(struct pt *t, int fd) {
    T(pwritev2(fd, &(struct iovec){"x", 1}, 1, 0, RWF_APPEND));
}
static void act_ftruncate(struct pt *t, int fd) { T(ftruncate(fd, 2)); }
static void act_ftruncate_same(struct pt *t, int fd) { T(ftruncate(fd, 7)); }
static void act_ftruncate_grow(struct pt *t, int fd) { T(ftruncate(fd, 100)); }
static void act_truncate(struct pt *t, int fd) {
    (void)fd;
    T(truncate("d/f", 2));
}
static void act_open_trunc(struct pt *t, int fd) {
    (void)fd;
    OK(open("d/f", O_WRONLY | O_TRUNC));
}
static void act_create_trunc(struct pt *t, int fd) {
    (void)fd;
    OK(open("d/f", O_WRONLY | O_TRUNC | O_CREAT, 0644));
}
static void act_allocate(struct pt *t, int fd) { T(fallocate(fd, 0, 0, 100)); }
static void act_allocate_keep(struct pt *t, int fd) {
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100));
}
static void act_punch(struct pt *t, int fd) {
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 3));
}
static void act_zero(struct pt *t, int fd) { T(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 3)); }
static void act_copy_range(struct pt *t, int fd) {
    int in = open("d/in", O_RDONLY);
    T(copy_file_range(in, NULL, fd, NULL, 3, 0));
    close(in);
}
static void act_sendfile(struct pt *t, int fd) {
    int in = open("d/in", O_RDONLY);
    T(sendfile(fd, in, NULL, 3));
    close(in);
}
static void act_splice(struct pt *t, int fd) {
    int ends[2];
    T(pipe(ends));
    T(write(ends[1], "abc", 3));
    T(splice(ends[0], NULL, fd, NULL, 3, 0));
}
static void act_store(struct pt *t, int fd) {
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        pt_outcome(t, "mmap", -1);
        return;
    }
    map[0] = 'm';
    T(msync(map, 4096, MS_SYNC));
    munmap(map, 4096);
}
static void act_direct(struct pt *t, int fd) {
    void *page = NULL;
    int direct = OK(open("d/f", O_WRONLY | O_DIRECT));
    (void)fd;
    if (direct < 0 || posix_memalign(&page, 4096, 4096) != 0)
        return;
    memset(page, 'd', 4096);
    T(pwrite(direct, page, 4096, 0));
    close(direct);
    free(page);
}
static void act_chmod(struct pt *t, int fd) {
    (void)fd;
    T(chmod("d/f", 0755));
}
static void act_utimens(struct pt *t, int fd) { T(futimens(fd, NULL)); }
static void act_setxattr(struct pt *t, int fd) { T(fsetxattr(fd, "user.a", "x", 1, 0)); }
static void act_read(struct pt *t, int fd) {
    char buffer[8];
    T(pread(fd, buffer, 7, 0));
}
static void act_rename(struct pt *t, int fd) {
    (void)fd;
    T(rename("d/f", "d/g"));
    T(link("d/g", "d/f"));
    T(unlink("d/g"));
}
static void act_chown_same(struct pt *t, int fd) { T(fchown(fd, (uid_t)-1, (gid_t)-1)); }
static void act_chown_group(struct pt *t, int fd) { T(fchown(fd, (uid_t)-1, PT_GROUP)); }
static void act_twice(struct pt *t, int fd) {
    T(write(fd, "x", 1));
    T(chmod("d/f", 06777)); /* refused to those who do not own it */
    int again = OK(open("d/f", O_WRONLY));
    T(write(again, "y", 1));
    close(again);
}

struct action {
    void (*act)(struct pt *t, int fd);
    bool plain; /* the file has no capabilities besides the bits */
};

static void prepare(struct pt *t, uid_t owner, mode_t mode, bool with_capability) {
    pt_make(t, "d/f", "content");
    if (geteuid() == 0 && lchown("d/f", owner, owner) < 0)
        pt_outcome(t, "chown", -1);
    if (chmod("d/f", mode) < 0)
        pt_outcome(t, "chmod", -1);
    if (with_capability && setxattr("d/f", "security.capability", capability, 20, 0) < 0)
        pt_outcome(t, "capability", -1);
}

static void act_and_show(struct pt *t, const struct action *action) {
    int fd = OK(open("d/f", O_RDWR));
    if (fd < 0)
        return;
    action->act(t, fd);
    pt_showfd(t, "descriptor", fd);
    close(fd);
    pt_show(t, "d/f");
    char buffer[64];
    T(getxattr("d/f", "security.capability", buffer, sizeof(buffer)));
}

static void clearing(struct pt *t) {
    static const mode_t modes[] = {06777, 04755, 02775, 02767, 06666, 0777};
    static const uid_t users[] = {0, PT_U1, PT_U2};
    pt_mkdir(t, "d", 0777);
    pt_make(t, "d/in", "input");
    if (t->uid) {
        for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++) {
            SAY("mode %o", modes[m]);
            prepare(t, t->uid, modes[m], false);
            act_and_show(t, t->arg);
            T(unlink("d/f"));
        }
        return;
    }
    for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++)
        for (size_t u = 0; u < sizeof(users) / sizeof(*users); u++) {
            const struct action *action = t->arg;
            /* FUSE tells a daemon the same of this as of the user's write, which is allowed. */
            if (action->act == act_chown_same && users[u] == PT_U2)
                continue;
            SAY("mode %o by %u", modes[m], users[u]);
            prepare(t, PT_U1, modes[m], !action->plain);
            if (users[u] == 0)
                act_and_show(t, t->arg);
            else
                AS(users[u], users[u], 0) act_and_show(t, t->arg);
            pt_show(t, "d/f");
            pt_xattrs(t, "d/f");
            T(unlink("d/f"));
        }
}

#define ACT(text, ...)                                                                             \
    {                                                                                              \
        "set-id bits and capabilities: " text, clearing, 0, &(const struct action) {               \
            .act = __VA_ARGS__                                                                     \
        }                                                                                          \
    }

/* A program, open for reading as a running one is: nobody but its owner can take its bits. */
static void chown_of_a_program(struct pt *t) {
    static const uid_t users[] = {PT_U2, PT_U1, 0};
    for (size_t u = 0; u < sizeof(users) / sizeof(*users); u++) {
        char name[32];
        snprintf(name, sizeof(name), "program%zu", u);
        /* Made in the source: through the mount its writer might still be known. */
        close(OK(openat(t->source, name, O_WRONLY | O_CREAT | O_EXCL, 0755)));
        T(fchownat(t->source, name, PT_U1, PT_U1, 0));
        T(fchmodat(t->source, name, 06755, 0));
        int fd = OK(open(name, O_RDONLY));
        AS(users[u], users[u], 0) T(chown(name, (uid_t)-1, (gid_t)-1));
        pt_show(t, name);
        close(fd);
    }
}

/* Bits come while a descriptor is open; an ordinary user's write clears them all the same. */
static void set_while_open(struct pt *t) {
    struct pt_gate ready, set;
    pt_gate_init(t, &ready);
    pt_gate_init(t, &set);
    pt_make(t, "f", "content");
    T(chmod("f", 0777));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        if (pt_become(PT_U1, PT_U1, 0) < 0)
            SAY("cannot become somebody");
        int fd = OK(open("f", O_RDWR));
        T(write(fd, "x", 1));
        pt_gate_open(&ready);
        pt_gate_await(t, &set);
        T(write(fd, "y", 1));
        pt_showfd(t, "f", fd);
        pt_end();
    }
    pt_gate_await(t, &ready);
    T(chmod("f", 06777));
    pt_gate_open(&set);
    pt_reap(t, pid);
    pt_show(t, "f");
}

static void owner_sets_while_open(struct pt *t) {
    pt_make(t, "f", "content");
    int fd = OK(open("f", O_RDWR));
    T(write(fd, "x", 1));
    T(fchmod(fd, 06777));
    pt_showfd(t, "f", fd);
    T(write(fd, "y", 1));
    pt_showfd(t, "f", fd);
    T(fchmod(fd, 06777));
    T(ftruncate(fd, 1));
    pt_showfd(t, "f", fd);
    close(fd);
    pt_show(t, "f");
}

static void two_descriptors(struct pt *t) {
    pt_make(t, "f", "content");
    T(chmod("f", 06777));
    int a = OK(open("f", O_RDONLY)), b = OK(open("f", O_RDWR)), c = OK(open("f", O_WRONLY));
    T(write(b, "x", 1));
    pt_showfd(t, "a", a);
    T(write(c, "y", 1));
    pt_showfd(t, "a", a);
    pt_show(t, "f");
    close(a), close(b), close(c);
}

const struct pt_case pt_setid_cases[] = {
    ACT("write", act_write),
    ACT("pwrite", act_pwrite),
    ACT("write of nothing", act_write_nothing),
    ACT("writev", act_writev),
    ACT("RWF_APPEND", act_append),
    ACT("ftruncate, shorter", act_ftruncate),
    ACT("ftruncate, same size", act_ftruncate_same),
    ACT("ftruncate, longer", act_ftruncate_grow),
    ACT("truncate", act_truncate),
    ACT("O_TRUNC", act_open_trunc),
    ACT("O_CREAT and O_TRUNC", act_create_trunc),
    ACT("fallocate", act_allocate),
    ACT("fallocate, keep size", act_allocate_keep),
    ACT("punch hole", act_punch),
    ACT("zero range", act_zero),
    ACT("copy_file_range", act_copy_range),
    ACT("sendfile", act_sendfile),
    ACT("splice", act_splice),
    ACT("a store through a mapping", act_store),
    ACT("O_DIRECT write", act_direct),
    ACT("chmod", act_chmod),
    ACT("utimens", act_utimens),
    ACT("setxattr", act_setxattr),
    ACT("read", act_read),
    ACT("rename and link", act_rename),
    ACT("chown to nobody", act_chown_same, .plain = true),
    ACT("chown to another group", act_chown_group),
    ACT("write, chmod, write", act_twice),
    {"chown to nobody of a program", chown_of_a_program, PT_ROOT | PT_SOURCE, 0},
    {"bits set while somebody else has it open", set_while_open, PT_ROOT, 0},
    {"bits set by the owner through the descriptor", owner_sets_while_open, PT_USER, 0},
    {"bits cleared beside other descriptors", two_descriptors, PT_USER, 0},
    {NULL, NULL, 0, NULL},
};
