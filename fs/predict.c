/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the accounts of the predictors, the queue of guesses, and the threads that follow them. */
#include "fs/predict_impl.h"

#include "cache/depfile.h"
#include "cache/depscan.h"
#include "fs/coherence.h"
#include "fs/listing.h"
#include "fs/names.h"
#include "fs/ops.h"
#include "fs/staging.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/crew.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16
#define GUESSES_MAX 16384

/* So many files of a predictor may be unread, and four more for each that was read. */
#define UNREAD_MAX 512
#define UNREAD_PER_USED 4
/* After that time what is behind counts half. */
#define RECORD_NS INT64_C(60000000000)

struct guess {
    struct stg_crew_work work;
    struct stg_inode *folder; /* referenced */
    enum stg_guess_kind kind;
    char name[];
};

struct account {
    uint64_t files, bytes, used_files, used_bytes, skipped; /* protected by lock, as all below */
    uint64_t unread_bytes; /* in KiB that were rounded up: what is there, and was not read */
    uint64_t lost_files;   /* that were evicted before anybody read them */
    uint64_t recent_files, recent_used;
    int64_t halved_ns; /* monotonic */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct account accounts[STG_PREDICTORS]; /* protected by lock, as all below */
static uint64_t opened_files;
static atomic_bool ending;

static void work(struct stg_crew_work *work);
static void drop(struct stg_crew_work *work);
static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "predictions", .threads_max = THREADS_MAX,
             .length_max = GUESSES_MAX, .work = work, .drop = drop);

static const char *const names[STG_PREDICTORS] = {"includes", "siblings", "graphs", "profiles"};

bool stg_predict_is_on(enum stg_predictor which) {
    return stg_staging_cache() && (stg_fs.options.predict & 1U << which);
}

bool stg_predict_is_ending(void) { return atomic_load(&ending); }

static bool is_any_on(void) { return stg_staging_cache() && stg_fs.options.predict; }

/* ---- accounts ---- */

static bool is_throttled_locked(struct account *account) {
    int64_t now_ns = stg_clock_monotonic_ns();

    if (now_ns - account->halved_ns > RECORD_NS) {
        account->halved_ns = now_ns;
        account->recent_files /= 2;
        account->recent_used /= 2;
    }
    return account->recent_files > account->recent_used * (UNREAD_PER_USED + 1) + UNREAD_MAX;
}

/* Where a recorded build has what is opened, what else is in its folders is not wanted. */
static bool is_known_better_locked(enum stg_predictor which) {
    return which == STG_PREDICT_SIBLINGS &&
           accounts[STG_PREDICT_PROFILES].used_files * 5 > opened_files * 4;
}

bool stg_predict_holds_back(enum stg_predictor which) {
    struct stg_cache_usage usage = stg_cache_usage(stg_staging_cache());
    bool full = usage.hot_bytes > usage.hot_limit_bytes / 8 * 7;
    bool held_back;

    stg_lock_take(&lock);
    held_back = full || is_throttled_locked(&accounts[which]) || is_known_better_locked(which);
    accounts[which].skipped += held_back;
    stg_lock_drop(&lock);
    return held_back;
}

static void count_guess(enum stg_predictor which, uint64_t bytes, uint32_t kib) {
    stg_lock_take(&lock);
    accounts[which].files++;
    accounts[which].bytes += bytes;
    accounts[which].unread_bytes += (uint64_t)kib << 10;
    accounts[which].recent_files++;
    stg_lock_drop(&lock);
}

/*
 * What was guessed is read; or (`lost`) never was, as it was evicted, or is guessed by another now.
 * `hints` are what the inode had, and has no more.
 */
static void settle_locked(uint8_t hints, struct stg_inode *inode, bool lost) {
    uint64_t guessed_bytes = (uint64_t)atomic_load(&inode->guessed_kib) << 10;
    uint64_t size_bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    unsigned by = hints >> STG_HINT_BY_SHIFT;

    for (unsigned i = 0; i < STG_PREDICTORS; i++) {
        struct account *account = &accounts[i];

        if (!(by & 1U << i))
            continue;
        account->unread_bytes -=
            account->unread_bytes < guessed_bytes ? account->unread_bytes : guessed_bytes;
        account->lost_files += lost;
        account->used_bytes += lost ? 0 : size_bytes;
        account->used_files += !lost;
        account->recent_used += !lost;
    }
}

