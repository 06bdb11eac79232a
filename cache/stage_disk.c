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

#include <limits.h>

#define SECOND_NS INT64_C(1000000000)
/* Of a source whose times are whole seconds, two changes within one are told apart after that. */
#define COARSE_SETTLE_NS (2 * SECOND_NS)
/* Who opens a large file waits so long at most for that to be looked through. */
#define LOOK_NS INT64_C(300000000)
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
    int64_t until_ns = object->by_disk ? stg_clock_monotonic_ns() + LOOK_NS : 0;
    struct stg_disk_whole whole;
    struct stg_disk_name name;
    struct stg_identity now;
    char path[PATH_MAX];

    if (!cache->config.disk || object->range.bytes || !stg_store_has_files(cache->store) ||
        source->ops->known(source->context, object->key, &now) ||
        !name_it(cache, object, &now, path, &name) ||
        (!object->by_disk && name.bytes <= STG_DISK_ENTRY_MAX_BYTES) ||
        stg_disk_take_whole(cache->config.disk, &name, until_ns, &whole))
        return false;
    *ret_copy = stg_store_adopt(cache->store, whole.fd, whole.number, name.bytes);
    *ret_filled = (struct stg_filled){.identity = now, .bytes = name.bytes};
    if (stg_reclaim_take_in(cache, ret_copy))
        return true;
    stg_disk_release_whole(cache->config.disk, whole.number);
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

/* Copies the file, as long as it is now, over what the copy has. 0 or -errno. */
static int copy_over(struct stg_cache *cache, struct stg_object *object, int handle,
                     struct stg_filled *filled) {
    const struct stg_source *source = cache->source;
    stg_auto_free char *part = malloc(PART_BYTES);
    uint64_t done = 0;
    ssize_t got = 1;
    int error = part ? 0 : -ENOMEM;

    while (!error && got) {
        got = source->ops->read(source->context, handle, part, PART_BYTES, done);
        if (got == -EINTR)
            continue;
        error = got < 0 ? (int)got
                        : stg_store_write(cache->store, &object->copy, part, (uint64_t)got, done);
        if (!error)
            done += (uint64_t)got;
    }
    if (!error)
        error = stg_store_truncate(cache->store, &object->copy, done);
    filled->bytes = done;
    return error;
}

int stg_stage_rewrite_file(struct stg_cache *cache, struct stg_object *object, bool may_mix,
                           struct stg_filled *ret_filled) {
    const struct stg_source *source = cache->source;
    struct stg_filled filled = {0};
    struct stg_identity after;
    int handle = source->ops->open(source->context, object->key, true);
    int error;

    if (handle < 0)
        return handle;
    stg_stage_leave_disk(cache, &object->copy);
    error = source->ops->identify(source->context, handle, may_mix, &filled.identity);
    if (!error)
        error = copy_over(cache, object, handle, &filled);
    if (!error)
        error = source->ops->identify(source->context, handle, true, &after);
    source->ops->close(source->context, handle);
    filled.mixed = !error && (!stg_identity_equal(&filled.identity, &after) ||
                              filled.bytes != (uint64_t)after.size_bytes);
    *ret_filled = filled;
    return error ? error : filled.mixed && !may_mix ? -ESTALE : 0;
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
