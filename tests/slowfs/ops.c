/* SPDX-License-Identifier: GPL-2.0-only */
/* The operations: each waits as delay.c says and then does to the source what it was asked. */
#include "ops.h"

#include "delay.h"
#include "node.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAX_BACKGROUND 256 /* reads ahead at once; the kernel's 12 would queue the rest */

struct slow_view slow_view = {.timeout_s = 1, .ready_fd = -1};

struct directory {
    DIR *stream;
    off_t at;
    struct dirent *pending; /* read, and did not fit into the last answer */
};

static void close_fd(const int *fd) {
    if (*fd >= 0)
        (void)close(*fd); /* only of what was not written through */
}
#define CLOSING __attribute__((cleanup(close_fd)))

/* ---- answers ---- */

static void answer(fuse_req_t req, int error) {
    (void)fuse_reply_err(req, -error); /* whoever asked may be gone */
}

/* What each operation on one inode begins with: its O_PATH descriptor, or -1 and it is answered. */
static int begin(fuse_req_t req, enum slow_operation operation, fuse_ino_t ino) {
    int error = slow_delay_begin(operation, req);
    int fd = error ? error : slow_node_open(ino);

    if (fd >= 0)
        return fd;
    answer(req, fd);
    return -1;
}

/* The same where an open file is all that is needed. */
static bool begin_open(fuse_req_t req, enum slow_operation operation) {
    int error = slow_delay_begin(operation, req);

    if (error)
        answer(req, error);
    return !error;
}

static void proc_path(int fd, char path[32]) { (void)snprintf(path, 32, "/proc/self/fd/%d", fd); }

static void show(struct stat *info) {
    if (!slow_view.coarse)
        return;
    info->st_atim.tv_nsec = info->st_mtim.tv_nsec = 0;
    info->st_ctim = info->st_mtim;
}

static int look_up(int parent_fd, const char *name, struct fuse_entry_param *ret_entry) {
    int error;

    memset(ret_entry, 0, sizeof(*ret_entry));
    ret_entry->entry_timeout = ret_entry->attr_timeout = slow_view.timeout_s;
    error = slow_node_lookup(parent_fd, name, ret_entry);
    show(&ret_entry->attr);
    return error;
}

static void answer_entry(fuse_req_t req, int parent_fd, const char *name) {
    struct fuse_entry_param entry;
    int error = look_up(parent_fd, name, &entry);

    if (error)
        answer(req, error);
    else if (fuse_reply_entry(req, &entry))
        slow_node_forget(entry.ino, 1);
}

static void answer_attr(fuse_req_t req, int fd) {
    struct stat info;

    if (fstat(fd, &info)) {
        answer(req, -errno);
        return;
    }
    show(&info);
    (void)fuse_reply_attr(req, &info, slow_view.timeout_s); /* whoever asked may be gone */
}

/* ---- names and attributes ---- */

/* The name itself, or in `folded` as a source that takes either case has it. */
static const char *fold(const char *name, char folded[256]) {
    size_t i = 0;

    if (!slow_view.fold)
        return name;
    for (; name[i] && i < 255; i++)
        folded[i] = (char)tolower((unsigned char)name[i]);
    folded[i] = '\0';
    return folded;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
    CLOSING int fd = begin(req, SLOW_LOOKUP, parent);
    struct fuse_entry_param entry;
    char folded[256];
    int error;

    if (fd < 0)
        return;
    error = look_up(fd, fold(name, folded), &entry);
    if (error && error != -ENOENT)
        answer(req, error);
    else if (fuse_reply_entry(req, &entry) && !error) /* inode 0: that it does not exist is kept */
        slow_node_forget(entry.ino, 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t times) {
    slow_node_forget(ino, times);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    CLOSING int fd = begin(req, SLOW_GETATTR, ino);

    (void)fi;
    if (fd >= 0)
        answer_attr(req, fd);
}

static int set_times(const char *path, const struct stat *attr, int valid) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

    if (valid & FUSE_SET_ATTR_ATIME_NOW)
        times[0].tv_nsec = UTIME_NOW;
    else if (valid & FUSE_SET_ATTR_ATIME)
        times[0] = attr->st_atim;
    if (valid & FUSE_SET_ATTR_MTIME_NOW)
        times[1].tv_nsec = UTIME_NOW;
    else if (valid & FUSE_SET_ATTR_MTIME)
        times[1] = attr->st_mtim;
    return utimensat(AT_FDCWD, path, times, 0);
}

