/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the leases, the thread that has them looked at round by round, and those that look.
 *
 * A lease is made by who answers, under the lock. It is looked at with each round from then on,
 * until its time is past or it is over, and is freed by the round's thread alone, between two
 * rounds: so who looks reads what it is of without the lock. Names that are not there are looked at
 * by reading their folder, which has a lease of its own, without a name, for that; or each alone,
 * where a listing does not tell, or nobody has read it.
 *
 * Who answers and who looks may meet: a lookup that has seen the source before a change, and is
 * answered after a round has seen that. The kernel waits for lookups in a folder before it forgets
 * a name of it, and takes no attributes that were asked for before it was told to forget some. An
 * answer that is leased after the look, and differs from what was seen there, is told with the next
 * round (`again`). Only a lookup that asks whether a name is still right is not waited for: so a
 * name is told with two rounds, and once more if it was leased between them (`differed`).
 *
 * Names are told one by one, and not by an epoch: the kernel would take away what is mounted on
 * those that it asks for again then (Linux 6.18, lookup_fast() and d_invalidate()).
 */
#include "fs/lease.h"

#include "fs/coherence.h"
#include "fs/given.h"
#include "fs/lease_tell.h"
#include "fs/listing.h"
#include "fs/notify.h"
#include "fs/staging.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/crew.h"
#include "util/log.h"

#include <stdatomic.h>
#include <string.h>

#define BUCKETS 16384
/* Shorter than that a round would be all that the daemon does. */
#define TTL_MIN_S 0.5
/*
 * Of `ttl`: from the begin of a round to that of the next, and for one. So between two looks at a
 * lease there is no more than three quarters, and as much before the first: a folder may have been
 * read a quarter before that, too.
 */
#define PERIOD_PART 2
#define ROUND_PART 4
#define THREADS 16
#define CHUNK 32 /* objects that one thread looks at in one go, at most */
/* Until the kernel has taken an answer, from when on it counts. */
#define TAKEN_NS INT64_C(1000000000)
#define FIRST_CAPACITY 4096
#define GROWTH 4 /* from one round to the next, at most: those that come may be slower */
#define MARGIN 2 /* so many times as long a round may take as it is expected to */
#define LAST_CAPACITY 100000
#define FREE_MAX 100000
/* After a round that took too long, twice as long each time. */
#define REST_FIRST_NS INT64_C(1000000000)
#define REST_MAX_NS INT64_C(60000000000)
#define REST_FORGETS 16 /* of that with each round that does not */

struct lease {
    struct lease *next;       /* in its bucket; protected by lock, as all but what is constant */
    struct stg_inode *folder; /* referenced; constant, as the next three */
    struct stg_inode *inode;  /* referenced; NULL: the folder has not that name, or is read ("") */
    bool alone;               /* an object, or a name that is not there, looked at by itself */
    uint64_t who;             /* a hash of what the object is */
    int64_t until_ns;         /* monotonic: the kernel keeps it until then, at most */
    bool again;               /* attributes are told with the next round, whatever is seen */
    bool followed;            /* a folder that was read with a round, and is with each */
    bool differed;            /* the name was told, and not leased since: over when told again */
    uint32_t looked;          /* the last round that has looked at it */

    bool over;   /* of no use any more */
    char name[]; /* constant */
};

