/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the form of requests: checks every field before anything is done, and answers. What is done
 * is job.c's and staging.c's affair.
 */
#include "fs/control.h"

#include "fs/catalog.h"
#include "fs/creds.h"
#include "fs/coherence.h"
#include "fs/job.h"
#include "fs/lease.h"
#include "fs/notify.h"
#include "fs/reply.h"
#include "fs/predict.h"
#include "fs/predict_profile.h"
#include "fs/record.h"
#include "fs/staging.h"
#include "fs/sync.h"
#include "fs/tier.h"
#include "fs/watch.h"
#include "util/cleanup.h"

#include <stdio.h>
#include <string.h>

#define ATTRIBUTES "user.stagefs."

bool stg_control_is_ours(unsigned int command) { return _IOC_TYPE(command) == STAGEFS_IOC_TYPE; }

static bool is_text(const char *text, size_t room) { return memchr(text, '\0', room) != NULL; }

/* Paths, each with its NUL, and none empty. */
static bool are_names(const char *names, size_t bytes) {
    if (bytes > STAGEFS_NAMES_BYTES || (bytes && names[bytes - 1]))
        return false;
    for (size_t at = 0; at < bytes; at += strlen(names + at) + 1)
        if (!names[at] || strlen(names + at) >= STAGEFS_NAME_BYTES)
            return false;
    return true;
}

static bool is_owner(const struct stg_caller *caller) {
    return !caller->uid || caller->uid == stg_fs.daemon_uid;
}

/* ---- staging ---- */

static int check_stage(const struct stagefs_stage_request *request, bool staging) {
    bool good = !(request->flags & ~STAGEFS_RECURSIVE) && !request->reserved &&
                is_text(request->set, sizeof(request->set)) &&
                are_names(request->names, request->names_bytes);

    if (staging)
        good = good && request->mode <= STAGEFS_MODE_DEFAULT;
    else
        good = good && !request->mode && (!*request->set || !request->names_bytes);
    return good ? 0 : -EINVAL;
}

/* What is about the descriptor's own file must be allowed to whoever has it. */
static int check_own(struct stg_inode *inode, const struct stg_caller *caller) {
    struct stg_inode *found;
    int error = stg_job_find(inode, "", caller, &found);

    if (!error)
        stg_inode_forget(found, 1);
    return error;
}

static int stage(struct stg_inode *inode, const struct stg_caller *caller,
                 struct stagefs_stage_request *request, bool staging) {
    struct stg_job_order order = {
        .kind = staging ? STG_JOB_STAGE : STG_JOB_UNSTAGE,
        .mode = request->mode == STAGEFS_MODE_DEFAULT ? STG_STAGED_NO_MODE : (int)request->mode,
        .recursive = request->flags & STAGEFS_RECURSIVE,
        .set = request->set,
    };
    int error = check_stage(request, staging);

    if (!error && !stg_staging_cache())
        error = -EOPNOTSUPP;
    if (error)
        return error;
    if (!staging && *request->set) {
        int64_t files = stg_job_unstage_set(request->set, caller);

        request->job = 0;
        return files < 0 ? (int)files : 0;
    }
    if (!request->names_bytes)
        error = check_own(inode, caller);
    return error ? error
                 : stg_job_add(inode, caller, &order, request->names, request->names_bytes,
                               &request->job);
}

/* ---- questions ---- */

static int query(struct stg_inode *inode, const struct stg_caller *caller,
                 struct stagefs_query_request *request) {
    struct stg_staging_view view;
    struct stg_inode *found;
    int error = !request->flags && is_text(request->name, sizeof(request->name)) ? 0 : -EINVAL;

    if (!error)
        error = stg_job_find(inode, request->name, caller, &found);
    if (error)
        return error;
    view = stg_staging_view(found);
    stg_inode_forget(found, 1);
    request->mode = view.mode;
    request->state = view.state;
    request->opens = view.opens;
    request->copied = view.served || view.state == STG_HOT || view.state == STG_COLD;
    request->hits = view.hits;
    request->size_bytes = view.size_bytes;
    request->staged_bytes = view.staged_bytes;
    stg_job_set_name(view.set, request->set);
    (void)snprintf(request->why, sizeof(request->why), "%s", view.why); /* cut where longer */
    return 0;
}

