/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the listings: of each name a hash, sorted. Two names of one hash make one that is absent
 * look present, and it is looked up; never the other way round.
 */
#include "fs/listing.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/names.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/crew.h"

#include <dirent.h>
#include <stdatomic.h>
#include <string.h>

#define LOOKUPS_BEFORE 3
#define AGAIN_NS INT64_C(60000000000)
/* For guesses alone a folder is read again after so many times of what that took. */
#define REST_PER_READING 20
#define NAMES_MAX (1U << 20) /* 8 MiB of hashes */
/* When that part of its time is left, a folder that is asked is read anew, and nobody waits for it.
 */
#define REFRESH_PART 4
#define REFRESH_THREADS 4
/* FAT has two seconds. */
#define TICK_NS INT64_C(2000000000)
/* Times that are as old as that have been what they are for longer than a tick, unless the clock of
 * the source is behind by as much. */
#define OLD_S 60
/* Looks in a row that a folder's times are believed, and how often they may lie. */
#define BELIEVED_MAX 7
#define LOOK_PART 16 /* of its time a folder takes to read that is looked at again and again */
#define LIES_MAX 3
#define REFRESH_MAX 256

struct stg_listing {
    uint64_t *hashes; /* sorted; NULL: not read; all protected by lock */
    size_t count;
    int64_t read_ns;       /* monotonic: when the reading began */
    int64_t took_ns;       /* the last reading */
    uint64_t generation;   /* of that moment */
    uint32_t changes;      /* made through the mount */
    uint32_t lookups;      /* since it was read */
    int64_t not_before_ns; /* monotonic: what was read last is of no use, and would not be again */
    bool tells; /* reading it whole was possible, and its names are told apart by their case */
    bool reading;
    struct stg_listing_times look_times; /* of the folder, before the last look */
    int64_t look_since_ns;               /* monotonic: when they were seen first */
    int64_t looked_ns;                   /* when it was read for a look; 0: that does not tell */
    uint64_t look_sum;                   /* what it had then */
    unsigned believed;                   /* looks since, by the times alone */
    uint64_t sum;                        /* of all that it had at `sum_ns` */
    int64_t sum_ns;                      /* monotonic; 0: never seen */
    uint64_t sum_generation;
    bool refreshing; /* it is queued to be read, or is being read, before its time is over */
};

