/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A recorded profile is followed: its folders are read whole and its files staged, in the order in
 * which the build that was recorded asked for them, many at a time, until half of `mem=` is filled
 * with what nobody has read yet; then as what is there is read. Where copies are evicted that
 * nobody has read, less is staged ahead. A path that is not in the tree any more is passed over.
 *
 * It is not throttled, as guesses are: somebody has asked for it.
 *
 * Owns the plan, which is what is still to be done, and the threads that do it.
 */
#include "fs/predict_profile.h"

#include "fs/listing.h"
#include "fs/predict_impl.h"
#include "fs/staging.h"
#include "util/crew.h"
#include "util/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16
#define FLIGHT_MAX 64 /* entries that are being followed, or queued for that */

/* What part of `mem=` may be staged and not read: at first, and at least. */
#define SHARE 2
#define SHARE_LEAST 16

struct step {
    struct stg_crew_work work;
    struct step *next; /* of those that are put off */
    size_t number;     /* in the plan */
    enum stg_profile_kind kind;
    char *path; /* owned */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct stg_profile plan; /* protected by lock, as all below */
static size_t next;
static struct step *put_off; /* for want of room; in the order of the plan */
static unsigned in_flight;
static bool ended;
/* There is something left, for which there was no room. */
static atomic_bool waits;

static struct stg_lock room_lock = STG_LOCK(STG_RANK_LINGER);
static uint64_t reserved; /* of files that are just going to be staged; protected by room_lock */
/* What profiles had staged and nobody had read when the plan was made: it is not about that. */
static uint64_t unread_before;
static uint64_t seen_evicted_bytes;
static unsigned share = SHARE;

static void work(struct stg_crew_work *work);
static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "the profile", .threads_max = THREADS_MAX, .work = work);

static uint64_t unread_bytes(void) {
    struct stg_predict_view view = stg_predict_view(STG_PREDICT_PROFILES);
    uint64_t over = view.used_bytes + view.lost_bytes;

    return view.bytes > over ? view.bytes - over : 0;
}

/* Is there room for more that nobody has read, or that much? One file there always is. */
static bool is_full_locked(uint64_t more_bytes) {
    uint64_t evicted_bytes = stg_cache_stats(stg_staging_cache())->evicted_unused_bytes;
    uint64_t limit_bytes = stg_cache_usage(stg_staging_cache()).hot_limit_bytes;
    uint64_t unread = unread_bytes() + reserved;

    if (evicted_bytes != seen_evicted_bytes && share < SHARE_LEAST)
        share *= 2;
    seen_evicted_bytes = evicted_bytes;
    return unread > unread_before && unread + more_bytes > unread_before + limit_bytes / share;
}

static bool is_full(void) {
    bool full;

    stg_lock_take(&room_lock);
    full = is_full_locked(0);
    stg_lock_drop(&room_lock);
    return full;
}

/* Takes the bytes for what is going to be staged, as several threads do at once. */
static bool reserve(uint64_t bytes) {
    bool full;

    stg_lock_take(&room_lock);
    full = is_full_locked(bytes);
    reserved += full ? 0 : bytes;
    stg_lock_drop(&room_lock);
    return !full;
}

static void unreserve(uint64_t bytes) {
    stg_lock_take(&room_lock);
    reserved -= bytes;
    stg_lock_drop(&room_lock);
}

static void begin_anew(void) {
    stg_lock_take(&room_lock);
    unread_before = unread_bytes();
    share = SHARE;
    stg_lock_drop(&room_lock);
}

static void drop(struct step *step) {
    free(step->path);
    free(step);
}

/* Takes the next entry; NULL where there is none, or enough is being followed. */
static struct step *take(void) {
    struct step *step = NULL;

    stg_lock_take(&lock);
    if (!ended && put_off && in_flight < FLIGHT_MAX) {
        step = put_off;
        put_off = step->next;
        in_flight++;
    } else if (!ended && next < plan.count && in_flight < FLIGHT_MAX &&
               (step = malloc(sizeof(*step)))) {
        struct stg_profile_entry *entry = &plan.entries[next];

        *step = (struct step){.kind = entry->kind, .path = entry->path, .number = next++};
        entry->path = NULL;
        in_flight++;
    }
    stg_lock_drop(&lock);
    return step;
}

