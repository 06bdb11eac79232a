/* SPDX-License-Identifier: GPL-2.0-only */
/* Work is done once, in order, by no more threads than there may be; what is left is given back. */
#include "tests/unit/unit.h"

#include "util/crew.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct piece {
    struct stg_crew_work work;
    int number;
};

#define PIECES 1000
static atomic_int times_done[PIECES];
static atomic_int done;
static atomic_int last_done;
static atomic_bool in_order;
static atomic_int at_once;
static atomic_int at_once_max;
static atomic_bool gate; /* closed: who works waits */

static struct piece *piece_of(struct stg_crew_work *work) { return (struct piece *)(void *)work; }

static void pause_a_little(void) {
    const struct timespec pause = {.tv_nsec = 100000};

    (void)nanosleep(&pause, NULL);
}

static void do_piece(struct stg_crew_work *work) {
    int now = atomic_fetch_add(&at_once, 1) + 1;
    int most = atomic_load(&at_once_max);
    int number = piece_of(work)->number;

    while (now > most && !atomic_compare_exchange_weak(&at_once_max, &most, now))
        ;
    while (atomic_load(&gate))
        pause_a_little();
    if (atomic_exchange(&last_done, number) > number)
        atomic_store(&in_order, false);
    atomic_fetch_add(&times_done[number], 1);
    atomic_fetch_sub(&at_once, 1);
    free(work);
    atomic_fetch_add(&done, 1);
}

static struct stg_crew one =
    STG_CREW(STG_RANK_PLACES, .name = "one", .threads_max = 1, .length_max = 10, .work = do_piece);
static struct stg_crew four =
    STG_CREW(STG_RANK_PLACES, .name = "four", .threads_max = 4, .work = do_piece);

static void begin(void) {
    for (int i = 0; i < PIECES; i++)
        atomic_store(&times_done[i], 0);
    atomic_store(&done, 0);
    atomic_store(&last_done, -1);
    atomic_store(&in_order, true);
    atomic_store(&at_once_max, 0);
}

static bool push(struct stg_crew *crew, int number) {
    struct piece *piece = calloc(1, sizeof(*piece));

    assert_non_null(piece);
    piece->number = number;
    if (stg_crew_push(crew, &piece->work))
        return true;
    free(piece);
    return false;
}

static int dropped;
static int first_dropped;

static void drop_piece(struct stg_crew_work *work) {
    if (!dropped)
        first_dropped = piece_of(work)->number;
    assert_int_equal(piece_of(work)->number, first_dropped + dropped++);
    free(work);
}

/* Ends the crew. Returns how many pieces were dropped: the last ones, in order. */
static int stop(struct stg_crew *crew) {
    dropped = 0;
    crew->drop = drop_piece;
    stg_crew_stop(crew);
    return dropped;
}

/* An empty queue does not tell: a thread may hold the last piece and not have begun it. */
static void wait_until_done(int count) {
    while (atomic_load(&done) < count)
        pause_a_little();
}

static void one_thread_works_in_order_and_refuses_too_much(void **state) {
    (void)state;
    begin();
    atomic_store(&gate, true);
    assert_true(push(&one, 0));
    while (!atomic_load(&at_once)) /* taken, and held up */
        pause_a_little();
    for (int i = 1; i <= 10; i++)
        assert_true(push(&one, i));
    assert_int_equal(stg_crew_length(&one), 10);
    assert_false(push(&one, 11));
    atomic_store(&gate, false);
    wait_until_done(11);
    for (int i = 0; i <= 10; i++)
        assert_int_equal(times_done[i], 1);
    assert_true(in_order);
    assert_int_equal(at_once_max, 1);
    assert_true(push(&one, 12)); /* there is room again */
    wait_until_done(12);
    assert_int_equal(stop(&one), 0);
    assert_int_equal(times_done[12], 1);
    assert_false(push(&one, 13));
}

static void *open_gate(void *unused) {
    (void)unused;
    pause_a_little();
    atomic_store(&gate, false);
    return NULL;
}

static void all_is_done_or_given_back(void **state) {
    pthread_t thread;
    int left;

    (void)state;
    begin();
    for (int i = 0; i < 500; i++)
        assert_true(push(&four, i));
    wait_until_done(500);
    for (int i = 0; i < 500; i++)
        assert_int_equal(times_done[i], 1);
    assert_true(at_once_max <= 4);
    atomic_store(&gate, true);
    for (int i = 500; i < PIECES; i++)
        assert_true(push(&four, i));
    while (atomic_load(&at_once) < 4)
        pause_a_little();
    assert_int_equal(stg_crew_length(&four), PIECES - 504);
    assert_int_equal(pthread_create(&thread, NULL, open_gate, NULL), 0);
    left = stop(&four); /* waits for the four; they may have taken more by then */
    pthread_join(thread, NULL);
    assert_true(left <= PIECES - 504);
    for (int i = 500; i < PIECES - left; i++)
        assert_int_equal(times_done[i], 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_works_in_order_and_refuses_too_much),
        cmocka_unit_test(all_is_done_or_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
