/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the recording: what was noted, where each path is in that, and the text in the end. */
#include "fs/record.h"

#include "cache/depscan.h"
#include "fs/coherence.h"
#include "fs/notify.h"
#include "fs/where.h"
#include "util/bytes.h"
#include "util/crew.h"
#include "util/log.h"
#include "util/profile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What was noted of an inode, in its `recorded`, beside the number of the recording. */
#define NOTED_FOLDER 1U
#define NOTED_SEARCH 2U
#define NOTED_FILE 4U
#define NUMBER_SHIFT 3

#define SLOTS_MIN 1024

_Atomic uint32_t stg_recording;

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static enum stg_record_state state; /* protected by lock, as all below */
static uint32_t number;             /* of the recording that was begun last */
static struct stg_profile profile;
/* By the hash of a path: its entry, counted from 1; 0: free. A power of two of them. */
static uint32_t *slots;
static size_t slot_count;
static char *text;
static size_t text_bytes;

/* ---- what was met ---- */

static uint64_t hash_of(const char *path) { return stg_hash_bytes(path, strlen(path), 0); }

static uint32_t *find_slot_locked(const char *path) {
    size_t at = hash_of(path) & (slot_count - 1);

    while (slots[at] && strcmp(profile.entries[slots[at] - 1].path, path))
        at = (at + 1) & (slot_count - 1);
    return &slots[at];
}

/* There is always a free slot. False without memory. */
static bool make_slots_locked(void) {
    size_t wanted = slot_count ? slot_count * 2 : SLOTS_MIN;
    uint32_t *more;

    if (profile.count * 2 < slot_count)
        return true;
    more = calloc(wanted, sizeof(*more));
    if (!more)
        return false;
    free(slots);
    slots = more;
    slot_count = wanted;
    for (size_t i = 0; i < profile.count; i++)
        *find_slot_locked(profile.entries[i].path) = (uint32_t)i + 1;
    return true;
}

static void note_path(enum stg_profile_kind kind, const char *path) {
    uint32_t *slot;
    size_t before;

    stg_lock_take(&lock);
    if (state != STG_RECORD_RUNNING || !make_slots_locked()) {
        profile.left_out += state == STG_RECORD_RUNNING;
        stg_lock_drop(&lock);
        return;
    }
    slot = find_slot_locked(path);
    before = profile.count;
    if (!*slot) {
        if (stg_profile_add(&profile, kind, 0, path))
            profile.left_out++;
        else if (profile.count > before)
            *slot = (uint32_t)profile.count;
    } else if (kind != STG_PROFILE_FOLDER) { /* it is more than was known */
        profile.entries[*slot - 1].kind = kind;
    }
    stg_lock_drop(&lock);
}

/* Was that noted of the inode already, in this recording? If not, it is now. */
static bool is_noted(struct stg_inode *inode, unsigned what) {
    uint32_t now = atomic_load(&stg_recording) << NUMBER_SHIFT;
    uint32_t before = atomic_load_explicit(&inode->recorded, memory_order_relaxed);
    uint32_t after;

    do {
        uint32_t same = before >> NUMBER_SHIFT == now >> NUMBER_SHIFT ? before : now;

        if (same == before && (before & what))
            return true;
        after = same | what;
    } while (!atomic_compare_exchange_weak(&inode->recorded, &before, after));
    return false;
}

static void note(struct stg_inode *inode, enum stg_profile_kind kind) {
    char place[PATH_MAX];

    if (stg_where(inode, place))
        note_path(kind, *place ? place : ".");
}

void stg_record_note_listed(struct stg_inode *folder) {
    if (!is_noted(folder, NOTED_FOLDER))
        note(folder, STG_PROFILE_FOLDER);
}

void stg_record_note_asked(struct stg_inode *folder, const char *name, bool found) {
    if (found || !stg_depscan_is_code(name))
        stg_record_note_listed(folder);
    else if (!is_noted(folder, NOTED_SEARCH))
        note(folder, STG_PROFILE_SEARCH);
}

void stg_record_note_read(struct stg_inode *inode) {
    if (stg_inode_is_regular(inode) && !is_noted(inode, NOTED_FILE))
        note(inode, STG_PROFILE_FILE);
}

/* ---- begin and end ---- */

static void make_kernel_ask(struct stg_inode *inode, void *unused) {
    (void)unused;
    if (!stg_inode_is_regular(inode) || atomic_load(&inode->paged))
        (void)stg_notify_inode(inode, true); /* or it has nothing of it */
}

