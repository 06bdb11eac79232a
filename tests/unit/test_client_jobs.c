/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a mount is sent for many files, and what is made of its answers. The mount is played by this
 * program: ioctl is wrapped by the linker (-Wl,--wrap=ioctl), as is pread64, to count what is read.
 */
#include "tests/unit/unit.h"

#include "client/protocol.h"
#include "client/stagefs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANY = 3000, JOB = 77 };

static char folder[] = "/tmp/stg-jobs-XXXXXX";
static int folder_fd;

/* ---- the mount ---- */

static struct {
    bool old;       /* another version: EINVAL to all */
    int busy;       /* requests that are answered with EAGAIN first */
    int interrupts; /* and calls that end with EINTR */
    int polls_left; /* until the job is done */
    bool forgetful; /* no job is known */
    int refuse;     /* the errno of each request to stage */
    bool pages;     /* serves from the page cache, */
    uint64_t limit; /* of which this much may be read */
    unsigned requests, names, opens;
    uint64_t read_bytes;
    uint32_t mode, flags;
    char set[STAGEFS_SET_BYTES];
    struct stagefs_job_request job; /* what it has come to */
} mount;

static void take_name(int fd, const char *name) {
    struct stat st;
    int error = 0;

    /* As the protocol has it. */
    assert_true(*name && *name != '/' && !strstr(name, "..") && !strstr(name, "//"));
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        error = errno;
    else if (!S_ISREG(st.st_mode))
        error = S_ISLNK(st.st_mode) ? ELOOP : EISDIR;
    mount.names++;
    mount.job.files++;
    if (!error) {
        mount.job.done++;
        mount.job.bytes += (uint64_t)st.st_size;
        return;
    }
    mount.job.failed++;
    if (!mount.job.first_error) {
        mount.job.first_error = (uint32_t)error;
        (void)snprintf(mount.job.first_failed, sizeof(mount.job.first_failed), "%s", name);
    }
}

static int take_stage(int fd, struct stagefs_stage_request *request) {
    assert_true(!request->reserved && (request->job == 0 || request->job == JOB));
    assert_true(request->names_bytes <= sizeof(request->names));
    if (mount.refuse)
        return mount.refuse;
    if (!request->job) /* a new one */
        mount.job = (struct stagefs_job_request){.version = STAGEFS_PROTOCOL_VERSION};
    mount.requests++;
    mount.mode = request->mode;
    mount.flags = request->flags;
    strcpy(mount.set, request->set);
    for (size_t at = 0; at < request->names_bytes; at += strlen(request->names + at) + 1)
        take_name(fd, request->names + at);
    if (!request->names_bytes) {
        mount.opens++;
        mount.job.files++;
        mount.job.done++;
    }
    request->job = JOB;
    return 0;
}

static int take_job(struct stagefs_job_request *request) {
    assert_int_equal(request->job, JOB);
    if (mount.forgetful)
        return ENOENT;
    *request = mount.job;
    request->job = JOB;
    request->running = mount.polls_left-- > 0;
    return 0;
}

static int take_stats(struct stagefs_stats_request *request) {
    request->serve = mount.pages ? STAGEFS_SERVE_PAGECACHE : STAGEFS_SERVE_PASSTHROUGH;
    request->hot_limit_bytes = mount.limit;
    return 0;
}

static int take(int fd, unsigned long command, void *request) {
    if (mount.interrupts-- > 0)
        return EINTR;
    assert_int_equal(*(uint32_t *)request, STAGEFS_PROTOCOL_VERSION);
    if (mount.old)
        return EINVAL;
    switch (command) {
    case STAGEFS_IOC_STAGE:
    case STAGEFS_IOC_UNSTAGE:
        if (mount.busy-- > 0)
            return EAGAIN;
        return take_stage(fd, request);
    case STAGEFS_IOC_JOB:
        return take_job(request);
    case STAGEFS_IOC_STATS:
        return take_stats(request);
    default:
        return ENOTTY;
    }
}

int __wrap_ioctl(int fd, unsigned long command, ...);

int __wrap_ioctl(int fd, unsigned long command, ...) {
    va_list list;
    int error;

    va_start(list, command);
    error = take(fd, command, va_arg(list, void *));
    va_end(list);
    errno = error ? error : errno;
    return error ? -1 : 0;
}

ssize_t __real_pread64(int fd, void *buffer, size_t bytes, off64_t offset);
ssize_t __wrap_pread64(int fd, void *buffer, size_t bytes, off64_t offset);

ssize_t __wrap_pread64(int fd, void *buffer, size_t bytes, off64_t offset) {
    ssize_t got = __real_pread64(fd, buffer, bytes, offset);

    mount.read_bytes += got > 0 ? (uint64_t)got : 0;
    return got;
}

