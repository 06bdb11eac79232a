/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl doctor`: whether what a mount has left on disk is in order. */
#include "client/ctl.h"

#include "cache/disk.h"
#include "util/cleanup.h"

#include <inttypes.h>

static void write_json(const char *path, const struct stg_disk_report *report) {
    struct stg_json json = {.stream = stdout};

    stg_json_begin(&json, NULL, '{');
    stg_json_text(&json, "stage_dir", path);
    stg_json_text(&json, "source", report->source);
    stg_json_number(&json, "entries", report->entries);
    stg_json_number(&json, "bytes", report->bytes);
    stg_json_number(&json, "damaged", report->damaged);
    stg_json_bool(&json, "unreadable", report->unreadable);
    stg_json_bool(&json, "unfinished", report->unfinished);
    stg_json_bool(&json, "repaired", report->repaired);
    stg_json_end(&json, '}');
    putchar('\n');
}

static void write_text(const char *path, const struct stg_disk_report *report) {
    char bytes[STG_CTL_NUMBER_BYTES];

    printf("Stage directory ");
    stg_ctl_print(path);
    printf("\n  of ");
    stg_ctl_print(report->source);
    printf("\n  %" PRIu64 " copies in order, %s\n", report->entries,
           stg_ctl_bytes(report->bytes, bytes));
    if (report->damaged)
        printf("  %" PRIu64 " damaged%s\n", report->damaged,
               report->repaired ? ": removed, they will be fetched again"
                                : ": --repair removes them, no mount would give them");
    if (report->unfinished)
        printf("  its mount ended while it forgot what was changed: the next one begins anew\n");
    if (report->unreadable)
        printf("  the store cannot be read%s\n",
               report->repaired ? ": removed, the next mount begins anew"
                                : ": --repair removes it, or the next mount does");
}

int stg_ctl_doctor(const struct stg_ctl *ctl) {
    stg_auto_free struct stg_disk_report *report = calloc(1, sizeof(*report));
    int error;

    if (ctl->count != 1)
        return stg_ctl_misused("doctor: give one stage directory");
    error = report ? stg_disk_check(ctl->words[0], ctl->repair, report) : -ENOMEM;
    if (error) /* it has said what is wrong, but for want of memory */
        return error == -ENOMEM ? stg_ctl_failed(ctl->words[0], ENOMEM) : STG_CTL_FAILED;
    if (ctl->json)
        write_json(ctl->words[0], report);
    else
        write_text(ctl->words[0], report);
    return (report->damaged || report->unreadable) && !report->repaired ? STG_CTL_FAILED
                                                                        : STG_CTL_OK;
}
