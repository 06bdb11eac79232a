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
#include "fs/primer.h"
#include "fs/staging.h"
#include "fs/tier.h"
#include "util/crew.h"
#include "util/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16
#define FLIGHT_MAX 24     /* entries that are being followed, or queued for that */
#define FOLDERS_MAX 16384 /* that are held */

/* What part of `mem=` may be staged and not read: at first, and at least. */
#define SHARE 2
#define SHARE_LEAST 16

struct step {
    struct stg_crew_work work;
    struct step *next; /* of those that are put off */
    size_t number;     /* in the plan */
    unsigned turn;     /* which plan that is */
    uint64_t bytes;    /* of a file that was put off */
    enum stg_profile_kind kind;
    char *path; /* owned */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct stg_profile plan; /* protected by lock, as all below */
static size_t next;
static struct step *put_off; /* for want of room; in the order of the plan */
static unsigned in_flight;
static bool ended;
/* Folders that were read: what was read of them is kept while they are known. Each referenced. */
static struct stg_inode *folders[FOLDERS_MAX];
static unsigned folder_count;
/* There is something left, for which there was no room. */
static atomic_bool waits;

static struct stg_lock room_lock = STG_LOCK(STG_RANK_LINGER);
static uint64_t reserved; /* of files that are just going to be staged; protected by room_lock */
/* What profiles had staged and nobody had read when the plan was made, of what is still there. */
static uint64_t unread_before;
static uint64_t seen_lost;
static uint64_t seen_evicted;
static unsigned share = SHARE;
static size_t furthest; /* of the files that were staged: its number in the plan */
static unsigned turn;   /* of the plan; written under both locks */

/* Not a step: the folders of what is kept on disk are to become such. */
static struct stg_crew_work kept_folders;

static void follow_kept(void);
static void work(struct stg_crew_work *work);
static void drop_work(struct stg_crew_work *work);
static struct stg_crew crew = STG_CREW(STG_RANK_PLACES, .name = "the profile",
                                       .threads_max = THREADS_MAX, .work = work, .drop = drop_work);

/* ---- room ---- */

/*
 * How much may be staged and not read. What is lost may also have been changed, or not been to be
 * had: so the engine has to have evicted something that nobody had read, too.
 */
static uint64_t window_locked(uint64_t lost_files) {
    uint64_t evicted = stg_cache_stats(stg_staging_cache())->evicted_unused;

    if (lost_files > seen_lost && evicted > seen_evicted && share < SHARE_LEAST)
        share *= 2;
    seen_lost = lost_files;
    seen_evicted = evicted;
    return stg_cache_usage(stg_staging_cache()).hot_limit_bytes / share;
}

/* Is there no room for so much more that nobody has read? Where all was read there always is. */
static bool is_full_locked(uint64_t more_bytes) {
    struct stg_predict_view view = stg_predict_view(STG_PREDICT_PROFILES);
    uint64_t window = window_locked(view.lost_files);
    uint64_t unread = view.unread_bytes + reserved;

    if (unread_before > view.unread_bytes)
        unread_before = view.unread_bytes;
    return unread > unread_before && unread + more_bytes > unread_before + window;
}

static bool is_full(uint64_t more_bytes) {
    bool full;

    stg_lock_take(&room_lock);
    full = is_full_locked(more_bytes);
    stg_lock_drop(&room_lock);
    return full;
}

/*
 * Takes the bytes for what is going to be staged, as several threads do at once. Who was overtaken
 * finds the room taken by what comes after him, and takes more: nobody would read that first.
 */
static bool reserve(const struct step *step) {
    bool full;

    stg_lock_take(&room_lock);
    /* One of a plan before, of which some may be under way, has its number in that. */
    full = step->turn == turn && step->number > furthest && is_full_locked(step->bytes);
    reserved += full ? 0 : step->bytes;
    if (!full && step->turn == turn && step->number > furthest)
        furthest = step->number;
    stg_lock_drop(&room_lock);
    return !full;
}

static void unreserve(uint64_t bytes) {
    stg_lock_take(&room_lock);
    reserved -= bytes;
    stg_lock_drop(&room_lock);
}

static bool fits_never(uint64_t bytes) {
    struct stg_predict_view view;
    bool never;

    stg_lock_take(&room_lock);
    view = stg_predict_view(STG_PREDICT_PROFILES);
    never = bytes > window_locked(view.lost_files);
    stg_lock_drop(&room_lock);
    return never;
}

/* ---- the plan ---- */

static void drop(struct step *step) {
    free(step->path);
    free(step);
}

static void drop_work(struct stg_crew_work *work) {
    if (work != &kept_folders)
        drop((struct step *)(void *)work);
}

static bool is_ended(void) {
    bool is;

    stg_lock_take(&lock);
    is = ended;
    stg_lock_drop(&lock);
    return is;
}

/* Takes the next entry: what is put off comes first. NULL: none, or enough is being followed. */
static struct step *take(void) {
    struct step *step = NULL;

