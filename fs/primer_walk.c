/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the walk: what is listed and asked for, in which order, and when that is enough. */
#include "fs/names.h"
#include "fs/primer.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/lock.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Parts of the time, in tenths: until then names are listed, files are begun to be read, and what
 * is left is for waiting for those. */
#define LIST_PART 5
#define LOOK_PART 8 /* the same where the source is asked for each name */
#define READ_PART 9
/* The walk does not begin later than that after the daemon has begun to wait for it. */
#define START_NS (STG_PRIMER_WALK_NS * 5)
/* The kernel, and the daemon, keep about a kilobyte for each. */
#define NAMES_MAX 100000
/* Of each listing only what the first request brings comes with attributes: so it asks for much. */
#define LISTING_BYTES (1 << 20)
/* A file is read where one piece has all of it (fill.h, stg_fill_piece_bytes()); and all together.
 */
#define FILE_MAX_BYTES (256 << 10)
#define CONTENT_MAX_BYTES (UINT64_C(64) << 20)

/* What was told of one kind, each a path; taken one by one. */
struct paths {
    const char **all;
    size_t count;
    _Atomic size_t next;
};

/* Paths that are to be done, and before `next` those that were taken; each owned. */
struct queue {
    char **paths;
    size_t count;
    size_t room;
    size_t next;
};

struct walk {
    struct stg_primer_walker *walker;
    bool looks; /* the source is asked, and by several */
    int root_fd;
    int64_t begun_ns;
    struct paths folders; /* sorted */
    struct paths absent;
    struct paths files;
    _Atomic uint64_t listed; /* names */
    _Atomic uint64_t bytes;  /* of the files that are being read */
    _Atomic size_t reads;    /* those that were begun */

    struct stg_lock lock;
    pthread_cond_t changed;
    struct queue
        wanted; /* folders that were told, or lead to those; protected by lock, as all below */
    struct queue names;  /* of files, which the source is asked for; after those */
    struct queue others; /* folders; after those */
    unsigned busy;       /* who lists one, and may find more */
    unsigned threads;    /* that have begun */
};

/* When that part of the time is over, in tenths. */
static int64_t end_of(const struct walk *walk, int part) {
    return walk->begun_ns + (walk->looks ? STG_PRIMER_LOOK_NS : STG_PRIMER_WALK_NS) / 10 * part;
}

static bool has_time(const struct walk *walk, int part) {
    return stg_clock_monotonic_ns() < end_of(walk, part);
}

/*
 * Opens what has that path in the folder, and nothing that a link or another mount has put there:
 * where that leads, somebody might wait for ever.
 */
static int open_inside(int folder_fd, const char *path, uint64_t flags) {
    struct open_how how = {.flags = flags | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};

    return (int)syscall(SYS_openat2, folder_fd, path, &how, sizeof(how));
}

/* The answer is the kernel's. */
static void ask(int folder_fd, const char *path) {
    stg_fd_close(open_inside(folder_fd, path, O_PATH));
}

/* ---- folders ---- */

