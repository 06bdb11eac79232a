/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Plays a trace of opens against a cache of whole files, once as the mount evicts (S3-FIFO, from
 * cache/fifo.h) and once by least recent use, and counts the hits. It knows nothing of how the
 * trace came about: tests/bench/eviction does.
 *
 *   evict lru|s3fifo CACHE-BYTES <TRACE
 *
 * The trace on standard input: the number of files, the size of each, then phases: the number of
 * opens and for each the file's index from 0. For each phase it prints "OPENS HITS BYTES
 * HIT-BYTES".
 */
#include "cache/fifo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096
#define GHOSTS 65536 /* as cache/stage.c has */

struct file {
    struct stg_fifo_entry entry;
    uint64_t bytes; /* what a copy takes: whole pages */
    struct file *older, *newer;
    bool is_held;
};

struct cache {
    bool is_lru;
    uint64_t limit_bytes;
    uint64_t held_bytes;
    struct stg_fifo fifo;
    struct file ends; /* of the list by use: newer is the oldest, older the newest */
};

static void die(const char *what) {
    fprintf(stderr, "evict: %s\n", what);
    exit(1);
}

static uint64_t number(void) {
    uint64_t value;

    if (scanf("%" SCNu64, &value) != 1)
        die("the trace ends too early");
    return value;
}

/* ---- by least recent use ---- */

static void lru_remove(struct file *file) {
    file->older->newer = file->newer;
    file->newer->older = file->older;
}

static void lru_add(struct cache *cache, struct file *file) {
    file->newer = &cache->ends;
    file->older = cache->ends.older;
    file->older->newer = file;
    cache->ends.older = file;
}

static struct file *lru_evict(struct cache *cache) {
    struct file *oldest = cache->ends.newer;

    lru_remove(oldest);
    return oldest;
}

/* ---- either ---- */

static bool may_go(const struct stg_fifo_entry *entry, void *context) {
    (void)entry;
    (void)context;
    return true;
}

static void evict(struct cache *cache) {
    struct file *gone = cache->is_lru
                            ? lru_evict(cache)
                            : (struct file *)(void *)stg_fifo_evict(&cache->fifo, may_go, NULL);

    gone->is_held = false;
    cache->held_bytes -= gone->bytes;
}

static void add(struct cache *cache, struct file *file, uint64_t key) {
    while (cache->held_bytes + file->bytes > cache->limit_bytes)
        evict(cache);
    if (cache->is_lru)
        lru_add(cache, file);
    else
        stg_fifo_add(&cache->fifo, &file->entry, key, file->bytes);
    file->is_held = true;
    cache->held_bytes += file->bytes;
}

static void use(struct cache *cache, struct file *file) {
    if (!cache->is_lru) {
        stg_fifo_use(&file->entry);
        return;
    }
    lru_remove(file);
    lru_add(cache, file);
}

/* One open; whether the cache had the file. What is larger than the cache is served past it. */
static bool open_file(struct cache *cache, struct file *file, uint64_t key) {
    bool hit = file->is_held;

    if (!hit && file->bytes <= cache->limit_bytes)
        add(cache, file, key);
    if (file->is_held)
        use(cache, file); /* the reader that a copy is made for counts too */
    return hit;
}

static void play_phase(struct cache *cache, struct file *files, uint64_t n_files, uint64_t opens) {
    uint64_t hits = 0, bytes = 0, hit_bytes = 0;

    for (uint64_t i = 0; i < opens; i++) {
        uint64_t index = number();

        if (index >= n_files)
            die("no such file in the trace");
        bytes += files[index].bytes;
        if (!open_file(cache, &files[index], index + 1))
            continue;
        hits++;
        hit_bytes += files[index].bytes;
    }
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", opens, hits, bytes, hit_bytes);
}

static struct file *read_files(uint64_t n_files) {
    struct file *files = calloc(n_files ? n_files : 1, sizeof(*files));

    if (!files)
        die("no memory");
    for (uint64_t i = 0; i < n_files; i++)
        files[i].bytes = (number() + PAGE - 1) / PAGE * PAGE;
    return files;
}

int main(int argc, char **argv) {
    struct cache cache = {0};
    struct file *files;
    uint64_t n_files, opens;

    if (argc != 3 || (strcmp(argv[1], "lru") && strcmp(argv[1], "s3fifo")))
        die("usage: evict lru|s3fifo CACHE-BYTES <TRACE");
    cache.is_lru = !strcmp(argv[1], "lru");
    cache.limit_bytes = strtoull(argv[2], NULL, 10);
    cache.ends.newer = cache.ends.older = &cache.ends;
    if (stg_fifo_init(&cache.fifo, GHOSTS))
        die("no memory");
    n_files = number();
    files = read_files(n_files);
    while (scanf("%" SCNu64, &opens) == 1)
        play_phase(&cache, files, n_files, opens);
    stg_fifo_fini(&cache.fifo);
    free(files);
    return 0;
}
