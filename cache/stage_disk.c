/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns what is between the engine and copies on disk: which may be taken instead of a fetch, and
 * which are kept after one.
 *
 * What is taken is of the version that the file is known to be now, as recently as the mount's
 * rules ask of a copy in memory; what becomes known while it is being taken is compared with it
 * like with a fetch.
 *
 * A large file that is on the disk as it is can be the copy itself. It stays one of the disk's
 * until somebody has to write to it, since the source's is another by now and others have it open.
 */
#include "cache/disk.h"
#include "cache/stage_impl.h"

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/io.h"

#include <limits.h>
#include <sys/mman.h>

#define SECOND_NS INT64_C(1000000000)
/* Of a source whose times are whole seconds, two changes within one are told apart after that. */
#define COARSE_SETTLE_NS (2 * SECOND_NS)
/* Who opens a large file waits so long at most for that to be looked through. */
#define LOOK_NS INT64_C(300000000)
#define OTHERWISE_FETCHED 10 /* and so many times as long where it would be fetched whole else */
#define PART_BYTES (UINT64_C(1) << 20)

static bool name_it(struct stg_cache *cache, const struct stg_object *object,
                    const struct stg_identity *now, char path[PATH_MAX],
                    struct stg_disk_name *ret_name) {
    const struct stg_source *source = cache->source;
    uint64_t size_bytes = now->size_bytes < 0 ? 0 : (uint64_t)now->size_bytes;
    bool numbers_last;

    if (object->range.offset >= size_bytes ||
        !source->ops->lasting(source->context, object->key, path, &numbers_last))
        return false;
    *ret_name = (struct stg_disk_name){.path = path,
                                       .now = *now,
                                       .offset = object->range.offset,
                                       .bytes = size_bytes - object->range.offset};
    if (object->range.bytes && ret_name->bytes > object->range.bytes)
        ret_name->bytes = object->range.bytes;
    ret_name->now.device = 0;
    if (!numbers_last)
        ret_name->now.ino = 0;
    return true;
}

bool stg_stage_from_disk(struct stg_cache *cache, const struct stg_object *object,
                         struct stg_filled *ret_filled) {
    const struct stg_source *source = cache->source;
    struct stg_disk_name name;
    struct stg_identity now;
    char path[PATH_MAX];
    char *content;

    if (!cache->config.disk || source->ops->known(source->context, object->key, &now) ||
        !name_it(cache, object, &now, path, &name))
        return false;
    if (name.bytes > STG_DISK_ENTRY_MAX_BYTES)
        return false;
    content = stg_disk_get(cache->config.disk, &name);
    if (!content)
        return false;
    *ret_filled = (struct stg_filled){.identity = now, .content = content, .bytes = name.bytes};
    if (source->ops->content && !object->range.offset)
        source->ops->content(source->context, object->key, content, name.bytes);
    return true;
}

bool stg_stage_adopt(struct stg_cache *cache, const struct stg_object *object,
                     struct stg_copy *ret_copy, struct stg_filled *ret_filled) {
    const struct stg_source *source = cache->source;
    int64_t until_ns =
        stg_clock_monotonic_ns() + (object->by_disk ? LOOK_NS : LOOK_NS * OTHERWISE_FETCHED);
    struct stg_disk_whole whole;
    struct stg_disk_name name;
    struct stg_identity now;
    char path[PATH_MAX];

    if (!cache->config.disk || object->range.bytes || !stg_store_has_files(cache->store) ||
        atomic_load(&cache->files_refused) ||
        source->ops->known(source->context, object->key, &now) ||
        !name_it(cache, object, &now, path, &name) ||
        (!object->by_disk && name.bytes <= STG_DISK_ENTRY_MAX_BYTES) ||
        stg_disk_take_whole(cache->config.disk, &name, until_ns, &whole))
        return false;
    *ret_copy = stg_store_adopt(cache->store, whole.fd, whole.number, name.bytes);
    *ret_filled = (struct stg_filled){.identity = now, .bytes = name.bytes};
    if (stg_reclaim_take_in(cache, ret_copy))
        return true;
    stg_stage_give_back(cache, ret_copy);
    stg_store_drop(cache->store, ret_copy);
    return false;
}

void stg_stage_give_back(struct stg_cache *cache, const struct stg_copy *copy) {
    if (copy->file)
        stg_disk_release_whole(cache->config.disk, copy->beside);
}

void stg_stage_leave_disk(struct stg_cache *cache, const struct stg_copy *copy) {
    if (copy->file)
        stg_disk_leave_whole(cache->config.disk, copy->beside);
}

