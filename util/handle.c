/* SPDX-License-Identifier: GPL-2.0-only */
#include "util/handle.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

/* A file is made in microseconds, but for a wait for the journal. */
#define YIELDS 64
#define PAUSES 1000
#define PAUSE_NS 1000000

int stg_handle_open(int mount_fd, struct file_handle *handle, int flags) {
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int fd = open_by_handle_at(mount_fd, handle, flags);

    for (int i = 0; fd < 0 && errno == ENOMEM && i < YIELDS + PAUSES; i++) {
        if (i < YIELDS)
            (void)sched_yield();
        else
            (void)nanosleep(&pause, NULL); /* one that ends early asks once more */
        fd = open_by_handle_at(mount_fd, handle, flags);
    }
    return fd < 0 ? -errno : fd;
}
