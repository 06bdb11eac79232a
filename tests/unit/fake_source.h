/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A source in memory with one file, which does what it is told: short reads, errors at the n-th
 * call, a change of the file between two calls. Not thread-safe.
 */
#ifndef STG_TESTS_FAKE_SOURCE_H
#define STG_TESTS_FAKE_SOURCE_H

#include "cache/source.h"

struct fake_source {
    char content[8192];
    int64_t size_bytes;
    int64_t mtime_ns;
    int64_t ctime_ns;

    size_t read_at_most;  /* bytes of one read; 0: as asked */
    unsigned interrupted; /* so many reads fail with EINTR first */
    unsigned fail_at;     /* the call, counted from 1, that fails; 0: none */
    int fail_with;        /* with this -errno */
    unsigned change_at;   /* before this call the file changes; 0: never */
    void (*change)(struct fake_source *fake);

    unsigned calls;
    int handles; /* open now */
};

/* The interface to `fake`, whose content is `size_bytes` of a pattern. */
struct stg_source fake_source_init(struct fake_source *fake, int64_t size_bytes);

#endif
