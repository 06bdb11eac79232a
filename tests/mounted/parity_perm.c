/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: whose new objects are, and what other users may: modes, groups, sticky and set-gid. */
#include "parity.h"

#include <grp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

/* Makes one object of each kind named after prefix. */
static void make_all(struct pt *t, const char *prefix) {
    char name[64];
    snprintf(name, sizeof(name), "%s-file", prefix);
    int fd = pt_outcome(t, name, open(name, O_CREAT | O_EXCL | O_WRONLY, 0666));
    if (fd >= 0)
        close(fd);
    snprintf(name, sizeof(name), "%s-dir", prefix);
    pt_outcome(t, name, mkdir(name, 0777));
    snprintf(name, sizeof(name), "%s-link", prefix);
    pt_outcome(t, name, symlink("x", name));
    snprintf(name, sizeof(name), "%s-fifo", prefix);
    pt_outcome(t, name, mkfifo(name, 0666));
    snprintf(name, sizeof(name), "%s-node", prefix);
    pt_outcome(t, name, mknod(name, S_IFREG | 0666, 0));
}

static void show_all(struct pt *t, const char *prefix) {
    static const char *const kinds[] = {"file", "dir", "link", "fifo", "node"};
    char name[64];
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        snprintf(name, sizeof(name), "%s-%s", prefix, kinds[i]);
        pt_show(t, name);
    }
}

static void own_objects(struct pt *t) {
    make_all(t, "mine");
    show_all(t, "mine");
    int fd = OK(open(".", O_TMPFILE | O_RDWR, 0666));
    pt_showfd(t, "tmpfile", fd);
    close(fd);
}

static void owners(struct pt *t) {
    T(chmod(".", 0777));
    AS(PT_U1, PT_U1, 0) make_all(t, "one");
    AS(PT_U1, PT_GROUP, 0) make_all(t, "group");
    AS(PT_U2, PT_U2, PT_GROUP) make_all(t, "two");
    AS(0, PT_GROUP, 0) make_all(t, "root");
    show_all(t, "one");
    show_all(t, "group");
    show_all(t, "two");
    show_all(t, "root");
    AS(PT_U1, PT_U1, 0) {
        int fd = OK(open(".", O_TMPFILE | O_RDWR, 0666));
        pt_showfd(t, "tmpfile", fd);
    }
}

static void fs_ids(struct pt *t) {
    T(chmod(".", 0777));
    pt_make(t, "secret", "x");
    pt_own(t, "secret", PT_U1, PT_GROUP, 0640);
    CHILD() {
        setfsgid(PT_GROUP);
        setfsuid(PT_U2);
        make_all(t, "fs");
        OK(open("secret", O_RDONLY)); /* by the group */
        OK(open("secret", O_WRONLY));
        T(access("secret", W_OK)); /* by the real ids: root */
        T(chmod("secret", 0666));
        setfsuid(PT_U1);
        OK(open("secret", O_WRONLY));
        T(chmod("secret", 0600));
    }
    show_all(t, "fs");
    CHILD() {
        T(setegid(PT_GROUP));
        T(seteuid(PT_U1));
        make_all(t, "effective");
        T(seteuid(0));
        make_all(t, "back");
    }
    show_all(t, "effective");
    show_all(t, "back");
}

static void setgid_directory(struct pt *t) {
    pt_mkdir(t, "d", 0777);
    T(chown("d", 0, PT_GROUP));
    T(chmod("d", 02777));
    T(chdir("d"));
    static const gid_t groups[] = {0, PT_GROUP};
    for (int i = 0; i < 2; i++) {
        AS(PT_U1, PT_U1, groups[i]) {
            make_all(t, "in");
            int fd = OK(open("setgid", O_CREAT | O_EXCL | O_WRONLY, 02775));
            close(fd);
            T(mknod("setgid-node", S_IFREG | 02775, 0));
            T(mkdir("setgid-dir", 02755));
            fd = OK(open(".", O_TMPFILE | O_RDWR, 02775));
            pt_showfd(t, "tmpfile", fd);
            T(mkdir("in-dir/deeper", 0755));
        }
        show_all(t, "in");
        pt_show(t, "setgid");
        pt_show(t, "setgid-node");
        pt_show(t, "setgid-dir");
        pt_show(t, "in-dir/deeper");
        T(rmdir("in-dir/deeper"));
        static const char *const names[] = {"in-file", "in-link", "in-fifo",
                                            "in-node", "setgid",  "setgid-node"};
        for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
            T(unlink(names[k]));
        T(rmdir("in-dir"));
        T(rmdir("setgid-dir"));
    }
    make_all(t, "root");
    show_all(t, "root");
}

