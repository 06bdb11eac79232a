/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the search: what is measured, what is tried next, and what is kept of that. */
#include "cache/depth.h"

#define FIRST 16
#define LEAST 4
/* A measurement takes so many ends for each that may be under way, and that many at least. */
#define ENDS_EACH 4
#define ENDS_MIN 32
/* A fetch is worth that many bytes besides those that it brings: most are of small files. */
#define FETCH_BYTES 65536
/* Twice as many have to be faster by so much; half as many may be slower by so much. */
#define GAIN_MIN 1.05
#define LOSS_MAX 0.97
/* Once neither pays, so many measurements go by. */
#define PAUSE 16
/* A source that has become so much slower is another one, and is not waited with. */
#define SLOWER 0.7
/* No fetch takes that long but where a part of the source hangs. */
#define STUCK_NS INT64_C(2000000000)

void stg_depth_init(struct stg_depth *depth, unsigned most) {
    *depth = (struct stg_depth){.most = most, .limit = most < FIRST ? most : FIRST};
}

bool stg_depth_has_room(const struct stg_depth *depth) {
    return !depth->most || depth->under_way < depth->limit;
}

void stg_depth_begin(struct stg_depth *depth, int64_t now_ns) {
    depth->under_way++;
    depth->moved_ns = now_ns;
}

int64_t stg_depth_stuck_ns(const struct stg_depth *depth) { return depth->moved_ns + STUCK_NS; }

/* ---- what is tried ---- */

static void measure_anew(struct stg_depth *depth, unsigned skipped) {
    depth->skipped = skipped;
    depth->ends = 0;
    depth->work = 0;
}

static void go_to(struct stg_depth *depth, unsigned limit) {
    depth->limit = limit;
    measure_anew(depth, depth->under_way);
}

/* False where there is none such. */
static bool try_limit(struct stg_depth *depth, unsigned limit) {
    if (limit < LEAST || limit > depth->most || limit == depth->limit)
        return false;
    depth->before = depth->limit;
    depth->rate_before = depth->rate;
    go_to(depth, limit);
    return true;
}

static unsigned twice(const struct stg_depth *depth) {
    return depth->limit > depth->most / 2 ? depth->most : depth->limit * 2;
}

static void rest(struct stg_depth *depth) {
    depth->before = 0;
    depth->pause = PAUSE;
}

void stg_depth_unstick(struct stg_depth *depth, int64_t now_ns) {
    depth->before = 0;
    depth->moved_ns = now_ns;
    go_to(depth, twice(depth));
}

/* A trial is over: what has it shown, and what comes next? */
static void judge(struct stg_depth *depth, double rate) {
    bool is_more = depth->limit > depth->before;
    bool pays = rate >= depth->rate_before * (is_more ? GAIN_MIN : LOSS_MAX);
    unsigned before = depth->before;

    if (pays) {
        /* Of several steps down each is compared with where they began. */
        depth->rate = is_more ? rate : depth->rate_before;
        if (!try_limit(depth, is_more ? twice(depth) : depth->limit / 2))
            rest(depth);
        return;
    }
    depth->rate = depth->rate_before;
    go_to(depth, before);
    depth->before = 0;
    if (!is_more || !try_limit(depth, before / 2))
        rest(depth);
}

static void measured(struct stg_depth *depth, double rate) {
    if (depth->before) {
        judge(depth, rate);
        return;
    }
    if (rate < depth->rate * SLOWER)
        depth->pause = 0;
    depth->rate = rate;
    if (depth->pause)
        depth->pause--;
    else if (!try_limit(depth, twice(depth)) && !try_limit(depth, depth->limit / 2))
        rest(depth);
}

/* ---- what is measured ---- */

/* All is done, and what comes next may be of another kind: it does not begin with few. */
static void forget_low_limit(struct stg_depth *depth) {
    if (depth->limit < FIRST)
        stg_depth_init(depth, depth->most);
}

static unsigned ends_wanted(const struct stg_depth *depth) {
    unsigned wanted = depth->limit * ENDS_EACH;

    return wanted > ENDS_MIN ? wanted : ENDS_MIN;
}

void stg_depth_end(struct stg_depth *depth, int64_t now_ns, uint64_t bytes, bool is_more) {
    double rate;

    depth->under_way--;
    depth->moved_ns = now_ns;
    if (!depth->most)
        return;
    if (!depth->under_way && !is_more)
        forget_low_limit(depth);
    if (!is_more) { /* what there is to do does not keep the source busy */
        measure_anew(depth, 0);
        return;
    }
    if (depth->skipped) {
        depth->skipped--;
        return;
    }
    if (!bytes) /* its place is another's at once */
        return;
    if (!depth->ends++) { /* from its end on */
        depth->began_ns = now_ns;
        return;
    }
    depth->work += (double)bytes + FETCH_BYTES;
    if (depth->ends <= ends_wanted(depth) || now_ns <= depth->began_ns)
        return;
    rate = depth->work / (double)(now_ns - depth->began_ns);
    measure_anew(depth, 0);
    measured(depth, rate);
}
