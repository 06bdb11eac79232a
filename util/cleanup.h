/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Scope-bound release of descriptors and heap memory.
 *
 * `stg_auto_fd int fd = open(...)` closes at the end of the scope; stg_fd_steal() moves the
 * descriptor out. Neither touches errno, so a result may be computed from it afterwards.
 */
#ifndef STG_UTIL_CLEANUP_H
#define STG_UTIL_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Closes `fd` unless it is negative; keeps errno. */
static inline void stg_fd_close(int fd) {
    if (fd >= 0) {
        int saved = errno;

        (void)close(fd); /* nothing was written through these descriptors that close could lose */
        errno = saved;
    }
}

static inline void stg_fd_cleanup(int *fd) { stg_fd_close(*fd); }

static inline void stg_free_cleanup(void *pointer) {
    int saved = errno;

    free(*(void **)pointer);
    errno = saved;
}

/* Moves the descriptor out of `*fd`, which becomes -1. */
static inline int stg_fd_steal(int *fd) {
    int moved = *fd;

    *fd = -1;
    return moved;
}

#define stg_auto_fd __attribute__((cleanup(stg_fd_cleanup)))
#define stg_auto_free __attribute__((cleanup(stg_free_cleanup)))

#endif
