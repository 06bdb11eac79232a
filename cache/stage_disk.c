/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns what is between the engine and copies on disk: which may be taken instead of a fetch, and
 * which are kept after one.
 *
 * What is taken is of the version that the file is known to be now, as recently as the mount's
 * rules ask of a copy in memory; what becomes known while it is being taken is compared with it
 * like with a fetch.
 */
#include "cache/disk.h"
#include "cache/stage_impl.h"

#include <limits.h>

#define SECOND_NS INT64_C(1000000000)
/* Of a source whose times are whole seconds, two changes within one are told apart after that. */
#define COARSE_SETTLE_NS (2 * SECOND_NS)

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
    return ret_name->bytes <= STG_DISK_ENTRY_MAX_BYTES;
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
    content = stg_disk_get(cache->config.disk, &name);
    if (!content)
        return false;
    *ret_filled = (struct stg_filled){.identity = now, .content = content, .bytes = name.bytes};
    if (source->ops->content && !object->range.offset)
        source->ops->content(source->context, object->key, content, name.bytes);
    return true;
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
