/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: mkdir, rmdir, unlink, link, symlink, mknod; bytes and lengths of names; cwd; threads. */
#include "parity.h"

#include <limits.h>
#include <pthread.h>

static void directories(struct pt *t) {
    T(mkdir("d", 0755));
    T(mkdir("d", 0755));
    T(mkdir("d/e", 01777));
    T(mkdir("d/e/", 0755));
    T(mkdir("g/", 0700));
    T(mkdir("none/x", 0755));
    T(mkdir(".", 0755));
    T(mkdir("..", 0755));
    T(mkdir("", 0755));
    T(mkdir("/", 0755));
    T(symlink("nowhere", "l"));
    T(mkdir("l", 0755));
    pt_list(t, ".");
    pt_list(t, "d");
    pt_show(t, "d/e");
    T(rmdir("d"));
    T(rmdir("d/e"));
    T(rmdir("d/."));
    T(rmdir("d/.."));
    T(rmdir("."));
    T(rmdir("d/"));
    T(rmdir("d"));
    T(rmdir("l"));
    pt_make(t, "f", "");
    T(rmdir("f"));
    T(unlink("g"));
    T(rmdir("g"));
    pt_list(t, ".");
}

static void unlinking(struct pt *t) {
    pt_make(t, "f", "text");
    pt_mkdir(t, "d", 0755);
    T(symlink("f", "l"));
    T(symlink("d", "ld"));
    T(unlink("none"));
    T(unlink("f/"));
    T(unlink("d"));
    T(unlink("d/"));
    T(unlink("."));
    T(unlink("ld/"));
    T(unlink("ld"));
    T(unlink("l"));
    T(unlink("f"));
    T(unlink("f"));
    T(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
    T(unlinkat(AT_FDCWD, "d", 1 << 20));
    pt_list(t, ".");
}

static void unlinked_file(struct pt *t) {
    pt_make(t, "f", "still open");
    int fd = OK(open("f", O_RDWR));
    T(unlink("f"));
    pt_showfd(t, "f", fd);
    pt_lookfd(t, "f", fd);
    T(pwrite(fd, "STILL", 5, 0));
    T(fchmod(fd, 0600));
    T(fchown(fd, getuid(), getgid()));
    T(ftruncate(fd, 7));
    T(futimens(fd, (struct timespec[2]){{1, 2}, {3, 4}}));
    pt_showfd(t, "f", fd);
    pt_lookfd(t, "f", fd);
    T(linkat(fd, "", AT_FDCWD, "back", AT_EMPTY_PATH) == 0);
    pt_list(t, ".");
    T(close(fd));
}

static void unlinked_directory(struct pt *t) {
    struct stat st;
    pt_mkdir(t, "d", 0755);
    int dir = OK(open("d", O_RDONLY | O_DIRECTORY));
    T(rmdir("d"));
    T(fstat(dir, &st));
    T(st.st_nlink);
    OK(openat(dir, "f", O_CREAT | O_RDWR, 0644));
    T(mkdirat(dir, "e", 0755));
    T(symlinkat("x", dir, "l"));
    T(fstatat(dir, ".", &st, 0));
    T(fstatat(dir, "x", &st, 0));
    T(fchmod(dir, 0700));
    char buffer[1024];
    T(fchdir(dir));
    OK(getcwd(buffer, sizeof(buffer)) ? 0 : -1);
    T(stat(".", &st));
    T(stat("..", &st));
    close(dir);
}

static void hard_links(struct pt *t) {
    pt_make(t, "a", "shared");
    pt_mkdir(t, "d", 0755);
    T(link("a", "b"));
    T(link("a", "d/c"));
    pt_show(t, "a");
    pt_show(t, "d/c");
    T(link("a", "b"));
    T(link("none", "x"));
    T(link("d", "e"));
    T(link("a", "none/x"));
    T(link("a", "d"));
    T(symlink("a", "l"));
    T(link("l", "m"));
    pt_show(t, "m");
    T(linkat(AT_FDCWD, "l", AT_FDCWD, "n", AT_SYMLINK_FOLLOW));
    pt_show(t, "n");
    T(chmod("b", 0600));
    pt_show(t, "d/c");
    int fd = OK(open("b", O_WRONLY | O_TRUNC));
    T(write(fd, "changed by another name", 23));
    close(fd);
    pt_look(t, "d/c");
    T(unlink("a"));
    pt_show(t, "b");
    T(unlink("n"));
    T(unlink("b"));
    pt_show(t, "d/c");
    pt_list(t, ".");
    T(link("d/c", "fifo-no"));
    T(mkfifo("p", 0600));
    T(link("p", "q"));
    pt_show(t, "q");
}

static void link_by_descriptor(struct pt *t) {
    char path[64];
    pt_make(t, "f", "x");
    int fd = OK(open("f", O_RDONLY));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
    pt_showfd(t, "f", fd);
    T(unlink("f"));
    T(unlink("g"));
    T(linkat(AT_FDCWD, path, AT_FDCWD, "h", AT_SYMLINK_FOLLOW)); /* gone for good */
    pt_list(t, ".");
    close(fd);
}

static void link_times(struct pt *t) {
    pt_make(t, "f", "x");
    pt_mkdir(t, "d", 0755);
    pt_age(t, "f");
    pt_age(t, "d");
    struct pt_stamp file = pt_stamp("f"), dir = pt_stamp("d");
    pt_tick();
    T(link("f", "d/g"));
    pt_moved(t, "f", &file);
    pt_moved(t, "d", &dir);
    file = pt_stamp("f"), dir = pt_stamp("d");
    pt_tick();
    T(unlink("d/g"));
    pt_moved(t, "f", &file);
    pt_moved(t, "d", &dir);
}

static void symbolic(struct pt *t) {
    static const char *const targets[] = {"f", "../x", "/absolute/path", "dangling", ".", "a/../b"};
    char buffer[PATH_MAX + 10];
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++) {
        T(symlink(targets[i], "l"));
        pt_bytes(t, "target", buffer, readlink("l", buffer, sizeof(buffer)));
        pt_bytes(t, "short", buffer, readlink("l", buffer, 2));
        pt_show(t, "l");
        T(unlink("l"));
    }
    T(symlink("", "l"));
    T(symlink("x", "none/l"));
    T(symlink("x", "l"));
    T(symlink("y", "l"));
    T(readlink("l", buffer, 0));
    T(readlink("none", buffer, 10));
    pt_make(t, "f", "");
    T(readlink("f", buffer, 10));
    T(readlink(".", buffer, 10));
    for (size_t length = 50; length <= PATH_MAX; length += length < 4000 ? 790 : 24) {
        memset(buffer, 'p', length);
        buffer[length] = 0;
        SAY("target of %zu", length);
        T(symlink(buffer, "long"));
        pt_bytes(t, "long", buffer, readlink("long", buffer, sizeof(buffer)));
        (void)unlink("long"); /* the longest were refused */
    }
}

