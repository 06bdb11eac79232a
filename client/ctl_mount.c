/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns finding the mount that a command is about. No regular file is opened: that could stage it.
 */
#include "client/ctl.h"

#include "client/protocol.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

int stg_ctl_ask(int fd, unsigned long command, void *request) {
    int result;

    do
        result = ioctl(fd, command, request);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

static int count_mount(int fd) {
    struct stagefs_stats_request stats = {.version = STAGEFS_PROTOCOL_VERSION};

    return stg_ctl_ask(fd, STAGEFS_IOC_STATS, &stats);
}

static int open_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* A file's folder stands for the file. */
static int open_place(const char *path) {
    char folder[PATH_MAX];
    struct stat st;
    char *slash;

    if (stat(path, &st))
        return -errno;
    if (S_ISDIR(st.st_mode))
        return open_folder(path);
    if (strlen(path) >= sizeof(folder))
        return -ENAMETOOLONG;
    strcpy(folder, path);
    slash = strrchr(folder, '/');
    if (!slash)
        return open_folder(".");
    slash[slash == folder ? 1 : 0] = '\0';
    return open_folder(folder);
}

/* ---- without a path ---- */

/* Takes the octal escapes out of a field of mountinfo, in place. */
static void unescape(char *text) {
    char *end = text;

    for (; *text; text++) {
        if (*text == '\\' && strspn(text + 1, "01234567") >= 3) {
            *end++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *end++ = *text;
        }
    }
    *end = '\0';
}

/* The mount point in a line of mountinfo, in place, or NULL for another file system. */
static char *mount_point_of(char *line) {
    char *kind = strstr(line, " - fuse.stagefs ");
    char *point = line;

    if (!kind)
        return NULL;
    for (int field = 0; field < 4 && point; field++)
        point = strchr(point, ' ') ? strchr(point, ' ') + 1 : NULL;
    if (!point)
        return NULL;
    point[strcspn(point, " ")] = '\0';
    unescape(point);
    return point;
}

/* How many there are, and the last of them in `*ret_point`, to be freed. */
static size_t find_mounts(char **ret_point) {
    stg_auto_free char *line = NULL;
    FILE *stream = fopen("/proc/self/mountinfo", "re");
    size_t room = 0, count = 0;

    while (stream && getline(&line, &room, stream) >= 0) {
        char *point = mount_point_of(line);

        if (!point)
            continue;
        count++;
        free(*ret_point);
        *ret_point = strdup(point);
    }
    if (stream)
        (void)fclose(stream); /* it was only read */
    return count;
}

static int open_only_mount(char **ret_name) {
    stg_auto_free char *point = NULL;
    stg_auto_fd int fd = open_folder(".");
    size_t count;

    if (fd >= 0 && !count_mount(fd)) {
        *ret_name = strdup(".");
        return *ret_name ? stg_fd_steal(&fd) : -ENOMEM;
    }
    count = find_mounts(&point);
    if (count != 1 || !point) {
        if (count)
            stg_ctl_error("%zu stagefs mounts are here: give the path of one", count);
        else
            stg_ctl_error("no stagefs mount is here: make one with stagefs(1)");
        return -ENOENT;
    }
    stg_fd_close(fd);
    fd = open_folder(point);
    if (fd < 0) {
        (void)stg_ctl_failed(point, -fd);
        return fd;
    }
    *ret_name = point;
    point = NULL;
    return stg_fd_steal(&fd);
}

int stg_ctl_open_mount(const char *path, char **ret_name) {
    stg_auto_fd int fd = -1;
    int error;

    if (!path)
        return open_only_mount(ret_name);
    fd = open_place(path);
    error = fd < 0 ? fd : count_mount(fd);
    /* EINVAL: some file systems' answer to any question. */
    if (error) {
        (void)stg_ctl_failed(path, error == -EINVAL ? ENOTTY : -error);
        return error;
    }
    *ret_name = strdup(path);
    return *ret_name ? stg_fd_steal(&fd) : -ENOMEM;
}