struct refresh {
    struct stg_crew_work work;
    struct stg_inode *folder; /* referenced */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static _Atomic uint64_t generation;
static atomic_uint lies; /* folders that had other names, and the times of before */
static atomic_bool ending;

static uint64_t hash_of(const char *name) { return stg_hash_bytes(name, strlen(name), 0); }

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* One that begins with a point may be there without being listed (.snapshot, .zfs). */
static bool is_plain(const char *name) { return *name != '.' && stg_name_has_one_spelling(name); }

/* What was found by its name is looked up when that time is over, and must not be absent then. */
static double keep_s(const struct stg_inode *folder) {
    double entry_s = stg_coherence_entry_timeout_s(folder);
    double negative_s = stg_coherence_negative_timeout_s(folder);

    return entry_s < negative_s ? entry_s : negative_s;
}

static bool is_for(struct stg_inode *folder) {
    return folder->volume->remote && keep_s(folder) > 0 && !stg_catalog_folder(folder);
}

/* ---- asking ---- */

/* Does it take little of the time for which it is good? */
static bool is_cheap_locked(const struct stg_listing *listing, const struct stg_inode *folder) {
    return (double)listing->took_ns < keep_s(folder) * 1e9 / REFRESH_PART;
}

static double left_s_locked(const struct stg_listing *listing, double keep) {
    double age_s = (double)(stg_clock_monotonic_ns() - listing->read_ns) / 1e9;

    return listing->generation == atomic_load(&generation) ? keep - age_s : 0;
}

static void refresh(struct stg_inode *folder);

bool stg_listing_lacks(struct stg_inode *folder, const char *name, double *ret_left_s) {
    uint64_t hash;
    bool lacks = false;
    bool is_due = false;

    if (stg_catalog_lacks(folder, name)) {
        *ret_left_s = keep_s(folder);
        return true;
    }
    if (!folder->listing || !is_for(folder) || !is_plain(name))
        return false;
    hash = hash_of(name);
    stg_lock_take(&lock);
    if (folder->listing->hashes) {
        struct stg_listing *listing = folder->listing;
        double keep = keep_s(folder);

        *ret_left_s = left_s_locked(listing, keep);
        lacks = *ret_left_s > 0 &&
                !bsearch(&hash, listing->hashes, listing->count, sizeof(hash), compare);
        is_due = lacks && *ret_left_s < keep / REFRESH_PART && !listing->refreshing &&
                 is_cheap_locked(listing, folder);
        listing->refreshing = listing->refreshing || is_due;
    }
    stg_lock_drop(&lock);
    if (is_due)
        refresh(folder);
    return lacks;
}

/* ---- reading ---- */

struct names {
    uint64_t *hashes; /* sorted once all were read */
    uint64_t sum;
    size_t count;
    size_t room;
    char probe[256]; /* one of the names with its letters turned; "": none was fit for it */
};

uint64_t stg_listing_hash(const char *name, unsigned char type) {
    return stg_hash_bytes(name, strlen(name), type + UINT64_C(1));
}

static bool add_name(struct names *names, const char *name, unsigned char type) {
    if (names->count == names->room) {
        size_t room = names->room ? names->room * 2 : 256;
        uint64_t *more = room > NAMES_MAX ? NULL : reallocarray(names->hashes, room, sizeof(*more));

        if (!more)
            return false;
        names->hashes = more;
        names->room = room;
    }
    names->hashes[names->count++] = hash_of(name);
    names->sum += stg_listing_hash(name, type);
    if (!*names->probe && !stg_name_turn_case(name, names->probe))
        *names->probe = '\0';
    return true;
}

/* Does the folder tell upper from lower case? False where that could not be found out. */
static bool tells_case(int fd, const struct names *names) {
    uint64_t hash = hash_of(names->probe);
    struct stat st;

    return *names->probe && !bsearch(&hash, names->hashes, names->count, sizeof(hash), compare) &&
           fstatat(fd, names->probe, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT;
}

/*
 * True where all names were read; `names->hashes` is the caller's. In `*tells`: could they be
 * relied on before; and can they.
 */
static bool read_names(struct stg_inode *folder, bool *tells, struct names *names) {
    int fd = stg_inode_open(folder, O_RDONLY | O_DIRECTORY);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    bool complete = true;

    if (!stream) {
        stg_fd_close(fd);
        return false;
    }
    errno = 0;
    while (complete && (entry = readdir(stream)))
        complete = add_name(names, entry->d_name, entry->d_type) && !atomic_load(&ending);
    /* One that lists not even itself is gone. */
    complete = complete && !errno && names->count;
    if (complete) {
        qsort(names->hashes, names->count, sizeof(*names->hashes), compare);
        *tells = *tells || tells_case(fd, names);
    }
    (void)closedir(stream); /* read-only */
    return complete;
}

static struct stg_listing *listing_locked(struct stg_inode *folder) {
    if (!folder->listing)
        folder->listing = calloc(1, sizeof(struct stg_listing));
    return folder->listing;
}

/* Would it be read for the sake of guesses more often than it is worth? */
static bool rests_locked(const struct stg_listing *listing, int64_t now_ns) {
    return now_ns - listing->read_ns < listing->took_ns * REST_PER_READING;
}

/* Why a folder is read. */
enum reason {
    ASKED,  /* a name was looked up in it */
    GUESS,  /* for predictions */
    EXPIRES /* its time is nearly over, and it is in use */
};

/* Has it been asked often enough? One that was worth it once is so the next time. */
static bool is_worth_locked(const struct stg_listing *listing, const struct stg_inode *folder) {
    return (listing->hashes && is_cheap_locked(listing, folder)) ||
           listing->lookups >= LOOKUPS_BEFORE;
}

/* Is the folder to be read by this thread, now? */
static bool begin(struct stg_inode *folder, enum reason why, struct stg_listing *ret_then) {
    struct stg_listing *listing;
    int64_t now_ns = stg_clock_monotonic_ns();
    bool begins;

    stg_lock_take(&lock);
    listing = listing_locked(folder);
    if (listing)
        listing->lookups += why == ASKED;
    begins = listing && !listing->reading && now_ns >= listing->not_before_ns &&
             (why != ASKED || is_worth_locked(listing, folder)) &&
             (why != GUESS || !rests_locked(listing, now_ns)) &&
             (why == EXPIRES || !listing->hashes || left_s_locked(listing, keep_s(folder)) <= 0);
    if (begins) {
        listing->reading = true;
        *ret_then = *listing;
        ret_then->read_ns = now_ns;
        ret_then->generation = atomic_load(&generation);
    }
    stg_lock_drop(&lock);
    return begins;
}

static void note_sum_locked(struct stg_listing *listing, uint64_t sum, int64_t at_ns,
                            uint64_t seen_generation) {
    if (listing->sum_ns > at_ns)
        return;
    listing->sum = sum;
    listing->sum_ns = at_ns;
    listing->sum_generation = seen_generation;
}

/* A reading that began with `then` is over. `names`: what was read, NULL: not all of it. */
static void end_locked(struct stg_listing *listing, const struct stg_listing *then,
                       const struct names *names, bool tells) {
    listing->took_ns = stg_clock_monotonic_ns() - then->read_ns;
    listing->tells = names && tells;
    if (!listing->tells)
        listing->not_before_ns = stg_clock_monotonic_ns() + AGAIN_NS;
    if (names)
        note_sum_locked(listing, names->sum, then->read_ns, then->generation);
}

/* What that has read is answered from, unless it was late; returns hashes that are to be freed. */
static uint64_t *take_locked(struct stg_listing *listing, const struct stg_listing *then,
                             uint64_t *hashes, size_t count) {
    uint64_t *old = listing->hashes;

    if (listing->changes != then->changes || (old && listing->read_ns > then->read_ns))
        return hashes;
    listing->hashes = hashes;
    listing->count = count;
    listing->read_ns = then->read_ns;
    listing->generation = then->generation;
    return old;
}

static void read_if_due(struct stg_inode *folder, enum reason why) {
    struct names names = {0};
    struct stg_listing then;
    struct stg_listing *listing = folder->listing;
    bool tells = false;
    bool complete;

    if (!is_for(folder) || !begin(folder, why, &then))
        return;
    complete = read_names(folder, &tells, &names);
    stg_lock_take(&lock);
    listing = folder->listing;
    listing->reading = false;
    listing->refreshing = listing->refreshing && why == EXPIRES;
    listing->lookups = 0;
    end_locked(listing, &then, complete ? &names : NULL, tells);
    if (listing->tells)
        names.hashes = take_locked(listing, &then, names.hashes, names.count);
    stg_lock_drop(&lock);
    free(names.hashes);
}

/* ---- looks ---- */

struct stg_listing_look {
    struct names names;
    bool tells;
};

bool stg_listing_may_tell(struct stg_inode *folder, const char *name) {
    bool may;

    if (!folder->listing || !is_plain(name))
        return false;
    stg_lock_take(&lock);
    may = folder->listing->tells &&
          (double)folder->listing->took_ns < keep_s(folder) * 1e9 / LOOK_PART;
    stg_lock_drop(&lock);
    return may;
}

static bool times_tell_locked(const struct stg_listing *listing) {
    return listing->looked_ns &&
           (listing->look_times.old || listing->looked_ns - listing->look_since_ns >= TICK_NS);
}

static bool is_old(const struct statx_timestamp *time) {
    return time->tv_sec + OLD_S < stg_clock_realtime_ns() / 1000000000;
}

struct stg_listing_times stg_listing_times(struct stg_inode *folder) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct stg_listing_times times = {0};
    struct statx stx;

    if (stg_inode_fd(folder, &lent) ||
        statx(lent.fd, "", AT_EMPTY_PATH, STATX_MTIME | STATX_CTIME, &stx))
        return times;
    times.old = is_old(&stx.stx_mtime) && is_old(&stx.stx_ctime);
    times.hash = stg_hash_bytes(&(const int64_t[]){stx.stx_mtime.tv_sec, stx.stx_mtime.tv_nsec,
                                                   stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec},
                                4 * sizeof(int64_t), 0);
    return times;
}

static void note_times_locked(struct stg_listing *listing, struct stg_listing_times times,
                              int64_t now_ns) {
    if (!times.hash || times.hash != listing->look_times.hash)
        listing->look_since_ns = now_ns;
    listing->look_times = times;
}

bool stg_listing_is_same(struct stg_inode *folder) {
    struct stg_listing *listing = folder->listing;
    uint64_t seen_generation = atomic_load(&generation);
    int64_t now_ns = stg_clock_monotonic_ns();
    struct stg_listing_times times = stg_listing_times(folder);
    bool same;

    stg_lock_take(&lock);
    same = times.hash && times.hash == listing->look_times.hash;
    note_times_locked(listing, times, now_ns);
    same = same && times_tell_locked(listing) && listing->believed < BELIEVED_MAX &&
           atomic_load(&lies) < LIES_MAX;
    listing->believed += same;
    if (same && listing->sum_ns)
        note_sum_locked(listing, listing->sum, now_ns, seen_generation);
    if (same && listing->hashes && listing->read_ns < now_ns)
        listing->read_ns = now_ns; /* it is not older than that look */
    stg_lock_drop(&lock);
    return same;
}

/* `times`: of the folder, after it was read. */
static void note_look_locked(struct stg_listing *listing, const struct stg_listing *then,
                             const struct names *names, uint64_t times) {
    if (times == listing->look_times.hash && times_tell_locked(listing) &&
        names->sum != listing->look_sum)
        atomic_fetch_add(&lies, 1);
    listing->look_sum = names->sum;
    listing->looked_ns = then->read_ns;
    listing->believed = 0;
}

/* For those that answer from the listing, too. */
static void share_locked(struct stg_listing *listing, const struct stg_listing *then,
                         const struct names *names) {
    uint64_t *copy = reallocarray(NULL, names->count, sizeof(*copy));

    if (copy) {
        memcpy(copy, names->hashes, names->count * sizeof(*copy));
        free(take_locked(listing, then, copy, names->count));
    } else { /* what is older must not be taken for that */
        free(listing->hashes);
        listing->hashes = NULL;
    }
}

struct stg_listing_look *stg_listing_look(struct stg_inode *folder) {
    struct stg_listing_look *look = calloc(1, sizeof(*look));
    struct stg_listing then;
    uint64_t times;
    bool complete;

