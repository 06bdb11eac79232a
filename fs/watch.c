/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the fanotify queue and the thread that reads it.
 *
 * Each event is carried to the kernel's caches by this thread alone, in the order in which it came.
 * What the daemon itself did to the source on behalf of a caller is passed over: the kernel knows
 * it already. But for a device that is mounted twice below the source: there the same object has
 * two inodes here, of which the caller's kernel knew one.
 *
 * An answer that tells of an object for the first time may be on its way when its event is handled:
 * the kernel does not know the inode yet. Such are told again until the kernel knows them, or has
 * forgotten them.
 */
#include "fs/watch.h"

#include "fs/coherence.h"
#include "fs/folders.h"
#include "fs/mounts.h"
#include "fs/notify.h"
#include "fs/staging.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>

#ifndef FAN_REPORT_TARGET_FID /* Linux 5.17 */
#define FAN_REPORT_TARGET_FID 0x00001000
#endif

#define NAMES (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO)
/* A file that was mapped is closed with its last mapping, which is all that tells of stores. */
#define CONTENT (FAN_MODIFY | FAN_CLOSE_WRITE)
#define OBJECTS (CONTENT | FAN_ATTRIB | FAN_MOVE_SELF | FAN_DELETE_SELF)
#define BUFFER_BYTES 65536
#define RETRY_FIRST_NS INT64_C(1000000)
#define RETRY_MAX_NS INT64_C(100000000)
/* After events were lost: answers that were on their way then have arrived. */
#define AGAIN_NS INT64_C(100000000)

static int queue_fd = -1;
static int wake_fd = -1;
static pid_t own_pid; /* of the thread's process: the queue is opened before the daemon forks */
static pthread_t thread;
static bool running;
static atomic_bool stopping;
/* When everything is doubted once more; the thread's own, as the next three. 0: not at all. */
static int64_t again_at_ns;
static uint64_t again_round; /* in which that came up */
static bool again_after;     /* it came up again since */

static _Atomic uint64_t events;
static _Atomic uint64_t overflows;
static _Atomic uint64_t unwatched;

/* What is to be told again; the thread's own. */
struct retry {
    struct retry *next;
    struct stg_inode *inode; /* referenced */
    uint64_t round;          /* in which it came */
    bool pages;
    char name[]; /* to be dropped in the folder; "": the inode itself is told */
};
static struct retry *retries;
static int64_t retry_at_ns;
static int64_t retry_pause_ns = RETRY_FIRST_NS;
/* Each drain ends a round when it has read what was in the queue; the thread's own, as the rest. */
static uint64_t current_round;
static uint64_t read_drain; /* the drain for which that was */

/* Those who wait for the queue to be empty of what is in it. */
static struct stg_lock lock = STG_LOCK(STG_RANK_NOTIFY);
static pthread_cond_t drained_changed = PTHREAD_COND_INITIALIZER;
static uint64_t wanted;  /* drains; protected by lock, as the next */
static uint64_t drained; /* of them those that are over */
static bool ended;

/* ---- the queue ---- */

static int mark(int fd) {
    char path[STG_PROC_FD_BYTES];

    stg_proc_fd(path, fd); /* a descriptor opened with O_PATH is not taken itself */
    return fanotify_mark(queue_fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, NAMES | OBJECTS | FAN_ONDIR,
                         AT_FDCWD, path)
               ? -errno
               : 0;
}

int stg_watch_open(int fd) {
    const unsigned flags = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID |
                           FAN_REPORT_DIR_FID | FAN_REPORT_NAME;
    int error;

    queue_fd = fanotify_init(flags | FAN_REPORT_TARGET_FID, O_RDONLY | O_CLOEXEC);
    if (queue_fd < 0 && errno == EINVAL)
        queue_fd = fanotify_init(flags, O_RDONLY | O_CLOEXEC);
    if (queue_fd < 0)
        return -errno;
    error = mark(fd);
    if (error)
        stg_fd_close(stg_fd_steal(&queue_fd));
    return error;
}

bool stg_watch_add(int fd) {
    int error;

    if (queue_fd < 0)
        return false;
    error = fd < 0 ? -EOPNOTSUPP : mark(fd);
    if (!error)
        return true;
    atomic_fetch_add(&unwatched, 1);
    stg_debug("a file system below the source cannot be watched: %s", strerror(-error));
    return false;
}

struct stg_watch_stats stg_watch_stats(void) {
    return (struct stg_watch_stats){.events = atomic_load(&events),
                                    .overflows = atomic_load(&overflows),
                                    .unwatched = atomic_load(&unwatched) + stg_folders_unwatched()};
}

