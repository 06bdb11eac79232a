/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: rename of everything over everything, with every flag; what it does to times and links.
 */
#include "parity.h"

#include <linux/fs.h>
#include <sys/syscall.h>

static const char *const kinds[] = {"none", "file", "emptydir", "fulldir", "symlink", "fifo"};
enum { KINDS = sizeof(kinds) / sizeof(*kinds) };

static void make_kind(struct pt *t, int kind, const char *name) {
    char inner[64];
    if (kind == 1)
        pt_make(t, name, name);
    if (kind == 2 || kind == 3)
        pt_mkdir(t, name, 0755);
    if (kind == 3) {
        snprintf(inner, sizeof(inner), "%s/inside", name);
        pt_make(t, inner, "x");
    }
    if (kind == 4)
        T(symlink("target", name));
    if (kind == 5)
        T(mkfifo(name, 0600));
}

static void remove_kind(const char *name) {
    char inner[64];
    snprintf(inner, sizeof(inner), "%s/inside", name);
    (void)unlink(inner); /* whichever it is */
    (void)unlink(name);
    (void)rmdir(name);
}

/* Every kind over every kind with arg's flags. */
static void over(struct pt *t) {
    unsigned flags = (unsigned)(uintptr_t)t->arg;
    for (int from = 0; from < KINDS; from++)
        for (int to = 0; to < KINDS; to++) {
            make_kind(t, from, "from");
            make_kind(t, to, "to");
            SAY("%s over %s", kinds[from], kinds[to]);
            T(renameat2(AT_FDCWD, "from", AT_FDCWD, "to", flags));
            pt_list(t, ".");
            pt_show(t, "from");
            pt_show(t, "to");
            remove_kind("from");
            remove_kind("to");
        }
}

static void plain(struct pt *t) {
    pt_make(t, "a", "1");
    pt_mkdir(t, "d", 0755);
    T(rename("a", "a"));
    T(rename("a", "b"));
    T(rename("a", "c"));
    T(rename("b", "d/b"));
    T(rename("d/b", "d/c"));
    T(rename("d/c", "./d/../c"));
    T(rename("c", "none/c"));
    T(rename("c", "c/x"));
    T(rename("c/", "e"));
    T(rename("c", "e/"));
    T(rename("d/", "e"));
    T(rename("e", "f/"));
    T(rename(".", "g"));
    T(rename("f", "."));
    T(rename("f", ".."));
    T(rename("", "g"));
    T(rename("c", ""));
    pt_list(t, ".");
}

static void into_itself(struct pt *t) {
    pt_mkdir(t, "a", 0755);
    pt_mkdir(t, "a/b", 0755);
    pt_mkdir(t, "a/b/c", 0755);
    T(rename("a", "a/x"));
    T(rename("a", "a/b/x"));
    T(rename("a", "a/b"));
    T(rename("a", "a/b/c"));
    T(rename("a/b/c", "a"));
    T(rename("a/b", "a"));
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "a/b/c", RENAME_EXCHANGE));
    T(rename("a/b/c", "a/c"));
    T(rename("a/b", "b"));
    T(rename("a", "b/a"));
    pt_list(t, ".");
    pt_list(t, "b");
    pt_list(t, "b/a");
}

static void linked_names(struct pt *t) {
    pt_make(t, "a", "same inode");
    T(link("a", "b"));
    T(rename("a", "b")); /* does nothing */
    pt_list(t, ".");
    pt_show(t, "a");
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
    pt_make(t, "c", "over it");
    T(rename("c", "a"));
    pt_show(t, "a");
    pt_show(t, "b");
    pt_look(t, "a");
}

static void bad_flags(struct pt *t) {
    pt_make(t, "a", "1");
    pt_make(t, "b", "2");
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE | RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_WHITEOUT | RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", 64));
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
    pt_list(t, ".");
}

static void exchange_trees(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/in", "inside d");
    pt_mkdir(t, "e", 0700);
    pt_make(t, "e/f", "a file");
    struct stat a, b, c;
    T(stat("d", &a));
    T(stat("e/f", &b));
    T(renameat2(AT_FDCWD, "d", AT_FDCWD, "e/f", RENAME_EXCHANGE));
    T(stat("e/f", &c));
    T(c.st_ino == a.st_ino);
    T(stat("d", &c));
    T(c.st_ino == b.st_ino);
    pt_look(t, "d");
    pt_look(t, "e/f/in");
    pt_show(t, "e");
    pt_show(t, ".");
    pt_list(t, "e");
    T(renameat2(AT_FDCWD, "e", AT_FDCWD, "d", RENAME_EXCHANGE));
    pt_show(t, "d");
    pt_show(t, "e");
    pt_show(t, ".");
}

static void whiteout(struct pt *t) {
    pt_make(t, "a", "moved");
    pt_mkdir(t, "d", 0755);
    T(renameat2(AT_FDCWD, "a", AT_FDCWD, "d/b", RENAME_WHITEOUT));
    pt_show(t, "a");
    pt_look(t, "d/b");
    pt_list(t, ".");
    T(renameat2(AT_FDCWD, "d/b", AT_FDCWD, "a", RENAME_WHITEOUT | RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "d/b", AT_FDCWD, "a", RENAME_WHITEOUT));
    pt_show(t, "d/b");
    pt_show(t, "a");
}

