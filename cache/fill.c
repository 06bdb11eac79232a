/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns one fetch from its open to its close. What becomes of the content is the caller's affair. */
#include "cache/fill.h"

#include "util/cleanup.h"

#include <time.h>

static int64_t monotonic_ns(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Reads up to `bytes`, short only at the end of the file. Returns how many, or -errno. */
static ssize_t read_whole(const struct stg_source *source, int handle, char *buffer, size_t bytes) {
    size_t done = 0;

    while (done < bytes) {
        ssize_t got = source->ops->read(source->context, handle, buffer + done, bytes - done, done);

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

static bool is_unsettled(const struct stg_identity *identity, int64_t now_ns) {
    int64_t age_ns = now_ns - identity->ctime_ns;

    /* A clock that is ahead of ours tells nothing about the age: the second look decides alone. */
    return age_ns >= 0 && age_ns < STG_FILL_UNSETTLED_NS;
}

static int fill_open(const struct stg_source *source, int handle, uint64_t max_bytes,
                     int64_t now_ns, struct stg_filled *filled) {
    stg_auto_free char *content = NULL;
    struct stg_identity after;
    size_t bytes;
    ssize_t got;
    int error = source->ops->identify(source->context, handle, &filled->identity);

    if (error)
        return error;
    if (filled->identity.size_bytes < 0 || (uint64_t)filled->identity.size_bytes > max_bytes)
        return -EFBIG;
    if (is_unsettled(&filled->identity, now_ns))
        return -ESTALE;
    bytes = (size_t)filled->identity.size_bytes;
    content = malloc(bytes + 1);
    if (!content)
        return -ENOMEM;
    got = read_whole(source, handle, content, bytes + 1); /* one more: does it end there? */
    if (got < 0)
        return (int)got;
    error = source->ops->identify(source->context, handle, &after);
    if (error)
        return error;
    if ((size_t)got != bytes || !stg_identity_equal(&filled->identity, &after))
        return -ESTALE;
    filled->content = content;
    content = NULL;
    return 0;
}

int stg_fill(const struct stg_source *source, void *key, uint64_t max_bytes, int64_t now_ns,
             struct stg_filled *ret_filled) {
    struct stg_filled filled = {0};
    int64_t start_ns = monotonic_ns();
    int handle = source->ops->open(source->context, key);
    int error;

    if (handle < 0)
        return handle;
    error = fill_open(source, handle, max_bytes, now_ns, &filled);
    source->ops->close(source->context, handle);
    if (error)
        return error;
    filled.took_ns = (uint64_t)(monotonic_ns() - start_ns);
    *ret_filled = filled;
    return 0;
}

void stg_filled_fini(struct stg_filled *filled) {
    free(filled->content);
    *filled = (struct stg_filled){0};
}
