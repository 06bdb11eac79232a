/* SPDX-License-Identifier: GPL-2.0-only */
/* How many fetches are found to pay, on sources that do so many at once, and change. */
#include "tests/unit/unit.h"

#include "cache/depth.h"

#define MOST 64
#define SERVICE_NS INT64_C(10000000)

/* A source that does `width` fetches at once, each in ten milliseconds; others wait. */
struct source {
    struct stg_depth depth;
    double now_ns;
    unsigned highest;
};

/* So many fetches end, while there are always more. The spread of what they bring is `noise`; every
 * tenth brings nothing, at once, as from a disk. */
static void fetch(struct source *source, unsigned width, unsigned fetches, uint64_t noise) {
    uint64_t random = 7;

    source->highest = 0;
    for (unsigned i = 0; i < fetches; i++) {
        unsigned busy;

        while (stg_depth_has_room(&source->depth))
            stg_depth_begin(&source->depth, (int64_t)source->now_ns);
        if (source->depth.under_way > source->highest)
            source->highest = source->depth.under_way;
        if (i % 10 == 9) {
            stg_depth_end(&source->depth, (int64_t)source->now_ns, 0, true);
            continue;
        }
        busy = source->depth.under_way < width ? source->depth.under_way : width;
        source->now_ns += (double)SERVICE_NS / busy;
        random = random * 6364136223846793005U + 1442695040888963407U;
        stg_depth_end(&source->depth, (int64_t)source->now_ns,
                      10000 + (noise ? (random >> 33) % noise : 0), true);
    }
}

static void begin(struct source *source) {
    *source = (struct source){.now_ns = 1e9};
    stg_depth_init(&source->depth, MOST);
}

/* The limit outside of a trial. */
static unsigned settled(const struct source *source) {
    return source->depth.before ? source->depth.before : source->depth.limit;
}

static void as_many_as_the_source_does_at_once(void **state) {
    static const unsigned widths[] = {4, 8, 11, 16, 32, 64};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(widths); i++) {
        struct source source;

        begin(&source);
        fetch(&source, widths[i], 3000, 0);
        assert_in_range(settled(&source), widths[i], widths[i] * 2 - 1);
        fetch(&source, widths[i], 20000, 0); /* and it stays so, but for what is tried */
        assert_in_range(settled(&source), widths[i], widths[i] * 2 - 1);
    }
}

static void a_long_line_is_filled_soon(void **state) {
    struct source source;

    (void)state;
    begin(&source);
    fetch(&source, 1000, 600, 0);
    assert_int_equal(settled(&source), MOST);
    assert_int_equal(source.highest, MOST);
}

static void one_at_a_time_is_left_with_few(void **state) {
    struct source source;

    (void)state;
    begin(&source);
    fetch(&source, 1, 1000, 0);
    assert_in_range(settled(&source), 2, 4);
}

static void files_of_all_sizes(void **state) {
    struct source source;

    (void)state;
    begin(&source);
    fetch(&source, 16, 5000, 60000);
    assert_in_range(settled(&source), 16, 64);
    fetch(&source, 1000, 5000, 60000);
    assert_int_equal(settled(&source), MOST);
}

static void a_source_that_changes(void **state) {
    struct source source;

    (void)state;
    begin(&source);
    fetch(&source, 1, 2000, 0);
    assert_in_range(settled(&source), 2, 4);
    source.now_ns += 1e9;
    fetch(&source, 1000, 4000, 0); /* faster: found with the next trial */
    assert_int_equal(settled(&source), MOST);
    fetch(&source, 8, 6000, 0);
    assert_in_range(settled(&source), 8, 15);
}

static void what_does_not_keep_it_busy_tells_nothing(void **state) {
    struct stg_depth depth;
    unsigned limit;

    (void)state;
    stg_depth_init(&depth, MOST);
    limit = depth.limit;
    for (int i = 0; i < 10000; i++) {
        stg_depth_begin(&depth, i * SERVICE_NS);
        stg_depth_end(&depth, i * SERVICE_NS, 10000, false);
    }
    assert_int_equal(depth.limit, limit);
    assert_int_equal(depth.under_way, 0);
}

static void what_comes_later_does_not_begin_with_few(void **state) {
    struct source source;
    unsigned first;

    (void)state;
    begin(&source);
    first = source.depth.limit;
    fetch(&source, 1, 2000, 0);
    assert_true(source.depth.limit < first);
    while (source.depth.under_way)
        stg_depth_end(&source.depth, (int64_t)source.now_ns, 10000, false);
    assert_int_equal(source.depth.limit, first);
}

static void what_hangs_does_not_hold_up_others(void **state) {
    struct stg_depth depth;
    unsigned begun = 0;

    (void)state;
    stg_depth_init(&depth, MOST);
    for (int64_t second = 0; second < 10; second++) {
        int64_t now_ns = second * 1000000000;

        if (!stg_depth_has_room(&depth) && now_ns >= stg_depth_stuck_ns(&depth))
            stg_depth_unstick(&depth, now_ns);
        for (; stg_depth_has_room(&depth); begun++)
            stg_depth_begin(&depth, now_ns);
    }
    assert_int_equal(begun, MOST);
}

static void bounds(void **state) {
    struct stg_depth depth;

    (void)state;
    stg_depth_init(&depth, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(stg_depth_has_room(&depth));
        stg_depth_begin(&depth, 0);
    }
    assert_false(stg_depth_has_room(&depth));
    for (int i = 1; i < 1000; i++) {
        stg_depth_end(&depth, i * SERVICE_NS, 10000, true);
        stg_depth_begin(&depth, 0);
        assert_int_equal(depth.limit, 3);
    }
    stg_depth_init(&depth, 0);
    for (int i = 0; i < 1000; i++) {
        assert_true(stg_depth_has_room(&depth));
        stg_depth_begin(&depth, 0);
    }
    for (int i = 0; i < 1000; i++)
        stg_depth_end(&depth, i * SERVICE_NS, 0, true);
    assert_true(stg_depth_has_room(&depth));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_as_the_source_does_at_once),
        cmocka_unit_test(a_long_line_is_filled_soon),
        cmocka_unit_test(one_at_a_time_is_left_with_few),
        cmocka_unit_test(files_of_all_sizes),
        cmocka_unit_test(a_source_that_changes),
        cmocka_unit_test(what_does_not_keep_it_busy_tells_nothing),
        cmocka_unit_test(what_comes_later_does_not_begin_with_few),
        cmocka_unit_test(what_hangs_does_not_hold_up_others),
        cmocka_unit_test(bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
