/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Watches whether memory is short, and says so: to shrink at once, and, when it has been quiet for
 * a while, that one may grow again.
 *
 * The kernel wakes us where it has pressure stall information (PSI, Linux 5.2 and newer, see
 * Documentation/accounting/psi.rst): nothing is done while all is well. Elsewhere what is available
 * is read each second.
 */
#ifndef STG_CACHE_PRESSURE_H
#define STG_CACHE_PRESSURE_H

#include "cache/memory.h"

#include <stdbool.h>
#include <stdint.h>

/* How bad it is: some wait for memory; or everybody does, or next to none is left. */
#define STG_PRESSURE_NONE 0U
#define STG_PRESSURE_SOME 1U
#define STG_PRESSURE_FULL 2U

struct stg_pressure;

struct stg_pressure_config {
    /*
     * Both are called by the watching thread, one at a time, without locks; they may take long, but
     * must not free the watch. shrink(): memory is short, at a `level` above NONE; at most once a
     * second for each thing that is watched. relaxed(): `quiet_ms` have gone by since the last call
     * of either; true while there is more to grow: it is called again after as long.
     */
    void (*shrink)(void *context, unsigned level);
    bool (*relaxed)(void *context);
    void *context;
    const char *root;  /* as of memory.h; borrowed. PSI is not used where it is not "" */
    unsigned quiet_ms; /* 0: 10 s */
    unsigned poll_ms;  /* where PSI is missing; 0: 1 s */
    bool no_psi;       /* do without */
    int trigger;       /* for tests, instead of PSI: an eventfd of levels, borrowed; 0: none */
};

/*
 * Starts to watch, with one thread and a few descriptors. Where there are processes to be forked
 * off, that is first. Returns 0, -ENOMEM, -EMFILE, -ENFILE or -EAGAIN (no thread).
 */
int stg_pressure_new(const struct stg_pressure_config *config, struct stg_pressure **ret_pressure);

/* Waits for a call that is under way, and ends the watch. NULL is fine. */
void stg_pressure_free(struct stg_pressure *pressure);

/* What is watched, for people: "psi" or "meminfo". Constant. */
const char *stg_pressure_source(const struct stg_pressure *pressure);

/* ---- what is decided, as pure functions ---- */

/* How bad it is by what is available alone: less than 1/16 of the limit, or than 1/32. */
unsigned stg_pressure_level(const struct stg_memory *memory);

/*
 * The limit after a call of shrink(): three quarters of what is used, once for each level, at
 * least `floor_bytes`, and never above the limit that there is.
 */
uint64_t stg_pressure_shrunk(uint64_t limit_bytes, uint64_t used_bytes, uint64_t floor_bytes,
                             unsigned level);

/* The limit after a call of relaxed(): an eighth of the configured one more, up to that. */
uint64_t stg_pressure_regrown(uint64_t limit_bytes, uint64_t configured_bytes);

/* When relaxed() is due. All zero: not at all. Times are of any clock that does not jump. */
struct stg_pressure_rest {
    bool awaited;
    int64_t due_ns;
};

void stg_pressure_rest_begin(struct stg_pressure_rest *rest, int64_t now_ns, unsigned quiet_ms);
bool stg_pressure_rest_is_due(const struct stg_pressure_rest *rest, int64_t now_ns);

/* How long to wait for it, in ms, rounded up: for poll(2). -1: for ever. */
int stg_pressure_rest_wait_ms(const struct stg_pressure_rest *rest, int64_t now_ns);

#endif
