/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the inotify queue, the table from its watch descriptors to folders, and the names that are
 * expected.
 *
 * The lock is held while a watch is added, so that a folder that is freed at the same time is not
 * entered after it was taken out. An entry has no reference: it goes when the inode does, and who
 * finds one refers to the inode only where that is not on its way out.
 */
#include "fs/folders.h"

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#include <stdatomic.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

#define BUCKETS 4096
#define EXPECTED 8192 /* a build folder that is removed at once */
#define EXPECTED_NS INT64_C(2000000000)
#define NAMES (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define CHILDREN (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB)

struct stg_folder_watch {
    struct stg_folder_watch *next;
    struct stg_inode *inode;
    int descriptor;
};

/* What is expected of a name; another one that falls into its place is not expected any more. */
struct expected {
    uint64_t event; /* a hash of descriptor, name and kind */
    unsigned count;
    int64_t since_ns;
};

static int queue_fd = -1;
static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct stg_folder_watch *buckets[BUCKETS]; /* protected by lock, as all below */
static struct expected expected[EXPECTED];
static _Atomic uint64_t unwatched;

static struct stg_folder_watch **bucket_of(int descriptor) {
    return &buckets[(unsigned)descriptor % BUCKETS];
}

/* ---- watching ---- */

static void add_locked(struct stg_inode *folder, int fd) {
    struct stg_folder_watch *watch = malloc(sizeof(*watch));
    struct stg_folder_watch **bucket;
    char path[STG_PROC_FD_BYTES];

    if (!watch)
        return;
    stg_proc_fd(path, fd);
    watch->inode = folder;
    watch->descriptor = inotify_add_watch(queue_fd, path, NAMES | CHILDREN | IN_ONLYDIR);
    if (watch->descriptor < 0) {
        if (!atomic_fetch_add(&unwatched, 1))
            stg_info("not every folder can be watched (%m); raise fs.inotify.max_user_watches, or "
                     "names are kept for ttl= seconds");
        free(watch);
        return;
    }
    bucket = bucket_of(watch->descriptor);
    watch->next = *bucket;
    *bucket = watch;
    atomic_store(&folder->folder_watch, watch);
}

void stg_folders_watch(struct stg_inode *folder, int fd) {
    if (queue_fd < 0 || folder->volume->remote || stg_folders_is_watched(folder))
        return;
    stg_lock_take(&lock);
    if (!stg_folders_is_watched(folder))
        add_locked(folder, fd);
    stg_lock_drop(&lock);
}

/* The same folder may be known twice, by two mounts of it: then the watch is shared. */
static bool is_used_locked(int descriptor) {
    for (struct stg_folder_watch *watch = *bucket_of(descriptor); watch; watch = watch->next)
        if (watch->descriptor == descriptor)
            return true;
    return false;
}

static void take_out_locked(struct stg_folder_watch *watch) {
    struct stg_folder_watch **link = bucket_of(watch->descriptor);

    while (*link != watch)
        link = &(*link)->next;
    *link = watch->next;
    atomic_store(&watch->inode->folder_watch, NULL);
}

void stg_folders_drop(struct stg_inode *folder) {
    struct stg_folder_watch *watch;

    if (!stg_folders_is_watched(folder))
        return;
    stg_lock_take(&lock);
    watch = atomic_load(&folder->folder_watch);
    if (watch) {
        take_out_locked(watch);
        if (queue_fd >= 0 && !is_used_locked(watch->descriptor))
            (void)inotify_rm_watch(queue_fd, watch->descriptor); /* it may be gone by itself */
    }
    stg_lock_drop(&lock);
    free(watch);
}

/* The watch went with its folder, or the file system. */
static void forget_descriptor(int descriptor) {
    struct stg_folder_watch *gone = NULL;
    struct stg_folder_watch *watch;
    struct stg_folder_watch *next;

    stg_lock_take(&lock);
    for (watch = *bucket_of(descriptor); watch; watch = next) {
        next = watch->next;
        if (watch->descriptor != descriptor)
            continue;
        take_out_locked(watch);
        watch->next = gone;
        gone = watch;
    }
    stg_lock_drop(&lock);
    for (; gone; gone = next) {
        next = gone->next;
        free(gone);
    }
}

/* ---- what is expected ---- */

static uint64_t event_of(int descriptor, const char *name, enum stg_folders_kind kind) {
    return stg_hash_bytes(name, strlen(name), (uint64_t)descriptor << 2 | kind);
}

