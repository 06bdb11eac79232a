/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the table of moves between states, and the words. */
#include "cache/types.h"

#include "util/parse.h"

#include <stddef.h>

static const bool allowed[STG_STATES][STG_STATES] = {
    [STG_ABSENT] = {[STG_FILLING] = true},
    /* A fetch that failed, or met a change, leaves nothing behind. */
    [STG_FILLING] = {[STG_HOT] = true, [STG_ABSENT] = true},
    [STG_HOT] = {[STG_COLD] = true, [STG_STALE] = true, [STG_ABSENT] = true},
    /* A damaged blob goes, as one that is evicted does. */
    [STG_COLD] = {[STG_HOT] = true, [STG_ABSENT] = true},
    /* Fetched anew into the copy that is in use. */
    [STG_STALE] = {[STG_HOT] = true, [STG_ABSENT] = true},
};

static const char *const state_names[] = {"absent", "filling", "hot", "cold", "stale"};
static const char *const mode_names[] = {"none", "mmap", "prefetch", "adaptive", NULL};

bool stg_state_may_become(enum stg_state from, enum stg_state to) {
    return (unsigned)from < STG_STATES && (unsigned)to < STG_STATES && allowed[from][to];
}

const char *stg_state_name(enum stg_state state) {
    return (unsigned)state < STG_STATES ? state_names[state] : "unknown";
}

const char *stg_mode_name(enum stg_mode mode) {
    return (unsigned)mode <= STG_MODE_ADAPTIVE ? mode_names[mode] : "unknown";
}

int stg_mode_parse(const char *word) { return stg_parse_word(word, mode_names); }
