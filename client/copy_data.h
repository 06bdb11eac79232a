/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of a copy, by the cheapest way that works. The system calls come in a table, so that a
 * test can make each of them fail where it wants. No global state.
 */
#ifndef STG_CLIENT_COPY_DATA_H
#define STG_CLIENT_COPY_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Each as the system call that it is named after: -1 and errno on failure. */
struct stg_copy_calls {
    int (*clone)(int from, int to); /* FICLONE */
    ssize_t (*copy_file_range)(int from, off_t *from_offset, int to, off_t *to_offset, size_t bytes,
                               unsigned flags);
    ssize_t (*sendfile)(int to, int from, off_t *from_offset, size_t bytes);
    ssize_t (*pread)(int from, void *buffer, size_t bytes, off_t offset);
    ssize_t (*pwrite)(int to, const void *buffer, size_t bytes, off_t offset);
    off_t (*lseek)(int from, off_t offset, int whence); /* for SEEK_DATA and SEEK_HOLE */
};

extern const struct stg_copy_calls stg_copy_system;

/*
 * Copies all of the regular file `from` to `to`, which is empty. Each way goes on where the one
 * before broke off, whatever broke it: what is really wrong also breaks the last, reading and
 * writing, and is then the error. Returns the length, or -errno.
 */
int64_t stg_copy_data(int from, int to, const struct stg_copy_calls *calls);

#endif
