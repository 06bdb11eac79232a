/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scope-bound release of descriptors and heap memory, as util/cleanup.h has it; on its own because
 * the library's licence is another, and it links nothing of util. Neither touches errno.
 */
#ifndef STG_CLIENT_CLEANUP_H
#define STG_CLIENT_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void stg_client_close(int *fd) {
    if (*fd >= 0) {
        int saved = errno;

        (void)close(*fd); /* nothing was written through it */
        errno = saved;
    }
}

static inline void stg_client_free(void *pointer) {
    int saved = errno;

    free(*(void **)pointer);
    errno = saved;
}

/* Moves the descriptor out of `*fd`, which becomes -1. */
static inline int stg_client_steal(int *fd) {
    int moved = *fd;

    *fd = -1;
    return moved;
}

#define stg_client_auto_fd __attribute__((cleanup(stg_client_close)))
#define stg_client_auto_free __attribute__((cleanup(stg_client_free)))

#endif
