/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the rules, from the first that applies to the last:
 *
 *   nothing to stage, or not wanted
 *   a source that is as fast as a copy would be: no copy, at most advice
 *   a slow source: whole up to the threshold, by range above
 */
#include "cache/policy.h"

#define WARM_PERCENT 95

static struct stg_decision decision(enum stg_action action, enum stg_mode mode, const char *why) {
    return (struct stg_decision){.action = action, .mode = mode, .why = why};
}

/* A network file system on the same machine, or one that caches well, may be as good as a disk. */
static bool is_fast(const struct stg_facts *facts) {
    return facts->local ||
           (facts->fetch_ns_per_file > 0 && facts->fetch_ns_per_file <= facts->local_ns_per_file);
}

static enum stg_mode mode_for_size(const struct stg_facts *facts) {
    if (facts->mode != STG_MODE_ADAPTIVE)
        return facts->mode;
    /* Who asks for a file does not want it in pieces, if there is room. */
    return facts->size_bytes <= facts->threshold_bytes ||
                   (facts->is_explicit && facts->size_bytes <= facts->room_bytes && !is_fast(facts))
               ? STG_MODE_PREFETCH
               : STG_MODE_MMAP;
}

static struct stg_decision decide_fast(const struct stg_facts *facts, enum stg_mode mode) {
    bool asked_for = facts->mode != STG_MODE_ADAPTIVE && facts->is_explicit;

    if (asked_for && mode == STG_MODE_PREFETCH)
        return decision(STG_ACTION_COPY, mode, "a copy was asked for");
    if (!asked_for && facts->resident_percent >= WARM_PERCENT)
        return decision(STG_ACTION_NONE, STG_MODE_NONE, "it is in the page cache already");
    if (mode == STG_MODE_MMAP)
        return decision(STG_ACTION_ADVISE, mode, "the source's own pages serve it");
    return decision(STG_ACTION_ADVISE, mode, "a local source reads ahead, a copy would not pay");
}

static struct stg_decision decide_slow(enum stg_mode mode) {
    if (mode == STG_MODE_MMAP)
        return decision(STG_ACTION_RANGES, mode, "large, on a slow source: by range");
    return decision(STG_ACTION_COPY, mode, "on a slow source: whole");
}

struct stg_decision stg_policy_decide(const struct stg_facts *facts) {
    enum stg_mode mode = mode_for_size(facts);
    struct stg_decision decided;

    if (facts->size_bytes <= 0)
        return decision(STG_ACTION_NONE, STG_MODE_NONE, "it is empty");
    if (mode == STG_MODE_NONE)
        return decision(STG_ACTION_NONE, STG_MODE_NONE, "staging is off for it");
    decided = is_fast(facts) ? decide_fast(facts, mode) : decide_slow(mode);
    if (decided.action >= STG_ACTION_COPY && facts->size_bytes > facts->room_bytes)
        return decision(facts->local ? STG_ACTION_ADVISE : STG_ACTION_NONE, STG_MODE_NONE,
                        "it is larger than the whole budget");
    return decided;
}
