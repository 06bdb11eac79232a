/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the times that are answered, the versions of pages, and what requests are under way. */
#include "fs/coherence.h"

#include "fs/folders.h"
#include "fs/listing.h"
#include "fs/notify.h"
#include "fs/staging.h"
#include "fs/watch.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <stdatomic.h>
#include <string.h>

#define FOREVER_S 31536000.0 /* a year */
#define LISTED 64
#define LATE 1024
#define LATE_NS 10000000

static const char *const names[] = {[STG_COHERENCE_AUTO] = "auto",
                                    [STG_COHERENCE_WATCH] = "watch",
                                    [STG_COHERENCE_TTL] = "ttl",
                                    [STG_COHERENCE_STRICT] = "strict",
                                    [STG_COHERENCE_FROZEN] = "frozen"};

const char *stg_coherence_name(enum stg_coherence coherence) { return names[coherence]; }

/* ---- times ---- */

bool stg_coherence_has_epoch(void) { return stg_fs.has_epoch; }

static double by_mode(bool watched) {
    switch (stg_fs.options.coherence) {
    case STG_COHERENCE_STRICT:
        return 0;
    case STG_COHERENCE_FROZEN:
        return FOREVER_S;
    default:
        return watched ? FOREVER_S : stg_fs.options.ttl_s;
    }
}

/*
 * What is mounted on a folder, or unmounted, is told by no event of the folder, and lost events do
 * not say which names they were of: names are kept for ever only where all can be dropped at once.
 */
static double name_timeout_s(const struct stg_inode *folder, double asked_s) {
    bool watched = folder->volume->watched || stg_folders_is_watched(folder);

    return asked_s >= 0 ? asked_s : by_mode(stg_fs.has_epoch && watched);
}

double stg_coherence_entry_timeout_s(const struct stg_inode *folder) {
    return name_timeout_s(folder, stg_fs.options.entry_timeout_s);
}

double stg_coherence_negative_timeout_s(const struct stg_inode *folder) {
    return name_timeout_s(folder, stg_fs.options.negative_timeout_s);
}

double stg_coherence_attr_timeout_s(const struct stg_inode *inode) {
    double asked_s = stg_fs.options.attr_timeout_s;

    return asked_s >= 0 ? asked_s : by_mode(inode->volume->watched);
}

int64_t stg_coherence_recheck_ns(const struct stg_inode *inode) {
    double seconds = stg_coherence_attr_timeout_s(inode);

    return seconds >= FOREVER_S ? INT64_MAX : (int64_t)(seconds * 1e9);
}

/* ---- versions ---- */

static uint64_t version_of(const struct statx *stx) {
    const uint64_t words[] = {
        stx->stx_size,
        (uint64_t)stx->stx_mtime.tv_sec,
        (uint64_t)stx->stx_ctime.tv_sec,
        (uint64_t)stx->stx_mtime.tv_nsec << 32 | stx->stx_ctime.tv_nsec,
    };
    uint64_t version = stg_hash_bytes(words, sizeof(words), 0);

    return version ? version : 1;
}

void stg_coherence_saw(struct stg_inode *inode, const struct statx *stx) {
    uint64_t now;

    /* Events drop the pages of what is watched, and nothing drops those of a frozen tree. */
    if (!stg_fs.no_open || stg_coherence_is_watched(inode) || !stg_inode_is_regular(inode))
        return;
    now = version_of(stx);
    if (atomic_load(&inode->version) == now)
        return;
    /* Only when they are gone is the version another: else a second look would not wait for it. */
    if (!atomic_load(&inode->paged) || stg_notify_pages_wait(inode))
        atomic_store(&inode->version, now);
}

/* ---- requests under way ---- */

static atomic_uint turn;
static atomic_uint under_way[2];
static struct stg_lock turns_lock = STG_LOCK(STG_RANK_SYNC);

unsigned stg_coherence_enter(void) {
    unsigned mine = atomic_load(&turn) & 1;

    atomic_fetch_add(&under_way[mine], 1);
    return mine;
}

void stg_coherence_leave(unsigned *mine) { atomic_fetch_sub(&under_way[*mine & 1], 1); }

static atomic_bool stopping;

static void wait_for_turn(unsigned old) {
    const struct timespec pause = {.tv_nsec = 200000};

    while (atomic_load(&under_way[old]) && !atomic_load(&stopping))
        (void)nanosleep(&pause, NULL); /* at worst it looks sooner */
}

/*
 * Waits for all requests that began before the call. A request reads the turn and counts itself in
 * two steps: one that was between them is counted in the old turn after it was found empty, and is
 * caught when that turn ends in its turn.
 */