void stg_predict_evicted(struct stg_inode *inode) {
    uint8_t before = atomic_load_explicit(&inode->hints, memory_order_relaxed);

    if (!(before & STG_HINT_GUESSED))
        return;
    before = atomic_fetch_and(&inode->hints, (uint8_t)~STG_HINT_GUESSED);
    if (!(before & STG_HINT_GUESSED))
        return;
    stg_lock_take(&lock);
    settle_locked(before, inode, true);
    stg_lock_drop(&lock);
}

void stg_predict_wanted(struct stg_inode *inode, bool missed) {
    uint8_t before;
    unsigned by;

    if (!inode->folder || !is_any_on())
        return;
    before = atomic_load_explicit(&inode->hints, memory_order_relaxed);
    if ((before & STG_HINT_WANTED) && !(before & STG_HINT_GUESSED) && !missed)
        return; /* a hot one, as most are */
    (void)atomic_fetch_or(&inode->hints, STG_HINT_WANTED);
    before = atomic_fetch_and(&inode->hints, (uint8_t)~STG_HINT_GUESSED);
    by = before >> STG_HINT_BY_SHIFT;
    stg_lock_take(&lock);
    opened_files++;
    if (before & STG_HINT_GUESSED)
        settle_locked(before, inode, false);
    stg_lock_drop(&lock);
    if (stg_predict_is_on(STG_PREDICT_SIBLINGS))
        stg_sibling_opened(inode);
    if ((before & STG_HINT_GUESSED) && (by & 1U << STG_PREDICT_GRAPHS))
        stg_graph_used();
    stg_profiles_used();
}

struct stg_predict_view stg_predict_view(enum stg_predictor which) {
    struct account *account = &accounts[which];
    struct stg_predict_view view = {.name = names[which], .enabled = stg_predict_is_on(which)};

    stg_lock_take(&lock);
    view.throttled = which != STG_PREDICT_PROFILES && is_throttled_locked(account);
    view.files = account->files;
    view.bytes = account->bytes;
    view.used_files = account->used_files;
    view.used_bytes = account->used_bytes;
    view.unread_bytes = account->unread_bytes;
    view.lost_files = account->lost_files;
    view.skipped = account->skipped;
    view.opened_files = opened_files;
    stg_lock_drop(&lock);
    return view;
}

/* ---- what is known of files ---- */

void stg_predict_met(struct stg_inode *inode, struct stg_inode *folder, const char *name) {
    struct stg_inode *none = NULL;

    if (!inode->volume->remote || !is_any_on() || inode->folder)
        return;
    if (stg_inode_is_regular(inode)) {
        inode->name_hash = (uint32_t)stg_hash_bytes(name, strlen(name), 0);
        if (stg_depscan_is_code(name))
            (void)atomic_fetch_or(&inode->hints, STG_HINT_CODE);
        if (stg_depfile_is(name))
            (void)atomic_fetch_or(&inode->hints, STG_HINT_DEPENDS);
        if (stg_predict_is_on(STG_PREDICT_GRAPHS) && stg_graph_is_begin(name))
            (void)stg_predict_push(STG_GUESS_GRAPH, folder, ""); /* or it is not predicted */
    }
    stg_inode_ref(folder);
    if (!atomic_compare_exchange_strong(&inode->folder, &none, folder))
        stg_inode_unref(folder);
}

void stg_predict_removed(struct stg_inode *inode) {
    if (inode->type != (S_IFDIR >> 12) || !inode->volume->remote || !is_any_on())
        return;
    stg_include_removed(inode);
    stg_dependence_removed(inode);
    stg_profiles_removed(inode);
    stg_sibling_removed(inode);
}

struct stg_inode *stg_predict_free(struct stg_inode *inode) {
    stg_predict_evicted(inode); /* its copy held it until then */
    return atomic_exchange(&inode->folder, NULL);
}