/* The descriptor of the folder's watch; 0 where it has none. */
static int descriptor_locked(const struct stg_inode *folder) {
    const struct stg_folder_watch *watch = atomic_load(&folder->folder_watch);

    return watch ? watch->descriptor : 0;
}

void stg_folders_expect(struct stg_inode *folder, const char *name, enum stg_folders_kind kind) {
    int descriptor;

    if (queue_fd < 0)
        return;
    stg_lock_take(&lock);
    descriptor = descriptor_locked(folder);
    if (descriptor) {
        uint64_t event = event_of(descriptor, name, kind);
        struct expected *place = &expected[event % EXPECTED];

        *place = (struct expected){.event = event,
                                   .count = place->event == event ? place->count + 1 : 1,
                                   .since_ns = stg_clock_monotonic_ns()};
    }
    stg_lock_drop(&lock);
}

/* Is the event one that was expected? It is so once less. */
static bool take_expected_locked(uint64_t event) {
    struct expected *place = &expected[event % EXPECTED];
    bool taken = place->event == event && place->count &&
                 stg_clock_monotonic_ns() - place->since_ns <= EXPECTED_NS;

    place->count -= taken;
    return taken;
}

void stg_folders_unexpect(struct stg_inode *folder, const char *name, enum stg_folders_kind kind) {
    int descriptor;

    if (queue_fd < 0)
        return;
    stg_lock_take(&lock);
    descriptor = descriptor_locked(folder);
    if (descriptor)
        (void)take_expected_locked(event_of(descriptor, name, kind));
    stg_lock_drop(&lock);
}

static bool is_expected(const struct inotify_event *event) {
    enum stg_folders_kind kind =
        event->mask & (IN_CREATE | IN_MOVED_TO) ? STG_FOLDERS_MADE : STG_FOLDERS_REMOVED;
    bool is;

    if (!(event->mask & NAMES))
        return false;
    stg_lock_take(&lock);
    is = take_expected_locked(event_of(event->wd, event->name, kind));
    stg_lock_drop(&lock);
    return is;
}

static void expect_nothing(void) {
    stg_lock_take(&lock);
    memset(expected, 0, sizeof(expected));
    stg_lock_drop(&lock);
}

/* ---- events ---- */

/* The folder of the descriptor after `skip` others of it, referenced; NULL: no more. */
static struct stg_inode *next_folder(int descriptor, unsigned skip) {
    struct stg_inode *folder = NULL;

    stg_lock_take(&lock);
    for (struct stg_folder_watch *watch = *bucket_of(descriptor); watch && !folder;
         watch = watch->next)
        if (watch->descriptor == descriptor && !skip--)
            folder = stg_inode_try_ref(watch->inode) ? watch->inode : NULL;
    stg_lock_drop(&lock);
    return folder;
}

static void handle(const struct inotify_event *event, const struct stg_folders_handler *handler) {
    struct stg_inode *folder;

    if (event->mask & IN_Q_OVERFLOW) {
        expect_nothing();
        handler->lost();
        return;
    }
    if (event->mask & (IN_IGNORED | IN_UNMOUNT)) {
        forget_descriptor(event->wd);
        return;
    }
    if (!event->len || is_expected(event))
        return;
    for (unsigned i = 0; (folder = next_folder(event->wd, i)); i++) {
        if (event->mask & NAMES)
            handler->name(folder, event->name);
        else
            handler->child(folder, event->name);
        stg_inode_unref(folder);
    }
}

size_t stg_folders_read(const struct stg_folders_handler *handler) {
    static _Alignas(struct inotify_event) char buffer[65536];
    ssize_t got = queue_fd < 0 ? 0 : read(queue_fd, buffer, sizeof(buffer));
    size_t at = 0;

    while (got > 0 && at < (size_t)got) {
        const struct inotify_event *event = (const void *)(buffer + at);

        handle(event, handler);
        at += sizeof(*event) + event->len;
    }
    return got > 0 ? (size_t)got : 0;
}

size_t stg_folders_queued(void) {
    int bytes = 0;

    return queue_fd < 0 || ioctl(queue_fd, FIONREAD, &bytes) || bytes < 0 ? 0 : (size_t)bytes;
}

uint64_t stg_folders_unwatched(void) { return atomic_load(&unwatched); }

int stg_folders_open(void) {
    queue_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return queue_fd < 0 ? -errno : 0;
}

void stg_folders_close(void) { stg_fd_close(stg_fd_steal(&queue_fd)); }

int stg_folders_fd(void) { return queue_fd; }
