/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the form of folders that are kept. Pure functions on memory. */
#include "cache/folder.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 4096

struct kept_stat {
    uint64_t ino, size, blocks;
    int64_t atime_s, mtime_s, ctime_s;
    uint32_t atime_ns, mtime_ns, ctime_ns;
    uint32_t nlink, uid, gid, rdev_major, rdev_minor, blksize;
    uint16_t mode;
    uint16_t zero;
};

struct head {
    uint32_t format;
    uint32_t count;
    uint64_t tells_absent;
    struct kept_stat self;
};

/* Followed by the name with its NUL, the target with its, and the handle. */
struct kept_entry {
    struct kept_stat stat;
    uint16_t name_bytes; /* without the NUL, as the next */
    uint16_t target_bytes;
    int32_t handle_type;
    uint8_t handle_bytes;
    uint8_t is_known;
    uint8_t has_xattrs;
    uint8_t zero;
};

static struct kept_stat keep(const struct statx *stx) {
    return (struct kept_stat){
        .ino = stx->stx_ino,
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .atime_s = stx->stx_atime.tv_sec,
        .mtime_s = stx->stx_mtime.tv_sec,
        .ctime_s = stx->stx_ctime.tv_sec,
        .atime_ns = stx->stx_atime.tv_nsec,
        .mtime_ns = stx->stx_mtime.tv_nsec,
        .ctime_ns = stx->stx_ctime.tv_nsec,
        .nlink = stx->stx_nlink,
        .uid = stx->stx_uid,
        .gid = stx->stx_gid,
        .rdev_major = stx->stx_rdev_major,
        .rdev_minor = stx->stx_rdev_minor,
        .blksize = stx->stx_blksize,
        .mode = stx->stx_mode,
    };
}

static void give(const struct kept_stat *kept, struct statx *ret_stx) {
    *ret_stx = (struct statx){
        .stx_mask = STATX_BASIC_STATS,
        .stx_ino = kept->ino,
        .stx_size = kept->size,
        .stx_blocks = kept->blocks,
        .stx_atime = {.tv_sec = kept->atime_s, .tv_nsec = kept->atime_ns},
        .stx_mtime = {.tv_sec = kept->mtime_s, .tv_nsec = kept->mtime_ns},
        .stx_ctime = {.tv_sec = kept->ctime_s, .tv_nsec = kept->ctime_ns},
        .stx_nlink = kept->nlink,
        .stx_uid = kept->uid,
        .stx_gid = kept->gid,
        .stx_rdev_major = kept->rdev_major,
        .stx_rdev_minor = kept->rdev_minor,
        .stx_blksize = kept->blksize,
        .stx_mode = kept->mode,
    };
}

/* ---- writing ---- */

static void append(struct stg_folder_writer *writer, const void *bytes, size_t count) {
    size_t room = writer->room ? writer->room : FIRST_ROOM;
    char *more;

    while (room - writer->used < count)
        room *= 2;
    if (!writer->failed && room != writer->room) {
        more = room > STG_FOLDER_MAX_BYTES ? NULL : realloc(writer->bytes, room);
        writer->failed = !more;
        if (more) {
            writer->bytes = more;
            writer->room = room;
        }
    }
    if (writer->failed || !count)
        return;
    memcpy(writer->bytes + writer->used, bytes, count);
    writer->used += count;
}

void stg_folder_begin(struct stg_folder_writer *writer, const struct statx *self) {
    struct head head = {.format = STG_FOLDER_FORMAT, .self = keep(self)};

    *writer = (struct stg_folder_writer){0};
    append(writer, &head, sizeof(head));
}

void stg_folder_add(struct stg_folder_writer *writer, const struct stg_folder_entry *entry) {
    size_t name_bytes = strlen(entry->name);
    size_t target_bytes = strlen(entry->target);
    struct kept_entry kept = {
        .stat = keep(&entry->stx),
        .name_bytes = (uint16_t)name_bytes,
        .target_bytes = (uint16_t)target_bytes,
        .handle_type = entry->handle_type,
        .handle_bytes = entry->handle_bytes,
        .is_known = entry->is_known,
        .has_xattrs = entry->has_xattrs,
    };

    if (name_bytes > NAME_MAX || target_bytes > PATH_MAX || writer->count == UINT32_MAX) {
        writer->failed = true;
        return;
    }
    append(writer, &kept, sizeof(kept));
    append(writer, entry->name, name_bytes + 1);
    append(writer, entry->target, target_bytes + 1);
    append(writer, entry->handle, entry->handle_bytes);
    writer->count++;
}

char *stg_folder_end(struct stg_folder_writer *writer, uint64_t *ret_bytes) {
    struct head head;

    if (writer->failed) {
        free(writer->bytes);
        return NULL;
    }
    memcpy(&head, writer->bytes, sizeof(head));
    head.count = writer->count;
    head.tells_absent = writer->tells_absent;
    memcpy(writer->bytes, &head, sizeof(head));
    *ret_bytes = writer->used;
    return writer->bytes;
}

/* ---- reading ---- */

struct stg_folder {
    char *content; /* owned */
    uint32_t count;
    bool tells_absent;
    uint32_t *offsets; /* of the entries, as they were added */
    uint32_t *sorted;  /* the same by name */
};

