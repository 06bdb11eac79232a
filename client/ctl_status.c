/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl status`: one line a file. No file is opened, as that could stage it. */
#include "client/ctl.h"

#include "util/cleanup.h"

#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

static const char *const states[] = {"absent", "filling", "hot", "cold", "stale"};

static const char *word(const char *const *words, size_t count, unsigned index) {
    return index < count ? words[index] : "?";
}

struct report {
    struct stg_json *json; /* NULL: for people */
    int status;
};

static void write_json(struct stg_json *json, const char *path, const struct stagefs_status *status,
                       int error) {
    stg_json_begin(json, NULL, '{');
    stg_json_text(json, "path", path);
    stg_json_text(json, "error", error ? strerror(error) : NULL);
    if (!error) {
        stg_json_bool(json, "on_mount", status->on_mount);
        stg_json_text(json, "mode", word(stg_ctl_modes, STAGEFS_DEFAULT, status->mode));
        stg_json_text(json, "state", word(states, STAGEFS_STALE + 1, status->state));
        stg_json_bool(json, "copied", status->copied);
        stg_json_number(json, "opens", status->opens);
        stg_json_number(json, "hits", status->hits);
        stg_json_number(json, "size_bytes", status->size);
        stg_json_number(json, "staged_bytes", status->staged);
        stg_json_text(json, "set", *status->set ? status->set : NULL);
        stg_json_text(json, "why", *status->why ? status->why : NULL);
    }
    stg_json_end(json, '}');
}

static void write_head(void) {
    printf("%-8s %-9s %10s %10s %8s %6s  %s\n", "STATE", "MODE", "SIZE", "STAGED", "HITS", "OPENS",
           "PATH");
}

static void write_line(const char *path, const struct stagefs_status *status) {
    char size[STG_CTL_NUMBER_BYTES];
    char staged[STG_CTL_NUMBER_BYTES];

    printf("%-8s %-9s %10s %10s %8" PRIu64 " %6" PRIu32 "  ",
           word(states, STAGEFS_STALE + 1, status->state),
           status->on_mount ? word(stg_ctl_modes, STAGEFS_DEFAULT, status->mode) : "-",
           stg_ctl_bytes(status->size, size), stg_ctl_bytes(status->staged, staged), status->hits,
           status->opens);
    stg_ctl_print(path);
    if (*status->set) {
        printf(" [");
        stg_ctl_print(status->set);
        printf("]");
    }
    printf(" (");
    stg_ctl_print(status->on_mount ? status->why : "not on a mount that stages");
    printf(")\n");
}

static void tell(struct report *report, const char *path, int error) {
    struct stagefs_status status = {0};

    if (!error && stagefs_status(AT_FDCWD, path, &status))
        error = errno;
    if (error)
        report->status = stg_ctl_failed(path, error);
    if (report->json)
        write_json(report->json, path, &status, error);
    else if (!error)
        write_line(path, &status);
}

static void tell_below(struct report *report, const char *path) {
    char *paths[] = {(char *)path, NULL};
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    FTSENT *entry;

    if (!walk) {
        tell(report, path, errno);
        return;
    }
    while ((entry = fts_read(walk))) {
        switch (entry->fts_info) {
        case FTS_F:
            tell(report, entry->fts_path, 0);
            break;
        case FTS_DNR:
        case FTS_ERR:
        case FTS_NS:
            tell(report, entry->fts_path, entry->fts_errno);
            break;
        default: /* folders, and what is no regular file */
            break;
        }
    }
    (void)fts_close(walk); /* it was only read */
}

static void tell_one(const struct stg_ctl *ctl, struct report *report, const char *path) {
    struct stat st;

    if (stat(path, &st))
        tell(report, path, errno);
    else if (!S_ISDIR(st.st_mode))
        tell(report, path, 0);
    else if (ctl->recursive)
        tell_below(report, path);
    else
        tell(report, path, EISDIR);
}

int stg_ctl_status(const struct stg_ctl *ctl) {
    STG_CTL_AUTO_LIST struct stg_ctl_list list = {0};
    struct stg_json json = {.stream = stdout};
    struct report report = {.json = ctl->json ? &json : NULL};

    if (!ctl->count && !ctl->list)
        return stg_ctl_misused("status: name files, or give --from-file");
    if (stg_ctl_list_init(ctl, 0, &list))
        return STG_CTL_FAILED;
    if (ctl->json)
        stg_json_begin(&json, NULL, '[');
    else
        write_head();
    for (size_t i = 0; i < list.count; i++)
        tell_one(ctl, &report, list.paths[i]);
    if (ctl->json) {
        stg_json_end(&json, ']');
        putchar('\n');
    }
    return report.status;
}