    stg_lock_take(&lock);
    if (ended || in_flight == FLIGHT_MAX) {
        stg_lock_drop(&lock);
        return NULL;
    }
    if (put_off) {
        step = put_off;
        put_off = step->next;
    } else if (next < plan.count && (step = malloc(sizeof(*step)))) {
        struct stg_profile_entry *entry = &plan.entries[next];

        *step =
            (struct step){.kind = entry->kind, .path = entry->path, .number = next++, .turn = turn};
        entry->path = NULL;
    }
    in_flight += step != NULL;
    stg_lock_drop(&lock);
    return step;
}

/* Is there something left to do? How large that is, as far as it is known, is in `*ret_bytes`. */
static bool has_more(uint64_t *ret_bytes) {
    bool more;

    stg_lock_take(&lock);
    more = next < plan.count || put_off;
    *ret_bytes = put_off ? put_off->bytes : 0;
    stg_lock_drop(&lock);
    return more;
}

/* Has what comes next followed, as far as there is room; the last to be done with one goes on. */
static void go_on(void) {
    for (unsigned i = 0; i < FLIGHT_MAX; i++) {
        struct step *step;
        uint64_t bytes;
        bool waiting = has_more(&bytes) && is_full(bytes);

        atomic_store(&waits, waiting);
        if (waiting && is_full(bytes)) /* still: who made room in between has not seen it */
            return;
        step = take();
        if (!step) { /* or there is no memory: the next who reads tries again */
            atomic_store(&waits, has_more(&bytes));
            return;
        }
        if (!stg_crew_push(&crew, &step->work)) { /* at the end of the mount */
            drop(step);
            return;
        }
    }
}

/* Keeps the folder known. */
static void hold_folder(struct stg_inode *folder) {
    bool held = false;

    stg_inode_ref(folder);
    stg_lock_take(&lock);
    if (!ended && folder_count < FOLDERS_MAX) {
        folders[folder_count++] = folder;
        held = true;
    }
    stg_lock_drop(&lock);
    if (!held)
        stg_inode_unref(folder);
}

/* Lets them go, or one of them; not under the lock, as each may be the last to know its inode. */
static void let_go(const struct stg_inode *folder) {
    struct stg_inode *gone;

    do {
        gone = NULL;
        stg_lock_take(&lock);
        for (unsigned i = folder_count; i > 0 && !gone; i--) {
            if (folder && folders[i - 1] != folder)
                continue;
            gone = folders[i - 1];
            folders[i - 1] = folders[--folder_count];
        }
        stg_lock_drop(&lock);
        if (gone)
            stg_inode_unref(gone);
    } while (gone);
}

/* ---- following ---- */

/* False where there is no room: it is to be tried once more. */
static bool stage(struct step *step, struct stg_inode *inode) {
    step->bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    if (!inode->volume->remote || !stg_staging_may_predict(inode) || fits_never(step->bytes))
        return true;
    if (!reserve(step))
        return false;
    (void)stg_predict_stage(inode, STG_PREDICT_PROFILES); /* or it is there by now */
    unreserve(step->bytes);
    return true;
}

static void read_folder(const struct step *step, struct stg_inode *folder) {
    if (!folder->volume->remote)
        return;
    hold_folder(folder);
    stg_listing_read(folder);
    if (step->kind == STG_PROFILE_SEARCH && stg_predict_is_on(STG_PREDICT_INCLUDES))
        stg_include_searched(folder, false);
}

static bool follow(struct step *step) {
    struct stg_inode *inode =
        stg_predict_walk(stg_fs.root, strcmp(step->path, ".") ? step->path : "");
    bool done = true;

    if (!inode)
        return true;
    if (step->kind == STG_PROFILE_FILE) {
        if (stg_inode_is_regular(inode))
            done = stage(step, inode);
    } else if (inode->type == (S_IFDIR >> 12)) {
        read_folder(step, inode);
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
    bool done;

    if (work == &kept_folders) {
        follow_kept();
        return;
    }
    done = follow(step);

    if (done)
        drop(step);
    stg_lock_take(&lock);
    in_flight--;
    if (!done)
        put_off_locked(step);
    stg_lock_drop(&lock);
    go_on();
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

/* Forgets the plan, and what its room was measured by. */
static void begin_anew(void) {
    struct stg_predict_view view;

    stg_lock_take(&room_lock);
    stg_lock_take(&lock);
    forget_locked();
    turn++;
    stg_lock_drop(&lock);
    view = stg_predict_view(STG_PREDICT_PROFILES);
    unread_before = view.unread_bytes;
    seen_lost = view.lost_files;
    seen_evicted = stg_cache_stats(stg_staging_cache())->evicted_unused;
    share = SHARE;
    furthest = 0;
    stg_lock_drop(&room_lock);
    let_go(NULL);
}

/* ---- from outside ---- */

void stg_profiles_removed(const struct stg_inode *folder) { let_go(folder); }

void stg_profiles_used(void) {
    if (atomic_load_explicit(&waits, memory_order_relaxed))
        go_on();
}

uint64_t stg_profiles_follow(struct stg_profile *profile, bool again) {
    uint64_t left;

    if (!stg_fs.root->volume->remote) {
        stg_debug("the source is local: no profile is followed");
        stg_profile_fini(profile);
        return 0;
    }
    if (again)
        begin_anew();
    stg_lock_take(&lock);
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
    stg_lock_take(&lock);
    ended = true;
    stg_lock_drop(&lock);
    stg_crew_stop(&crew);
    stg_lock_take(&lock);
    forget_locked();
    stg_lock_drop(&lock);
    let_go(NULL);
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

/* The process that primes the kernel may have them listed. False at the end, too. */
static bool are_left(void) {
    bool over = false;
    bool listed = false;

    while (!over && !is_ended())
        listed = stg_primer_has_listed(&over);
    return over && !listed;
}

/* What is on disk is good for what is seen of the source: its folders are looked at. */
static void follow_kept(void) {
    struct stg_profile kept = STG_PROFILE_NONE;

    if (!are_left())
        return;
    stg_tier_add_folders(&kept);
    if (kept.count)
        (void)stg_profiles_follow(&kept, false);
    stg_profile_fini(&kept);
}

void stg_profiles_start(void) {
    if (at_mount.left_out)
        stg_warning("%zu lines of the profile are too many, and left out", at_mount.left_out);
    if (at_mount.count)
        (void)stg_profiles_follow(&at_mount, true);
    stg_profile_fini(&at_mount);
}

void stg_profiles_follow_kept(void) {
    /* By a thread, as there may be many; where the mount ends first, not at all. */
    if (stg_fs.root->volume->remote && stg_predict_is_on(STG_PREDICT_PROFILES) && stg_tier_disk())
        (void)stg_crew_push(&crew, &kept_folders);
}
