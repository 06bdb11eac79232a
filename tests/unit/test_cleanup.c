/* SPDX-License-Identifier: GPL-2.0-only */
/* What goes away at the end of a scope, what does not, and that errno is left alone. */
#include "tests/unit/unit.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <stdbool.h>

static bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

static int open_something(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void closes_at_the_end_of_the_scope(void **state) {
    int number;

    (void)state;
    {
        stg_auto_fd int fd = open_something();

        number = fd;
        assert_true(is_open(number));
    }
    assert_false(is_open(number));
}

static void a_stolen_descriptor_stays_open(void **state) {
    int number;

    (void)state;
    {
        stg_auto_fd int fd = open_something();

        number = stg_fd_steal(&fd);
        assert_int_equal(fd, -1);
    }
    assert_true(is_open(number));
    stg_fd_close(number);
}

static int fail_with_memory_and_descriptor(void) {
    stg_auto_fd int fd = open_something();
    stg_auto_free char *memory = malloc(10);

    assert_non_null(memory);
    errno = EXDEV;
    return -1;
}

static void errno_survives_the_end_of_the_scope(void **state) {
    (void)state;
    assert_int_equal(fail_with_memory_and_descriptor(), -1);
    assert_int_equal(errno, EXDEV);
    errno = EXDEV;
    stg_fd_close(-1);
    stg_fd_close(99999); /* EBADF is nobody's business */
    assert_int_equal(errno, EXDEV);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closes_at_the_end_of_the_scope),
        cmocka_unit_test(a_stolen_descriptor_stays_open),
        cmocka_unit_test(errno_survives_the_end_of_the_scope),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