/* ---- the files: sub/f0… of one byte each, link -> sub/f1, dir -> sub ---- */

static void name_file(char name[32], unsigned number) {
    (void)snprintf(name, 32, "sub/f%u", number); /* it fits */
}

static int make_folder(void **state) {
    const char *where = getenv("TMPDIR");
    char name[32];

    (void)state;
    if (where && chdir(where))
        return -1;
    if (!mkdtemp(where ? strcpy(folder, "stg-jobs-XXXXXX") : folder))
        return -1;
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0 || mkdirat(folder_fd, "sub", 0755) ||
        symlinkat("sub/f1", folder_fd, "link") || symlinkat("sub", folder_fd, "dir"))
        return -1;
    for (unsigned i = 0; i < MANY; i++) {
        int fd;

        name_file(name, i);
        fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, "x", 1) != 1)
            return -1;
        close(fd);
    }
    return 0;
}

static int remove_folder(void **state) {
    char name[32];

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        name_file(name, i);
        if (unlinkat(folder_fd, name, 0))
            return -1;
    }
    if (unlinkat(folder_fd, "link", 0) || unlinkat(folder_fd, "dir", 0) ||
        unlinkat(folder_fd, "sub", AT_REMOVEDIR))
        return -1;
    close(folder_fd);
    return rmdir(folder);
}

static int reset(void **state) {
    (void)state;
    memset(&mount, 0, sizeof(mount));
    return 0;
}

/* ---- what is sent ---- */

static void many_files_are_few_requests(void **state) {
    static char names[MANY][32];
    static const char *files[MANY];
    struct stagefs_result result;

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        name_file(names[i], i);
        files[i] = names[i];
    }
    mount.polls_left = 5;
    assert_int_equal(stagefs_stage_with(folder_fd, files, MANY, NULL, &result), MANY);
    assert_int_equal(mount.names, MANY);
    assert_int_equal(mount.opens, 0);
    assert_true(mount.requests < 4);
    assert_int_equal(result.bytes, MANY);
    assert_int_equal(mount.mode, STAGEFS_MODE_DEFAULT);
}

static void the_request_says_what_was_asked(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    const char *files[] = {"sub/f1", "sub"};

    (void)state;
    options.mode = STAGEFS_MMAP;
    options.set = "group";
    assert_int_equal(stagefs_stage_with(folder_fd, files, 1, &options, NULL), 1);
    assert_int_equal(mount.mode, STAGEFS_MODE_MMAP);
    assert_string_equal(mount.set, "group");
    assert_int_equal(mount.flags, 0);
    options.recursive = 1;
    assert_int_equal(stagefs_stage_with(folder_fd, files + 1, 1, &options, NULL), 1);
    assert_int_equal(mount.flags, STAGEFS_RECURSIVE);
    assert_int_equal(mount.opens, 1);
    assert_int_equal(stagefs_unstage_files(folder_fd, files, 1, &options, NULL), 1);
    assert_int_equal(mount.mode, 0);
    assert_string_equal(mount.set, "");
}

static void links_are_sent_as_what_they_lead_to(void **state) {
    const char *files[] = {"sub/f0", "link", "dir/f2", "dir/../sub/f3", "sub/../sub/./f4"};
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    struct stagefs_result result;

    (void)state;
    assert_int_equal(stagefs_stage_with(folder_fd, files, 5, NULL, &result), 5);
    assert_int_equal(result.failed, 0);
    assert_int_equal(mount.opens, 0);
    options.no_wait = 1;
    mount.polls_left = 1000000;
    assert_int_equal(stagefs_stage_with(folder_fd, files, 5, &options, &result), 5);
    assert_int_equal(mount.job.failed, 0);
}

/* ---- what is made of the answers ---- */

static void failures_are_told_by_the_given_path(void **state) {
    const char *files[] = {"sub/f0", "sub/missing", "link", "sub/gone"};
    struct stagefs_result result;

    (void)state;
    assert_int_equal(stagefs_stage_with(folder_fd, files, 4, NULL, &result), 2);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(result.files, 4);
    assert_int_equal(result.failed, 2);
    assert_int_equal(result.first_error, ENOENT);
    assert_string_equal(result.first_failed, "sub/missing");
}

static void a_busy_mount_is_waited_for(void **state) {
    const char *file = "sub/f0";

    (void)state;
    mount.busy = 3;
    mount.interrupts = 5;
    mount.polls_left = 2;
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_PREFETCH, &file, 1), 1);
}

