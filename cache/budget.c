/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the arithmetic of a budget. What is evicted, and how, is its owner's affair. */
#include "cache/budget.h"

void stg_budget_init(struct stg_budget *budget, uint64_t limit_bytes) {
    atomic_init(&budget->limit_bytes, limit_bytes);
    atomic_init(&budget->used_bytes, 0);
    atomic_init(&budget->peak_bytes, 0);
}

void stg_budget_set_limit(struct stg_budget *budget, uint64_t limit_bytes) {
    atomic_store(&budget->limit_bytes, limit_bytes);
}

static void note_peak(struct stg_budget *budget, uint64_t used) {
    uint64_t peak = atomic_load(&budget->peak_bytes);

    while (used > peak && !atomic_compare_exchange_weak(&budget->peak_bytes, &peak, used))
        ;
}

bool stg_budget_reserve(struct stg_budget *budget, uint64_t bytes) {
    uint64_t used = atomic_load(&budget->used_bytes);

    do {
        uint64_t limit = atomic_load(&budget->limit_bytes);

        if (used > limit || bytes > limit - used)
            return false;
    } while (!atomic_compare_exchange_weak(&budget->used_bytes, &used, used + bytes));
    note_peak(budget, used + bytes);
    return true;
}

void stg_budget_force(struct stg_budget *budget, uint64_t bytes) {
    note_peak(budget, atomic_fetch_add(&budget->used_bytes, bytes) + bytes);
}

void stg_budget_release(struct stg_budget *budget, uint64_t bytes) {
    atomic_fetch_sub(&budget->used_bytes, bytes);
}

uint64_t stg_budget_excess(const struct stg_budget *budget) {
    uint64_t used = atomic_load(&budget->used_bytes);
    uint64_t limit = atomic_load(&budget->limit_bytes);

    return used > limit ? used - limit : 0;
}