static void open_files(struct pt *t) {
    pt_make(t, "a", "first");
    pt_make(t, "b", "second");
    int a = OK(open("a", O_RDWR)), b = OK(open("b", O_RDWR));
    T(rename("a", "b"));
    pt_showfd(t, "a", a);
    pt_showfd(t, "b", b);
    T(pwrite(a, "F", 1, 0));
    T(pwrite(b, "S", 1, 0));
    pt_look(t, "b");
    pt_lookfd(t, "b", b);
    T(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", 0));
    pt_lookfd(t, "a", a);
    close(a), close(b);
    pt_look(t, "c");
}

static void open_directory(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    pt_mkdir(t, "e", 0755);
    int d = OK(open("d", O_RDONLY | O_DIRECTORY)), e = OK(open("e", O_RDONLY | O_DIRECTORY));
    T(rename("d", "e"));
    int fd = OK(openat(d, "f", O_CREAT | O_WRONLY, 0644));
    close(fd);
    OK(openat(e, "f", O_CREAT | O_WRONLY, 0644));
    pt_list(t, "e");
    pt_showfd(t, "d", d);
    pt_showfd(t, "e", e);
    T(renameat2(d, "f", AT_FDCWD, "f", 0));
    T(renameat2(AT_FDCWD, "f", e, "f", 0));
    pt_list(t, ".");
    close(d), close(e);
}

static void times(struct pt *t) {
    static const char *const watched[] = {"a", "d", "e", "d/f", "e/f"};
    pt_mkdir(t, "d", 0755);
    pt_mkdir(t, "e", 0755);
    pt_make(t, "d/f", "file");
    pt_make(t, "e/f", "over");
    pt_mkdir(t, "d/sub", 0755);
    pt_age(t, "d/f");
    pt_age(t, "e");
    pt_age(t, "d/sub");
    pt_age(t, "d");
    struct pt_stamp d = pt_stamp("d"), e = pt_stamp("e"), f = pt_stamp("d/f"),
                    s = pt_stamp("d/sub");
    pt_tick();
    T(rename("d/f", "e/f"));
    pt_moved(t, "d", &d);
    pt_moved(t, "e", &e);
    pt_moved(t, "e/f", &f);
    d = pt_stamp("d"), e = pt_stamp("e");
    pt_tick();
    T(rename("d/sub", "e/sub"));
    pt_moved(t, "d", &d);
    pt_moved(t, "e", &e);
    pt_moved(t, "e/sub", &s);
    d = pt_stamp("d"), e = pt_stamp("e"), f = pt_stamp("e/f");
    pt_tick();
    T(renameat2(AT_FDCWD, "d", AT_FDCWD, "e/f", RENAME_EXCHANGE));
    pt_moved(t, "d", &f);
    pt_moved(t, "e", &e);
    pt_moved(t, "e/f", &d);
    for (size_t i = 0; i < sizeof(watched) / sizeof(*watched); i++)
        pt_show(t, watched[i]);
}

static void over_open_times(struct pt *t) {
    pt_make(t, "a", "1");
    pt_make(t, "b", "2");
    T(link("b", "c"));
    int fd = OK(open("b", O_RDONLY));
    struct pt_stamp before = pt_stampfd(fd);
    pt_tick();
    T(rename("a", "b"));
    pt_movedfd(t, "b", fd, &before);
    pt_showfd(t, "b", fd);
    pt_show(t, "c");
    close(fd);
}

static void negative_names(struct pt *t) {
    struct stat st;
    T(stat("b", &st)); /* a negative dentry must not survive */
    T(stat("d/x", &st));
    pt_make(t, "a", "1");
    T(rename("a", "b"));
    T(stat("b", &st));
    T(stat("a", &st));
    T(rename("b", "a"));
    T(stat("b", &st));
    T(stat("a", &st));
    pt_mkdir(t, "e", 0755);
    pt_make(t, "e/x", "");
    T(rename("e", "d"));
    T(stat("d/x", &st));
    T(stat("e/x", &st));
    T(unlink("d/x"));
    T(rename("d", "e"));
    T(stat("e/x", &st));
    T(stat("d", &st));
}

static void many(struct pt *t) {
    char from[32], to[32];
    pt_make(t, "n0", "travels");
    for (int i = 0; i < 200; i++) {
        snprintf(from, sizeof(from), "n%d", i);
        snprintf(to, sizeof(to), "n%d", i + 1);
        if (rename(from, to) < 0)
            pt_outcome(t, from, -1);
    }
    pt_list(t, ".");
    pt_look(t, "n200");
}

static void to_another_filesystem(struct pt *t) {
    pt_make(t, "a", "1");
    T(rename("a", "/dev/shm/parity-rename"));
    T(link("a", "/dev/shm/parity-link"));
    T(rename("/proc/self/status", "b"));
    T(link("/proc/self/status", "b"));
    pt_list(t, ".");
}

const struct pt_case pt_rename_cases[] = {
    {"every kind over every kind", over, 0, (void *)0},
    {"every kind over every kind, RENAME_NOREPLACE", over, 0, (void *)RENAME_NOREPLACE},
    {"every kind over every kind, RENAME_EXCHANGE", over, 0, (void *)RENAME_EXCHANGE},
    {"every kind over every kind, RENAME_WHITEOUT", over, 0, (void *)RENAME_WHITEOUT},
    {"names and slashes", plain, 0, 0},
    {"a directory into itself", into_itself, 0, 0},
    {"two names of one inode", linked_names, 0, 0},
    {"flags that do not go together", bad_flags, 0, 0},
    {"exchanging trees and files", exchange_trees, 0, 0},
    {"whiteout", whiteout, 0, 0},
    {"open files", open_files, 0, 0},
    {"open directories", open_directory, 0, 0},
    {"times", times, 0, 0},
    {"times of what is replaced", over_open_times, 0, 0},
    {"names that were looked up in vain", negative_names, 0, 0},
    {"two hundred renames", many, 0, 0},
    {"to another filesystem", to_another_filesystem, 0, 0},
    {NULL, NULL, 0, NULL},
};