void stg_predict_probed(struct stg_inode *folder, const char *name) {
    if (stg_predict_is_on(STG_PREDICT_INCLUDES))
        stg_include_probed(folder, name);
}

void stg_predict_content(struct stg_inode *inode, const char *content, uint64_t bytes) {
    uint8_t hints = atomic_load_explicit(&inode->hints, memory_order_relaxed);

    if (!inode->folder)
        return;
    if ((hints & STG_HINT_CODE) && stg_predict_is_on(STG_PREDICT_INCLUDES))
        stg_include_scan(inode, content, bytes);
    if ((hints & STG_HINT_DEPENDS) && stg_predict_is_on(STG_PREDICT_GRAPHS))
        stg_dependence_scan(inode, content, bytes);
}

/* ---- following a guess ---- */

/* A sync waits for it, as for a request: it notes what it has seen. */
static int look_up(struct stg_inode *folder, const char *name, struct stg_inode **ret_inode,
                   struct statx *ret_stx) {
    stg_auto_look looking = stg_coherence_enter();

    return stg_lookup_unanswered(folder, name, ret_inode, ret_stx);
}

struct stg_inode *stg_predict_find(struct stg_inode *folder, const char *name) {
    struct stg_inode *inode;
    struct statx stx;
    double left_s;

    if (folder->type != (S_IFDIR >> 12) || stg_name_is_dots(name) || stg_predict_is_ending())
        return NULL;
    stg_listing_read(folder);
    if (stg_listing_lacks(folder, name, &left_s))
        return NULL;
    if (look_up(folder, name, &inode, &stx))
        return NULL;
    stg_inode_ref(inode);
    stg_inode_forget(inode, 1);
    if (!S_ISLNK(stx.stx_mode))
        return inode;
    stg_inode_unref(inode);
    return NULL;
}

struct stg_inode *stg_predict_walk(struct stg_inode *folder, const char *path) {
    struct stg_inode *at = folder;
    char step[STG_DEPSCAN_NAME_BYTES];

    stg_inode_ref(at);
    while (*path && at) {
        size_t bytes = strcspn(path, "/");
        struct stg_inode *next = at;

        if (bytes >= sizeof(step)) {
            next = NULL;
        } else if (bytes) {
            memcpy(step, path, bytes);
            step[bytes] = '\0';
            if (!strcmp(step, ".."))
                next = at->folder; /* NULL above the source */
            if (strcmp(step, ".") && strcmp(step, ".."))
                next = stg_predict_find(at, step);
            else if (next)
                stg_inode_ref(next);
        } else {
            stg_inode_ref(next);
        }
        stg_inode_unref(at);
        at = next;
        path += bytes + (path[bytes] == '/');
    }
    return at;
}

/* Takes what was counted of a guess that came to nothing back. */
static void uncount_guess(enum stg_predictor which, uint64_t bytes, uint32_t kib) {
    struct account *account = &accounts[which];
    uint64_t back = (uint64_t)kib << 10;

    stg_lock_take(&lock);
    account->files--;
    account->bytes -= bytes;
    account->unread_bytes -= account->unread_bytes < back ? account->unread_bytes : back;
    account->recent_files -= account->recent_files > 0;
    stg_lock_drop(&lock);
}

bool stg_predict_stage(struct stg_inode *inode, enum stg_predictor which) {
    uint8_t mark = (uint8_t)(1U << which << STG_HINT_BY_SHIFT) | STG_HINT_GUESSED;
    uint64_t bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    uint32_t kib = (uint32_t)((bytes + 1023) >> 10); /* `threshold` is no more than a petabyte */
    uint8_t before;
    uint8_t after;

    if (!inode->volume->remote || !stg_staging_may_predict(inode))
        return false;
    /* First: who opens it while it is being fetched has been helped, too. */
    stg_predict_evicted(inode); /* what another guessed is there no more */
    count_guess(which, bytes, kib);
    before = atomic_load(&inode->hints);
    do {
        if (before & STG_HINT_GUESSED) { /* just now, by another */
            uncount_guess(which, bytes, kib);
            return false;
        }
        after = (uint8_t)((before & ((1U << STG_HINT_BY_SHIFT) - 1)) | mark);
        atomic_store(&inode->guessed_kib, kib);
    } while (!atomic_compare_exchange_weak(&inode->hints, &before, after));
    if (stg_staging_predict(inode))
        return true;
    before = atomic_fetch_and(&inode->hints, (uint8_t)~STG_HINT_GUESSED);
    if (before & STG_HINT_GUESSED) /* else it was read, or evicted, and is settled */
        uncount_guess(which, bytes, kib);
    return false;
}

