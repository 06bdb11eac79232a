/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the table of inodes: shards of chained hash tables that grow by themselves.
 *
 * An object is known by volume and file handle, which has the generation in it: so a number that
 * the source's filesystem gives to another file makes another inode; and it is what the source's
 * events name an object by. On a volume without handles it is known by number, type and time of
 * birth. Where one of those is another, the old inode is taken out of the table (`hashed`), and
 * lives on for as long as the kernel knows it. Few such sources tell the time of birth: so a file
 * of one name, which is not where it was found before, with another content, is taken for another.
 *
 * uthash would cost 56 bytes an entry, half of what an inode takes here.
 */
#include "fs/inode.h"

#include "fs/catalog.h"
#include "fs/fdcache.h"
#include "fs/folders.h"
#include "fs/given.h"
#include "fs/held.h"
#include "fs/kernel_abi.h"
#include "fs/linger.h"
#include "fs/listing.h"
#include "fs/place.h"
#include "fs/predict.h"
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

static uint64_t hash_of_ino(const struct stg_volume *volume, uint64_t ino) {
    return stg_hash_u64(ino ^ ((uintptr_t)volume << 8));
}

static uint64_t hash_of_handle(const struct stg_volume *volume, const void *bytes, size_t size) {
    return stg_hash_bytes(bytes, size, (uintptr_t)volume);
}

static uint64_t hash_of(const struct stg_inode *inode) {
    return inode->volume->handles
               ? hash_of_handle(inode->volume, inode->handle, inode->handle_bytes)
               : hash_of_ino(inode->volume, inode->ino);
}

static struct shard *shard_of(uint64_t hash) { return &shards[hash % SHARDS]; }

static struct stg_inode **bucket_of(struct shard *shard, uint64_t hash) {
    return &shard->buckets[(hash / SHARDS) & (shard->bucket_count - 1)];
}

static struct shard *inode_shard(const struct stg_inode *inode) { return shard_of(hash_of(inode)); }

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
            struct stg_inode **bucket = bucket_of(shard, hash_of(inode));

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
    unlink_from(bucket_of(shard, hash_of(inode)), inode);
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

/* What an inode that is freed kept in the table: its references are the caller's. */
struct kept {
    struct stg_inode *inodes[2];
};

static struct kept free_inode(struct stg_inode *inode) {
    struct kept kept;

    stg_linger_drop(inode);
    stg_staging_free(inode);
    stg_fdcache_drop(inode);
    stg_held_drop(inode);
    stg_folders_drop(inode);
    stg_listing_free(inode);
    stg_given_free(inode);
    stg_catalog_free(inode);
    stg_fd_close(inode->pinned_fd);
    kept = (struct kept){{stg_predict_free(inode), stg_place_free(inode)}};
    free(inode);
    return kept;
}

/* What an object is known by. */
struct identity {
    struct stg_volume *volume;
    uint64_t ino;
    uint64_t hash;
    uint32_t kept_what; /* as of the inode's */
    uint32_t birth;     /* 0 on volumes with handles, and where the source does not tell */
    int type;
    const struct file_handle *handle; /* on volumes with handles */
};

static bool has_handle(const struct stg_inode *inode, const struct file_handle *handle) {
    return inode->handle_bytes == handle->handle_bytes &&
           inode->handle_type == handle->handle_type &&
           !memcmp(inode->handle, handle->f_handle, inode->handle_bytes);
}

static bool is_object(const struct stg_inode *inode, const struct identity *id) {
    if (inode->volume != id->volume)
        return false;
    return id->volume->handles ? has_handle(inode, id->handle)
                               : inode->ino == id->ino && inode->type == id->type &&
                                     inode->birth == id->birth && !atomic_load(&inode->nameless);
}

