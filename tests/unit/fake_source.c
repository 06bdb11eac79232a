/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the fake source's obedience. */
#include "tests/unit/fake_source.h"

#include <errno.h>
#include <string.h>

enum { HANDLE = 7 };

/* Counts a call; -errno where this is the one that shall fail. */
static int called(struct fake_source *fake) {
    fake->calls++;
    if (fake->change_at == fake->calls)
        fake->change(fake);
    return fake->fail_at == fake->calls ? fake->fail_with : 0;
}

static int fake_open(void *context, void *key, bool again) {
    struct fake_source *fake = context;
    int error = called(fake);

    (void)again;
    (void)key;
    if (error)
        return error;
    fake->handles++;
    return HANDLE;
}

static int fake_identify(void *context, int handle, bool fresh, struct stg_identity *ret_identity) {
    struct fake_source *fake = context;
    int error = called(fake);

    (void)fresh;
    if (error || handle != HANDLE)
        return error ? error : -EBADF;
    *ret_identity = (struct stg_identity){.device = 1,
                                          .ino = 2,
                                          .size_bytes = fake->size_bytes,
                                          .mtime_ns = fake->mtime_ns,
                                          .ctime_ns = fake->ctime_ns};
    return 0;
}

static ssize_t fake_read(void *context, int handle, void *buffer, size_t bytes, uint64_t offset) {
    struct fake_source *fake = context;
    int error = called(fake);

    if (error || handle != HANDLE)
        return error ? error : -EBADF;
    if (fake->interrupted) {
        fake->interrupted--;
        return -EINTR;
    }
    if (offset >= (uint64_t)fake->size_bytes)
        return 0;
    if (bytes > (uint64_t)fake->size_bytes - offset)
        bytes = (size_t)((uint64_t)fake->size_bytes - offset);
    if (fake->read_at_most && bytes > fake->read_at_most)
        bytes = fake->read_at_most;
    memcpy(buffer, fake->content + offset, bytes);
    return (ssize_t)bytes;
}

static void fake_close(void *context, int handle) {
    struct fake_source *fake = context;

    (void)handle;
    fake->handles--;
}

static const struct stg_source_ops ops = {
    .open = fake_open, .identify = fake_identify, .read = fake_read, .close = fake_close};

struct stg_source fake_source_init(struct fake_source *fake, int64_t size_bytes) {
    *fake = (struct fake_source){.size_bytes = size_bytes, .mtime_ns = 1000, .ctime_ns = 2000};
    for (size_t i = 0; i < sizeof(fake->content); i++)
        fake->content[i] = (char)(i % 251);
    return (struct stg_source){.ops = &ops, .context = fake};
}
