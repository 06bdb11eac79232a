/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a source includes is looked for where a compiler would: in the folder of the source itself,
 * and in the folders of its -I options, which nobody tells; but a compiler asks for each name in
 * each of them, so a folder that is asked for a name which was read in an #include a moment ago is
 * one of them. Until they are known, the folders above the source and the `include` below each of
 * these are tried.
 *
 * Owns the folders that are searched, what was found out lately, and the names that were found
 * nowhere, which are tried again in each new folder. All tables are of fixed size, and forget.
 */
#include "fs/predict_impl.h"

#include "cache/depscan.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/cleanup.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define SEARCHED_MAX 64
#define UNRESOLVED_MAX 2048
#define WANTED_SLOTS 8192
#define MEMO_SLOTS 16384
#define ABOVE_MAX 8
#define SCAN_MAX_BYTES ((uint64_t)1 << 20) /* of a file: who fetches it waits for that */
#define FOUND_NS INT64_C(60000000000)
#define ABSENT_NS INT64_C(10000000000)

enum verdict { UNKNOWN, ABSENT, FOUND };

struct memo {
    uint64_t key;
    int64_t until_ns; /* monotonic */
    enum verdict verdict;
};

struct unresolved {
    struct stg_inode *folder; /* referenced */
    char *name;               /* owned */
    bool angled;
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
/* First components of names that were read in an #include; and those quoted, by their folder. */
static _Atomic uint64_t wanted[WANTED_SLOTS];
static _Atomic uint64_t quoted[WANTED_SLOTS];
static struct memo memos[MEMO_SLOTS];            /* protected by lock, as all below */
static struct stg_inode *searched[SEARCHED_MAX]; /* referenced, in the order of the first probe */
static unsigned searched_count;
static struct unresolved unresolved[UNRESOLVED_MAX];
static unsigned unresolved_count;
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

static void try_unresolved(void) {
    stg_auto_free struct unresolved *taken = calloc(UNRESOLVED_MAX, sizeof(*taken));
    unsigned count;

    if (!taken)
        return;
    stg_lock_take(&lock);
    count = unresolved_count;
    memcpy(taken, unresolved, count * sizeof(*taken));
    unresolved_count = 0;
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < count; i++) {
        (void)stg_predict_push(taken[i].angled ? STG_GUESS_INCLUDE_ANGLED
                                               : STG_GUESS_INCLUDE_QUOTED,
                               taken[i].folder, taken[i].name); /* or it is not predicted */
        stg_inode_unref(taken[i].folder);
        free(taken[i].name);
    }
}

static bool is_searched_locked(const struct stg_inode *folder) {
    for (unsigned i = 0; i < searched_count; i++)
        if (searched[i] == folder)
            return true;
    return false;
}

void stg_include_probed(struct stg_inode *folder, const char *name) {
    size_t bytes = strlen(name);
    bool is_new;

    if (!is_remembered(wanted, stg_hash_bytes(name, bytes, 0)) ||
        is_remembered(quoted, key_of(folder, name, bytes)))
        return;
    stg_lock_take(&lock);
    is_new = !ended && searched_count < SEARCHED_MAX && !is_searched_locked(folder);
    if (is_new) {
        stg_inode_ref(folder);
        searched[searched_count++] = folder;
    }
    stg_lock_drop(&lock);
    if (is_new)
        try_unresolved();
}

/* ---- resolving ---- */

/* The object by that path below the folder, referenced; NULL where there is none. */
static struct stg_inode *walk(struct stg_inode *folder, const char *path) {
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

/* Is the name there? Then it is staged, or was a moment ago. */
static bool is_in(struct stg_inode *folder, const char *name) {
    uint64_t key = key_of(folder, name, strlen(name));
    enum verdict verdict = recall(key);
    struct stg_inode *inode;

    if (verdict != UNKNOWN || stg_predict_is_ending())
        return verdict == FOUND;
    inode = walk(folder, name);
    verdict = inode && stg_inode_is_regular(inode) ? FOUND : ABSENT;
    note(key, verdict);
    if (verdict == FOUND)
        stg_predict_stage(inode, STG_PREDICT_INCLUDES);
    if (inode)
        stg_inode_unref(inode);
    return verdict == FOUND;
}

static bool is_in_searched(const char *name) {
    struct stg_inode *folders[SEARCHED_MAX];
    bool found = false;
    unsigned count;

    stg_lock_take(&lock);
    count = searched_count;
    for (unsigned i = 0; i < count; i++) {
        folders[i] = searched[i];
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

/* Keeps what was found nowhere. */
static void keep_unresolved(struct stg_inode *folder, const char *name, bool angled) {
    struct unresolved one = {folder, strdup(name), angled};
    bool kept;

    if (!one.name)
        return;
    stg_inode_ref(folder);
    stg_lock_take(&lock);
    kept = !ended && unresolved_count < UNRESOLVED_MAX;
    if (kept)
        unresolved[unresolved_count++] = one;
    stg_lock_drop(&lock);
    if (kept)
        return;
    stg_inode_unref(folder);
    free(one.name);
}

void stg_include_resolve(struct stg_inode *folder, const char *name, bool angled) {
    if (!angled && is_in(folder, name))
        return;
    if (is_in_searched(name) || is_above(folder, name) || (angled && is_in(folder, name)))
        return;
    keep_unresolved(folder, name, angled);
}

void stg_include_fini(void) {
    stg_lock_take(&lock);
    ended = true; /* content may still come, and finds nothing to do */
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < searched_count; i++)
        stg_inode_unref(searched[i]);
    for (unsigned i = 0; i < unresolved_count; i++) {
        stg_inode_unref(unresolved[i].folder);
        free(unresolved[i].name);
    }
    searched_count = unresolved_count = 0;
}