static int set_attr(int fd, const struct stat *attr, int valid) {
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME |
                      FUSE_SET_ATTR_MTIME_NOW;
    uid_t uid = valid & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
    gid_t gid = valid & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;
    char path[32];

    proc_path(fd, path);
    if ((!valid || valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) &&
        fchownat(fd, "", uid, gid, AT_EMPTY_PATH))
        return -errno;
    /* After the owner: a change of that takes set-user-ID away. */
    if ((valid & FUSE_SET_ATTR_MODE) && chmod(path, attr->st_mode & 07777))
        return -errno;
    if ((valid & FUSE_SET_ATTR_SIZE) && truncate(path, attr->st_size))
        return -errno;
    if ((valid & times) && set_times(path, attr, valid))
        return -errno;
    return 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
                       struct fuse_file_info *fi) {
    CLOSING int fd = begin(req, SLOW_SETATTR, ino);
    int error;

    (void)fi;
    if (fd < 0)
        return;
    error = set_attr(fd, attr, valid);
    if (error)
        answer(req, error);
    else
        answer_attr(req, fd);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino) {
    CLOSING int fd = begin(req, SLOW_READLINK, ino);
    char target[4097];
    ssize_t length;

    if (fd < 0)
        return;
    length = readlinkat(fd, "", target, sizeof(target) - 1);
    if (length < 0)
        return answer(req, -errno);
    target[length] = '\0';
    (void)fuse_reply_readlink(req, target);
}

/* ---- making and removing ---- */

/* Gives what was just made to the caller; its group is the directory's where that says so. A
 * change of owner takes set-user-ID away, so the mode comes after it. */
