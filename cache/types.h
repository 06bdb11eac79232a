/* SPDX-License-Identifier: GPL-2.0-only */
/* The words that every part of the staging engine uses: modes, states, identities. */
#ifndef STG_CACHE_TYPES_H
#define STG_CACHE_TYPES_H

#include <stdbool.h>
#include <stdint.h>

/* How a file is to be staged. */
enum stg_mode {
    STG_MODE_NONE,     /* not at all */
    STG_MODE_MMAP,     /* by range, from the source's own pages where it is local */
    STG_MODE_PREFETCH, /* whole, in one go */
    STG_MODE_ADAPTIVE, /* whichever pays */
};

/* Where a file's staged copy is in its life; stg_state_may_become() has the moves. */
enum stg_state {
    STG_ABSENT,  /* there is none */
    STG_FILLING, /* being fetched; readers of it wait for this fetch */
    STG_HOT,     /* whole, and can be served as it is */
    STG_COLD,    /* whole, compressed; inflated before it is served */
    STG_STALE,   /* of an earlier version of the file, and still in use by who opened it then */
};
#define STG_STATES (STG_STALE + 1)

/*
 * What a copy is a copy of. Two identities that are equal mean the same bytes: every change of
 * content moves the ctime, which nobody can set.
 */
struct stg_identity {
    uint64_t device;
    uint64_t ino;
    int64_t size_bytes;
    int64_t mtime_ns;
    int64_t ctime_ns;
};

static inline bool stg_identity_equal(const struct stg_identity *a, const struct stg_identity *b) {
    return a->device == b->device && a->ino == b->ino && a->size_bytes == b->size_bytes &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

/* May a copy move from one state to the other? Staying where it is is no move. */
bool stg_state_may_become(enum stg_state from, enum stg_state to);

/* The words for people, as options and attributes write them; never NULL. */
const char *stg_state_name(enum stg_state state);
const char *stg_mode_name(enum stg_mode mode);

/* The mode that `word` names, or -EINVAL. */
int stg_mode_parse(const char *word);

#endif