bool stg_watch_is_whole(void) { return queue_fd >= 0 && !atomic_load(&unwatched); }

/* ---- telling ---- */

/* Everything is doubted once more, a moment from now. */
static void doubt_again(void) {
    if (again_at_ns) {
        again_after = true;
        return;
    }
    again_at_ns = stg_clock_monotonic_ns() + AGAIN_NS;
    again_round = current_round;
}

static struct retry *find_retry(const struct stg_inode *inode) {
    struct retry *retry = retries;

    while (retry && (retry->inode != inode || *retry->name))
        retry = retry->next;
    return retry;
}

static void add_retry(struct stg_inode *inode, bool pages, const char *name) {
    size_t room = strlen(name) + 1;
    struct retry *retry = calloc(1, sizeof(*retry) + room);

    if (!retry) {
        doubt_again(); /* this with the rest */
        return;
    }
    retry->inode = inode;
    retry->pages = pages;
    retry->round = current_round;
    memcpy(retry->name, name, room);
    stg_inode_ref(inode);
    retry->next = retries;
    retries = retry;
}

static void tell_later(struct stg_inode *inode, bool pages) {
    struct retry *retry = find_retry(inode);

    if (retry) {
        retry->pages = retry->pages || pages;
        return;
    }
    add_retry(inode, pages, "");
    retry_pause_ns = RETRY_FIRST_NS;
    retry_at_ns = stg_clock_monotonic_ns() + retry_pause_ns;
}

/* Where the kernel does not wait for who looks the name up: once more when he has been answered. */
static void tell_name(struct stg_inode *folder, const char *name) {
    stg_notify_name(folder, name);
    if (stg_notify_waits())
        return;
    add_retry(folder, false, name);
    retry_pause_ns = STG_NOTIFY_TAKEN_NS;
    retry_at_ns = stg_clock_monotonic_ns() + retry_pause_ns;
}

static void tell(struct stg_inode *inode, bool pages) {
    if (!stg_notify_inode(inode, pages) && stg_inode_is_known(inode))
        tell_later(inode, pages);
}

static bool is_told_now(const struct retry *retry) {
    if (!*retry->name)
        return stg_notify_inode(retry->inode, retry->pages) || !stg_inode_is_known(retry->inode);
    stg_notify_name(retry->inode, retry->name);
    return true;
}

static void tell_again(void) {
    struct retry **link = &retries;

    while (*link) {
        struct retry *retry = *link;

        if (!is_told_now(retry)) {
            link = &retry->next;
            continue;
        }
        *link = retry->next;
        stg_inode_unref(retry->inode);
        free(retry);
    }
    retry_pause_ns = retry_pause_ns * 2 < RETRY_MAX_NS ? retry_pause_ns * 2 : RETRY_MAX_NS;
    retry_at_ns = stg_clock_monotonic_ns() + retry_pause_ns;
}

static void object_changed(struct stg_inode *inode, bool content) {
    /*
     * First: a READ after the drop must not be given an old copy. One that was made while the file
     * was written has the right times all the same: those of the begin of the write.
     */
    if (content)
        stg_staging_changed(inode);
    else
        stg_staging_recheck(inode);
    tell(inode, content);
}

static void doubt(struct stg_inode *inode, void *unused) {
    (void)unused;
    if (atomic_load(&stopping))
        return;
    stg_staging_recheck(inode);
    tell(inode, true);
}

static void doubt_all(void) {
    stg_coherence_doubt_all();
    if (!stg_inode_each(doubt, NULL))
        doubt_again(); /* no memory: what is left, then */
}

/* Nothing that is known can be relied on. */
static void lose_track(void) {
    doubt_all();
    doubt_again();
}

static void handle_lost(void) {
    atomic_fetch_add(&overflows, 1);
    stg_debug("events of the source were lost: everything is looked at again");
    lose_track();
}

/* ---- events ---- */

/* The inode of that handle on the volume, referenced, unless the daemon itself changed it. */
static struct stg_inode *find(struct stg_volume *volume, const struct file_handle *handle,
                              bool own) {
    if (!volume->watched || (own && !stg_volume_is_shared(volume)))
        return NULL;
    return stg_inode_find_handle(volume, handle);
}

/*
 * The handle is looked for on every volume: that of another file system is not there, or gives no
 * more than a second look at something.
 */
static void handle_object(const struct file_handle *handle, uint64_t mask, bool own) {
    for (struct stg_volume *volume = stg_volume_first(); volume; volume = volume->next) {
        struct stg_inode *inode = find(volume, handle, own);

        if (!inode)
            continue;
        object_changed(inode, mask & CONTENT);
        stg_inode_unref(inode);
    }
}

