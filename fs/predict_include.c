/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a source includes is looked for where a compiler would: in the folder of the source itself,
 * and in the folders of its -I options, which nobody tells; but a compiler asks for each name in
 * each of them, so a folder that is asked for a name which was read in an #include a moment ago is
 * one of them. Until they are known, the folders above the source and the `include` below each of
 * these are tried.
 *
 * Owns the folders that are searched, what was found out lately, and the names that were found
 * nowhere, which are tried again in each new folder. All tables are of fixed size, and forget what
 * was used least lately, or is oldest.
 */
#include "fs/predict_impl.h"

#include "cache/depscan.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/cleanup.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define SEARCHED_MAX 256
#define UNRESOLVED_MAX 2048
#define WANTED_SLOTS 8192
#define MEMO_SLOTS 16384
#define ABOVE_MAX 8
#define PASSES_MAX 3                       /* where folders are added meanwhile */
#define SCAN_MAX_BYTES ((uint64_t)1 << 20) /* of a file: who fetches it waits for that */
#define FOUND_NS INT64_C(60000000000)
#define ABSENT_NS INT64_C(10000000000)
/* A name that was found nowhere for so long is of a system header, or of another machine. */
#define UNRESOLVED_NS INT64_C(600000000000)
/* A folder that was probed a moment ago makes no room: with more of them than there is room for,
 * probed in turn, each would be gone when it comes again. */
#define SEARCHED_NS INT64_C(10000000000)

enum verdict { UNKNOWN, ABSENT, FOUND };

struct memo {
    uint64_t key;
    int64_t until_ns; /* monotonic */
    enum verdict verdict;
};

struct searched {
    struct stg_inode *folder; /* referenced */
    int64_t probed_ns;        /* monotonic: for the last time */
};

struct unresolved {
    struct stg_inode *folder; /* referenced; NULL: free */
    char *name;               /* owned */
    uint64_t key;
    int64_t kept_ns; /* monotonic */
    bool angled;
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
/* First components of names that were read in an #include; and those quoted, by their folder. */
static _Atomic uint64_t wanted[WANTED_SLOTS];
static _Atomic uint64_t quoted[WANTED_SLOTS];
static struct memo memos[MEMO_SLOTS];          /* protected by lock, as all below */
static struct searched searched[SEARCHED_MAX]; /* in the order of the first probe */
static unsigned searched_count;
static uint64_t searched_ever; /* folders that were added */
static struct unresolved unresolved[UNRESOLVED_MAX];
static unsigned unresolved_next; /* where the oldest is */
static bool ended;

/* ---- small tables ---- */

static uint64_t key_of(const struct stg_inode *folder, const char *name, size_t bytes) {
    return stg_hash_bytes(name, bytes, folder->ino ^ (uintptr_t)folder->volume);
}

static void remember(_Atomic uint64_t *table, uint64_t hash) {
    atomic_store_explicit(&table[hash % WANTED_SLOTS], hash, memory_order_relaxed);
}

static bool is_remembered(_Atomic uint64_t *table, uint64_t hash) {
    return atomic_load_explicit(&table[hash % WANTED_SLOTS], memory_order_relaxed) == hash;
}

static enum verdict recall(uint64_t key) {
    const struct memo *memo = &memos[key % MEMO_SLOTS];
    enum verdict verdict = UNKNOWN;

