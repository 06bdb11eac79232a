/* SPDX-License-Identifier: GPL-2.0-only */
/* How much of a file is in this machine's page cache. */
#ifndef STG_CACHE_RESIDENCY_H
#define STG_CACHE_RESIDENCY_H

#include <stdint.h>

/*
 * Of the first `bytes` of the open file, as far as it has them: how many percent of their pages are
 * in the page cache, rounded down; -1 where that cannot be found out. Reads nothing in, and moves
 * no page in the kernel's lists. An empty part is all there.
 */
int stg_residency_percent(int fd, uint64_t bytes);

#endif