static uint64_t coherence_number(void) {
    switch (stg_fs.options.coherence) {
    case STG_COHERENCE_WATCH:
        return STAGEFS_COHERENCE_WATCH;
    case STG_COHERENCE_STRICT:
        return STAGEFS_COHERENCE_STRICT;
    case STG_COHERENCE_FROZEN:
        return STAGEFS_COHERENCE_FROZEN;
    default:
        return STAGEFS_COHERENCE_TTL;
    }
}

static void fill_mount_stats(struct stagefs_stats_request *request) {
    struct stg_watch_stats watch = stg_watch_stats();

    request->version = STAGEFS_PROTOCOL_VERSION;
    request->serve = stg_fs.no_open       ? STAGEFS_SERVE_PAGECACHE
                     : stg_fs.passthrough ? STAGEFS_SERVE_PASSTHROUGH
                                          : STAGEFS_SERVE_DAEMON;
    (void)snprintf(request->serve_why, sizeof(request->serve_why), "%s",
                   stg_fs.serve_why); /* cut where longer */
    request->coherence = coherence_number();
    request->events = watch.events;
    request->overflows = watch.overflows;
    request->unwatched = watch.unwatched;
    request->invalidated_names = stg_notify_count_names();
    request->invalidated_files = stg_notify_count_inodes();
    request->syncs = stg_sync_count();
    request->leases = stg_lease_count();
    request->inodes = stg_inode_count();
}

static void fill_staging_stats(struct stagefs_stats_request *request) {
    struct stg_cache *cache = stg_staging_cache();
    const struct stg_cache_stats *stats = stg_cache_stats(cache);
    struct stg_cache_usage usage = stg_cache_usage(cache);

    *request = (struct stagefs_stats_request){
        .hot_hits = stats->hot_hits,
        .cold_hits = stats->cold_hits,
        .misses = stats->waits,
        .source_opens = stg_staging_source_opens(),
        .prefetch_fills = stats->fills - stats->range_fills,
        .range_fills = stats->range_fills,
        .filled_bytes = stats->filled_bytes,
        .advised = stg_staging_advised(),
        .failed_fills = stats->failed_fills,
        .changed_fills = stats->changed_fills,
        .refused_fills = stats->refused_fills,
        .packed = stats->packed,
        .unpacked = stats->cold_hits,
        .incompressible = stats->incompressible,
        .evicted = stats->evicted,
        .evicted_unused = stats->evicted_unused,
        .evicted_unused_bytes = stats->evicted_unused_bytes,
        .invalidated = stats->invalidated,
        .corrupt = stats->corrupt,
        .hot_bytes = usage.hot_bytes,
        .hot_peak_bytes = usage.hot_peak_bytes,
        .hot_limit_bytes = usage.hot_limit_bytes,
        .cold_bytes = usage.cold_bytes,
        .cold_peak_bytes = usage.cold_peak_bytes,
        .cold_limit_bytes = usage.cold_limit_bytes,
        .cold_raw_bytes = usage.cold_raw_bytes,
        .queued = usage.queued,
        .fetch_depth = usage.fetch_depth,
        .fetch_mean_ns = stg_histogram_mean_ns(&stats->fill_ns),
        .fetch_p50_ns = stg_histogram_percentile_ns(&stats->fill_ns, 50),
        .fetch_p90_ns = stg_histogram_percentile_ns(&stats->fill_ns, 90),
        .fetch_p99_ns = stg_histogram_percentile_ns(&stats->fill_ns, 99),
        .pressure_events = stg_staging_pressure_events(),
        .hot_range_hits = stats->hot_range_hits,
        .range_misses = stats->range_waits,
        .mmap_opens = stg_staging_mmap_opens(),
    };
}

static int ask_predictor(struct stagefs_predict_request *request) {
    struct stg_predict_view view;

    if (!stg_staging_cache())
        return -EOPNOTSUPP;
    if (request->index >= STG_PREDICTORS)
        return -ENOENT;
    view = stg_predict_view((enum stg_predictor)request->index);
    *request = (struct stagefs_predict_request){
        .version = STAGEFS_PROTOCOL_VERSION,
        .index = request->index,
        .flags = (view.enabled ? STAGEFS_PREDICTOR_ENABLED : 0U) |
                 (view.throttled ? STAGEFS_PREDICTOR_THROTTLED : 0U),
        .files = view.files,
        .bytes = view.bytes,
        .used_files = view.used_files,
        .used_bytes = view.used_bytes,
        .opened_files = view.opened_files,
        .skipped = view.skipped,
    };
    (void)snprintf(request->name, sizeof(request->name), "%s", view.name); /* fits */
    return 0;
}