static int by_path(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Was the folder told, or one below it? */
static bool leads_to_told(const struct walk *walk, const char *path) {
    const struct paths *folders = &walk->folders;
    stg_auto_free char *below = NULL;
    size_t low = 0;
    size_t high = folders->count;

    if (!folders->count)
        return false;
    if (bsearch(&path, folders->all, folders->count, sizeof(*folders->all), by_path))
        return true;
    if (asprintf(&below, "%s/", path) < 0)
        return false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(folders->all[middle], below) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < folders->count && !strncmp(folders->all[low], below, strlen(below));
}

/* False without memory. */
static bool add_to(struct queue *queue, char *path) {
    if (queue->count == queue->room) {
        size_t room = queue->room ? queue->room * 2 : 256;
        char **paths = reallocarray(queue->paths, room, sizeof(*paths));

        if (!paths)
            return false;
        queue->paths = paths;
        queue->room = room;
    }
    queue->paths[queue->count++] = path;
    return true;
}

/* One more, which is left out where there is no memory for it. */
static void add(struct walk *walk, const char *parent, const char *name, bool is_folder) {
    bool top = !strcmp(parent, ".");
    struct queue *queue = &walk->names;
    char *path = NULL;
    bool added;

    if (asprintf(&path, "%s%s%s", top ? "" : parent, top ? "" : "/", name) < 0)
        return;
    if (is_folder)
        queue = leads_to_told(walk, path) ? &walk->wanted : &walk->others;
    stg_lock_take(&walk->lock);
    added = add_to(queue, path);
    if (added)
        (void)pthread_cond_signal(&walk->changed); /* cannot fail */
    stg_lock_drop(&walk->lock);
    if (!added)
        free(path);
}

static void list(struct walk *walk, const char *path, char *buffer) {
    stg_auto_fd int fd = open_inside(walk->root_fd, path, O_RDONLY | O_DIRECTORY);
    struct stat info;
    ssize_t got;

    while (fd >= 0 && (got = getdents64(fd, buffer, LISTING_BYTES)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(void *)(buffer + at);

            at += entry->d_reclen;
            if (stg_name_is_dots(entry->d_name))
                continue;
            atomic_fetch_add(&walk->listed, 1);
            if (entry->d_type == DT_DIR || walk->looks)
                add(walk, path, entry->d_name, entry->d_type == DT_DIR);
        }
    }
    if (fd >= 0 && walk->looks)
        (void)fstat(fd, &info); /* the listing has moved the time of the last access */
}

static char *take_from(struct queue *queue) {
    return queue->next < queue->count ? queue->paths[queue->next++] : NULL;
}

static bool is_done(const struct queue *queue) { return queue->next == queue->count; }

static bool are_done_locked(const struct walk *walk) {
    return is_done(&walk->wanted) && is_done(&walk->names) && is_done(&walk->others);
}

/* The next one; NULL: there is none, nor will be, or no time. */
static char *take_next(struct walk *walk, bool *ret_is_folder) {
    int part = walk->looks ? LOOK_PART : LIST_PART;
    char *path = NULL;
    char *name = NULL;

    stg_lock_take(&walk->lock);
    while (are_done_locked(walk) && walk->busy &&
           stg_lock_wait_until(&walk->lock, &walk->changed, end_of(walk, part)))
        ;
    if (atomic_load(&walk->listed) < NAMES_MAX && has_time(walk, part)) {
        path = take_from(&walk->wanted);
        name = path ? NULL : take_from(&walk->names);
        path = path || name ? path : take_from(&walk->others);
    }
    walk->busy += path != NULL;
    stg_lock_drop(&walk->lock);
    *ret_is_folder = path;
    return path ? path : name;
}

/*
 * From above, what leads to what was told first: what is nearer to the top is asked for by more,
 * and a source that was asked for a folder often knows what is in it.
 */
static void list_all(struct walk *walk) {
    stg_auto_free char *buffer = malloc(LISTING_BYTES);
    bool is_folder;
    char *path;

    while (buffer && (path = take_next(walk, &is_folder))) {
        if (!is_folder) {
            ask(walk->root_fd, path);
            continue;
        }
        list(walk, path, buffer);
        stg_lock_take(&walk->lock);
        if (!--walk->busy)
            (void)pthread_cond_broadcast(&walk->changed); /* cannot fail */
        stg_lock_drop(&walk->lock);
    }
}

/* ---- names and files ---- */

/* The next of those; NULL after the last, or when there is no time. */
static const char *take(const struct walk *walk, struct paths *paths, int part) {
    size_t at = atomic_fetch_add(&paths->next, 1);

    return at < paths->count && has_time(walk, part) ? paths->all[at] : NULL;
}

static void ask_absent(struct walk *walk) {
    const char *path;

    while ((path = take(walk, &walk->absent, READ_PART)))
        ask(walk->root_fd, path);
}

/* Opens the file, if it is one that is to be read. A descriptor, or negative. */
static int open_file(const struct walk *walk, const char *path, struct stat *ret_info) {
    /* What is a device now is left alone. */
    stg_auto_fd int fd = open_inside(walk->root_fd, path, O_PATH);

    if (fd < 0 || fstat(fd, ret_info) || !S_ISREG(ret_info->st_mode) || !ret_info->st_size ||
        ret_info->st_size > FILE_MAX_BYTES)
        return -1;
    return open_inside(walk->root_fd, path, O_RDONLY | O_NONBLOCK);
}

/* Has the kernel begin to read files. */
static void read_files(struct walk *walk) {
    const char *path;

    while (atomic_load(&walk->bytes) < CONTENT_MAX_BYTES &&
           (path = take(walk, &walk->files, READ_PART))) {
        struct stat info;
        stg_auto_fd int fd = open_file(walk, path, &info);

        atomic_fetch_add(&walk->reads, 1);
        if (fd < 0)
            continue;
        atomic_fetch_add(&walk->bytes, (uint64_t)info.st_size);
        (void)posix_fadvise(fd, 0, info.st_size, POSIX_FADV_WILLNEED); /* or it is read later */
    }
}

/* Waits until they are read: who comes next is not to wait for them. */
static void wait_for_files(const struct walk *walk) {
    size_t reads = atomic_load(&walk->reads);

    for (size_t i = 0; i < reads && has_time(walk, 10); i++) {
        struct stat info;
        stg_auto_fd int fd = open_file(walk, walk->files.all[i], &info);
        char byte;

        if (fd >= 0)
            (void)!pread(fd, &byte, 1, info.st_size - 1); /* what is not kept is not read */
    }
}

/* ---- threads ---- */

/* The daemon knows requests by the thread that makes them. */
static void introduce(struct walk *walk) {
    unsigned place;

    stg_lock_take(&walk->lock);
    place = walk->threads++;
    stg_lock_drop(&walk->lock);
    atomic_store(&walk->walker->threads[place], gettid());
}

static void *work(void *argument) {
    struct walk *walk = argument;

    introduce(walk);
    list_all(walk);
    ask_absent(walk);
    read_files(walk);
    return NULL;
}

static void work_together(struct walk *walk) {
    pthread_t threads[STG_PRIMER_THREADS - 1];
    unsigned count = 0;

    while (walk->looks && count < STG_PRIMER_THREADS - 1 &&
           !pthread_create(&threads[count], NULL, work, walk))
        count++;
    (void)work(walk);
    while (count)
        (void)pthread_join(threads[--count], NULL);
}

/* ---- what was told ---- */

static size_t count_of(const char *told, size_t bytes, char kind) {
    size_t count = 0;

    for (size_t at = 0; at < bytes; at += strlen(told + at) + 1)
        count += told[at] == kind;
    return count;
}

/* Those of that kind; none without memory. */
static void collect(struct paths *paths, const char *told, size_t bytes, char kind) {
    paths->all = reallocarray(NULL, count_of(told, bytes, kind) + 1, sizeof(*paths->all));
    for (size_t at = 0; paths->all && at < bytes; at += strlen(told + at) + 1)
        if (told[at] == kind)
            paths->all[paths->count++] = told + at + 1;
}

static void free_queue(struct queue *queue) {
    for (size_t i = 0; i < queue->count; i++)
        free(queue->paths[i]);
    free(queue->paths);
}

static void end(struct walk *walk) {
    atomic_store(&walk->walker->has_listed, is_done(&walk->wanted) && is_done(&walk->names));
    free_queue(&walk->wanted);
    free_queue(&walk->names);
    free_queue(&walk->others);
    free(walk->folders.all);
    free(walk->absent.all);
    free(walk->files.all);
    stg_fd_close(walk->root_fd);
}

void stg_primer_walk(const char *mountpoint, struct stg_primer_walker *walker, bool looks,
                     const char *told, size_t told_bytes, int64_t since_ns) {
    struct walk walk = {.walker = walker,
                        .looks = looks,
                        .begun_ns = stg_clock_monotonic_ns(),
                        .lock = STG_LOCK(STG_RANK_PLACES),
                        .changed = PTHREAD_COND_INITIALIZER};

    if (walk.begun_ns - since_ns > START_NS)
        return;
    while (told_bytes && told[told_bytes - 1])
        told_bytes--; /* the last one was not told to its end */
    collect(&walk.folders, told, told_bytes, STG_PRIMER_FOLDER);
    collect(&walk.absent, told, told_bytes, STG_PRIMER_ABSENT);
    collect(&walk.files, told, told_bytes, STG_PRIMER_FILE);
    atomic_store(&walker->threads[0], gettid()); /* who opens the top is known, too */
    walk.root_fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (walk.root_fd >= 0) {
        if (walk.folders.count)
            qsort(walk.folders.all, walk.folders.count, sizeof(*walk.folders.all), by_path);
        add(&walk, ".", ".", true);
        work_together(&walk);
        wait_for_files(&walk);
    }
    end(&walk);
}