struct beginning {
    struct stg_crew_work work;
    uint32_t number;
};

/* In a thread of its own, as the kernel may wait for answers while it is told. */
static void begin(struct stg_crew_work *work) {
    struct beginning *beginning = (struct beginning *)(void *)work;
    uint32_t ours = beginning->number;

    free(beginning);
    stg_coherence_doubt_all();
    if (stg_fs.no_open && !stg_inode_each(make_kernel_ask, NULL))
        stg_warning("recording: memory is short, and what the kernel keeps is not recorded");
    stg_lock_take(&lock);
    if (state == STG_RECORD_STARTING && number == ours) {
        state = STG_RECORD_RUNNING;
        atomic_store(&stg_recording, number);
    }
    stg_lock_drop(&lock);
}

static void drop(struct stg_crew_work *work) { free(work); }

static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "recording", .threads_max = 1, .work = begin, .drop = drop);

static void forget_locked(void) {
    stg_profile_fini(&profile);
    free(slots);
    slots = NULL;
    slot_count = 0;
    free(text);
    text = NULL;
    text_bytes = 0;
}

static bool is_going_on_locked(void) {
    return state == STG_RECORD_STARTING || state == STG_RECORD_RUNNING;
}

static bool is_there_locked(uint64_t wanted) {
    return state != STG_RECORD_NONE && (!wanted || wanted == number);
}

int stg_record_start(uint64_t *ret_number) {
    struct beginning *beginning = malloc(sizeof(*beginning));
    int error = beginning ? 0 : -ENOMEM;

    stg_lock_take(&lock);
    if (!error && is_going_on_locked())
        error = -EBUSY;
    if (!error) {
        forget_locked();
        state = STG_RECORD_STARTING;
        number = (number + 1) & (UINT32_MAX >> NUMBER_SHIFT);
        number += !number;
        beginning->number = number;
        *ret_number = number;
    }
    stg_lock_drop(&lock);
    if (error || !stg_crew_push(&crew, &beginning->work))
        free(beginning); /* at the end of the mount nothing is recorded any more */
    return error;
}

/* Writes the text, which is then all that there is. */
static int finish_locked(void) {
    FILE *stream = open_memstream(&text, &text_bytes);
    int error = stream ? 0 : -ENOMEM;

    atomic_store(&stg_recording, 0);
    if (stream) {
        stg_profile_write(&profile, stream);
        error = ferror(stream) ? -ENOMEM : 0;
        if (fclose(stream))
            error = -ENOMEM;
    }
    state = error ? STG_RECORD_NONE : STG_RECORD_OVER;
    if (error)
        forget_locked();
    return error;
}

int stg_record_stop(uint64_t wanted) {
    int error = 0;

    stg_lock_take(&lock);
    if (!is_there_locked(wanted))
        error = -ENOENT;
    else if (is_going_on_locked())
        error = finish_locked();
    stg_lock_drop(&lock);
    return error;
}

int stg_record_drop(uint64_t wanted) {
    int error = 0;

    stg_lock_take(&lock);
    if (is_there_locked(wanted)) {
        atomic_store(&stg_recording, 0);
        state = STG_RECORD_NONE;
        forget_locked();
    } else {
        error = -ENOENT;
    }
    stg_lock_drop(&lock);
    return error;
}

struct stg_record_view stg_record_view(void) {
    struct stg_record_view view;

    stg_lock_take(&lock);
    view = (struct stg_record_view){.state = state,
                                    .number = state == STG_RECORD_NONE ? 0 : number,
                                    .entries = profile.count,
                                    .left_out = profile.left_out,
                                    .text_bytes = text_bytes};
    stg_lock_drop(&lock);
    return view;
}

ssize_t stg_record_text(uint64_t wanted, uint64_t offset, char *buffer, size_t bytes) {
    ssize_t given = -ENOENT;

    stg_lock_take(&lock);
    if (is_there_locked(wanted) && state == STG_RECORD_OVER) {
        uint64_t left = offset < text_bytes ? text_bytes - offset : 0;

        given = (ssize_t)(left < bytes ? left : bytes);
        if (given)
            memcpy(buffer, text + offset, (size_t)given);
    }
    stg_lock_drop(&lock);
    return given;
}

void stg_record_fini(void) {
    stg_crew_stop(&crew);
    stg_lock_take(&lock);
    atomic_store(&stg_recording, 0);
    state = STG_RECORD_NONE;
    forget_locked();
    stg_lock_drop(&lock);
}
