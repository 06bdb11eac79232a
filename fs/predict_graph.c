/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a build begins, which shows in the file that it is told by (build.ninja, a Makefile), a
 * compilation database beside that file says what will be compiled, and where includes are
 * searched. The folders are made known to the predictor of includes, before a compiler has to be
 * seen asking in them; the sources are staged in the order of the database, a window ahead of the
 * build.
 *
 * The database has absolute paths of whoever configured the build: on the mount, in the source, or
 * on another machine. They are taken for the tree's own where the folder of the database, or the
 * files that its first entries name, are found in the tree at the end of such a path.
 *
 * Owns the plan: what is still to be staged of the database that was read last.
 */
#include "fs/predict_impl.h"

#include "cache/compdb.h"
#include "fs/where.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/io.h"
#include "util/log.h"

#include <limits.h>
#include <string.h>

#define DATABASE "compile_commands.json"
#define DATABASE_MAX_BYTES ((uint64_t)4 << 20) /* parsed it may be some ten times that */
#define PATHS_MAX_BYTES ((size_t)16 << 20)     /* of one list */
#define SOURCES_MAX 100000
#define SEARCHED_MAX 1024
#define TRIED_MAX 4 /* entries that are looked for to find out what the paths mean */
#define WINDOW 256  /* sources that are staged and not read, at first */
#define AHEAD_PER_USED 2
#define IDLE_MAX 1024

