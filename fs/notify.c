/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the calls into the kernel, and the thread that makes them for those who may not wait there.
 *
 * There is one entry of an inode that is not begun yet; its last user frees it. Several threads, so
 * that one drop that waits for a READ that is not answered does not hold up those of other files.
 */
#include "fs/notify.h"

#include "fs/coherence.h"
#include "fs/mounts.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/utsname.h>

#define THREADS 4
#define WAIT_NS INT64_C(1000000000)
#define TAKEN_NS 3000000L
/* Nobody has a file of this name; if somebody had, it would be looked up once more. */
#define NO_NAME ".stagefs\001await"

/* At once, as somebody waits for it; or when an answer has been taken: of a listing, or any other.
 */
enum when { WHEN_WAITED, WHEN_LISTED, WHEN_TAKEN };

/* A drop that is due. */
struct drop {
    struct drop *next;
    struct stg_inode *inode; /* referenced */
    unsigned users;          /* the queue, or the thread that has it; and who waits */
    enum when when;
    bool begun;
    bool done;
};

static struct stg_lock lock = STG_LOCK(STG_RANK_NOTIFY);
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER; /* of the thread */
static pthread_cond_t over = PTHREAD_COND_INITIALIZER; /* of those who wait */
static struct drop *first;                             /* protected by lock, as all below */
static struct drop **last = &first;
static pthread_t threads[THREADS];
static unsigned thread_count;
static bool running;
static bool stopping;
static unsigned inside; /* calls that are in the kernel */

static _Atomic uint64_t told_names;
static _Atomic uint64_t told_inodes;

static bool enter(void) {
    bool may;

    stg_lock_take(&lock);
    may = running && !stopping;
    inside += may;
    stg_lock_drop(&lock);
    return may;
}

static void leave(void) {
    stg_lock_take(&lock);
    inside--;
    (void)pthread_cond_broadcast(&over); /* cannot fail */
    stg_lock_drop(&lock);
}

bool stg_notify_inode(struct stg_inode *inode, bool pages) {
    int error;

    if (!enter())
        return true;
    error =
        fuse_lowlevel_notify_inval_inode(stg_fs.session, stg_inode_id(inode), pages ? 0 : -1, 0);
    leave();
    if (!error)
        atomic_fetch_add_explicit(&told_inodes, 1, memory_order_relaxed);
    return error != -ENOENT;
}

void stg_notify_touched(struct stg_inode *inode) {
    if (stg_coherence_attr_timeout_s(inode) > 0)
        (void)stg_notify_inode(inode, false); /* what the kernel does not know it has not kept */
}

static void tell_name(struct stg_inode *folder, const char *name,
                      int (*tell)(struct fuse_session *session, fuse_ino_t folder, const char *name,
                                  size_t bytes)) {
    if (!enter())
        return;
    /* ENOENT: the kernel has not this name, and nothing is to be dropped. */
    if (!tell(stg_fs.session, stg_inode_id(folder), name, strlen(name)))
        atomic_fetch_add_explicit(&told_names, 1, memory_order_relaxed);
    leave();
}

void stg_notify_name(struct stg_inode *folder, const char *name) {
    tell_name(folder, name, fuse_lowlevel_notify_inval_entry);
}

void stg_notify_name_again(struct stg_inode *folder, const char *name) {
    tell_name(folder, name, fuse_lowlevel_notify_expire_entry);
}

bool stg_notify_waits(void) {
    static atomic_int known; /* 1: they do; -1: they do not */
    struct utsname system;
    unsigned major = 0;
    unsigned minor = 0;

    if (!atomic_load(&known)) {
        if (!uname(&system))
            (void)sscanf(system.release, "%u.%u", &major, &minor); /* 0.0 else */
        atomic_store(&known, major > 6 || (major == 6 && minor >= 19) ? -1 : 1);
    }
    return atomic_load(&known) > 0;
}

void stg_notify_await(struct stg_inode *folder) {
    if (!enter())
        return;
    (void)fuse_lowlevel_notify_inval_entry(stg_fs.session, stg_inode_id(folder), NO_NAME,
                                           strlen(NO_NAME)); /* not there: nothing else happens */
    leave();
}

bool stg_notify_names(void) {
    int error = -ENOSYS;

    if (!enter())
        return true;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
    error = fuse_lowlevel_notify_increment_epoch(stg_fs.session);
#endif
    leave();
    return !error;
}

uint64_t stg_notify_count_names(void) { return atomic_load(&told_names); }

uint64_t stg_notify_count_inodes(void) { return atomic_load(&told_inodes); }

/* ---- the thread ---- */

/* One user less; called without the lock. */
static void leave_drop(struct drop *drop) {
    bool gone;

    stg_lock_take(&lock);
    gone = !--drop->users;
    stg_lock_drop(&lock);
    if (!gone)
        return;
    stg_inode_unref(drop->inode);
    free(drop);
}