static int ask_disk(struct stagefs_disk_request *request) {
    struct stg_disk_view view;

    if (!stg_tier_disk())
        return -EOPNOTSUPP;
    view = stg_disk_view(stg_tier_disk());
    *request = (struct stagefs_disk_request){
        .version = STAGEFS_PROTOCOL_VERSION,
        .state = view.state == STG_DISK_OPEN   ? STAGEFS_DISK_OPEN
                 : view.state == STG_DISK_FULL ? STAGEFS_DISK_FULL
                                               : STAGEFS_DISK_FAILED,
        .entries = view.entries,
        .used_bytes = view.used_bytes,
        .limit_bytes = view.limit_bytes,
        .hits = view.hits,
        .hit_bytes = view.hit_bytes,
        .written = view.written,
        .written_bytes = view.written_bytes,
        .evicted = view.evicted,
        .overrun = view.overrun,
        .corrupt = view.corrupt,
        .queued_bytes = view.queued_bytes,
        .folders_taken = stg_catalog_taken(),
        .folders_written = stg_catalog_written(),
        .large_bytes = view.large_bytes,
        .large_passed = view.passed,
    };
    return 0;
}

/* ---- profiles ---- */

static int do_record(struct stagefs_record_request *request) {
    ssize_t given;

    switch (request->what) {
    case STAGEFS_RECORD_ASK:
        return request->recording && request->recording != stg_record_view().number ? -ENOENT : 0;
    case STAGEFS_RECORD_START:
        return request->recording ? -EINVAL : stg_record_start(&request->recording);
    case STAGEFS_RECORD_STOP:
        return stg_record_stop(request->recording);
    case STAGEFS_RECORD_READ:
        given = stg_record_text(request->recording, request->offset, request->text,
                                sizeof(request->text));
        request->text_used = given < 0 ? 0 : (uint32_t)given;
        return given < 0 ? (int)given : 0;
    case STAGEFS_RECORD_DROP:
        return stg_record_drop(request->recording);
    default:
        return -EINVAL;
    }
}

static int record(const struct stg_caller *caller, struct stagefs_record_request *request) {
    struct stg_record_view view;
    int error;

    if (!is_owner(caller))
        return -EPERM;
    if (request->what != STAGEFS_RECORD_READ && request->offset)
        return -EINVAL;
    memset(request->text, 0, sizeof(request->text));
    request->text_used = 0;
    error = do_record(request);
    view = stg_record_view();
    request->state = view.state;
    request->recording = view.number;
    request->entries = view.entries;
    request->left_out = view.left_out;
    request->text_bytes = view.text_bytes;
    return error;
}

static int replay(const struct stg_caller *caller, struct stagefs_replay_request *request) {
    struct stg_profile profile = STG_PROFILE_NONE;
    size_t line;
    int error;

    if (!is_owner(caller))
        return -EPERM;
    if ((request->flags & ~STAGEFS_REPLAY_ANEW) || request->reserved ||
        request->text_used > sizeof(request->text))
        return -EINVAL;
    if (!stg_predict_view(STG_PREDICT_PROFILES).enabled)
        return -EOPNOTSUPP;
    error = stg_profile_parse(&profile, request->text, request->text_used, true, &line);
    if (error)
        stg_profile_fini(&profile);
    else
        request->left = stg_profiles_follow(&profile, request->flags & STAGEFS_REPLAY_ANEW);
    return error;
}

/* ---- sync ---- */

static int ask_for_sync(struct stagefs_sync_request *request) {
    if (request->flags || request->reserved)
        return -EINVAL;
    if (!request->ticket) {
        int error = stg_sync_begin(&request->ticket);

        if (error)
            return error;
    } else if (!stg_sync_is_given(request->ticket)) {
        return -EINVAL;
    }
    request->done = stg_sync_is_over(request->ticket);
    return 0;
}

/* ---- settings ---- */

static bool wants_change(const struct stagefs_config_request *request) {
    return request->mode != STAGEFS_MODE_DEFAULT || request->threshold_bytes != UINT64_MAX ||
           request->hot_bytes != UINT64_MAX || request->cold_bytes != UINT64_MAX;
}

