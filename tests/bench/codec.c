/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What cold copies cost: how much smaller C sources become, and how long they take to pack and to
 * unpack, each file by itself as the cache has them.
 *
 *   bench-codec [FOLDER…]    default: this repository and /usr/include
 */
#include "cache/codec.h"
#include "cache/store.h"

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { ROUNDS = 20, TYPICAL_BYTES = 20 << 10 };
#define LARGEST_BYTES (1 << 20)

struct file {
    char *raw;
    size_t bytes;
};

struct result {
    size_t raw_bytes;
    size_t kept_bytes;  /* blobs, and whole what does not shrink */
    size_t typical;     /* files of about 20 KB */
    size_t typical_raw; /* bytes of these */
    size_t typical_kept;
    double pack_s;
    double unpack_s;
    double typical_unpack_s;
    double slowest_typical_s;
};

static struct file *files;
static size_t count;
static size_t room;

static double now_s(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *must(void *memory) {
    if (!memory) {
        perror("bench-codec");
        exit(1);
    }
    return memory;
}

static bool is_source(const char *path) {
    const char *end = strrchr(path, '.');

    return end && (!strcmp(end, ".c") || !strcmp(end, ".h"));
}

static int take_file(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    FILE *stream;
    char *raw;

    (void)walk;
    if (kind != FTW_F || !is_source(path) || !status->st_size || status->st_size > LARGEST_BYTES)
        return 0;
    stream = fopen(path, "re");
    if (!stream)
        return 0;
    raw = must(malloc((size_t)status->st_size));
    if (count == room) {
        room = room ? 2 * room : 1024;
        files = must(realloc(files, room * sizeof(*files)));
    }
    files[count] = (struct file){raw, fread(raw, 1, (size_t)status->st_size, stream)};
    count++;
    (void)fclose(stream); /* only read */
    return 0;
}

static bool is_typical(const struct file *file) {
    return file->bytes > TYPICAL_BYTES * 3 / 4 && file->bytes < TYPICAL_BYTES * 5 / 4;
}

/* The best of several times, as the cache is in the way of the first. */
static double unpack_s(const void *blob, size_t blob_bytes, char *raw, size_t bytes) {
    double best_s = 1e9;

    for (int i = 0; i < ROUNDS; i++) {
        double start_s = now_s();
        ssize_t got = stg_codec_unpack(blob, blob_bytes, raw, bytes);
        double took_s = now_s() - start_s;

        if (got != (ssize_t)bytes) {
            fprintf(stderr, "bench-codec: a blob does not come back\n");
            exit(1);
        }
        best_s = took_s < best_s ? took_s : best_s;
    }
    return best_s;
}

static void measure(const struct file *file, int level, struct result *result) {
    void *blob = NULL;
    double start_s = now_s();
    ssize_t packed = stg_codec_pack(file->raw, file->bytes, level, &blob);
    size_t kept_bytes = packed > 0 ? (size_t)packed : file->bytes;
    double took_s = 0;

    result->pack_s += now_s() - start_s;
    result->raw_bytes += file->bytes;
    result->kept_bytes += kept_bytes;
    if (packed > 0) {
        char *raw = must(malloc(file->bytes));

        took_s = unpack_s(blob, (size_t)packed, raw, file->bytes);
        free(raw);
        free(blob);
    }
    result->unpack_s += took_s;
    if (!is_typical(file))
        return;
    result->typical++;
    result->typical_raw += file->bytes;
    result->typical_kept += kept_bytes;
    result->typical_unpack_s += took_s;
    if (took_s > result->slowest_typical_s)
        result->slowest_typical_s = took_s;
}

static void show(int level) {
    struct result all = {0};
    double typical;

    for (size_t i = 0; i < count; i++)
        measure(&files[i], level, &all);
    typical = all.typical ? (double)all.typical : 1;
    printf("level %2d: %5.2f x smaller, packs %6.1f MB/s, unpacks %7.1f MB/s;  of 20 KB (%zu): "
           "%5.2f x, unpack %5.1f us, slowest %5.1f us\n",
           level, (double)all.raw_bytes / (double)all.kept_bytes,
           (double)all.raw_bytes / all.pack_s / 1e6, (double)all.raw_bytes / all.unpack_s / 1e6,
           all.typical, all.typical ? (double)all.typical_raw / (double)all.typical_kept : 0,
           all.typical_unpack_s / typical * 1e6, all.slowest_typical_s * 1e6);
}

static void bench(const char *folder) {
    static const int levels[] = {1, 3, 6, 9, 12};
    size_t raw_bytes = 0;
    size_t hot_bytes = 0;

    if (nftw(folder, take_file, 32, FTW_PHYS) || !count) {
        fprintf(stderr, "bench-codec: no C sources in %s\n", folder);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        raw_bytes += files[i].bytes;
        hot_bytes += stg_store_cost_bytes(files[i].bytes);
    }
    printf("%s: %zu files, %.1f MB, %.1f MB as hot copies\n", folder, count,
           (double)raw_bytes / 1e6, (double)hot_bytes / 1e6);
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        show(levels[i]);
    for (size_t i = 0; i < count; i++)
        free(files[i].raw);
    count = 0;
}

int main(int argc, char **argv) {
    if (argc == 1) {
        bench(STG_SOURCE_ROOT);
        bench("/usr/include");
    }
    for (int i = 1; i < argc; i++)
        bench(argv[i]);
    free(files);
    return 0;
}
