/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Waiting until what was changed behind the mount is visible through it.
 *
 * A sync has a number and is asked about by it: no request is held back for it. All that begin
 * while one is under way are served by the next one together, so any number of callers cost no more
 * than two.
 */
#ifndef STG_FS_SYNC_H
#define STG_FS_SYNC_H

#include <stdbool.h>
#include <stdint.h>

/* Starts the thread; 0 or -errno. */
int stg_sync_start(void);

/* Ends it, after stg_coherence_stop(). */
void stg_sync_stop(void);

/*
 * Begins a sync. Returns 0 and its number; or -EOPNOTSUPP: the tree is frozen, and the kernel has
 * no way to drop names before their time.
 */
int stg_sync_begin(uint64_t *ret_ticket);

/* Was that number given? */
bool stg_sync_is_given(uint64_t ticket);

/* Is the sync of that number over? */
bool stg_sync_is_over(uint64_t ticket);

/* How many were done. */
uint64_t stg_sync_count(void);

#endif
