/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each call does where there is no stagefs mount, and how paths are taken apart. */
#include "tests/unit/unit.h"

#include "client/path.h"
#include "client/stagefs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANY = 10000 };

static char folder[] = "/tmp/stg-client-XXXXXX";
static int folder_fd;

static void write_file(const char *name, const char *content) {
    int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
}

/* one, two, sub/three, sub/deep/four, link -> one, gone -> nowhere, pipe */
static int make_folder(void **state) {
    const char *where = getenv("TMPDIR");

    (void)state;
    if (where && strlen(where) < 4000 && chdir(where))
        return -1;
    if (!mkdtemp(where ? strcpy(folder, "stg-client-XXXXXX") : folder))
        return -1;
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0 || mkdirat(folder_fd, "sub", 0755) || mkdirat(folder_fd, "sub/deep", 0755) ||
        symlinkat("one", folder_fd, "link") || symlinkat("nowhere", folder_fd, "gone") ||
        mkfifoat(folder_fd, "pipe", 0644))
        return -1;
    write_file("one", "1");
    write_file("two", "22");
    write_file("sub/three", "333");
    write_file("sub/deep/four", "4444");
    return 0;
}

static int remove_folder(void **state) {
    static const char *const files[] = {"one",  "two",  "sub/three", "sub/deep/four",
                                        "link", "gone", "pipe"};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(files); i++)
        if (unlinkat(folder_fd, files[i], 0))
            return -1;
    if (unlinkat(folder_fd, "sub/deep", AT_REMOVEDIR) || unlinkat(folder_fd, "sub", AT_REMOVEDIR))
        return -1;
    close(folder_fd);
    return rmdir(folder);
}

static int open_file(const char *name) {
    int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static int descriptors(void) {
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void files_count_as_staged(void **state) {
    const char *files[] = {"one", "./two", "sub//three", "sub/deep/four", "link", "sub/../two"};
    int before = descriptors();

    (void)state;
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_PREFETCH, files, STG_COUNT(files)), 6);
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_NONE, files, STG_COUNT(files)), 6);
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_MMAP, files, 0), 0);
    assert_int_equal(stagefs_stage_files(folder_fd, STAGEFS_ADAPTIVE, "one", "two", (char *)NULL),
                     2);
    assert_int_equal(stagefs_unstage_files(folder_fd, files, STG_COUNT(files), NULL, NULL), 6);
    assert_int_equal(descriptors(), before);
}

static void a_part_may_fail(void **state) {
    const char *files[] = {"one", "sub", "missing", "two", "gone", "pipe", ""};
    struct stagefs_result result;

    (void)state;
    errno = 0;
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_PREFETCH, files, STG_COUNT(files)), 2);
    assert_int_not_equal(errno, 0);
    assert_int_equal(stagefs_stage_with(folder_fd, files, STG_COUNT(files), NULL, &result), 2);
    assert_int_equal(result.files, 7);
    assert_int_equal(result.staged, 2);
    assert_int_equal(result.failed, 5);
    assert_int_equal(result.bytes, 3);
    assert_int_not_equal(result.first_error, 0);
}

static void assert_alone_fails(const char *file, int error) {
    struct stagefs_result result;

    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, NULL, &result), -1);
    assert_int_equal(errno, error);
    assert_int_equal(result.first_error, error);
    assert_string_equal(result.first_failed, file);
}

static void each_failure_has_its_errno(void **state) {
    char longest[5000];

    (void)state;
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_alone_fails("missing", ENOENT);
    assert_alone_fails("missing/one", ENOENT);
    assert_alone_fails("one/two", ENOTDIR);
    assert_alone_fails("one/", ENOTDIR);
    assert_alone_fails("gone", ENOENT);
    assert_alone_fails("sub", EISDIR);
    assert_alone_fails("sub/", EISDIR);
    assert_alone_fails(".", EISDIR);
    assert_alone_fails("pipe", EINVAL);
    assert_alone_fails("", ENOENT);
    longest[4095] = '\0';
    assert_alone_fails(longest, ENAMETOOLONG);
}

