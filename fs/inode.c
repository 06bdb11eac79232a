/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the table of inodes: shards of chained hash tables that grow by themselves.
 *
 * An object is known by volume, inode number and, where there is one, its file handle: the handle
 * has the generation in it, so a number that the source's filesystem gives to another file makes
 * another inode. Then the old one is taken out of the table (`hashed`), and lives on for as long as
 * the kernel knows it.
 *
 * uthash would cost 56 bytes an entry, half of what an inode takes here.
 */
#include "fs/inode.h"

#include "fs/fdcache.h"
#include "fs/kernel_abi.h"
#include "fs/linger.h"
#include "fs/place.h"
#include "fs/staging.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#include <stddef.h>

#define SHARDS 64
#define SHARD_BUCKETS_MIN 64
#define IO_LOCKS 256

struct shard {
    struct stg_lock lock;
    struct stg_inode **buckets; /* protected by lock, as all below */
    uint64_t bucket_count;      /* a power of two */
    uint64_t entries;           /* hashed inodes */
    uint64_t unhashed;          /* inodes that are known to the kernel alone */
    struct stg_inode *orphans;  /* the list of those */
} __attribute__((aligned(64)));

static struct shard shards[SHARDS];
static struct stg_lock io_locks[IO_LOCKS];

static uint64_t hash_of(const struct stg_volume *volume, uint64_t ino) {
    return stg_hash_u64(ino ^ ((uintptr_t)volume << 8));
}

static struct shard *shard_of(uint64_t hash) { return &shards[hash % SHARDS]; }

static struct stg_inode **bucket_of(struct shard *shard, uint64_t hash) {
    return &shard->buckets[(hash / SHARDS) & (shard->bucket_count - 1)];
}

static struct shard *inode_shard(const struct stg_inode *inode) {
    return shard_of(hash_of(inode->volume, inode->ino));
}

int stg_inode_init(void) {
    for (int i = 0; i < IO_LOCKS; i++)
        stg_lock_init(&io_locks[i], STG_RANK_IO);
    for (int i = 0; i < SHARDS; i++) {
        shards[i] = (struct shard){.bucket_count = SHARD_BUCKETS_MIN};
        stg_lock_init(&shards[i].lock, STG_RANK_INODES);
        shards[i].buckets = calloc(SHARD_BUCKETS_MIN, sizeof(*shards[i].buckets));
        if (!shards[i].buckets)
            return -ENOMEM;
    }
    return 0;
}

struct stg_lock *stg_inode_io_lock(const struct stg_inode *inode) {
    return &io_locks[stg_hash_u64((uintptr_t)inode) % IO_LOCKS];
}

void stg_inode_note_capability_lost(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    inode->capability_lost = true;
    stg_lock_drop(lock);
}

bool stg_inode_take_capability_lost(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool lost;

    stg_lock_take(lock);
    lost = inode->capability_lost;
    inode->capability_lost = false;
    stg_lock_drop(lock);
    return lost;
}

/* Doubles the shard's table; a failure costs longer chains and nothing else. */
static void grow_locked(struct shard *shard) {
    uint64_t new_count = shard->bucket_count * 2;
    struct stg_inode **old = shard->buckets;
    uint64_t old_count = shard->bucket_count;
    struct stg_inode **buckets = calloc(new_count, sizeof(*buckets));

    if (!buckets)
        return;
    shard->buckets = buckets;
    shard->bucket_count = new_count;
    for (uint64_t i = 0; i < old_count; i++) {
        struct stg_inode *inode = old[i];

        while (inode) {
            struct stg_inode *next = inode->next;
            struct stg_inode **bucket = bucket_of(shard, hash_of(inode->volume, inode->ino));

            inode->next = *bucket;
            *bucket = inode;
            inode = next;
        }
    }
    free(old);
}

static void unlink_from(struct stg_inode **list, struct stg_inode *inode) {
    while (*list != inode)
        list = &(*list)->next;
    *list = inode->next;
}

static void unhash_locked(struct shard *shard, struct stg_inode *inode) {
    unlink_from(bucket_of(shard, hash_of(inode->volume, inode->ino)), inode);
    shard->entries--;
    inode->hashed = false;
}