static void wait_for_requests(void) {
    stg_lock_take(&turns_lock);
    for (int i = 0; i < 2; i++)
        wait_for_turn(atomic_fetch_add(&turn, 1) & 1);
    stg_lock_drop(&turns_lock);
}

/* ---- folders that were listed ---- */

static struct stg_lock listed_lock = STG_LOCK(STG_RANK_SYNC);
static struct stg_inode *listed[LISTED]; /* referenced; protected by the lock, as the next */
static unsigned listed_next;

void stg_coherence_listed(struct stg_inode *folder) {
    struct stg_inode *old;

    if (stg_fs.options.coherence == STG_COHERENCE_STRICT)
        return; /* no name is kept */
    stg_inode_ref(folder);
    stg_lock_take(&listed_lock);
    old = listed[listed_next];
    listed[listed_next] = folder;
    listed_next = (listed_next + 1) % LISTED;
    stg_lock_drop(&listed_lock);
    if (old)
        stg_inode_unref(old);
}

/*
 * The kernel gives the names of a listing the epoch in which it takes them, not that in which it
 * asked; so what was answered must have been taken before the epoch ends.
 */
static void wait_for_listings(void) {
    struct stg_inode *folders[LISTED];

    stg_lock_take(&listed_lock);
    memcpy(folders, listed, sizeof(folders));
    memset(listed, 0, sizeof(listed));
    stg_lock_drop(&listed_lock);
    for (int i = 0; i < LISTED; i++) {
        if (!folders[i])
            continue;
        stg_notify_await(folders[i]);
        stg_inode_unref(folders[i]);
    }
}

/* ---- doubt ---- */

void stg_coherence_doubt_all(void) {
    stg_listing_doubt_all();
    wait_for_listings();
    if (stg_fs.has_epoch)
        (void)stg_notify_names();
}

/* Is the file another than that of which the kernel may have pages? Looks at the source. */
static bool is_another(struct stg_inode *inode) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct statx stx;
    uint64_t now;

    if (stg_inode_fd(inode, &lent) ||
        statx(lent.fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STG_STATX_MASK, &stx))
        return true;
    now = version_of(&stx);
    return atomic_exchange(&inode->version, now) != now;
}

/* What the kernel had not taken the answer for yet. */
struct late {
    struct stg_inode *inodes[LATE]; /* referenced */
    unsigned count;
};

static void revalidate(struct stg_inode *inode, void *context) {
    struct late *late = context;
    bool regular = stg_inode_is_regular(inode);
    bool drop = !regular || !stg_fs.no_open;

    if (stg_coherence_is_watched(inode) || atomic_load(&stopping))
        return;
    stg_staging_recheck(inode); /* first: a READ after the drop must not be given an old copy */
    if (!drop && atomic_load(&inode->paged))
        drop = is_another(inode);
    if (stg_notify_inode(inode, drop) || !stg_inode_is_known(inode) || late->count == LATE)
        return;
    stg_inode_ref(inode);
    late->inodes[late->count++] = inode;
}

/*
 * The answer that first tells of an inode may have been given and not taken; it is a matter of
 * microseconds, as the caller sleeps until it comes.
 */
static void tell_late(struct late *late) {
    const struct timespec pause = {.tv_nsec = LATE_NS};

    if (late->count)
        (void)nanosleep(&pause, NULL); /* no signal is handled here */
    for (unsigned i = 0; i < late->count; i++) {
        (void)stg_notify_inode(late->inodes[i], true);
        stg_inode_unref(late->inodes[i]);
    }
}

void stg_coherence_revalidate(void) {
    struct late *late = calloc(1, sizeof(*late));

    if (!late) {
        stg_error("a sync has no memory, and is left out");
        return;
    }
    stg_listing_doubt_all(); /* first: who begins after this looks anew */
    wait_for_requests();
    stg_coherence_doubt_all();
    (void)stg_inode_each(revalidate, late);
    tell_late(late);
    free(late);
}

int stg_coherence_start(void) {
    int error = stg_notify_start();

    return error ? error : stg_watch_start();
}

void stg_coherence_stop(void) {
    atomic_store(&stopping, true);
    stg_watch_stop();
    stg_notify_stop();
}

void stg_coherence_fini(void) {
    stg_watch_fini();
    stg_notify_fini();
    for (int i = 0; i < LISTED; i++)
        if (listed[i])
            stg_inode_unref(listed[i]);
    memset(listed, 0, sizeof(listed));
}