static uint32_t birth_of(const struct statx *stx) {
    if (!(stx->stx_mask & STATX_BTIME))
        return 0;
    return (uint32_t)stg_hash_u64((uint64_t)stx->stx_btime.tv_sec ^ (uint64_t)stx->stx_btime.tv_nsec
                                                                        << 32);
}

/* What identifies the object behind `fd`; `handle` gives room, and is referred to. */
static int identify(int fd, const struct statx *stx, struct stg_file_handle *handle,
                    struct identity *ret_id) {
    struct stg_volume *volume;
    int mount_id;
    int error = stg_volume_get(fd, stx, &volume);

    if (error)
        return error;
    *ret_id = (struct identity){
        .volume = volume, .ino = stx->stx_ino, .type = (int8_t)(stx->stx_mode >> 12)};
    if (!volume->handles) {
        ret_id->birth = birth_of(stx);
        ret_id->hash = hash_of_ino(volume, stx->stx_ino);
        return 0;
    }
    handle->head.handle_bytes = STG_HANDLE_MAX_BYTES;
    if (name_to_handle_at(fd, "", &handle->head, &mount_id, AT_EMPTY_PATH))
        return -errno;
    ret_id->handle = &handle->head;
    ret_id->hash = hash_of_handle(volume, handle->head.f_handle, handle->head.handle_bytes);
    return 0;
}

static struct stg_inode *new_inode(const struct identity *id) {
    uint8_t handle_bytes = id->handle ? (uint8_t)id->handle->handle_bytes : 0;
    struct stg_inode *inode = calloc(1, offsetof(struct stg_inode, handle) + handle_bytes);

    if (!inode)
        return NULL;
    inode->volume = id->volume;
    inode->ino = id->ino;
    inode->birth = id->birth;
    inode->kept_what = id->kept_what;
    inode->type = (int8_t)id->type;
    inode->pinned_fd = -1;
    inode->hashed = true;
    inode->handle_bytes = handle_bytes;
    if (handle_bytes) {
        inode->handle_type = id->handle->handle_type;
        memcpy(inode->handle, id->handle->f_handle, handle_bytes);
    }
    return inode;
}

/*
 * The hashed inode of the object. On a volume without handles others of the same number, which was
 * given to another file since, are orphaned on the way.
 */
static struct stg_inode *find_locked(struct shard *shard, const struct identity *id) {
    struct stg_inode *inode = *bucket_of(shard, id->hash);

    while (inode) {
        struct stg_inode *next = inode->next;

        if (is_object(inode, id))
            return inode;
        if (!id->volume->handles && inode->volume == id->volume && inode->ino == id->ino)
            orphan_locked(shard, inode);
        inode = next;
    }
    return NULL;
}

static struct stg_inode *add_locked(struct shard *shard, const struct identity *id) {
    struct stg_inode *inode = new_inode(id);
    struct stg_inode **bucket;

    if (!inode)
        return NULL;
    if (shard->entries >= shard->bucket_count)
        grow_locked(shard);
    bucket = bucket_of(shard, id->hash);
    inode->next = *bucket;
    *bucket = inode;
    shard->entries++;
    return inode;
}

/* The object's inode, made where there is none, its lookup count raised; NULL without memory. */
static struct stg_inode *get(const struct identity *id) {
    struct shard *shard = shard_of(id->hash);
    struct stg_inode *inode;

    stg_lock_take(&shard->lock);
    inode = find_locked(shard, id);
    if (!inode)
        inode = add_locked(shard, id);
    if (inode)
        inode->nlookup++;
    stg_lock_drop(&shard->lock);
    return inode;
}

static uint32_t content_of(const struct statx *stx) {
    uint64_t mtime = (uint64_t)stx->stx_mtime.tv_sec ^ (uint64_t)stx->stx_mtime.tv_nsec << 32;

    return (uint32_t)stg_hash_u64(mtime ^ stg_hash_u64(stx->stx_size)) | 1;
}

