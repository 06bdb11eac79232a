/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What make reads first where a tree was built before: the files in which compilers have told what
 * their sources include (`.d`). What passes by of them is read here, too, and what they name
 * staged.
 *
 * Such a path is from the folder in which the compiler ran, which is not said: of the file's own
 * folder and those above it one in which the path leads to a file, the one that the last was found
 * from first.
 *
 * Owns that folder, and what was named lately.
 */
#include "fs/predict_impl.h"

#include "cache/depfile.h"
#include "fs/predict_paths.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"

#include <stdlib.h>
#include <string.h>

#define SCAN_MAX_BYTES ((uint64_t)1 << 20)
#define LATELY 8192
#define LATELY_NS INT64_C(30000000000)
#define ABOVE_MAX 32
#define STEPS_MAX 64
#define NAMED_MAX 4096 /* by one file */

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct stg_inode *base; /* referenced; protected by lock, as all below */
static struct stg_build_paths absolute;
static uint64_t lately[LATELY]; /* hashes of paths, since then */
static int64_t lately_ns;
static bool ended;

static uint64_t hash_of(const struct stg_inode *folder, const char *path) {
    uint64_t hash = stg_hash_bytes(path, strlen(path), 0);

    return *path == '/' ? hash : stg_hash_u64(hash ^ (uintptr_t)folder);
}

/* All files of a build name the same few headers. */
static bool is_repeated(uint64_t hash) {
    int64_t now_ns = stg_clock_monotonic_ns();
    bool repeated;

    stg_lock_take(&lock);
    if (now_ns - lately_ns > LATELY_NS) {
        memset(lately, 0, sizeof(lately));
        lately_ns = now_ns;
        absolute.tried = 0;
    }
    repeated = lately[hash % LATELY] == hash;
    stg_lock_drop(&lock);
    return repeated;
}

static void note_named(uint64_t hash) {
    stg_lock_take(&lock);
    lately[hash % LATELY] = hash;
    stg_lock_drop(&lock);
}

/* A path that takes so many lookups is none that a compiler has written. */
static bool is_long(const char *path) {
    unsigned steps = 0;

    for (; *path; path++)
        steps += *path == '/';
    return steps > STEPS_MAX;
}

struct scan {
    struct stg_inode *folder;
    unsigned left;
};

static void file_named(void *context, const char *path) {
    struct scan *scan = context;
    uint64_t hash = hash_of(scan->folder, path);

    if (!scan->left || is_long(path) || is_repeated(hash))
        return;
    scan->left--;
    if (stg_predict_push(STG_GUESS_DEPENDED, scan->folder, path)) /* or it is not predicted */
        note_named(hash);
}

void stg_dependence_scan(struct stg_inode *inode, const char *content, uint64_t bytes) {
    struct scan scan = {.folder = inode->folder, .left = NAMED_MAX};

    stg_depfile_read(content, bytes < SCAN_MAX_BYTES ? bytes : SCAN_MAX_BYTES, file_named, &scan);
}

/* ---- where it is ---- */

/* The file by that path from the folder, referenced. */
static struct stg_inode *file_from(struct stg_inode *folder, const char *path) {
    struct stg_inode *inode = stg_predict_walk(folder, path);

    if (!inode || stg_inode_is_regular(inode))
        return inode;
    stg_inode_unref(inode);
    return NULL;
}

/* The last such folder, referenced, where it is that folder or above it. */
static struct stg_inode *base_above(const struct stg_inode *folder) {
    struct stg_inode *taken = NULL;

    stg_lock_take(&lock);
    for (int i = 0; folder && i < ABOVE_MAX && !taken; i++, folder = folder->folder)
        if (folder == base)
            taken = base;
    if (taken)
        stg_inode_ref(taken);
    stg_lock_drop(&lock);
    return taken;
}

static void set_base(struct stg_inode *folder) {
    struct stg_inode *old = NULL;

    stg_lock_take(&lock);
    if (!ended && base != folder) {
        old = base;
        base = folder;
        stg_inode_ref(folder);
    }
    stg_lock_drop(&lock);
    if (old)
        stg_inode_unref(old);
}

static struct stg_inode *find_relative(struct stg_inode *folder, const char *path) {
    struct stg_inode *last = base_above(folder);
    struct stg_inode *file = last ? file_from(last, path) : NULL;

    if (last)
        stg_inode_unref(last);
    for (int i = 0; !file && folder && i < ABOVE_MAX; i++, folder = folder->folder) {
        file = file_from(folder, path);
        if (file)
            set_base(folder);
    }
    return file;
}

static struct stg_inode *find_absolute(const char *path) {
    stg_auto_free struct stg_build_paths *paths = malloc(sizeof(*paths));
    char whole[PATH_MAX];
    const char *rest;

    if (!paths)
        return NULL;
    stg_lock_take(&lock);
    *paths = absolute;
    stg_lock_drop(&lock);
    rest = stg_build_path(paths, "", path, whole);
    stg_lock_take(&lock);
    if (!absolute.is_known) /* what another has found is as good */
        absolute = *paths;
    stg_lock_drop(&lock);
    return rest && *rest ? file_from(stg_fs.root, rest) : NULL;
}

void stg_dependence_stage(struct stg_inode *folder, const char *path) {
    struct stg_inode *file = *path == '/' ? find_absolute(path) : find_relative(folder, path);

    if (!file)
        return;
    (void)stg_predict_stage(file, STG_PREDICT_GRAPHS); /* or it is there */
    stg_inode_unref(file);
}

/* ---- its end ---- */

static void drop_base(const struct stg_inode *folder) {
    struct stg_inode *old = NULL;

    stg_lock_take(&lock);
    if (!folder || base == folder) {
        old = base;
        base = NULL;
    }
    ended = ended || !folder;
    stg_lock_drop(&lock);
    if (old)
        stg_inode_unref(old);
}

void stg_dependence_removed(const struct stg_inode *folder) { drop_base(folder); }

void stg_dependence_fini(void) { drop_base(NULL); }
