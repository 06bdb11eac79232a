/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a sync is begun, asked about and given up. The mount and the time are played by this program:
 * what asks them is wrapped by the linker (-Wl,--wrap=ioctl and so on), so no time passes.
 */
#include "tests/unit/unit.h"

#include "client/protocol.h"
#include "client/stagefs.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FD = 5, TICKET = 41, PAUSES_MAX = 64 };

#define MS INT64_C(1000000)

static struct {
    int error;      /* the errno of each answer */
    int interrupts; /* calls that end with EINTR first */
    int polls_left; /* until it is done; below 0: never */
    bool late;      /* the error comes after the first answer */
    unsigned begun, asked;
} mount;

static struct {
    int64_t now_ns;
    int64_t pauses_ns[PAUSES_MAX];
    size_t pauses;
    bool signals; /* no pause lasts */
} watch;

static int take(unsigned long command, struct stagefs_sync_request *request) {
    if (mount.interrupts-- > 0)
        return EINTR;
    if (command == STAGEFS_IOC_STATS)
        return 0;
    assert_int_equal(command, STAGEFS_IOC_SYNC);
    assert_int_equal(request->version, STAGEFS_PROTOCOL_VERSION);
    assert_int_equal(request->flags, 0);
    assert_int_equal(request->done, 0);
    assert_int_equal(request->reserved, 0);
    if (mount.error && !(mount.late && !mount.begun))
        return mount.error;
    if (request->ticket) {
        assert_int_equal(request->ticket, TICKET);
        mount.asked++;
    } else {
        mount.begun++;
    }
    request->ticket = TICKET;
    request->done = mount.polls_left == 0;
    if (mount.polls_left > 0)
        mount.polls_left--;
    return 0;
}

int __wrap_ioctl(int fd, unsigned long command, ...);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_nanosleep(const struct timespec *delay, struct timespec *left);

int __wrap_ioctl(int fd, unsigned long command, ...) {
    va_list list;
    int error;

    assert_int_equal(fd, FD);
    va_start(list, command);
    error = take(command, va_arg(list, void *));
    va_end(list);
    errno = error ? error : errno;
    return error ? -1 : 0;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *now) {
    assert_int_equal(id, CLOCK_MONOTONIC);
    now->tv_sec = watch.now_ns / (1000 * MS);
    now->tv_nsec = watch.now_ns % (1000 * MS);
    return 0;
}

int __wrap_nanosleep(const struct timespec *delay, struct timespec *left) {
    int64_t delay_ns = delay->tv_sec * 1000 * MS + delay->tv_nsec;

    (void)left;
    assert_true(delay->tv_nsec >= 0 && delay->tv_nsec < 1000 * MS);
    if (watch.pauses < PAUSES_MAX)
        watch.pauses_ns[watch.pauses] = delay_ns;
    watch.pauses++;
    if (watch.signals) {
        watch.now_ns += MS / 10;
        errno = EINTR;
        return -1;
    }
    watch.now_ns += delay_ns;
    return 0;
}

static int reset(void **state) {
    (void)state;
    memset(&mount, 0, sizeof(mount));
    memset(&watch, 0, sizeof(watch));
    watch.now_ns = 12345 * 1000 * MS;
    return 0;
}

static void assert_fails(double timeout_s, int error) {
    errno = 0;
    assert_int_equal(stagefs_sync(FD, timeout_s), -1);
    assert_int_equal(errno, error);
}

/* ---- the tests ---- */

static void one_is_begun_and_asked_about(void **state) {
    (void)state;
    mount.polls_left = 7;
    mount.interrupts = 3;
    assert_int_equal(stagefs_sync(FD, 60), 0);
    assert_int_equal(mount.begun, 1);
    assert_int_equal(mount.asked, 7);
}

static void what_is_done_at_once_is_not_waited_for(void **state) {
    (void)state;
    assert_int_equal(stagefs_sync(FD, 0), 0);
    assert_int_equal(mount.begun, 1);
    assert_int_equal(watch.pauses, 0);
}

static void pauses_grow_to_an_end(void **state) {
    static const int64_t want_ms[] = {1, 2, 4, 8, 16, 20, 20, 20};

    (void)state;
    mount.polls_left = (int)STG_COUNT(want_ms);
    assert_int_equal(stagefs_sync(FD, -1), 0);
    assert_int_equal(watch.pauses, STG_COUNT(want_ms));
    for (size_t i = 0; i < STG_COUNT(want_ms); i++)
        assert_true(llabs(watch.pauses_ns[i] - want_ms[i] * MS) < MS / 100);
}

static void it_is_given_up_in_time(void **state) {
    int64_t start_ns = watch.now_ns;

    (void)state;
    mount.polls_left = -1;
    assert_fails(0.5, ETIMEDOUT);
    assert_true(llabs(watch.now_ns - start_ns - 500 * MS) < MS);
    assert_int_equal(mount.begun, 1);
    /* Signals shorten the pauses, and nothing else. */
    start_ns = watch.now_ns;
    watch.signals = true;
    assert_fails(0.01, ETIMEDOUT);
    assert_true(watch.now_ns - start_ns >= 10 * MS);
}

static void without_time_it_is_asked_once(void **state) {
    (void)state;
    mount.polls_left = -1;
    watch.now_ns++;
    assert_fails(0, ETIMEDOUT);
    assert_int_equal(mount.begun, 1);
    assert_int_equal(mount.asked, 0);
    assert_int_equal(watch.pauses, 0);
}

static void without_a_limit_it_is_waited_for_long(void **state) {
    (void)state;
    mount.polls_left = 100000;
    assert_int_equal(stagefs_sync(FD, -INFINITY), 0);
    mount.polls_left = 100000;
    assert_int_equal(stagefs_sync(FD, INFINITY), 0);
}

static void outside_a_mount_all_shows(void **state) {
    static const int errors[] = {ENOTTY, EOPNOTSUPP, ENOSYS};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(errors); i++) {
        mount.error = errors[i];
        assert_int_equal(stagefs_sync(FD, 1), 0);
    }
    assert_int_equal(watch.pauses, 0);
}

static void failures_end_it(void **state) {
    static const int errors[] = {EBADF, EINVAL, ENOTCONN, EIO};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(errors); i++) {
        mount.error = errors[i];
        assert_fails(-1, errors[i]);
    }
    mount.polls_left = -1;
    mount.late = true;
    assert_fails(-1, EIO);
    assert_int_equal(mount.begun, 1);
    reset(state);
    assert_fails(NAN, EINVAL);
    assert_int_equal(mount.begun, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_is_begun_and_asked_about, reset),
        cmocka_unit_test_setup(what_is_done_at_once_is_not_waited_for, reset),
        cmocka_unit_test_setup(pauses_grow_to_an_end, reset),
        cmocka_unit_test_setup(it_is_given_up_in_time, reset),
        cmocka_unit_test_setup(without_time_it_is_asked_once, reset),
        cmocka_unit_test_setup(without_a_limit_it_is_waited_for_long, reset),
        cmocka_unit_test_setup(outside_a_mount_all_shows, reset),
        cmocka_unit_test_setup(failures_end_it, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