    if (!look)
        return NULL;
    stg_lock_take(&lock);
    then = *folder->listing;
    then.read_ns = stg_clock_monotonic_ns();
    then.generation = atomic_load(&generation);
    stg_lock_drop(&lock);
    look->tells = then.tells;
    complete = read_names(folder, &look->tells, &look->names);
    times = complete ? stg_listing_times(folder).hash : 0;
    stg_lock_take(&lock);
    end_locked(folder->listing, &then, complete ? &look->names : NULL, look->tells);
    if (complete)
        note_look_locked(folder->listing, &then, &look->names, times);
    else
        folder->listing->looked_ns = 0;
    if (folder->listing->tells)
        share_locked(folder->listing, &then, &look->names);
    stg_lock_drop(&lock);
    if (complete)
        return look;
    stg_listing_look_end(look);
    return NULL;
}

bool stg_listing_look_has(const struct stg_listing_look *look, const char *name) {
    uint64_t hash = hash_of(name);

    return !look->tells ||
           bsearch(&hash, look->names.hashes, look->names.count, sizeof(hash), compare);
}

void stg_listing_look_end(struct stg_listing_look *look) {
    if (look)
        free(look->names.hashes);
    free(look);
}

bool stg_listing_sum(struct stg_inode *folder, struct stg_listing_sum *ret_sum) {
    bool seen = false;

    if (!folder->listing)
        return false;
    stg_lock_take(&lock);
    if (folder->listing->sum_ns && folder->listing->sum_generation == atomic_load(&generation)) {
        *ret_sum = (struct stg_listing_sum){folder->listing->sum, folder->listing->sum_ns};
        seen = true;
    }
    stg_lock_drop(&lock);
    return seen;
}

/*
 * That is as good as a look where it has seen what the last one had: of other names some may be
 * leased as absent, which the next look has to tell.
 */
static void note_given_locked(struct stg_listing *listing, const struct stg_listing_seen *seen) {
    if (seen->at_ns < listing->looked_ns || (listing->sum_ns && listing->sum != seen->sum) ||
        (listing->looked_ns && listing->look_sum != seen->sum))
        return;
    note_times_locked(listing, seen->times, seen->at_ns);
    listing->look_sum = seen->sum;
    listing->looked_ns = seen->at_ns;
    listing->believed = 0;
}

void stg_listing_note(struct stg_inode *folder, const struct stg_listing_seen *seen) {
    stg_lock_take(&lock);
    if (listing_locked(folder)) {
        note_given_locked(folder->listing, seen);
        note_sum_locked(folder->listing, seen->sum, seen->at_ns, seen->generation);
    }
    stg_lock_drop(&lock);
}

struct stg_listing_seen stg_listing_begin(struct stg_inode *folder) {
    return (struct stg_listing_seen){.at_ns = stg_clock_monotonic_ns(),
                                     .generation = atomic_load(&generation),
                                     .times = stg_listing_times(folder)};
}

void stg_listing_asked(struct stg_inode *folder) { read_if_due(folder, ASKED); }

void stg_listing_read(struct stg_inode *folder) { read_if_due(folder, GUESS); }

/* ---- before its time is over ---- */

static void end_refresh(struct refresh *refresh) {
    stg_lock_take(&lock);
    refresh->folder->listing->refreshing = false;
    stg_lock_drop(&lock);
    stg_inode_unref(refresh->folder);
    free(refresh);
}

static void work(struct stg_crew_work *work) {
    struct refresh *refresh = (struct refresh *)(void *)work;

    read_if_due(refresh->folder, EXPIRES);
    end_refresh(refresh);
}

static void drop(struct stg_crew_work *work) { end_refresh((struct refresh *)(void *)work); }

static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "listings", .threads_max = REFRESH_THREADS,
             .length_max = REFRESH_MAX, .work = work, .drop = drop);

