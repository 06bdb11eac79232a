/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the ways to copy, and their order.
 *
 * The file is copied hole by hole: what SEEK_DATA finds is copied, and what is between stays a hole
 * of the copy. Where there is no SEEK_DATA all is data. At the end the source is read until there
 * is nothing more: it may have grown, and files of /proc have a length of 0.
 */
#include "client/copy_data.h"

#include "client/cleanup.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { BUFFER_BYTES = 256 * 1024, RANGE_BYTES = 1 << 30 };

static int clone_file(int from, int to) { return ioctl(to, FICLONE, from); }

const struct stg_copy_calls stg_copy_system = {
    .clone = clone_file,
    .copy_file_range = copy_file_range,
    .sendfile = sendfile,
    .pread = pread,
    .pwrite = pwrite,
    .lseek = lseek,
};

enum way { WAY_RANGE, WAY_SENDFILE, WAY_READ };

struct copy {
    const struct stg_copy_calls *calls;
    int from;
    int to;
    enum way way; /* the ways before it have failed */
    char *buffer; /* owned; NULL until it is needed */
};

/* Each copies some bytes at `*at` and moves it on. Returns how many, 0 at the end, or -1. */

static ssize_t by_range(struct copy *copy, off_t *at, size_t bytes) {
    off_t to_offset = *at;

    return copy->calls->copy_file_range(copy->from, at, copy->to, &to_offset, bytes, 0);
}

static ssize_t by_sendfile(struct copy *copy, off_t *at, size_t bytes) {
    if (lseek(copy->to, *at, SEEK_SET) < 0)
        return -1;
    return copy->calls->sendfile(copy->to, copy->from, at, bytes);
}

static int write_all(struct copy *copy, size_t bytes, off_t at) {
    size_t done = 0;

    while (done < bytes) {
        ssize_t result =
            copy->calls->pwrite(copy->to, copy->buffer + done, bytes - done, at + (off_t)done);

        if (!result)
            errno = EIO; /* a disk that takes nothing and does not say why */
        if (result <= 0 && errno != EINTR)
            return -1;
        done += result > 0 ? (size_t)result : 0;
    }
    return 0;
}

static ssize_t by_reading(struct copy *copy, off_t *at, size_t bytes) {
    ssize_t result;

    if (!copy->buffer)
        copy->buffer = malloc(BUFFER_BYTES);
    if (!copy->buffer)
        return -1;
    result = copy->calls->pread(copy->from, copy->buffer,
                                bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES, *at);
    if (result > 0) {
        if (write_all(copy, (size_t)result, *at))
            return -1;
        *at += result;
    }
    return result;
}

static ssize_t copy_some(struct copy *copy, off_t *at, size_t bytes) {
    switch (copy->way) {
    case WAY_RANGE:
        return by_range(copy, at, bytes);
    case WAY_SENDFILE:
        return by_sendfile(copy, at, bytes);
    case WAY_READ:
        break;
    }
    return by_reading(copy, at, bytes);
}

/*
 * Copies from `*at` to `end`; ends before that where the source does. An end that comes early is
 * believed only of read: copy_file_range finds one in some files that can be read.
 */
static int copy_range(struct copy *copy, off_t *at, off_t end) {
    while (*at < end) {
        off_t left = end - *at;
        ssize_t result = copy_some(copy, at, left < RANGE_BYTES ? (size_t)left : RANGE_BYTES);

        if (result > 0 || (result < 0 && errno == EINTR))
            continue;
        if (copy->way == WAY_READ)
            return result < 0 ? -errno : 0;
        copy->way++;
    }
    return 0;
}

static int copy_rest(struct copy *copy, off_t *at) {
    ssize_t result;

    copy->way = WAY_READ;
    do
        result = copy_some(copy, at, BUFFER_BYTES);
    while (result > 0 || (result < 0 && errno == EINTR));
    return result < 0 ? -errno : 0;
}

/* The next piece of data from `at` on. Returns false where there is only a hole up to `size`. */
static bool next_data(const struct copy *copy, off_t at, off_t size, off_t *data, off_t *hole) {
    off_t found = copy->calls->lseek(copy->from, at, SEEK_DATA);

    if (found < 0 && errno == ENXIO)
        return false;
    *data = found < at ? at : found;
    *hole = found < 0 ? size : copy->calls->lseek(copy->from, *data, SEEK_HOLE);
    if (*hole <= *data || *hole > size)
        *hole = size;
    return *data < size;
}

static int copy_all(struct copy *copy, off_t size, off_t *at) {
    off_t data, hole;
    int error = 0;

    while (!error && *at < size && next_data(copy, *at, size, &data, &hole)) {
        *at = data;
        error = copy_range(copy, at, hole);
        if (!error && *at < hole)
            return 0; /* the source was cut meanwhile */
    }
    if (error)
        return error;
    if (*at < size)
        *at = size;
    return copy_rest(copy, at);
}

int64_t stg_copy_data(int from, int to, const struct stg_copy_calls *calls) {
    struct copy copy = {.calls = calls, .from = from, .to = to};
    struct stat st;
    off_t at = 0;
    int error;

    if (!calls->clone(from, to))
        return fstat(to, &st) ? -errno : st.st_size;
    if (fstat(from, &st))
        return -errno;
    error = copy_all(&copy, st.st_size, &at);
    free(copy.buffer);
    if (!error && ftruncate(to, at))
        error = -errno;
    return error ? error : at;
}
