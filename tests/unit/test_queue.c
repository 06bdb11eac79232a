/* SPDX-License-Identifier: GPL-2.0-only */
/* The order of fetches, each thing once, and nothing lost when several threads push and pop. */
#include "tests/unit/unit.h"

#include "cache/queue.h"
#include "util/clock.h"

#include <stdatomic.h>

static struct stg_queue queue;

static int setup(void **state) {
    (void)state;
    stg_queue_init(&queue, 0, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    stg_queue_fini(&queue);
    return 0;
}

static void the_urgent_come_first_and_else_the_first(void **state) {
    struct stg_queue_entry e[6] = {{0}};

    (void)state;
    assert_true(stg_queue_push(&queue, &e[0], STG_PRIORITY_PREDICTED));
    assert_true(stg_queue_push(&queue, &e[1], STG_PRIORITY_EXPLICIT));
    assert_true(stg_queue_push(&queue, &e[2], STG_PRIORITY_WAITING));
    assert_true(stg_queue_push(&queue, &e[3], STG_PRIORITY_WAITING));
    assert_true(stg_queue_push(&queue, &e[4], STG_PRIORITY_EXPLICIT));
    assert_true(stg_queue_push(&queue, &e[5], STG_PRIORITY_PREDICTED));
    assert_int_equal(stg_queue_length(&queue), 6);
    assert_ptr_equal(stg_queue_pop(&queue), &e[2]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[3]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[1]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[4]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[0]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[5]);
    assert_null(stg_queue_try_pop(&queue));
}

static void what_is_queued_twice_comes_once(void **state) {
    struct stg_queue_entry e[3] = {{0}};

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(stg_queue_push(&queue, &e[i], STG_PRIORITY_EXPLICIT));
    assert_true(stg_queue_push(&queue, &e[0], STG_PRIORITY_PREDICTED)); /* stays where it is */
    assert_true(stg_queue_push(&queue, &e[1], STG_PRIORITY_EXPLICIT));
    assert_true(stg_queue_push(&queue, &e[2], STG_PRIORITY_WAITING)); /* overtakes */
    assert_int_equal(stg_queue_length(&queue), 3);
    assert_ptr_equal(stg_queue_pop(&queue), &e[2]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[0]);
    stg_queue_raise(&queue, &e[0], STG_PRIORITY_WAITING); /* popped: it does not come again */
    assert_ptr_equal(stg_queue_pop(&queue), &e[1]);
    assert_null(stg_queue_try_pop(&queue));
}

static void a_queued_entry_can_be_raised(void **state) {
    struct stg_queue_entry e[3] = {{0}};

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(stg_queue_push(&queue, &e[i], STG_PRIORITY_EXPLICIT));
    stg_queue_raise(&queue, &e[0], STG_PRIORITY_PREDICTED);
    stg_queue_raise(&queue, &e[2], STG_PRIORITY_WAITING);
    assert_ptr_equal(stg_queue_pop(&queue), &e[2]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[0]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[1]);
}

static void an_entry_can_be_withdrawn(void **state) {
    struct stg_queue_entry e[3] = {{0}};

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(stg_queue_push(&queue, &e[i], STG_PRIORITY_EXPLICIT));
    assert_true(stg_queue_remove(&queue, &e[1]));
    assert_false(stg_queue_remove(&queue, &e[1]));
    assert_ptr_equal(stg_queue_pop(&queue), &e[0]);
    assert_false(stg_queue_remove(&queue, &e[0]));
    assert_true(stg_queue_push(&queue, &e[0], STG_PRIORITY_EXPLICIT)); /* and come again */
    assert_ptr_equal(stg_queue_pop(&queue), &e[2]);
    assert_ptr_equal(stg_queue_pop(&queue), &e[0]);
    assert_int_equal(stg_queue_length(&queue), 0);
}

static void a_closed_queue_takes_and_gives_nothing(void **state) {
    struct stg_queue_entry e[2] = {{0}};

    (void)state;
    assert_true(stg_queue_push(&queue, &e[0], STG_PRIORITY_WAITING));
    assert_null(stg_queue_drain(&queue)); /* not closed: nothing is given up */
    stg_queue_close(&queue);
    assert_false(stg_queue_push(&queue, &e[1], STG_PRIORITY_WAITING));
    assert_null(stg_queue_pop(&queue));
    assert_ptr_equal(stg_queue_drain(&queue), &e[0]);
    assert_null(stg_queue_drain(&queue));
}

enum { PRODUCERS = 3, CONSUMERS = 4, EACH = 20000 };
static struct stg_queue_entry many[PRODUCERS][EACH];
static _Atomic uint64_t popped;

static void *produce(void *argument) {
    struct stg_queue_entry *mine = argument;

    for (int i = 0; i < EACH; i++)
        (void)stg_queue_push(&queue, &mine[i], (enum stg_priority)(i % STG_PRIORITIES));
    return NULL;
}

static void *consume(void *unused) {
    (void)unused;
    while (stg_queue_pop(&queue))
        if (++popped == (uint64_t)PRODUCERS * EACH)
            stg_queue_close(&queue);
    return NULL;
}

static void *fetch_one_after_the_other(void *unused) {
    struct stg_queue_entry *entry;

    (void)unused;
    while ((entry = stg_queue_pop(&queue))) {
        stg_queue_fetched(&queue, entry, 1000);
        if (++popped == (uint64_t)PRODUCERS * EACH)
            stg_queue_close(&queue);
    }
    return NULL;
}

static void nothing_is_lost_where_few_are_under_way(void **state) {
    pthread_t threads[PRODUCERS + CONSUMERS];

    (void)state;
    stg_queue_fini(&queue);
    stg_queue_init(&queue, 0, 2);
    popped = 0;
    for (int i = 0; i < CONSUMERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_one_after_the_other, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[CONSUMERS + i], NULL, produce, many[i]), 0);
    for (size_t i = 0; i < STG_COUNT(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(popped, PRODUCERS * EACH);
    assert_int_equal(queue.depth.under_way, 0);
}

static void *pop_one(void *unused) {
    (void)unused;
    return stg_queue_pop(&queue);
}

static void who_waits_is_woken_for_what_is_raised(void **state) {
    struct stg_queue_entry e[3] = {{0}};
    pthread_t thread;
    void *one;

    (void)state;
    stg_queue_fini(&queue);
    stg_queue_init(&queue, 0, 1);
    for (int i = 0; i < 3; i++)
        assert_true(stg_queue_push(&queue, &e[i], STG_PRIORITY_EXPLICIT));
    assert_ptr_equal(stg_queue_pop(&queue), &e[0]);
    assert_int_equal(pthread_create(&thread, NULL, pop_one, NULL), 0);
    stg_queue_raise(&queue, &e[2], STG_PRIORITY_WAITING);
    assert_int_equal(pthread_join(thread, &one), 0);
    assert_ptr_equal(one, &e[2]);
    assert_int_equal(pthread_create(&thread, NULL, pop_one, NULL), 0);
    stg_queue_fetched(&queue, &e[0], 10);
    assert_int_equal(pthread_join(thread, &one), 0);
    assert_ptr_equal(one, &e[1]);
}

static void nothing_is_lost_between_threads(void **state) {
    pthread_t threads[PRODUCERS + CONSUMERS];

    (void)state;
    popped = 0;
    for (int i = 0; i < CONSUMERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, consume, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[CONSUMERS + i], NULL, produce, many[i]), 0);
    for (size_t i = 0; i < STG_COUNT(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(popped, PRODUCERS * EACH);
    assert_int_equal(stg_queue_length(&queue), 0);
}

#define RATE 1000000
#define MILLISECOND_NS INT64_C(1000000)

static void what_nobody_waits_for_keeps_to_the_rate(void **state) {
    struct stg_queue paced;
    struct stg_queue_entry entries[3] = {0};
    struct stg_queue_entry urgent = {0};
    int64_t begin_ns = stg_clock_monotonic_ns();

    (void)state;
    stg_queue_init(&paced, RATE, 0);
    for (int i = 0; i < 3; i++)
        assert_true(stg_queue_push(&paced, &entries[i], STG_PRIORITY_PREDICTED));
    assert_ptr_equal(stg_queue_pop(&paced), &entries[0]);
    stg_queue_fetched(&paced, &entries[0], RATE * 5); /* five seconds */
    assert_null(stg_queue_try_pop(&paced));
    assert_true(stg_queue_push(&paced, &urgent, STG_PRIORITY_WAITING));
    assert_ptr_equal(stg_queue_pop(&paced), &urgent);
    stg_queue_fetched(&paced, &urgent, RATE / 5); /* counts, too */
    assert_ptr_equal(stg_queue_pop(&paced), &entries[1]);
    assert_true(stg_clock_monotonic_ns() - begin_ns >= 400 * MILLISECOND_NS);
    stg_queue_fetched(&paced, &entries[1], 0); /* nothing came: the next one need not wait for it */
    assert_ptr_equal(stg_queue_pop(&paced), &entries[2]);
    stg_queue_fini(&paced);
}

static void of_what_nobody_waits_for_some_are_under_way(void **state) {
    struct stg_queue_entry waited = {0};
    struct stg_queue narrow;
    struct stg_queue_entry e[4] = {{0}};

    (void)state;
    stg_queue_init(&narrow, 0, 2);
    assert_int_equal(stg_queue_depth(&narrow), 2);
    for (int i = 0; i < 4; i++)
        assert_true(stg_queue_push(&narrow, &e[i], STG_PRIORITY_EXPLICIT));
    assert_ptr_equal(stg_queue_try_pop(&narrow), &e[0]);
    assert_ptr_equal(stg_queue_try_pop(&narrow), &e[1]);
    assert_null(stg_queue_try_pop(&narrow));
    assert_true(stg_queue_push(&narrow, &waited, STG_PRIORITY_WAITING));
    assert_ptr_equal(stg_queue_try_pop(&narrow), &waited);
    stg_queue_fetched(&narrow, &waited, 10); /* it took nobody's place */
    assert_null(stg_queue_try_pop(&narrow));
    stg_queue_raise(&narrow, &e[3], STG_PRIORITY_WAITING);
    assert_ptr_equal(stg_queue_try_pop(&narrow), &e[3]);
    stg_queue_fetched(&narrow, &e[0], -1);
    assert_ptr_equal(stg_queue_try_pop(&narrow), &e[2]);
    stg_queue_fetched(&narrow, &e[1], 0);
    stg_queue_fetched(&narrow, &e[2], 10);
    stg_queue_fetched(&narrow, &e[3], 10);
    assert_null(stg_queue_try_pop(&narrow));
    assert_int_equal(narrow.depth.under_way, 0);
    stg_queue_fini(&narrow);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_urgent_come_first_and_else_the_first),
        TEST(what_is_queued_twice_comes_once),
        TEST(a_queued_entry_can_be_raised),
        TEST(an_entry_can_be_withdrawn),
        TEST(a_closed_queue_takes_and_gives_nothing),
        TEST(nothing_is_lost_between_threads),
        TEST(nothing_is_lost_where_few_are_under_way),
        TEST(who_waits_is_woken_for_what_is_raised),
        TEST(what_nobody_waits_for_keeps_to_the_rate),
        TEST(of_what_nobody_waits_for_some_are_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