static void folders_are_walked_when_asked(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    struct stagefs_result result;
    const char *files[] = {"sub", "one"};

    (void)state;
    options.recursive = 1;
    assert_int_equal(stagefs_stage_with(folder_fd, files, 2, &options, &result), 3);
    assert_int_equal(result.files, 3);
    assert_int_equal(result.bytes, 3 + 4 + 1);
    /* Links and pipes below are passed over. */
    files[0] = ".";
    assert_int_equal(stagefs_stage_with(folder_fd, files, 1, &options, &result), 4);
    assert_int_equal(result.failed, 0);
    options.no_wait = 1;
    assert_int_equal(stagefs_stage_with(folder_fd, files, 1, &options, &result), 4);
    assert_int_equal(stagefs_unstage_files(folder_fd, files, 1, &options, &result), 4);
}

static void wrong_arguments_are_refused(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    char set[STAGEFS_SET_NAME_BYTES + 1];
    const char *file = "one";

    (void)state;
    memset(set, 's', sizeof(set) - 1);
    set[sizeof(set) - 1] = '\0';
    options.set = set;
    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, &options, NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(stagefs_unstage_set(folder_fd, set), -1);
    assert_int_equal(stagefs_unstage_set(folder_fd, ""), -1);
    set[sizeof(set) - 2] = '\0';
    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, &options, NULL), 1);
    assert_int_equal(stagefs_stage(folder_fd, (enum stagefs_mode)9, &file, 1), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(stagefs_stage(12345, STAGEFS_MMAP, &file, 1), -1);
    assert_int_equal(errno, EBADF);
    options = (struct stagefs_options)STAGEFS_OPTIONS_INIT;
    options.size = 100000;
    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, &options, NULL), -1);
    assert_int_equal(errno, EINVAL);
}

static int stop_at_once(const struct stagefs_result *so_far, void *data) {
    assert_int_equal(so_far->staged, 1);
    ++*(int *)data;
    return 1;
}

static void progress_may_end_the_waiting(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    const char *file = "one";
    int calls = 0;

    (void)state;
    options.progress = stop_at_once;
    options.data = &calls;
    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, &options, NULL), -1);
    assert_int_equal(errno, ECANCELED);
    assert_int_equal(calls, 1);
}