/* What one thread looks at: some one by one, or those of one folder that its reading tells of. */
struct chunk {
    struct stg_crew_work work;
    struct lease **leases; /* sorted; the round's */
    size_t count;
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct lease *buckets[BUCKETS];
static uint64_t count;      /* all of them */
static uint64_t free_count; /* of them those that cost no request: the folder's reading tells */
static uint64_t capacity = FIRST_CAPACITY; /* of the others */
static uint64_t round_left;                /* chunks of the round that were not looked at */
static uint32_t round_number;              /* of the one that goes on, or the last */
static int64_t rest_ns; /* the round's thread's: after the next round that takes too long */
static bool suspended;
static bool stopping;
static bool running; /* constant while there are requests */
static pthread_t thread;

/* ---- what is seen ---- */

static uint64_t who_of(const struct statx *stx) {
    const uint64_t words[] = {stx->stx_ino,
                              stx->stx_mode & S_IFMT,
                              (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor,
                              stx->stx_mnt_id,
                              stx->stx_mask & STATX_BTIME ? (uint64_t)stx->stx_btime.tv_sec : 0,
                              stx->stx_mask & STATX_BTIME ? stx->stx_btime.tv_nsec : 0};

    return stg_hash_bytes(words, sizeof(words), 0);
}

/*
 * What was seen while the file could change without another time is not what is seen later. When it
 * was read last is left out: what is read through the mount moves that, too, and each file that a
 * build reads would be asked for once more.
 */
static uint64_t what_of(const struct stg_inode *inode, const struct statx *stx) {
    const uint64_t words[] = {stx->stx_size,
                              (uint64_t)stx->stx_mtime.tv_sec,
                              stx->stx_mtime.tv_nsec,
                              (uint64_t)stx->stx_ctime.tv_sec,
                              stx->stx_ctime.tv_nsec,
                              (uint64_t)stx->stx_mode << 32 | stx->stx_nlink,
                              (uint64_t)stx->stx_uid << 32 | stx->stx_gid,
                              stx->stx_blocks,
                              stg_coherence_is_young(inode, stx),
                              (uint64_t)stx->stx_rdev_major << 32 | stx->stx_rdev_minor};

    return stg_hash_bytes(words, sizeof(words), 0);
}

/* ---- the table ---- */

static struct lease **bucket_of(const struct stg_inode *folder, const char *name) {
    return &buckets[stg_hash_bytes(name, strlen(name), (uintptr_t)folder) % BUCKETS];
}

static struct lease *find_locked(const struct stg_inode *folder, const char *name) {
    struct lease *lease = *bucket_of(folder, name);

    while (lease && (lease->folder != folder || strcmp(lease->name, name) != 0))
        lease = lease->next;
    return lease;
}

static bool is_free(const struct lease *lease) { return !lease->alone && *lease->name; }

static struct lease *add_locked(struct stg_inode *folder, const char *name, struct stg_inode *inode,
                                bool alone) {
    struct lease **bucket = bucket_of(folder, name);
    size_t name_bytes = strlen(name) + 1;
    struct lease *lease = malloc(sizeof(*lease) + name_bytes);

    if (!lease)
        return NULL;
    *lease = (struct lease){.next = *bucket, .folder = folder, .inode = inode, .alone = alone};
    memcpy(lease->name, name, name_bytes);
    stg_inode_ref(folder);
    if (inode)
        stg_inode_ref(inode);
    *bucket = lease;
    free_count += is_free(lease);
    if (!count++)
        (void)pthread_cond_signal(&changed); /* cannot fail */
    return lease;
}

/* Is there time in a round for one object, or folder, more? */
static bool has_room_locked(void) { return count - free_count < capacity; }

/* ---- giving ---- */

bool stg_lease_is_possible(void) {
    const struct stg_options *options = &stg_fs.options;

    return options->lease_s > options->ttl_s && options->ttl_s >= TTL_MIN_S &&
           (options->coherence == STG_COHERENCE_AUTO || options->coherence == STG_COHERENCE_TTL) &&
           options->entry_timeout_s < 0 && options->attr_timeout_s < 0 &&
           options->negative_timeout_s < 0;
}

bool stg_lease_is_for(const struct stg_inode *folder) {
    return folder->volume->remote && stg_lease_is_possible();
}

/*
 * The kernels that have epochs can be told to ask for a name again. Those that do not wait for who
 * looks it up would have to be told each name twice, with a pause.
 */
static bool may_lease(const struct stg_inode *folder) {
    return running && stg_fs.has_epoch && stg_notify_waits() && stg_lease_is_for(folder);
}

static int64_t lease_ns(void) { return (int64_t)(stg_fs.options.lease_s * 1e9); }

/*
 * Those attributes are going to be answered, for as long as the inode is leased. Of two answers
 * that differ the kernel may take the older one last: the next round tells, whatever it sees.
 */
static void note_answer(struct stg_inode *inode, const struct statx *stx, int64_t now_ns) {
    uint64_t what = what_of(inode, stx);

    if (atomic_load(&inode->leased_until_ns) <= now_ns)
        atomic_store(&inode->leased_what, what);
    else if (atomic_load(&inode->leased_what) != what)
        atomic_store(&inode->leased_what, 0);
}

/* True where it is leased from now on. */
static bool lease_locked(struct stg_inode *folder, const char *name, struct stg_inode *inode,
                         const struct statx *stx) {
    struct lease *lease = find_locked(folder, name);
    int64_t now_ns = stg_clock_monotonic_ns();

    if (suspended || stopping)
        return false;
    if (lease && (lease->over || lease->inode != inode || lease->who != who_of(stx)))
        return false; /* until a round has done with it */
    if (!lease && has_room_locked() && (lease = add_locked(folder, name, inode, true)))
        lease->who = who_of(stx);
    if (!lease)
        return false;
    lease->differed = false;
    lease->until_ns = now_ns + lease_ns() + TAKEN_NS;
    note_answer(inode, stx, now_ns);
    atomic_store(&inode->leased_until_ns, now_ns + lease_ns());
    return true;
}

void stg_lease_grant(struct stg_inode *folder, const char *name, struct stg_inode *inode,
                     const struct statx *stx, struct fuse_entry_param *entry) {
    bool leased;

    /* The root keeps its volume where the source is mounted anew (reattach.h). */
    if (!may_lease(folder) || !inode->volume->remote || entry->entry_timeout <= 0 ||
        (inode->volume != folder->volume && folder != stg_fs.root))
        return;
    stg_lock_take(&lock);
    leased = lease_locked(folder, name, inode, stx);
    stg_lock_drop(&lock);
    if (!leased)
        return;
    entry->entry_timeout = stg_fs.options.lease_s;
    if (entry->attr_timeout > 0)
        entry->attr_timeout = stg_fs.options.lease_s;
}

/*
 * True where the folder is going to be read with each round. What a listing told that is not fresh
 * may have come since: the next round tells that in time if the last one has read the folder, and
 * none is reading it just now, which would not look at this name yet.
 */
static bool lease_folder_locked(struct stg_inode *folder, bool fresh, int64_t until_ns) {
    struct lease *lease = find_locked(folder, "");

    if (!lease && fresh && has_room_locked())
        lease = add_locked(folder, "", NULL, false);
    if (!lease || lease->over || (!fresh && (!lease->followed || round_left)))
        return false;
    lease->until_ns = until_ns;
    return true;
}

static bool lease_absent_locked(struct stg_inode *folder, const char *name, bool listed,
                                bool fresh) {
    int64_t until_ns = stg_clock_monotonic_ns() + lease_ns() + TAKEN_NS;
    struct lease *lease = find_locked(folder, name);

    if (suspended || stopping || (lease && (lease->over || lease->inode)))
        return false;
    listed = lease ? !lease->alone : listed;
    if (listed ? !lease_folder_locked(folder, fresh, until_ns) : !fresh)
        return false;
    if (!lease && (listed ? free_count < FREE_MAX : has_room_locked()))
        lease = add_locked(folder, name, NULL, !listed);
    if (lease)
        lease->until_ns = until_ns;
    return lease;
}

double stg_lease_absent_s(struct stg_inode *folder, const char *name, double keep_s) {
    bool fresh = keep_s >= stg_fs.options.ttl_s * (1 - 1.0 / ROUND_PART);
    bool listed;
    bool leased;

    if (!may_lease(folder) || keep_s <= 0)
        return keep_s;
    listed = stg_listing_may_tell(folder, name);
    stg_lock_take(&lock);
    leased = lease_absent_locked(folder, name, listed, fresh);
    stg_lock_drop(&lock);
    return leased ? stg_fs.options.lease_s : keep_s;
}

double stg_lease_attr_timeout_s(struct stg_inode *inode, const struct statx *stx,
                                double timeout_s) {
    int64_t now_ns = stg_clock_monotonic_ns();
    int64_t left_ns;

    if (timeout_s <= 0)
        return timeout_s;
    if (inode == stg_fs.root && may_lease(inode)) { /* no lookup brings that */
        stg_lock_take(&lock);
        (void)lease_locked(inode, ".", inode, stx);
        stg_lock_drop(&lock);
    }
    left_ns = atomic_load(&inode->leased_until_ns) - now_ns;
    if ((double)left_ns <= timeout_s * 1e9)
        return timeout_s;
    note_answer(inode, stx, now_ns);
    return (double)left_ns / 1e9;
}

/*
 * Not bound by the capacity, as the kernel keeps it anyhow. Where the other name has a lease, that
 * is of what was replaced, and over: the new one is found before it. While all that was leased is
 * being told, it may be renamed before its turn, and the new name has to be told as well. False
 * without memory.
 */
static bool rename_locked(const struct lease *lease, struct stg_inode *to, const char *new_name,
                          struct stg_inode *inode) {
    struct lease *there = find_locked(to, new_name);

    if (lease && lease->inode)
        inode = lease->inode; /* it is what the kernel moves, whatever has the name by now */
    if (!inode || (!there && !suspended && !lease))
        return true;
    if (there)
        there->over = true;
    there = add_locked(to, new_name, inode, true);
    if (!there)
        return false;
    if (lease && lease->inode)
        there->who = lease->who;
    there->until_ns = stg_clock_monotonic_ns() + lease_ns() + TAKEN_NS;
    there->again = true;
    return true;
}

void stg_lease_renamed(struct stg_inode *from, const char *name, struct stg_inode *to,
                       const char *new_name, struct stg_inode *inode) {
    bool noted;

    if (!may_lease(from))
        return;
    stg_lock_take(&lock);
    noted = rename_locked(find_locked(from, name), to, new_name, inode);
    stg_lock_drop(&lock);
    if (!noted)
        (void)stg_notify_names();
}

bool stg_lease_may(struct stg_inode *folder) { return may_lease(folder); }

bool stg_lease_listing(struct stg_inode *folder) {
    bool leased;

    if (!may_lease(folder))
        return false;
    stg_lock_take(&lock);
    leased = !suspended && !stopping &&
             lease_folder_locked(folder, true, stg_clock_monotonic_ns() + lease_ns() + TAKEN_NS);
    stg_lock_drop(&lock);
    return leased;
}

uint64_t stg_lease_count(void) {
    uint64_t now;

    stg_lock_take(&lock);
    now = count;
    stg_lock_drop(&lock);
    return now;
}

/* ---- looking ---- */

/* What the kernel is to be told of a lease: the name with its attributes, or these alone. */
enum news { NOTHING, ATTRIBUTES, NAME };

/* `error`: of the look, else what was seen. */
static enum news compare_locked(struct lease *lease, const struct statx *stx, int error) {
    bool is_another = error || who_of(stx) != lease->who;
    uint64_t what = is_another ? 0 : what_of(lease->inode, stx);
    bool differs = !is_another && atomic_exchange(&lease->inode->leased_what, what) != what;
    bool tells = differs || lease->again;

    lease->over = lease->over || (is_another && lease->differed);
    lease->differed = is_another;
    lease->again = is_another || differs;
    return is_another ? NAME : tells ? ATTRIBUTES : NOTHING;
}

static void look(struct lease *lease, int fd) {
    struct statx stx;
    bool failed = fd < 0 || statx(fd, lease->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
                                  STG_STATX_MASK, &stx);
    int error = failed ? (fd < 0 ? -fd : errno) : 0;
    enum news news;

    stg_lock_take(&lock);
    news = compare_locked(lease, &stx, error);
    /* Under the lock: an answer that makes it known later finds it over. */
    lease->over = lease->over || !stg_inode_is_known(lease->inode);
    if (lease->over || news == NAME) /* another name of it may still be leased */
        atomic_store(&lease->inode->leased_until_ns, 0);
    stg_lock_drop(&lock);
    if (news != NAME)
        stg_staging_saw(lease->inode, &stx);
    if (news != NOTHING && !stg_notify_inode(lease->inode, false) &&
        stg_inode_is_known(lease->inode)) {
        stg_lock_take(&lock);
        lease->again = true; /* the answer that tells of it has not been taken */
        stg_lock_drop(&lock);
    }
    if (news == NAME)
        stg_lease_tell(lease->folder, lease->name, NULL);
}

/* The name was not there: it is now, or may be. */
static void end_absence(struct lease *lease) {
    stg_lock_take(&lock);
    lease->over = true; /* before it is told: who finds it still absent after that has ttl */
    stg_lock_drop(&lock);
    stg_lease_tell(lease->folder, lease->name, NULL);
}

static void note_followed(struct lease *lease) {
    stg_lock_take(&lock);
    lease->followed = true;
    stg_lock_drop(&lock);
}

/* Reads a folder that was listed, or has names that are not there. */
static void read_folder(const struct chunk *chunk) {
    struct stg_inode *folder = chunk->leases[0]->folder;
    bool known = stg_inode_is_known(folder);
    bool same = known && stg_listing_is_same(folder);
    struct stg_listing_look *listing = known && !same ? stg_listing_look(folder) : NULL;
    bool seen = same || listing;

    for (size_t i = 0; i < chunk->count; i++) {
        struct lease *lease = chunk->leases[i];

        if (!*lease->name && seen)
            note_followed(lease);
        else if (!seen || (!same && stg_listing_look_has(listing, lease->name)))
            end_absence(lease);
    }
    stg_listing_look_end(listing);
    stg_given_check(folder, seen);
}

static void look_at_absence(struct lease *lease, int fd) {
    struct statx stx;

    if (fd < 0 ||
        !statx(fd, lease->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &stx) ||
        errno != ENOENT)
        end_absence(lease);
}

/* Those of one folder come one after another. */
static void look_at_each(const struct chunk *chunk) {
    struct stg_lent_fd lent = STG_LENT_NONE;
    const struct stg_inode *folder = NULL;
    int error = 0;

    for (size_t i = 0; i < chunk->count; i++) {
        if (chunk->leases[i]->folder != folder) {
            stg_inode_fd_put(&lent);
            folder = chunk->leases[i]->folder;
            error = stg_inode_fd(chunk->leases[i]->folder, &lent);
        }
        if (chunk->leases[i]->inode)
            look(chunk->leases[i], error ? error : lent.fd);
        else
            look_at_absence(chunk->leases[i], error ? error : lent.fd);
    }
    stg_inode_fd_put(&lent);
}

/* `looked`: at all of it, but for what could not be read. */
static void end_chunk(struct chunk *chunk, bool looked) {
    stg_lock_take(&lock);
    for (size_t i = 0; looked && i < chunk->count; i++)
        chunk->leases[i]->looked = round_number;
    free(chunk);
    if (!--round_left)
        (void)pthread_cond_signal(&changed); /* cannot fail */
    stg_lock_drop(&lock);
}

static void work(struct stg_crew_work *work) {
    struct chunk *chunk = (struct chunk *)(void *)work;

    if (chunk->leases[0]->alone)
        look_at_each(chunk);
    else
        read_folder(chunk);
    end_chunk(chunk, true);
}

static void drop(struct stg_crew_work *work) { end_chunk((struct chunk *)(void *)work, false); }

static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "leases", .threads_max = THREADS, .work = work, .drop = drop);

/* ---- a round ---- */

struct round {
    struct lease **leases; /* sorted: those that folders are read for, the others; by folder */
    size_t length;
    size_t listed; /* of them the first ones */
    uint64_t cost; /* requests */
};

static int by_kind_and_folder(const void *a, const void *b) {
    const struct lease *x = *(struct lease *const *)a;
    const struct lease *y = *(struct lease *const *)b;

    if (x->alone != y->alone)
        return x->alone ? 1 : -1;
    return x->folder < y->folder ? -1 : x->folder > y->folder;
}

/* Takes out what is over, or past, or all of it; the list is the caller's to free. */
static struct lease *take_out_locked(int64_t now_ns, bool all) {
    struct lease *out = NULL;

