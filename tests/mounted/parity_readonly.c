/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parity of read-only mounts: everything that changes is refused with EROFS in the native order of
 * checks, everything else works. The tree is made beforehand by `parity --prepare-readonly`.
 */
#include "parity.h"

#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

int pt_readonly_prepare(const char *dir) {
    if (chdir(dir) < 0)
        return -errno;
    umask(022);
    int fd = open("file", O_CREAT | O_WRONLY | O_TRUNC, 0666);
    if (fd < 0 || write(fd, "content", 7) != 7 || fchmod(fd, 0666) < 0 || close(fd) < 0)
        return -errno;
    fd = open("script", O_CREAT | O_WRONLY | O_TRUNC, 0755);
    if (fd < 0 || write(fd, "#!/bin/sh\nexit 5\n", 17) != 17 || close(fd) < 0)
        return -errno;
    if (mkdir("dir", 0777) < 0 || chmod("dir", 0777) < 0 || mkdir("empty", 0777) < 0 ||
        symlink("file", "link") < 0 || mkfifo("fifo", 0666) < 0 || chmod("fifo", 0666) < 0 ||
        link("file", "dir/hard") < 0)
        return -errno;
    if (setxattr("file", "user.a", "value", 5, 0) < 0 && errno != EOPNOTSUPP)
        return -errno;
    return 0;
}

static void reading(struct pt *t) {
    char buffer[64];
    struct stat st;
    pt_list(t, ".");
    pt_list(t, "dir");
    pt_look(t, "file");
    pt_look(t, "dir/hard");
    pt_show(t, "file");
    pt_show(t, "link");
    pt_show(t, "fifo");
    T(readlink("link", buffer, sizeof(buffer)));
    pt_xattrs(t, "file");
    T(stat("none", &st));
    T(stat("file/x", &st));
}

static void opens(struct pt *t) {
    static const char *const names[] = {"file", "dir", "link", "none", "none/x", "file/x", "fifo"};
    static const int flags[] = {O_RDONLY,
                                O_WRONLY,
                                O_RDWR,
                                O_RDONLY | O_CREAT,
                                O_RDWR | O_CREAT,
                                O_RDWR | O_CREAT | O_EXCL,
                                O_RDONLY | O_TRUNC,
                                O_WRONLY | O_TRUNC,
                                O_WRONLY | O_APPEND,
                                O_RDONLY | O_DIRECT,
                                O_PATH,
                                O_TMPFILE | O_RDWR,
                                O_RDONLY | O_DIRECTORY};
    for (size_t n = 0; n < sizeof(names) / sizeof(*names); n++)
        for (size_t f = 0; f < sizeof(flags) / sizeof(*flags); f++) {
            SAY("%s %o", names[n], flags[f]);
            int fd = OK(open(names[n], flags[f] | O_NONBLOCK, 0644));
            if (fd >= 0)
                close(fd);
        }
}

static void names(struct pt *t) {
    T(mkdir("new", 0755));
    T(mkdir("dir", 0755));
    T(mkdir("none/new", 0755));
    T(mkdir("file/new", 0755));
    T(rmdir("empty"));
    T(rmdir("dir"));
    T(rmdir("none"));
    T(rmdir("file"));
    T(unlink("file"));
    T(unlink("dir"));
    T(unlink("none"));
    T(unlink("none/x"));
    T(symlink("x", "new"));
    T(symlink("x", "file"));
    T(link("file", "new"));
    T(link("file", "dir/hard"));
    T(link("none", "new"));
    T(mkfifo("new", 0600));
    T(mkfifo("fifo", 0600));
    T(mknod("new", S_IFREG | 0600, 0));
    T(rename("file", "new"));
    T(rename("file", "dir/hard"));
    T(rename("none", "new"));
    T(rename("dir", "dir/sub"));
    T(renameat2(AT_FDCWD, "file", AT_FDCWD, "link", RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "file", AT_FDCWD, "link", RENAME_NOREPLACE));
    pt_list(t, ".");
}

