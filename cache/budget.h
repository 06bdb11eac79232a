/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A hard limit on bytes. Room is reserved before anything is allocated, so the limit holds whatever
 * comes at once; who gets none makes room by evicting, or does without.
 *
 * Thread-safe and without locks.
 */
#ifndef STG_CACHE_BUDGET_H
#define STG_CACHE_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct stg_budget {
    _Atomic uint64_t limit_bytes;
    _Atomic uint64_t used_bytes;
    _Atomic uint64_t peak_bytes;
};

void stg_budget_init(struct stg_budget *budget, uint64_t limit_bytes);

/*
 * Changes the limit. What is reserved stays reserved: where that is more than the new limit, the
 * owner evicts until stg_budget_excess() is 0.
 */
void stg_budget_set_limit(struct stg_budget *budget, uint64_t limit_bytes);

/* Reserves, or does nothing and returns false where that would pass the limit. */
bool stg_budget_reserve(struct stg_budget *budget, uint64_t bytes);

/* Reserves beyond the limit, too. */
void stg_budget_force(struct stg_budget *budget, uint64_t bytes);

/* Gives back what was reserved. */
void stg_budget_release(struct stg_budget *budget, uint64_t bytes);

/* By how much the limit is passed; above 0 only after it was lowered. */
uint64_t stg_budget_excess(const struct stg_budget *budget);

#endif
