/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: every operation on every kind of path; the errors must be the native ones. */
#include "parity.h"

#include <linux/fs.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

static char name_255[256], name_256[257], path_long[5000];

static const char *const paths[] = {
    "none",        "none/x",   "file",    "file/",         "file/x",  "dir",      "dir/",
    "dir/none",    "dir/file", "full",    "tofile",        "todir",   "todir/",   "tofile/",
    "tonone",      "loop",     "loop/x",  "fifo",          "",        ".",        "..",
    "dir/..",      "dir/.",    name_255,  name_256,        path_long, "locked/x", "closed",
    "dir/../file", "//",       "tonone/", "full/inside/x",
};
enum { PATHS = sizeof(paths) / sizeof(*paths) };

/* The tree that paths lead into. "." and ".." stay the case's own. */
static void prepare(struct pt *t) {
    memset(name_255, 'n', 255);
    memset(name_256, 'n', 256);
    for (size_t i = 0; i + 10 < sizeof(path_long); i += 10)
        memcpy(path_long + i, "dir/../abc" + (i % 2), 10);
    pt_make(t, "file", "content");
    pt_mkdir(t, "dir", 0755);
    pt_make(t, "dir/file", "other content");
    pt_mkdir(t, "full", 0755);
    pt_mkdir(t, "full/inside", 0755);
    pt_make(t, "closed", "nobody reads this");
    pt_mkdir(t, "locked", 0755);
    pt_make(t, "locked/x", "behind a closed door");
    if (symlink("file", "tofile") < 0 || symlink("dir", "todir") < 0 ||
        symlink("nowhere", "tonone") < 0 || symlink("loop", "loop") < 0 || mkfifo("fifo", 0644) < 0)
        pt_outcome(t, "prepare", -1);
    if (chmod("closed", 0) < 0 || chmod("locked", 0) < 0)
        pt_outcome(t, "prepare", -1);
}

static void clear(void) {
    static const char *const files[] = {
        "file", "dir/file", "closed",  "locked/x", "tofile",   "todir",  "tonone",       "loop",
        "fifo", "none",     "nowhere", "target",   "dir/none", name_255, "full/inside/x"};
    static const char *const dirs[] = {"full/inside", "full",    "dir",           "locked",
                                       "none",        "nowhere", "target/inside", "target",
                                       "dir/none",    name_255};
    (void)chmod("locked", 0700); /* clear() removes whatever is left */
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
        (void)unlink(files[i]);
    for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
        (void)rmdir(dirs[i]);
}

struct operation {
    int (*act)(const char *path);
    enum { LOOKS, CHANGES } kind; /* what looks leaves the tree as it was */
};

