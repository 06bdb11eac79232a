/* SPDX-License-Identifier: GPL-2.0-only */
/* Strict readers for the values that people write in options. Pure functions, no locks. */
#ifndef STG_UTIL_PARSE_H
#define STG_UTIL_PARSE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Reads a whole decimal number between `min` and `max`. Returns 0, -EINVAL (not a number, or
 * anything after it) or -ERANGE.
 */
int stg_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

/*
 * Reads a size in bytes up to `max`: a whole number, alone or with K, M, G or T (powers of 1024)
 * after it. Returns 0, -EINVAL or -ERANGE.
 */
int stg_parse_bytes(const char *text, uint64_t max, uint64_t *ret_bytes);

/*
 * Reads a duration in seconds, decimals allowed ("0.5"), between 0 and `max_s`. The decimal mark
 * is a point in every locale. Returns 0, -EINVAL or -ERANGE.
 */
int stg_parse_seconds(const char *text, double max_s, double *ret_seconds);

/*
 * Cuts the next option off a comma-separated list: `*cursor` moves behind it, and `\,` and `\\`
 * become `,` and `\` in place. Returns the option, or NULL at the end of the list.
 */
char *stg_parse_next_option(char **cursor);

/* The index of `text` in the NULL-terminated `words`, or -EINVAL. */
int stg_parse_word(const char *text, const char *const *words);

#endif
