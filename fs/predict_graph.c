/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a build begins, which shows in the file that it is told by (build.ninja, a Makefile), two
 * files beside that file say more. What ninja remembers of earlier builds (.ninja_deps) names each
 * source, and after it what that includes, in the order of those builds. A compilation database
 * says what will be compiled, and where includes are searched, itself or in response files: the
 * folders are made known to the predictor of includes, before a compiler has to be seen asking in
 * them. What is named is staged in that order, a window ahead of the build.
 *
 * Owns the plan: what is still to be staged of what was read last.
 */
#include "fs/predict_impl.h"

#include "cache/compdb.h"
#include "cache/ninjadeps.h"
#include "fs/predict_paths.h"
#include "fs/where.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/io.h"
#include "util/log.h"

#include <limits.h>
#include <string.h>

#define DATABASE "compile_commands.json"
#define DATABASE_MAX_BYTES ((uint64_t)4 << 20) /* parsed it may be some ten times that */
#define MEMORY ".ninja_deps"
#define MEMORY_MAX_BYTES ((uint64_t)16 << 20)
#define READ_BYTES ((uint64_t)1 << 20) /* at once: the mount may end */
#define RESPONSE_MAX_BYTES ((uint64_t)1 << 20)
#define RESPONSES_MAX 64                   /* that are read for one database */
#define PATHS_MAX_BYTES ((size_t)16 << 20) /* of one list */
#define SOURCES_MAX 100000
#define SEARCHED_MAX 1024
#define WINDOW 256 /* sources that are staged and not read, at first */
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
static uint64_t loaded;  /* which versions of which files */
static bool loading;     /* one is read at a time, as that takes memory */
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

/* ---- what the database names ---- */

struct reading {
    struct stg_build_paths paths;
    struct list sources;
    struct list remembered;
    struct list searched;
    struct list responses; /* that were read */
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

    if (list->count == list->max || list->bytes + strlen(path) > PATHS_MAX_BYTES ||
        stg_predict_is_ending() || has(list, hash))
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

/* Adds the path where it is in the tree. */
static void add_path(struct reading *reading, struct list *list, const char *directory,
                     const char *path) {
    char whole[PATH_MAX];
    const char *rest = stg_build_path(&reading->paths, directory, path, whole);

    if (rest)
        add(list, rest);
}

static void file_named(void *context, const char *directory, const char *file) {
    struct reading *reading = context;

    add_path(reading, &reading->sources, directory, file);
}

static void folder_named(void *context, const char *directory, const char *path) {
    struct reading *reading = context;

    add_path(reading, &reading->searched, directory, path);
}

static void file_remembered(void *context, const char *path) {
    struct reading *reading = context;

    add_path(reading, &reading->remembered, "", path);
}

/* ---- reading it ---- */

struct text {
    int fd; /* owned; -1: there is none that will be read */
    uint64_t bytes;
    uint64_t version;
    char *content; /* owned; NULL: it was not read */
};

static void text_fini(struct text *text) {
    stg_fd_close(text->fd);
    free(text->content);
}

/* Opens the file, where it is one of no more than `max_bytes`. Takes the reference. */
static struct text text_open(struct stg_inode *inode, uint64_t max_bytes) {
    struct text text = {.fd = -1};
    struct stat info;
    uint64_t words[4];

