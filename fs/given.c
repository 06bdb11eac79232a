/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns what is known of the listings that the kernel keeps. */
#include "fs/given.h"

#include "fs/lease.h"
#include "fs/notify.h"
#include "util/clock.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdlib.h>

struct stg_given {
    uint64_t sum;     /* of all that was given; all protected by lock */
    bool known;       /* that is what the kernel keeps, if it keeps anything */
    bool overlapped;  /* of those who are reading, some have read at the same time */
    unsigned readers; /* who have begun, and not ended */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_PLACES);

bool stg_given_is_current(struct stg_inode *folder) {
    struct stg_given *given = folder->given;
    int64_t oldest_ns = stg_clock_monotonic_ns() - (int64_t)(stg_fs.options.ttl_s * 1e9);
    struct stg_listing_sum now;
    bool known;
    uint64_t sum;

    if (!given)
        return false;
    stg_lock_take(&lock);
    known = given->known;
    sum = given->sum;
    stg_lock_drop(&lock);
    return known && stg_listing_sum(folder, &now) && stg_lease_listing(folder) && now.sum == sum &&
           now.at_ns >= oldest_ns;
}

bool stg_given_may_be_kept(struct stg_inode *folder) {
    struct stg_listing_sum seen;

    return folder->given && stg_listing_sum(folder, &seen) && stg_lease_listing(folder);
}

static struct stg_given *given_of_locked(struct stg_inode *folder) {
    if (!folder->given)
        folder->given = calloc(1, sizeof(struct stg_given));
    return folder->given;
}

void stg_given_begin(struct stg_inode *folder, struct stg_giving *giving) {
    struct stg_given *given;

    stg_given_end(folder, giving, false);
    if (!stg_lease_may(folder))
        return;
    giving->seen = stg_listing_begin(folder);
    stg_lock_take(&lock);
    given = given_of_locked(folder);
    if (given) {
        given->known = false;
        given->overlapped = given->overlapped || given->readers;
        given->readers++;
    }
    stg_lock_drop(&lock);
    giving->begun = given;
}

void stg_given_entry(struct stg_giving *giving, const struct dirent64 *entry) {
    if (giving->begun)
        giving->seen.sum += stg_listing_hash(entry->d_name, entry->d_type);
}

void stg_given_end(struct stg_inode *folder, struct stg_giving *giving, bool complete) {
    struct stg_given *given = folder->given;
    bool known;

    if (!giving->begun)
        return;
    giving->begun = false;
    stg_lock_take(&lock);
    known = complete && !given->overlapped;
    given->known = known;
    given->sum = giving->seen.sum;
    given->overlapped = --given->readers && given->overlapped;
    stg_lock_drop(&lock);
    if (known)
        stg_listing_note(folder, &giving->seen);
}

void stg_given_check(struct stg_inode *folder, bool looked) {
    struct stg_given *given = folder->given;
    struct stg_listing_sum now;
    bool drops;

    if (!given)
        return;
    looked = looked && stg_listing_sum(folder, &now);
    stg_lock_take(&lock);
    drops = given->known && (!looked || given->sum != now.sum);
    given->known = given->known && !drops;
    stg_lock_drop(&lock);
    if (drops)
        (void)stg_notify_inode(folder, true); /* one that it does not know it does not keep */
}

void stg_given_free(struct stg_inode *inode) {
    free(inode->given);
    inode->given = NULL;
}