static void handle_name(const struct file_handle *handle, const char *name, bool own) {
    for (struct stg_volume *volume = stg_volume_first(); volume; volume = volume->next) {
        struct stg_inode *folder = find(volume, handle, own);

        if (!folder)
            continue;
        tell_name(folder, name);
        tell(folder, true);
        stg_inode_unref(folder);
    }
}

static void handle_record(const struct fanotify_event_info_fid *record, uint64_t mask, bool own,
                          bool has_object) {
    const struct file_handle *handle = (const struct file_handle *)(const void *)record->handle;
    const char *name = (const char *)handle->f_handle + handle->handle_bytes;

    switch (record->hdr.info_type) {
    case FAN_EVENT_INFO_TYPE_FID: /* of what happened to an object, or of the object of a name */
        handle_object(handle, mask, own);
        break;
    case FAN_EVENT_INFO_TYPE_DFID:
        handle_object(handle, mask, own);
        break;
    case FAN_EVENT_INFO_TYPE_DFID_NAME:
        if ((mask & NAMES) && strcmp(name, ".") != 0)
            handle_name(handle, name, own);
        if (!has_object) /* the folder itself, then, is what it is about */
            handle_object(handle, mask, own);
        break;
    default:
        break;
    }
}

/* The first record of an event, which is at `at`, or the one after `record`; NULL: no more. */
static const struct fanotify_event_info_fid *
next_record(const struct fanotify_event_metadata *head, const char *at,
            const struct fanotify_event_info_fid *record) {
    const char *next = record ? (const char *)record + record->hdr.len : at + head->metadata_len;

    return next < at + head->event_len ? (const void *)next : NULL;
}

/* `head` is a copy of the begin of the event at `at`. */
static void handle_event(const struct fanotify_event_metadata *head, const char *at) {
    const struct fanotify_event_info_fid *record;
    bool own = head->pid == own_pid;
    bool has_object = false;

    atomic_fetch_add_explicit(&events, 1, memory_order_relaxed);
    if (head->mask & FAN_Q_OVERFLOW) {
        handle_lost();
        return;
    }
    for (record = next_record(head, at, NULL); record; record = next_record(head, at, record))
        has_object = has_object || record->hdr.info_type == FAN_EVENT_INFO_TYPE_FID;
    for (record = next_record(head, at, NULL); record; record = next_record(head, at, record))
        handle_record(record, head->mask, own, has_object);
}

static void count_folder_event(void) {
    atomic_fetch_add_explicit(&events, 1, memory_order_relaxed);
}

static void handle_folder_name(struct stg_inode *folder, const char *name) {
    count_folder_event();
    tell_name(folder, name);
    tell(folder, true);
}

static void handle_folder_child(struct stg_inode *folder, const char *name) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_fd int fd = -1;
    struct stg_inode *child;
    struct statx stx;

    count_folder_event();
    if (stg_inode_fd(folder, &lent))
        return; /* it is gone, and has no names any more */
    fd = openat(lent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx))
        return;
    child = stg_inode_find(fd, &stx);
    if (!child)
        return;
    object_changed(child, true);
    stg_inode_unref(child);
}

static const struct stg_folders_handler folders_handler = {
    .name = handle_folder_name, .child = handle_folder_child, .lost = handle_lost};

/* Handles what one read(2) brings. Returns the number of events. */
static unsigned read_events(void) {
    static _Alignas(struct fanotify_event_metadata) char buffer[BUFFER_BYTES];
    ssize_t left = read(queue_fd, buffer, sizeof(buffer));
    struct fanotify_event_metadata head; /* events are aligned to four bytes alone */
    const char *at = buffer;
    unsigned count = 0;

    while (left >= (ssize_t)sizeof(head) && !atomic_load(&stopping)) {
        memcpy(&head, at, sizeof(head));
        if (!FAN_EVENT_OK(&head, left))
            break;
        if (head.vers != FANOTIFY_METADATA_VERSION) {
            stg_error("the kernel's events have another form, %u", head.vers);
            lose_track();
        } else {
            handle_event(&head, at);
        }
        count++;
        at += head.event_len;
        left -= head.event_len;
    }
    return count;
}

/* How many events are in the queue: each counts as much as its head (fanotify_ioctl()). */
static unsigned queued_events(void) {
    int bytes = 0;

    if (queue_fd < 0 || ioctl(queue_fd, FIONREAD, &bytes) || bytes < 0)
        return 0;
    return (unsigned)bytes / FAN_EVENT_METADATA_LEN;
}

/* ---- drains ---- */

static bool has_earlier_retry(void) {
    for (const struct retry *retry = retries; retry; retry = retry->next)
        if (retry->round < current_round)
            return true;
    return false;
}

