/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the times that are answered, the versions of pages, and what requests are under way. */
#include "fs/coherence.h"

#include "fs/folders.h"
#include "fs/listing.h"
#include "fs/notify.h"
#include "fs/recheck.h"
#include "fs/watch.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"

#include <stdatomic.h>
#include <string.h>

#define FOREVER_S 31536000.0 /* a year */
/* A tick of a clock that is not known. */
#define REMOTE_TICK_S 2.0
/* How long one write(2) may take, for a sync to be sure of what was read meanwhile. */
#define WRITE_MAX_S 10.0
#define SETTLED UINT64_C(1)
/* Nothing lies longer between a look at the source and what follows from it. */
#define LOOK_MAX_NS INT64_C(1000000000)
#define PAUSE_FIRST_NS 100000L
#define PAUSE_MAX_NS 20000000L

static atomic_bool stopping;
static struct stg_lock versions_lock = STG_LOCK(STG_RANK_PLACES);
static pthread_cond_t dropped = PTHREAD_COND_INITIALIZER;

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

double stg_coherence_longest_name_s(void) {
    double entry_s = name_timeout_s(stg_fs.root, stg_fs.options.entry_timeout_s);
    double negative_s = name_timeout_s(stg_fs.root, stg_fs.options.negative_timeout_s);

    return entry_s > negative_s ? entry_s : negative_s;
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
    const uint64_t words[] = {stx->stx_size, (uint64_t)stx->stx_mtime.tv_sec,
                              stx->stx_mtime.tv_nsec, (uint64_t)stx->stx_ctime.tv_sec,
                              stx->stx_ctime.tv_nsec};

    return stg_hash_bytes(words, sizeof(words), 0) & ~SETTLED;
}

static int64_t ctime_ns_of(const struct statx *stx) {
    return stx->stx_ctime.tv_sec * INT64_C(1000000000) + stx->stx_ctime.tv_nsec;
}

static bool is_younger(const struct statx *stx, double seconds) {
    int64_t age_ns = stg_clock_realtime_ns() - ctime_ns_of(stx);

    return age_ns >= 0 && age_ns < (int64_t)(seconds * 1e9);
}

/* What a remote source's clock tells is not known: a second is common, FAT has two. */
bool stg_coherence_is_young(const struct stg_inode *inode, const struct statx *stx) {
    return is_younger(stx, inode->volume->remote ? REMOTE_TICK_S : stg_fs.options.settle_s);
}

/* With the mark that it will have no second content. */
static uint64_t marked_version(const struct stg_inode *inode, const struct statx *stx) {
    return version_of(stx) | (stg_coherence_is_young(inode, stx) ? 0 : SETTLED);
}

/* Are pages of version `then` those of version `now`? */
static bool are_current(uint64_t then, uint64_t now) {
    return then == now || then == (now | SETTLED);
}

static void note_version_locked(struct stg_inode *inode, const struct statx *stx,
                                uint64_t version) {
    atomic_store(&inode->version, version);
    inode->version_ctime_ns = ctime_ns_of(stx);
    inode->version_at_ns = stg_clock_monotonic_ns();
}

/*
 * Is what was seen older than what another look has noted meanwhile? Where that was a while ago it
 * is not, whatever the times are: somebody has set the source's clock back.
 */
static bool is_older_locked(const struct stg_inode *inode, const struct statx *stx) {
    return atomic_load(&inode->version) && ctime_ns_of(stx) < inode->version_ctime_ns &&
           stg_clock_monotonic_ns() - inode->version_at_ns < LOOK_MAX_NS;
}

/* True: the caller drops the pages of another version now, alone, and ends that with end_drop(). */
static bool begin_drop(struct stg_inode *inode, const struct statx *stx, uint64_t now) {
    uint64_t before;
    bool failed = false; /* a drop that was waited for: another would wait for as long */
    bool begins;

    stg_lock_take(&versions_lock);
    before = atomic_load(&inode->version);
    while (inode->dropping && !are_current(atomic_load(&inode->version), now)) {
        stg_lock_wait(&versions_lock, &dropped); /* a second at most */
        failed = !inode->dropping && atomic_load(&inode->version) == before;
    }
    begins =
        !failed && !are_current(atomic_load(&inode->version), now) && !is_older_locked(inode, stx);
    if (begins)
        inode->dropping = true;
    stg_lock_drop(&versions_lock);
    return begins;
}