/* Out of the table, but still owned by the shard until the kernel forgets it. */
static void orphan_locked(struct shard *shard, struct stg_inode *inode) {
    unhash_locked(shard, inode);
    inode->next = shard->orphans;
    shard->orphans = inode;
    shard->unhashed++;
}

static void remove_locked(struct shard *shard, struct stg_inode *inode) {
    if (inode->hashed) {
        unhash_locked(shard, inode);
    } else {
        unlink_from(&shard->orphans, inode);
        shard->unhashed--;
    }
}

static void free_inode(struct stg_inode *inode) {
    stg_linger_drop(inode);
    stg_staging_free(inode);
    stg_fdcache_drop(inode);
    stg_fd_close(inode->pinned_fd);
    stg_place_free(inode);
    free(inode);
}

static bool is_object(const struct stg_inode *inode, const struct stg_volume *volume, uint64_t ino,
                      int type, const struct stg_file_handle *handle) {
    if (inode->volume != volume || inode->ino != ino || inode->type != type)
        return false;
    return !volume->handles || (inode->handle_bytes == handle->head.handle_bytes &&
                                inode->handle_type == handle->head.handle_type &&
                                !memcmp(inode->handle, handle->head.f_handle, inode->handle_bytes));
}

/* What identifies the object behind `fd`. */
static int identify(int fd, const struct statx *stx, struct stg_volume **ret_volume,
                    struct stg_file_handle *handle) {
    int mount_id;
    int error = stg_volume_get(fd, stx, ret_volume);

    handle->head.handle_bytes = STG_HANDLE_MAX_BYTES;
    if (!error && (*ret_volume)->handles &&
        name_to_handle_at(fd, "", &handle->head, &mount_id, AT_EMPTY_PATH))
        error = -errno;
    return error;
}

static struct stg_inode *new_inode(struct stg_volume *volume, const struct statx *stx,
                                   const struct stg_file_handle *handle) {
    uint8_t handle_bytes = volume->handles ? (uint8_t)handle->head.handle_bytes : 0;
    struct stg_inode *inode = calloc(1, offsetof(struct stg_inode, handle) + handle_bytes);

    if (!inode)
        return NULL;
    inode->volume = volume;
    inode->ino = stx->stx_ino;
    inode->type = (int8_t)(stx->stx_mode >> 12);
    inode->pinned_fd = -1;
    inode->hashed = true;
    inode->handle_bytes = handle_bytes;
    if (handle_bytes) {
        inode->handle_type = handle->head.handle_type;
        memcpy(inode->handle, handle->head.f_handle, handle_bytes);
    }
    return inode;
}

/*
 * The hashed inode of the object. Others of the same volume and number, of an earlier generation,
 * are orphaned on the way: at most one of a number is alive.
 */
static struct stg_inode *find_locked(struct shard *shard, uint64_t hash,
                                     const struct stg_volume *volume, const struct statx *stx,
                                     const struct stg_file_handle *handle) {
    struct stg_inode *inode = *bucket_of(shard, hash);

    while (inode) {
        struct stg_inode *next = inode->next;

        if (is_object(inode, volume, stx->stx_ino, stx->stx_mode >> 12, handle))
            return inode;
        if (inode->volume == volume && inode->ino == stx->stx_ino)
            orphan_locked(shard, inode);
        inode = next;
    }
    return NULL;
}

int stg_inode_get(int fd, const struct statx *stx, struct stg_inode *parent, const char *name,
                  struct stg_inode **ret_inode) {
    struct stg_file_handle handle;
    struct stg_volume *volume;
    struct stg_inode *inode;
    struct shard *shard;
    int error = identify(fd, stx, &volume, &handle);
    uint64_t hash;

    if (error)
        return error;
    hash = hash_of(volume, stx->stx_ino);
    shard = shard_of(hash);
    stg_lock_take(&shard->lock);
    inode = find_locked(shard, hash, volume, stx, &handle);
    if (!inode) {
        inode = new_inode(volume, stx, &handle);
        if (inode) {
            struct stg_inode **bucket;

            if (shard->entries >= shard->bucket_count)
                grow_locked(shard);
            bucket = bucket_of(shard, hash);
            inode->next = *bucket;
            *bucket = inode;
            shard->entries++;
        }
    }
    if (inode)
        inode->nlookup++;
    stg_lock_drop(&shard->lock);
    if (!inode)
        return -ENOMEM;
    if (!volume->handles) {
        error = name ? stg_place_set(inode, parent, name) : stg_inode_pin_to(inode, fd);
        if (error) {
            stg_inode_forget(inode, 1);
            return error;
        }
    }
    *ret_inode = inode;
    return 0;
}

