/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a name itself tells of whether a listing of its folder has the last word on it. Pure
 * functions; no locks.
 */
#ifndef STG_FS_NAMES_H
#define STG_FS_NAMES_H

#include <stdbool.h>

/* Is it ".", ".." or nothing: no name that may be looked up in a folder? */
bool stg_name_is_dots(const char *name);

/* Can the source have no other spelling of that name but by its case? */
bool stg_name_has_one_spelling(const char *name);

/* Has it no letter, nor anything that may be one? */
bool stg_name_has_one_case(const char *name);

/* Does no source have a folder of that name that it does not list? (snapshots and the like) */
bool stg_name_is_listed(const char *name);

/*
 * The name with its letters turned, for asking whether the source tells upper from lower case;
 * false: it is not fit for that.
 */
bool stg_name_turn_case(const char *name, char turned[256]);

#endif