static bool is_done(void) {
    bool done;

    stg_lock_take(&lock);
    done = next == plan.count && !put_off;
    stg_lock_drop(&lock);
    return done;
}

static void go_on(void) {
    struct step *step;

    for (;;) {
        atomic_store(&waits, is_full() && !is_done());
        if (atomic_load(&waits))
            return;
        step = take();
        if (!step)
            return;
        if (stg_crew_push(&crew, &step->work))
            continue;
        drop(step); /* at the end of the mount */
        return;
    }
}

/* False where there is no room: it is to be tried once more. */
static bool stage(struct stg_inode *inode) {
    uint64_t bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);

    if (!reserve(bytes))
        return false;
    (void)stg_predict_stage(inode, STG_PREDICT_PROFILES); /* or it is there */
    unreserve(bytes);
    return true;
}

static bool follow(const struct step *step) {
    struct stg_inode *inode =
        stg_predict_walk(stg_fs.root, strcmp(step->path, ".") ? step->path : "");
    bool done = true;

    if (!inode)
        return true;
    if (step->kind == STG_PROFILE_FILE) {
        if (stg_inode_is_regular(inode))
            done = stage(inode);
    } else if (inode->type == (S_IFDIR >> 12)) {
        if (inode->volume->remote)
            stg_listing_read(inode);
        if (step->kind == STG_PROFILE_SEARCH && stg_predict_is_on(STG_PREDICT_INCLUDES))
            stg_include_searched(inode);
    }
    stg_inode_unref(inode);
    return done;
}

static void put_off_locked(struct step *step) {
    struct step **link = &put_off;

    while (*link && (*link)->number < step->number) /* as many as may be in flight, at most */
        link = &(*link)->next;
    step->next = *link;
    *link = step;
}

static void work(struct stg_crew_work *work) {
    struct step *step = (struct step *)(void *)work;
    bool done = follow(step);

    if (done)
        drop(step);
    stg_lock_take(&lock);
    in_flight--;
    if (!done)
        put_off_locked(step);
    stg_lock_drop(&lock);
    if (done)
        go_on();
    else
        atomic_store(&waits, true);
}

static void forget_locked(void) {
    while (put_off) {
        struct step *after = put_off->next;

        drop(put_off);
        put_off = after;
    }
    stg_profile_fini(&plan);
    next = 0;
}

/* ---- from outside ---- */

void stg_profiles_used(void) {
    if (atomic_load_explicit(&waits, memory_order_relaxed))
        go_on();
}

uint64_t stg_profiles_follow(struct stg_profile *profile, bool again) {
    uint64_t left;

    if (again)
        begin_anew();
    stg_lock_take(&lock);
    if (again)
        forget_locked();
    for (size_t i = 0; i < profile->count; i++)
        if (stg_profile_add(&plan, profile->entries[i].kind, 0, profile->entries[i].path))
            plan.left_out++; /* without memory it is not predicted */
    left = plan.count - next;
    stg_lock_drop(&lock);
    stg_profile_fini(profile);
    go_on();
    return left;
}

void stg_profiles_fini(void) {
    struct stg_crew_work *left;

    stg_lock_take(&lock);
    ended = true;
    stg_lock_drop(&lock);
    left = stg_crew_stop(&crew);
    while (left) {
        struct stg_crew_work *after = left->next;

        drop((struct step *)(void *)left);
        left = after;
    }
    stg_lock_take(&lock);
    forget_locked();
    stg_lock_drop(&lock);
}

/* ---- at the mount ---- */

static struct stg_profile at_mount;

int stg_profiles_load(const char *path) {
    size_t line = 0;
    int error = stg_profile_read(&at_mount, path, &line);

    if (!error)
        return 0;
    stg_profile_fini(&at_mount);
    if (error == -EINVAL && line)
        stg_error("profile %s, line %zu is none of a profile; record one with stagectl profile "
                  "record",
                  path, line);
    else
        stg_error("profile %s: %s; record one with stagectl profile record", path,
                  strerror(-error));
    return error;
}

void stg_profiles_start(void) {
    if (at_mount.count && stg_predict_is_on(STG_PREDICT_PROFILES))
        (void)stg_profiles_follow(&at_mount, true);
    stg_profile_fini(&at_mount);
}