    stg_lock_take(&lock);
    if (memo->key == key && memo->until_ns > stg_clock_monotonic_ns())
        verdict = memo->verdict;
    stg_lock_drop(&lock);
    return verdict;
}

static void note(uint64_t key, enum verdict verdict) {
    int64_t keep_ns = verdict == FOUND ? FOUND_NS : ABSENT_NS;

    stg_lock_take(&lock);
    memos[key % MEMO_SLOTS] = (struct memo){key, stg_clock_monotonic_ns() + keep_ns, verdict};
    stg_lock_drop(&lock);
}

/* ---- reading sources ---- */

static void include_found(void *context, const char *name, bool angled) {
    struct stg_inode *folder = context;
    size_t bytes = strlen(name);
    size_t first_bytes = strcspn(name, "/");
    uint64_t key = ~key_of(folder, name, bytes) + angled;

    if (*name == '/')
        return;
    remember(wanted, stg_hash_bytes(name, first_bytes, 0));
    if (!angled)
        remember(quoted, key_of(folder, name, first_bytes));
    if (recall(key) != UNKNOWN)
        return;
    note(key, FOUND); /* its resolution is under way */
    (void)stg_predict_push(angled ? STG_GUESS_INCLUDE_ANGLED : STG_GUESS_INCLUDE_QUOTED, folder,
                           name); /* or it is not predicted */
}

void stg_include_scan(struct stg_inode *inode, const char *content, uint64_t bytes) {
    stg_depscan(content, bytes < SCAN_MAX_BYTES ? bytes : SCAN_MAX_BYTES, include_found,
                inode->folder);
}

/* ---- where is searched ---- */

static void free_unresolved(struct unresolved *one) {
    if (one->folder)
        stg_inode_unref(one->folder);
    free(one->name);
}

/* Takes those that are of the folder, or all for NULL. `taken` has room for all. */
static unsigned take_unresolved_locked(const struct stg_inode *folder, struct unresolved *taken) {
    unsigned count = 0;

    for (unsigned i = 0; i < UNRESOLVED_MAX; i++) {
        struct unresolved *one = &unresolved[(unresolved_next + i) % UNRESOLVED_MAX];

        if (!one->folder || (folder && one->folder != folder))
            continue;
        taken[count++] = *one;
        *one = (struct unresolved){0};
    }
    return count;
}

static void try_unresolved(void) {
    stg_auto_free struct unresolved *taken = calloc(UNRESOLVED_MAX, sizeof(*taken));
    int64_t oldest_ns = stg_clock_monotonic_ns() - UNRESOLVED_NS;
    unsigned count;

    if (!taken)
        return;
    stg_lock_take(&lock);
    count = take_unresolved_locked(NULL, taken);
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < count; i++) {
        if (taken[i].kept_ns > oldest_ns)
            (void)stg_predict_push(taken[i].angled ? STG_GUESS_INCLUDE_ANGLED
                                                   : STG_GUESS_INCLUDE_QUOTED,
                                   taken[i].folder, taken[i].name); /* or it is not predicted */
        free_unresolved(&taken[i]);
    }
}

static struct searched *find_searched_locked(const struct stg_inode *folder) {
    for (unsigned i = 0; i < searched_count; i++)
        if (searched[i].folder == folder)
            return &searched[i];
    return NULL;
}

/* Takes the entry out. Its reference is the caller's. */
static struct stg_inode *remove_searched_locked(struct searched *one) {
    struct stg_inode *folder = one->folder;

    memmove(one, one + 1, sizeof(*one) * (size_t)(&searched[--searched_count] - one));
    return folder;
}

/*
 * Adds the folder, where there is room, or (`asked_for`) one that was not asked for lately makes
 * room: that is in `*ret_gone` then, with its reference. True where it was added.
 */
static bool add_searched_locked(struct stg_inode *folder, int64_t now_ns, bool asked_for,
                                struct stg_inode **ret_gone) {
    struct searched *oldest = searched;

    for (unsigned i = 1; i < searched_count; i++)
        if (searched[i].probed_ns < oldest->probed_ns)
            oldest = &searched[i];
    if (searched_count == SEARCHED_MAX) {
        if (!asked_for || now_ns - oldest->probed_ns < SEARCHED_NS)
            return false;
        *ret_gone = remove_searched_locked(oldest);
    }
    stg_inode_ref(folder);
    searched[searched_count++] = (struct searched){folder, now_ns};
    searched_ever++;
    return true;
}

void stg_include_searched(struct stg_inode *folder, bool asked_for) {
    int64_t now_ns = stg_clock_monotonic_ns();
    struct stg_inode *gone = NULL;
    struct searched *known;
    bool is_new;

    stg_lock_take(&lock);
    known = find_searched_locked(folder);
    is_new = !known && !ended;
    if (known)
        known->probed_ns = now_ns;
    if (is_new)
        is_new = add_searched_locked(folder, now_ns, asked_for, &gone);
    stg_lock_drop(&lock);
    if (gone)
        stg_inode_unref(gone);
    if (is_new)
        try_unresolved();
}

void stg_include_probed(struct stg_inode *folder, const char *name) {
    size_t bytes = strlen(name);

    if (is_remembered(wanted, stg_hash_bytes(name, bytes, 0)) &&
        !is_remembered(quoted, key_of(folder, name, bytes)))
        stg_include_searched(folder, true);
}

