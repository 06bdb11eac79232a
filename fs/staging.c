/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns `inode->staged` and the engine's source.
 *
 * The engine calls back without locks, and these take the io lock; so nothing here calls the engine
 * under it but for what is documented to call nobody back (join).
 */
#include "fs/staging.h"

#include "cache/parallel_read.h"
#include "cache/policy.h"
#include "cache/pressure.h"
#include "cache/residency.h"
#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/follow.h"
#include "fs/iomode.h"
#include "fs/keep.h"
#include "fs/live.h"
#include "fs/predict.h"
#include "fs/ranges.h"
#include "fs/readahead.h"
#include "fs/tier.h"
#include "util/clock.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

/* A source that answers as fast as this is as good as a copy. */
#define LOCAL_NS_PER_FILE 100000
/* After a fetch that failed, so long the source serves without another try. */
#define RETRY_NS INT64_C(1000000000)

/* Of the limits so much is left, however short memory is. */
#define PRESSURE_FLOOR 16

static struct stg_cache *cache;
static struct stg_reader *reader;
static struct stg_pressure *pressure;
static _Atomic uint64_t source_opens;
static _Atomic uint64_t mmap_opens;
static _Atomic uint64_t advised;

/* Of stg_staging_settings those that are not the engine's own. */
static _Atomic int mount_mode;
static _Atomic uint64_t threshold_bytes;
/* What the limits are when memory is not short. */
static _Atomic uint64_t hot_bytes;
static _Atomic uint64_t cold_bytes;
static _Atomic uint64_t pressure_events;

/* ---- looking ---- */

/* Where one that the catalog tells is not the one that the source tells, it is left out. */
struct stg_identity stg_staging_identity(const struct statx *stx) {
    bool counts = !stg_catalog_has_own_numbers();

    return (struct stg_identity){
        .device = counts ? makedev(stx->stx_dev_major, stx->stx_dev_minor) : 0,
        .ino = counts ? stx->stx_ino : 1,
        .size_bytes = (int64_t)stx->stx_size,
        .mtime_ns = stx->stx_mtime.tv_sec * INT64_C(1000000000) + stx->stx_mtime.tv_nsec,
        .ctime_ns = stx->stx_ctime.tv_sec * INT64_C(1000000000) + stx->stx_ctime.tv_nsec,
    };
}

/* The inode's object, referenced; NULL where it has none. */
static struct stg_object *object_of(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *object = NULL;

    if (!inode->staged)
        return NULL; /* most files of a local source, which cost no lock for that */
    stg_lock_take(lock);
    if (inode->staged->object) {
        object = inode->staged->object;
        stg_object_ref(cache, object);
    }
    stg_lock_drop(lock);
    return object;
}

void stg_staging_unref(struct stg_object *object) { stg_object_unref(cache, object); }

/*
 * The source is seen to be `now`: is the copy still of that? One in use is made so, which `follow`
 * waits for, whoever does it and however long it takes.
 */
static void compare(struct stg_object *object, const struct stg_identity *now, bool follow) {
    (void)stg_object_validate(cache, object, now); /* the state tells */
    if (stg_object_state(cache, object) != STG_STALE)
        return;
    if (follow)
        (void)stg_object_follow(cache, object); /* of what cannot be read, what is there stays */
    else
        stg_follow(object); /* or with the next look */
}

static void saw(struct stg_inode *inode, const struct statx *stx, bool follow) {
    struct stg_identity now;
    struct stg_lock *lock;
    struct stg_object *object;

    if (!stg_inode_is_regular(inode))
        return;
    atomic_store_explicit(&inode->size_bytes, stx->stx_size, memory_order_relaxed);
    if (!cache || !inode->staged)
        return;
    now = stg_staging_identity(stx);
    lock = stg_inode_io_lock(inode);
    stg_lock_take(lock);
    inode->staged->looked_ns = stg_clock_monotonic_ns();
    stg_lock_drop(lock);
    stg_ranges_compare(inode, &now);
    object = object_of(inode);
    if (!object)
        return;
    compare(object, &now, follow);
    stg_object_unref(cache, object);
}

