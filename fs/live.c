/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the writing to source and copy, and the thread that carries mapped stores.
 *
 * A live lock, chosen by the inode, is held across each change of the two: so what is compared is
 * never half written. It comes before the io lock, and is held across I/O on the source.
 */
#include "fs/live.h"

#include "fs/iomode.h"
#include "fs/shadow.h"
#include "fs/staging.h"
#include "util/io.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/sweeper.h"

#include <string.h>
#include <sys/stat.h>

#define LIVE_LOCKS 16
#define SWEEP_NS 500000000L

/* An inode that may have been stored into through a mapping. */
struct mapped {
    struct mapped *next;
    struct stg_inode *inode;  /* referenced */
    struct stg_shadow shadow; /* protected by the live lock, as the next */
    uint32_t number; /* `live_number` when the shadow was taken: it says nothing at another time */
    unsigned released; /* opens for reading and writing that count on; protected by list_lock */
};

static struct stg_lock locks[LIVE_LOCKS] = {
    [0 ... LIVE_LOCKS - 1] = STG_LOCK(STG_RANK_LIVE),
};

static struct stg_lock list_lock = STG_LOCK(STG_RANK_LINGER);
static struct mapped *list; /* protected by list_lock */

static bool has_work(void);
static void next_round_locked(void);
static struct stg_sweeper sweeper = {.lock = &list_lock,
                                     .interval_ns = SWEEP_NS,
                                     .has_work = has_work,
                                     .sweep_locked = next_round_locked};

static bool has_work(void) { return list != NULL; }

static struct stg_lock *lock_of(const struct stg_inode *inode) {
    return &locks[stg_hash_u64((uintptr_t)inode) % LIVE_LOCKS];
}

/* The object of a live inode, referenced and held by its opens; NULL where it is not live. */
static struct stg_object *live_object(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *object = NULL;

    stg_lock_take(lock);
    if (inode->io_mode == STG_IO_COPY && inode->opens && inode->staged->live) {
        object = inode->staged->object;
        stg_object_ref(stg_staging_cache(), object);
    }
    stg_lock_drop(lock);
    return object;
}

/*
 * The same, and takes the live lock, under which it stays live: the last writer leaves under that,
 * too. To be given back by drop_live().
 */
static struct stg_object *take_live(struct stg_inode *inode) {
    struct stg_object *object;

    while ((object = live_object(inode))) {
        struct stg_object *now;

        stg_lock_take(lock_of(inode));
        now = live_object(inode);
        if (now)
            stg_staging_unref(now); /* not the last one where it is the same */
        if (now == object)
            return object;
        stg_lock_drop(lock_of(inode));
        stg_staging_unref(object);
    }
    return NULL;
}

static void drop_live(struct stg_inode *inode, struct stg_object *object) {
    stg_lock_drop(lock_of(inode));
    stg_staging_unref(object);
}

static struct mapped *find_locked(const struct stg_inode *inode) {
    struct mapped *mapped = list;

    while (mapped && mapped->inode != inode)
        mapped = mapped->next;
    return mapped;
}

/* The inode's entry, or NULL; under its live lock, which keeps the entry there. */
static struct mapped *find(const struct stg_inode *inode) {
    struct mapped *mapped;

    stg_lock_take(&list_lock);
    mapped = find_locked(inode);
    stg_lock_drop(&list_lock);
    return mapped;
}

static uint32_t live_number(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    uint32_t number;

    stg_lock_take(lock);
    number = inode->staged->live_number;
    stg_lock_drop(lock);
    return number;
}

/* The entry, where its shadow is of now; NULL where nobody may store. Under the live lock. */
static struct mapped *find_current(struct stg_inode *inode) {
    struct mapped *mapped = find(inode);

    return mapped && mapped->number == live_number(inode) ? mapped : NULL;
}

static int take_shadow(struct mapped *mapped, struct stg_object *object) {
    int error = stg_shadow_take(&mapped->shadow, object);

    if (!error)
        mapped->number = live_number(mapped->inode);
    return error;
}

/* ---- reading and writing ---- */

/* On a handle with O_APPEND what was written is the file's end, wherever it was to go. */
static off_t where_it_went(int fd, size_t bytes, off_t offset) {
    int flags = fcntl(fd, F_GETFL);
    struct stat info;

    if (flags < 0 || !(flags & O_APPEND) || fstat(fd, &info))
        return offset;
    return info.st_size - (off_t)bytes;
}

