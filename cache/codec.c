/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the form of a cold copy. Does not know where blobs are kept.
 *
 * What does not shrink is found out on a sample first: object files of a build with embedded
 * archives, images and the like would otherwise cost a whole compression each time they go cold.
 */
#include "cache/codec.h"

#include "util/cleanup.h"

#include <lz4.h>
#include <lz4hc.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#define MAGIC 0x31474c53U /* "SLG1" */
#define SAMPLE_MIN_BYTES ((size_t)4 << 10)
#define SAMPLE_MAX_BYTES ((size_t)16 << 10)
#define SAMPLE_PART 8
#define HIGH_LEVEL 3

struct header {
    uint32_t magic;
    uint32_t packed_bytes;
    uint64_t raw_bytes;
    uint64_t checksum; /* XXH3 of the content, seeded with its length */
};

/* The most that packing may leave of `raw_bytes` to be worth it. */
static size_t worthwhile(size_t raw_bytes) { return raw_bytes - raw_bytes / 8; }

static uint64_t checksum_of(const void *raw, size_t raw_bytes) {
    return XXH3_64bits_withSeed(raw, raw_bytes, raw_bytes);
}

/* The packed bytes; -E2BIG where they do not fit into `room`; -ENOMEM. */
static ssize_t compress_block(const void *raw, size_t raw_bytes, void *packed, size_t room,
                              int level) {
    stg_auto_free void *state = NULL;
    int got;

    if (level < HIGH_LEVEL) {
        got = LZ4_compress_fast(raw, packed, (int)raw_bytes, (int)room, 1);
    } else {
        /* LZ4_compress_HC() does this, too, but does not say when there is no memory. */
        state = malloc((size_t)LZ4_sizeofStateHC());
        if (!state)
            return -ENOMEM;
        got = LZ4_compress_HC_extStateHC(state, raw, packed, (int)raw_bytes, (int)room, level);
    }
    return got > 0 ? got : -E2BIG;
}

/* Tells from a part of the content, at the fastest level. */
static bool shrinks(const char *raw, size_t raw_bytes) {
    char packed[SAMPLE_MAX_BYTES];
    size_t sample_bytes = raw_bytes / SAMPLE_PART;
    const char *sample;

    if (raw_bytes <= 2 * SAMPLE_MIN_BYTES)
        return true; /* trying is as fast */
    if (sample_bytes < SAMPLE_MIN_BYTES)
        sample_bytes = SAMPLE_MIN_BYTES;
    if (sample_bytes > SAMPLE_MAX_BYTES)
        sample_bytes = SAMPLE_MAX_BYTES;
    /* From the middle: headers at the start of a file shrink better than the rest. */
    sample = raw + (raw_bytes - sample_bytes) / 2;
    return compress_block(sample, sample_bytes, packed, worthwhile(sample_bytes), 1) > 0;
}

ssize_t stg_codec_pack(const void *raw, size_t raw_bytes, int level, void **ret_blob) {
    stg_auto_free char *blob = NULL;
    size_t room;
    ssize_t packed_bytes;
    struct header header;
    void *fitted;

    if (raw_bytes > STG_CODEC_MAX_BYTES || worthwhile(raw_bytes) <= sizeof(header) ||
        !shrinks(raw, raw_bytes))
        return -E2BIG;
    room = worthwhile(raw_bytes) - sizeof(header);
    blob = malloc(sizeof(header) + room);
    if (!blob)
        return -ENOMEM;
    packed_bytes = compress_block(raw, raw_bytes, blob + sizeof(header), room, level);
    if (packed_bytes < 0)
        return packed_bytes;
    header = (struct header){.magic = MAGIC,
                             .packed_bytes = (uint32_t)packed_bytes,
                             .raw_bytes = raw_bytes,
                             .checksum = checksum_of(raw, raw_bytes)};
    memcpy(blob, &header, sizeof(header));
    fitted = realloc(blob, sizeof(header) + (size_t)packed_bytes);
    *ret_blob = fitted ? fitted : blob;
    blob = NULL;
    return (ssize_t)sizeof(header) + packed_bytes;
}

/* Copies the header out, which need not be aligned. */
static int read_header(const void *blob, size_t blob_bytes, struct header *ret_header) {
    struct header header;

    if (blob_bytes < sizeof(header))
        return -EBADMSG;
    memcpy(&header, blob, sizeof(header));
    if (header.magic != MAGIC || header.packed_bytes != blob_bytes - sizeof(header) ||
        !header.raw_bytes || header.raw_bytes > STG_CODEC_MAX_BYTES)
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

ssize_t stg_codec_raw_bytes(const void *blob, size_t blob_bytes) {
    struct header header;
    int error = read_header(blob, blob_bytes, &header);

    return error ? error : (ssize_t)header.raw_bytes;
}

ssize_t stg_codec_unpack(const void *blob, size_t blob_bytes, void *raw, size_t room_bytes) {
    struct header header;
    int got;

    if (read_header(blob, blob_bytes, &header) || header.raw_bytes > room_bytes)
        return -EBADMSG;
    got = LZ4_decompress_safe((const char *)blob + sizeof(header), raw, (int)header.packed_bytes,
                              (int)header.raw_bytes);
    if (got < 0 || (uint64_t)got != header.raw_bytes ||
        checksum_of(raw, header.raw_bytes) != header.checksum)
        return -EBADMSG;
    return got;
}
