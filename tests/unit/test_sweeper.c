/* SPDX-License-Identifier: GPL-2.0-only */
/* The thread works while there is work, sleeps while there is none, and ends when it is told. */
#include "tests/unit/unit.h"

#include "util/sweeper.h"

#include <time.h>

static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);
static pthread_cond_t done = PTHREAD_COND_INITIALIZER;
static unsigned work; /* rounds that are left; protected by lock, as the next */
static unsigned rounds;

static bool has_work(void) { return work > 0; }

static void do_one_locked(void) {
    work--;
    rounds++;
    pthread_cond_signal(&done);
}

static struct stg_sweeper sweeper = {
    .lock = &lock, .interval_ns = 1000000, .has_work = has_work, .sweep_locked = do_one_locked};

static void give(unsigned count) {
    stg_lock_take(&lock);
    work = count;
    stg_sweeper_wake_locked(&sweeper);
    while (work)
        stg_lock_wait(&lock, &done);
    stg_lock_drop(&lock);
}

static void each_piece_of_work_is_done_once(void **state) {
    (void)state;
    rounds = 0;
    assert_int_equal(stg_sweeper_start(&sweeper), 0);
    give(3);
    give(1);
    stg_sweeper_stop(&sweeper);
    assert_int_equal(rounds, 4);
}

static void who_wakes_it_does_not_put_off_what_is_due(void **state) {
    unsigned woken = 0;

    (void)state;
    sweeper.interval_ns = 20000000;
    assert_int_equal(stg_sweeper_start(&sweeper), 0);
    stg_lock_take(&lock);
    work = 1;
    while (work && woken++ < 5000) { /* a round in 20 ms, and somebody who wakes it every ms */
        struct timespec pause = {.tv_nsec = 1000000};

        stg_sweeper_wake_locked(&sweeper);
        stg_lock_drop(&lock);
        (void)nanosleep(&pause, NULL);
        stg_lock_take(&lock);
    }
    assert_int_equal(work, 0);
    stg_lock_drop(&lock);
    stg_sweeper_stop(&sweeper);
}

static void it_ends_with_work_left(void **state) {
    struct timespec begin;
    struct timespec end;

    (void)state;
    sweeper.interval_ns = 900000000;
    assert_int_equal(stg_sweeper_start(&sweeper), 0);
    stg_lock_take(&lock);
    work = 1000;
    stg_sweeper_wake_locked(&sweeper);
    stg_lock_drop(&lock);
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    stg_sweeper_stop(&sweeper);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(work > 990);
    assert_true(end.tv_sec - begin.tv_sec < 60);
}

static void stopping_what_does_not_run_is_nothing(void **state) {
    (void)state;
    stg_sweeper_stop(&sweeper);
    stg_lock_take(&lock);
    stg_sweeper_wake_locked(&sweeper);
    stg_lock_drop(&lock);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_piece_of_work_is_done_once),
        cmocka_unit_test(who_wakes_it_does_not_put_off_what_is_due),
        cmocka_unit_test(it_ends_with_work_left),
        cmocka_unit_test(stopping_what_does_not_run_is_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