/* `done`: the pages are gone, and the version is `now`. */
static void end_drop(struct stg_inode *inode, const struct statx *stx, uint64_t now, bool done) {
    stg_lock_take(&versions_lock);
    inode->dropping = false;
    if (done)
        note_version_locked(inode, stx, now);
    (void)pthread_cond_broadcast(&dropped); /* cannot fail */
    stg_lock_drop(&versions_lock);
}

static bool drop_pages(struct stg_inode *inode, uint64_t now) {
    if (!atomic_load(&inode->paged))
        return true;
    if ((atomic_load(&inode->version) | SETTLED) != now)
        return stg_notify_pages_wait(inode);
    stg_notify_pages_later(inode);
    return true;
}

/*
 * The kernel drops pages by itself where an answer has another size or mtime, but not soon enough:
 * of two looks at once one may be passed over, as it was asked for before the other's answer came;
 * and who comes second finds the new attributes while the first has not yet dropped the pages
 * (fuse_change_attributes()). So they are gone before anybody is told of another version.
 *
 * The kernel does not take attributes that were asked for before it was told to drop something; it
 * asks for them once more when it needs them, at the latest when the open checks the permissions.
 * So it is told once for each version, and not by a look that comes late with an older one: else
 * who has opened the file could read it with the size that it had before.
 *
 * What changed in a tick of the clock is dropped once more after that tick, and after the answer.
 */
void stg_coherence_saw(struct stg_inode *inode, const struct statx *stx) {
    uint64_t never = 0;
    uint64_t now;

    if (!stg_fs.no_open || stg_coherence_is_watched(inode) || !stg_inode_is_regular(inode))
        return; /* events drop the pages of what is watched */
    now = marked_version(inode, stx);
    if (stg_fs.options.coherence == STG_COHERENCE_FROZEN) { /* for a sync to compare with */
        (void)atomic_compare_exchange_strong(&inode->version, &never, now);
        return;
    }
    if (!are_current(atomic_load(&inode->version), now) && begin_drop(inode, stx, now))
        end_drop(inode, stx, now, drop_pages(inode, now));
}

void stg_coherence_changed(struct stg_inode *inode) {
    if (stg_fs.no_open && !stg_coherence_is_watched(inode))
        atomic_store(&inode->version, 0);
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

/* Sleeps for a while, and longer each time. */
static void pause_longer(long *pause_ns) {
    const struct timespec pause = {.tv_nsec = *pause_ns};

    (void)nanosleep(&pause, NULL); /* no signal is handled here */
    *pause_ns = *pause_ns * 2 < PAUSE_MAX_NS ? *pause_ns * 2 : PAUSE_MAX_NS;
}

static void wait_for_turn(unsigned old) {
    long pause_ns = PAUSE_FIRST_NS;

    while (atomic_load(&under_way[old]) && !atomic_load(&stopping))
        pause_longer(&pause_ns);
}

/*
 * Waits for all requests that began before the call. A request reads the turn and counts itself in
 * two steps: one that was between them is counted in the old turn after it was found empty, and is
 * caught when that turn ends in its turn.
 */
void stg_coherence_await_requests(void) {
    stg_lock_take(&turns_lock);
    for (int i = 0; i < 2; i++)
        wait_for_turn(atomic_fetch_add(&turn, 1) & 1);
    stg_lock_drop(&turns_lock);
}

/* ---- listings ---- */

void stg_coherence_made_name(struct stg_inode *folder) {
    stg_listing_outdate(folder);
    stg_notify_touched(folder);
}

void stg_coherence_listed(struct stg_inode *folder) {
    if (!atomic_load_explicit(&folder->listed, memory_order_relaxed))
        atomic_store(&folder->listed, true);
}

/*
 * The kernel gives the names of a listing the epoch in which it takes them, not that in which it
 * asked; so what was answered must have been taken before the epoch ends.
 */
static void wait_for_listing(struct stg_inode *inode, void *unused) {
    (void)unused;
    if (atomic_load(&inode->listed) && atomic_exchange(&inode->listed, false))
        stg_notify_await(inode);
}

static void wait_for_listings(void) {
    long pause_ns = STG_NOTIFY_TAKEN_NS;

    if (stg_notify_waits())
        (void)stg_inode_each(wait_for_listing, NULL); /* without memory: some stay for a while */
    else
        pause_longer(&pause_ns);
}

/* ---- doubt ---- */

void stg_coherence_doubt_all(void) {
    stg_listing_doubt_all();
    wait_for_listings();
    if (stg_fs.has_epoch)
        (void)stg_notify_names();
}

/*
 * Is the file another than that of which the kernel may have pages? Looks at the source, and gives
 * the version that it has there; 0: it cannot be looked at. While a write(2) goes on it has the
 * times of its begin (file_update_time()): what was read then is not told from what is read after
 * it.
 */
static bool is_another(struct stg_inode *inode, struct statx *ret_stx, uint64_t *ret_now) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;

    *ret_now = 0;
    if (stg_inode_fd(inode, &lent) ||
        statx(lent.fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STG_STATX_MASK, ret_stx))
        return true;
    *ret_now = marked_version(inode, ret_stx);
    return !are_current(atomic_load(&inode->version), *ret_now) || is_younger(ret_stx, WRITE_MAX_S);
}

