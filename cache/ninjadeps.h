/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What ninja remembers of the headers that compilers told it of: `.ninja_deps`, versions 3 and 4,
 * as src/deps_log.h of ninja describes it.
 *
 * The log need not be well-formed: it is read up to the first record that is not, as ninja does.
 * Thread-safe: there is no state.
 */
#ifndef STG_CACHE_NINJADEPS_H
#define STG_CACHE_NINJADEPS_H

#include <stddef.h>

/*
 * Visits each file that something depends on, once, in the order of the last builds of what does:
 * a source, and then what it includes. The path is as ninja has it, from the folder of the build or
 * absolute; owned by the reader. Returns 0; -EBADMSG where this is no such log; or -ENOMEM.
 */
int stg_ninjadeps_read(const char *log, size_t bytes,
                       void (*visit)(void *context, const char *path), void *context);

#endif
