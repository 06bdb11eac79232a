/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a compiler writes for make with -MD (`.d`): rules, whose prerequisites are the source and
 * what it includes. GCC's documentation, "Preprocessor Options", has the flags, and make's, "Rule
 * Syntax", the text.
 *
 * The text need not be well-formed; what is no prerequisite of a rule is passed over. Thread-safe:
 * there is no state.
 */
#ifndef STG_CACHE_DEPFILE_H
#define STG_CACHE_DEPFILE_H

#include <stdbool.h>
#include <stddef.h>

/* Is that the name of such a file? */
bool stg_depfile_is(const char *name);

/* Visits the prerequisites in their order; the path is owned by the reader. */
void stg_depfile_read(const char *text, size_t bytes,
                      void (*visit)(void *context, const char *path), void *context);

#endif
