/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fetching one file whole, so that what is kept is one version of it or nothing.
 *
 * The identity is read before and after the content. A change in between is seen by the ctime,
 * which every write moves; sources with a coarse clock can hide a change of the same length within
 * one tick of it, so a file whose times are as young as that is not kept: it is fetched again when
 * it has come to rest.
 */
#ifndef STG_CACHE_FILL_H
#define STG_CACHE_FILL_H

#include "cache/source.h"

/* Within this age of a file's last change, a further one may not show in its times. */
#define STG_FILL_UNSETTLED_NS INT64_C(20000000)

struct stg_filled {
    struct stg_identity identity;
    char *content; /* owned by whoever has this; identity.size_bytes long */
    uint64_t took_ns;
};

/*
 * Fetches the file `key` of the source. `now_ns` is the time of day that the source's times are
 * compared with. Returns 0; or, nothing kept:
 *   -ESTALE  it changed meanwhile, or too shortly before: serve the source
 *   -EFBIG   it is larger than `max_bytes`
 *   -ENOMEM  no memory
 *   or the source's own error.
 */
int stg_fill(const struct stg_source *source, void *key, uint64_t max_bytes, int64_t now_ns,
             struct stg_filled *ret_filled);

/* Frees what a fetch brought. */
void stg_filled_fini(struct stg_filled *filled);

#endif
