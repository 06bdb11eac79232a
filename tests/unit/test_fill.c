/* SPDX-License-Identifier: GPL-2.0-only */
/* One version of the file, or nothing; and no handle or memory left behind, whatever fails. */
#include "tests/unit/unit.h"

#include "cache/fill.h"
#include "tests/unit/fake_source.h"

#include <errno.h>
#include <stdlib.h>

enum { LATER = 2000000000 }; /* two seconds after the fake file's times */

static struct fake_source fake;

#define SETTLE_NS INT64_C(20000000)

static int fetch(const struct stg_source *source, uint64_t max_bytes, int64_t now_ns,
                 struct stg_filled *ret_filled) {
    int error = stg_fill(
        source, NULL, (struct stg_range){0},
        (struct stg_fill_limits){.max_bytes = max_bytes, .now_ns = now_ns, .settle_ns = SETTLE_NS},
        ret_filled);

    assert_int_equal(fake.handles, 0);
    return error;
}

static void assert_fetched(const struct stg_source *source, int64_t bytes) {
    struct stg_filled filled = {0};

    assert_int_equal(fetch(source, sizeof(fake.content), LATER, &filled), 0);
    assert_int_equal(filled.identity.size_bytes, bytes);
    assert_memory_equal(filled.content, fake.content, (size_t)bytes);
    assert_true(filled.took_ns < 60U * LATER);
    stg_filled_fini(&filled);
    assert_null(filled.content);
}

static void a_file_is_fetched_whole(void **state) {
    static const int64_t sizes[] = {0, 1, 4095, 4096, sizeof(fake.content)};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(sizes); i++) {
        struct stg_source source = fake_source_init(&fake, sizes[i]);

        assert_fetched(&source, sizes[i]);
    }
}

static void short_and_interrupted_reads_go_on(void **state) {
    struct stg_source source = fake_source_init(&fake, 5000);

    (void)state;
    fake.read_at_most = 7;
    fake.interrupted = 3;
    assert_fetched(&source, 5000);
}

static void what_is_too_large_is_not_read(void **state) {
    struct stg_source source = fake_source_init(&fake, 5000);
    struct stg_filled filled = {.took_ns = 77};

    (void)state;
    assert_int_equal(fetch(&source, 4999, LATER, &filled), -EFBIG);
    assert_int_equal(fake.calls, 2); /* opened and looked at */
    assert_int_equal(filled.took_ns, 77);
}

static void grow(struct fake_source *f) { f->size_bytes++; }
static void shrink(struct fake_source *f) { f->size_bytes -= 100; }
static void edit_in_place(struct fake_source *f) {
    f->content[10]++;
    f->ctime_ns++; /* with the same size, and the mtime set back */
}

/* Whatever happens between two calls: what comes is the old version, the new one, or nothing. */
static void a_change_meanwhile_is_never_kept(void **state) {
    void (*const changes[])(struct fake_source *) = {grow, shrink, edit_in_place};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(changes); i++)
        for (unsigned at = 1; at < 20; at++) {
            struct stg_source source = fake_source_init(&fake, 5000);
            struct stg_filled filled = {0};
            int error;

            fake.read_at_most = 1000;
            fake.change_at = at;
            fake.change = changes[i];
            error = fetch(&source, sizeof(fake.content), LATER, &filled);
            if (error) {
                assert_int_equal(error, -ESTALE);
                assert_null(filled.content);
                continue;
            }
            /* It came before the first look or after the last. */
            assert_true(at <= 2 || at > fake.calls);
            assert_memory_equal(filled.content, fake.content, (size_t)filled.identity.size_bytes);
            stg_filled_fini(&filled);
        }
}

static void a_file_that_has_just_changed_is_left_alone(void **state) {
    struct stg_source source = fake_source_init(&fake, 100);
    struct stg_filled filled = {0};

    (void)state;
    assert_int_equal(fetch(&source, 100, fake.ctime_ns, &filled), -ESTALE);
    assert_int_equal(fetch(&source, 100, fake.ctime_ns + SETTLE_NS - 1, &filled), -ESTALE);
    assert_int_equal(fetch(&source, 100, fake.ctime_ns + SETTLE_NS, &filled), 0);
    stg_filled_fini(&filled);
    /* A source whose clock is ahead is staged all the same. */
    assert_int_equal(fetch(&source, 100, fake.ctime_ns - LATER, &filled), 0);
    stg_filled_fini(&filled);
}

/* Each call fails in turn, until none does. */
static void each_failure_is_passed_on(void **state) {
    unsigned at = 1;
    int error;

    (void)state;
    do {
        struct stg_source source = fake_source_init(&fake, 5000);
        struct stg_filled filled = {0};

        fake.read_at_most = 1000;
        fake.fail_at = at;
        fake.fail_with = -EIO;
        error = fetch(&source, sizeof(fake.content), LATER, &filled);
        if (error) {
            assert_int_equal(error, -EIO);
            assert_null(filled.content);
            assert_fetched(&source, 5000); /* and the next one works */
        }
        stg_filled_fini(&filled);
    } while (error && ++at < 100);
    assert_true(at > 8); /* open, two looks, five reads and the one at the end */
    assert_true(at < 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_fetched_whole),
        cmocka_unit_test(short_and_interrupted_reads_go_on),
        cmocka_unit_test(what_is_too_large_is_not_read),
        cmocka_unit_test(a_change_meanwhile_is_never_kept),
        cmocka_unit_test(a_file_that_has_just_changed_is_left_alone),
        cmocka_unit_test(each_failure_is_passed_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