static char scratch[256];
static int closing(int fd) { return fd < 0 ? -1 : close(fd); }
static int op_stat(const char *p) {
    struct stat s;
    return stat(p, &s);
}
static int op_lstat(const char *p) {
    struct stat s;
    return lstat(p, &s);
}
static int op_access(const char *p) { return access(p, R_OK); }
static int op_access_x(const char *p) { return access(p, X_OK); }
static int op_open(const char *p) { return closing(open(p, O_RDONLY | O_NONBLOCK)); }
static int op_open_write(const char *p) { return closing(open(p, O_RDWR | O_NONBLOCK)); }
static int op_open_dir(const char *p) { return closing(open(p, O_RDONLY | O_DIRECTORY)); }
static int op_create(const char *p) {
    return closing(open(p, O_RDWR | O_CREAT | O_NONBLOCK, 0644));
}
static int op_create_excl(const char *p) {
    return closing(open(p, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0644));
}
static int op_open_trunc(const char *p) {
    return closing(open(p, O_WRONLY | O_TRUNC | O_NONBLOCK));
}
static int op_tmpfile(const char *p) { return closing(open(p, O_TMPFILE | O_RDWR, 0600)); }
static int op_mkdir(const char *p) { return mkdir(p, 0755); }
static int op_rmdir(const char *p) { return rmdir(p); }
static int op_unlink(const char *p) { return unlink(p); }
static int op_mknod(const char *p) { return mknod(p, S_IFREG | 0644, 0); }
static int op_mkfifo(const char *p) { return mkfifo(p, 0644); }
static int op_symlink(const char *p) { return symlink("target", p); }
static int op_readlink(const char *p) { return (int)readlink(p, scratch, sizeof(scratch)); }
static int op_link_from(const char *p) { return link(p, "target"); }
static int op_link_to(const char *p) { return link("dir/file", p); }
static int op_link_follow(const char *p) {
    return linkat(AT_FDCWD, p, AT_FDCWD, "target", AT_SYMLINK_FOLLOW);
}
static int op_rename_from(const char *p) { return rename(p, "target"); }
static int op_rename_file_to(const char *p) { return rename("dir/file", p); }
static int op_rename_dir_to(const char *p) { return rename("full", p); }
static int op_rename_noreplace(const char *p) {
    return renameat2(AT_FDCWD, "dir/file", AT_FDCWD, p, RENAME_NOREPLACE);
}
static int op_rename_exchange(const char *p) {
    return renameat2(AT_FDCWD, "dir/file", AT_FDCWD, p, RENAME_EXCHANGE);
}
static int op_chmod(const char *p) { return chmod(p, 0755); }
static int op_chown(const char *p) { return chown(p, (uid_t)-1, getgid()); }
static int op_lchown(const char *p) { return lchown(p, (uid_t)-1, getgid()); }
static int op_truncate(const char *p) { return truncate(p, 3); }
static int op_utimens(const char *p) { return utimensat(AT_FDCWD, p, NULL, 0); }
static int op_chdir(const char *p) {
    int result = chdir(p), saved = errno;
    return result == 0 && chdir(scratch) == 0 ? 0 : (errno = saved, -1);
}
static int op_statfs(const char *p) {
    struct statfs s;
    return statfs(p, &s);
}
static int op_getxattr(const char *p) { return (int)getxattr(p, "user.none", scratch, 8); }
static int op_setxattr(const char *p) { return setxattr(p, "user.a", "x", 1, 0); }
static int op_listxattr(const char *p) { return (int)listxattr(p, scratch, sizeof(scratch)); }
static int op_removexattr(const char *p) { return removexattr(p, "user.none"); }
static int op_acl(const char *p) { return (int)getxattr(p, "system.posix_acl_access", scratch, 8); }
static int op_execve(const char *p) {
    char *const argv[] = {(char *)"x", NULL};
    return execve(p, argv, NULL); /* nothing there is a program */
}

/* Directories that are not the case's own to change; the root is on another filesystem as well. */
static bool outside(const char *path) { return strcmp(path, "..") == 0 || strcmp(path, "//") == 0; }

static void on_every_path(struct pt *t) {
    const struct operation *operation = t->arg;
    prepare(t);
    for (size_t i = 0; i < PATHS; i++) {
        if (operation->kind != LOOKS && outside(paths[i]))
            continue;
        snprintf(scratch, sizeof(scratch), "%s", operation->act == op_chdir ? t->base : "");
        SAY("'%.20s'", paths[i]);
        if (T(operation->act(paths[i])) < 0 || operation->kind == LOOKS)
            continue;
        pt_list(t, ".");
        clear();
        prepare(t);
    }
    pt_list(t, "."); /* also what a refused operation left behind */
    clear();
    pt_list(t, ".");
}

#define OPERATION(kind, text, function)                                                            \
    {                                                                                              \
        text " on every path", on_every_path, 0, &(const struct operation) { function, kind }      \
    }

