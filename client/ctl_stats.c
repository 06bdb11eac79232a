/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl stats`: one table of the mount's counters, for JSON and for people. */
#include "client/ctl.h"

#include "client/protocol.h"
#include "util/cleanup.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

enum unit { UNIT_HEAD, UNIT_COUNT, UNIT_BYTES, UNIT_TIME };

struct row {
    enum unit unit;
    const char *label; /* NULL: in JSON alone */
    const char *name;  /* in JSON; stable */
    size_t offset;
    size_t of; /* the offset of what it is a part of, or 0 */
};

#define HEAD(label)                                                                                \
    { UNIT_HEAD, label, NULL, 0, 0 }
#define ROW_OF(request, unit, field, label)                                                        \
    { unit, label, #field, offsetof(struct request, field), 0 }
#define PART_OF(request, unit, field, whole, label)                                                \
    { unit, label, #field, offsetof(struct request, field), offsetof(struct request, whole) }
#define ROW(unit, field, label) ROW_OF(stagefs_stats_request, unit, field, label)
#define PART(unit, field, whole, label) PART_OF(stagefs_stats_request, unit, field, whole, label)

static const struct row rows[] = {
    HEAD("Served"),
    ROW(UNIT_COUNT, hot_hits, "by hot copies"),
    PART(UNIT_COUNT, hot_range_hits, hot_hits, "  by range (mode mmap)"),
    ROW(UNIT_COUNT, cold_hits, "by cold copies"),
    ROW(UNIT_COUNT, misses, "after a wait for a fetch"),
    PART(UNIT_COUNT, range_misses, misses, "  by range (mode mmap)"),
    ROW(UNIT_COUNT, source_opens, "by the source"),
    PART(UNIT_COUNT, mmap_opens, source_opens, "  by its pages (mode mmap)"),
    HEAD("Memory"),
    PART(UNIT_BYTES, hot_bytes, hot_limit_bytes, "hot copies"),
    ROW(UNIT_BYTES, hot_peak_bytes, "  at most, so far"),
    ROW(UNIT_BYTES, hot_limit_bytes, "  limit"),
    PART(UNIT_BYTES, cold_bytes, cold_limit_bytes, "cold copies"),
    ROW(UNIT_BYTES, cold_peak_bytes, "  at most, so far"),
    ROW(UNIT_BYTES, cold_limit_bytes, "  limit"),
    ROW(UNIT_BYTES, cold_raw_bytes, "  inflated"),
    ROW(UNIT_COUNT, pressure_events, "limit lowered by pressure"),
    HEAD("Fetches"),
    ROW(UNIT_COUNT, prefetch_fills, "whole files"),
    ROW(UNIT_COUNT, range_fills, "ranges"),
    ROW(UNIT_BYTES, filled_bytes, "data"),
    ROW(UNIT_COUNT, advised, "readahead hints"),
    ROW(UNIT_COUNT, queued, "waiting now"),
    ROW(UNIT_COUNT, fetch_depth, "at once, of those nobody waits for"),
    ROW(UNIT_COUNT, failed_fills, "failed"),
    ROW(UNIT_COUNT, changed_fills, "changed meanwhile"),
    ROW(UNIT_COUNT, refused_fills, "without room"),
    ROW(UNIT_TIME, fetch_mean_ns, "time, mean"),
    ROW(UNIT_TIME, fetch_p50_ns, "time, half of them"),
    ROW(UNIT_TIME, fetch_p90_ns, "time, 90 % of them"),
    ROW(UNIT_TIME, fetch_p99_ns, "time, 99 % of them"),
    HEAD("Copies"),
    ROW(UNIT_COUNT, packed, "compressed"),
    ROW(UNIT_COUNT, unpacked, "inflated"),
    ROW(UNIT_COUNT, incompressible, "incompressible"),
    ROW(UNIT_COUNT, evicted, "evicted"),
    PART(UNIT_COUNT, evicted_unused, evicted, "  never used"),
    ROW(UNIT_BYTES, evicted_unused_bytes, "  never used, data"),
    ROW(UNIT_COUNT, invalidated, "dropped as stale"),
    ROW(UNIT_COUNT, corrupt, "dropped as damaged"),
    HEAD("Tree"),
    ROW(UNIT_COUNT, inodes, "files and folders known"),
    HEAD("Changes of the source"),
    ROW(UNIT_COUNT, events, "events heard"),
    ROW(UNIT_COUNT, overflows, "times that some were lost"),
    ROW(UNIT_COUNT, unwatched, "file systems or folders not watched"),
    ROW(UNIT_COUNT, invalidated_names, "names dropped"),
    ROW(UNIT_COUNT, invalidated_files, "files dropped"),
    ROW(UNIT_COUNT, syncs, "syncs"),
    ROW(UNIT_COUNT, leases, "names under lease"),
};

#define DISK_ROW(unit, field, label) ROW_OF(stagefs_disk_request, unit, field, label)

static const struct row disk_rows[] = {
    HEAD("On disk"),
    DISK_ROW(UNIT_COUNT, entries, "copies"),
    PART_OF(stagefs_disk_request, UNIT_BYTES, used_bytes, limit_bytes, "taken"),
    DISK_ROW(UNIT_BYTES, limit_bytes, "  limit"),
    DISK_ROW(UNIT_COUNT, hits, "taken from there"),
    DISK_ROW(UNIT_BYTES, hit_bytes, "  data"),
    DISK_ROW(UNIT_COUNT, written, "written"),
    DISK_ROW(UNIT_BYTES, written_bytes, "  data"),
    DISK_ROW(UNIT_BYTES, queued_bytes, "  still to be written"),
    DISK_ROW(UNIT_COUNT, overrun, "  not kept up with"),
    DISK_ROW(UNIT_COUNT, evicted, "evicted"),
    DISK_ROW(UNIT_COUNT, corrupt, "dropped as damaged"),
    DISK_ROW(UNIT_BYTES, large_bytes, "large files beside them"),
    DISK_ROW(UNIT_COUNT, large_passed, "  passed through"),
    DISK_ROW(UNIT_COUNT, folders_taken, "folders taken from there"),
    DISK_ROW(UNIT_COUNT, folders_written, "  written"),
};

/* By enum stagefs_protocol_disk_state: in JSON, and for people. */
static const char *const disk_states[] = {"open", "full", "failed"};
static const char *const disk_states_text[] = {
    NULL,
    "the disk is full: nothing is written",
    "it failed, and is not used: stagectl doctor checks it",
};

/* By enum stagefs_protocol_serve: in JSON, and for people after "served". */
static const char *const serves[] = {"daemon", "passthrough", "pagecache"};
static const char *const serves_text[] = {
    "by the daemon",
    "through kernel passthrough",
    "from the kernel's page cache",
};

/* By enum stagefs_protocol_coherence. */
static const char *const coherences[] = {"watch", "ttl", "strict", "frozen"};

#define WORD(words, index) word(words, sizeof(words) / sizeof(*(words)), index)
#define ROWS (sizeof(rows) / sizeof(*rows))
#define DISK_ROWS (sizeof(disk_rows) / sizeof(*disk_rows))

static uint64_t value_at(const void *request, size_t offset) {
    uint64_t value;

    memcpy(&value, (const char *)request + offset, sizeof(value));
    return value;
}

/* A mount of a later version may know more of them. */
static const char *word(const char *const *words, size_t count, uint64_t index) {
    return index < count ? words[index] : "?";
}

/* The part of what staging was to serve that was there; below 0 where there was nothing yet. */
static double hit_rate(const struct stagefs_stats_request *stats) {
    uint64_t hits = stats->hot_hits + stats->cold_hits;

    return hits + stats->misses ? (double)hits / (double)(hits + stats->misses) : -1;
}

/* ---- predictors ---- */

#define PREDICTORS_MAX 16

struct predictors {
    struct stagefs_predict_request all[PREDICTORS_MAX];
    unsigned count;
};

/* None of a mount that does not stage. */
static void ask_predictors(int fd, struct predictors *predictors) {
    predictors->count = 0;
    while (predictors->count < PREDICTORS_MAX) {
        struct stagefs_predict_request *one = &predictors->all[predictors->count];

        *one = (struct stagefs_predict_request){.version = STAGEFS_PROTOCOL_VERSION,
                                                .index = predictors->count};
        if (stg_ctl_ask(fd, STAGEFS_IOC_PREDICT, one))
            break;
        one->name[sizeof(one->name) - 1] = '\0';
        predictors->count++;
    }
}

static void write_fraction(struct stg_json *json, const char *name, uint64_t part, uint64_t whole) {
    if (whole)
        stg_json_fraction(json, name, (double)part / (double)whole);
    else
        stg_json_text(json, name, NULL);
}

static void write_predictor_json(struct stg_json *json, const struct stagefs_predict_request *one) {
    stg_json_begin(json, one->name, '{');
    stg_json_bool(json, "enabled", one->flags & STAGEFS_PREDICTOR_ENABLED);
    stg_json_bool(json, "throttled", one->flags & STAGEFS_PREDICTOR_THROTTLED);
    stg_json_number(json, "files", one->files);
    stg_json_number(json, "bytes", one->bytes);
    stg_json_number(json, "used_files", one->used_files);
    stg_json_number(json, "unused_bytes",
                    one->bytes > one->used_bytes ? one->bytes - one->used_bytes : 0);
    stg_json_number(json, "opened_files", one->opened_files);
    stg_json_number(json, "skipped", one->skipped);
    write_fraction(json, "precision", one->used_files, one->files);
    write_fraction(json, "recall", one->used_files, one->opened_files);
    stg_json_end(json, '}');
}

static void write_predictor(const struct stagefs_predict_request *one) {
    char count[STG_CTL_NUMBER_BYTES];
    char label[STAGEFS_PREDICTOR_BYTES + 16];

    if (!(one->flags & STAGEFS_PREDICTOR_ENABLED))
        return;
    (void)snprintf(label, sizeof(label), "by %s%s", one->name,
                   one->flags & STAGEFS_PREDICTOR_THROTTLED ? ", throttled" : "");
    (void)snprintf(count, sizeof(count), "%" PRIu64, one->files);
    printf("  %-26s %14s\n", label, count);
    (void)snprintf(count, sizeof(count), "%" PRIu64, one->used_files);
    printf("  %-26s %14s", "  read afterwards", count);
    if (one->files)
        printf("  %5.1f %%", 100.0 * (double)one->used_files / (double)one->files);
    (void)stg_ctl_bytes(one->bytes > one->used_bytes ? one->bytes - one->used_bytes : 0, count);
    printf("\n  %-26s %14s\n", "  not read, so far", count);
    (void)snprintf(count, sizeof(count), "%" PRIu64, one->skipped);
    printf("  %-26s %14s\n", "  not followed", count);
}

/* `disk` is NULL where nothing is kept on disk, here and below. */
static void write_json(const char *mount, const struct stagefs_stats_request *stats,
                       const struct predictors *predictors,
                       const struct stagefs_disk_request *disk) {
    struct stg_json json = {.stream = stdout};

    stg_json_begin(&json, NULL, '{');
    stg_json_text(&json, "mount", mount);
    stg_json_text(&json, "serve", WORD(serves, stats->serve));
    stg_json_text(&json, "serve_why", *stats->serve_why ? stats->serve_why : NULL);
    stg_json_text(&json, "coherence", WORD(coherences, stats->coherence));
    if (hit_rate(stats) < 0)
        stg_json_text(&json, "hit_rate", NULL);
    else
        stg_json_fraction(&json, "hit_rate", hit_rate(stats));
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].name)
            stg_json_number(&json, rows[i].name, value_at(stats, rows[i].offset));
    if (disk) {
        stg_json_begin(&json, "disk", '{');
        stg_json_text(&json, "state", WORD(disk_states, disk->state));
        for (size_t i = 0; i < DISK_ROWS; i++)
            if (disk_rows[i].name)
                stg_json_number(&json, disk_rows[i].name, value_at(disk, disk_rows[i].offset));
        stg_json_end(&json, '}');
    } else {
        stg_json_text(&json, "disk", NULL);
    }
    stg_json_begin(&json, "predictors", '{');
    for (unsigned i = 0; i < predictors->count; i++)
        write_predictor_json(&json, &predictors->all[i]);
    stg_json_end(&json, '}');
    stg_json_end(&json, '}');
    putchar('\n');
}

static void write_row(const struct row *row, const void *request) {
    uint64_t value = value_at(request, row->offset);
    uint64_t whole = row->of ? value_at(request, row->of) : 0;
    char text[STG_CTL_NUMBER_BYTES];

    if (row->unit == UNIT_HEAD) {
        printf("%s\n", row->label);
        return;
    }
    if (row->unit == UNIT_COUNT)
        (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    else if (row->unit == UNIT_BYTES)
        (void)stg_ctl_bytes(value, text);
    else
        (void)stg_ctl_time(value, text);
    printf("  %-26s %14s", row->label, text);
    if (whole)
        printf("  %5.1f %%", 100.0 * (double)value / (double)whole);
    putchar('\n');
}

static void write_text(const char *mount, const struct stagefs_stats_request *stats,
                       const struct predictors *predictors,
                       const struct stagefs_disk_request *disk) {
    printf("Mount ");
    stg_ctl_print(mount);
    printf("\n  served %s", WORD(serves_text, stats->serve));
    if (*stats->serve_why) {
        printf(": ");
        stg_ctl_print(stats->serve_why);
    }
    printf("\n  coherence: %s\n", WORD(coherences, stats->coherence));
    if (hit_rate(stats) < 0)
        printf("  %-26s %14s\n", "hit rate", "-");
    else
        printf("  %-26s %12.1f %%\n", "hit rate", 100 * hit_rate(stats));
    for (size_t i = 0; i < ROWS; i++)
        write_row(&rows[i], stats);
    for (size_t i = 0; disk && i < DISK_ROWS; i++)
        write_row(&disk_rows[i], disk);
    if (disk && WORD(disk_states_text, disk->state))
        printf("  %s\n", WORD(disk_states_text, disk->state));
    if (predictors->count)
        printf("Staged ahead\n");
    for (unsigned i = 0; i < predictors->count; i++)
        write_predictor(&predictors->all[i]);
}

int stg_ctl_stats(const struct stg_ctl *ctl) {
    struct predictors predictors;
    struct stagefs_stats_request stats = {.version = STAGEFS_PROTOCOL_VERSION};
    struct stagefs_disk_request disk = {.version = STAGEFS_PROTOCOL_VERSION};
    bool has_disk;
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    int error;

    if (ctl->count > 1)
        return stg_ctl_misused("stats: give one mount");
    fd = stg_ctl_open_mount(ctl->count ? ctl->words[0] : NULL, &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    error = stg_ctl_ask(fd, STAGEFS_IOC_STATS, &stats);
    if (error)
        return stg_ctl_failed(name, -error);
    stats.serve_why[sizeof(stats.serve_why) - 1] = '\0';
    ask_predictors(fd, &predictors);
    has_disk = !stg_ctl_ask(fd, STAGEFS_IOC_DISK, &disk);
    if (ctl->json)
        write_json(name, &stats, &predictors, has_disk ? &disk : NULL);
    else
        write_text(name, &stats, &predictors, has_disk ? &disk : NULL);
    return STG_CTL_OK;
}
