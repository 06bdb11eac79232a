/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the changes behind the mount. Each is logged before it begins and after it ended; under the
 * locks of its folders and its object the model knows what must succeed, and what does not is an
 * error of the test.
 */
#include "coherence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SOURCE stg_ch_settings.source

static void must(bool ok, const char *what, const char *path) {
    char text[160];

    if (ok)
        return;
    snprintf(text, sizeof(text), "%s %s", what, path);
    stg_ch_die(text);
}

/* ---- folders ---- */

static unsigned dir_of(unsigned name) { return name / STG_CH_LEAVES; }

/* A lock of any folder keeps all folders where they are: who moves one takes them all. */
static void lock_two(unsigned one, unsigned other) {
    pthread_mutex_lock(&stg_ch_dir_locks[one < other ? one : other]);
    if (one != other)
        pthread_mutex_lock(&stg_ch_dir_locks[one < other ? other : one]);
}

static void unlock_two(unsigned one, unsigned other) {
    if (one != other)
        pthread_mutex_unlock(&stg_ch_dir_locks[one < other ? other : one]);
    pthread_mutex_unlock(&stg_ch_dir_locks[one < other ? one : other]);
}

static void lock_all(void) {
    for (unsigned i = 0; i < STG_CH_DIRS; i++)
        pthread_mutex_lock(&stg_ch_dir_locks[i]);
}

static void unlock_all(void) {
    for (unsigned i = STG_CH_DIRS; i-- > 0;)
        pthread_mutex_unlock(&stg_ch_dir_locks[i]);
}

static bool is_there(unsigned dir) { return stg_ch_state(&stg_ch_dirs[dir]).kind == STG_CH_DIR; }

/* ---- content ---- */

static uint64_t random_size(uint64_t *rng) {
    uint64_t kind = stg_ch_below(rng, 100);
    uint64_t bytes;

    if (kind < 4)
        return 0;
    if (kind < 6)
        bytes = STG_CH_LARGE_BYTES;
    else if (kind < 50)
        bytes = stg_ch_below(rng, 6000);
    else
        bytes = stg_ch_below(rng, STG_CH_SMALL_BYTES);
    return bytes / STG_CH_BLOCK_BYTES * STG_CH_BLOCK_BYTES;
}

static uint64_t larger(uint64_t one, uint64_t other) { return one > other ? one : other; }

/* Begins a version of some blocks, and makes them in the writer's buffer. */
static void make_blocks(struct stg_ch_writer *w, struct stg_ch_object *object, uint32_t first,
                        uint32_t n, const char *what) {
    struct stg_ch_version now = stg_ch_version_now(object);
    uint64_t end = (uint64_t)(first + n) * STG_CH_BLOCK_BYTES;
    uint32_t version;

    version = stg_ch_version_begin(object, (struct stg_ch_version){.first = first,
                                                                   .blocks = n,
                                                                   .size = larger(now.size, end),
                                                                   .mode = now.mode,
                                                                   .what = what});
    stg_ch_fill(w->data, object->id, version, first, n);
}

static void put_blocks(struct stg_ch_writer *w, int fd, uint32_t first, uint32_t n) {
    size_t bytes = (size_t)n * STG_CH_BLOCK_BYTES;

    must(pwrite(fd, w->data, bytes, (off_t)first * STG_CH_BLOCK_BYTES) == (ssize_t)bytes, "write",
         "");
}

static void write_blocks(struct stg_ch_writer *w, struct stg_ch_object *object, int fd,
                         uint32_t first, uint32_t n, const char *what) {
    make_blocks(w, object, first, n, what);
    put_blocks(w, fd, first, n);
    stg_ch_version_end(object);
}

static void set_size(struct stg_ch_object *object, int fd, uint64_t size, const char *what) {
    struct stg_ch_version now = stg_ch_version_now(object);
    uint64_t from = size < now.size ? size : now.size;

    stg_ch_version_begin(object,
                         (struct stg_ch_version){.first = (uint32_t)(from / STG_CH_BLOCK_BYTES),
                                                 .blocks = STG_CH_TO_END,
                                                 .size = size,
                                                 .mode = now.mode,
                                                 .zero = true,
                                                 .what = what});
    must(ftruncate(fd, (off_t)size) == 0, "ftruncate", "");
    stg_ch_version_end(object);
}

