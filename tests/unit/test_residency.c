/* SPDX-License-Identifier: GPL-2.0-only */
/* What is in the page cache, by both ways of asking. */
#include "tests/unit/unit.h"

#include "cache/residency.h"
#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_BYTES = 1 << 20 };

static bool refuse; /* the kernel has no cachestat */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d);

long __wrap_syscall(long number, long a, long b, long c, long d) {
    if (refuse) {
        errno = ENOSYS;
        return -1;
    }
    return __real_syscall(number, a, b, c, d);
}

/* On a disk: what is in a tmpfs is never out of memory. */
static int new_file(void) {
    char name[] = "/var/tmp/stagefs-residency.XXXXXX";
    char block[4096] = {1};
    int fd = mkstemp(name);

    assert_true(fd >= 0);
    assert_int_equal(unlink(name), 0);
    for (int at = 0; at < FILE_BYTES; at += (int)sizeof(block))
        assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
    assert_int_equal(fsync(fd), 0);
    return fd;
}

static void a_file_is_there_until_it_is_dropped(void **state) {
    (void)state;
    for (int way = 0; way < 2; way++) {
        stg_auto_fd int fd = new_file();
        char byte;

        refuse = way;
        assert_int_equal(stg_residency_percent(fd, UINT64_MAX), 100);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        assert_int_equal(stg_residency_percent(fd, FILE_BYTES), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
        assert_int_equal(pread(fd, &byte, 1, 0), 1);
        assert_in_range(stg_residency_percent(fd, FILE_BYTES), 0, 50);
        assert_int_equal(stg_residency_percent(fd, 1), 100);
    }
}

static void what_has_no_pages_is_not_known(void **state) {
    (void)state;
    for (int way = 0; way < 2; way++) {
        int ends[2];

        refuse = way;
        assert_int_equal(stg_residency_percent(-1, 1), -1);
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(stg_residency_percent(ends[0], 1), 100); /* it has no bytes */
        stg_fd_close(ends[0]);
        stg_fd_close(ends[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_there_until_it_is_dropped),
        cmocka_unit_test(what_has_no_pages_is_not_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