static void closed_descriptors(struct pt *t) {
    char buffer[8];
    struct stat st;
    pt_make(t, "f", "x");
    int fd = OK(open("f", O_RDWR));
    T(close(fd));
    T(close(fd));
    T(read(fd, buffer, 8));
    T(write(fd, buffer, 8));
    T(fstat(fd, &st));
    T(ftruncate(fd, 0));
    T(fsync(fd));
    T(fchmod(fd, 0600));
    T(lseek(fd, 0, SEEK_SET));
    T(openat(fd, "f", O_RDONLY));
    T(fchdir(fd));
    T(fallocate(fd, 0, 0, 1));
    int file = OK(open("f", O_RDONLY));
    T(openat(file, "x", O_RDONLY));
    T(mkdirat(file, "x", 0755));
    T(fchdir(file));
    close(file);
}

static void bad_pointers(struct pt *t) {
    T(syscall(SYS_open, (void *)8, O_RDONLY, 0));
    T(syscall(SYS_mkdir, (void *)8, 0755));
    T(syscall(SYS_stat, ".", (void *)8));
    T(syscall(SYS_rename, ".", (void *)8));
    T(syscall(SYS_readlink, ".", (void *)8, 10));
    T(symlink("x", "l"));
    T(syscall(SYS_readlink, "l", (void *)8, 10));
}

const struct pt_case pt_error_cases[] = {
    OPERATION(LOOKS, "stat", op_stat),
    OPERATION(LOOKS, "lstat", op_lstat),
    OPERATION(LOOKS, "access for reading", op_access),
    OPERATION(LOOKS, "access for executing", op_access_x),
    OPERATION(LOOKS, "open for reading", op_open),
    OPERATION(LOOKS, "open for writing", op_open_write),
    OPERATION(LOOKS, "open of a directory", op_open_dir),
    OPERATION(CHANGES, "create", op_create),
    OPERATION(CHANGES, "exclusive create", op_create_excl),
    OPERATION(CHANGES, "O_TRUNC", op_open_trunc),
    OPERATION(LOOKS, "O_TMPFILE", op_tmpfile),
    OPERATION(CHANGES, "mkdir", op_mkdir),
    OPERATION(CHANGES, "rmdir", op_rmdir),
    OPERATION(CHANGES, "unlink", op_unlink),
    OPERATION(CHANGES, "mknod", op_mknod),
    OPERATION(CHANGES, "mkfifo", op_mkfifo),
    OPERATION(CHANGES, "symlink", op_symlink),
    OPERATION(LOOKS, "readlink", op_readlink),
    OPERATION(CHANGES, "link from", op_link_from),
    OPERATION(CHANGES, "link to", op_link_to),
    OPERATION(CHANGES, "link following", op_link_follow),
    OPERATION(CHANGES, "rename from", op_rename_from),
    OPERATION(CHANGES, "rename of a file to", op_rename_file_to),
    OPERATION(CHANGES, "rename of a directory to", op_rename_dir_to),
    OPERATION(CHANGES, "rename without replacing", op_rename_noreplace),
    OPERATION(CHANGES, "rename exchanging", op_rename_exchange),
    OPERATION(CHANGES, "chmod", op_chmod),
    OPERATION(CHANGES, "chown", op_chown),
    OPERATION(CHANGES, "lchown", op_lchown),
    OPERATION(CHANGES, "truncate", op_truncate),
    OPERATION(CHANGES, "utimensat", op_utimens),
    OPERATION(LOOKS, "chdir", op_chdir),
    OPERATION(LOOKS, "statfs", op_statfs),
    OPERATION(LOOKS, "getxattr", op_getxattr),
    OPERATION(CHANGES, "setxattr", op_setxattr),
    OPERATION(LOOKS, "listxattr", op_listxattr),
    OPERATION(CHANGES, "removexattr", op_removexattr),
    OPERATION(LOOKS, "getxattr of the ACL", op_acl),
    OPERATION(LOOKS, "execve", op_execve),
    {"descriptors that are closed or of the wrong kind", closed_descriptors, 0, 0},
    {"pointers that lead nowhere", bad_pointers, 0, 0},
    {NULL, NULL, 0, NULL},
};