void stg_staging_saw(struct stg_inode *inode, const struct statx *stx) { saw(inode, stx, false); }

bool stg_staging_is_outdated(struct stg_inode *inode) {
    struct stg_object *object;
    bool outdated;

    if (!cache || !stg_inode_is_regular(inode))
        return false;
    object = object_of(inode);
    if (!object)
        return false;
    outdated = stg_object_state(cache, object) == STG_STALE;
    stg_object_unref(cache, object);
    return outdated;
}

static int look_and(struct stg_inode *inode, bool follow) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct statx stx;
    int error;

    if (stg_catalog_attributes(inode, &stx)) {
        saw(inode, &stx, follow);
        return 0;
    }
    error = stg_inode_fd(inode, &lent);
    if (error)
        return error;
    /* A change that the source's own client does not know of yet is to be seen, too. */
    if (statx(lent.fd, "", AT_EMPTY_PATH | (follow ? AT_STATX_FORCE_SYNC : 0), STG_STATX_MASK,
              &stx))
        return -errno;
    saw(inode, &stx, follow);
    return 0;
}

static int look(struct stg_inode *inode) { return look_and(inode, false); }

void stg_staging_recheck(struct stg_inode *inode) {
    if (cache && inode->staged && stg_inode_is_regular(inode) && look_and(inode, true))
        stg_staging_withdraw(inode); /* it is gone, or cannot be looked at */
}

/* Is it known well enough what the source is now? */
static bool is_seen(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool seen;

    stg_lock_take(lock);
    seen = inode->staged && inode->staged->seen.ino &&
           stg_clock_monotonic_ns() - inode->staged->looked_ns <= stg_coherence_recheck_ns(inode);
    stg_lock_drop(lock);
    return seen;
}

/* ---- the source ---- */

static int source_open(void *context, void *key, bool again) {
    int fd = stg_ranges_source_fd(key);

    (void)context;
    if (fd >= 0)
        return fd;
    fd = again ? stg_inode_open(key, O_RDONLY | O_NONBLOCK | O_NOATIME) : -EPERM;
    if (fd == -EPERM)
        fd = stg_inode_open(key, O_RDONLY | O_NONBLOCK);
    if (fd >= 0)
        stg_ranges_lend(key, fd);
    return fd;
}

static int source_identify(void *context, int handle, bool fresh,
                           struct stg_identity *ret_identity) {
    struct statx stx;

    (void)context;
    if (statx(handle, "", AT_EMPTY_PATH | (fresh ? AT_STATX_FORCE_SYNC : AT_STATX_DONT_SYNC),
              STATX_BASIC_STATS, &stx))
        return -errno;
    *ret_identity = stg_staging_identity(&stx);
    return 0;
}

static ssize_t source_read(void *context, int handle, void *buffer, size_t bytes, uint64_t offset) {
    (void)context;
    return stg_reader_read(reader, handle, buffer, bytes, offset);
}

static void source_close(void *context, int handle) {
    (void)context;
    stg_fd_close(handle);
}

static void source_release(void *context, void *key) {
    (void)context;
    stg_inode_unref(key);
}

static void source_withdraw(void *context, void *key, uint64_t number) {
    (void)context;
    stg_io_withdraw_copy(key, number);
}

static void source_press(void *context) {
    (void)context;
    stg_keep_sweep();
}

static void source_absent(void *context, void *key, struct stg_object *object) {
    struct stg_inode *inode = key;
    struct stg_lock *lock = stg_inode_io_lock(inode);

    (void)context;
    stg_lock_take(lock);
    /* The caller has a reference to the object, so neither it nor the inode goes with this. */
    if (inode->staged && inode->staged->object == object) {
        if (stg_object_retire(cache, object))
            inode->staged->object = NULL;
    } else if (inode->staged) {
        stg_ranges_absent_locked(inode, object);
    }
    stg_lock_drop(lock);
    stg_predict_evicted(inode);
}

