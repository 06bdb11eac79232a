/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Latencies by order of magnitude: four buckets for each doubling, so a percentile is known to
 * about 20 %, in constant memory. Thread-safe and without locks.
 */
#ifndef STG_CACHE_HISTOGRAM_H
#define STG_CACHE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

/* Up to 2^40 ns, 18 minutes; what took longer counts as that. */
#define STG_HISTOGRAM_BUCKETS (4 * 40)

struct stg_histogram {
    _Atomic uint64_t counts[STG_HISTOGRAM_BUCKETS];
    _Atomic uint64_t total;
    _Atomic uint64_t sum_ns;
};

void stg_histogram_add(struct stg_histogram *histogram, uint64_t ns);

/*
 * The least bound, in nanoseconds, that `percent` (0 to 100) of all values do not exceed; 0 where
 * there is none. Exact to the bucket.
 */
uint64_t stg_histogram_percentile_ns(const struct stg_histogram *histogram, double percent);

/* The mean, exact; 0 where there is none. */
uint64_t stg_histogram_mean_ns(const struct stg_histogram *histogram);

#endif
