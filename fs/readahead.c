/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the thread that asks its own mount for its device, which it does once only. */
#include "fs/readahead.h"

#include "util/cleanup.h"
#include "util/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static pthread_t thread;
static bool running;

bool stg_readahead_is_raised(void) {
    uint64_t bytes = stg_fs.options.readahead_bytes;

    return bytes != STG_BYTES_DEFAULT && bytes > STG_READAHEAD_KERNEL_BYTES;
}

void stg_readahead_init(struct fuse_conn_info *conn) {
    uint64_t bytes = stg_fs.options.readahead_bytes;

    if (bytes < conn->max_readahead)
        conn->max_readahead = (unsigned)bytes;
}

/* The path is long enough for any device numbers. */
static int set(dev_t device, uint64_t bytes) {
    char path[64];
    char text[32];
    stg_auto_fd int fd = -1;
    int length = snprintf(text, sizeof(text), "%" PRIu64, bytes >> 10);

    (void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(device),
                   minor(device));
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, text, (size_t)length) != length ? -errno : 0;
}

/* The first answer comes after the kernel has taken the session's, and with it its lower limit. */
static void *set_once_mounted(void *unused) {
    struct stat st;
    int error = stat(stg_fs.options.mountpoint, &st) ? -errno : 0;

    (void)unused;
    if (!error)
        error = set(st.st_dev, stg_fs.options.readahead_bytes);
    if (error && error != -ENOTCONN)
        stg_warning("readahead: the kernel's own setting stays: %s", strerror(-error));
    return NULL;
}

int stg_readahead_start(void) {
    int error;

    if (!stg_readahead_is_raised())
        return 0;
    error = pthread_create(&thread, NULL, set_once_mounted, NULL);
    running = !error;
    return -error;
}

void stg_readahead_stop(void) {
    if (running)
        (void)pthread_join(thread, NULL); /* cannot fail for a thread of ours */
    running = false;
}
