/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who opens files of one folder and one kind (*.c) one after the other gets the next ones: in the
 * order in which the folder lists them, as tar(1) and grep(1) go, or in that of their names, as a
 * shell's *.c and most makefiles do. Whichever order two steps in a row have kept is followed, by
 * ever more files at a time.
 *
 * Owns what is known of the folders in which files were opened last.
 */
#include "fs/predict_impl.h"

#include "fs/entries.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/cleanup.h"

#include <dirent.h>
#include <string.h>

#define FOLDERS_MAX 16
#define NAMES_MAX 20000
#define RECENT_MAX 4
#define STEP_MAX 8    /* files of the kind that a step may pass over */
#define STREAK_MIN 2  /* steps in one order after which it is followed */
#define WINDOW_MIN 4  /* files ahead at first */
#define WINDOW_MAX 64 /* and at most */
#define SNAPSHOT_NS INT64_C(30000000000)

enum order { LISTED, SORTED };
#define ORDERS 2

struct name {
    uint32_t hash;
    char *text; /* owned by the snapshot */
};

struct track {
    unsigned last;   /* position of the file that was opened last */
    unsigned ahead;  /* up to where was guessed */
    unsigned streak; /* steps in this order */
};

struct folder {
    struct stg_inode *inode; /* referenced; NULL: free */
    int64_t used_ns;         /* monotonic, as below */
    int64_t read_ns;         /* 0: not read */
    bool reading;
    uint32_t recent[RECENT_MAX]; /* opened last */
    unsigned recent_count;
    struct name *names[ORDERS]; /* the same names in two orders; texts owned by LISTED */
    unsigned count;
    struct track tracks[ORDERS];
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static struct folder folders[FOLDERS_MAX]; /* protected by lock */
static bool ended;

/* What is to be done without the lock. */
struct todo {
    char *names[WINDOW_MAX]; /* owned */
    unsigned count;
    bool read;
    struct folder gone; /* what made room */
};

/* ---- snapshots ---- */

static void free_names(struct folder *folder) {
    for (unsigned i = 0; i < folder->count; i++)
        free(folder->names[LISTED][i].text);
    free(folder->names[LISTED]);
    free(folder->names[SORTED]);
    folder->names[LISTED] = folder->names[SORTED] = NULL;
    folder->count = 0;
}

static void free_folder(struct folder *folder) {
    free_names(folder);
    if (folder->inode)
        stg_inode_unref(folder->inode);
    *folder = (struct folder){0};
}

static int compare(const void *a, const void *b) {
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

struct listing {
    struct folder *snapshot;
    unsigned room;
};

/* Adds the name of a file. 0; -ENOMEM; -E2BIG, they are many; or -ECANCELED. */
static int add_name(const char *name, unsigned char type, void *context) {
    struct listing *listing = context;
    struct folder *snapshot = listing->snapshot;
    char *text;

    if (stg_predict_is_ending())
        return -ECANCELED;
    if (type != DT_REG && type != DT_UNKNOWN)
        return 0;
    if (snapshot->count == listing->room) {
        unsigned room = listing->room ? listing->room * 2 : 64;
        struct name *more = room < NAMES_MAX * 2
                                ? reallocarray(snapshot->names[LISTED], room, sizeof(*more))
                                : NULL;

        if (!more)
            return room < NAMES_MAX * 2 ? -ENOMEM : -E2BIG;
        snapshot->names[LISTED] = more;
        listing->room = room;
    }
    text = strdup(name);
    if (!text)
        return -ENOMEM;
    snapshot->names[LISTED][snapshot->count++] =
        (struct name){(uint32_t)stg_hash_bytes(name, strlen(name), 0), text};
    return 0;
}

/* Reads the names of files into `snapshot`; false where that is not possible, or they are many. */
static bool read_names(struct stg_inode *inode, struct folder *snapshot) {
    struct listing listing = {.snapshot = snapshot};
    bool complete = !stg_entries_each(inode, add_name, &listing);

    if (complete && snapshot->count)
        snapshot->names[SORTED] = calloc(snapshot->count, sizeof(struct name));
    if (!snapshot->names[SORTED])
        return false;
    memcpy(snapshot->names[SORTED], snapshot->names[LISTED], snapshot->count * sizeof(struct name));
    qsort(snapshot->names[SORTED], snapshot->count, sizeof(struct name), compare);
    return true;
}

/* ---- following ---- */

static const char *kind_of(const struct name *name) {
    const char *dot = strrchr(name->text, '.');

    return dot ? dot : "";
}

static bool is_kind(const struct name *name, const char *kind) {
    return !strcmp(kind_of(name), kind);
}

static bool find_locked(const struct folder *folder, enum order order, uint32_t hash,
                        unsigned *ret_position) {
    for (unsigned i = 0; i < folder->count; i++) {
        if (folder->names[order][i].hash == hash) {
            *ret_position = i;
            return true;
        }
    }
    return false;
}

/* How many files of the kind lie from one position to the other, STEP_MAX + 1 for more. */
static unsigned distance(const struct name *names, unsigned from, unsigned to, const char *kind) {
    unsigned steps = 0;

    while (from < to && steps <= STEP_MAX)
        steps += is_kind(&names[++from], kind);
    return steps;
}

static void step_locked(const struct folder *folder, enum order order, struct track *track,
                        unsigned position) {
    const struct name *names = folder->names[order];
    const char *kind = kind_of(&names[position]);

    if (position > track->last && distance(names, track->last, position, kind) <= STEP_MAX) {
        track->streak++;
        track->last = position;
    } else if (position > track->last || distance(names, position, track->last, kind) > STEP_MAX) {
        *track = (struct track){position, position, 0};
    } /* else a parallel build is a little out of order */
}

static void guess_locked(const struct folder *folder, enum order order, struct track *track,
                         struct todo *todo) {
    const struct name *names = folder->names[order];
    const char *kind = kind_of(&names[track->last]);
    unsigned window = track->streak < 5 ? WINDOW_MIN << track->streak : WINDOW_MAX;
    unsigned at = track->last;

    for (unsigned i = 0; i < window && todo->count < WINDOW_MAX && at + 1 < folder->count;) {
        if (!is_kind(&names[++at], kind))
            continue;
        i++;
        if (at > track->ahead && (todo->names[todo->count] = strdup(names[at].text)))
            todo->count++;
    }
    if (at > track->ahead)
        track->ahead = at;
}

static void follow_locked(struct folder *folder, uint32_t hash, struct todo *todo) {
    enum order order;

    for (order = LISTED; order <= SORTED; order++) {
        unsigned position;

        if (!find_locked(folder, order, hash, &position))
            return;
        step_locked(folder, order, &folder->tracks[order], position);
    }
    order = folder->tracks[LISTED].streak > folder->tracks[SORTED].streak ? LISTED : SORTED;
    if (folder->tracks[order].streak >= STREAK_MIN)
        guess_locked(folder, order, &folder->tracks[order], todo);
}

/* ---- folders ---- */

static struct folder *find_folder_locked(const struct stg_inode *inode) {
    for (unsigned i = 0; i < FOLDERS_MAX; i++)
        if (folders[i].inode == inode)
            return &folders[i];
    return NULL;
}

/* The one that was used least lately makes room. */
static struct folder *add_folder_locked(struct stg_inode *inode, struct todo *todo) {
    struct folder *oldest = &folders[0];

    for (unsigned i = 1; i < FOLDERS_MAX; i++)
        if (folders[i].used_ns < oldest->used_ns)
            oldest = &folders[i];
    todo->gone = *oldest;
    *oldest = (struct folder){.inode = inode};
    stg_inode_ref(inode);
    return oldest;
}

static void open_locked(struct stg_inode *inode, uint32_t hash, struct todo *todo) {
    int64_t now_ns = stg_clock_monotonic_ns();
    struct folder *folder = find_folder_locked(inode);

    if (!folder)
        folder = add_folder_locked(inode, todo);
    folder->used_ns = now_ns;
    if (folder->recent_count && folder->recent[folder->recent_count - 1] == hash)
        return; /* the same again is no step */
    if (folder->recent_count == RECENT_MAX)
        memmove(folder->recent, folder->recent + 1, sizeof(hash) * --folder->recent_count);
    folder->recent[folder->recent_count++] = hash;
    if (folder->count)
        follow_locked(folder, hash, todo);
    todo->read = !folder->reading && folder->recent_count >= STREAK_MIN &&
                 (!folder->read_ns || now_ns - folder->read_ns > SNAPSHOT_NS);
    folder->reading = folder->reading || todo->read;
}

/* The folder will not be read now; it may be later. */
static void give_up_reading(const struct stg_inode *inode) {
    struct folder *folder;

    stg_lock_take(&lock);
    folder = find_folder_locked(inode);
    if (folder)
        folder->reading = false;
    stg_lock_drop(&lock);
}

static void do_rest(struct stg_inode *folder, struct todo *todo) {
    if (todo->read && !stg_predict_push(STG_GUESS_FOLDER, folder, ""))
        give_up_reading(folder);
    for (unsigned i = 0; i < todo->count; i++) {
        (void)stg_predict_push(STG_GUESS_SIBLING, folder, todo->names[i]); /* the same */
        free(todo->names[i]);
    }
    free_folder(&todo->gone);
}

void stg_sibling_opened(struct stg_inode *inode) {
    struct todo todo = {0};

    stg_lock_take(&lock);
    if (!ended)
        open_locked(inode->folder, inode->name_hash, &todo);
    stg_lock_drop(&lock);
    do_rest(inode->folder, &todo);
}

void stg_sibling_read_folder(struct stg_inode *inode) {
    struct folder read = {0};
    struct todo todo = {0};
    struct folder *folder;
    bool complete = read_names(inode, &read);

    stg_lock_take(&lock);
    folder = find_folder_locked(inode);
    if (folder) {
        folder->reading = false;
        folder->read_ns = stg_clock_monotonic_ns();
    }
    if (folder && complete) {
        struct folder old = *folder;

        for (enum order order = LISTED; order <= SORTED; order++) {
            folder->names[order] = read.names[order];
            read.names[order] = old.names[order];
            folder->tracks[order] = (struct track){0};
        }
        folder->count = read.count;
        read.count = old.count;
        for (unsigned i = 0; i < folder->recent_count; i++)
            follow_locked(folder, folder->recent[i], &todo);
    }
    stg_lock_drop(&lock);
    free_names(&read);
    do_rest(inode, &todo);
}

void stg_sibling_removed(const struct stg_inode *inode) {
    struct folder gone = {0};
    struct folder *folder;

    stg_lock_take(&lock);
    folder = find_folder_locked(inode);
    if (folder) {
        gone = *folder;
        *folder = (struct folder){0};
    }
    stg_lock_drop(&lock);
    free_folder(&gone);
}

void stg_sibling_fini(void) {
    stg_lock_take(&lock);
    ended = true;
    stg_lock_drop(&lock);
    for (unsigned i = 0; i < FOLDERS_MAX; i++)
        free_folder(&folders[i]);
}
