/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the list of the names, each as a path with its NUL behind the one before; and a table of
 * where in it each path begins.
 *
 * On disk it has one length always, with NULs at its end, which compress well: so that it takes the
 * place of the one before, and nothing has to be forgotten for it.
 */
#include "fs/absent.h"

#include "fs/catalog.h"
#include "fs/lease.h"
#include "fs/tier.h"
#include "fs/where.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/lock.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* No file is called that on disk, and no folder. */
#define KEPT_AS "/absent"
static const struct stg_identity form = {.size_bytes = 1};

/* What is beyond that is left out. */
#define LIST_MAX_BYTES ((size_t)1 << 20)
/* Where a mount begins with more, the older half goes: who asked for it may be gone. */
#define LIST_FULL_BYTES (LIST_MAX_BYTES / 2)
#define SLOTS_MIN 1024

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);
static char *list; /* protected by lock, as all below */
static size_t used;
static size_t room;
static size_t count;
static bool is_new;  /* not as it is on disk */
static bool is_kept; /* constant: there is a use for the list */
/* By the hash of a path: where it begins, counted from 1; 0: free. A power of two of them. */
static uint32_t *slots;
static size_t slot_count;

static uint32_t *find_slot_locked(const char *path) {
    size_t at = stg_hash_bytes(path, strlen(path), 0) & (slot_count - 1);

    while (slots[at] && strcmp(list + slots[at] - 1, path))
        at = (at + 1) & (slot_count - 1);
    return &slots[at];
}

/* Makes sure that there is a free slot. False without memory. */
static bool make_slots_locked(void) {
    size_t wanted = slot_count ? slot_count * 2 : SLOTS_MIN;
    uint32_t *more;

    if (count * 2 < slot_count)
        return true;
    more = calloc(wanted, sizeof(*more));
    if (!more)
        return false;
    free(slots);
    slots = more;
    slot_count = wanted;
    for (size_t at = 0; at < used; at += strlen(list + at) + 1)
        *find_slot_locked(list + at) = (uint32_t)at + 1;
    return true;
}

/* Makes sure that there is room for so many bytes. False where there is not. */
static bool make_room_locked(size_t bytes) {
    size_t wanted = room ? room : 4096;
    char *more;

    if (used + bytes >= LIST_MAX_BYTES) /* with a NUL behind the last */
        return false;
    if (used + bytes <= room)
        return true;
    while (wanted < used + bytes)
        wanted *= 2;
    more = realloc(list, wanted);
    if (!more)
        return false;
    list = more;
    room = wanted;
    return true;
}

static void add_locked(const char *path) {
    size_t bytes = strlen(path) + 1;
    uint32_t *slot;

    if (!make_slots_locked() || !make_room_locked(bytes))
        return;
    slot = find_slot_locked(path);
    if (*slot)
        return;
    *slot = (uint32_t)used + 1;
    memcpy(list + used, path, bytes);
    used += bytes;
    count++;
    is_new = true;
}

void stg_absent_start(void) {
    struct stg_disk_name name = {.path = KEPT_AS, .now = form};
    stg_auto_free char *kept = NULL;
    size_t bytes = 0;
    size_t at = 0;

    is_kept = stg_catalog_is_there() ||
              (stg_tier_disk() && !stg_fs.root->volume->handles && stg_lease_is_for(stg_fs.root));
    if (is_kept)
        kept = stg_disk_find(stg_tier_disk(), &name);
    if (!kept || name.bytes != LIST_MAX_BYTES)
        return;
    kept[LIST_MAX_BYTES - 1] = '\0'; /* as it was written */
    while (bytes < LIST_MAX_BYTES && kept[bytes])
        bytes += strlen(kept + bytes) + 1;
    stg_lock_take(&lock);
    while (bytes - at > LIST_FULL_BYTES)
        at += strlen(kept + at) + 1;
    for (size_t old = at; old < bytes; old += strlen(kept + old) + 1)
        add_locked(kept + old);
    is_new = at; /* what is left out goes on disk, too */
    stg_lock_drop(&lock);
}

void stg_absent_asked(struct stg_inode *folder, const char *name) {
    char path[PATH_MAX + NAME_MAX + 2];
    size_t length;

    if (!is_kept || stg_catalog_is_over() || !stg_where_found(folder, path))
        return;
    length = strlen(path);
    (void)snprintf(path + length, sizeof(path) - length, "%s%s", length ? "/" : "", name);
    stg_lock_take(&lock);
    add_locked(path);
    stg_lock_drop(&lock);
}

void stg_absent_each(void (*visit)(const char *path, void *context), void *context) {
    stg_lock_take(&lock);
    for (size_t at = 0; at < used; at += strlen(list + at) + 1)
        visit(list + at, context);
    stg_lock_drop(&lock);
}

/* Takes the list out, as it is to be on disk; NULL where that has it, or without memory. */
static char *take_out(void) {
    char *taken = NULL;

    stg_lock_take(&lock);
    if (is_new && !stg_catalog_is_over())
        taken = calloc(1, LIST_MAX_BYTES);
    if (taken)
        memcpy(taken, list, used);
    free(list);
    free(slots);
    list = NULL;
    slots = NULL;
    used = room = count = slot_count = 0;
    stg_lock_drop(&lock);
    return taken;
}

void stg_absent_stop(void) {
    struct stg_disk_name name = {.path = KEPT_AS, .now = form, .bytes = LIST_MAX_BYTES};
    struct stg_disk *disk = stg_tier_disk();
    char *taken = take_out();

    if (taken) /* what cannot be kept is lost */
        (void)stg_disk_put(disk, &name, taken, stg_disk_forgotten(disk));
}
