/* SPDX-License-Identifier: GPL-2.0-only */
/* The order of fetches, each thing once, and nothing lost when several threads push and pop. */
#include "tests/unit/unit.h"

#include "cache/queue.h"

#include <stdatomic.h>

static struct stg_queue queue;

static int setup(void **state) {
    (void)state;
    stg_queue_init(&queue);
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

static void nothing_is_lost_between_threads(void **state) {
    pthread_t threads[PRODUCERS + CONSUMERS];

    (void)state;
    for (int i = 0; i < CONSUMERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, consume, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[CONSUMERS + i], NULL, produce, many[i]), 0);
    for (size_t i = 0; i < STG_COUNT(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(popped, PRODUCERS * EACH);
    assert_int_equal(stg_queue_length(&queue), 0);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