static void symlink_loops(struct pt *t) {
    struct stat st;
    char name[16], target[16];
    T(symlink("b", "a"));
    T(symlink("a", "b"));
    T(stat("a", &st));
    OK(open("a", O_RDONLY));
    OK(open("a", O_CREAT | O_WRONLY, 0644));
    T(chmod("a", 0644));
    T(stat("a/x", &st));
    pt_make(t, "l0", "end");
    for (int i = 1; i <= 42; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        snprintf(target, sizeof(target), "l%d", i - 1);
        if (symlink(target, name) < 0)
            pt_outcome(t, name, -1);
    }
    T(stat("l39", &st));
    T(stat("l40", &st));
    T(stat("l41", &st));
}

static void symlink_escapes(struct pt *t) {
    /* Links that leave the tree are followed by the caller's kernel, as natively. */
    struct stat st;
    T(symlink("/", "root"));
    T(stat("root/dev/null", &st));
    T(S_ISCHR(st.st_mode));
    T(symlink("../../../../../../../../../../..", "up"));
    T(stat("up/dev/null", &st));
    T(S_ISCHR(st.st_mode));
    T(symlink("/proc/self/fd", "fds"));
    int fd = OK(open("fds/0", O_PATH));
    if (fd >= 0)
        close(fd);
}

