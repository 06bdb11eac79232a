/* SPDX-License-Identifier: GPL-2.0-only */
/* Hashes and printable forms of plain bytes. Pure functions, no locks. */
#ifndef STG_UTIL_BYTES_H
#define STG_UTIL_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A well-mixed 64-bit hash of one number (the finaliser of MurmurHash3). */
static inline uint64_t stg_hash_u64(uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdULL;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53ULL;
    value ^= value >> 33;
    return value;
}

/* The same of `size` bytes; `seed` tells tables apart. */
static inline uint64_t stg_hash_bytes(const void *bytes, size_t size, uint64_t seed) {
    const unsigned char *at = bytes;
    uint64_t hash = stg_hash_u64(seed ^ size);

    while (size) {
        size_t take = size < sizeof(uint64_t) ? size : sizeof(uint64_t);
        uint64_t word = 0;

        memcpy(&word, at, take);
        hash = stg_hash_u64(hash ^ word) + 0x9e3779b97f4a7c15ULL; /* a word of 0 counts, too */
        at += take;
        size -= take;
    }
    return hash;
}

/*
 * Copies `text` into `line` (`size_bytes` with its NUL, at least 1), each control byte written as
 * an escape; cut where it does not fit, never inside an escape. Bytes from 0x80 up are kept:
 * names are mostly UTF-8.
 */
void stg_bytes_escape(char *line, size_t size_bytes, const char *text);

#endif