/* `refreshing` is set, by whoever calls. */
static void refresh(struct stg_inode *folder) {
    struct refresh *refresh = malloc(sizeof(*refresh));

    if (!refresh) /* it stays as it is until it is read in another way */
        return;
    *refresh = (struct refresh){.folder = folder};
    stg_inode_ref(folder);
    if (!stg_crew_push(&crew, &refresh->work))
        end_refresh(refresh);
}

void stg_listing_stop(void) {
    atomic_store(&ending, true);
    stg_crew_stop(&crew);
}

/* ---- forgetting ---- */

void stg_listing_saw(struct stg_inode *folder, const char *name) {
    double left_s;

    if (folder->listing && stg_listing_lacks(folder, name, &left_s))
        stg_listing_outdate(folder);
}

void stg_listing_outdate(struct stg_inode *folder) {
    uint64_t *old = NULL;

    if (!folder->volume->remote)
        return;
    stg_lock_take(&lock);
    if (listing_locked(folder)) {
        folder->listing->changes++;
        old = folder->listing->hashes;
        folder->listing->hashes = NULL;
    }
    stg_lock_drop(&lock);
    free(old);
}

void stg_listing_doubt_all(void) { atomic_fetch_add(&generation, 1); }

void stg_listing_free(struct stg_inode *inode) {
    if (inode->listing)
        free(inode->listing->hashes);
    free(inode->listing);
    inode->listing = NULL;
}
