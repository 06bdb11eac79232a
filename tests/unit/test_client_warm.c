/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which files are read into the page cache, and how much of them. The mount is a plain folder; what
 * is read is counted where the library reads (-Wl,--wrap=pread64).
 */
#include "tests/unit/unit.h"

#include "client/warm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL_BYTES = 1000, LARGE_BYTES = 3 * 1024 * 1024 + 17 };

static char folder[] = "/tmp/stg-warm-XXXXXX";
static int folder_fd;
static dev_t device;

static struct {
    int interrupts;    /* calls that end with EINTR first */
    int error;         /* the errno of each of the others */
    uint64_t bytes;    /* asked for and there */
    size_t most_bytes; /* in one call */
    unsigned calls;
} reads;

ssize_t __real_pread64(int fd, void *buffer, size_t bytes, off64_t offset);
ssize_t __wrap_pread64(int fd, void *buffer, size_t bytes, off64_t offset);

ssize_t __wrap_pread64(int fd, void *buffer, size_t bytes, off64_t offset) {
    ssize_t got;

    if (reads.interrupts-- > 0 || reads.error) {
        errno = reads.error ? reads.error : EINTR;
        return -1;
    }
    got = __real_pread64(fd, buffer, bytes, offset);
    reads.calls++;
    reads.most_bytes = bytes > reads.most_bytes ? bytes : reads.most_bytes;
    reads.bytes += got > 0 ? (uint64_t)got : 0;
    return got;
}

/* ---- the files: small, large, sub/small, sub/deep/small, empty, links, a pipe ---- */

static const char *const files[] = {"small",    "large",    "sub/small", "sub/deep/small",
                                    "empty",    "link",     "sub/up",    "sub/gone",
                                    "sub/link", "sub/pipe", "folderlink"};

static int write_file(const char *name, off_t bytes) {
    int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0 || ftruncate(fd, bytes))
        return -1;
    return close(fd);
}

static int make_folder(void **state) {
    const char *where = getenv("TMPDIR");
    struct stat st;

    (void)state;
    if (where && strlen(where) < 4000 && chdir(where))
        return -1;
    if (!mkdtemp(where ? strcpy(folder, "stg-warm-XXXXXX") : folder))
        return -1;
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0 || fstat(folder_fd, &st) || mkdirat(folder_fd, "sub", 0755) ||
        mkdirat(folder_fd, "sub/deep", 0755) || write_file("small", SMALL_BYTES) ||
        write_file("large", LARGE_BYTES) || write_file("sub/small", SMALL_BYTES) ||
        write_file("sub/deep/small", SMALL_BYTES) || write_file("empty", 0) ||
        symlinkat("small", folder_fd, "link") || symlinkat("..", folder_fd, "sub/up") ||
        symlinkat("nowhere", folder_fd, "sub/gone") ||
        symlinkat("../large", folder_fd, "sub/link") || mkfifoat(folder_fd, "sub/pipe", 0644) ||
        symlinkat("sub", folder_fd, "folderlink"))
        return -1;
    device = st.st_dev;
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    for (size_t i = 0; i < STG_COUNT(files); i++)
        if (unlinkat(folder_fd, files[i], 0))
            return -1;
    if (unlinkat(folder_fd, "sub/deep", AT_REMOVEDIR) || unlinkat(folder_fd, "sub", AT_REMOVEDIR))
        return -1;
    close(folder_fd);
    return rmdir(folder);
}

static int reset(void **state) {
    (void)state;
    memset(&reads, 0, sizeof(reads));
    return 0;
}