static int give_to_caller(fuse_req_t req, int parent_fd, const char *name, mode_t mode) {
    const struct fuse_ctx *context = fuse_req_ctx(req);
    struct stat parent;
    gid_t gid;

    if (fstat(parent_fd, &parent))
        return -errno;
    gid = parent.st_mode & S_ISGID ? (gid_t)-1 : context->gid;
    if (fchownat(parent_fd, name, context->uid, gid, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (S_ISREG(mode) && (mode & (S_ISUID | S_ISGID)) && fchmodat(parent_fd, name, mode & 07777, 0))
        return -errno;
    return 0;
}

static void answer_made(fuse_req_t req, int result, int parent_fd, const char *name, mode_t mode) {
    int error = result ? -errno : give_to_caller(req, parent_fd, name, mode);

    if (error)
        answer(req, error);
    else
        answer_entry(req, parent_fd, name);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev) {
    CLOSING int fd = begin(req, SLOW_CREATE, parent);

    if (fd >= 0)
        answer_made(req, mknodat(fd, name, mode, dev), fd, name, mode);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
    CLOSING int fd = begin(req, SLOW_MKDIR, parent);

    if (fd >= 0)
        answer_made(req, mkdirat(fd, name, mode), fd, name, S_IFDIR);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name) {
    CLOSING int fd = begin(req, SLOW_CREATE, parent);

    if (fd >= 0)
        answer_made(req, symlinkat(target, fd, name), fd, name, S_IFLNK);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name) {
    CLOSING int fd = begin(req, SLOW_CREATE, ino);
    CLOSING int parent_fd = fd < 0 ? -1 : slow_node_open(parent);
    char path[32];

    if (fd < 0)
        return;
    if (parent_fd < 0)
        return answer(req, parent_fd);
    proc_path(fd, path);
    if (linkat(AT_FDCWD, path, parent_fd, name, AT_SYMLINK_FOLLOW))
        answer(req, -errno);
    else
        answer_entry(req, parent_fd, name);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, int flags) {
    CLOSING int fd = begin(req, SLOW_UNLINK, parent);

    if (fd >= 0)
        answer(req, unlinkat(fd, name, flags) ? -errno : 0);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) {
    remove_name(req, parent, name, 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) {
    remove_name(req, parent, name, AT_REMOVEDIR);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
                      const char *to_name, unsigned flags) {
    CLOSING int fd = begin(req, SLOW_RENAME, parent);
    CLOSING int to_fd = fd < 0 ? -1 : slow_node_open(to_parent);

    if (fd < 0)
        return;
    if (to_fd < 0)
        return answer(req, to_fd);
    answer(req, renameat2(fd, name, to_fd, to_name, flags) ? -errno : 0);
}

/* ---- content ---- */

/* What the kernel above does itself, or cannot be said of a path in /proc. */
static int source_flags(int flags) {
    return (flags & ~(O_APPEND | O_DIRECT | O_NOFOLLOW)) | O_CLOEXEC;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    CLOSING int fd = begin(req, SLOW_OPEN, ino);
    char path[32];
    int opened;

    if (fd < 0)
        return;
    proc_path(fd, path);
    opened = open(path, source_flags(fi->flags));
    if (opened < 0)
        return answer(req, -errno);
    fi->fh = (uint64_t)opened;
    fi->keep_cache = slow_view.keep;
    fi->noflush = 1; /* nothing is kept back that a close could still write */
    if (fuse_reply_open(req, fi))
        (void)close(opened);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi) {
    CLOSING int parent_fd = begin(req, SLOW_CREATE, parent);
    CLOSING int opened = -1;
    struct fuse_entry_param entry;
    int error;

    if (parent_fd < 0)
        return;
    opened = openat(parent_fd, name, source_flags(fi->flags) | O_CREAT | O_EXCL, mode);
    error = opened < 0 ? -errno : give_to_caller(req, parent_fd, name, mode | S_IFREG);
    /* Made meanwhile behind our back: the kernel asks for names that it does not know. */
    if (error == -EEXIST && !(fi->flags & O_EXCL)) {
        opened = openat(parent_fd, name, source_flags(fi->flags) | O_NOFOLLOW);
        error = opened < 0 ? -errno : 0;
    }
    if (!error)
        error = look_up(parent_fd, name, &entry);
    if (error)
        return answer(req, error);
    fi->fh = (uint64_t)opened;
    fi->noflush = 1;
    if (fuse_reply_create(req, &entry, fi))
        slow_node_forget(entry.ino, 1);
    else
        opened = -1; /* the kernel's, until the release */
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset,
                    struct fuse_file_info *fi) {
    char *buffer;
    ssize_t got;

    (void)ino;
    if (!begin_open(req, SLOW_READ))
        return;
    bytes = slow_delay_limit(bytes);
    buffer = malloc(bytes ? bytes : 1);
    if (!buffer)
        return answer(req, -ENOMEM);
    got = pread((int)fi->fh, buffer, bytes, offset);
    if (got < 0) {
        answer(req, -errno);
    } else {
        slow_delay_transfer(SLOW_READ, (size_t)got);
        (void)fuse_reply_buf(req, buffer, (size_t)got);
    }
    free(buffer);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buffer, size_t bytes, off_t offset,
                     struct fuse_file_info *fi) {
    ssize_t put;

    (void)ino;
    if (!begin_open(req, SLOW_WRITE))
        return;
    put = pwrite((int)fi->fh, buffer, bytes, offset);
    if (put < 0)
        return answer(req, -errno);
    slow_delay_transfer(SLOW_WRITE, (size_t)put);
    (void)fuse_reply_write(req, (size_t)put);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)ino;
    (void)close((int)fi->fh); /* a source on a disk says nothing here that fsync would not */
    answer(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) {
    (void)ino;
    if (begin_open(req, SLOW_OTHER))
        answer(req, (datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh)) ? -errno : 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino) {
    CLOSING int fd = begin(req, SLOW_OTHER, ino);
    struct statvfs info;

    if (fd < 0)
        return;
    if (fstatvfs(fd, &info))
        answer(req, -errno);
    else
        (void)fuse_reply_statfs(req, &info);
}

/* ---- directories ---- */

static struct directory *directory_of(const struct fuse_file_info *fi) {
    return (struct directory *)(uintptr_t)fi->fh;
}

/* No delay: the first READDIR is what goes over the network. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    CLOSING int fd = slow_node_open(ino);
    struct directory *directory = calloc(1, sizeof(*directory));
    int opened = fd < 0 ? -1 : openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory && opened >= 0)
        directory->stream = fdopendir(opened);
    if (!directory || !directory->stream) {
        int error = fd < 0 ? fd : -errno;

        free(directory);
        close_fd(&opened);
        return answer(req, error);
    }
    fi->fh = (uint64_t)(uintptr_t)directory;
    if (fuse_reply_open(req, fi)) {
        (void)closedir(directory->stream);
        free(directory);
    }
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)ino;
    (void)closedir(directory_of(fi)->stream);
    free(directory_of(fi));
    answer(req, 0);
}

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

/* Adds one entry; the bytes that it takes, more than there are when it does not fit. */
static size_t add_entry(fuse_req_t req, struct directory *directory, char *buffer, size_t bytes,
                        bool plus) {
    const struct dirent *found = directory->pending;
    struct fuse_entry_param entry = {0};
    size_t used;

    if (plus && !is_dot(found->d_name))
        (void)look_up(dirfd(directory->stream), found->d_name,
                      &entry); /* else without attributes */
    if (!entry.ino) {
        entry.attr.st_ino = found->d_ino;
        entry.attr.st_mode = (mode_t)found->d_type << 12;
    }
    used = plus ? fuse_add_direntry_plus(req, buffer, bytes, found->d_name, &entry, found->d_off)
                : fuse_add_direntry(req, buffer, bytes, found->d_name, &entry.attr, found->d_off);
    if (used > bytes && entry.ino)
        slow_node_forget(entry.ino, 1);
    return used;
}

static int fill_listing(fuse_req_t req, struct directory *directory, char *buffer, size_t bytes,
                        bool plus) {
    size_t filled = 0;

    for (;;) {
        size_t used;

        errno = 0;
        if (!directory->pending)
            directory->pending = readdir(directory->stream);
        if (!directory->pending)
            return errno && !filled ? -errno : (int)filled;
        used = add_entry(req, directory, buffer + filled, bytes - filled, plus);
        if (used > bytes - filled)
            return (int)filled;
        filled += used;
        directory->at = directory->pending->d_off;
        directory->pending = NULL;
    }
}

static void list(fuse_req_t req, size_t bytes, off_t offset, struct fuse_file_info *fi, bool plus) {
    struct directory *directory = directory_of(fi);
    char *buffer;
    int filled;

    if (!begin_open(req, SLOW_READDIR))
        return;
    buffer = malloc(bytes);
    if (!buffer)
        return answer(req, -ENOMEM);
    if (offset != directory->at) {
        seekdir(directory->stream, offset);
        directory->at = offset;
        directory->pending = NULL;
    }
    filled = fill_listing(req, directory, buffer, bytes, plus);
    if (filled < 0)
        answer(req, filled);
    else
        (void)fuse_reply_buf(req, buffer, (size_t)filled);
    free(buffer);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset,
                       struct fuse_file_info *fi) {
    (void)ino;
    list(req, bytes, offset, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset,
                           struct fuse_file_info *fi) {
    (void)ino;
    list(req, bytes, offset, fi, true);
}

/* ---- the start ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn) {
    (void)userdata;
    (void)fuse_set_feature_flag(conn, FUSE_CAP_PARALLEL_DIROPS); /* where the kernel has it */
    if (slow_view.noplus)
        fuse_unset_feature_flag(conn, FUSE_CAP_READDIRPLUS);
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = MAX_BACKGROUND;
    conn->time_gran = 1;
    if (slow_view.ready_fd >= 0) {
        (void)!write(slow_view.ready_fd, "", 1); /* whoever started us may be gone */
        (void)close(slow_view.ready_fd);
    }
}

const struct fuse_lowlevel_ops slow_operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .release = op_release,
    .fsync = op_fsync,
    .statfs = op_statfs,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
};