struct list {
    char **paths; /* owned, relative to the source */
    uint64_t *hashes;
    unsigned count;
    unsigned room;
    unsigned max;
    size_t bytes; /* of the paths */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct list plan; /* protected by lock, as all below */
static unsigned next;    /* of the plan, to be staged */
static uint64_t loaded;  /* which version of which database */
/* How many sources may be passed over, as they are there already, until one is used. */
static unsigned idle_left;
static bool ended;

bool stg_graph_is_begin(const char *name) {
    /* Not the database: it is looked up here, and would begin what looks it up. */
    static const char *const names[] = {"build.ninja", "Makefile", "makefile", "GNUmakefile"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* ---- paths ---- */

/* Joins and cleans up, by the text alone. False where it is too long, or not absolute. */
static bool make_absolute(const char *directory, const char *path, char whole[PATH_MAX]) {
    const char *parts[] = {*path == '/' ? "" : directory, path};
    size_t used = 0;

    if (*path != '/' && *directory != '/')
        return false;
    for (int i = 0; i < 2; i++) {
        const char *at = parts[i];

        while (*at) {
            size_t bytes = strcspn(at, "/");

            if (bytes == 2 && at[0] == '.' && at[1] == '.') {
                while (used && whole[--used] != '/')
                    ;
            } else if (bytes && !(bytes == 1 && *at == '.')) {
                if (used + 1 + bytes >= PATH_MAX)
                    return false;
                whole[used++] = '/';
                memcpy(whole + used, at, bytes);
                used += bytes;
            }
            at += bytes + (at[bytes] == '/');
        }
    }
    whole[used] = '\0';
    return true;
}

/* ---- what the database names ---- */

struct reading {
    char place[PATH_MAX];  /* of the database's folder */
    char prefix[PATH_MAX]; /* of the paths that are in the tree */
    bool is_known;         /* the prefix */
    unsigned tried;
    struct list sources;
    struct list searched;
};

static void free_list(struct list *list) {
    for (unsigned i = 0; i < list->count; i++)
        free(list->paths[i]);
    free(list->paths);
    free(list->hashes);
    *list = (struct list){0};
}

/* A database repeats itself, mostly in the entry before. */
static bool has(const struct list *list, uint64_t hash) {
    for (unsigned i = list->count; i > 0 && list->count - i < SEARCHED_MAX; i--)
        if (list->hashes[i - 1] == hash)
            return true;
    return false;
}

static void add(struct list *list, const char *path) {
    uint64_t hash = stg_hash_bytes(path, strlen(path), 0);
    char *copy;

    if (list->count == list->max || list->bytes + strlen(path) > PATHS_MAX_BYTES || has(list, hash))
        return;
    if (list->count == list->room) {
        unsigned room = list->room ? list->room * 2 : 256;
        char **paths = reallocarray(list->paths, room, sizeof(*paths));
        uint64_t *hashes;

        list->paths = paths ? paths : list->paths;
        hashes = paths ? reallocarray(list->hashes, room, sizeof(*hashes)) : NULL;
        list->hashes = hashes ? hashes : list->hashes;
        if (!hashes)
            return; /* without memory it is not predicted */
        list->room = room;
    }
    copy = strdup(path);
    if (copy) {
        list->hashes[list->count] = hash;
        list->paths[list->count++] = copy;
        list->bytes += strlen(path);
    }
}

static bool is_in_tree(const char *path) {
    struct stg_inode *inode = stg_predict_walk(stg_fs.root, path);

    if (inode)
        stg_inode_unref(inode);
    return inode != NULL;
}

/* Are paths below `prefix` the tree's? So it is where the tree has the file there. */
static bool try_prefix(struct reading *reading, const char *prefix, const char *file) {
    const char *rest = stg_where_below(file, prefix);

    if (!rest || !*rest || !is_in_tree(rest))
        return false;
    memcpy(reading->prefix, prefix, strlen(prefix) + 1);
    return true;
}

/*
 * The folder of the build is, as a rule, that of the database: then what comes before its place is
 * the tree's. Else the longest end of the file's own path that is in the tree tells.
 */
static void find_prefix(struct reading *reading, const char *directory, const char *file) {
    size_t directory_bytes = strlen(directory);
    size_t place_bytes = strlen(reading->place);
    size_t bytes = directory_bytes - (place_bytes ? place_bytes + 1 : 0);
    char prefix[PATH_MAX];

    reading->tried++;
    memcpy(prefix, directory, directory_bytes + 1);
    if (!place_bytes || (directory_bytes > place_bytes && prefix[bytes] == '/' &&
                         !strcmp(prefix + bytes + 1, reading->place))) {
        prefix[bytes] = '\0';
        reading->is_known = try_prefix(reading, prefix, file);
    }
    for (bytes = 0; !reading->is_known && file[bytes]; bytes++) {
        if (file[bytes] != '/')
            continue;
        memcpy(prefix, file, bytes);
        prefix[bytes] = '\0';
        reading->is_known = try_prefix(reading, prefix, file);
    }
}

/* Adds the path where it is in the tree. */
static void add_path(struct reading *reading, struct list *list, const char *directory,
                     const char *path) {
    char whole[PATH_MAX];
    const char *rest;

    if (!make_absolute(directory, path, whole))
        return;
    rest = stg_where_below(whole, reading->prefix);
    if (rest)
        add(list, rest);
}

static void file_named(void *context, const char *directory, const char *file) {
    struct reading *reading = context;
    char at[PATH_MAX];
    char whole[PATH_MAX];

    if (!reading->is_known && reading->tried < TRIED_MAX && make_absolute("/", directory, at) &&
        make_absolute(directory, file, whole))
        find_prefix(reading, at, whole);
    if (reading->is_known)
        add_path(reading, &reading->sources, directory, file);
}

static void folder_named(void *context, const char *directory, const char *path) {
    struct reading *reading = context;

    if (reading->is_known)
        add_path(reading, &reading->searched, directory, path);
}

/* ---- reading it ---- */

/* The version of the database that is there; 0 where there is none that will be read. */
static uint64_t version_of(int fd, uint64_t *ret_bytes) {
    struct stat info;
    uint64_t words[4];

    if (fstat(fd, &info) || !S_ISREG(info.st_mode) || info.st_size <= 0 ||
        (uint64_t)info.st_size > DATABASE_MAX_BYTES)
        return 0;
    *ret_bytes = (uint64_t)info.st_size;
    words[0] = info.st_dev;
    words[1] = info.st_ino;
    words[2] = *ret_bytes;
    words[3] = (uint64_t)info.st_mtim.tv_sec ^ (uint64_t)info.st_mtim.tv_nsec << 32;
    return stg_hash_bytes(words, sizeof(words), 0) | 1;
}

static void forget_loaded(uint64_t version) {
    stg_lock_take(&lock);
    if (loaded == version)
        loaded = 0;
    stg_lock_drop(&lock);
}

/* The text of the folder's database, owned, where it is not the one that was read last. */
static char *read_database(struct stg_inode *folder, uint64_t *ret_bytes) {
    struct stg_inode *inode = stg_predict_find(folder, DATABASE);
    stg_auto_fd int fd = -1;
    stg_auto_free char *text = NULL;
    char *read;
    uint64_t version;
    bool is_new;

    if (!inode)
        return NULL;
    if (stg_inode_is_regular(inode))
        fd = stg_inode_open(inode, O_RDONLY | O_NONBLOCK);
    stg_inode_unref(inode);
    version = fd < 0 ? 0 : version_of(fd, ret_bytes);
    if (!version)
        return NULL;
    stg_lock_take(&lock);
    is_new = !ended && loaded != version;
    if (is_new)
        loaded = version; /* now: it is read once, however many ask */
    stg_lock_drop(&lock);
    if (!is_new)
        return NULL;
    text = malloc(*ret_bytes);
    if (!text || stg_io_read_whole(fd, text, *ret_bytes, 0) != (ssize_t)*ret_bytes) {
        forget_loaded(version); /* another time, perhaps */
        return NULL;
    }
    read = text;
    text = NULL;
    return read;
}

/* The next sources of the plan are staged. */
static void go_on(unsigned count) {
    char *names[WINDOW];
    unsigned taken = 0;

    stg_lock_take(&lock);
    while (taken < count && taken < WINDOW && next < plan.count) {
        names[taken] = plan.paths[next];
        plan.paths[next++] = NULL;
        taken++;
    }
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < taken; i++) {
        (void)stg_predict_push(STG_GUESS_GRAPH_FILE, stg_fs.root, names[i]); /* or it is not */
        free(names[i]);
    }
}

void stg_graph_read(struct stg_inode *folder) {
    stg_auto_free struct reading *reading = calloc(1, sizeof(*reading));
    const struct stg_compdb_visitor visitor = {file_named, folder_named, reading};
    stg_auto_free char *text = NULL;
    uint64_t bytes = 0;
    int error;

    if (!reading || !stg_where(folder, reading->place))
        return;
    text = read_database(folder, &bytes);
    if (!text)
        return;
    reading->sources.max = SOURCES_MAX;
    reading->searched.max = SEARCHED_MAX;
    error = stg_compdb_read(text, bytes, &visitor);
    stg_debug("%s/" DATABASE ": %u sources, %u folders: %s", reading->place, reading->sources.count,
              reading->searched.count, strerror(-error));
    for (unsigned i = 0; i < reading->searched.count; i++)
        (void)stg_predict_push(STG_GUESS_GRAPH_FOLDER, stg_fs.root, reading->searched.paths[i]);
    free_list(&reading->searched);
    stg_lock_take(&lock);
    if (!ended && reading->sources.count) {
        struct list old = plan;

        plan = reading->sources;
        reading->sources = old;
        next = 0;
        idle_left = IDLE_MAX;
    }
    stg_lock_drop(&lock);
    free_list(&reading->sources);
    go_on(WINDOW);
}

void stg_graph_used(void) {
    stg_lock_take(&lock);
    idle_left = IDLE_MAX;
    stg_lock_drop(&lock);
    go_on(AHEAD_PER_USED);
}

void stg_graph_stage(const char *path) {
    struct stg_inode *inode = stg_predict_walk(stg_fs.root, path);
    bool begun =
        inode && stg_inode_is_regular(inode) && stg_predict_stage(inode, STG_PREDICT_GRAPHS);
    bool goes_on;

    if (inode)
        stg_inode_unref(inode);
    stg_lock_take(&lock);
    goes_on = !begun && idle_left > 0;
    idle_left -= goes_on;
    stg_lock_drop(&lock);
    if (goes_on)
        go_on(1);
}

void stg_graph_search(const char *path) {
    struct stg_inode *folder = stg_predict_walk(stg_fs.root, path);

    if (folder && folder->type == (S_IFDIR >> 12) && stg_predict_is_on(STG_PREDICT_INCLUDES))
        stg_include_searched(folder, false);
    if (folder)
        stg_inode_unref(folder);
}

void stg_graph_fini(void) {
    stg_lock_take(&lock);
    ended = true;
    stg_lock_drop(&lock);
    free_list(&plan);
}
