/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fetching one file, whole or a range of it, so that what is kept is one version of it or nothing.
 *
 * The identity is read before and after the content. A change in between is seen by the ctime,
 * which every write moves; sources with a coarse clock can hide a change of the same length within
 * one tick of it, so a file whose times are as young as that is not kept: it is fetched again when
 * it has come to rest.
 */
#ifndef STG_CACHE_FILL_H
#define STG_CACHE_FILL_H

#include "cache/source.h"

/* What part of a file; a length of 0 is all of it. */
struct stg_range {
    uint64_t offset;
    uint64_t bytes;
};

struct stg_filled {
    struct stg_identity identity; /* of the whole file */
    char *content;                /* owned by whoever has this */
    uint64_t bytes;               /* of content: of a range as much as the file has of it */
    uint64_t took_ns;
    bool mixed; /* of more than one version, as stg_fill_limits allowed it */
};

struct stg_fill_limits {
    uint64_t max_bytes; /* of what is fetched */
    int64_t now_ns;     /* the time of day that the source's times are compared with */
    bool again;         /* as of source.h: for a copy that is in use */
    int64_t settle_ns;  /* a change as young as that may be followed by one that does not show */
    bool may_mix;       /* parts of several versions will do, as who reads the file itself gets */
    /*
     * Gets what was read before it is known to be of one version: as good as what the source would
     * have given to who reads it himself, and not to be kept. NULL: nobody.
     */
    void (*came)(void *context, const struct stg_filled *filled);
    void *context;
};

/*
 * Fetches the file `key` of the source, or the part of it that `range` names. Returns 0; or,
 * nothing kept:
 *   -ESTALE   it changed meanwhile, or too shortly before: serve the source
 *   -EFBIG    it is larger than allowed
 *   -ENODATA  the file ends before the range
 *   -ENOMEM   no memory
 *   or the source's own error.
 */
int stg_fill(const struct stg_source *source, void *key, struct stg_range range,
             struct stg_fill_limits limits, struct stg_filled *ret_filled);

/* A file that is not fetched whole is fetched in parts of that length; a power of two. */
uint64_t stg_fill_piece_bytes(uint64_t size_bytes);

/* Is the last change so long ago that a further one shows? */
bool stg_fill_is_settled(const struct stg_identity *identity, int64_t now_ns, int64_t settle_ns);

/* Frees what a fetch brought. */
void stg_filled_fini(struct stg_filled *filled);

#endif