/* What a small file takes: the mean of the last few, each new one an eighth of it. */
static void source_fetched(void *context, void *key, uint64_t bytes, uint64_t took_ns) {
    _Atomic uint64_t *mean = &((struct stg_inode *)key)->volume->fetch_ns;
    uint64_t before = atomic_load_explicit(mean, memory_order_relaxed);

    (void)context;
    if (bytes <= STG_READAHEAD_KERNEL_BYTES) /* what is lost where two meet here is one sample */
        atomic_store_explicit(mean, before ? before - before / 8 + took_ns / 8 : took_ns,
                              memory_order_relaxed);
}

static void source_content(void *context, void *key, const char *content, uint64_t bytes) {
    (void)context;
    stg_predict_content(key, content, bytes);
}

static int source_known(void *context, void *key, struct stg_identity *ret_identity) {
    struct stg_inode *inode = key;
    struct stg_lock *lock = stg_inode_io_lock(inode);
    int error = is_seen(inode) ? 0 : look(inode);

    (void)context;
    if (error)
        return error;
    stg_lock_take(lock);
    *ret_identity = inode->staged->seen;
    stg_lock_drop(lock);
    return ret_identity->ino ? 0 : -ENOENT; /* somebody changes it just now */
}

static bool source_lasting(void *context, void *key, char *path, bool *ret_numbers_last) {
    (void)context;
    return stg_tier_lasting(key, path, ret_numbers_last);
}

static const struct stg_source source = {
    .ops = &(const struct stg_source_ops){.open = source_open,
                                          .identify = source_identify,
                                          .read = source_read,
                                          .close = source_close,
                                          .fetched = source_fetched,
                                          .content = source_content,
                                          .release = source_release,
                                          .withdraw = source_withdraw,
                                          .press = source_press,
                                          .known = source_known,
                                          .lasting = source_lasting,
                                          .absent = source_absent},
};

/* ---- the engine ---- */

struct stg_cache *stg_staging_cache(void) {
    return cache;
}

static void limit(uint64_t hot, uint64_t cold) { stg_cache_limit(cache, hot, cold); }

static void shrink(void *context, unsigned level) {
    struct stg_cache_usage usage = stg_cache_usage(cache);
    uint64_t hot = atomic_load(&hot_bytes);
    uint64_t cold = atomic_load(&cold_bytes);

    (void)context;
    atomic_fetch_add(&pressure_events, 1);
    limit(stg_pressure_shrunk(usage.hot_limit_bytes, usage.hot_bytes, hot / PRESSURE_FLOOR, level),
          stg_pressure_shrunk(usage.cold_limit_bytes, usage.cold_bytes, cold / PRESSURE_FLOOR,
                              level));
}

static bool relaxed(void *context) {
    struct stg_cache_usage usage = stg_cache_usage(cache);
    uint64_t hot = stg_pressure_regrown(usage.hot_limit_bytes, atomic_load(&hot_bytes));
    uint64_t cold = stg_pressure_regrown(usage.cold_limit_bytes, atomic_load(&cold_bytes));

    (void)context;
    limit(hot, cold);
    return hot < atomic_load(&hot_bytes) || cold < atomic_load(&cold_bytes);
}

static int watch_pressure(void) {
    struct stg_pressure_config config = {.shrink = shrink, .relaxed = relaxed, .root = ""};
    int error = stg_pressure_new(&config, &pressure);

    if (!error)
        stg_debug("memory pressure is watched by %s", stg_pressure_source(pressure));
    return error;
}