void stg_inode_saw(struct stg_inode *inode, const struct statx *stx) {
    if (!inode->volume->handles && !S_ISDIR(stx->stx_mode))
        atomic_store_explicit(&inode->content, content_of(stx), memory_order_relaxed);
}

/*
 * Was the number given to another file since? What was renamed behind the mount has another place,
 * too, but the content that it had.
 */
static bool is_another(struct stg_inode *inode, const struct statx *stx, struct stg_inode *parent,
                       const char *name, uint64_t seen_moves) {
    uint32_t content = atomic_load_explicit(&inode->content, memory_order_relaxed);

    return stx->stx_nlink == 1 && content && content != content_of(stx) &&
           !stg_place_may_be(inode, parent, name, seen_moves);
}

int stg_inode_get(int fd, const struct statx *stx, struct stg_inode *parent, const char *name,
                  uint64_t seen_moves, struct stg_inode **ret_inode) {
    struct stg_file_handle handle;
    struct identity id;
    struct stg_inode *inode;
    int error = identify(fd, stx, &handle, &id);

    if (error)
        return error;
    inode = get(&id);
    if (inode && !id.volume->handles && name && is_another(inode, stx, parent, name, seen_moves)) {
        atomic_store(&inode->nameless, true); /* it is found no more */
        stg_inode_forget(inode, 1);
        inode = get(&id);
    }
    if (!inode)
        return -ENOMEM;
    if (!id.volume->handles) {
        error = name ? stg_place_set(inode, parent, name, seen_moves) : stg_inode_pin_to(inode, fd);
        if (error) {
            stg_inode_forget(inode, 1);
            return error;
        }
    }
    *ret_inode = inode;
    return 0;
}

int stg_inode_get_kept(const struct stg_kept_object *object, struct stg_inode *parent,
                       const char *name, struct stg_inode **ret_inode) {
    struct stg_volume *volume = object->volume;
    struct stg_file_handle handle = {
        .head = {.handle_bytes = object->handle_bytes, .handle_type = object->handle_type}};
    struct identity id = {.volume = volume,
                          .ino = object->stx->stx_ino,
                          .type = (int8_t)(object->stx->stx_mode >> 12),
                          .kept_what = object->what,
                          .hash = hash_of_ino(volume, object->stx->stx_ino)};
    struct stg_inode *inode;
    int error;

    if (object->handle_bytes > STG_HANDLE_MAX_BYTES)
        return -EBADMSG;
    if (volume->handles) {
        memcpy(handle.head.f_handle, object->handle, object->handle_bytes);
        id.handle = &handle.head;
        id.hash = hash_of_handle(volume, object->handle, object->handle_bytes);
    }
    inode = get(&id);
    if (!inode)
        return -ENOMEM;
    error = stg_place_set(inode, parent, name, STG_PLACE_CERTAIN); /* by which it is found there */
    if (error)
        stg_inode_forget(inode, 1);
    else
        *ret_inode = inode;
    return error;
}

static struct stg_inode *find(const struct identity *id) {
    struct shard *shard = shard_of(id->hash);
    struct stg_inode *inode;

    stg_lock_take(&shard->lock);
    inode = find_locked(shard, id);
    if (inode)
        inode->refs++;
    stg_lock_drop(&shard->lock);
    return inode;
}

struct stg_inode *stg_inode_find(int fd, const struct statx *stx) {
    struct stg_file_handle handle;
    struct identity id;

    return identify(fd, stx, &handle, &id) ? NULL : find(&id);
}

struct stg_inode *stg_inode_find_handle(const struct stg_volume *volume,
                                        const struct file_handle *handle) {
    struct identity id = {
        .volume = (struct stg_volume *)volume,
        .handle = handle,
        .hash = hash_of_handle(volume, handle->f_handle, handle->handle_bytes),
    };

    return find(&id);
}

