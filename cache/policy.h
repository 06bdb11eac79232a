/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether and how a file is staged, from facts alone: a pure function, so that `why` can be shown
 * to people and each rule tested.
 */
#ifndef STG_CACHE_POLICY_H
#define STG_CACHE_POLICY_H

#include "cache/types.h"

/* What is to be done. */
enum stg_action {
    STG_ACTION_NONE,   /* serve the source */
    STG_ACTION_ADVISE, /* serve the source, and have it read ahead into its own page cache */
    STG_ACTION_COPY,   /* make a whole copy, and serve that */
    STG_ACTION_RANGES, /* fill a copy by range as it is read, and serve that */
};

struct stg_facts {
    enum stg_mode mode;   /* of the file where it has one, else of the mount */
    bool is_explicit;     /* somebody asked for this very file */
    bool local;           /* the source's pages are in this machine's page cache once read */
    int resident_percent; /* of the file, in the page cache; -1: not known */
    int64_t size_bytes;
    int64_t threshold_bytes;   /* the largest file that is fetched whole */
    int64_t room_bytes;        /* the budget for copies, used or not */
    int64_t fetch_ns_per_file; /* measured on this source for a small file; 0: not measured yet */
    int64_t local_ns_per_file; /* below which a source is as good as local */
};

struct stg_decision {
    enum stg_action action;
    enum stg_mode mode; /* never adaptive */
    const char *why;    /* one clause for people, constant */
};

/*
 * Decides. What is explicit is obeyed in everything but what cannot be: an empty file has nothing
 * to stage, and a copy larger than the whole budget has no room.
 */
struct stg_decision stg_policy_decide(const struct stg_facts *facts);

#endif