int stg_staging_start(void) {
    const struct stg_options *options = &stg_fs.options;
    struct stg_cache_config config = {
        .hot_bytes = options->mem_bytes,
        .cold_bytes = options->compress == STG_COMPRESS_LZ4 ? options->cold_bytes : 0,
        .store_bytes = UINT64_MAX,
        .settle_ns = (int64_t)(options->settle_s * 1e9),
        .compress_level = (int)options->compress_level,
        .fetch_bytes_per_s = options->bandwidth_bytes,
        .workers = options->workers,
        .disk = stg_tier_disk(),
    };

    int error;

    if (options->stage == STG_MODE_NONE)
        return 0;
    atomic_store(&mount_mode, options->stage);
    atomic_store(&threshold_bytes, options->threshold_bytes);
    atomic_store(&hot_bytes, config.hot_bytes);
    atomic_store(&cold_bytes, config.cold_bytes);
    error = stg_reader_new(STG_READER_AUTO, &reader);
    if (!error)
        error = stg_cache_new(&config, &source, &cache);
    if (!error)
        error = stg_keep_start();
    if (!error)
        error = stg_live_start();
    if (!error)
        error = watch_pressure();
    return error;
}

static void drop_copy(struct stg_inode *inode, void *unused) {
    struct stg_object *object = inode->staged ? inode->staged->object : NULL;

    (void)unused;
    stg_ranges_drop(inode);
    if (!object)
        return;
    inode->staged->object = NULL;
    stg_object_free(cache, object);
}

void stg_staging_stop(void) {
    if (!cache)
        return;
    stg_pressure_free(pressure);
    stg_follow_stop();
    stg_cache_stop(cache);
    stg_keep_stop();
    stg_inode_each(drop_copy, NULL);
    stg_cache_free(cache);
    cache = NULL;
    stg_reader_free(reader);
}

/* ---- deciding ---- */

static struct stg_decision decide(struct stg_inode *inode, int mode, bool is_explicit,
                                  int resident_percent) {
    struct stg_facts facts = {
        .mode = (enum stg_mode)(mode < 0 ? atomic_load(&mount_mode) : mode),
        .is_explicit = is_explicit || atomic_load(&mount_mode) != STG_MODE_ADAPTIVE,
        .local = !inode->volume->remote,
        .resident_percent = resident_percent,
        .size_bytes = (int64_t)atomic_load_explicit(&inode->size_bytes, memory_order_relaxed),
        .threshold_bytes = (int64_t)atomic_load(&threshold_bytes),
        .room_bytes = (int64_t)stg_cache_usage(cache).hot_limit_bytes,
        .fetch_ns_per_file = atomic_load_explicit(&inode->volume->fetch_ns, memory_order_relaxed),
        .local_ns_per_file = LOCAL_NS_PER_FILE,
    };

    return stg_policy_decide(&facts);
}

bool stg_staging_is_left_to_kernel(const struct stg_inode *inode) {
    return !cache || (!inode->volume->remote && atomic_load(&mount_mode) == STG_MODE_ADAPTIVE &&
                      !inode->staged &&
                      atomic_load_explicit(&inode->size_bytes, memory_order_relaxed) <=
                          STG_READAHEAD_KERNEL_BYTES);
}

/* Under the io lock. */
static struct stg_staged *staged_locked(struct stg_inode *inode) {
    if (!inode->staged) {
        inode->staged = calloc(1, sizeof(*inode->staged));
        if (inode->staged)
            inode->staged->mode = STG_STAGED_NO_MODE;
    }
    return inode->staged;
}

static uint64_t hash_of(const struct stg_inode *inode) {
    uint64_t hash = stg_hash_u64(inode->ino ^ ((uintptr_t)inode->volume << 8));

    return hash ? hash : 1;
}

/* Where the source may change, who looks at a file waits until its copy in use is what it is. */
#define CHANGING_MAX_BYTES (UINT64_C(16) << 20)

static bool never_changes(void) {
    return stg_fs.options.read_only && stg_fs.options.coherence == STG_COHERENCE_FROZEN;
}

/* Has the disk all of a file that would be staged by range? Then that is its copy. */
static bool is_whole_on_disk(struct stg_inode *inode) {
    uint64_t bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    struct stg_identity now;

    return stg_tier_disk() && stg_fs.passthrough && !stg_cache_has_refused_files(cache) &&
           (never_changes() || bytes <= CHANGING_MAX_BYTES) && stg_io_may_use_copy(inode) &&
           !source_known(NULL, inode, &now) && stg_tier_has_whole(inode, &now);
}