static const char *name_at(const struct stg_folder *folder, uint32_t offset) {
    return folder->content + offset + sizeof(struct kept_entry);
}

static int compare_names(const void *a, const void *b, void *folder) {
    return strcmp(name_at(folder, *(const uint32_t *)a), name_at(folder, *(const uint32_t *)b));
}

static bool is_text(const char *at, size_t bytes) {
    return strnlen(at, bytes + 1) == bytes; /* with its NUL just there */
}

/* A name that a folder can have: no path, and not the folder itself. */
static bool is_name(const char *name) {
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The length of the entry there; 0: it is none. `left`: bytes from there on. */
static size_t entry_bytes(const char *at, size_t left) {
    struct kept_entry kept;
    size_t bytes;

    if (left < sizeof(kept))
        return 0;
    memcpy(&kept, at, sizeof(kept));
    bytes = sizeof(kept) + kept.name_bytes + 1 + kept.target_bytes + 1 + kept.handle_bytes;
    if (left < bytes || kept.name_bytes > NAME_MAX || kept.target_bytes > PATH_MAX)
        return 0;
    at += sizeof(kept);
    if (!is_text(at, kept.name_bytes) || !is_name(at) ||
        !is_text(at + kept.name_bytes + 1, kept.target_bytes))
        return 0;
    return bytes;
}

/* Finds where the entries are. 0 or -errno. */
static int parse_entries(struct stg_folder *folder, uint64_t bytes) {
    uint64_t at = sizeof(struct head);

    folder->offsets = reallocarray(NULL, (size_t)folder->count + 1, sizeof(*folder->offsets));
    folder->sorted = reallocarray(NULL, (size_t)folder->count + 1, sizeof(*folder->sorted));
    if (!folder->offsets || !folder->sorted)
        return -ENOMEM;
    for (uint32_t i = 0; i < folder->count; i++) {
        size_t length = entry_bytes(folder->content + at, bytes - at);

        if (!length)
            return -EBADMSG;
        folder->offsets[i] = folder->sorted[i] = (uint32_t)at;
        at += length;
    }
    if (at != bytes)
        return -EBADMSG;
    qsort_r(folder->sorted, folder->count, sizeof(*folder->sorted), compare_names, folder);
    for (uint32_t i = 1; i < folder->count; i++)
        if (!compare_names(&folder->sorted[i - 1], &folder->sorted[i], folder))
            return -EBADMSG;
    return 0;
}

int stg_folder_parse(char *content, uint64_t bytes, struct stg_folder **ret_folder) {
    struct stg_folder *folder = calloc(1, sizeof(*folder));
    struct head head;
    int error = 0;

    if (!folder) {
        free(content);
        return -ENOMEM;
    }
    folder->content = content;
    if (bytes < sizeof(head) || bytes > STG_FOLDER_MAX_BYTES)
        error = -EBADMSG;
    if (!error) {
        memcpy(&head, content, sizeof(head));
        folder->count = head.count;
        folder->tells_absent = head.tells_absent;
        if (head.format != STG_FOLDER_FORMAT || head.count > bytes / sizeof(struct kept_entry))
            error = -EBADMSG;
    }
    if (!error)
        error = parse_entries(folder, bytes);
    if (error)
        stg_folder_free(folder);
    else
        *ret_folder = folder;
    return error;
}

void stg_folder_free(struct stg_folder *folder) {
    if (!folder)
        return;
    free(folder->content);
    free(folder->offsets);
    free(folder->sorted);
    free(folder);
}

bool stg_folder_tells_absent(const struct stg_folder *folder) { return folder->tells_absent; }

size_t stg_folder_count(const struct stg_folder *folder) { return folder->count; }

void stg_folder_self(const struct stg_folder *folder, struct statx *ret_stx) {
    struct head head;

    memcpy(&head, folder->content, sizeof(head));
    give(&head.self, ret_stx);
}

static void read_entry(const struct stg_folder *folder, uint32_t offset,
                       struct stg_folder_entry *ret_entry) {
    struct kept_entry kept;
    const char *name = name_at(folder, offset);
    const char *target;

    memcpy(&kept, folder->content + offset, sizeof(kept));
    target = name + kept.name_bytes + 1;
    *ret_entry = (struct stg_folder_entry){
        .name = name,
        .target = target,
        .handle = target + kept.target_bytes + 1,
        .handle_bytes = kept.handle_bytes,
        .handle_type = kept.handle_type,
        .is_known = kept.is_known,
        .has_xattrs = kept.has_xattrs,
    };
    give(&kept.stat, &ret_entry->stx);
}

void stg_folder_at(const struct stg_folder *folder, size_t index,
                   struct stg_folder_entry *ret_entry) {
    read_entry(folder, folder->offsets[index], ret_entry);
}

bool stg_folder_find(const struct stg_folder *folder, const char *name,
                     struct stg_folder_entry *ret_entry) {
    uint32_t low = 0;
    uint32_t high = folder->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(name, name_at(folder, folder->sorted[middle]));

        if (!order) {
            read_entry(folder, folder->sorted[middle], ret_entry);
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}