static int descriptors(void) {
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* How much is read for `path` where `limit_bytes` may be. */
static uint64_t bytes_of(const char *path, bool recursive, uint64_t limit_bytes) {
    struct stg_warm warm = {0};
    uint64_t before = reads.bytes;

    stg_warm_add(&warm, device, limit_bytes);
    assert_int_equal(stg_warm_path(&warm, folder_fd, path, recursive), 0);
    assert_int_equal(warm.read_bytes, reads.bytes - before);
    stg_warm_fini(&warm);
    return reads.bytes - before;
}

/* ---- the tests ---- */

static void a_file_is_read_to_its_end(void **state) {
    (void)state;
    assert_int_equal(bytes_of("small", false, UINT64_MAX), SMALL_BYTES);
    reads.interrupts = 3;
    assert_int_equal(bytes_of("large", false, UINT64_MAX), LARGE_BYTES);
    assert_int_equal(reads.most_bytes, 1024 * 1024);
    assert_int_equal(bytes_of("empty", false, UINT64_MAX), 0);
    assert_int_equal(bytes_of("link", false, UINT64_MAX), SMALL_BYTES);
}

static void folders_are_walked_when_asked(void **state) {
    int before = descriptors();

    (void)state;
    assert_int_equal(bytes_of("sub", false, UINT64_MAX), 0);
    /* Neither links below nor the pipe. */
    assert_int_equal(bytes_of("sub", true, UINT64_MAX), 2 * SMALL_BYTES);
    assert_int_equal(bytes_of("folderlink", true, UINT64_MAX), 2 * SMALL_BYTES);
    assert_int_equal(bytes_of(".", true, UINT64_MAX), 3 * SMALL_BYTES + LARGE_BYTES);
    assert_int_equal(descriptors(), before);
}

static void what_cannot_be_read_is_passed_over(void **state) {
    (void)state;
    assert_int_equal(bytes_of("missing", true, UINT64_MAX), 0);
    assert_int_equal(bytes_of("sub/gone", true, UINT64_MAX), 0);
    assert_int_equal(bytes_of("sub/pipe", true, UINT64_MAX), 0);
    assert_int_equal(bytes_of("", true, UINT64_MAX), 0);
    reads.error = EIO;
    assert_int_equal(bytes_of(".", true, UINT64_MAX), 0);
}

static void no_more_than_the_limit_is_read(void **state) {
    struct stg_warm warm = {0};

    (void)state;
    assert_int_equal(bytes_of("large", false, 0), 0);
    assert_int_equal(reads.calls, 0);
    assert_int_equal(bytes_of("large", false, 100), 100);
    assert_int_equal(bytes_of(".", true, SMALL_BYTES + 1), SMALL_BYTES + 1);
    /* It is one for all files of the mount, and is not begun anew. */
    stg_warm_add(&warm, device, SMALL_BYTES);
    stg_warm_add(&warm, device, SMALL_BYTES);
    for (int i = 0; i < 3; i++)
        assert_int_equal(stg_warm_path(&warm, folder_fd, "small", false), 0);
    assert_int_equal(warm.read_bytes, SMALL_BYTES);
    stg_warm_fini(&warm);
}

static void other_mounts_are_left_alone(void **state) {
    struct stg_warm warm = {0};
    int fd = openat(folder_fd, "small", O_RDONLY | O_CLOEXEC);

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stg_warm_path(&warm, folder_fd, ".", true), 0);
        assert_int_equal(stg_warm_path(&warm, folder_fd, "small", false), 0);
        assert_int_equal(stg_warm_open(&warm, fd), 0);
        stg_warm_add(&warm, device + 1, UINT64_MAX);
    }
    /* It serves in none of these ways. */
    stg_warm_ask(&warm, device, folder_fd);
    assert_int_equal(warm.count, 1);
    assert_int_equal(reads.calls, 0);
    stg_warm_fini(&warm);
    close(fd);
}

static void an_open_file_keeps_its_offset(void **state) {
    struct stg_warm warm = {0};
    int fd = openat(folder_fd, "large", O_RDONLY | O_CLOEXEC);
    int writer = openat(folder_fd, "small", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_int_equal(lseek(fd, 5, SEEK_SET), 5);
    stg_warm_add(&warm, device, UINT64_MAX);
    assert_int_equal(stg_warm_open(&warm, fd), 0);
    assert_int_equal(reads.bytes, LARGE_BYTES);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 5);
    assert_int_equal(stg_warm_open(&warm, writer), 0);
    assert_int_equal(stg_warm_open(&warm, folder_fd), 0);
    assert_int_equal(stg_warm_open(&warm, -1), 0);
    assert_int_equal(reads.bytes, LARGE_BYTES);
    stg_warm_fini(&warm);
    close(writer);
    close(fd);
}

static int stop_at_once(const struct stagefs_result *so_far, void *data) {
    assert_int_equal(so_far->staged, 4);
    ++*(int *)data;
    return 1;
}

static void progress_may_end_it(void **state) {
    struct stagefs_result result = {.staged = 4};
    int calls = 0;
    struct stg_warm warm = {.progress = stop_at_once, .result = &result, .data = &calls};

    (void)state;
    stg_warm_add(&warm, device, UINT64_MAX);
    assert_int_equal(stg_warm_path(&warm, folder_fd, ".", true), -ECANCELED);
    assert_int_equal(stg_warm_path(&warm, folder_fd, "small", true), -ECANCELED);
    assert_int_equal(calls, 1);
    assert_int_equal(reads.calls, 0);
    stg_warm_fini(&warm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_file_is_read_to_its_end, reset),
        cmocka_unit_test_setup(folders_are_walked_when_asked, reset),
        cmocka_unit_test_setup(what_cannot_be_read_is_passed_over, reset),
        cmocka_unit_test_setup(no_more_than_the_limit_is_read, reset),
        cmocka_unit_test_setup(other_mounts_are_left_alone, reset),
        cmocka_unit_test_setup(an_open_file_keeps_its_offset, reset),
        cmocka_unit_test_setup(progress_may_end_it, reset),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