static void name_bytes(struct pt *t) {
    static const char *const names[] = {" ",
                                        "  two",
                                        "new\nline",
                                        "tab\t",
                                        "\xc3\xa4\xe2\x82\xac",
                                        "\xff\xfe\x80",
                                        "*?[]",
                                        "-rf",
                                        "...",
                                        "..a",
                                        "a.",
                                        "\\back",
                                        "'quote\"",
                                        "\x01\x7f",
                                        "A",
                                        "a"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        pt_bytes(t, "name", names[i], (ssize_t)strlen(names[i]));
        int fd = OK(open(names[i], O_CREAT | O_EXCL | O_RDWR, 0644));
        T(write(fd, names[i], strlen(names[i])));
        close(fd);
    }
    pt_list(t, ".");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        pt_look(t, names[i]);
        T(rename(names[i], "x"));
        T(rename("x", names[i]));
        T(unlink(names[i]));
    }
    pt_list(t, ".");
}

static void name_lengths(struct pt *t) {
    char name[300];
    struct stat st;
    static const size_t lengths[] = {1, 128, 254, 255, 256, 257, 299};
    pt_make(t, "f", "");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        memset(name, 'n', lengths[i]);
        name[lengths[i]] = 0;
        SAY("length %zu", lengths[i]);
        int fd = OK(open(name, O_CREAT | O_EXCL | O_RDWR, 0644));
        if (fd >= 0)
            close(fd);
        T(stat(name, &st));
        T(unlink(name));
        T(mkdir(name, 0755));
        T(rmdir(name));
        T(symlink("x", name));
        T(unlink(name));
        T(link("f", name));
        T(rename(name, "g"));
        T(rename("g", name));
        T(mkfifo(name, 0600));
        T(unlink(name));
        T(access(name, F_OK));
    }
}

static void path_lengths(struct pt *t) {
    static char path[PATH_MAX + 200];
    struct stat st;
    static const size_t lengths[] = {4000, 4094, 4095, 4096, 4100};
    pt_mkdir(t, "d", 0755);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        size_t at = 0;
        while (at + 2 <= lengths[i])
            at += (size_t)snprintf(path + at, 3, "./");
        if (at < lengths[i])
            path[at++] = 'd';
        path[at] = 0;
        SAY("path of %zu", at);
        T(stat(path, &st));
        T(access(path, F_OK));
        T(mkdir(path, 0755));
    }
}

static void deep(struct pt *t) {
    char name[201], cwd[2 * PATH_MAX];
    memset(name, 'd', 200);
    name[200] = 0;
    for (int i = 0; i < 25; i++)
        if (mkdir(name, 0755) < 0 || chdir(name) < 0)
            pt_outcome(t, "deeper", -1);
    pt_make(t, "f", "deep down");
    pt_look(t, "f");
    OK(getcwd(cwd, PATH_MAX) ? 0 : -1);
    for (int i = 0; i < 25; i++)
        if (chdir("..") < 0)
            pt_outcome(t, "up", -1);
    pt_list(t, ".");
}

static void deep_up(struct pt *t) {
    struct stat top, st;
    T(stat(".", &top));
    for (int i = 0; i < 40; i++)
        if (mkdir("sub", 0755) < 0 || chdir("sub") < 0)
            pt_outcome(t, "deeper", -1);
    for (int i = 0; i < 40; i++)
        if (chdir("..") < 0 || (i % 2 && rmdir("sub/sub") < 0 && errno != ENOENT))
            pt_outcome(t, "up", -1);
    T(stat(".", &st));
    T(st.st_ino == top.st_ino);
    pt_list(t, ".");
}