static void attributes(struct pt *t) {
    static const char *const objects[] = {"file", "dir", "link", "none", "file/x"};
    for (size_t i = 0; i < sizeof(objects) / sizeof(*objects); i++) {
        const char *name = objects[i];
        SAY("%s", name);
        T(chmod(name, 0600));
        T(chown(name, 1, 1));
        T(lchown(name, (uid_t)-1, (gid_t)-1));
        T(truncate(name, 0));
        T(utimensat(AT_FDCWD, name, NULL, 0));
        T(utimensat(AT_FDCWD, name, (struct timespec[2]){{0, UTIME_OMIT}, {0, UTIME_OMIT}}, 0));
        T(setxattr(name, "user.b", "x", 1, 0));
        T(removexattr(name, "user.a"));
        T(setxattr(name, "system.posix_acl_access", "x", 1, 0));
        T(access(name, W_OK));
        T(access(name, R_OK));
    }
}

static void descriptors(struct pt *t) {
    int fd = OK(open("file", O_RDONLY)), dir = OK(open("dir", O_RDONLY)), flags = 0;
    T(fchmod(fd, 0600));
    T(fchown(fd, 1, 1));
    T(ftruncate(fd, 0));
    T(futimens(fd, NULL));
    T(fallocate(fd, 0, 0, 10));
    T(fsetxattr(fd, "user.b", "x", 1, 0));
    T(fremovexattr(fd, "user.a"));
    T(fsync(fd));
    T(fdatasync(fd));
    T(fsync(dir));
    T(syncfs(fd));
    T(flock(fd, LOCK_EX | LOCK_NB));
    T(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    flags |= FS_NODUMP_FL;
    T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    T(mkdirat(dir, "x", 0755));
    T(unlinkat(dir, "hard", 0));
    close(fd), close(dir);
}

static void mapping(struct pt *t) {
    int fd = OK(open("file", O_RDONLY));
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    OK(map == MAP_FAILED ? -1 : 0);
    if (map != MAP_FAILED) {
        pt_bytes(t, "mapped", map, 10);
        T(mprotect(map, 4096, PROT_READ | PROT_WRITE));
    }
    OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    close(fd);
}

static void running(struct pt *t) {
    int status = 0;
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        char *const argv[] = {(char *)"script", NULL};
        execve("./script", argv, NULL);
        pt_outcome(t, "execve", -1);
        pt_end();
    }
    waitpid(pid, &status, 0);
    T(WEXITSTATUS(status));
}

static void special(struct pt *t) {
    char buffer[8];
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = OK(open("fifo", O_RDWR | O_NONBLOCK)); /* data in a fifo is no change */
    T(write(fd, "data", 4));
    T(read(fd, buffer, 8));
    close(fd);
    int server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(bind(server, (struct sockaddr *)&address, sizeof(address)));
    close(server);
}

static void flags(struct pt *t) {
    struct statvfs st;
    T(statvfs(".", &st));
    T((st.f_flag & ST_RDONLY) != 0);
}

static void as_user(struct pt *t) {
    AS(PT_U1, PT_U1, 0) {
        OK(open("file", O_WRONLY));
        OK(open("new", O_CREAT | O_WRONLY, 0644));
        T(unlink("file"));
        T(chmod("file", 0600));
        T(mkdir("dir/new", 0755));
        T(access("file", W_OK));
        T(truncate("file", 0));
        T(utimensat(AT_FDCWD, "file", NULL, 0));
        pt_look(t, "file");
    }
}

const struct pt_case pt_readonly_cases[] = {
    {"reading", reading, 0, 0},
    {"opens of every kind", opens, 0, 0},
    {"names", names, 0, 0},
    {"attributes", attributes, 0, 0},
    {"descriptors", descriptors, 0, 0},
    {"mappings", mapping, 0, 0},
    {"programs", running, 0, 0},
    {"fifo and socket", special, 0, 0},
    {"statvfs says so", flags, 0, 0},
    {"an ordinary user", as_user, PT_ROOT, 0},
    {NULL, NULL, 0, NULL},
};
