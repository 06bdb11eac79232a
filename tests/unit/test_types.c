/* SPDX-License-Identifier: GPL-2.0-only */
/* The moves between states, the words, and what makes two versions of a file one. */
#include "tests/unit/unit.h"

#include "cache/types.h"

#include <errno.h>
#include <string.h>

/* Written out once more, as the design has it: a change of the table must be meant. */
static void the_moves_are_these(void **state) {
    static const char *const moves[] = {
        "absent filling", "filling hot", "filling absent", "hot cold",  "hot stale",
        "hot absent",     "cold hot",    "cold absent",    "stale hot", "stale absent"};

    (void)state;
    for (int from = 0; from < STG_STATES; from++)
        for (int to = 0; to < STG_STATES; to++) {
            char move[64] = "";
            bool listed = false;

            strcat(strcat(strcat(move, stg_state_name(from)), " "), stg_state_name(to));
            for (size_t i = 0; i < STG_COUNT(moves); i++)
                listed = listed || !strcmp(move, moves[i]);
            assert_int_equal(stg_state_may_become(from, to), listed);
        }
    assert_false(stg_state_may_become((enum stg_state)77, STG_HOT));
    assert_false(stg_state_may_become(STG_HOT, (enum stg_state)77));
}

/* Every state can be reached from the first one, and left for it again. */
static void no_state_is_a_dead_end(void **state) {
    (void)state;
    for (int start = 0; start < STG_STATES; start++) {
        bool reached[STG_STATES] = {false};

        reached[start] = true;
        for (int round = 0; round < STG_STATES; round++)
            for (int from = 0; from < STG_STATES; from++)
                for (int to = 0; to < STG_STATES; to++)
                    reached[to] |= reached[from] && stg_state_may_become(from, to);
        for (int to = 0; to < STG_STATES; to++)
            assert_true(reached[to]);
    }
}

static void words_are_read_as_they_are_written(void **state) {
    (void)state;
    for (int mode = STG_MODE_NONE; mode <= STG_MODE_ADAPTIVE; mode++)
        assert_int_equal(stg_mode_parse(stg_mode_name(mode)), mode);
    assert_int_equal(stg_mode_parse("Prefetch"), -EINVAL);
    assert_int_equal(stg_mode_parse(""), -EINVAL);
    assert_string_equal(stg_mode_name((enum stg_mode)77), "unknown");
    assert_string_equal(stg_state_name((enum stg_state)77), "unknown");
}

static void each_part_of_an_identity_counts(void **state) {
    const struct stg_identity one = {1, 2, 3, 4, 5};
    struct stg_identity other = one;

    (void)state;
    assert_true(stg_identity_equal(&one, &other));
    other.device++;
    assert_false(stg_identity_equal(&one, &other));
    other = one;
    other.ino++;
    assert_false(stg_identity_equal(&one, &other));
    other = one;
    other.size_bytes++;
    assert_false(stg_identity_equal(&one, &other));
    other = one;
    other.mtime_ns++;
    assert_false(stg_identity_equal(&one, &other));
    other = one;
    other.ctime_ns++;
    assert_false(stg_identity_equal(&one, &other));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_moves_are_these),
        cmocka_unit_test(no_state_is_a_dead_end),
        cmocka_unit_test(words_are_read_as_they_are_written),
        cmocka_unit_test(each_part_of_an_identity_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