/* The copy cannot follow: what comes to the daemon is read from the source from now on. */
static void set_behind(struct stg_inode *inode, int error) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool before;

    stg_lock_take(lock);
    before = inode->staged->behind;
    inode->staged->behind = true;
    stg_lock_drop(lock);
    if (!before)
        stg_warning("inode %ju: a copy cannot follow its writers: %s", (uintmax_t)inode->ino,
                    strerror(-error));
}

static void write_copy_locked(struct stg_inode *inode, struct stg_object *object,
                              const void *buffer, size_t bytes, off_t offset) {
    struct mapped *mapped = find(inode);
    uint64_t limit = stg_cache_usage(stg_staging_cache()).hot_limit_bytes;
    int error = (uint64_t)offset + bytes > limit
                    ? -ENOSPC
                    : stg_object_write(stg_staging_cache(), object, buffer, (uint64_t)bytes,
                                       (uint64_t)offset);

    if (error)
        set_behind(inode, error);
    else if (mapped)
        stg_shadow_write(&mapped->shadow, buffer, bytes, (uint64_t)offset);
}

ssize_t stg_live_write(struct stg_inode *inode, int fd, const void *buffer, size_t bytes,
                       off_t offset) {
    struct stg_object *object = take_live(inode);
    ssize_t put;

    if (!object)
        return stg_io_write_whole(fd, buffer, bytes, offset);
    put = stg_io_write_whole(fd, buffer, bytes, offset);
    if (put > 0)
        write_copy_locked(inode, object, buffer, (size_t)put,
                          where_it_went(fd, (size_t)put, offset));
    drop_live(inode, object);
    return put;
}

static bool is_behind(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool behind;

    stg_lock_take(lock);
    behind = inode->staged->behind;
    stg_lock_drop(lock);
    return behind;
}

ssize_t stg_live_read(struct stg_inode *inode, void *buffer, size_t bytes, off_t offset) {
    struct stg_object *object = live_object(inode);
    ssize_t got;

    if (!object)
        return -EOPNOTSUPP;
    if (is_behind(inode)) {
        stg_staging_unref(object);
        return -EOPNOTSUPP;
    }
    got = stg_store_read(stg_cache_store(stg_staging_cache()), stg_object_copy(object), buffer,
                         bytes, (uint64_t)offset);
    stg_staging_unref(object);
    return got;
}

/* ---- carrying ---- */

static int carry_locked(struct stg_inode *inode, struct stg_object *object) {
    struct mapped *mapped = find_current(inode);

    return mapped ? stg_shadow_carry(&mapped->shadow, inode, object) : 0;
}

int stg_live_sync(struct stg_inode *inode) {
    struct stg_object *object = take_live(inode);
    int error;

    if (!object)
        return 0;
    error = carry_locked(inode, object);
    drop_live(inode, object);
    return error;
}

static int refresh(struct stg_object *object) {
    int error;

    do {
        stg_object_await(stg_staging_cache(), object);
        error = stg_object_refresh(stg_staging_cache(), object, true);
    } while (error == -EBUSY);
    return error;
}

/* Fetches the copy anew. */
static void renew_locked(struct stg_inode *inode, struct stg_object *object) {
    struct mapped *mapped = find_current(inode);
    int error = mapped ? stg_shadow_renew(&mapped->shadow, inode, object) : refresh(object);

    if (error)
        set_behind(inode, error);
}

/* A writer may have joined meanwhile, and taken what was there for current. */
static void renew_if_live(struct stg_inode *inode) {
    struct stg_object *object = take_live(inode);

    if (!object)
        return;
    if (!carry_locked(inode, object))
        renew_locked(inode, object);
    drop_live(inode, object);
}

int stg_live_change(struct stg_inode *inode, int (*change)(void *context), void *context) {
    struct stg_object *object = take_live(inode);
    int result;

    if (!object) {
        result = change(context);
        stg_staging_changed(inode);
        renew_if_live(inode);
        return result;
    }
    result = carry_locked(inode, object);
    if (!result)
        result = change(context);
    renew_locked(inode, object);
    drop_live(inode, object);
    return result;
}

/* ---- mappings ---- */

/* The copy is not its writers' alone any more when the last one leaves: not amid what they do. */
static void release(struct stg_inode *inode, int flags) {
    struct stg_object *object = (flags & O_ACCMODE) != O_RDONLY ? take_live(inode) : NULL;

    stg_io_release(inode, flags);
    if (object)
        drop_live(inode, object);
}

/* Can nobody store into the copy any more? Nobody with an open for writing can be there, either. */
static bool is_unmapped(struct stg_object *object) {
    stg_auto_fd int fd =
        stg_store_open(stg_cache_store(stg_staging_cache()), stg_object_copy(object), O_RDONLY);

    if (fd < 0 || fcntl(fd, F_SETLEASE, F_RDLCK))
        return false;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* the close that follows would drop it, too */
    return true;
}