/* Reads as much as the file had when it was looked at into `to`, or less. 0 or -errno. */
static int read_into(const struct stg_source *source, int handle, int to,
                     struct stg_filled *filled) {
    const uint64_t bytes = (uint64_t)filled->identity.size_bytes;
    stg_auto_free char *part = malloc(PART_BYTES);
    ssize_t got = 1;
    ssize_t put;

    if (!part)
        return -ENOMEM;
    /* One byte more, which is dropped: does the file end there? */
    while (got && filled->bytes <= bytes) {
        got = source->ops->read(source->context, handle, part, PART_BYTES, filled->bytes);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return (int)got;
        put = stg_io_write_whole(to, part, (size_t)got, (off_t)filled->bytes);
        if (put != got)
            return put < 0 ? (int)put : -ENOSPC;
        filled->bytes += (uint64_t)got;
    }
    filled->mixed = filled->bytes != bytes;
    if (filled->bytes > bytes)
        filled->bytes = bytes;
    return 0;
}

/* What the file is now, into `to`. As stg_fill(). */
static int fetch_into(const struct stg_source *source, int handle, int to, uint64_t max_bytes,
                      bool may_mix, struct stg_filled *filled) {
    struct stg_identity after;
    int error = source->ops->identify(source->context, handle, may_mix, &filled->identity);

    if (!error &&
        (filled->identity.size_bytes < 0 || (uint64_t)filled->identity.size_bytes > max_bytes))
        error = -EFBIG;
    if (!error)
        error = read_into(source, handle, to, filled);
    if (!error)
        error = source->ops->identify(source->context, handle, true, &after);
    if (error)
        return error;
    filled->mixed = filled->mixed || !stg_identity_equal(&filled->identity, &after);
    return filled->mixed && !may_mix ? -ESTALE : 0;
}

/* A file that has grown beyond that would fill the disk for the sake of who has it open. */
static uint64_t most_bytes(const struct stg_cache *cache, const struct stg_copy *copy) {
    uint64_t bytes = copy->bytes * 2;

    return bytes > cache->config.hot_bytes ? bytes : cache->config.hot_bytes;
}

/* By way of `scratch`: where the file cannot be read, who has the copy has what it was. */
static int rewrite_by(struct stg_cache *cache, struct stg_object *object, int scratch,
                      uint64_t max_bytes, bool may_mix, struct stg_filled *ret_filled) {
    const struct stg_source *source = cache->source;
    int handle = scratch < 0 ? scratch : source->ops->open(source->context, object->key, true);
    int error;

    if (handle < 0)
        return handle;
    *ret_filled = (struct stg_filled){0};
    error = fetch_into(source, handle, scratch, max_bytes, may_mix, ret_filled);
    source->ops->close(source->context, handle);
    if (error)
        return error;
    stg_stage_leave_disk(cache, &object->copy);
    return stg_store_rewrite_from(cache->store, &object->copy, scratch, ret_filled->bytes);
}

int stg_stage_rewrite_file(struct stg_cache *cache, struct stg_object *object, bool may_mix,
                           struct stg_filled *ret_filled) {
    stg_auto_fd int scratch = stg_disk_scratch(cache->config.disk);
    stg_auto_fd int in_memory = -1;
    int error =
        rewrite_by(cache, object, scratch, most_bytes(cache, &object->copy), may_mix, ret_filled);

    if (scratch >= 0 && error != -ENOSPC && error != -EDQUOT)
        return error;
    stg_fd_close(stg_fd_steal(&scratch)); /* what it has taken is needed */
    in_memory = memfd_create("stagefs-large", MFD_CLOEXEC);
    return rewrite_by(cache, object, in_memory < 0 ? -errno : in_memory, cache->config.hot_bytes,
                      may_mix, ret_filled);
}

static bool is_whole_seconds(int64_t time_ns) { return time_ns % SECOND_NS == 0; }

/* Does a later change show in the identity for certain, for as long as the copy may be kept? */
static bool is_settled(const struct stg_identity *now, int64_t now_ns, int64_t settle_ns) {
    if (is_whole_seconds(now->ctime_ns) && settle_ns < COARSE_SETTLE_NS)
        settle_ns = COARSE_SETTLE_NS;
    return now_ns - now->ctime_ns >= settle_ns;
}

struct stg_stage_begun stg_stage_begin(struct stg_cache *cache) {
    if (!cache->config.disk)
        return (struct stg_stage_begun){0};
    return (struct stg_stage_begun){.now_ns = stg_stage_now_ns(cache),
                                    .forgotten = stg_disk_forgotten(cache->config.disk)};
}

void stg_stage_to_disk(struct stg_cache *cache, const struct stg_object *object,
                       struct stg_stage_begun begun, struct stg_filled *filled) {
    struct stg_disk_name name;
    char path[PATH_MAX];

    if (!cache->config.disk || !filled->content ||
        !is_settled(&filled->identity, begun.now_ns, cache->config.settle_ns) ||
        !name_it(cache, object, &filled->identity, path, &name) || name.bytes != filled->bytes)
        return;
    (void)stg_disk_put(cache->config.disk, &name, filled->content, begun.forgotten);
    filled->content = NULL; /* taken over */
}
