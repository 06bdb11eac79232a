/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the walk below a folder, and the kernel's advice for files. */
#include "client/outside.h"

#include "client/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 256 }; /* of folders: one descriptor each */

void stg_result_note(struct stagefs_result *result, const char *path, int error) {
    if (result->first_error)
        return;
    result->first_error = -error;
    /* cut where it is longer, as the header says */
    (void)snprintf(result->first_failed, sizeof(result->first_failed), "%s", path);
}

void stg_result_fail(struct stagefs_result *result, const char *path, int error) {
    result->files++;
    result->failed++;
    stg_result_note(result, path, error);
}

static void advise_file(int fd, const struct stat *st, const char *path, int advice,
                        struct stagefs_result *result) {
    int error = S_ISREG(st->st_mode) ? posix_fadvise(fd, 0, 0, advice) : EINVAL;

    if (error) {
        stg_result_fail(result, path, -error);
        return;
    }
    result->files++;
    result->staged++;
    result->bytes += (uint64_t)st->st_size;
}

struct walk {
    int advice;
    dev_t device; /* that of the first folder: no mounts are entered */
    struct stagefs_result *result;
};

static void walk_folder(const struct walk *walk, int fd, const char *path, unsigned depth);

static void walk_entry(const struct walk *walk, int dirfd, const char *path,
                       const struct dirent *entry, unsigned depth) {
    stg_client_auto_free char *below = NULL;
    stg_client_auto_fd int fd = -1;
    struct stat st;

    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
        (entry->d_type != DT_REG && entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
        return;
    if (asprintf(&below, "%s/%s", path, entry->d_name) < 0) {
        below = NULL; /* undefined after a failure */
        stg_result_fail(walk->result, path, -ENOMEM);
        return;
    }
    if (fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) {
        stg_result_fail(walk->result, below, -errno);
        return;
    }
    if ((!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) || st.st_dev != walk->device)
        return;
    fd = openat(dirfd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        stg_result_fail(walk->result, below, -errno);
    else if (S_ISREG(st.st_mode))
        advise_file(fd, &st, below, walk->advice, walk->result);
    else if (depth < DEPTH_MAX)
        walk_folder(walk, fd, below, depth + 1);
}

/* Keeps `fd` the caller's, by reading the folder through a descriptor of its own. */
static void walk_folder(const struct walk *walk, int fd, const char *path, unsigned depth) {
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = own < 0 ? NULL : fdopendir(own);
    struct dirent *entry;

    if (!folder) {
        stg_result_fail(walk->result, path, -errno);
        stg_client_close(&own);
        return;
    }
    while ((entry = readdir(folder)))
        walk_entry(walk, own, path, entry, depth);
    (void)closedir(folder); /* it was only read */
}

void stg_outside_advise(int fd, const char *path, int advice, bool recursive,
                        struct stagefs_result *result) {
    struct stat st;

    if (fstat(fd, &st)) {
        stg_result_fail(result, path, -errno);
    } else if (!S_ISDIR(st.st_mode)) {
        advise_file(fd, &st, path, advice, result);
    } else if (!recursive) {
        stg_result_fail(result, path, -EISDIR);
    } else {
        struct walk from = {.advice = advice, .device = st.st_dev, .result = result};

        walk_folder(&from, fd, path, 0);
    }
}

void stg_outside_advise_at(int dirfd, const char *name, int advice, struct stagefs_result *result) {
    stg_client_auto_fd int fd = -1;
    struct stat st;
    int error = fstatat(dirfd, name, &st, 0) ? -errno : 0;

    if (!error && S_ISDIR(st.st_mode))
        error = -EISDIR;
    /* A device is not to be opened for this: that may do something. */
    if (!error && !S_ISREG(st.st_mode))
        error = -EINVAL;
    if (!error) {
        fd = openat(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        error = fd < 0 ? -errno : 0;
    }
    if (error)
        stg_result_fail(result, name, error);
    else
        advise_file(fd, &st, name, advice, result);
}
