/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns how a copied file comes to its name: whole, or not at all.
 *
 * The copy is made under another name in the folder of its own, by which it can be renamed over
 * what is there; a file of O_TMPFILE could only be linked to a name that is free.
 */
#include "client/copy.h"

#include "client/cleanup.h"
#include "client/path.h"
#include "client/stagefs.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

enum { LINKS_MAX = 40, TRIES_MAX = 100, TEMPORARY_BYTES = 32 };

static int check_kind(mode_t mode) { return S_ISREG(mode) ? 0 : S_ISDIR(mode) ? -EISDIR : -EINVAL; }

/* ---- the source ---- */

static int open_source(int dirfd, const char *path, struct stat *st) {
    stg_client_auto_fd int fd = -1;
    int error = fstatat(dirfd, path, st, 0) ? -errno : check_kind(st->st_mode);

    /* Looked at before it is opened: a device may do something at that. */
    if (error)
        return error;
    fd = openat(dirfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st))
        return -errno;
    error = check_kind(st->st_mode);
    return error ? error : stg_client_steal(&fd);
}

/* ---- the destination ---- */

struct destination {
    int folder; /* owned, of O_PATH */
    char name[NAME_MAX + 1];
    bool exists;
    struct stat st;                  /* where it exists */
    char temporary[TEMPORARY_BYTES]; /* "": there is none */
};

static void destination_fini(struct destination *destination) {
    int saved = errno;

    if (*destination->temporary)
        (void)unlinkat(destination->folder, destination->temporary, 0); /* nothing more to do */
    errno = saved;
    stg_client_close(&destination->folder);
}

#define AUTO_DESTINATION __attribute__((cleanup(destination_fini)))

