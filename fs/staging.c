/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns `inode->staged` and the engine's source.
 *
 * The engine calls back without locks, and these take the io lock; so nothing here calls the engine
 * under it but for what is documented to call nobody back (join).
 */
#include "fs/staging.h"

#include "cache/policy.h"
#include "fs/iomode.h"
#include "fs/keep.h"
#include "fs/live.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

/* Files that the kernel's own readahead brings in with the first read. */
#define KERNEL_READAHEAD_BYTES ((uint64_t)128 << 10)
/* A source that answers as fast as this is as good as a copy. */
#define LOCAL_NS_PER_FILE 100000
/* After a fetch that failed, so long the source serves without another try. */
#define RETRY_NS INT64_C(1000000000)

static struct stg_cache *cache;

static int64_t monotonic_ns(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- the source ---- */

static struct stg_identity identity_of(const struct statx *stx) {
    return (struct stg_identity){
        .device = makedev(stx->stx_dev_major, stx->stx_dev_minor),
        .ino = stx->stx_ino,
        .size_bytes = (int64_t)stx->stx_size,
        .mtime_ns = stx->stx_mtime.tv_sec * INT64_C(1000000000) + stx->stx_mtime.tv_nsec,
        .ctime_ns = stx->stx_ctime.tv_sec * INT64_C(1000000000) + stx->stx_ctime.tv_nsec,
    };
}

static int source_open(void *context, void *key, bool again) {
    int fd = again ? stg_inode_open(key, O_RDONLY | O_NONBLOCK | O_NOATIME) : -EPERM;

    (void)context;
    return fd == -EPERM ? stg_inode_open(key, O_RDONLY | O_NONBLOCK) : fd;
}

static int source_identify(void *context, int handle, bool fresh,
                           struct stg_identity *ret_identity) {
    struct statx stx;

    (void)context;
    if (statx(handle, "", AT_EMPTY_PATH | (fresh ? AT_STATX_FORCE_SYNC : AT_STATX_DONT_SYNC),
              STATX_BASIC_STATS, &stx))
        return -errno;
    *ret_identity = identity_of(&stx);
    return 0;
}

static ssize_t source_read(void *context, int handle, void *buffer, size_t bytes, uint64_t offset) {
    ssize_t got = pread(handle, buffer, bytes, (off_t)offset);

    (void)context;
    return got < 0 ? -errno : got;
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

static void source_absent(void *context, void *key) {
    struct stg_inode *inode = key;
    struct stg_lock *lock = stg_inode_io_lock(inode);

    (void)context;
    stg_lock_take(lock);
    /* The caller has a reference to the object, so neither it nor the inode goes with this. */
    if (inode->staged && inode->staged->object && stg_object_retire(cache, inode->staged->object))
        inode->staged->object = NULL;
    stg_lock_drop(lock);
}

/* What a small file takes: the mean of the last few, each new one an eighth of it. */
static void source_fetched(void *context, void *key, uint64_t bytes, uint64_t took_ns) {
    _Atomic uint64_t *mean = &((struct stg_inode *)key)->volume->fetch_ns;
    uint64_t before = atomic_load_explicit(mean, memory_order_relaxed);

    (void)context;
    if (bytes <= KERNEL_READAHEAD_BYTES) /* what is lost where two meet here is one sample */
        atomic_store_explicit(mean, before ? before - before / 8 + took_ns / 8 : took_ns,
                              memory_order_relaxed);
}

static const struct stg_source source = {
    .ops = &(const struct stg_source_ops){.open = source_open,
                                          .identify = source_identify,
                                          .read = source_read,
                                          .close = source_close,
                                          .fetched = source_fetched,
                                          .release = source_release,
                                          .withdraw = source_withdraw,
                                          .absent = source_absent},
};

/* ---- the engine ---- */

struct stg_cache *stg_staging_cache(void) {
    return cache;
}

int stg_staging_start(void) {
    const struct stg_options *options = &stg_fs.options;
    struct stg_cache_config config = {
        .hot_bytes = options->mem_bytes,
        .cold_bytes = options->compress == STG_COMPRESS_LZ4 ? options->cold_bytes : 0,
        .store_bytes = UINT64_MAX,
        .file_bytes = options->mem_bytes,
        .settle_ns = (int64_t)(options->settle_s * 1e9),
        .compress_level = (int)options->compress_level,
        .workers = options->workers,
    };

    int error;

    if (options->stage == STG_MODE_NONE)
        return 0;
    error = stg_cache_new(&config, &source, &cache);
    return error ? error : stg_keep_start();
}

static void drop_copy(struct stg_inode *inode, void *unused) {
    struct stg_object *object = inode->staged ? inode->staged->object : NULL;

    (void)unused;
    if (!object)
        return;
    inode->staged->object = NULL;
    stg_object_free(cache, object);
}

void stg_staging_stop(void) {
    if (!cache)
        return;
    stg_cache_stop(cache);
    stg_keep_stop();
    stg_inode_each(drop_copy, NULL);
    stg_cache_free(cache);
    cache = NULL;
}

/* ---- looking ---- */

/* The inode's object, referenced; NULL where it has none. */
static struct stg_object *object_of(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *object = NULL;

    stg_lock_take(lock);
    if (inode->staged && inode->staged->object) {
        object = inode->staged->object;
        stg_object_ref(cache, object);
    }
    stg_lock_drop(lock);
    return object;
}

void stg_staging_unref(struct stg_object *object) { stg_object_unref(cache, object); }

/* The source is seen to be `now`: is the copy still of that? One in use is made so. */
static void compare(struct stg_object *object, const struct stg_identity *now) {
    if (stg_object_validate(cache, object, now) && stg_object_state(cache, object) != STG_STALE)
        return;
    if (stg_object_state(cache, object) == STG_STALE)
        (void)stg_object_refresh(cache, object, false); /* or with the next look */
}

void stg_staging_saw(struct stg_inode *inode, const struct statx *stx) {
    struct stg_identity now;
    struct stg_lock *lock;
    struct stg_object *object;

    if (!cache || !stg_inode_is_regular(inode))
        return;
    atomic_store_explicit(&inode->size_bytes, stx->stx_size, memory_order_relaxed);
    object = object_of(inode);
    if (!object)
        return;
    now = identity_of(stx);
    lock = stg_inode_io_lock(inode);
    stg_lock_take(lock);
    inode->staged->looked_ns = monotonic_ns();
    stg_lock_drop(lock);
    compare(object, &now);
    stg_object_unref(cache, object);
}

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

static int look(struct stg_inode *inode) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct statx stx;
    int error = stg_inode_fd(inode, &lent);

    if (error)
        return error;
    if (statx(lent.fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx))
        return -errno;
    stg_staging_saw(inode, &stx);
    return 0;
}

/* ---- deciding ---- */

static struct stg_decision decide(struct stg_inode *inode, int mode, bool is_explicit) {
    struct stg_facts facts = {
        .mode = mode < 0 ? stg_fs.options.stage : (enum stg_mode)mode,
        .is_explicit = is_explicit || stg_fs.options.stage != STG_MODE_ADAPTIVE,
        .local = !inode->volume->remote,
        .resident_percent = -1,
        .size_bytes = (int64_t)atomic_load_explicit(&inode->size_bytes, memory_order_relaxed),
        .threshold_bytes = (int64_t)stg_fs.options.threshold_bytes,
        .room_bytes = (int64_t)stg_cache_usage(cache).hot_limit_bytes,
        .fetch_ns_per_file = atomic_load_explicit(&inode->volume->fetch_ns, memory_order_relaxed),
        .local_ns_per_file = LOCAL_NS_PER_FILE,
    };

    return stg_policy_decide(&facts);
}

/* A local file with nothing asked for it: there the kernel does what is to be done. */
static bool is_left_to_kernel(const struct stg_inode *inode) {
    return !inode->volume->remote && stg_fs.options.stage == STG_MODE_ADAPTIVE && !inode->staged &&
           atomic_load_explicit(&inode->size_bytes, memory_order_relaxed) <= KERNEL_READAHEAD_BYTES;
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

/* The inode's object, made where there is none; referenced. Under the io lock. */
static struct stg_object *make_object_locked(struct stg_inode *inode) {
    struct stg_staged *staged = inode->staged;

    if (!staged->object) {
        staged->object = stg_object_new(cache, inode, (struct stg_range){0}, hash_of(inode));
        if (!staged->object)
            return NULL;
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

/* An object to make a copy with, or NULL where that is not wanted. */
static struct stg_object *begin_copy(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *object = NULL;
    struct stg_decision decision;
    struct stg_staged *staged;
    bool too_early;
    int mode;

    stg_lock_take(lock);
    staged = staged_locked(inode);
    mode = staged ? staged->mode : 0;
    too_early = !staged || staged->retry_ns > monotonic_ns();
    stg_lock_drop(lock);
    if (too_early)
        return NULL;
    decision = decide(inode, mode, mode >= 0);
    stg_lock_take(lock);
    staged->why = decision.why;
    if (decision.action == STG_ACTION_COPY) {
        if (!staged->object)
            staged->looked_ns = monotonic_ns(); /* the fetch, which comes after, looks */
        object = make_object_locked(inode);
    }
    stg_lock_drop(lock);
    return object;
}

int stg_staging_want(struct stg_inode *inode, struct stg_waiter *waiter,
                     struct stg_object **ret_object) {
    struct stg_object *object;
    int64_t looked_ns;
    int result;

    if (!cache || !stg_fs.passthrough || is_left_to_kernel(inode) || !stg_io_may_be_staged(inode))
        return -EOPNOTSUPP;
    if (has_copy(inode, &looked_ns) &&
        monotonic_ns() - looked_ns > (int64_t)(stg_fs.options.attr_timeout_s * 1e9) &&
        (result = look(inode)))
        return result;
    object = object_of(inode);
    if (!object)
        object = begin_copy(inode);
    if (!object)
        return -EOPNOTSUPP;
    *ret_object = object; /* the waiter may be told before this returns */
    result = stg_object_want(cache, object, STG_PRIORITY_WAITING, waiter);
    if (result == -EBUSY && !stg_object_refresh(cache, object, false))
        result = stg_object_want(cache, object, STG_PRIORITY_WAITING, waiter);
    if (result < 0)
        stg_object_unref(cache, object);
    return result;
}

void stg_staging_served(struct stg_inode *inode, int error) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    if (!error)
        inode->staged->hits++;
    else if (error != -ESTALE && error != -EBUSY)
        inode->staged->retry_ns = monotonic_ns() + RETRY_NS;
    stg_lock_drop(lock);
}

/* ---- changes ---- */

void stg_staging_changed(struct stg_inode *inode) {
    struct stg_object *object;

    if (!cache || !stg_inode_is_regular(inode))
        return;
    object = object_of(inode);
    if (!object)
        return;
    stg_object_invalidate(cache, object);
    /* One that is in use is made current: who has it open or mapped sees the change. */
    if (stg_object_state(cache, object) == STG_STALE)
        (void)stg_object_refresh(cache, object, false); /* or with the next look */
    stg_object_unref(cache, object);
}

void stg_staging_withdraw(struct stg_inode *inode) {
    struct stg_object *object = cache ? object_of(inode) : NULL;

    if (!object)
        return;
    stg_object_invalidate(cache, object);
    stg_object_unref(cache, object);
}

void stg_staging_free(struct stg_inode *inode) {
    free(inode->staged);
    inode->staged = NULL;
}

/* ---- for iomode.c ---- */

int stg_staging_open_copy(const struct stg_copy *copy) {
    return stg_store_open(stg_cache_store(cache), copy, O_PATH);
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
    stg_object_unshare(cache, inode->staged->object);
}

void stg_staged_put(struct stg_inode *inode) { stg_object_put(cache, inode->staged->object); }
