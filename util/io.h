/* SPDX-License-Identifier: GPL-2.0-only */
/* pread(2), preadv2(2) and pwrite(2) that go on where a call was short or interrupted. */
#ifndef STG_UTIL_IO_H
#define STG_UTIL_IO_H

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * Pages that the read brings into the page cache go with it; those that were there before stay.
 * Linux 6.14, and a file system that has it: -EOPNOTSUPP elsewhere. (linux/fs.h, RWF_DONTCACHE)
 */
#define STG_IO_DONT_CACHE 0x80

/*
 * With flags of preadv2(2). Returns the bytes read, less than asked for at the end or before an
 * error; or -errno for none.
 */
static inline ssize_t stg_io_read_flags(int fd, char *buffer, size_t bytes, off_t offset,
                                        int flags) {
    size_t done = 0;

    while (done < bytes) {
        struct iovec rest = {buffer + done, bytes - done};
        ssize_t got = preadv2(fd, &rest, 1, offset + (off_t)done, flags);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !done)
            return -errno;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* The same without flags. */
static inline ssize_t stg_io_read_whole(int fd, char *buffer, size_t bytes, off_t offset) {
    return stg_io_read_flags(fd, buffer, bytes, offset, 0);
}

/* Returns the bytes written, less than asked for before an error; or -errno for none. */
static inline ssize_t stg_io_write_whole(int fd, const char *buffer, size_t bytes, off_t offset) {
    size_t done = 0;

    while (done < bytes) {
        ssize_t put = pwrite(fd, buffer + done, bytes - done, offset + (off_t)done);

        if (put < 0 && errno != EINTR)
            return done ? (ssize_t)done : -errno;
        if (put > 0)
            done += (size_t)put;
    }
    return (ssize_t)done;
}

#endif
