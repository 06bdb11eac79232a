/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl copy`: files to a name, or to a folder. */
#include "client/ctl.h"

#include "util/cleanup.h"

#include <string.h>
#include <sys/stat.h>

/* `folder` with the last name of `source`, to be freed; NULL without memory. */
static char *name_in(const char *folder, const char *source) {
    const char *slash = strrchr(source, '/');
    char *path;

    return asprintf(&path, "%s/%s", folder, slash ? slash + 1 : source) < 0 ? NULL : path;
}

struct counts {
    uint64_t files;
    uint64_t failed;
    uint64_t bytes;
};

static void copy(const char *source, const char *destination, bool into, struct counts *counts) {
    stg_auto_free char *path = into ? name_in(destination, source) : strdup(destination);
    int64_t bytes = -1;

    errno = ENOMEM;
    if (path)
        bytes = stagefs_copy_zero(source, path);
    counts->files++;
    if (bytes >= 0) {
        counts->bytes += (uint64_t)bytes;
        return;
    }
    counts->failed++;
    stg_ctl_error("%s to %s: %s", source, path ? path : destination,
                  errno == EINVAL   ? "not two different regular files"
                  : errno == EISDIR ? "one is a folder: only files are copied"
                                    : strerror(errno));
}

static void report(const struct stg_ctl *ctl, const struct counts *counts) {
    struct stg_json json = {.stream = stdout};

    if (!ctl->json)
        return;
    stg_json_begin(&json, NULL, '{');
    stg_json_number(&json, "files", counts->files);
    stg_json_number(&json, "copied", counts->files - counts->failed);
    stg_json_number(&json, "failed", counts->failed);
    stg_json_number(&json, "bytes", counts->bytes);
    stg_json_end(&json, '}');
    putchar('\n');
}

int stg_ctl_copy(const struct stg_ctl *ctl) {
    struct counts counts = {0};
    const char *destination;
    struct stat st;
    bool into;

    if (ctl->count < 2)
        return stg_ctl_misused("copy: name a file and where it is to go");
    destination = ctl->words[ctl->count - 1];
    into = !stat(destination, &st) && S_ISDIR(st.st_mode);
    if (ctl->count > 2 && !into)
        return stg_ctl_misused("copy: %s is no folder, and there are several files", destination);
    for (size_t i = 0; i + 1 < ctl->count; i++)
        copy(ctl->words[i], destination, into, &counts);
    report(ctl, &counts);
    return counts.failed ? STG_CTL_FAILED : STG_CTL_OK;
}
