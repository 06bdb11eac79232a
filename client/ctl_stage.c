/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl stage` and `stagectl unstage`, and the bar that shows how far they are. */
#include "client/ctl.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

/* ---- the bar ---- */

enum { BAR_WIDTH = 30, BAR_PERIOD_NS = 100000000 };

struct bar {
    struct timespec last;
    bool shown;
};

static bool is_due(struct bar *bar) {
    struct timespec now;
    int64_t since_ns;

    clock_gettime(CLOCK_MONOTONIC, &now);
    since_ns =
        (now.tv_sec - bar->last.tv_sec) * INT64_C(1000000000) + now.tv_nsec - bar->last.tv_nsec;
    if (since_ns < BAR_PERIOD_NS)
        return false;
    bar->last = now;
    return true;
}

static int show(const struct stagefs_result *so_far, void *data) {
    struct bar *bar = data;
    uint64_t done = so_far->staged + so_far->failed;
    int width = so_far->files ? (int)(done * BAR_WIDTH / so_far->files) : 0;
    char bytes[STG_CTL_NUMBER_BYTES];

    if (!is_due(bar))
        return 0;
    bar->shown = true;
    (void)fprintf(stderr, "\r[%.*s%*s] %" PRIu64 "/%" PRIu64 " files, %s\x1b[K", width,
                  "##############################", BAR_WIDTH - width, "", done, so_far->files,
                  stg_ctl_bytes(so_far->bytes, bytes));
    return 0;
}

static void clear(const struct bar *bar) {
    if (bar->shown)
        (void)fputs("\r\x1b[K", stderr);
}

/* ---- the answer ---- */

static void write_json(const struct stagefs_result *result, const char *done) {
    struct stg_json json = {.stream = stdout};

    stg_json_begin(&json, NULL, '{');
    stg_json_number(&json, "files", result->files);
    stg_json_number(&json, done, result->staged);
    stg_json_number(&json, "failed", result->failed);
    stg_json_number(&json, "bytes", result->bytes);
    stg_json_text(&json, "first_error", result->first_error ? strerror(result->first_error) : NULL);
    stg_json_text(&json, "first_failed", result->first_error ? result->first_failed : NULL);
    stg_json_end(&json, '}');
    putchar('\n');
}

static void write_text(const struct stg_ctl *ctl, const struct stagefs_result *result,
                       const char *done) {
    char bytes[STG_CTL_NUMBER_BYTES];

    printf("%" PRIu64 " of %" PRIu64 " %s", result->staged, result->files,
           ctl->no_wait ? "paths taken" : "files ");
    if (!ctl->no_wait)
        printf("%s", done);
    if (!ctl->no_wait && result->bytes)
        printf(", %s", stg_ctl_bytes(result->bytes, bytes));
    putchar('\n');
}

static int report(const struct stg_ctl *ctl, const struct stagefs_result *result,
                  const char *done) {
    if (ctl->json)
        write_json(result, done);
    else
        write_text(ctl, result, done);
    if (!result->first_error)
        return STG_CTL_OK;
    (void)stg_ctl_failed(result->first_failed, result->first_error);
    if (result->failed > 1)
        stg_ctl_error("%" PRIu64 " failed in all, of which this was the first", result->failed);
    return STG_CTL_FAILED;
}

/* ---- the commands ---- */

static int run(const struct stg_ctl *ctl, bool staging) {
    struct stagefs_options options = STAGEFS_OPTIONS_INIT;
    struct stagefs_result result = {0};
    STG_CTL_AUTO_LIST struct stg_ctl_list list = {0};
    const char *const *files;
    struct bar bar = {0};
    int count;

    if (stg_ctl_list_init(ctl, 0, &list))
        return STG_CTL_FAILED;
    files = (const char *const *)list.paths;
    options.mode = ctl->mode;
    options.recursive = ctl->recursive;
    options.no_wait = ctl->no_wait;
    options.set = ctl->set;
    options.data = &bar;
    options.progress = isatty(STDERR_FILENO) ? show : NULL;
    count = staging ? stagefs_stage_with(AT_FDCWD, files, list.count, &options, &result)
                    : stagefs_unstage_files(AT_FDCWD, files, list.count, &options, &result);
    clear(&bar);
    if (count < 0 && !result.first_error)
        return stg_ctl_failed("the files", errno);
    return report(ctl, &result, staging ? "staged" : "unstaged");
}

int stg_ctl_stage(const struct stg_ctl *ctl) {
    if (!ctl->count && !ctl->list)
        return stg_ctl_misused("stage: name files, or give --from-file");
    return run(ctl, true);
}

static int unstage_set(const struct stg_ctl *ctl) {
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;

    if (ctl->count > 1 || ctl->list)
        return stg_ctl_misused("unstage: with --set give no files, only a path on the mount");
    fd = stg_ctl_open_mount(ctl->count ? ctl->words[0] : NULL, &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    if (!stagefs_unstage_set(fd, ctl->set))
        return STG_CTL_OK;
    if (errno == ENOENT)
        stg_ctl_error("%s: no such set: `stagectl set` lists those that there are", ctl->set);
    else
        (void)stg_ctl_failed(ctl->set, errno);
    return STG_CTL_FAILED;
}

int stg_ctl_unstage(const struct stg_ctl *ctl) {
    if (ctl->set)
        return unstage_set(ctl);
    if (!ctl->count && !ctl->list)
        return stg_ctl_misused("unstage: name files, or give --from-file or --set");
    return run(ctl, false);
}
