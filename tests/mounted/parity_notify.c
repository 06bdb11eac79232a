/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: inotify events of what is done through the tree itself. */
#include "parity.h"

#include <linux/fs.h>
#include <sys/inotify.h>
#include <sys/mman.h>

static const struct {
    uint32_t bit;
    const char *name;
} bits[] = {
    {IN_ACCESS, "ACCESS"},
    {IN_MODIFY, "MODIFY"},
    {IN_ATTRIB, "ATTRIB"},
    {IN_CLOSE_WRITE, "CLOSE_WRITE"},
    {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"},
    {IN_OPEN, "OPEN"},
    {IN_MOVED_FROM, "MOVED_FROM"},
    {IN_MOVED_TO, "MOVED_TO"},
    {IN_CREATE, "CREATE"},
    {IN_DELETE, "DELETE"},
    {IN_DELETE_SELF, "DELETE_SELF"},
    {IN_MOVE_SELF, "MOVE_SELF"},
    {IN_UNMOUNT, "UNMOUNT"},
    {IN_Q_OVERFLOW, "Q_OVERFLOW"},
    {IN_IGNORED, "IGNORED"},
    {IN_ISDIR, "ISDIR"},
};

/* Everything that happened until now; events are queued before the call that causes them returns.
 */
static void drain(struct pt *t, int fd) {
    _Alignas(8) char buffer[8192];
    uint32_t cookie = 0;
    for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;)
        for (ssize_t at = 0; at < n;) {
            struct inotify_event *e = (struct inotify_event *)(buffer + at);
            char text[200] = "";
            for (size_t i = 0; i < sizeof(bits) / sizeof(*bits); i++)
                if (e->mask & bits[i].bit)
                    snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s", bits[i].name);
            if (e->mask & IN_MOVED_FROM)
                cookie = e->cookie;
            SAY("event%s '%s'%s", text, e->len ? e->name : "",
                (e->mask & IN_MOVED_TO) && e->cookie && e->cookie == cookie ? " same move" : "");
            at += (ssize_t)(sizeof(*e) + e->len);
        }
}

static int watch(struct pt *t, const char *name) {
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0 || inotify_add_watch(fd, name, IN_ALL_EVENTS) < 0)
        pt_outcome(t, name, -1);
    return fd;
}

static void files(struct pt *t) {
    char buffer[8];
    int w = watch(t, ".");
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    drain(t, w);
    T(write(fd, "content", 7));
    T(pread(fd, buffer, 7, 0));
    drain(t, w);
    T(ftruncate(fd, 3));
    T(fchmod(fd, 0600));
    drain(t, w);
    T(close(fd));
    drain(t, w);
    T(truncate("f", 1));
    T(chmod("f", 0644));
    T(utimensat(AT_FDCWD, "f", NULL, 0));
    drain(t, w);
    fd = OK(open("f", O_RDONLY));
    close(fd);
    fd = OK(open("f", O_WRONLY | O_TRUNC));
    close(fd);
    drain(t, w);
    T(unlink("f"));
    drain(t, w);
}

static void names(struct pt *t) {
    pt_mkdir(t, "other", 0755);
    int w = watch(t, "."), o = watch(t, "other");
    T(mkdir("d", 0755));
    T(symlink("x", "l"));
    T(mkfifo("p", 0600));
    pt_make(t, "f", "");
    drain(t, w);
    T(rename("f", "g"));
    T(link("g", "h"));
    drain(t, w);
    T(rename("g", "other/g"));
    drain(t, w);
    drain(t, o);
    T(rename("h", "l"));
    T(rename("d", "e"));
    drain(t, w);
    T(renameat2(AT_FDCWD, "l", AT_FDCWD, "e", RENAME_EXCHANGE));
    drain(t, w);
    T(rmdir("l"));
    T(unlink("p"));
    drain(t, w);
    drain(t, o);
}

static void of_a_file(struct pt *t) {
    pt_make(t, "f", "content");
    int w = watch(t, "f");
    int fd = OK(open("f", O_RDWR));
    T(write(fd, "x", 1));
    drain(t, w);
    T(rename("f", "g"));
    drain(t, w);
    T(link("g", "h"));
    T(unlink("g"));
    drain(t, w);
    T(unlink("h"));
    drain(t, w);
    T(write(fd, "x", 1));
    T(close(fd)); /* now it goes */
    drain(t, w);
}

static void of_a_directory(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    int w = watch(t, "d");
    pt_list(t, "d");
    drain(t, w);
    T(chmod("d", 0700));
    T(rename("d", "e"));
    drain(t, w);
    T(rmdir("e"));
    drain(t, w);
}

static void replaced(struct pt *t) {
    pt_make(t, "old", "old");
    pt_make(t, "new", "new");
    int w = watch(t, "old");
    T(rename("new", "old"));
    drain(t, w);
    w = watch(t, "old");
    T(rename("old", "older"));
    drain(t, w);
}

static void one_shot(struct pt *t) {
    pt_make(t, "f", "");
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    T(inotify_add_watch(fd, ".", IN_CREATE | IN_ONESHOT));
    pt_make(t, "a", "");
    pt_make(t, "b", "");
    drain(t, fd);
    T(inotify_add_watch(fd, "f", IN_CREATE | IN_ONLYDIR));
    T(inotify_add_watch(fd, "none", IN_CREATE));
    int number = OK(inotify_add_watch(fd, "f", IN_MODIFY));
    T(inotify_rm_watch(fd, number));
    drain(t, fd);
}

static void mapped(struct pt *t) {
    pt_make(t, "f", "content");
    int w = watch(t, ".");
    int fd = OK(open("f", O_RDWR));
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(map == MAP_FAILED ? -1 : 0);
    close(fd);
    drain(t, w); /* the close comes with munmap */
    if (map == MAP_FAILED)
        return;
    map[0] = 'C';
    munmap(map, 4096);
    drain(t, w);
}

static void by_others(struct pt *t) {
    int w = watch(t, ".");
    CHILD() {
        pt_make(t, "by-child", "x");
        T(unlink("by-child"));
    }
    drain(t, w);
}

const struct pt_case pt_notify_cases[] = {
    {"files", files, 0, 0},
    {"names", names, 0, 0},
    {"a watched file to its end", of_a_file, 0, 0},
    {"a watched directory to its end", of_a_directory, 0, 0},
    {"a watched file is replaced", replaced, 0, 0},
    {"one-shot, refusals", one_shot, 0, 0},
    {"a mapped file", mapped, 0, 0},
    {"what another process does", by_others, 0, 0},
    {NULL, NULL, 0, NULL},
};
