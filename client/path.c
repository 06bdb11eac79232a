/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns what is done with paths before the mount is asked. */
#include "client/path.h"

#include "client/cleanup.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

/* The length without the slashes at its end; one that is the whole path stays. */
static size_t trim(const char *path, size_t bytes) {
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    return bytes;
}

const char *stg_path_name(const char *path) {
    const char *name = path + trim(path, strlen(path));

    while (name > path && name[-1] != '/')
        name--;
    return name;
}

size_t stg_path_dir_bytes(const char *path) {
    return trim(path, (size_t)(stg_path_name(path) - path));
}

bool stg_path_is_special(const char *name) {
    return !*name || !strcmp(name, ".") || !strcmp(name, "..") || strchr(name, '/');
}

/* How much of a dir is the one above it. */
static size_t above(const char *dir, size_t bytes) {
    while (bytes && dir[bytes - 1] != '/')
        bytes--;
    return trim(dir, bytes);
}

const char *stg_path_below(const char *base, size_t base_bytes, const char *dir) {
    if (!base_bytes)
        return *dir == '/' ? NULL : dir;
    if (strncmp(base, dir, base_bytes))
        return NULL;
    dir += base_bytes;
    if (*dir && *dir != '/' && dir[-1] != '/')
        return NULL;
    return dir + strspn(dir, "/");
}

size_t stg_path_common(const char *one, size_t one_bytes, const char *other, size_t other_bytes) {
    size_t bytes = one_bytes;

    for (;;) {
        if (bytes <= other_bytes && !memcmp(one, other, bytes) &&
            (!bytes || bytes == other_bytes || other[bytes] == '/' || one[bytes - 1] == '/'))
            return bytes;
        bytes = bytes == 1 ? 0 : above(one, bytes);
    }
}

void stg_path_normalise(char *path) {
    char *end = path; /* of what is done, without a slash after it */

    for (char *name = path, *next; *name; name = next) {
        size_t bytes = strcspn(name, "/");

        next = name + bytes + strspn(name + bytes, "/");
        if (!bytes || (bytes == 1 && *name == '.'))
            continue;
        if (bytes == 2 && !memcmp(name, "..", 2)) {
            while (end > path && *--end != '/')
                ;
            continue;
        }
        if (end > path)
            *end++ = '/';
        memmove(end, name, bytes);
        end += bytes;
    }
    *end = '\0';
}

bool stg_path_is_plain(int fd, const char *below) {
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};
    stg_client_auto_fd int found = -1;

    if (!*below)
        return true;
    /* Where there is no openat2 nothing is plain, and each folder is its own base. */
    found = (int)syscall(SYS_openat2, fd, below, &how, sizeof(how));
    return found >= 0;
}

static int open_folder(int dirfd, const char *dir) {
    int fd = openat(dirfd, *dir ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

int stg_path_open_base(int dirfd, const char *dir, size_t limit_bytes, size_t *ret_bytes) {
    stg_client_auto_free char *path = strdup(dir);
    stg_client_auto_fd int best = -1;
    size_t bytes = strlen(dir);
    int error = 0;

    if (!path)
        return -ENOMEM;
    for (;;) {
        stg_client_auto_fd int fd = open_folder(dirfd, path);

        if (fd < 0 && (best >= 0 || fd != -EACCES))
            error = fd;
        else if (fd >= 0 && !stg_path_is_plain(fd, stg_path_below(path, bytes, dir)))
            error = -EACCES;
        if (error)
            break;
        if (fd >= 0) {
            stg_client_close(&best);
            best = stg_client_steal(&fd);
            *ret_bytes = bytes;
        }
        if (!bytes || !strcmp(path, "/") || (best >= 0 && bytes <= limit_bytes))
            break;
        bytes = above(path, bytes);
        path[bytes] = '\0';
    }
    if (best >= 0)
        return stg_client_steal(&best);
    return error ? error : -EACCES;
}

int stg_path_resolve(int dirfd, const char *path, char target[PATH_MAX]) {
    stg_client_auto_fd int fd = openat(dirfd, path, O_PATH | O_CLOEXEC);
    char link[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
    ssize_t bytes;

    if (fd < 0)
        return -errno;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd); /* fits by its declaration */
    bytes = readlink(link, target, PATH_MAX);
    if (bytes < 0)
        return -ENOSYS;
    if (bytes == PATH_MAX)
        return -ENAMETOOLONG;
    target[bytes] = '\0';
    /* "(unreachable)…" stands for what is outside the caller's root. */
    return *target == '/' ? 0 : -ENOSYS;
}