/* The inode's object, made where there is none; referenced. Under the io lock. */
static struct stg_object *make_object_locked(struct stg_inode *inode, bool by_disk) {
    struct stg_staged *staged = inode->staged;

    if (!staged->object) {
        staged->object = stg_object_new(cache, inode, (struct stg_range){0}, hash_of(inode));
        if (!staged->object)
            return NULL;
        if (by_disk)
            stg_object_by_disk(staged->object);
        stg_inode_ref(inode); /* until source_release() */
    }
    stg_object_ref(cache, staged->object);
    return staged->object;
}

/* Has the inode a copy already, and when was it last compared? */
static bool has_copy(struct stg_inode *inode, int64_t *ret_looked_ns) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool has;

    stg_lock_take(lock);
    has = inode->staged && inode->staged->object;
    *ret_looked_ns = has ? inode->staged->looked_ns : 0;
    stg_lock_drop(lock);
    return has;
}

/*
 * Has the source read ahead into its own page cache, once for each file that is known; but for one
 * that is there already. Returns what was decided then.
 */
static struct stg_decision advise(struct stg_inode *inode, int mode, bool is_explicit,
                                  struct stg_decision decision) {
    stg_auto_fd int fd = stg_inode_open(inode, O_RDONLY | O_NONBLOCK | O_NOATIME);
    uint64_t bytes = atomic_load(&threshold_bytes);

    if (fd < 0)
        return decision;
    decision = decide(inode, mode, is_explicit, stg_residency_percent(fd, bytes));
    if (decision.action != STG_ACTION_ADVISE)
        return decision;
    (void)posix_fadvise(fd, 0, (off_t)bytes, POSIX_FADV_WILLNEED); /* a hint and no more */
    atomic_fetch_add(&advised, 1);
    return decision;
}

/*
 * Decides, and gives an object to make a copy with; NULL where that is not wanted. `mode` is what
 * the caller asks for, where it is not STG_STAGED_NO_MODE; `*ret_too_early` says that the last
 * fetch failed a moment ago.
 */
static struct stg_object *begin_copy(struct stg_inode *inode, int mode, bool is_explicit,
                                     bool *ret_too_early, enum stg_action *ret_action) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *object = NULL;
    struct stg_decision decision;
    struct stg_staged *staged;
    bool asked_for = is_explicit;
    bool by_disk;
    bool first;

    stg_lock_take(lock);
    staged = staged_locked(inode);
    if (staged && is_explicit) {
        staged->mode = (int8_t)mode;
        staged->leaving = false;
    }
    *ret_too_early = !staged || (!is_explicit && staged->retry_ns > stg_clock_monotonic_ns());
    mode = staged ? staged->mode : mode;
    first = staged && !staged->why;
    stg_lock_drop(lock);
    if (*ret_too_early)
        return NULL;
    is_explicit = is_explicit || mode >= 0;
    decision = decide(inode, mode, is_explicit, -1);
    if (decision.action == STG_ACTION_ADVISE && decision.mode == STG_MODE_MMAP && !asked_for)
        atomic_fetch_add_explicit(&mmap_opens, 1, memory_order_relaxed);
    if (decision.action == STG_ACTION_ADVISE && (first || asked_for))
        decision = advise(inode, mode, is_explicit, decision);
    by_disk = decision.action == STG_ACTION_RANGES && !asked_for && is_whole_on_disk(inode);
    if (by_disk)
        decision.action = STG_ACTION_COPY;
    stg_lock_take(lock);
    if (first || asked_for || decision.action != STG_ACTION_ADVISE)
        staged->why = decision.why; /* what was found at the advice stays */
    /* Without passthrough nobody could open the copy of a file that is staged whole. */
    if (decision.action == STG_ACTION_COPY && !stg_fs.passthrough)
        decision.action = STG_ACTION_RANGES;
    if (decision.action == STG_ACTION_COPY) {
        if (!staged->object && !by_disk)
            staged->looked_ns = stg_clock_monotonic_ns(); /* the fetch, which comes after, looks */
        object = make_object_locked(inode, by_disk);
    }
    stg_lock_drop(lock);
    *ret_action = decision.action;
    return object;
}