static void working_directory(struct pt *t) {
    char cwd[PATH_MAX];
    pt_mkdir(t, "d", 0755);
    pt_mkdir(t, "d/e", 0755);
    T(chdir("d/e"));
    OK(getcwd(cwd, sizeof(cwd)) ? 0 : -1);
    SAY("ends in %s", strlen(cwd) > 4 ? cwd + strlen(cwd) - 4 : cwd);
    T(rename("../../d", "../../moved"));
    OK(getcwd(cwd, sizeof(cwd)) ? 0 : -1);
    SAY("ends in %s", strlen(cwd) > 8 ? cwd + strlen(cwd) - 8 : cwd);
    pt_make(t, "f", "made after the rename");
    pt_look(t, "../../moved/e/f");
    T(unlink("f"));
    T(rmdir("../e"));
    OK(getcwd(cwd, sizeof(cwd)) ? 0 : -1);
    OK(open("f", O_CREAT | O_WRONLY, 0644));
    T(chdir(".."));
    T(mkdir("e", 0755));
    pt_list(t, "../");
}

struct churn {
    int who, errors;
};

static void *churn_thread(void *arg) {
    struct churn *c = arg;
    char name[32], other[32];
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof(name), "t%d-%d", c->who, i);
        snprintf(other, sizeof(other), "r%d-%d", c->who, i);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, name, 4) != 4 || close(fd) < 0)
            c->errors++;
        if (i % 3 == 0 && unlink(name) < 0)
            c->errors++;
        if (i % 3 == 1 && rename(name, other) < 0)
            c->errors++;
        (void)mkdir("contended", 0755); /* who wins is open */
        (void)rmdir("contended");
    }
    return NULL;
}

static void threads(struct pt *t) {
    pthread_t ids[4];
    struct churn work[4];
    for (int i = 0; i < 4; i++) {
        work[i] = (struct churn){i, 0};
        pthread_create(&ids[i], NULL, churn_thread, &work[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
        SAY("thread %d: %d errors", i, work[i].errors);
    }
    (void)rmdir("contended"); /* mostly gone already */
    pt_list(t, ".");
}

static void *winner_thread(void *arg) {
    intptr_t won = 0;
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd >= 0) {
            won++;
            close(fd);
        }
    }
    *(intptr_t *)arg = won;
    return NULL;
}

static void exclusive_race(struct pt *t) {
    pthread_t ids[4];
    intptr_t won[4] = {0}, sum = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&ids[i], NULL, winner_thread, &won[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
        sum += won[i];
    }
    SAY("%ld created by somebody", (long)sum);
    pt_list(t, ".");
}

const struct pt_case pt_name_cases[] = {
    {"mkdir and rmdir", directories, 0, 0},
    {"unlink", unlinking, 0, 0},
    {"an unlinked file stays usable", unlinked_file, 0, 0},
    {"a removed directory", unlinked_directory, 0, 0},
    {"hard links", hard_links, 0, 0},
    {"a link made from a descriptor", link_by_descriptor, 0, 0},
    {"link and unlink move times", link_times, 0, 0},
    {"symbolic links", symbolic, 0, 0},
    {"loops and long chains of symbolic links", symlink_loops, 0, 0},
    {"symbolic links that leave the tree", symlink_escapes, 0, 0},
    {"bytes of names", name_bytes, 0, 0},
    {"lengths of names", name_lengths, 0, 0},
    {"lengths of paths", path_lengths, 0, 0},
    {"deeper than a path can be", deep, 0, 0},
    {"down forty directories and up again", deep_up, 0, 0},
    {"the working directory is renamed and removed", working_directory, 0, 0},
    {"threads create, rename and unlink in one directory", threads, 0, 0},
    {"threads race for exclusive creation", exclusive_race, 0, 0},
    {NULL, NULL, 0, NULL},
};