/* Only when the pages of others are gone: else a look would not wait for that. */
static void note_version(struct stg_inode *inode, const struct statx *stx, uint64_t version) {
    stg_lock_take(&versions_lock);
    if (!is_older_locked(inode, stx))
        note_version_locked(inode, stx, version);
    stg_lock_drop(&versions_lock);
}

/* What the kernel had not taken the answer for yet. */
struct late {
    struct late *next;
    struct stg_inode *inode; /* referenced */
};

struct pass {
    struct late *late;
    bool failed; /* for want of memory */
};

static void add_late(struct pass *pass, struct stg_inode *inode) {
    struct late *late = malloc(sizeof(*late));

    if (!late) {
        pass->failed = true;
        return;
    }
    stg_inode_ref(inode);
    *late = (struct late){.next = pass->late, .inode = inode};
    pass->late = late;
}

static void revalidate(struct stg_inode *inode, void *context) {
    bool regular = stg_inode_is_regular(inode);
    bool drop = !regular || !stg_fs.no_open;
    struct statx stx;
    uint64_t now = 0;

    if (stg_coherence_is_watched(inode) || atomic_load(&stopping))
        return;
    if (!drop && atomic_load(&inode->paged))
        drop = is_another(inode, &stx, &now);
    if (stg_notify_inode(inode, drop)) {
        if (now)
            note_version(inode, &stx, now);
    } else if (stg_inode_is_known(inode)) {
        add_late(context, inode);
    }
}

/*
 * The answer that first tells of an inode may have been given and not taken: it is told until the
 * kernel knows it, or has forgotten it.
 */
static void tell_late(struct pass *pass) {
    long pause_ns = PAUSE_FIRST_NS;

    while (pass->late) {
        struct late **link = &pass->late;

        while (*link) {
            struct late *late = *link;

            if (!atomic_load(&stopping) && !stg_notify_inode(late->inode, true) &&
                stg_inode_is_known(late->inode)) {
                link = &late->next;
                continue;
            }
            *link = late->next;
            stg_inode_unref(late->inode);
            free(late);
        }
        if (pass->late)
            pause_longer(&pause_ns);
    }
}

void stg_coherence_revalidate(void) {
    struct pass pass;
    long pause_ns = PAUSE_MAX_NS;

    stg_listing_doubt_all(); /* first: who begins after this looks anew */
    stg_coherence_await_requests();
    do {
        pass = (struct pass){0};
        stg_coherence_doubt_all();
        /* First: a READ after a drop must not be given an old copy. */
        if (!stg_recheck_all(&stopping) || !stg_inode_each(revalidate, &pass))
            pass.failed = true;
        tell_late(&pass);
        if (pass.failed)
            pause_longer(
                &pause_ns); /* memory may be there then; who waits has a limit of his own */
    } while (pass.failed && !atomic_load(&stopping));
}

int stg_coherence_start(void) {
    int error = stg_notify_start();

    return error ? error : stg_watch_start();
}

void stg_coherence_stop(void) {
    atomic_store(&stopping, true);
    stg_watch_stop();
    stg_notify_stop();
    stg_watch_join(); /* while there are copies that it may be looking at */
}

void stg_coherence_fini(void) {
    stg_watch_fini();
    stg_notify_fini();
}
