/* SPDX-License-Identifier: GPL-2.0-only */
/* Percentiles against the sorted values themselves. */
#include "tests/unit/unit.h"

#include "cache/histogram.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void percentiles_are_close(void **state) {
    enum { VALUES = 10000 };
    static const double percents[] = {1, 25, 50, 90, 99, 99.9, 100};
    static struct stg_histogram histogram;
    static uint64_t values[VALUES];
    uint64_t seed = 1;
    uint64_t sum = 0;

    (void)state;
    memset(&histogram, 0, sizeof(histogram));
    for (int i = 0; i < VALUES; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        values[i] = (seed >> 33) % 1000 << (seed >> 50) % 20; /* from nothing to half a second */
        sum += values[i];
        stg_histogram_add(&histogram, values[i]);
    }
    qsort(values, VALUES, sizeof(values[0]), compare);
    for (size_t i = 0; i < STG_COUNT(percents); i++) {
        uint64_t exact = values[(size_t)(VALUES * percents[i] / 100) - 1];
        uint64_t got = stg_histogram_percentile_ns(&histogram, percents[i]);

        assert_true(got >= exact);
        assert_true(got <= exact + exact / 4);
    }
    assert_int_equal(stg_histogram_mean_ns(&histogram), sum / VALUES);
}

/* One value alone: each percentile is its bucket's bound, which holds it and is not far. */
static void each_value_is_in_its_bucket(void **state) {
    (void)state;
    for (int bit = 0; bit < 40; bit++)
        for (int64_t around = -1; around <= 1; around++) {
            struct stg_histogram histogram = {0};
            uint64_t value = (UINT64_C(1) << bit) + (uint64_t)around;
            uint64_t got;

            stg_histogram_add(&histogram, value);
            got = stg_histogram_percentile_ns(&histogram, 50);
            assert_true(got >= value);
            assert_true(got <= value + value / 4);
        }
}

static void the_ends_are_safe(void **state) {
    struct stg_histogram histogram = {0};

    (void)state;
    assert_int_equal(stg_histogram_percentile_ns(&histogram, 50), 0);
    assert_int_equal(stg_histogram_mean_ns(&histogram), 0);
    stg_histogram_add(&histogram, UINT64_MAX / 2);
    assert_true(stg_histogram_percentile_ns(&histogram, 100) > UINT64_C(1) << 39);
    stg_histogram_add(&histogram, 0);
    assert_int_equal(stg_histogram_percentile_ns(&histogram, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_close),
        cmocka_unit_test(each_value_is_in_its_bucket),
        cmocka_unit_test(the_ends_are_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
