/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the question: cachestat(2), which asks for no mapping (Linux 6.5, linux/mman.h); where the
 * kernel or the file system has it not, mincore(2) over a mapping.
 */
#include "cache/residency.h"

#include "util/cleanup.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same number on all architectures; older headers have neither it nor the structures. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct range {
    uint64_t offset;
    uint64_t bytes;
};

struct counts {
    uint64_t cached;
    uint64_t dirty;
    uint64_t writeback;
    uint64_t evicted;
    uint64_t recently_evicted;
};

static int64_t pages_by_cachestat(int fd, uint64_t bytes) {
    struct range range = {.bytes = bytes};
    struct counts counts;

    return syscall(SYS_cachestat, fd, &range, &counts, 0U) ? -1 : (int64_t)counts.cached;
}

static int64_t pages_by_mincore(int fd, uint64_t bytes, uint64_t pages) {
    stg_auto_free unsigned char *there = malloc(pages);
    void *mapping;
    int64_t found = 0;

    if (!there)
        return -1;
    mapping = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED)
        return -1;
    if (mincore(mapping, bytes, there))
        found = -1;
    for (uint64_t i = 0; found >= 0 && i < pages; i++)
        found += there[i] & 1;
    (void)munmap(mapping, bytes); /* cannot fail for what was mapped */
    return found;
}

int stg_residency_percent(int fd, uint64_t bytes) {
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    struct stat st;
    uint64_t pages;
    int64_t found;

    if (fstat(fd, &st))
        return -1;
    if (bytes > (uint64_t)st.st_size)
        bytes = (uint64_t)st.st_size;
    if (!bytes)
        return 100;
    pages = (bytes + page_bytes - 1) / page_bytes;
    found = pages_by_cachestat(fd, bytes);
    if (found < 0)
        found = pages_by_mincore(fd, bytes, pages);
    return found < 0 ? -1 : (int)((uint64_t)found * 100 / pages);
}