    if (inode && stg_inode_is_regular(inode))
        text.fd = stg_inode_open(inode, O_RDONLY | O_NONBLOCK);
    if (inode)
        stg_inode_unref(inode);
    if (text.fd < 0)
        return (struct text){.fd = -1};
    if (fstat(text.fd, &info) || !S_ISREG(info.st_mode) || info.st_size <= 0 ||
        (uint64_t)info.st_size > max_bytes) {
        stg_fd_close(text.fd);
        return (struct text){.fd = -1};
    }
    text.bytes = (uint64_t)info.st_size;
    words[0] = info.st_dev;
    words[1] = info.st_ino;
    words[2] = text.bytes;
    words[3] = (uint64_t)info.st_mtim.tv_sec ^ (uint64_t)info.st_mtim.tv_nsec << 32;
    text.version = stg_hash_bytes(words, sizeof(words), 0) | 1;
    return text;
}

/* False where it is there and cannot be read. */
static bool text_read(struct text *text) {
    uint64_t done = 0;

    if (text->fd < 0)
        return true;
    text->content = malloc(text->bytes);
    while (text->content && done < text->bytes && !stg_predict_is_ending()) {
        uint64_t left = text->bytes - done;
        uint64_t bytes = left < READ_BYTES ? left : READ_BYTES;

        if (stg_io_read_whole(text->fd, text->content + done, bytes, done) != (ssize_t)bytes)
            break;
        done += bytes;
    }
    if (text->content && done == text->bytes)
        return true;
    free(text->content);
    text->content = NULL;
    return false;
}

/* Are those versions others than what was read last? They are read once, however many ask. */
static bool begin_loading(uint64_t version) {
    bool begins;

    stg_lock_take(&lock);
    begins = !ended && !loading && loaded != version;
    if (begins) {
        loaded = version;
        loading = true;
    }
    stg_lock_drop(&lock);
    return begins;
}

static void end_loading(bool whole) {
    stg_lock_take(&lock);
    loading = false;
    if (!whole)
        loaded = 0; /* another time, perhaps */
    stg_lock_drop(&lock);
}

/* A command of the database has its options in a file. One that is named in such a one is not read.
 */
static void response_named(void *context, const char *directory, const char *path) {
    struct reading *reading = context;
    const struct stg_compdb_visitor visitor = {
        .file = file_named, .searched = folder_named, .context = reading};
    unsigned before = reading->responses.count;
    struct text text;

    add_path(reading, &reading->responses, directory, path);
    if (reading->responses.count == before)
        return; /* it was read, or is not in the tree */
    text = text_open(stg_predict_walk(stg_fs.root, reading->responses.paths[before]),
                     RESPONSE_MAX_BYTES);
    if (text_read(&text) && text.content)
        (void)stg_compdb_read_response(directory, text.content, text.bytes,
                                       &visitor); /* or without memory: less is predicted */
    text_fini(&text);
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

/* The second list comes after the first, and both are the second. */
static void append(struct list *first, struct list *second) {
    for (unsigned i = 0; i < second->count; i++)
        add(first, second->paths[i]);
    free_list(second);
    *second = *first;
    *first = (struct list){0};
}

static void read_all(struct reading *reading, const struct text *memory,
                     const struct text *database) {
    const struct stg_compdb_visitor visitor = {file_named, folder_named, response_named, reading};
    int errors[2] = {0};

    reading->sources.max = SOURCES_MAX;
    reading->remembered.max = SOURCES_MAX;
    reading->searched.max = SEARCHED_MAX;
    reading->responses.max = RESPONSES_MAX;
    if (database->content) /* first: it tells best where the tree is */
        errors[1] = stg_compdb_read(database->content, database->bytes, &visitor);
    if (memory->content)
        errors[0] = stg_ninjadeps_read(memory->content, memory->bytes, file_remembered, reading);
    free_list(&reading->responses);
    if (reading->remembered.count) /* it knows what else is read, and when */
        append(&reading->remembered, &reading->sources);
    stg_debug("the build in '%s': %u files, %u folders: %s, %s", reading->paths.place,
              reading->sources.count, reading->searched.count, strerror(-errors[0]),
              strerror(-errors[1]));
}

/* Follows what was read, from its begin. */
static void begin_plan(struct reading *reading) {
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

void stg_graph_read(struct stg_inode *folder) {
    stg_auto_free struct reading *reading = calloc(1, sizeof(*reading));
    struct text memory;
    struct text database;
    uint64_t version;

    if (!reading || !stg_where(folder, reading->paths.place))
        return;
    memory = text_open(stg_predict_find(folder, MEMORY), MEMORY_MAX_BYTES);
    database = text_open(stg_predict_find(folder, DATABASE), DATABASE_MAX_BYTES);
    version = memory.version * 31 + database.version;
    if ((memory.version || database.version) && begin_loading(version)) {
        bool whole = text_read(&memory);

        whole = text_read(&database) && whole;
        read_all(reading, &memory, &database);
        end_loading(whole);
        begin_plan(reading);
    }
    text_fini(&memory);
    text_fini(&database);
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