static void setgid_own(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    T(chown("d", (uid_t)-1, PT_GROUP));
    T(chmod("d", 02775));
    pt_show(t, "d");
    T(chdir("d"));
    make_all(t, "in");
    show_all(t, "in");
    T(chmod("in-file", 02755));
    T(chmod("in-dir", 02755));
    show_all(t, "in");
}

static void sticky(struct pt *t) {
    static const mode_t modes[] = {01777, 0777, 01755, 01770};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_mkdir(t, "d", 0777);
        SAY("mode %o", modes[i]);
        T(chdir("d"));
        pt_make(t, "of-one", "");
        pt_make(t, "of-two", "");
        pt_mkdir(t, "dir-of-two", 0777);
        pt_own(t, "of-one", PT_U1, PT_U1, 0666);
        pt_own(t, "of-two", PT_U2, PT_U2, 0666);
        pt_own(t, "dir-of-two", PT_U2, PT_U2, 0777);
        T(chown(".", 34567, PT_GROUP));
        T(chmod(".", modes[i]));
        AS(PT_U1, PT_U1, PT_GROUP) {
            T(unlink("of-two"));
            T(rename("of-two", "x"));
            T(rename("of-one", "of-two"));
            T(renameat2(AT_FDCWD, "of-one", AT_FDCWD, "of-two", 2));
            T(rmdir("dir-of-two"));
            T(rename("of-one", "y"));
            T(unlink("y"));
            T(link("of-two", "linked"));
        }
        AS(34567, PT_U1, 0) T(unlink("of-two")); /* the directory's owner */
        pt_list(t, ".");
        static const char *const names[] = {"of-one", "of-two", "x", "y", "linked"};
        for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
            (void)unlink(names[k]); /* what is left */
        (void)rmdir("dir-of-two");
        T(chdir(".."));
        T(rmdir("d"));
    }
}

static void use_file(struct pt *t) {
    OK(open("d/f", O_RDONLY));
    OK(open("d/f", O_WRONLY));
    OK(open("d/f", O_RDWR | O_TRUNC));
    T(access("d/f", X_OK));
    T(truncate("d/f", 3));
}

/* Files of every class and mode, used by owner, group, supplementary group and others. */
static void classes(struct pt *t) {
    static const mode_t modes[] = {0700, 0070, 0007, 0400, 0040, 0004, 0222, 0444, 0077, 0};
    pt_mkdir(t, "d", 0755);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_make(t, "d/f", "content");
        pt_own(t, "d/f", PT_U1, PT_GROUP, modes[i]);
        SAY("mode %o", modes[i]);
        AS(PT_U1, PT_U1, 0) use_file(t);
        AS(PT_U2, PT_GROUP, 0) use_file(t);
        AS(PT_U2, PT_U2, PT_GROUP) use_file(t);
        AS(PT_U2, PT_U2, 0) use_file(t);
        AS(PT_U1, PT_U1, PT_GROUP) use_file(t);
    }
}

static void many_groups(struct pt *t) {
    pt_make(t, "f", "content");
    pt_own(t, "f", 0, 50031, 0060);
    pt_mkdir(t, "d", 0755);
    pt_own(t, "d", 0, 50032, 02770);
    CHILD() {
        gid_t groups[40];
        for (int i = 0; i < 40; i++)
            groups[i] = (gid_t)(50000 + i);
        T(setgroups(40, groups));
        T(setresgid(PT_U1, PT_U1, PT_U1));
        T(setresuid(PT_U1, PT_U1, PT_U1));
        OK(open("f", O_RDWR));
        T(truncate("f", 4));
        OK(open("d/new", O_CREAT | O_WRONLY, 02770));
        T(mkdir("d/dir", 02770));
    }
    pt_show(t, "f");
    pt_show(t, "d/new");
    pt_show(t, "d/dir");
}

static void directory_rights(struct pt *t) {
    static const mode_t modes[] = {0777, 0755, 0733, 0711, 0700, 0766, 0744, 0722};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        struct stat st;
        pt_mkdir(t, "d", 0777);
        pt_make(t, "d/f", "content");
        T(chmod("d/f", 0666));
        pt_mkdir(t, "d/sub", 0777);
        T(chmod("d", modes[i]));
        AS(PT_U1, PT_U1, 0) {
            SAY("mode %o", modes[i]);
            T(stat("d/f", &st));
            T(stat("d/none", &st));
            OK(opendir("d") ? 0 : -1);
            OK(open("d/f", O_RDWR));
            OK(open("d/new", O_CREAT | O_WRONLY, 0644));
            T(mkdir("d/newdir", 0755));
            T(symlink("x", "d/newlink"));
            T(mkfifo("d/newfifo", 0644));
            T(link("d/f", "d/hard"));
            T(rename("d/f", "d/g"));
            T(rename("d/g", "d/f"));
            T(rename("d/f", "d/sub/f"));
            T(unlink("d/f"));
            T(rmdir("d/sub"));
            T(chdir("d"));
            T(chdir(t->base));
            OK(open("d", O_TMPFILE | O_RDWR, 0644));
            T(stat("d/sub/f", &st));
        }
        T(chmod("d", 0777));
        static const char *const names[] = {"d/f",       "d/g",     "d/new", "d/newlink",
                                            "d/newfifo", "d/sub/f", "d/hard"};
        for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
            (void)unlink(names[k]); /* what there is */
        (void)rmdir("d/newdir");
        (void)rmdir("d/sub");
        T(rmdir("d"));
    }
}

