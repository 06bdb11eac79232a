/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the questions about one file, and the dropping of a set. */
#include "client/stagefs.h"

#include "client/cleanup.h"
#include "client/path.h"
#include "client/protocol.h"
#include "client/request.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int query(int fd, const char *name, struct stagefs_query_request *request) {
    *request = (struct stagefs_query_request){.version = STAGEFS_PROTOCOL_VERSION};
    if (strlen(name) >= sizeof(request->name))
        return -ENAMETOOLONG;
    strcpy(request->name, name);
    return stg_request_send(fd, STAGEFS_IOC_QUERY, request);
}

int stagefs_is_staged(int fd) {
    struct stagefs_query_request request;
    int error = query(fd, "", &request);

    if (error == -ENOTTY)
        return 0;
    return stg_request_answer(
        error ? error : request.state == STAGEFS_STATE_HOT || request.state == STAGEFS_STATE_COLD);
}

int stagefs_stage_mode(int fd) {
    struct stagefs_query_request request;
    int error = query(fd, "", &request);

    if (error == -ENOTTY)
        return STAGEFS_NONE;
    return stg_request_answer(error ? error : (int)request.mode);
}

/* ---- by path ---- */

/* `path` is no symbolic link; `st` is of it. */
static int query_path(int dirfd, const char *path, const struct stat *st,
                      struct stagefs_query_request *request) {
    size_t bytes = stg_path_dir_bytes(path);
    stg_client_auto_free char *dir = strndup(path, bytes);
    stg_client_auto_free char *name = NULL;
    stg_client_auto_fd int fd = -1;
    const char *below;

    if (S_ISDIR(st->st_mode)) {
        fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? -errno : query(fd, "", request);
    }
    if (!dir)
        return -ENOMEM;
    fd = stg_path_open_base(dirfd, dir, bytes, &bytes);
    if (fd < 0)
        return fd;
    below = stg_path_below(path, bytes, dir);
    if (asprintf(&name, "%s%s%s", below, *below ? "/" : "", stg_path_name(path)) < 0) {
        name = NULL; /* undefined after a failure */
        return -ENOMEM;
    }
    stg_path_normalise(name);
    return query(fd, name, request);
}

static void take_answer(const struct stagefs_query_request *request,
                        struct stagefs_status *status) {
    status->on_mount = 1;
    status->mode = (enum stagefs_mode)request->mode;
    status->state = (enum stagefs_state)request->state;
    status->opens = request->opens;
    status->copied = (int)request->copied;
    status->hits = request->hits;
    status->size = request->size_bytes;
    status->staged = request->staged_bytes;
    (void)snprintf(status->set, sizeof(status->set), "%.*s", STAGEFS_SET_BYTES - 1, request->set);
    (void)snprintf(status->why, sizeof(status->why), "%.*s", STAGEFS_WHY_BYTES - 1, request->why);
}

int stagefs_status(int dirfd, const char *path, struct stagefs_status *status) {
    struct stagefs_query_request request;
    char target[PATH_MAX];
    struct stat st;
    int error;

    if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW))
        return -1;
    if (S_ISLNK(st.st_mode)) {
        error = stg_path_resolve(dirfd, path, target);
        if (!error && fstatat(dirfd, target, &st, 0))
            error = -errno;
        if (error)
            return stg_request_answer(error);
        path = target;
    }
    error = query_path(dirfd, path, &st, &request);
    if (error && error != -ENOTTY)
        return stg_request_answer(error);
    memset(status, 0, sizeof(*status));
    if (!error)
        take_answer(&request, status);
    else
        status->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return 0;
}

/* ---- sets ---- */

/* A descriptor of O_PATH of the folder that the open file is in, or of the open folder. */
static int open_folder_of(int fd) {
    char link[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
    char target[PATH_MAX];
    struct stat st;
    ssize_t bytes;

    if (fstat(fd, &st))
        return -errno;
    if (S_ISDIR(st.st_mode)) {
        int folder = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

        return folder < 0 ? -errno : folder;
    }
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd); /* fits by its declaration */
    bytes = readlink(link, target, sizeof(target) - 1);
    if (bytes < 0)
        return -errno;
    target[bytes] = '\0';
    target[stg_path_dir_bytes(target)] = '\0';
    fd = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static bool is_mount_root(int fd) {
    struct statx stx;

    return !statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) &&
           (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

/* Opens for reading the root folder of the mount that `fd` is on. */
static int open_mount_root(int fd) {
    stg_client_auto_fd int folder = open_folder_of(fd);
    struct stat own, root;

    if (folder < 0)
        return folder;
    while (!is_mount_root(folder)) {
        int above = openat(folder, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (above < 0)
            return -errno;
        stg_client_close(&folder);
        folder = above;
    }
    if (fstat(fd, &own) || fstat(folder, &root))
        return -errno;
    if (own.st_dev != root.st_dev)
        return -EXDEV; /* the file was moved, or its mount was */
    fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Or on a mount that does not stage. To ask for the settings changes none of them. */
static bool is_outside(int fd) {
    struct stagefs_config_request config = {.version = STAGEFS_PROTOCOL_VERSION,
                                            .mode = STAGEFS_MODE_DEFAULT,
                                            .threshold_bytes = UINT64_MAX,
                                            .hot_bytes = UINT64_MAX,
                                            .cold_bytes = UINT64_MAX};

    return stg_request_send(fd, STAGEFS_IOC_CONFIG, &config) == -ENOTTY;
}

int stagefs_unstage_set(int fd, const char *set) {
    stg_client_auto_free struct stagefs_stage_request *request = NULL;
    stg_client_auto_fd int root = -1;

    if (!*set || !stg_request_is_set(set))
        return stg_request_answer(-EINVAL);
    if (fcntl(fd, F_GETFD) < 0)
        return -1;
    if (is_outside(fd))
        return 0;
    root = open_mount_root(fd);
    if (root < 0)
        return stg_request_answer(root);
    request = calloc(1, sizeof(*request));
    if (!request)
        return -1;
    request->version = STAGEFS_PROTOCOL_VERSION;
    strcpy(request->set, set);
    return stg_request_answer(stg_request_send(root, STAGEFS_IOC_UNSTAGE, request));
}
