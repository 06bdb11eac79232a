/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel offers where there is no stagefs mount. No state. */
#ifndef STG_CLIENT_OUTSIDE_H
#define STG_CLIENT_OUTSIDE_H

#include "client/stagefs.h"

#include <stdbool.h>

/* Keeps the error and `path` if they are the first. `error` is -errno. */
void stg_result_note(struct stagefs_result *result, const char *path, int error);

/* Adds a file that failed to `result`; of the first the error and `path` are kept. */
void stg_result_fail(struct stagefs_result *result, const char *path, int error);

/*
 * Gives `advice` (POSIX_FADV_*) for the whole file that `fd` is open on, or with `recursive` for
 * the files below the folder, and counts each of them in `result`. `path` is for the failures.
 */
void stg_outside_advise(int fd, const char *path, int advice, bool recursive,
                        struct stagefs_result *result);

/* The same for `name` in the folder `dirfd`, where a symbolic link is followed. */
void stg_outside_advise_at(int dirfd, const char *name, int advice, struct stagefs_result *result);

#endif
