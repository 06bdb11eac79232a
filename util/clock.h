/* SPDX-License-Identifier: GPL-2.0-only */
/* The clocks, in nanoseconds. */
#ifndef STG_UTIL_CLOCK_H
#define STG_UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t stg_clock_ns(clockid_t clock) {
    struct timespec now;

    (void)clock_gettime(clock, &now); /* cannot fail for the two below */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Since some moment before; never goes back. */
static inline int64_t stg_clock_monotonic_ns(void) { return stg_clock_ns(CLOCK_MONOTONIC); }

/* The time of day. */
static inline int64_t stg_clock_realtime_ns(void) { return stg_clock_ns(CLOCK_REALTIME); }

#endif