/* Is the file staged by range already? */
static bool has_ranges(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool has;

    stg_lock_take(lock);
    has = inode->staged && inode->staged->ranges;
    stg_lock_drop(lock);
    return has;
}

/* Is there a copy, or a part of one, or is it being made? */
static bool is_there(struct stg_inode *inode) {
    struct stg_object *object = object_of(inode);
    struct stg_staging_view view = {.state = STG_ABSENT};

    if (object) {
        view.state = stg_object_state(cache, object);
        stg_object_unref(cache, object);
    }
    stg_ranges_view(inode, &view);
    return view.state != STG_ABSENT;
}

static int want(struct stg_object *object, enum stg_priority priority, struct stg_waiter *waiter) {
    int result = stg_object_want(cache, object, priority, waiter);

    if (result == -EBUSY) {
        stg_follow(object);
        result = stg_object_want(cache, object, priority, waiter);
    }
    if (result < 0)
        stg_object_unref(cache, object);
    return result;
}

/* Looks at the source where a copy was last compared too long ago. 0 or -errno. */
static int look_if_due(struct stg_inode *inode) {
    int64_t looked_ns;

    if (!has_copy(inode, &looked_ns) ||
        stg_clock_monotonic_ns() - looked_ns <= stg_coherence_recheck_ns(inode))
        return 0;
    return look(inode);
}

int stg_staging_want(struct stg_inode *inode, struct stg_waiter *waiter,
                     struct stg_object **ret_object) {
    struct stg_object *object = NULL;
    enum stg_action action = STG_ACTION_NONE;
    bool too_early = false;
    int error = -EOPNOTSUPP;

    if (stg_io_may_be_staged(inode))
        error = look_if_due(inode);
    if (!error)
        object = object_of(inode);
    stg_predict_wanted(inode,
                       object ? stg_object_state(cache, object) == STG_ABSENT : !has_ranges(inode));
    if (!error && !object)
        object = begin_copy(inode, STG_STAGED_NO_MODE, false, &too_early, &action);
    if (action == STG_ACTION_RANGES && !is_seen(inode))
        error = look(inode);
    if (action == STG_ACTION_RANGES && !error)
        return STG_STAGED_BY_RANGE;
    if (!object) {
        atomic_fetch_add_explicit(&source_opens, 1, memory_order_relaxed);
        return error ? error : too_early ? -EAGAIN : -EOPNOTSUPP;
    }
    *ret_object = object; /* the waiter may be told before this returns */
    return want(object, STG_PRIORITY_WAITING, waiter);
}

void stg_staging_prepare_read(struct stg_inode *inode) {
    struct stg_object *object;

    if (!stg_staging_is_left_to_kernel(inode) &&
        stg_staging_want(inode, NULL, &object) == STG_STAGED_BY_RANGE)
        (void)stg_ranges_open(inode, NULL); /* or the source serves */
}

int stg_staging_stage(struct stg_inode *inode, int mode, struct stg_waiter *waiter,
                      struct stg_object **ret_object) {
    struct stg_object *object;
    enum stg_action action = STG_ACTION_NONE;
    bool too_early;

    if (!cache)
        return -EOPNOTSUPP;
    if (!stg_io_may_be_staged(inode))
        return -EBUSY;
    (void)look_if_due(inode); /* what is wrong with the source, the fetch says */
    object = begin_copy(inode, mode, true, &too_early, &action);
    if (action == STG_ACTION_RANGES && mode != STG_MODE_MMAP && (is_seen(inode) || !look(inode)) &&
        !is_whole_on_disk(inode))
        (void)stg_ranges_prefetch(inode); /* all is there, or comes by what is read */
    if (!object)
        return -EOPNOTSUPP;
    *ret_object = object;
    return want(object, STG_PRIORITY_EXPLICIT, waiter);
}