static void read_for_drain(uint64_t number) {
    if (stg_mounts_changed())
        lose_track();
    for (unsigned left = queued_events(), got; left && (got = read_events());)
        left = got < left ? left - got : 0;
    for (size_t left = stg_folders_queued(), got;
         left && (got = stg_folders_read(&folders_handler));)
        left = got < left ? left - got : 0;
    read_drain = number;
    current_round++;
}

static void drain(void) {
    uint64_t number;
    bool due;

    stg_lock_take(&lock);
    number = wanted;
    due = number != drained;
    stg_lock_drop(&lock);
    if (!due)
        return;
    if (read_drain != number)
        read_for_drain(number);
    if (has_earlier_retry() || (again_at_ns && again_round < current_round))
        return; /* it is due again with the next round of the thread */
    stg_lock_take(&lock);
    drained = number;
    (void)pthread_cond_broadcast(&drained_changed); /* cannot fail */
    stg_lock_drop(&lock);
}

bool stg_watch_drain(void) {
    uint64_t number;
    bool done;

    if (!running)
        return true;
    stg_lock_take(&lock);
    number = ++wanted;
    (void)eventfd_write(wake_fd, 1); /* cannot fail: the count is read before it is full */
    while (drained < number && !ended)
        stg_lock_wait(&lock, &drained_changed);
    done = drained >= number;
    stg_lock_drop(&lock);
    return done;
}

/* ---- the thread ---- */

static int ms_until(int64_t at_ns) {
    int64_t left_ns = at_ns - stg_clock_monotonic_ns();

    return left_ns > 0 ? (int)(left_ns / 1000000) + 1 : 0;
}

/* Until the first thing that is due; -1: nothing is. */
static int timeout_ms(void) {
    int again_ms = again_at_ns ? ms_until(again_at_ns) : -1;
    int retry = retries ? ms_until(retry_at_ns) : -1;

    return again_ms < 0 || (retry >= 0 && retry < again_ms) ? retry : again_ms;
}

static void do_what_is_due(void) {
    if (again_at_ns && stg_clock_monotonic_ns() >= again_at_ns) {
        bool more = again_after;

        again_at_ns = 0;
        again_after = false;
        doubt_all();
        if (more)
            doubt_again();
    }
    if (retries && stg_clock_monotonic_ns() >= retry_at_ns)
        tell_again();
    drain();
}

static void *watch(void *unused) {
    struct pollfd fds[] = {{.fd = wake_fd, .events = POLLIN},
                           {.fd = queue_fd, .events = POLLIN},
                           {.fd = stg_mounts_fd(), .events = POLLPRI},
                           {.fd = stg_folders_fd(), .events = POLLIN}};
    eventfd_t count;

    (void)unused;
    own_pid = getpid();
    while (!atomic_load(&stopping)) {
        if (poll(fds, 4, timeout_ms()) < 0)
            continue; /* a signal came */
        if (fds[0].revents & POLLIN)
            (void)eventfd_read(wake_fd, &count); /* is there */
        if ((fds[2].revents & POLLPRI) && stg_mounts_changed())
            lose_track();
        if (fds[1].revents & POLLIN)
            (void)read_events();
        if (fds[3].revents & POLLIN)
            (void)stg_folders_read(&folders_handler);
        do_what_is_due();
    }
    stg_lock_take(&lock);
    ended = true;
    (void)pthread_cond_broadcast(&drained_changed); /* cannot fail */
    stg_lock_drop(&lock);
    return NULL;
}

int stg_watch_start(void) {
    int error;

    if (queue_fd < 0 && stg_folders_fd() < 0)
        return 0;
    wake_fd = eventfd(0, EFD_CLOEXEC);
    if (wake_fd < 0)
        return -errno;
    error = stg_mounts_open();
    if (!error)
        error = -pthread_create(&thread, NULL, watch, NULL);
    running = !error;
    return error;
}

void stg_watch_stop(void) {
    if (!running)
        return;
    atomic_store(&stopping, true);
    (void)eventfd_write(wake_fd, 1);
}

void stg_watch_join(void) {
    if (running)
        (void)pthread_join(thread, NULL); /* cannot fail for a thread of ours */
    running = false;
    while (retries) {
        struct retry *retry = retries;

        retries = retry->next;
        stg_inode_unref(retry->inode);
        free(retry);
    }
}

void stg_watch_fini(void) {
    stg_folders_close();
    stg_mounts_close();
    stg_fd_close(stg_fd_steal(&wake_fd));
    stg_fd_close(stg_fd_steal(&queue_fd));
}