/* Carries, and lets go of what counts on for mappings that are gone. True where that is all. */
static bool sweep_one(struct mapped *mapped, bool all) {
    struct stg_object *object = live_object(mapped->inode);
    unsigned released;
    bool unmapped;
    int error;

    if (!object)
        return true;
    stg_lock_take(&list_lock);
    released = mapped->released; /* those whose mappings are looked for now */
    stg_lock_drop(&list_lock);
    unmapped = is_unmapped(object); /* first: what is stored until then is carried below */
    error = stg_live_sync(mapped->inode);
    stg_staging_unref(object);
    if (error)
        stg_warning("inode %ju: what is stored through a mapping cannot be written: %s",
                    (uintmax_t)mapped->inode->ino, strerror(-error));
    if (!unmapped && !all)
        return false;
    stg_lock_take(&list_lock);
    mapped->released -= released;
    stg_lock_drop(&list_lock);
    while (released--)
        release(mapped->inode, O_RDWR);
    return true;
}

static void remove_mapped(struct mapped *mapped) {
    struct mapped **link = &list;
    struct stg_lock *lock = lock_of(mapped->inode);
    struct stg_object *object;

    stg_lock_take(lock);
    object = live_object(mapped->inode);
    if (object) { /* it is written again, and counts on its entry */
        stg_lock_drop(lock);
        stg_staging_unref(object);
        return;
    }
    stg_lock_take(&list_lock);
    while (*link != mapped)
        link = &(*link)->next;
    *link = mapped->next;
    stg_lock_drop(&list_lock);
    stg_lock_drop(lock);
    stg_inode_unref(mapped->inode);
    stg_shadow_drop(&mapped->shadow);
    free(mapped);
}

/* Entries are added at the front, and only removed here. */
static void sweep(bool all) {
    struct mapped *mapped;

    stg_lock_take(&list_lock);
    mapped = list;
    stg_lock_drop(&list_lock);
    while (mapped) {
        struct mapped *next = mapped->next;
        bool done = sweep_one(mapped, all);
        struct stg_object *object = done ? live_object(mapped->inode) : NULL;

        if (object)
            stg_staging_unref(object); /* others write on; their mappings may come */
        else if (done)
            remove_mapped(mapped);
        mapped = next;
    }
}

static void next_round_locked(void) {
    stg_lock_drop(&list_lock);
    sweep(false);
    stg_lock_take(&list_lock);
}

static int add(struct stg_inode *inode, struct stg_object *object) {
    struct mapped *mapped = calloc(1, sizeof(*mapped));
    int error;

    if (!mapped)
        return -ENOMEM;
    mapped->inode = inode;
    error = take_shadow(mapped, object);
    if (error) {
        free(mapped);
        return error;
    }
    stg_inode_ref(inode);
    stg_lock_take(&list_lock);
    mapped->next = list;
    list = mapped;
    stg_sweeper_wake_locked(&sweeper);
    stg_lock_drop(&list_lock);
    return 0;
}

int stg_live_begin(struct stg_inode *inode) {
    struct stg_object *object = take_live(inode);
    struct mapped *mapped;
    int error = 0;

    if (!object)
        return 0;
    stg_object_await(stg_staging_cache(), object);
    mapped = find(inode);
    if (!mapped)
        error = add(inode, object);
    else if (mapped->number != live_number(inode))
        error = take_shadow(mapped, object);
    drop_live(inode, object);
    return error;
}

/* Leaves the open to the sweeper. False where there is nothing to wait for. */
static bool leave_to_sweeper(struct stg_inode *inode) {
    struct mapped *mapped;

    stg_lock_take(&list_lock);
    mapped = find_locked(inode);
    if (mapped)
        mapped->released++;
    stg_lock_drop(&list_lock);
    return mapped != NULL;
}

void stg_live_release(struct stg_inode *inode, int flags) {
    struct stg_object *object = (flags & O_ACCMODE) == O_RDWR ? live_object(inode) : NULL;
    bool left = false;

    if (object) {
        bool unmapped = is_unmapped(object);

        left = stg_live_sync(inode) || !unmapped;
        stg_staging_unref(object);
    }
    if (!left || !leave_to_sweeper(inode))
        release(inode, flags);
}

int stg_live_start(void) { return stg_sweeper_start(&sweeper); }

void stg_live_stop(void) {
    stg_sweeper_stop(&sweeper);
    sweep(true);
}
