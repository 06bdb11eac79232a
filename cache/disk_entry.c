/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the form of keys and entries. Pure functions on memory. */
#include "cache/codec.h"
#include "cache/disk_impl.h"
#include "util/cleanup.h"

#include <endian.h>
#include <string.h>
#include <xxhash.h>

/* The fastest: what is written is read once and again, and unpacks equally fast at each level. */
#define LEVEL 1

bool stg_disk_key_make(const struct stg_disk_name *name, struct stg_disk_key *ret_key) {
    size_t path_bytes = strlen(name->path) + 1;
    /* The most significant byte first: in the order of the file. */
    uint64_t part[2] = {htobe64(name->offset), htobe64(name->bytes)};

    if (path_bytes - 1 > STG_DISK_PATH_MAX_BYTES)
        return false;
    memcpy(ret_key->text, name->path, path_bytes);
    memcpy(ret_key->text + path_bytes, part, sizeof(part));
    ret_key->bytes = path_bytes + sizeof(part);
    return true;
}

uint64_t stg_disk_checksum(const void *value, size_t bytes) {
    size_t skipped = sizeof(uint64_t);

    return XXH3_64bits((const char *)value + skipped, bytes - skipped);
}

int stg_disk_entry_make(const struct stg_identity *now, const char *content, uint64_t bytes,
                        void **ret_value, size_t *ret_bytes) {
    stg_auto_free void *blob = NULL;
    ssize_t packed = stg_codec_pack(content, bytes, LEVEL, &blob);
    const void *kept = packed > 0 ? blob : content;
    size_t kept_bytes = packed > 0 ? (size_t)packed : bytes;
    struct stg_disk_head head = {.size_bytes = now->size_bytes,
                                 .mtime_ns = now->mtime_ns,
                                 .ctime_ns = now->ctime_ns,
                                 .ino = now->ino,
                                 .raw_bytes = bytes,
                                 .is_packed = packed > 0};
    char *value = malloc(sizeof(head) + kept_bytes);

    if (!value)
        return -ENOMEM;
    memcpy(value, &head, sizeof(head));
    memcpy(value + sizeof(head), kept, kept_bytes);
    head.checksum = stg_disk_checksum(value, sizeof(head) + kept_bytes);
    memcpy(value, &head.checksum, sizeof(head.checksum));
    *ret_value = value;
    *ret_bytes = sizeof(head) + kept_bytes;
    return 0;
}

bool stg_disk_head_is_of(const struct stg_disk_head *head, const struct stg_identity *now) {
    return head->size_bytes == now->size_bytes && head->mtime_ns == now->mtime_ns &&
           head->ctime_ns == now->ctime_ns && head->ino == now->ino;
}

int stg_disk_entry_read(const MDB_val *value, const struct stg_identity *now, uint64_t bytes,
                        char **ret_content) {
    const char *at = value->mv_data;
    struct stg_disk_head head;
    size_t kept_bytes;

    if (value->mv_size < sizeof(head))
        return -EBADMSG;
    memcpy(&head, at, sizeof(head)); /* it need not be aligned */
    if (now && !stg_disk_head_is_of(&head, now))
        return -ENOENT;
    kept_bytes = value->mv_size - sizeof(head);
    if (head.checksum != stg_disk_checksum(at, value->mv_size) || head.raw_bytes != bytes ||
        bytes > STG_DISK_ENTRY_MAX_BYTES || (!head.is_packed && kept_bytes != bytes))
        return -EBADMSG;
    at += sizeof(head);
    *ret_content = malloc(bytes + 1);
    if (!*ret_content)
        return -ENOMEM;
    if (!head.is_packed)
        memcpy(*ret_content, at, bytes);
    else if (stg_codec_unpack(at, kept_bytes, *ret_content, bytes) != (ssize_t)bytes)
        return -EBADMSG;
    return 0;
}

uint64_t stg_disk_entry_cost(size_t key_bytes, size_t value_bytes) {
    const uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE); /* LMDB's, too */
    const uint64_t node_bytes =
        8; /* and 2 in the page's list of them; pages are half to all full */
    uint64_t in_trees = (key_bytes + node_bytes + STG_DISK_ORDER_BYTES) * 3;

    if (key_bytes + value_bytes < page_bytes / 2)
        return (in_trees + value_bytes) * 3 / 2;
    return in_trees * 3 / 2 + (value_bytes + 16 + page_bytes - 1) / page_bytes * page_bytes;
}