static void rename_foreign_dirs(struct pt *t) {
    /* Moving a directory writes its "..": it takes permission on the directory itself. */
    pt_mkdir(t, "a", 0777);
    pt_mkdir(t, "b", 0777);
    pt_mkdir(t, "a/d", 0755);
    AS(PT_U1, PT_U1, 0) {
        T(rename("a/d", "b/d"));
        T(rename("a/d", "a/e"));
        T(rename("a/e", "a/d"));
    }
    T(chown("a/d", PT_U1, PT_U1));
    T(chmod("a/d", 0555));
    AS(PT_U1, PT_U1, 0) {
        T(rename("a/d", "b/d"));
        T(chmod("a/d", 0755));
        T(rename("a/d", "b/d"));
    }
    pt_list(t, "b");
}

static void open_then_lose(struct pt *t) {
    struct pt_gate ready, changed;
    pt_gate_init(t, &ready);
    pt_gate_init(t, &changed);
    pt_make(t, "f", "content");
    pt_own(t, "f", PT_U1, PT_U1, 0600);
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        char buffer[8];
        if (pt_become(PT_U1, PT_U1, 0) < 0)
            SAY("cannot become somebody");
        int fd = OK(open("f", O_RDWR));
        pt_gate_open(&ready);
        pt_gate_await(t, &changed);
        T(pread(fd, buffer, 7, 0));
        T(pwrite(fd, "C", 1, 0));
        T(ftruncate(fd, 3));
        T(fchmod(fd, 0666));
        OK(open("f", O_RDONLY));
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        OK(open(path, O_RDONLY));
        pt_end();
    }
    pt_gate_await(t, &ready);
    T(chown("f", 0, 0));
    pt_gate_open(&changed);
    pt_reap(t, pid);
    pt_show(t, "f");
}

static void root_bypasses(struct pt *t) {
    pt_mkdir(t, "d", 0);
    pt_own(t, "d", PT_U1, PT_U1, 0);
    int fd = OK(open("d/f", O_CREAT | O_RDWR, 0));
    T(write(fd, "x", 1));
    close(fd);
    pt_own(t, "d/f", PT_U1, PT_U1, 0);
    fd = OK(open("d/f", O_RDWR | O_APPEND));
    T(write(fd, "y", 1));
    close(fd);
    T(access("d/f", R_OK | W_OK));
    T(access("d/f", X_OK));
    pt_look(t, "d/f");
    pt_list(t, "d");
}

static void root_without_capabilities(struct pt *t) {
    pt_mkdir(t, "d", 0700);
    pt_make(t, "d/f", "x");
    pt_make(t, "f", "x");
    pt_own(t, "f", PT_U1, PT_U1, 0600);
    pt_own(t, "d", PT_U1, PT_U1, 0700);
    CHILD() {
        T(prctl(PR_SET_KEEPCAPS, 0));
        T(setresuid(PT_U2, 0, 0));
        T(setfsuid(0) == 0);
        OK(open("f", O_RDWR));
        T(setresuid(PT_U2, PT_U2, PT_U2));
        OK(open("f", O_RDWR));
        OK(open("d/f", O_RDONLY));
    }
}

const struct pt_case pt_perm_cases[] = {
    {"owner and group of own objects", own_objects, 0, 0},
    {"owner and group of everybody's objects", owners, PT_ROOT, 0},
    {"setfsuid and effective ids", fs_ids, PT_ROOT, 0},
    {"set-gid directories, everybody", setgid_directory, PT_ROOT, 0},
    {"a set-gid directory of the supplementary group", setgid_own, 0, 0},
    {"sticky directories", sticky, PT_ROOT, 0},
    {"owner, group, others", classes, PT_ROOT, 0},
    {"forty supplementary groups", many_groups, PT_ROOT, 0},
    {"rights on directories", directory_rights, PT_ROOT, 0},
    {"moving somebody else's directory", rename_foreign_dirs, PT_ROOT, 0},
    {"an open file outlives its permissions", open_then_lose, PT_ROOT, 0},
    {"root passes modes", root_bypasses, PT_ROOT, 0},
    {"root's ids without root's rights", root_without_capabilities, PT_ROOT, 0},
    {NULL, NULL, 0, NULL},
};
