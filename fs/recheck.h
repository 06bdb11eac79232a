/* SPDX-License-Identifier: GPL-2.0-only */
/* Looks at the source of all staged files at once, many at a time where each takes a round trip. */
#ifndef STG_FS_RECHECK_H
#define STG_FS_RECHECK_H

#include <stdatomic.h>
#include <stdbool.h>

/*
 * Has each known file of which something is staged, and which is not watched, looked at; returns
 * when all were, or `stopping` is set. False where memory was short, and some were not.
 */
bool stg_recheck_all(const atomic_bool *stopping);

#endif
