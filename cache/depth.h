/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How many fetches that nobody waits for are under way at once: as many as pay, and no more. What a
 * source cannot do at the same time it only keeps in a queue, behind which those come that somebody
 * waits for.
 *
 * While there is more to be fetched than may be begun, the rate at which fetches end is measured,
 * over some times as many as are under way. From time to time twice as many are tried, and stay
 * where they are faster; and half as many, which stay where they are not slower. A source is not
 * known beforehand: the same sshfs is behind another line tomorrow. (A search by doubling and
 * halving, as TCP's for its window; the rate and not the latency is looked at, as latencies of
 * files of all sizes tell little.)
 *
 * No locks, and no clock: the owner has both.
 */
#ifndef STG_CACHE_DEPTH_H
#define STG_CACHE_DEPTH_H

#include <stdbool.h>
#include <stdint.h>

struct stg_depth {
    unsigned most;      /* never more than that; 0: there is no bound, and nothing is measured */
    unsigned limit;     /* so many may be under way */
    unsigned under_way; /* so many are */
    int64_t moved_ns;   /* when the last one began or ended */

    /* What is being measured. */
    unsigned skipped; /* ends that are still of what was begun before */
    unsigned ends;
    double work;
    int64_t began_ns;

    /* What is being tried. */
    unsigned before;    /* the limit that is to be bettered; 0: nothing is tried */
    double rate_before; /* with that */
    double rate;        /* with the limit as it is; 0: not known */
    unsigned pause;     /* so many measurements until the next trial */
};

/* `most` are as many as there can be fetches at once; 0: no bound. */
void stg_depth_init(struct stg_depth *depth, unsigned most);

/* May another one begin? */
bool stg_depth_has_room(const struct stg_depth *depth);

/* One has begun, at `now_ns` (monotonic). */
void stg_depth_begin(struct stg_depth *depth, int64_t now_ns);

/*
 * From then on (monotonic) what is under way hangs, and is not to hold up others: when none began
 * or ended meanwhile, stg_depth_unstick() lets more begin.
 */
int64_t stg_depth_stuck_ns(const struct stg_depth *depth);
void stg_depth_unstick(struct stg_depth *depth, int64_t now_ns);

/*
 * One is over, at `now_ns`, and has brought so much from the source; 0: nothing, and it tells
 * nothing. `is_more`: others could not begin while it was under way.
 */
void stg_depth_end(struct stg_depth *depth, int64_t now_ns, uint64_t bytes, bool is_more);

#endif
