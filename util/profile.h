/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A profile: which files and folders of a tree a build has touched, in their order, and the text
 * that it is kept as, which people may read, and commit with the sources:
 *
 *     stagefs-profile 1
 *     # lines that begin with # are for people
 *     folder 0 src
 *     search 0 include
 *     file 1 include/config.h
 *
 * Each line has what the path is, in how many of the last recordings it was not met, and the path
 * from the top of the tree ("." is the top), with `\\` for a backslash, `\n` for a newline and `\r`
 * for a carriage return. A folder was looked in; a searched one was looked in for names that were
 * not there, as compilers do with folders of -I; a file was read.
 *
 * Not thread-safe.
 */
#ifndef STG_UTIL_PROFILE_H
#define STG_UTIL_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum stg_profile_kind { STG_PROFILE_FOLDER, STG_PROFILE_SEARCH, STG_PROFILE_FILE };

/* More than that no profile holds: what comes later is left out, and counted. */
#define STG_PROFILE_ENTRIES_MAX 200000
#define STG_PROFILE_TEXT_MAX_BYTES ((size_t)32 << 20)
/* What was not met in so many recordings, one after the other, is forgotten. */
#define STG_PROFILE_AGE_MAX 3

/* Can a profile in a stage directory be called that? Not what is a path, nor hidden. */
bool stg_profile_is_name(const char *word);

struct stg_profile_entry {
    enum stg_profile_kind kind;
    unsigned age;
    char *path; /* owned, never empty */
};

struct stg_profile {
    struct stg_profile_entry *entries; /* owned */
    size_t count;
    size_t room;
    size_t bytes;    /* of the paths */
    size_t left_out; /* entries that there was no room for */
};

#define STG_PROFILE_NONE ((struct stg_profile){0})

void stg_profile_fini(struct stg_profile *profile);

/* Adds a copy at the end. Returns 0, or -ENOMEM; what is beyond the limits is left out. */
int stg_profile_add(struct stg_profile *profile, enum stg_profile_kind kind, unsigned age,
                    const char *path);

/*
 * Adds the entries of a text: of a whole one, which begins with the line that says what it is, or
 * (`headless`) of lines of one. Returns 0; -EINVAL, and in `*ret_line` the number of the line that
 * is wrong, from 1; -ENOMEM. After an error some may have been added.
 */
int stg_profile_parse(struct stg_profile *profile, const char *text, size_t bytes, bool headless,
                      size_t *ret_line);

/*
 * Adds the entries of the file. Returns as stg_profile_parse(), with line 0 where it is no regular
 * file; -EFBIG; or -errno of open(2) and read(2).
 */
int stg_profile_read(struct stg_profile *profile, const char *path, size_t *ret_line);

/* Writes the text. What went wrong the stream says. */
void stg_profile_write(const struct stg_profile *profile, FILE *stream);

/* Writes one line of it. */
void stg_profile_write_entry(const struct stg_profile_entry *entry, FILE *stream);

/*
 * What is known after another recording: `fresh` in its order, and of `old` what that lacks, after
 * what it came after, one recording older, as far as there is room; or no older where `fresh` is
 * not `whole`, because what was recorded failed. Returns 0 and the merged profile in `*ret_merged`,
 * or -ENOMEM.
 */
int stg_profile_merge(const struct stg_profile *old, const struct stg_profile *fresh, bool whole,
                      struct stg_profile *ret_merged);

#endif