static void one_open_file(void **state) {
    int fd = open_file("one");
    int path = openat(folder_fd, "one", O_PATH | O_CLOEXEC);

    (void)state;
    assert_int_equal(stagefs_stage_auto(fd), 0);
    assert_int_equal(stagefs_stage_mmap(fd), 0);
    assert_int_equal(stagefs_stage_prefetch(fd), 0);
    assert_int_equal(stagefs_is_staged(fd), 0);
    assert_int_equal(stagefs_stage_mode(fd), STAGEFS_NONE);
    assert_int_equal(stagefs_unstage(fd), 0);
    assert_int_equal(stagefs_unstage_set(fd, "set"), 0);
    assert_int_equal(stagefs_sync(fd, 0), 0);
    assert_int_equal(stagefs_sync(folder_fd, -1), 0);
    assert_int_equal(stagefs_sync(path, 1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(stagefs_stage_auto(folder_fd), -1);
    assert_int_equal(errno, EISDIR);
    assert_int_equal(stagefs_stage_auto(path), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(stagefs_is_staged(-1), -1);
    assert_int_equal(errno, EBADF);
    close(path);
    close(fd);
}

static void status_has_the_size(void **state) {
    static const char *const paths[] = {"two", "sub/../two", "./sub/.././two"};
    struct stagefs_status status;

    (void)state;
    for (size_t i = 0; i < STG_COUNT(paths); i++) {
        memset(&status, 0xFF, sizeof(status));
        assert_int_equal(stagefs_status(folder_fd, paths[i], &status), 0);
        assert_int_equal(status.on_mount, 0);
        assert_int_equal(status.mode, STAGEFS_NONE);
        assert_int_equal(status.state, STAGEFS_ABSENT);
        assert_int_equal(status.size, 2);
        assert_string_equal(status.set, "");
    }
    assert_int_equal(stagefs_status(folder_fd, "link", &status), 0);
    assert_int_equal(status.size, 1);
    assert_int_equal(stagefs_status(folder_fd, "sub", &status), 0);
    status.size = 4711;
    assert_int_equal(stagefs_status(folder_fd, "gone", &status), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(stagefs_status(folder_fd, "missing", &status), -1);
    assert_int_equal(status.size, 4711);
}

static void advice_goes_to_the_kernel(void **state) {
    int fd = open_file("one");
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(stagefs_advise_sequential(fd, 0, 0), 0);
    assert_int_equal(stagefs_advise_random(fd, 0, 0), 0);
    assert_int_equal(stagefs_advise_willneed(fd, 0, 1), 0);
    assert_int_equal(stagefs_advise_dontneed(fd, 1, 0), 0);
    assert_int_equal(stagefs_advise_willneed(fd, -1, 0), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(stagefs_advise_willneed(fd, 0, -1), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(stagefs_advise_willneed(-1, 0, 0), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(stagefs_advise_random(ends[0], 0, 0), -1);
    assert_int_equal(errno, ESPIPE);
    close(ends[0]);
    close(ends[1]);
    close(fd);
}

/* More than fit in many requests, from many folders, with few descriptors open. */
static void many_files_in_many_folders(void **state) {
    const char **files = calloc(MANY, sizeof(*files));
    static const char *const names[] = {"one", "sub/three", "sub/../two", "sub/deep/four",
                                        "./sub/./deep/../three"};
    int before = descriptors();

    (void)state;
    for (size_t i = 0; i < MANY; i++)
        files[i] = names[i % STG_COUNT(names)];
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_DEFAULT, files, MANY), MANY);
    assert_int_equal(descriptors(), before);
    free(files);
}

/* ---- paths ---- */

static void paths_are_taken_apart(void **state) {
    static const struct {
        const char *path;
        size_t dir_bytes;
        const char *name;
    } rows[] = {
        {"a", 0, "a"},    {"/a", 1, "a"},  {"a/b", 1, "b"},   {"a//b", 1, "b"},
        {"/a/b", 2, "b"}, {"//a", 1, "a"}, {"a/b/", 1, "b/"}, {"a/", 0, "a/"},
        {"", 0, ""},      {"/", 1, ""},    {"a/..", 1, ".."}, {"a/b/c", 3, "c"},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        assert_int_equal(stg_path_dir_bytes(rows[i].path), rows[i].dir_bytes);
        assert_string_equal(stg_path_name(rows[i].path), rows[i].name);
    }
}

static void paths_are_normalised(void **state) {
    static const char *const rows[][2] = {
        {"a", "a"},
        {"a//b", "a/b"},
        {"./a/.", "a"},
        {"a/../b", "b"},
        {"a/b/../../c", "c"},
        {"a/b/..", "a"},
        {"", ""},
        {".", ""},
        {"a/..", ""},
        {"a/..b/c", "a/..b/c"},
        {"a/b/./../c", "a/c"},
    };
    char path[32];

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        strcpy(path, rows[i][0]);
        stg_path_normalise(path);
        assert_string_equal(path, rows[i][1]);
    }
}

static size_t common(const char *one, const char *other) {
    return stg_path_common(one, strlen(one), other, strlen(other));
}

static void common_folders_end_at_a_name(void **state) {
    (void)state;
    assert_int_equal(common("/a/b", "/a/bc"), 2);
    assert_int_equal(common("/a/b", "/a/b/c"), 4);
    assert_int_equal(common("/a/b/c", "/a/b"), 4);
    assert_int_equal(common("/a", "/b"), 1);
    assert_int_equal(common("a", "b"), 0);
    assert_int_equal(common("a", "/a"), 0);
    assert_int_equal(common("/a", "a"), 0);
    assert_int_equal(common("", "a"), 0);
    assert_int_equal(common("/", "/a/b"), 1);
}

static void what_is_below_a_folder(void **state) {
    (void)state;
    assert_string_equal(stg_path_below("", 0, "a/b"), "a/b");
    assert_null(stg_path_below("", 0, "/a"));
    assert_string_equal(stg_path_below("/", 1, "/a"), "a");
    assert_string_equal(stg_path_below("a", 1, "a//b"), "b");
    assert_string_equal(stg_path_below("a", 1, "a"), "");
    assert_null(stg_path_below("a", 1, "ab"));
    assert_null(stg_path_below("b", 1, "a"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_count_as_staged),
        cmocka_unit_test(a_part_may_fail),
        cmocka_unit_test(each_failure_has_its_errno),
        cmocka_unit_test(folders_are_walked_when_asked),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(progress_may_end_the_waiting),
        cmocka_unit_test(one_open_file),
        cmocka_unit_test(status_has_the_size),
        cmocka_unit_test(advice_goes_to_the_kernel),
        cmocka_unit_test(many_files_in_many_folders),
        cmocka_unit_test(paths_are_taken_apart),
        cmocka_unit_test(paths_are_normalised),
        cmocka_unit_test(common_folders_end_at_a_name),
        cmocka_unit_test(what_is_below_a_folder),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
