/* SPDX-License-Identifier: GPL-2.0-only */
/* A stage directory for a test, and content to be kept there. */
#ifndef STG_TESTS_UNIT_DISK_STAGE_H
#define STG_TESTS_UNIT_DISK_STAGE_H

#include "cache/disk.h"
#include "tests/unit/unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE (UINT64_C(32) << 20)
#define SOURCE "fuse.test somewhere /"

static char folder[256];
static char stage[300];

static inline int set_up(void **state) {
    const char *top = getenv("TMPDIR");

    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s/test_disk.XXXXXX", top ? top : "/tmp");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(stage, sizeof(stage), "%s/stage", folder);
    return 0;
}

static inline void empty(const char *path) {
    DIR *stream = opendir(path);
    struct dirent *entry;

    while (stream && (entry = readdir(stream)))
        (void)unlinkat(dirfd(stream), entry->d_name, 0);
    if (stream)
        (void)closedir(stream);
    (void)rmdir(path);
}

static inline int tear_down(void **state) {
    char large[sizeof(stage) + 8];

    (void)state;
    (void)snprintf(large, sizeof(large), "%s/large", stage);
    empty(large);
    empty(stage);
    empty(folder);
    return 0;
}

static inline struct stg_disk *start(uint64_t size_bytes) {
    struct stg_disk *disk = NULL;

    assert_int_equal(stg_disk_claim(stage, SOURCE, &disk), 0);
    assert_int_equal(stg_disk_start(disk, size_bytes), 0);
    return disk;
}

static inline void stop(struct stg_disk *disk) {
    stg_disk_stop(disk);
    stg_disk_free(disk);
}

/* Content that does not shrink when `seed` is odd, and does when it is even. */
static inline char *content_of(unsigned seed, size_t bytes) {
    char *content = malloc(bytes + 1);
    uint64_t state = seed + 1;

    assert_non_null(content);
    for (size_t i = 0; i < bytes; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        content[i] = seed % 2 ? (char)(state >> 56) : (char)('a' + (i / 16 + seed) % 26);
    }
    return content;
}

#endif
