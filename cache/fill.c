/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns one fetch from its open to its close. What becomes of the content is the caller's affair. */
#include "cache/fill.h"

#include "util/clock.h"
#include "util/cleanup.h"

#include <time.h>

#define PIECE_MIN_BYTES (UINT64_C(256) << 10)
#define PIECES_MAX 8192 /* of one file: then they become larger */

uint64_t stg_fill_piece_bytes(uint64_t size_bytes) {
    uint64_t bytes = PIECE_MIN_BYTES;

    while (size_bytes / bytes >= PIECES_MAX)
        bytes *= 2;
    return bytes;
}

/* Reads up to `bytes`, short only at the end of the file. Returns how many, or -errno. */
static ssize_t read_fully(const struct stg_source *source, int handle, char *buffer, size_t bytes,
                          uint64_t offset) {
    size_t done = 0;

    while (done < bytes) {
        ssize_t got =
            source->ops->read(source->context, handle, buffer + done, bytes - done, offset + done);

        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (!got)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

bool stg_fill_is_settled(const struct stg_identity *identity, int64_t now_ns, int64_t settle_ns) {
    int64_t age_ns = now_ns - identity->ctime_ns;

    /* A clock that is ahead of ours tells nothing about the age: the second look decides alone. */
    return age_ns < 0 || age_ns >= settle_ns;
}

/* How many bytes of a file of `size_bytes` are in the range; 0 or -errno. */
static int bytes_in_range(struct stg_range range, int64_t size_bytes, uint64_t max_bytes,
                          uint64_t *ret_bytes) {
    uint64_t size = size_bytes < 0 ? 0 : (uint64_t)size_bytes;

    if (range.offset > size || (range.bytes && range.offset == size))
        return -ENODATA;
    *ret_bytes = size - range.offset;
    if (range.bytes && *ret_bytes > range.bytes)
        *ret_bytes = range.bytes;
    return *ret_bytes > max_bytes ? -EFBIG : 0;
}

static int fill_open(const struct stg_source *source, int handle, struct stg_range range,
                     struct stg_fill_limits limits, struct stg_filled *filled) {
    stg_auto_free char *content = NULL;
    struct stg_identity after;
    uint64_t bytes;
    ssize_t got;
    bool to_end;
    int error = source->ops->identify(source->context, handle, limits.may_mix, &filled->identity);

    if (!error)
        error = bytes_in_range(range, filled->identity.size_bytes, limits.max_bytes, &bytes);
    if (error)
        return error;
    if (!stg_fill_is_settled(&filled->identity, limits.now_ns, limits.settle_ns))
        return -ESTALE;
    to_end = range.offset + bytes == (uint64_t)filled->identity.size_bytes;
    content = malloc(bytes + 1);
    if (!content)
        return -ENOMEM;
    /* One byte more: does the file end there? */
    got = read_fully(source, handle, content, bytes + to_end, range.offset);
    if (got < 0)
        return (int)got;
    filled->mixed = (uint64_t)got != bytes;
    if (filled->mixed && !limits.may_mix)
        return -ESTALE;
    filled->content = content;
    filled->bytes = (uint64_t)got < bytes ? (uint64_t)got : bytes;
    if (limits.came)
        limits.came(limits.context, filled);
    error = source->ops->identify(source->context, handle, true, &after);
    if (!error && !stg_identity_equal(&filled->identity, &after)) {
        filled->mixed = true;
        error = limits.may_mix ? 0 : -ESTALE;
    }
    if (!error)
        content = NULL; /* the caller's */
    return error;
}

int stg_fill(const struct stg_source *source, void *key, struct stg_range range,
             struct stg_fill_limits limits, struct stg_filled *ret_filled) {
    struct stg_filled filled = {0};
    int64_t start_ns = stg_clock_monotonic_ns();
    int handle = source->ops->open(source->context, key, limits.again);
    int error;

    if (handle < 0)
        return handle;
    error = fill_open(source, handle, range, limits, &filled);
    source->ops->close(source->context, handle);
    if (error)
        return error;
    filled.took_ns = (uint64_t)(stg_clock_monotonic_ns() - start_ns);
    *ret_filled = filled;
    return 0;
}

void stg_filled_fini(struct stg_filled *filled) {
    free(filled->content);
    *filled = (struct stg_filled){0};
}
