/* SPDX-License-Identifier: GPL-2.0-only */
/* The limit holds, whatever comes at once. */
#include "tests/unit/unit.h"

#include "cache/budget.h"

#include <pthread.h>

static void the_limit_is_exact(void **state) {
    struct stg_budget budget;

    (void)state;
    stg_budget_init(&budget, 100);
    assert_true(stg_budget_reserve(&budget, 60));
    assert_false(stg_budget_reserve(&budget, 41));
    assert_true(stg_budget_reserve(&budget, 40));
    assert_false(stg_budget_reserve(&budget, 1));
    assert_true(stg_budget_reserve(&budget, 0));
    stg_budget_release(&budget, 100);
    assert_false(stg_budget_reserve(&budget, UINT64_MAX));
    assert_true(stg_budget_reserve(&budget, 100));
    assert_int_equal(budget.peak_bytes, 100);
}

static void a_lower_limit_shows_the_excess(void **state) {
    struct stg_budget budget;

    (void)state;
    stg_budget_init(&budget, 100);
    assert_true(stg_budget_reserve(&budget, 80));
    stg_budget_set_limit(&budget, 50);
    assert_int_equal(stg_budget_excess(&budget), 30);
    assert_false(stg_budget_reserve(&budget, 1));
    stg_budget_release(&budget, 40);
    assert_int_equal(stg_budget_excess(&budget), 0);
    assert_true(stg_budget_reserve(&budget, 10));
    assert_false(stg_budget_reserve(&budget, 1));
}

static void nothing_fits_into_nothing(void **state) {
    struct stg_budget budget;

    (void)state;
    stg_budget_init(&budget, 0);
    assert_false(stg_budget_reserve(&budget, 1));
    assert_int_equal(stg_budget_excess(&budget), 0);
}

static struct stg_budget shared;
static _Atomic uint64_t granted;

static void *storm(void *argument) {
    uint64_t seed = (uintptr_t)argument;

    for (int i = 0; i < 100000; i++) {
        uint64_t bytes;

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        bytes = (seed >> 33) % 300;
        if (stg_budget_reserve(&shared, bytes)) {
            granted++;
            stg_budget_release(&shared, bytes);
        }
    }
    return NULL;
}

static void the_limit_holds_in_a_storm(void **state) {
    pthread_t threads[8];

    (void)state;
    stg_budget_init(&shared, 1000);
    for (uintptr_t i = 0; i < STG_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)), 0);
    for (size_t i = 0; i < STG_COUNT(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(shared.used_bytes, 0);
    assert_true(shared.peak_bytes <= 1000);
    assert_true(granted > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_is_exact),
        cmocka_unit_test(a_lower_limit_shows_the_excess),
        cmocka_unit_test(nothing_fits_into_nothing),
        cmocka_unit_test(the_limit_holds_in_a_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