static void stage_sibling(struct stg_inode *folder, const char *name) {
    struct stg_inode *inode = stg_predict_find(folder, name);

    if (!inode)
        return;
    if (stg_inode_is_regular(inode))
        (void)stg_predict_stage(inode, STG_PREDICT_SIBLINGS); /* or it is there */
    stg_inode_unref(inode);
}

static void follow(const struct guess *guess) {
    static const enum stg_predictor of[] = {
        [STG_GUESS_INCLUDE_QUOTED] = STG_PREDICT_INCLUDES,
        [STG_GUESS_INCLUDE_ANGLED] = STG_PREDICT_INCLUDES,
        [STG_GUESS_SIBLING] = STG_PREDICT_SIBLINGS,
        [STG_GUESS_FOLDER] = STG_PREDICT_SIBLINGS,
        [STG_GUESS_GRAPH] = STG_PREDICT_GRAPHS,
        [STG_GUESS_GRAPH_FILE] = STG_PREDICT_GRAPHS,
        [STG_GUESS_GRAPH_FOLDER] = STG_PREDICT_GRAPHS,
        [STG_GUESS_DEPENDED] = STG_PREDICT_GRAPHS,
    };

    if (stg_predict_holds_back(of[guess->kind]) &&
        guess->kind != STG_GUESS_FOLDER) /* who waits for that is to be told */
        return;
    switch (guess->kind) {
    case STG_GUESS_INCLUDE_QUOTED:
    case STG_GUESS_INCLUDE_ANGLED:
        stg_include_resolve(guess->folder, guess->name, guess->kind == STG_GUESS_INCLUDE_ANGLED);
        break;
    case STG_GUESS_SIBLING:
        stage_sibling(guess->folder, guess->name);
        break;
    case STG_GUESS_FOLDER:
        stg_sibling_read_folder(guess->folder);
        break;
    case STG_GUESS_GRAPH:
        stg_graph_read(guess->folder);
        break;
    case STG_GUESS_GRAPH_FILE:
        stg_graph_stage(guess->name);
        break;
    case STG_GUESS_GRAPH_FOLDER:
        stg_graph_search(guess->name);
        break;
    case STG_GUESS_DEPENDED:
        stg_dependence_stage(guess->folder, guess->name);
        break;
    }
}

/* ---- the queue ---- */

static void drop_guess(struct guess *guess) {
    stg_inode_unref(guess->folder);
    free(guess);
}

static void drop(struct stg_crew_work *work) { drop_guess((struct guess *)(void *)work); }

static void work(struct stg_crew_work *work) {
    struct guess *guess = (struct guess *)(void *)work;

    follow(guess);
    drop_guess(guess);
}

bool stg_predict_push(enum stg_guess_kind kind, struct stg_inode *folder, const char *name) {
    size_t bytes = strlen(name) + 1;
    struct guess *guess = malloc(sizeof(*guess) + bytes);
    bool pushed;

    if (!guess)
        return false;
    *guess = (struct guess){.folder = folder, .kind = kind};
    memcpy(guess->name, name, bytes);
    stg_inode_ref(folder);
    pushed = stg_crew_push(&crew, &guess->work);
    if (!pushed)
        drop_guess(guess);
    return pushed;
}

void stg_predict_stop(void) {
    atomic_store(&ending, true); /* what is being followed is given up */
    stg_crew_stop(&crew);
    stg_profiles_fini(); /* whose threads ask the others */
    stg_include_fini();
    stg_sibling_fini();
    stg_graph_fini();
    stg_dependence_fini();
}