static int configure(const struct stg_caller *caller, struct stagefs_config_request *request) {
    static const uint64_t zero[4];
    struct stg_staging_settings settings = stg_staging_settings();

    if (request->mode > STAGEFS_MODE_DEFAULT ||
        memcmp(request->reserved, zero, sizeof(request->reserved)))
        return -EINVAL;
    if (wants_change(request) && !is_owner(caller))
        return -EPERM;
    if (request->mode != STAGEFS_MODE_DEFAULT)
        settings.mode = (enum stg_mode)request->mode;
    if (request->threshold_bytes != UINT64_MAX)
        settings.threshold_bytes = request->threshold_bytes;
    if (request->hot_bytes != UINT64_MAX)
        settings.hot_bytes = request->hot_bytes;
    if (request->cold_bytes != UINT64_MAX)
        settings.cold_bytes = request->cold_bytes;
    if (wants_change(request))
        stg_staging_set(&settings);
    settings = stg_staging_settings();
    request->mode = settings.mode;
    request->threshold_bytes = settings.threshold_bytes;
    request->hot_bytes = settings.hot_bytes;
    request->cold_bytes = settings.cold_bytes;
    return 0;
}

/* ---- advice ---- */

/*
 * On the source's own page cache, which is what is passed through. Sequential reading is read ahead
 * of; what concerns one open file only, as random and normal do, is the kernel's.
 */