bool stg_inode_is_known(struct stg_inode *inode) {
    struct shard *shard = inode_shard(inode);
    bool known;

    stg_lock_take(&shard->lock);
    known = inode->nlookup > 0 || inode == stg_fs.root;
    stg_lock_drop(&shard->lock);
    return known;
}

void stg_inode_ref(struct stg_inode *inode) {
    struct shard *shard = inode_shard(inode);

    stg_lock_take(&shard->lock);
    inode->refs++;
    stg_lock_drop(&shard->lock);
}

bool stg_inode_try_ref(struct stg_inode *inode) {
    struct shard *shard = inode_shard(inode);
    bool alive;

    stg_lock_take(&shard->lock);
    alive = inode->nlookup || inode->refs || inode == stg_fs.root;
    inode->refs += alive;
    stg_lock_drop(&shard->lock);
    return alive;
}

void stg_inode_raise(struct stg_inode *inode) {
    struct shard *shard = inode_shard(inode);

    stg_lock_take(&shard->lock);
    inode->nlookup++;
    stg_lock_drop(&shard->lock);
}

/* Lowers the counts. True: the inode is nobody's any more, and the caller's to free. */
static bool lower_counts(struct stg_inode *inode, uint64_t lookups, uint32_t refs) {
    struct shard *shard = inode_shard(inode);
    bool last;

    stg_lock_take(&shard->lock);
    inode->nlookup -= lookups < inode->nlookup ? lookups : inode->nlookup;
    inode->refs -= refs;
    last = !inode->nlookup && !inode->refs && inode != stg_fs.root;
    if (last)
        remove_locked(shard, inode);
    stg_lock_drop(&shard->lock);
    return last;
}

/* A folder goes with the last of what is in it, and so on up: as deep as the tree is. */
static void drop_counts(struct stg_inode *inode, uint64_t lookups, uint32_t refs) {
    struct stg_inode *dead = lower_counts(inode, lookups, refs) ? inode : NULL;

    if (dead)
        dead->next = NULL;
    while (dead) {
        struct stg_inode *next = dead->next;
        struct kept kept = free_inode(dead);

        dead = next;
        for (int i = 0; i < 2; i++) {
            if (!kept.inodes[i] || !lower_counts(kept.inodes[i], 0, 1))
                continue;
            kept.inodes[i]->next = dead;
            dead = kept.inodes[i];
        }
    }
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

/* False without memory: the others are not there. */
static bool collect_locked(struct stg_inode *inode, struct inode_array *array) {
    for (; inode; inode = inode->next) {
        if (array->count == array->room) {
            size_t room = array->room ? array->room * 2 : 256;
            struct stg_inode **more = reallocarray(array->inodes, room, sizeof(*more));

            if (!more)
                return false;
            array->inodes = more;
            array->room = room;
        }
        inode->refs++;
        array->inodes[array->count++] = inode;
    }
    return true;
}

bool stg_inode_each(void (*visit)(struct stg_inode *inode, void *context), void *context) {
    bool all = true;

    for (int i = 0; i < SHARDS; i++) {
        struct inode_array array = {0};

        stg_lock_take(&shards[i].lock);
        for (uint64_t j = 0; shards[i].buckets && j < shards[i].bucket_count; j++)
            all = collect_locked(shards[i].buckets[j], &array) && all;
        all = collect_locked(shards[i].orphans, &array) && all;
        stg_lock_drop(&shards[i].lock);
        for (size_t j = 0; j < array.count; j++) {
            visit(array.inodes[j], context);
            stg_inode_unref(array.inodes[j]);
        }
        free(array.inodes);
    }
    return all;
}

/* At the end places would free their parents one by one; here every inode goes, in any order. */
static void free_list(struct stg_inode *inode) {
    while (inode) {
        struct stg_inode *next = inode->next;

        stg_fd_close(inode->pinned_fd);
        stg_held_drop(inode);
        stg_folders_drop(inode);
        stg_listing_free(inode);
        stg_given_free(inode);
        stg_catalog_free(inode);
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