struct stg_inode *stg_inode_find(int fd, const struct statx *stx) {
    struct stg_file_handle handle;
    struct stg_volume *volume;
    struct stg_inode *inode;
    struct shard *shard;
    uint64_t hash;

    if (identify(fd, stx, &volume, &handle))
        return NULL;
    hash = hash_of(volume, stx->stx_ino);
    shard = shard_of(hash);
    stg_lock_take(&shard->lock);
    inode = find_locked(shard, hash, volume, stx, &handle);
    if (inode)
        inode->refs++;
    stg_lock_drop(&shard->lock);
    return inode;
}

void stg_inode_ref(struct stg_inode *inode) {
    struct shard *shard = inode_shard(inode);

    stg_lock_take(&shard->lock);
    inode->refs++;
    stg_lock_drop(&shard->lock);
}

void stg_inode_raise(struct stg_inode *inode) {
    struct shard *shard = inode_shard(inode);

    stg_lock_take(&shard->lock);
    inode->nlookup++;
    stg_lock_drop(&shard->lock);
}

static void drop_counts(struct stg_inode *inode, uint64_t lookups, uint32_t refs) {
    struct shard *shard = inode_shard(inode);
    bool last;

    stg_lock_take(&shard->lock);
    inode->nlookup -= lookups < inode->nlookup ? lookups : inode->nlookup;
    inode->refs -= refs;
    last = !inode->nlookup && !inode->refs && inode != stg_fs.root;
    if (last)
        remove_locked(shard, inode);
    stg_lock_drop(&shard->lock);
    if (last)
        free_inode(inode);
}

void stg_inode_forget(struct stg_inode *inode, uint64_t count) { drop_counts(inode, count, 0); }

void stg_inode_unref(struct stg_inode *inode) { drop_counts(inode, 0, 1); }

uint64_t stg_inode_count(void) {
    uint64_t count = 0;

    for (int i = 0; i < SHARDS; i++) {
        stg_lock_take(&shards[i].lock);
        count += shards[i].entries + shards[i].unhashed;
        stg_lock_drop(&shards[i].lock);
    }
    return count;
}

/* Inodes, each referenced. */
struct inode_array {
    struct stg_inode **inodes;
    size_t count;
    size_t room;
};

static void collect_locked(struct stg_inode *inode, struct inode_array *array) {
    for (; inode; inode = inode->next) {
        if (array->count == array->room) {
            size_t room = array->room ? array->room * 2 : 256;
            struct stg_inode **more = reallocarray(array->inodes, room, sizeof(*more));

            if (!more)
                return; /* the others are not visited */
            array->inodes = more;
            array->room = room;
        }
        inode->refs++;
        array->inodes[array->count++] = inode;
    }
}

void stg_inode_each(void (*visit)(struct stg_inode *inode, void *context), void *context) {
    for (int i = 0; i < SHARDS; i++) {
        struct inode_array array = {0};

        stg_lock_take(&shards[i].lock);
        for (uint64_t j = 0; shards[i].buckets && j < shards[i].bucket_count; j++)
            collect_locked(shards[i].buckets[j], &array);
        collect_locked(shards[i].orphans, &array);
        stg_lock_drop(&shards[i].lock);
        for (size_t j = 0; j < array.count; j++) {
            visit(array.inodes[j], context);
            stg_inode_unref(array.inodes[j]);
        }
        free(array.inodes);
    }
}

/* At the end places would free their parents one by one; here every inode goes, in any order. */
static void free_list(struct stg_inode *inode) {
    while (inode) {
        struct stg_inode *next = inode->next;

        stg_fd_close(inode->pinned_fd);
        stg_place_discard(inode);
        stg_staging_free(inode);
        free(inode);
        inode = next;
    }
}

void stg_inode_fini(void) {
    for (int i = 0; i < SHARDS; i++) {
        for (uint64_t j = 0; shards[i].buckets && j < shards[i].bucket_count; j++)
            free_list(shards[i].buckets[j]);
        free_list(shards[i].orphans);
        free(shards[i].buckets);
        shards[i].buckets = NULL;
    }
}
