/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a C or C++ source includes, by its text alone: the names of its #include, #include_next and
 * #import directives, and those that __has_include asks about. Every branch of a conditional is
 * taken, and what a macro computes is passed over: this is for guessing what a compiler will read
 * next, not for knowing it.
 *
 * Directives are found as translation phases 2 to 4 of the C standard (5.1.1.2) would: lines that a
 * backslash continues are joined, comments, strings, character constants and C++ raw strings are
 * skipped, digit separators are none of these. The digraph %: is a #; trigraphs are not.
 *
 * Pure functions: no memory is allocated, no lock taken, and the text need not be well-formed, end
 * with a NUL, or be text at all.
 */
#ifndef STG_CACHE_DEPSCAN_H
#define STG_CACHE_DEPSCAN_H

#include <stdbool.h>
#include <stddef.h>

/* The longest name that is reported; with its NUL. */
#define STG_DEPSCAN_NAME_BYTES 256

/* One name, NUL-terminated, as it is written; `angled`: in <>, not in quotes. */
typedef void stg_depscan_found(void *context, const char *name, bool angled);

/* Calls `found` with each name in `text`, in the order in which they are there. */
void stg_depscan(const char *text, size_t bytes, stg_depscan_found *found, void *context);

/* Is a file of that name C, C++, Objective-C or preprocessed assembler, by its ending? */
bool stg_depscan_is_code(const char *name);

#endif