/* The mode that was asked for the file, or STG_STAGED_NO_MODE. */
static int own_mode(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    int mode;

    stg_lock_take(lock);
    mode = inode->staged ? inode->staged->mode : STG_STAGED_NO_MODE;
    stg_lock_drop(lock);
    return mode;
}

bool stg_staging_may_predict(struct stg_inode *inode) {
    uint64_t size_bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    struct stg_decision decision;
    int mode;

    if (!cache || !stg_io_may_be_staged(inode) || size_bytes > atomic_load(&threshold_bytes))
        return false;
    mode = own_mode(inode);
    decision = decide(inode, mode, mode >= 0, -1);
    if (decision.mode == STG_MODE_MMAP) /* by what is read of it */
        return false;
    return (decision.action == STG_ACTION_COPY || decision.action == STG_ACTION_RANGES) &&
           !is_there(inode);
}

bool stg_staging_predict(struct stg_inode *inode) {
    enum stg_action action = STG_ACTION_NONE;
    struct stg_object *object;
    bool too_early;
    bool begun;

    if (!stg_staging_may_predict(inode))
        return false;
    object = begin_copy(inode, STG_STAGED_NO_MODE, false, &too_early, &action);
    if (action == STG_ACTION_RANGES)
        return (is_seen(inode) || !look(inode)) && stg_ranges_prefetch(inode);
    if (!object)
        return false;
    begun = !stg_object_want(cache, object, STG_PRIORITY_PREDICTED, NULL);
    stg_object_unref(cache, object);
    return begun;
}

/* What the inode has is of the past. Its object, referenced; NULL where it has none. */
static struct stg_object *withdraw(struct stg_inode *inode) {
    struct stg_object *object;

    if (!cache || !inode->staged)
        return NULL;
    stg_ranges_drop(inode);
    stg_ranges_unsee(inode); /* what it is now, the next look will tell */
    object = object_of(inode);
    if (object)
        stg_object_invalidate(cache, object);
    return object;
}

/* The same, and that is all. */
static void drop(struct stg_inode *inode) {
    struct stg_object *object = withdraw(inode);

    if (object)
        stg_object_unref(cache, object);
}

void stg_staging_unstage(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    if (inode->staged) {
        inode->staged->mode = STG_STAGED_NO_MODE;
        inode->staged->set = 0;
        inode->staged->retry_ns = 0;
        inode->staged->why = "it was unstaged";
        inode->staged->leaving = true;
    }
    stg_lock_drop(lock);
    stg_keep_sweep(); /* what is held for a mapping that is not there is not in use */
    drop(inode);
}

bool stg_staging_join_set(struct stg_inode *inode, uint32_t set) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_staged *staged;
    bool joined;

    stg_lock_take(lock);
    staged = staged_locked(inode);
    joined = staged && staged->set != set;
    if (joined)
        staged->set = set;
    stg_lock_drop(lock);
    return joined;
}

struct stg_staging_view stg_staging_view(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *object = cache && stg_inode_is_regular(inode) ? object_of(inode) : NULL;
    struct stg_object_view copy = {0};
    struct stg_staging_view view = {.why = "it has not been opened"};
    int mode = STG_STAGED_NO_MODE;

    if (object) {
        copy = stg_object_view(cache, object);
        stg_object_unref(cache, object);
    }
    stg_lock_take(lock);
    view.opens = inode->opens;
    view.served = inode->io_mode == STG_IO_COPY;
    if (inode->staged) {
        view.hits = inode->staged->hits;
        view.set = inode->staged->set;
        view.why = inode->staged->why ? inode->staged->why : view.why;
        mode = inode->staged->mode;
    }
    stg_lock_drop(lock);
    view.state = copy.state;
    view.staged_bytes = copy.staged_bytes;
    if (cache)
        stg_ranges_view(inode, &view);
    view.size_bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    if (!cache)
        view.why = "the mount stages nothing";
    else if (stg_staging_is_left_to_kernel(inode))
        view.why = "small, on a local source: the kernel reads it in one go";
    view.mode = cache ? decide(inode, mode, mode >= 0, -1).mode : STG_MODE_NONE;
    return view;
}