static void a_forgotten_job_is_not_success(void **state) {
    const char *files[] = {"sub/f0", "sub/f1"};
    struct stagefs_result result;

    (void)state;
    mount.forgetful = true;
    assert_int_equal(stagefs_stage_with(folder_fd, files, 2, NULL, &result), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(result.files, 2);
    assert_int_equal(result.failed, 2);
}

static void a_refusal_is_that_of_all_files(void **state) {
    static const int errors[] = {EPERM, EACCES, EINVAL, EIO};
    const char *files[] = {"sub/f0", "sub/f1"};
    struct stagefs_result result;

    (void)state;
    for (size_t i = 0; i < STG_COUNT(errors); i++) {
        mount.refuse = errors[i];
        assert_int_equal(stagefs_stage_with(folder_fd, files, 2, NULL, &result), -1);
        assert_int_equal(errno, errors[i]);
        assert_int_equal(result.failed, 2);
        assert_string_equal(result.first_failed, "sub/f0");
    }
}

static void a_mount_that_cannot_is_as_none(void **state) {
    static const int errors[] = {ENOTTY, EOPNOTSUPP, ENOSYS};
    const char *file = "sub/f0";

    (void)state;
    for (size_t i = 0; i < STG_COUNT(errors); i++) {
        mount.refuse = errors[i];
        assert_int_equal(stagefs_stage(folder_fd, STAGEFS_PREFETCH, &file, 1), 1);
    }
    mount.old = true;
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_PREFETCH, &file, 1), 1);
    assert_int_equal(mount.requests, 0);
}

static int stop_at_second(const struct stagefs_result *so_far, void *data) {
    (void)so_far;
    return ++*(int *)data == 2;
}

static void waiting_may_be_ended(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    const char *file = "sub/f0";
    int calls = 0;

    (void)state;
    options.progress = stop_at_second;
    options.data = &calls;
    mount.polls_left = 1000000;
    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, &options, NULL), -1);
    assert_int_equal(errno, ECANCELED);
    assert_int_equal(calls, 2);
}

/* ---- the page cache ---- */

/* How much was read meanwhile. */
static uint64_t stage_and_count(const char *file, const struct stagefs_options *options) {
    mount.read_bytes = 0;
    assert_int_equal(stagefs_stage_with(folder_fd, &file, 1, options, NULL), 1);
    return mount.read_bytes;
}

static void pages_are_read_where_they_serve(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    const char *files[] = {"sub/f0", "sub/missing", "link", "dir/f2"};
    int fd = openat(folder_fd, "sub/f0", O_RDONLY | O_CLOEXEC);

    (void)state;
    mount.limit = UINT64_MAX;
    assert_int_equal(stage_and_count("sub/f0", &options), 0);
    mount.pages = true;
    assert_int_equal(stage_and_count("sub/f0", &options), 1);
    assert_int_equal(stagefs_stage(folder_fd, STAGEFS_PREFETCH, files, 4), 3);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(mount.read_bytes, 1 + 3);
    mount.read_bytes = 0;
    assert_int_equal(stagefs_stage_prefetch(fd), 0);
    assert_int_equal(mount.read_bytes, 1);
    options.recursive = 1;
    assert_int_equal(stage_and_count("sub", &options), MANY);
    mount.limit = 7;
    assert_int_equal(stage_and_count("sub", &options), 7);
    close(fd);
}

static void pages_are_left_where_nobody_waits(void **state) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    const char *file = "sub/f0";

    (void)state;
    mount.pages = true;
    mount.limit = UINT64_MAX;
    options.mode = STAGEFS_NONE;
    assert_int_equal(stage_and_count(file, &options), 0);
    options.mode = STAGEFS_DEFAULT;
    options.no_wait = 1;
    assert_int_equal(stage_and_count(file, &options), 0);
    assert_int_equal(stagefs_unstage_files(folder_fd, &file, 1, NULL, NULL), 1);
    assert_int_equal(mount.read_bytes, 0);
}

static void a_mount_without_staging_has_no_sets(void **state) {
    (void)state;
    /* It answers STATS, and CONFIG with ENOTTY. */
    assert_int_equal(stagefs_unstage_set(folder_fd, "group"), 0);
    assert_int_equal(mount.requests, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(many_files_are_few_requests, reset),
        cmocka_unit_test_setup(the_request_says_what_was_asked, reset),
        cmocka_unit_test_setup(links_are_sent_as_what_they_lead_to, reset),
        cmocka_unit_test_setup(failures_are_told_by_the_given_path, reset),
        cmocka_unit_test_setup(a_busy_mount_is_waited_for, reset),
        cmocka_unit_test_setup(a_forgotten_job_is_not_success, reset),
        cmocka_unit_test_setup(a_refusal_is_that_of_all_files, reset),
        cmocka_unit_test_setup(a_mount_that_cannot_is_as_none, reset),
        cmocka_unit_test_setup(waiting_may_be_ended, reset),
        cmocka_unit_test_setup(pages_are_read_where_they_serve, reset),
        cmocka_unit_test_setup(pages_are_left_where_nobody_waits, reset),
        cmocka_unit_test_setup(a_mount_without_staging_has_no_sets, reset),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