static int advise(struct stg_inode *inode, const struct stg_caller *caller,
                  const struct stagefs_advise_request *request) {
    stg_auto_fd int fd = -1;
    int advice;
    int error = request->advice <= STAGEFS_ADVICE_DONTNEED && stg_inode_is_regular(inode) &&
                        request->offset <= INT64_MAX && request->length <= INT64_MAX
                    ? check_own(inode, caller)
                    : -EINVAL;

    if (error || request->advice == STAGEFS_ADVICE_NORMAL ||
        request->advice == STAGEFS_ADVICE_RANDOM)
        return error;
    fd = stg_inode_open(inode, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return fd;
    advice = request->advice == STAGEFS_ADVICE_DONTNEED ? POSIX_FADV_DONTNEED : POSIX_FADV_WILLNEED;
    return -posix_fadvise(fd, (off_t)request->offset, (off_t)request->length, advice);
}

/* ---- ioctl ---- */

union request {
    uint32_t version; /* the first field of each */
    struct stagefs_stage_request stage;
    struct stagefs_job_request job;
    struct stagefs_query_request query;
    struct stagefs_set_request set;
    struct stagefs_stats_request stats;
    struct stagefs_config_request config;
    struct stagefs_advise_request advise;
    struct stagefs_sync_request sync;
    struct stagefs_predict_request predict;
    struct stagefs_record_request record;
    struct stagefs_replay_request replay;
    struct stagefs_disk_request disk;
};

static int serve(struct stg_inode *inode, const struct stg_caller *caller, unsigned int command,
                 union request *request) {
    switch (command) {
    case STAGEFS_IOC_STAGE:
        return stage(inode, caller, &request->stage, true);
    case STAGEFS_IOC_UNSTAGE:
        return stage(inode, caller, &request->stage, false);
    case STAGEFS_IOC_JOB:
        return stg_job_query(caller, &request->job);
    case STAGEFS_IOC_QUERY:
        return query(inode, caller, &request->query);
    case STAGEFS_IOC_SET:
        return is_text(request->set.name, sizeof(request->set.name))
                   ? stg_job_query_set(&request->set)
                   : -EINVAL;
    case STAGEFS_IOC_STATS:
        request->stats = (struct stagefs_stats_request){0};
        if (stg_staging_cache())
            fill_staging_stats(&request->stats);
        fill_mount_stats(&request->stats);
        return 0;
    case STAGEFS_IOC_CONFIG:
        return stg_staging_cache() ? configure(caller, &request->config) : -EOPNOTSUPP;
    case STAGEFS_IOC_ADVISE:
        return advise(inode, caller, &request->advise);
    case STAGEFS_IOC_SYNC:
        return ask_for_sync(&request->sync);
    case STAGEFS_IOC_PREDICT:
        return ask_predictor(&request->predict);
    case STAGEFS_IOC_RECORD:
        return record(caller, &request->record);
    case STAGEFS_IOC_REPLAY:
        return replay(caller, &request->replay);
    case STAGEFS_IOC_DISK:
        return ask_disk(&request->disk);
    default:
        return -EINVAL;
    }
}

void stg_control_ioctl(fuse_req_t req, struct stg_inode *inode, unsigned int command,
                       const void *in_buffer, size_t in_size, size_t out_size) {
    stg_auto_free union request *request = calloc(1, sizeof(*request));
    struct stg_caller caller = {0};
    int error = request ? 0 : -ENOMEM;

    if (!error && (in_size > sizeof(*request) || in_size != _IOC_SIZE(command) ||
                   out_size != in_size || in_size < sizeof(request->version)))
        error = -EINVAL;
    if (!error) {
        memcpy(request, in_buffer, in_size);
        if (request->version != STAGEFS_PROTOCOL_VERSION)
            error = -EINVAL;
    }
    if (!error)
        error = stg_caller_of(req, &caller);
    if (!error)
        error = serve(inode, &caller, command, request);
    stg_caller_fini(&caller);
    if (error)
        stg_reply_result(req, error);
    else
        (void)fuse_reply_ioctl(req, 0, request, out_size); /* nothing to undo */
}

/* ---- attributes ---- */

bool stg_control_is_attribute(const char *name) {
    return !strncmp(name, ATTRIBUTES, strlen(ATTRIBUTES));
}

/* Of folders, as of the mount; for those who may read and write there. */
static ssize_t get_stage_dir(fuse_req_t req, char value[STG_CONTROL_VALUE_BYTES]) {
    uid_t uid = fuse_req_ctx(req)->uid;
    const char *path = stg_tier_path();

    if (!path || (uid && uid != stg_fs.daemon_uid))
        return -ENODATA;
    return snprintf(value, STG_CONTROL_VALUE_BYTES, "%s", path); /* fits: it is one of a file */
}

ssize_t stg_control_get(fuse_req_t req, struct stg_inode *inode, const char *name,
                        char value[STG_CONTROL_VALUE_BYTES]) {
    const char *which = name + strlen(ATTRIBUTES);
    struct stg_staging_view view;
    int length;

    if (!stg_inode_is_regular(inode) && !strcmp(which, "stage_dir"))
        return get_stage_dir(req, value);
    if (!stg_inode_is_regular(inode))
        return -ENODATA;
    view = stg_staging_view(inode);
    if (!strcmp(which, "mode"))
        length = snprintf(value, STG_CONTROL_VALUE_BYTES, "%s", stg_mode_name(view.mode));
    else if (!strcmp(which, "state"))
        length = snprintf(value, STG_CONTROL_VALUE_BYTES, "%s", stg_state_name(view.state));
    else if (!strcmp(which, "hits"))
        length = snprintf(value, STG_CONTROL_VALUE_BYTES, "%ju", (uintmax_t)view.hits);
    else if (!strcmp(which, "source"))
        length = snprintf(value, STG_CONTROL_VALUE_BYTES, "%s", view.served ? "copy" : "source");
    else
        return -ENODATA;
    return length; /* always fits */
}

int stg_control_set(fuse_req_t req, struct stg_inode *inode, const char *name, const char *value,
                    size_t bytes) {
    char word[16];
    struct stg_caller caller;
    struct stg_job_order order = {.kind = STG_JOB_STAGE, .set = ""};
    uint64_t job = 0;
    int error;

    if (strcmp(name, ATTRIBUTES "mode") || !stg_inode_is_regular(inode))
        return -EPERM;
    if (bytes >= sizeof(word))
        return -EINVAL;
    memcpy(word, value, bytes);
    word[bytes] = '\0';
    order.mode = stg_mode_parse(word);
    if (order.mode < 0)
        return -EINVAL;
    if (!stg_staging_cache())
        return -EOPNOTSUPP;
    error = stg_caller_of(req, &caller);
    if (error)
        return error;
    error = check_own(inode, &caller);
    if (!error)
        error = stg_job_add(inode, &caller, &order, NULL, 0, &job);
    stg_caller_fini(&caller);
    return error;
}

int stg_control_remove(struct stg_inode *inode, const char *name) {
    if (strcmp(name, ATTRIBUTES "mode"))
        return -EPERM;
    stg_staging_unstage(inode);
    return 0;
}