void stg_include_removed(const struct stg_inode *folder) {
    stg_auto_free struct unresolved *taken = calloc(UNRESOLVED_MAX, sizeof(*taken));
    struct searched *known;
    struct stg_inode *gone = NULL;
    unsigned count = 0;

    stg_lock_take(&lock);
    known = find_searched_locked(folder);
    if (known)
        gone = remove_searched_locked(known);
    if (taken) /* else they go with their age */
        count = take_unresolved_locked(folder, taken);
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < count; i++)
        free_unresolved(&taken[i]);
    if (gone)
        stg_inode_unref(gone);
}

/* ---- resolving ---- */

/* Is the name there? Then it is staged, or was a moment ago. */
static bool is_in(struct stg_inode *folder, const char *name) {
    uint64_t key = key_of(folder, name, strlen(name));
    enum verdict verdict = recall(key);
    struct stg_inode *inode;

    if (verdict != UNKNOWN || stg_predict_is_ending())
        return verdict == FOUND;
    inode = stg_predict_walk(folder, name);
    verdict = inode && stg_inode_is_regular(inode) ? FOUND : ABSENT;
    note(key, verdict);
    if (verdict == FOUND)
        (void)stg_predict_stage(inode, STG_PREDICT_INCLUDES); /* or it is there */
    if (inode)
        stg_inode_unref(inode);
    return verdict == FOUND;
}

/* `*ret_ever`: how many folders had been added when they were looked through. */
static bool is_in_searched(const char *name, uint64_t *ret_ever) {
    struct stg_inode *folders[SEARCHED_MAX];
    bool found = false;
    unsigned count;

    stg_lock_take(&lock);
    *ret_ever = searched_ever;
    count = searched_count;
    for (unsigned i = 0; i < count; i++) {
        folders[i] = searched[i].folder;
        stg_inode_ref(folders[i]);
    }
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < count; i++) {
        found = found || is_in(folders[i], name);
        stg_inode_unref(folders[i]);
    }
    return found;
}

static bool is_above(const struct stg_inode *folder, const char *name) {
    char below[sizeof("include/") + STG_DEPSCAN_NAME_BYTES];
    struct stg_inode *at = folder->folder;

    (void)snprintf(below, sizeof(below), "include/%s", name); /* fits */
    for (int i = 0; at && i < ABOVE_MAX; i++, at = at->folder)
        if (is_in(at, name) || is_in(at, below))
            return true;
    return false;
}

static bool is_kept_locked(uint64_t key) {
    for (unsigned i = 0; i < UNRESOLVED_MAX; i++)
        if (unresolved[i].folder && unresolved[i].key == key)
            return true;
    return false;
}

/*
 * Keeps what was found nowhere, the oldest making room for it. False where another folder was added
 * since it was looked for: that has to be looked through, too.
 */
static bool keep_unresolved(struct stg_inode *folder, const char *name, bool angled,
                            uint64_t seen_ever) {
    struct unresolved one = {.folder = folder,
                             .name = strdup(name),
                             .key = key_of(folder, name, strlen(name)) + angled,
                             .kept_ns = stg_clock_monotonic_ns(),
                             .angled = angled};
    bool current;

    stg_inode_ref(folder);
    stg_lock_take(&lock);
    current = ended || searched_ever == seen_ever;
    if (current && !ended && one.name && !is_kept_locked(one.key)) {
        struct unresolved *slot = &unresolved[unresolved_next];
        struct unresolved oldest = *slot;

        *slot = one;
        unresolved_next = (unresolved_next + 1) % UNRESOLVED_MAX;
        one = oldest;
    }
    stg_lock_drop(&lock);
    free_unresolved(&one);
    return current;
}

void stg_include_resolve(struct stg_inode *folder, const char *name, bool angled) {
    uint64_t seen_ever;

    if (!angled && is_in(folder, name))
        return;
    for (int i = 0; i < PASSES_MAX; i++) {
        if (is_in_searched(name, &seen_ever) || is_above(folder, name) ||
            (angled && is_in(folder, name)) || keep_unresolved(folder, name, angled, seen_ever))
            return;
    }
}

void stg_include_fini(void) {
    stg_lock_take(&lock);
    ended = true; /* content may still come, and finds nothing to do */
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < searched_count; i++)
        stg_inode_unref(searched[i].folder);
    searched_count = 0;
    for (unsigned i = 0; i < UNRESOLVED_MAX; i++) {
        free_unresolved(&unresolved[i]);
        unresolved[i] = (struct unresolved){0};
    }
}