/* Moves the destination to the folder and the name of `path`. */
static int enter(struct destination *destination, int dirfd, const char *path) {
    const char *name = stg_path_name(path);
    size_t bytes = stg_path_dir_bytes(path);
    char dir[PATH_MAX] = ".";
    int folder;

    if (!*path)
        return -ENOENT;
    if (bytes >= sizeof(dir) || strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    if (stg_path_is_special(name))
        return -EISDIR;
    if (bytes) {
        memcpy(dir, path, bytes);
        dir[bytes] = '\0';
    }
    folder = openat(dirfd, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    stg_client_close(&destination->folder);
    destination->folder = folder;
    strcpy(destination->name, name);
    return 0;
}

static int enter_link(struct destination *destination) {
    char target[PATH_MAX];
    ssize_t bytes = readlinkat(destination->folder, destination->name, target, sizeof(target));

    if (bytes < 0)
        return -errno;
    if (bytes == sizeof(target))
        return -ENAMETOOLONG;
    target[bytes] = '\0';
    return enter(destination, destination->folder, target);
}

/*
 * Finds the file itself where its name is a symbolic link. The kernel is asked first where that
 * leads: it knows whose links are not to be followed in a folder like /tmp, and finds loops.
 */
static int follow_links(struct destination *destination) {
    struct stat end;

    if (fstatat(destination->folder, destination->name, &end, 0))
        return -errno;
    for (unsigned links = 0; links < LINKS_MAX; links++) {
        int error = enter_link(destination);

        if (!error &&
            fstatat(destination->folder, destination->name, &destination->st, AT_SYMLINK_NOFOLLOW))
            error = -errno;
        if (error)
            return error;
        if (!S_ISLNK(destination->st.st_mode))
            return destination->st.st_dev == end.st_dev && destination->st.st_ino == end.st_ino
                       ? 0
                       : -ELOOP; /* it is being changed */
    }
    return -ELOOP;
}

static int find_destination(struct destination *destination, int dirfd, const char *path,
                            const struct stat *source) {
    struct stat *st = &destination->st;
    int error = enter(destination, dirfd, path);

    if (error)
        return error;
    if (fstatat(destination->folder, destination->name, st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : -errno;
    destination->exists = true;
    if (S_ISLNK(st->st_mode))
        error = follow_links(destination);
    if (!error)
        error = check_kind(st->st_mode);
    if (!error && st->st_dev == source->st_dev && st->st_ino == source->st_ino)
        error = -EINVAL;
    /* A rename would not ask. */
    if (!error && faccessat(destination->folder, destination->name, W_OK, AT_EACCESS))
        error = -errno;
    return error;
}

/* ---- the copy ---- */

static int make_temporary(struct destination *destination, mode_t mode) {
    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        char name[TEMPORARY_BYTES];
        uint64_t number;
        int fd;

        if (getrandom(&number, sizeof(number), 0) != sizeof(number))
            return -errno;
        (void)snprintf(name, sizeof(name), ".copy-%016llx", (unsigned long long)number);
        fd = openat(destination->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    mode);
        if (fd >= 0) {
            strcpy(destination->temporary, name);
            return fd;
        }
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

/* The owner goes first, as giving a file away may take permissions from it. */
static int keep_permissions(int fd, const struct stat *st) {
    struct stat own;

    if (fstat(fd, &own))
        return -errno;
    if ((own.st_uid != st->st_uid || own.st_gid != st->st_gid) &&
        fchown(fd, st->st_uid, st->st_gid))
        (void)fchown(fd, (uid_t)-1, st->st_gid); /* whoever may do neither owns the new file */
    return fchmod(fd, st->st_mode & 0777) ? -errno : 0;
}

static int rename_over(struct destination *destination) {
    if (renameat(destination->folder, destination->temporary, destination->folder,
                 destination->name))
        return -errno;
    *destination->temporary = '\0';
    return 0;
}

int64_t stg_copy_file(int src_dirfd, const char *src, int dst_dirfd, const char *dst,
                      const struct stg_copy_calls *calls) {
    AUTO_DESTINATION struct destination destination = {.folder = -1};
    stg_client_auto_fd int from = -1;
    stg_client_auto_fd int to = -1;
    struct stat st;
    int64_t bytes;
    int error;

    from = open_source(src_dirfd, src, &st);
    if (from < 0)
        return from;
    error = find_destination(&destination, dst_dirfd, dst, &st);
    if (error)
        return error;
    to = make_temporary(&destination, destination.exists ? 0600 : st.st_mode & 0777);
    if (to < 0)
        return to;
    bytes = stg_copy_data(from, to, calls);
    if (bytes < 0)
        return bytes;
    error = destination.exists ? keep_permissions(to, &destination.st) : 0;
    /* A file system may tell only now that there was no room. The descriptor is gone either way. */
    if (!error && close(stg_client_steal(&to)) && errno != EINTR)
        error = -errno;
    if (!error)
        error = rename_over(&destination);
    return error ? error : bytes;
}

/* ---- the calls ---- */

static int64_t answer(int64_t bytes) {
    if (bytes >= 0)
        return bytes;
    errno = (int)-bytes;
    return -1;
}

int64_t stagefs_copy_zero(const char *src, const char *dst) {
    return stagefs_copy_zero_at(AT_FDCWD, src, AT_FDCWD, dst);
}

int64_t stagefs_copy_zero_at(int src_dirfd, const char *src, int dst_dirfd, const char *dst) {
    return answer(stg_copy_file(src_dirfd, src, dst_dirfd, dst, &stg_copy_system));
}

int64_t stagefs_copy_zero_fd(int src_fd, int dst_fd) {
    struct stat from, to;
    int error = 0;
    int flags = fcntl(dst_fd, F_GETFL);

    if (flags < 0 || fstat(src_fd, &from) || fstat(dst_fd, &to))
        return -1;
    error = check_kind(from.st_mode);
    if (!error)
        error = check_kind(to.st_mode);
    if (!error && ((from.st_dev == to.st_dev && from.st_ino == to.st_ino) || (flags & O_APPEND)))
        error = -EINVAL;
    if (!error && ftruncate(dst_fd, 0))
        error = -errno;
    return answer(error ? error : stg_copy_data(src_fd, dst_fd, &stg_copy_system));
}
