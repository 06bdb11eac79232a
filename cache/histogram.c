/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the buckets' bounds. */
#include "cache/histogram.h"

#define PER_DOUBLING 4

/*
 * The bucket of a value: the position of its highest bit, and the two bits below that. The four
 * smallest values have a bucket each.
 */
static unsigned bucket_of(uint64_t ns) {
    unsigned high;
    unsigned bucket;

    if (ns < PER_DOUBLING)
        return (unsigned)ns;
    high = 63U - (unsigned)__builtin_clzll(ns);
    bucket = (high - 1) * PER_DOUBLING + (unsigned)((ns >> (high - 2)) & (PER_DOUBLING - 1));
    return bucket < STG_HISTOGRAM_BUCKETS ? bucket : STG_HISTOGRAM_BUCKETS - 1;
}

/* The largest value of the bucket. */
static uint64_t bound_of(unsigned bucket) {
    unsigned high = bucket / PER_DOUBLING + 1;

    if (bucket < PER_DOUBLING)
        return bucket;
    return ((uint64_t)(PER_DOUBLING + bucket % PER_DOUBLING + 1) << (high - 2)) - 1;
}

void stg_histogram_add(struct stg_histogram *histogram, uint64_t ns) {
    atomic_fetch_add_explicit(&histogram->counts[bucket_of(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->total, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
}

uint64_t stg_histogram_percentile_ns(const struct stg_histogram *histogram, double percent) {
    uint64_t total = 0;
    uint64_t seen = 0;
    double wanted;

    /* From the buckets, and not from `total`, which may be ahead of them. */
    for (unsigned i = 0; i < STG_HISTOGRAM_BUCKETS; i++)
        total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
    wanted = (double)total * percent / 100;
    for (unsigned i = 0; total && i < STG_HISTOGRAM_BUCKETS; i++) {
        uint64_t count = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);

        seen += count;
        if (count && (double)seen >= wanted)
            return bound_of(i);
    }
    return 0;
}

uint64_t stg_histogram_mean_ns(const struct stg_histogram *histogram) {
    uint64_t total = atomic_load_explicit(&histogram->total, memory_order_relaxed);

    return total ? atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed) / total : 0;
}