static struct drop *take_first_locked(void) {
    struct drop *drop = first;

    first = drop->next;
    if (!first)
        last = &first;
    drop->begun = true;
    return drop;
}

static void *work(void *unused) {
    const struct timespec taken = {.tv_nsec = TAKEN_NS};

    (void)unused;
    stg_lock_take(&lock);
    while (!stopping) {
        struct drop *drop;

        if (!first) {
            stg_lock_wait(&lock, &wake);
            continue;
        }
        drop = take_first_locked();
        stg_lock_drop(&lock);
        if (drop->when == WHEN_LISTED)
            stg_notify_await(drop->inode);
        else if (drop->when == WHEN_TAKEN)
            (void)nanosleep(&taken, NULL);         /* no signal is handled here */
        (void)stg_notify_inode(drop->inode, true); /* what is not known has no pages */
        stg_lock_take(&lock);
        drop->done = true;
        (void)pthread_cond_broadcast(&over); /* cannot fail */
        stg_lock_drop(&lock);
        leave_drop(drop);
        stg_lock_take(&lock);
    }
    stg_lock_drop(&lock);
    return NULL;
}

static struct drop *find_locked(const struct stg_inode *inode, enum when when) {
    struct drop *drop = first;

    while (drop && (drop->inode != inode || drop->when != when))
        drop = drop->next;
    return drop;
}

/* The inode's entry in the queue, made where there is none, with one user more. NULL: no memory. */
static struct drop *queue_drop(struct stg_inode *inode, enum when when) {
    struct drop *fresh = calloc(1, sizeof(*fresh));
    struct drop *drop;

    if (!fresh)
        return NULL;
    *fresh = (struct drop){.inode = inode, .when = when, .users = 1};
    stg_inode_ref(inode);
    stg_lock_take(&lock);
    drop = find_locked(inode, when);
    if (!drop) {
        drop = fresh;
        *last = drop;
        last = &drop->next;
        (void)pthread_cond_signal(&wake); /* cannot fail */
    }
    drop->users++;
    stg_lock_drop(&lock);
    if (drop != fresh)
        leave_drop(fresh);
    return drop;
}

bool stg_notify_pages_wait(struct stg_inode *inode) {
    int64_t deadline_ns = stg_clock_monotonic_ns() + WAIT_NS;
    struct drop *drop = queue_drop(inode, WHEN_WAITED);
    bool done;

    if (!drop)
        return false;
    stg_lock_take(&lock);
    while (!drop->done && !stopping && stg_lock_wait_until(&lock, &over, deadline_ns))
        ;
    done = drop->done;
    stg_lock_drop(&lock);
    leave_drop(drop);
    return done;
}

static void drop_later(struct stg_inode *inode, enum when when) {
    struct drop *drop = queue_drop(inode, when);

    if (drop)
        leave_drop(drop);
}

void stg_notify_listing_later(struct stg_inode *folder) { drop_later(folder, WHEN_LISTED); }

void stg_notify_pages_later(struct stg_inode *inode) { drop_later(inode, WHEN_TAKEN); }

int stg_notify_start(void) {
    int error = 0;

    for (thread_count = 0; !error && thread_count < THREADS; thread_count++)
        error = -pthread_create(&threads[thread_count], NULL, work, NULL);
    if (error && thread_count)
        thread_count--; /* the last one is not there */
    running = thread_count > 0;
    return running ? 0 : error;
}

/* By the mount, or by the connection's own file where that is not allowed. */
void stg_notify_abort(void) {
    const char *mountpoint = stg_fs.options.mountpoint;
    char path[64];
    stg_auto_fd int fd = -1;
    int device;

    if (!umount2(mountpoint, MNT_FORCE | MNT_DETACH))
        return;
    device = stg_mounts_minor(mountpoint);
    (void)snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%d/abort", device);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "1", 1) != 1)
        stg_warning("requests that were not answered keep the mount on %s busy", mountpoint);
}

void stg_notify_stop(void) {
    int64_t deadline_ns = stg_clock_monotonic_ns() + WAIT_NS / 5;
    bool stuck;

    if (!running)
        return;
    stg_lock_take(&lock);
    stopping = true;
    (void)pthread_cond_broadcast(&wake); /* cannot fail, as the next */
    (void)pthread_cond_broadcast(&over);
    while (inside && stg_lock_wait_until(&lock, &over, deadline_ns))
        ;
    stuck = inside > 0;
    stg_lock_drop(&lock);
    if (stuck)
        stg_notify_abort();
}

void stg_notify_fini(void) {
    if (!running)
        return;
    while (thread_count)
        (void)pthread_join(threads[--thread_count], NULL); /* cannot fail for threads of ours */
    running = false;
    while (first)
        leave_drop(take_first_locked());
}