static uint32_t random_blocks(uint64_t *rng, uint64_t size, uint32_t *ret_first) {
    uint32_t blocks = (uint32_t)(size / STG_CH_BLOCK_BYTES);

    *ret_first = (uint32_t)stg_ch_below(rng, blocks);
    if (stg_ch_below(rng, 3) == 0)
        *ret_first = 0;
    return 1 + (uint32_t)stg_ch_below(rng, blocks - *ret_first);
}

/* The object's file, at a path that nobody has. */
static int make_file(struct stg_ch_object *object, const char *path) {
    int fd = openat(SOURCE, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    must(fd >= 0, "create", path);
    stg_ch_object_is(object, fd);
    return fd;
}

/* ---- edits of one file: `fd` is open for writing, object->edit is held ---- */

struct file {
    struct stg_ch_writer *w;
    struct stg_ch_object *object;
    struct stg_ch_version now;
    int fd;
    const char *path;
};

static bool edit_overwrite(struct file *f) {
    uint32_t first, n;

    if (f->now.size == 0)
        return false;
    n = random_blocks(&f->w->rng, f->now.size, &first);
    write_blocks(f->w, f->object, f->fd, first, n, "overwrite");
    return true;
}

static bool edit_append(struct file *f) {
    uint32_t first = (uint32_t)(f->now.size / STG_CH_BLOCK_BYTES);
    uint32_t n = 1 + (uint32_t)stg_ch_below(&f->w->rng, 300);

    if (f->now.size + (uint64_t)n * STG_CH_BLOCK_BYTES > STG_CH_ROOM_BYTES)
        return false;
    write_blocks(f->w, f->object, f->fd, first, n, "append");
    return true;
}

static bool edit_truncate(struct file *f) {
    uint64_t size = random_size(&f->w->rng);

    if (size == f->now.size)
        return false;
    set_size(f->object, f->fd, size, size < f->now.size ? "truncate" : "extend");
    return true;
}

static bool edit_rewrite(struct file *f) {
    uint64_t size = random_size(&f->w->rng);

    set_size(f->object, f->fd, 0, "rewrite: empty");
    write_blocks(f->w, f->object, f->fd, 0, (uint32_t)(size / STG_CH_BLOCK_BYTES), "rewrite");
    return true;
}

/* Size and mtime are as before: only the ctime tells. */
static bool edit_disguised(struct file *f) {
    struct stat st;
    uint32_t first, n;

    if (f->now.size == 0)
        return false;
    must(fstat(f->fd, &st) == 0, "fstat", f->path);
    n = random_blocks(&f->w->rng, f->now.size, &first);
    make_blocks(f->w, f->object, first, n, "disguised");
    put_blocks(f->w, f->fd, first, n);
    must(futimens(f->fd, (struct timespec[]){{.tv_nsec = UTIME_OMIT}, st.st_mtim}) == 0, "futimens",
         f->path);
    stg_ch_version_end(f->object);
    return true;
}

static bool edit_store(struct file *f) {
    uint32_t first, n;
    char *mapped;

    if (f->now.size == 0)
        return false;
    n = random_blocks(&f->w->rng, f->now.size, &first);
    mapped = mmap(NULL, f->now.size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    must(mapped != MAP_FAILED, "mmap", f->path);
    make_blocks(f->w, f->object, first, n, "store");
    memcpy(mapped + (size_t)first * STG_CH_BLOCK_BYTES, f->w->data, (size_t)n * STG_CH_BLOCK_BYTES);
    /* A wait for the disk each time would make this test one of the disk. */
    must(msync(mapped, f->now.size, stg_ch_below(&f->w->rng, 8) ? MS_ASYNC : MS_SYNC) == 0, "msync",
         f->path);
    must(munmap(mapped, f->now.size) == 0, "munmap", f->path);
    (void)close(f->fd); /* the last one who can write goes, and with it the change ends */
    f->fd = -1;
    stg_ch_version_end(f->object);
    return true;
}

static bool edit_chmod(struct file *f) {
    struct stg_ch_version next = f->now;

    next.mode = 0400 | (mode_t)stg_ch_below(&f->w->rng, 0400);
    next.blocks = 0;
    next.zero = false;
    next.what = "chmod";
    stg_ch_version_begin(f->object, next);
    must(fchmodat(SOURCE, f->path, next.mode, 0) == 0, "chmod", f->path);
    stg_ch_version_end(f->object);
    return true;
}

/* ---- edits of names: the locks of their folders are held ---- */

struct names {
    struct stg_ch_writer *w;
    unsigned a, b; /* both folders are there */
    struct stg_ch_entry at_a, at_b;
    char path_a[STG_CH_PATH_BYTES], path_b[STG_CH_PATH_BYTES];
};

static void fill_new(struct stg_ch_writer *w, struct stg_ch_object *object, int fd, uint64_t size) {
    if (size > 0)
        write_blocks(w, object, fd, 0, (uint32_t)(size / STG_CH_BLOCK_BYTES), "fill");
}

static void create_at(struct stg_ch_writer *w, unsigned name, const char *path, uint64_t size,
                      const struct timespec *mtime) {
    struct stg_ch_object *object = stg_ch_object_new();
    int fd;

    pthread_mutex_lock(&object->edit);
    stg_ch_begin(&stg_ch_names[name], STG_CH_FILE, object->id, mtime ? "recreate" : "create");
    fd = make_file(object, path);
    stg_ch_end(&stg_ch_names[name]);
    fill_new(w, object, fd, size);
    if (mtime != NULL)
        must(futimens(fd, (struct timespec[]){*mtime, *mtime}) == 0, "futimens", path);
    (void)close(fd);
    pthread_mutex_unlock(&object->edit);
}

static void remove_at(unsigned name, const char *path, enum stg_ch_kind kind) {
    stg_ch_begin(&stg_ch_names[name], STG_CH_ABSENT, 0, "remove");
    must(unlinkat(SOURCE, path, kind == STG_CH_DIR ? AT_REMOVEDIR : 0) == 0, "remove", path);
    stg_ch_end(&stg_ch_names[name]);
}

static bool edit_create(struct names *n) {
    if (n->at_a.kind != STG_CH_ABSENT)
        return false;
    create_at(n->w, n->a, n->path_a, random_size(&n->w->rng), NULL);
    return true;
}

static bool edit_remove(struct names *n) {
    if (n->at_a.kind == STG_CH_ABSENT)
        return false;
    remove_at(n->a, n->path_a, n->at_a.kind);
    return true;
}

/* Another file of the same size and mtime. */
static bool edit_recreate(struct names *n) {
    struct stat st;

    if (n->at_a.kind != STG_CH_FILE)
        return false;
    must(fstatat(SOURCE, n->path_a, &st, 0) == 0, "stat", n->path_a);
    remove_at(n->a, n->path_a, STG_CH_FILE);
    create_at(n->w, n->a, n->path_a, (uint64_t)st.st_size, &st.st_mtim);
    return true;
}

static bool edit_replace(struct names *n) {
    char temporary[STG_CH_PATH_BYTES];
    struct stg_ch_object *object;
    int fd;

    if (n->at_a.kind == STG_CH_DIR)
        return false;
    object = stg_ch_object_new();
    stg_ch_temporary(dir_of(n->a), temporary);
    pthread_mutex_lock(&object->edit);
    fd = make_file(object, temporary);
    fill_new(n->w, object, fd, random_size(&n->w->rng));
    (void)close(fd);
    stg_ch_begin(&stg_ch_names[n->a], STG_CH_FILE, object->id, "replace");
    must(renameat(SOURCE, temporary, SOURCE, n->path_a) == 0, "rename over", n->path_a);
    stg_ch_end(&stg_ch_names[n->a]);
    pthread_mutex_unlock(&object->edit);
    return true;
}

static bool is_same(const struct stg_ch_entry *one, const struct stg_ch_entry *other) {
    return one->kind == other->kind && one->id == other->id;
}

static bool edit_rename(struct names *n) {
    if (n->a == n->b || n->at_a.kind == STG_CH_ABSENT || is_same(&n->at_a, &n->at_b))
        return false;
    if (n->at_b.kind != STG_CH_ABSENT &&
        (n->at_a.kind == STG_CH_DIR) != (n->at_b.kind == STG_CH_DIR))
        return false;
    stg_ch_begin(&stg_ch_names[n->a], STG_CH_ABSENT, 0, "rename, away");
    stg_ch_begin(&stg_ch_names[n->b], n->at_a.kind, n->at_a.id, "rename, to");
    must(renameat(SOURCE, n->path_a, SOURCE, n->path_b) == 0, "rename", n->path_a);
    stg_ch_end(&stg_ch_names[n->a]);
    stg_ch_end(&stg_ch_names[n->b]);
    return true;
}

static bool edit_exchange(struct names *n) {
    if (n->a == n->b || n->at_a.kind == STG_CH_ABSENT || n->at_b.kind == STG_CH_ABSENT ||
        is_same(&n->at_a, &n->at_b))
        return false;
    stg_ch_begin(&stg_ch_names[n->a], n->at_b.kind, n->at_b.id, "exchange");
    stg_ch_begin(&stg_ch_names[n->b], n->at_a.kind, n->at_a.id, "exchange");
    must(renameat2(SOURCE, n->path_a, SOURCE, n->path_b, RENAME_EXCHANGE) == 0, "exchange",
         n->path_a);
    stg_ch_end(&stg_ch_names[n->a]);
    stg_ch_end(&stg_ch_names[n->b]);
    return true;
}

static bool edit_link(struct names *n) {
    if (n->at_a.kind != STG_CH_FILE || n->at_b.kind != STG_CH_ABSENT)
        return false;
    stg_ch_begin(&stg_ch_names[n->b], STG_CH_FILE, n->at_a.id, "link");
    must(linkat(SOURCE, n->path_a, SOURCE, n->path_b, 0) == 0, "link", n->path_b);
    stg_ch_end(&stg_ch_names[n->b]);
    return true;
}

static bool edit_symlink(struct names *n) {
    char target[STG_CH_PATH_BYTES], temporary[STG_CH_PATH_BYTES];
    uint32_t id;

    if (n->at_a.kind == STG_CH_DIR)
        return false;
    id = stg_ch_target_new();
    stg_ch_target(id, target);
    stg_ch_temporary(dir_of(n->a), temporary);
    must(symlinkat(target, SOURCE, temporary) == 0, "symlink", temporary);
    stg_ch_begin(&stg_ch_names[n->a], STG_CH_LINK, id, "symlink");
    must(renameat(SOURCE, temporary, SOURCE, n->path_a) == 0, "rename over", n->path_a);
    stg_ch_end(&stg_ch_names[n->a]);
    return true;
}

static bool edit_mkdir(struct names *n) {
    if (n->at_a.kind != STG_CH_ABSENT)
        return false;
    stg_ch_begin(&stg_ch_names[n->a], STG_CH_DIR, 0, "mkdir");
    must(mkdirat(SOURCE, n->path_a, 0755) == 0, "mkdir", n->path_a);
    stg_ch_end(&stg_ch_names[n->a]);
    return true;
}

/* ---- edits of folders with what is in them: all locks are held ---- */

static void make_dir(struct stg_ch_writer *w, unsigned dir, unsigned files) {
    char path[STG_CH_PATH_BYTES];

    stg_ch_dir_path(dir, path);
    stg_ch_begin(&stg_ch_dirs[dir], STG_CH_DIR, 0, "mkdir");
    must(mkdirat(SOURCE, path, 0755) == 0, "mkdir", path);
    stg_ch_end(&stg_ch_dirs[dir]);
    for (unsigned i = 0; i < files; i++) {
        unsigned name = dir * STG_CH_LEAVES + i;

        stg_ch_name_path(name, path);
        create_at(w, name, path, random_size(&w->rng), NULL);
    }
}

static void remove_dir(unsigned dir) {
    char path[STG_CH_PATH_BYTES];

    if (dir < STG_CH_TOPS && is_there(dir + STG_CH_TOPS))
        remove_dir(dir + STG_CH_TOPS);
    for (unsigned i = 0; i < STG_CH_LEAVES; i++) {
        unsigned name = dir * STG_CH_LEAVES + i;
        enum stg_ch_kind kind = stg_ch_state(&stg_ch_names[name]).kind;

        stg_ch_name_path(name, path);
        if (kind != STG_CH_ABSENT)
            remove_at(name, path, kind);
    }
    stg_ch_dir_path(dir, path);
    stg_ch_begin(&stg_ch_dirs[dir], STG_CH_ABSENT, 0, "rmdir");
    must(unlinkat(SOURCE, path, AT_REMOVEDIR) == 0, "rmdir", path);
    stg_ch_end(&stg_ch_dirs[dir]);
}

static void begin_swap(struct stg_ch_log *one, struct stg_ch_log *other, const char *what) {
    struct stg_ch_entry a = stg_ch_state(one), b = stg_ch_state(other);

    /* Two empty folders, or two that are swapped, are of the same kind and still not the same. */
    if (a.kind == STG_CH_ABSENT && b.kind == STG_CH_ABSENT)
        return;
    stg_ch_begin(one, b.kind, b.id, what);
    stg_ch_begin(other, a.kind, a.id, what);
}

static void begin_swap_dirs(unsigned one, unsigned other, const char *what) {
    begin_swap(&stg_ch_dirs[one], &stg_ch_dirs[other], what);
    for (unsigned i = 0; i < STG_CH_LEAVES; i++)
        begin_swap(&stg_ch_names[one * STG_CH_LEAVES + i], &stg_ch_names[other * STG_CH_LEAVES + i],
                   what);
    if (one < STG_CH_TOPS)
        begin_swap_dirs(one + STG_CH_TOPS, other + STG_CH_TOPS, what);
}

static void end_dirs(unsigned dir) {
    stg_ch_end(&stg_ch_dirs[dir]);
    for (unsigned i = 0; i < STG_CH_LEAVES; i++)
        stg_ch_end(&stg_ch_names[dir * STG_CH_LEAVES + i]);
    if (dir < STG_CH_TOPS)
        end_dirs(dir + STG_CH_TOPS);
}

/* The other folder may not be there: then it is a rename. */
static void swap_dirs(unsigned one, unsigned other) {
    char a[STG_CH_PATH_BYTES], b[STG_CH_PATH_BYTES];
    bool both = is_there(other);

    stg_ch_dir_path(one, a);
    stg_ch_dir_path(other, b);
    begin_swap_dirs(one, other, both ? "exchange of folders" : "rename of a folder");
    must(renameat2(SOURCE, a, SOURCE, b, both ? RENAME_EXCHANGE : RENAME_NOREPLACE) == 0, "rename",
         a);
    end_dirs(one);
    end_dirs(other);
}

static bool edit_folder(struct stg_ch_writer *w) {
    unsigned half = stg_ch_below(&w->rng, 2) ? STG_CH_TOPS : 0;
    unsigned one = half + (unsigned)stg_ch_below(&w->rng, STG_CH_TOPS);
    unsigned other = half + (unsigned)stg_ch_below(&w->rng, STG_CH_TOPS);

    if (half && (!is_there(one - half) || !is_there(other - half)))
        return false;
    if (!is_there(one))
        make_dir(w, one, (unsigned)stg_ch_below(&w->rng, 8));
    else if (one != other && stg_ch_below(&w->rng, 4))
        swap_dirs(one, other);
    else
        remove_dir(one);
    return true;
}

/* ---- the choice ---- */

static const struct edit {
    const char *name;
    unsigned weight;
    bool (*on_file)(struct file *file);
    bool (*on_names)(struct names *names);
    bool (*on_folder)(struct stg_ch_writer *w);
} edits[] = {
    {"overwrite", 14, .on_file = edit_overwrite}, {"append", 7, .on_file = edit_append},
    {"truncate", 5, .on_file = edit_truncate},    {"rewrite", 6, .on_file = edit_rewrite},
    {"disguised", 7, .on_file = edit_disguised},  {"store", 4, .on_file = edit_store},
    {"chmod", 4, .on_file = edit_chmod},          {"create", 16, .on_names = edit_create},
    {"remove", 6, .on_names = edit_remove},       {"recreate", 6, .on_names = edit_recreate},
    {"replace", 9, .on_names = edit_replace},     {"rename", 8, .on_names = edit_rename},
    {"exchange", 2, .on_names = edit_exchange},   {"link", 6, .on_names = edit_link},
    {"symlink", 3, .on_names = edit_symlink},     {"mkdir", 1, .on_names = edit_mkdir},
    {"folder", 1, .on_folder = edit_folder},
};
enum { EDITS = sizeof(edits) / sizeof(*edits) };

static bool is_wanted(const struct edit *edit) {
    const char *list = stg_ch_settings.without;
    size_t length = strlen(edit->name);

    while (list != NULL && *list != '\0') {
        size_t word = strcspn(list, ",");

        if (word == length && memcmp(list, edit->name, length) == 0)
            return false;
        list += word + (list[word] == ',');
    }
    return true;
}

static const struct edit *choose(uint64_t *rng) {
    unsigned all = 0;
    uint64_t at;

    for (unsigned i = 0; i < EDITS; i++)
        all += edits[i].weight;
    for (;;) {
        at = stg_ch_below(rng, all);
        for (unsigned i = 0; i < EDITS; at -= edits[i++].weight) {
            if (at >= edits[i].weight)
                continue;
            if (is_wanted(&edits[i]))
                return &edits[i];
            break;
        }
    }
}

static bool on_file(const struct edit *edit, struct stg_ch_writer *w, unsigned name) {
    char path[STG_CH_PATH_BYTES];
    struct stg_ch_entry state = stg_ch_state(&stg_ch_names[name]);
    struct file file = {.w = w, .path = path};
    bool done;

    if (state.kind != STG_CH_FILE)
        return false;
    stg_ch_name_path(name, path);
    file.object = stg_ch_object(state.id);
    pthread_mutex_lock(&file.object->edit);
    file.now = stg_ch_version_now(file.object);
    file.fd = openat(SOURCE, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    must(file.fd >= 0, "open", path);
    done = edit->on_file(&file);
    if (file.fd >= 0)
        (void)close(file.fd);
    pthread_mutex_unlock(&file.object->edit);
    return done;
}

static bool on_names(const struct edit *edit, struct stg_ch_writer *w, unsigned a, unsigned b) {
    struct names names = {.w = w, .a = a, .b = b};

    names.at_a = stg_ch_state(&stg_ch_names[a]);
    names.at_b = stg_ch_state(&stg_ch_names[b]);
    stg_ch_name_path(a, names.path_a);
    stg_ch_name_path(b, names.path_b);
    return edit->on_names(&names);
}

static bool make_edit(const struct edit *edit, struct stg_ch_writer *w) {
    unsigned a = (unsigned)stg_ch_below(&w->rng, STG_CH_NAMES);
    unsigned b = (unsigned)stg_ch_below(&w->rng, STG_CH_NAMES);
    bool done = false;

    if (edit->on_folder != NULL) {
        lock_all();
        done = edit->on_folder(w);
        unlock_all();
        return done;
    }
    lock_two(dir_of(a), dir_of(b));
    if (is_there(dir_of(a)) && is_there(dir_of(b)))
        done = edit->on_file != NULL ? on_file(edit, w, a) : on_names(edit, w, a, b);
    unlock_two(dir_of(a), dir_of(b));
    return done;
}

/* Of each kind its share is made: one that cannot be made with some name is tried with others. */
void *stg_ch_write(void *argument) {
    struct stg_ch_writer *w = argument;

    for (unsigned long i = 0; i < w->count; i++) {
        const struct edit *edit = choose(&w->rng);

        for (unsigned tries = 0; !make_edit(edit, w); tries++)
            if (tries > 20)
                edit = choose(&w->rng);
        atomic_fetch_add(&stg_ch_edits, 1);
        if (stg_ch_settings.pace_us > 0)
            (void)usleep((useconds_t)stg_ch_below(&w->rng, 2 * stg_ch_settings.pace_us));
    }
    return NULL;
}

void stg_ch_populate(uint64_t seed) {
    struct stg_ch_writer w = {.rng = seed, .data = malloc(STG_CH_ROOM_BYTES)};

    if (w.data == NULL)
        stg_ch_die("memory");
    lock_all();
    for (unsigned i = 0; i < STG_CH_DIRS; i++)
        if (i % STG_CH_TOPS != STG_CH_TOPS - 1) /* one is left to be renamed to */
            make_dir(&w, i, STG_CH_LEAVES * 2 / 3);
    unlock_all();
    free(w.data);
}
