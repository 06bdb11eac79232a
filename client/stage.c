/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the calls that stage and unstage. */
#include "client/stagefs.h"

#include "client/batch.h"
#include "client/cleanup.h"
#include "client/outside.h"
#include "client/path.h"
#include "client/request.h"
#include "client/warm.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

/* ---- one pass over the files ---- */

/*
 * A symbolic link is resolved here, as the mount follows none, and with `recursive` a folder is
 * sent by its own descriptor: it may be a mount's root, which has no name in its mount.
 */
static void add_examined(struct stg_batch *batch, const char *path) {
    char target[PATH_MAX];
    struct stat st;
    int error = fstatat(batch->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
    bool is_link = !error && S_ISLNK(st.st_mode);

    if (is_link) {
        error = stg_path_resolve(batch->dirfd, path, target);
        if (error == -ENOSYS) {
            stg_batch_add_alone(batch, path);
            return;
        }
        if (!error && fstatat(batch->dirfd, target, &st, 0))
            error = -errno;
    }
    if (error) {
        stg_result_fail(&batch->result, path, error);
        return;
    }
    if (is_link)
        path = target;
    if (S_ISDIR(st.st_mode) && batch->plan->recursive)
        stg_batch_add_alone(batch, path);
    else
        stg_batch_add(batch, path);
}

/* The result so far: what was decided here, and the jobs' answers. */
static bool poll_jobs(struct stg_batch *batch, struct stagefs_result *result) {
    *result = batch->result;
    return stg_jobs_poll(&batch->jobs, result);
}

static int wait_for_jobs(struct stg_batch *batch, const struct stagefs_options *options,
                         struct stagefs_result *result) {
    unsigned delay_ms = 0;

    for (;;) {
        bool running = poll_jobs(batch, result);

        if (options->progress && options->progress(result, options->data))
            return -ECANCELED;
        if (!running)
            return 0;
        stg_jobs_pause(&delay_ms);
    }
}

/* ---- warming ---- */

/* To wait for files to be staged is to wait until the kernel has them, where it serves them. */
static bool wants_warm(const struct stg_plan *plan, const struct stagefs_options *options) {
    return plan->command == STAGEFS_IOC_STAGE && plan->mode != STAGEFS_MODE_NONE &&
           !options->no_wait;
}

static void ask_mounts(const struct stg_batch *batch, struct stg_warm *warm) {
    for (size_t i = 0; i < batch->jobs.count; i++)
        stg_warm_ask(warm, batch->jobs.jobs[i].device, batch->jobs.jobs[i].fd);
}

struct call {
    int dirfd;
    const char *const *files;
    size_t count;
    const struct stg_plan *plan;
    const struct stagefs_options *options;
};

/* Adds to `warm` the mounts whose page cache is to be filled then. */
static int run_pass(const struct call *call, bool examine, struct stagefs_result *result,
                    struct stg_warm *warm) {
    struct stg_batch *batch = stg_batch_new(call->dirfd, call->plan);
    int error = 0;

    if (!batch)
        return -ENOMEM;
    stg_batch_limit(batch, call->files, call->count);
    for (size_t i = 0; i < call->count; i++) {
        if (examine)
            add_examined(batch, call->files[i]);
        else
            stg_batch_add(batch, call->files[i]);
    }
    stg_batch_flush(batch);
    if (call->options->no_wait) {
        *result = batch->result;
        result->files += batch->taken;
        result->staged += batch->taken;
    } else {
        error = wait_for_jobs(batch, call->options, result);
    }
    if (!error && wants_warm(call->plan, call->options))
        ask_mounts(batch, warm);
    stg_batch_free(batch);
    return error;
}

static bool has_links(const struct call *call) {
    struct stat st;

    for (size_t i = 0; i < call->count; i++)
        if (!fstatat(call->dirfd, call->files[i], &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
            return true;
    return false;
}

/* The mount names what failed from a base; the caller is told the path that was given. */
static void name_failed(const struct call *call, struct stagefs_result *result) {
    size_t bytes = strlen(result->first_failed);

    for (size_t i = 0; bytes && i < call->count; i++) {
        size_t all = strlen(call->files[i]);
        const char *end = call->files[i] + all - bytes;

        if (all < bytes || strcmp(end, result->first_failed) || (all > bytes && end[-1] != '/'))
            continue;
        if (all < sizeof(result->first_failed))
            memcpy(result->first_failed, call->files[i], all + 1);
        return;
    }
}

/*
 * Looking at each file before would cost a lookup a file, one after the other, which the mount does
 * many at a time. So the files are looked at only where something failed, as a symbolic link does,
 * and then all is sent again: a file that is staged already costs next to nothing. Without waiting
 * no failure is heard of, and they are looked at first.
 */
static int run(const struct call *call, struct stagefs_result *result) {
    bool examine = call->plan->recursive || call->options->no_wait;
    struct stg_warm warm = {
        .progress = call->options->progress, .result = result, .data = call->options->data};
    int error = run_pass(call, examine, result, &warm);

    if (!error && result->failed && !examine && has_links(call))
        error = run_pass(call, true, result, &warm);
    if (!error && result->failed)
        name_failed(call, result);
    for (size_t i = 0; i < call->count && !error && warm.count; i++)
        error = stg_warm_path(&warm, call->dirfd, call->files[i], call->plan->recursive);
    stg_warm_fini(&warm);
    return error;
}

/* ---- arguments and answers ---- */

static int check_options(const struct stagefs_options *given, struct stagefs_options *options) {
    *options = (struct stagefs_options)STAGEFS_OPTIONS_INIT;
    if (given) {
        if (given->size < sizeof(given->size) || given->size > sizeof(*options))
            return -EINVAL;
        memcpy(options, given, given->size);
    }
    if ((unsigned)options->mode > STAGEFS_DEFAULT)
        return -EINVAL;
    if (options->set && !stg_request_is_set(options->set))
        return -EINVAL;
    return 0;
}

static int count_of(const struct stagefs_result *result) {
    if (result->first_error && !result->staged)
        return -result->first_error;
    return result->staged > INT_MAX ? INT_MAX : (int)result->staged;
}

static int answer(const struct stagefs_result *result, int error) {
    if (!error) {
        error = count_of(result);
        if (result->first_error)
            errno = result->first_error;
    }
    return stg_request_answer(error);
}

static struct stg_plan plan_of(bool staging, const struct stagefs_options *options) {
    struct stg_plan plan = {
        .command = staging ? STAGEFS_IOC_STAGE : STAGEFS_IOC_UNSTAGE,
        .mode = staging ? (uint32_t)options->mode : 0,
        .recursive = options->recursive,
        .set = staging && options->set ? options->set : "",
        .outside_advice = POSIX_FADV_WILLNEED,
    };

    if (!staging)
        plan.outside_advice = POSIX_FADV_DONTNEED;
    else if (options->mode == STAGEFS_NONE)
        plan.outside_advice = POSIX_FADV_NORMAL;
    return plan;
}

static int run_files(bool staging, struct call *call, const struct stagefs_options *given,
                     struct stagefs_result *ret_result) {
    struct stagefs_result result = {0};
    struct stagefs_options options;
    struct stg_plan plan;
    int error = call->count > INT_MAX ? -EINVAL : check_options(given, &options);

    if (error)
        return stg_request_answer(error);
    if (call->dirfd != AT_FDCWD && fcntl(call->dirfd, F_GETFD) < 0)
        return -1;
    plan = plan_of(staging, &options);
    call->plan = &plan;
    call->options = &options;
    error = run(call, &result);
    if (ret_result && error != -ENOMEM)
        *ret_result = result;
    return answer(&result, error);
}

int stagefs_stage_with(int dirfd, const char *const *files, size_t n,
                       const struct stagefs_options *options, struct stagefs_result *result) {
    struct call call = {.dirfd = dirfd, .files = files, .count = n};

    return run_files(true, &call, options, result);
}

int stagefs_unstage_files(int dirfd, const char *const *files, size_t n,
                          const struct stagefs_options *options, struct stagefs_result *result) {
    struct call call = {.dirfd = dirfd, .files = files, .count = n};

    return run_files(false, &call, options, result);
}

int stagefs_stage(int dirfd, enum stagefs_mode mode, const char *const *files, size_t n) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;

    options.mode = mode;
    return stagefs_stage_with(dirfd, files, n, &options, NULL);
}

int stagefs_stage_files(int dirfd, enum stagefs_mode mode, const char *first, ...) {
    stg_client_auto_free const char **files = NULL;
    size_t count = 0;
    va_list list;

    va_start(list, first);
    for (const char *file = first; file; file = va_arg(list, const char *))
        count++;
    va_end(list);
    files = calloc(count + 1, sizeof(*files));
    if (!files)
        return -1;
    files[0] = first;
    va_start(list, first);
    for (size_t i = 1; i < count; i++)
        files[i] = va_arg(list, const char *);
    va_end(list);
    return stagefs_stage(dirfd, mode, files, count);
}

/* ---- one open file ---- */

static int run_open(int fd, bool staging, enum stagefs_mode mode) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    struct stagefs_result result = {0};
    struct stg_warm warm = {0};
    struct stg_batch *batch;
    struct stg_plan plan;
    struct stat st;
    int error = fstat(fd, &st) ? -errno : 0;

    if (!error && !S_ISREG(st.st_mode))
        error = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    if (error)
        return stg_request_answer(error);
    options.mode = mode;
    plan = plan_of(staging, &options);
    batch = stg_batch_new(AT_FDCWD, &plan);
    if (!batch)
        return -1;
    stg_batch_add_open(batch, fd, "");
    error = wait_for_jobs(batch, &options, &result);
    if (!error && wants_warm(&plan, &options))
        ask_mounts(batch, &warm);
    stg_batch_free(batch);
    if (!error)
        error = stg_warm_open(&warm, fd);
    stg_warm_fini(&warm);
    return stg_request_answer(error ? error : -result.first_error);
}

int stagefs_stage_auto(int fd) { return run_open(fd, true, STAGEFS_ADAPTIVE); }

int stagefs_stage_mmap(int fd) { return run_open(fd, true, STAGEFS_MMAP); }

int stagefs_stage_prefetch(int fd) { return run_open(fd, true, STAGEFS_PREFETCH); }

int stagefs_unstage(int fd) { return run_open(fd, false, STAGEFS_NONE); }