struct stg_staging_settings stg_staging_settings(void) {
    return (struct stg_staging_settings){.mode = (enum stg_mode)atomic_load(&mount_mode),
                                         .threshold_bytes = atomic_load(&threshold_bytes),
                                         .hot_bytes = atomic_load(&hot_bytes),
                                         .cold_bytes = atomic_load(&cold_bytes)};
}

void stg_staging_set(const struct stg_staging_settings *settings) {
    atomic_store(&mount_mode, settings->mode);
    atomic_store(&threshold_bytes, settings->threshold_bytes);
    atomic_store(&hot_bytes, settings->hot_bytes);
    atomic_store(&cold_bytes, settings->cold_bytes);
    limit(settings->hot_bytes, settings->cold_bytes);
}

uint64_t stg_staging_source_opens(void) { return atomic_load(&source_opens); }

uint64_t stg_staging_mmap_opens(void) { return atomic_load(&mmap_opens); }

uint64_t stg_staging_pressure_events(void) { return atomic_load(&pressure_events); }

uint64_t stg_staging_advised(void) { return atomic_load(&advised); }

bool stg_staging_may_park(void) { return stg_fs.options.uring != STG_URING_ON; }

void stg_staging_served(struct stg_inode *inode, int error) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    if (!error)
        inode->staged->hits++;
    else if (error != -ESTALE && error != -EBUSY && error != -ENODATA)
        inode->staged->retry_ns = stg_clock_monotonic_ns() + RETRY_NS;
    stg_lock_drop(lock);
}

bool stg_staging_is_of_source(int error) {
    switch (error) {
    case 0:
    case -ESTALE:
    case -EBUSY:
    case -ENOSPC:
    case -EFBIG:
    case -ENODATA:
    case -ENOMEM:
    case -ECANCELED:
        return false;
    default:
        return true;
    }
}

/* ---- changes ---- */

void stg_staging_changed(struct stg_inode *inode) {
    struct stg_object *object = withdraw(inode);

    stg_tier_changed(inode);

    /* One that is in use is made current: who has it open or mapped sees the change. */
    if (!object)
        return;
    (void)stg_object_follow(cache, object); /* of what cannot be read, what is there stays */
    stg_object_unref(cache, object);
}

void stg_staging_withdraw(struct stg_inode *inode) {
    drop(inode);
    stg_tier_changed(inode);
}

void stg_staging_free(struct stg_inode *inode) {
    if (inode->staged)
        stg_ranges_free(inode->staged);
    free(inode->staged);
    inode->staged = NULL;
}

/* ---- for iomode.c ---- */

int stg_staging_open_copy(const struct stg_copy *copy) {
    return stg_store_open(stg_cache_store(cache), copy, O_PATH);
}

void stg_staging_refused(const struct stg_copy *copy) {
    if (!copy->file || stg_cache_has_refused_files(cache))
        return;
    stg_cache_refuse_files(cache);
    stg_info("files of the stage directory cannot be passed through, and are read instead");
}

bool stg_staged_join_locked(struct stg_inode *inode, bool writing) {
    struct stg_staged *staged = inode->staged;

    bool current = staged->live || stg_object_state(cache, staged->object) == STG_HOT;

    stg_object_join(cache, staged->object, writing);
    staged->live = staged->live || writing;
    return current;
}

void stg_staged_unshare_locked(struct stg_inode *inode) {
    inode->staged->live = false;
    inode->staged->behind = false;
    inode->staged->live_number++;
    stg_object_unshare(cache, inode->staged->object);
}

void stg_staged_put(struct stg_inode *inode) { stg_object_put(cache, inode->staged->object); }
