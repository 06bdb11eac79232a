/* SPDX-License-Identifier: GPL-2.0-only */
/* Each rule of staging by a row: the facts, and what follows from them. */
#include "tests/unit/unit.h"

#include "cache/policy.h"

#define KIB INT64_C(1024)
#define MIB (KIB * 1024)

static struct stg_facts facts_of(enum stg_mode mode, int64_t size_bytes, bool local) {
    return (struct stg_facts){.mode = mode,
                              .local = local,
                              .resident_percent = -1,
                              .size_bytes = size_bytes,
                              .threshold_bytes = MIB,
                              .room_bytes = 256 * MIB,
                              .local_ns_per_file = 50000};
}

static void assert_decision(const struct stg_facts *facts, enum stg_action action,
                            enum stg_mode mode) {
    struct stg_decision decided = stg_policy_decide(facts);

    assert_int_equal(decided.action, action);
    assert_int_equal(decided.mode, mode);
    assert_non_null(decided.why);
    assert_true(decided.mode != STG_MODE_ADAPTIVE);
}

static void a_slow_source_is_copied(void **state) {
    static const struct {
        enum stg_mode mode;
        int64_t size_bytes;
        enum stg_action action;
        enum stg_mode decided;
    } rows[] = {
        {STG_MODE_ADAPTIVE, 0, STG_ACTION_NONE, STG_MODE_NONE},
        {STG_MODE_ADAPTIVE, 1, STG_ACTION_COPY, STG_MODE_PREFETCH},
        {STG_MODE_ADAPTIVE, MIB, STG_ACTION_COPY, STG_MODE_PREFETCH},
        {STG_MODE_ADAPTIVE, MIB + 1, STG_ACTION_RANGES, STG_MODE_MMAP},
        {STG_MODE_PREFETCH, 10 * MIB, STG_ACTION_COPY, STG_MODE_PREFETCH},
        {STG_MODE_MMAP, 10, STG_ACTION_RANGES, STG_MODE_MMAP},
        {STG_MODE_NONE, 10, STG_ACTION_NONE, STG_MODE_NONE},
        {STG_MODE_PREFETCH, 0, STG_ACTION_NONE, STG_MODE_NONE},
        {STG_MODE_PREFETCH, 257 * MIB, STG_ACTION_NONE, STG_MODE_NONE},
        {STG_MODE_ADAPTIVE, 257 * MIB, STG_ACTION_NONE, STG_MODE_NONE},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        struct stg_facts facts = facts_of(rows[i].mode, rows[i].size_bytes, false);

        assert_decision(&facts, rows[i].action, rows[i].decided);
    }
}

static void a_local_source_is_not_copied_unasked(void **state) {
    struct stg_facts facts = facts_of(STG_MODE_ADAPTIVE, 10 * KIB, true);

    (void)state;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_PREFETCH);
    facts.resident_percent = 100;
    assert_decision(&facts, STG_ACTION_NONE, STG_MODE_NONE);
    facts.resident_percent = 50;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_PREFETCH);
    facts.size_bytes = 100 * MIB;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_MMAP);
    facts.resident_percent = 99;
    assert_decision(&facts, STG_ACTION_NONE, STG_MODE_NONE);
    facts.resident_percent = -1;
    facts.mode = STG_MODE_PREFETCH; /* for the whole mount: not this file's own wish */
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_PREFETCH);
}

static void what_is_asked_for_is_done(void **state) {
    struct stg_facts facts = facts_of(STG_MODE_PREFETCH, 10 * KIB, true);

    (void)state;
    facts.is_explicit = true;
    facts.resident_percent = 100;
    assert_decision(&facts, STG_ACTION_COPY, STG_MODE_PREFETCH);
    facts.size_bytes = 257 * MIB; /* but not what cannot be */
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_NONE);
    facts.size_bytes = 0;
    assert_decision(&facts, STG_ACTION_NONE, STG_MODE_NONE);
    facts = facts_of(STG_MODE_MMAP, 10 * KIB, true);
    facts.is_explicit = true;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_MMAP);
    facts.resident_percent = 100;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_MMAP);
    facts = facts_of(STG_MODE_ADAPTIVE, 10 * KIB, true); /* left to us: do no harm */
    facts.is_explicit = true;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_PREFETCH);
}

static void a_source_that_proved_fast_is_as_good_as_local(void **state) {
    struct stg_facts facts = facts_of(STG_MODE_ADAPTIVE, 10 * KIB, false);

    (void)state;
    facts.fetch_ns_per_file = 20000;
    assert_decision(&facts, STG_ACTION_ADVISE, STG_MODE_PREFETCH);
    facts.fetch_ns_per_file = 1000000;
    assert_decision(&facts, STG_ACTION_COPY, STG_MODE_PREFETCH);
    facts.room_bytes = 0; /* mem=0 */
    assert_decision(&facts, STG_ACTION_NONE, STG_MODE_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_source_is_copied),
        cmocka_unit_test(a_local_source_is_not_copied_unasked),
        cmocka_unit_test(what_is_asked_for_is_done),
        cmocka_unit_test(a_source_that_proved_fast_is_as_good_as_local),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