    for (size_t i = 0; i < BUCKETS; i++) {
        struct lease **link = &buckets[i];

        while (*link) {
            struct lease *lease = *link;

            if (!all && !lease->over && lease->until_ns >= now_ns) {
                link = &lease->next;
                continue;
            }
            *link = lease->next;
            lease->next = out;
            out = lease;
            count--;
            free_count -= is_free(lease);
        }
    }
    return out;
}

static void free_leases(struct lease *lease) {
    while (lease) {
        struct lease *next = lease->next;

        if (!*lease->name)
            stg_given_check(lease->folder, false); /* nobody looks at it any more */
        if (lease->inode)
            stg_inode_unref(lease->inode);
        stg_inode_unref(lease->folder);
        free(lease);
        lease = next;
    }
}

/* All that there are; false without memory. */
static bool collect_locked(struct round *round) {
    *round = (struct round){
        .leases = reallocarray(NULL, count ? count : 1, sizeof(struct lease *)),
        .cost = count - free_count,
    };
    for (size_t i = 0; round->leases && i < BUCKETS; i++)
        for (struct lease *lease = buckets[i]; lease; lease = lease->next) {
            round->leases[round->length++] = lease;
            round->listed += !lease->alone;
        }
    return round->leases;
}

/* Has one thread look at those; false where that cannot be. */
static bool push(struct lease **leases, size_t length) {
    struct chunk *chunk = calloc(1, sizeof(*chunk));

    if (!chunk)
        return false;
    chunk->leases = leases;
    chunk->count = length;
    stg_lock_take(&lock);
    round_left++;
    stg_lock_drop(&lock);
    if (stg_crew_push(&crew, &chunk->work))
        return true;
    end_chunk(chunk, false);
    return false;
}

static bool push_folders(const struct round *round) {
    size_t end;

    for (size_t at = 0; at < round->listed; at = end) {
        for (end = at; end < round->listed; end++)
            if (round->leases[end]->folder != round->leases[at]->folder)
                break;
        if (!push(round->leases + at, end - at))
            return false;
    }
    return true;
}

static bool push_others(const struct round *round) {
    size_t left = round->length - round->listed;
    size_t share = (left + THREADS - 1) / THREADS; /* of few each has some, too */
    size_t size = share < CHUNK ? share : CHUNK;

    for (size_t at = round->listed; at < round->length; at += size)
        if (!push(round->leases + at, round->length - at < size ? round->length - at : size))
            return false;
    return true;
}

/* Waits until the round is over, or that time; true where it is. */
static bool wait_for_round(int64_t until_ns) {
    bool over;

    stg_lock_take(&lock);
    while (round_left && stg_lock_wait_until(&lock, &changed, until_ns))
        ;
    over = !round_left;
    stg_lock_drop(&lock);
    return over;
}

/* How many can be looked at in the time for a round, by what this one took. */
static void measure_locked(uint64_t looked, int64_t took_ns, bool in_time) {
    int64_t room_ns = (int64_t)(stg_fs.options.ttl_s * 1e9) / ROUND_PART / MARGIN;
    uint64_t fit = took_ns > 0 ? (uint64_t)((double)looked * (double)room_ns / (double)took_ns) : 0;

    if (fit < capacity && looked < capacity / 2) /* too few to tell, or the source has hesitated */
        fit = in_time ? capacity : capacity / 2;
    fit = fit < capacity * GROWTH ? fit : capacity * GROWTH;
    capacity = fit < THREADS ? THREADS : fit > LAST_CAPACITY ? LAST_CAPACITY : fit;
}

/* ---- where a round takes too long ---- */

/*
 * As what is another: a name that is there is told now, and with the next round once more where
 * that has no time for it, either.
 */
static void doubt_locked(struct lease *lease) {
    lease->over = lease->over || !lease->inode || lease->differed;
    lease->differed = lease->again = true;
    if (lease->inode)
        atomic_store(&lease->inode->leased_until_ns, 0);
}

/* What the round has not looked at in time is told. How many it has looked at, by requests. */
static uint64_t doubt_rest(const struct round *round) {
    uint64_t looked = 0;

    for (size_t i = 0; i < round->length; i++) {
        struct lease *lease = round->leases[i];
        bool doubted;

        stg_lock_take(&lock);
        doubted = lease->looked != round_number;
        if (doubted)
            doubt_locked(lease);
        looked += !doubted && !is_free(lease);
        stg_lock_drop(&lock);
        if (doubted)
            stg_lease_tell(lease->folder, lease->name, lease->inode);
    }
    return looked;
}

static void forget_attributes(struct stg_inode *inode, void *unused) {
    (void)unused;
    if (atomic_exchange(&inode->leased_until_ns, 0))
        (void)stg_notify_inode(inode, false);
}

static void set_suspended(bool value) {
    stg_lock_take(&lock);
    suspended = value;
    stg_lock_drop(&lock);
}

/* Nothing is leased for now, and what was is told; of the round, while that still goes on. */
static void suspend(const struct round *round) {
    set_suspended(true);
    (void)stg_inode_each(forget_attributes, NULL); /* without memory: when leases are taken back */
    for (size_t i = 0; i < round->length; i++)
        stg_lease_tell(round->leases[i]->folder, round->leases[i]->name, NULL);
}

/* Waits that long; false at the end. */
static bool sleep_until(int64_t until_ns) {
    bool goes_on;

    stg_lock_take(&lock);
    while (!stopping && stg_lock_wait_until(&lock, &changed, until_ns))
        ;
    goes_on = !stopping;
    stg_lock_drop(&lock);
    return goes_on;
}

/* All leases go. They are told once more: they may have been answered when that was done first. */
static void take_back(void) {
    struct lease *out;

    stg_coherence_await_requests();
    (void)sleep_until(stg_clock_monotonic_ns() + STG_NOTIFY_TAKEN_NS);
    stg_lock_take(&lock);
    out = take_out_locked(0, true);
    stg_lock_drop(&lock);
    for (struct lease *lease = out; lease; lease = lease->next) {
        if (lease->inode)
            atomic_store(&lease->inode->leased_until_ns, 0);
        stg_lease_tell(lease->folder, lease->name, lease->inode);
    }
    free_leases(out);
}

static void rest(void) {
    rest_ns = rest_ns < REST_MAX_NS / 2 ? rest_ns * 2 : REST_MAX_NS;
    rest_ns = rest_ns > REST_FIRST_NS ? rest_ns : REST_FIRST_NS;
    stg_debug("the source is too slow for leases: none for %jd ms", (intmax_t)(rest_ns / 1000000));
    take_back();
    (void)sleep_until(stg_clock_monotonic_ns() + rest_ns);
    take_back(); /* what was renamed meanwhile */
    set_suspended(false);
}

/* ---- rounds ---- */

/* Has all that there is looked at; what is past is taken out. False where that could not begin. */
static bool begin_round(struct round *round, int64_t began_ns) {
    struct lease *out;
    bool whole;

    stg_lock_take(&lock);
    out = take_out_locked(began_ns, false);
    whole = collect_locked(round);
    round_number++;
    round_left++; /* until all is pushed */
    stg_lock_drop(&lock);
    free_leases(out);
    if (whole)
        qsort(round->leases, round->length, sizeof(struct lease *), by_kind_and_folder);
    whole = whole && push_folders(round) && push_others(round);
    stg_lock_take(&lock);
    round_left--;
    stg_lock_drop(&lock);
    return whole;
}

/*
 * Looks at all that there is. What there was no time for is told; false where the source is so slow
 * that nothing can be leased, and all of it is.
 */
static bool look_at_all(int64_t began_ns) {
    int64_t ttl_ns = (int64_t)(stg_fs.options.ttl_s * 1e9);
    struct round round;
    bool goes_on = begin_round(&round, began_ns);
    bool whole = goes_on && wait_for_round(began_ns + ttl_ns / ROUND_PART);
    int64_t took_ns = stg_clock_monotonic_ns() - began_ns;
    uint64_t looked = whole ? round.cost : goes_on ? doubt_rest(&round) : 0;

    /* What was looked at is to be so again in time. */
    goes_on = goes_on && (whole || wait_for_round(began_ns + ttl_ns / PERIOD_PART));
    if (!goes_on) {
        suspend(&round);
        (void)wait_for_round(INT64_MAX);
    }
    stg_lock_take(&lock);
    measure_locked(looked, took_ns, whole);
    stg_lock_drop(&lock);
    free(round.leases);
    return goes_on;
}

/* Until there is something to look at; false at the end. */
static bool wait_for_leases(void) {
    bool goes_on;

    stg_lock_take(&lock);
    while (!stopping && !count)
        stg_lock_wait(&lock, &changed);
    goes_on = !stopping;
    stg_lock_drop(&lock);
    return goes_on;
}

static void *run(void *unused) {
    int64_t period_ns = (int64_t)(stg_fs.options.ttl_s * 1e9) / PERIOD_PART;
    int64_t began_ns = 0;

    (void)unused;
    while (wait_for_leases()) {
        if (!began_ns)
            began_ns = stg_clock_monotonic_ns();
        if (!sleep_until(began_ns + period_ns))
            break;
        began_ns = stg_clock_monotonic_ns();
        if (look_at_all(began_ns))
            rest_ns -= rest_ns / REST_FORGETS;
        else
            rest();
        if (!stg_lease_count())
            began_ns = 0;
    }
    return NULL;
}

int stg_lease_start(void) {
    int error;

    if (!stg_lease_is_for(stg_fs.root))
        return 0;
    error = -pthread_create(&thread, NULL, run, NULL);
    running = !error;
    return error;
}

void stg_lease_stop(void) {
    struct lease *out;

    if (!running)
        return;
    stg_lock_take(&lock);
    stopping = true;
    (void)pthread_cond_broadcast(&changed); /* cannot fail */
    stg_lock_drop(&lock);
    stg_crew_stop(&crew);
    stg_lease_tell_stop();
    (void)pthread_join(thread, NULL);
    running = false;
    stg_lock_take(&lock);
    out = take_out_locked(0, true);
    stg_lock_drop(&lock);
    free_leases(out);
}
