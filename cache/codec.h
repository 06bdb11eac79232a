/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cold copies: one file's content as an LZ4 block behind a header with both lengths and a checksum
 * of the content. Pure functions on memory, no locks.
 *
 * The form is for this machine and this run (native byte order); what outlives a run gets a
 * version of its own around it. LZ4 and XXH3 are the libraries' own: https://github.com/lz4/lz4
 * (block format), https://github.com/Cyan4973/xxHash.
 */
#ifndef STG_CACHE_CODEC_H
#define STG_CACHE_CODEC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The largest content that is packed: LZ4's own limit for one block, 2 GiB less 2 MiB. */
#define STG_CODEC_MAX_BYTES ((size_t)0x7E000000)

/* 1 is the fastest; from 3 up the high-compression variant is used. */
#define STG_CODEC_LEVEL_MIN 1
#define STG_CODEC_LEVEL_MAX 12

/*
 * Of C sources 2.6 (this repository) to 3.4 times (/usr/include) as much fits into the same memory
 * at this level, 2.2 to 2.8 times at the fastest, 2.7 to 3.5 at the highest; it packs 100 MB/s, a
 * quarter of the fastest. Unpacking takes the same time at each level. `bench-codec` measures it.
 */
#define STG_CODEC_LEVEL_DEFAULT 3

/*
 * Packs `raw`. On success `*ret_blob` is memory of exactly the returned size that the caller frees.
 * Returns the blob's bytes; -E2BIG where packing saves less than an eighth, or nothing can be
 * packed (empty, too large): keep it raw; -ENOMEM.
 */
ssize_t stg_codec_pack(const void *raw, size_t raw_bytes, int level, void **ret_blob);

/*
 * The content's length that the blob's header names. Returns -EBADMSG for what is no blob.
 */
ssize_t stg_codec_raw_bytes(const void *blob, size_t blob_bytes);

/*
 * Unpacks into `raw`, which has room for stg_codec_raw_bytes(). Returns the content's bytes, or
 * -EBADMSG where anything disagrees, the checksum included; then `raw` holds nothing of use.
 */
ssize_t stg_codec_unpack(const void *blob, size_t blob_bytes, void *raw, size_t room_bytes);

#endif
