/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a folder has, with attributes, in one piece of memory that can be kept on disk: for a tree
 * that does not change.
 *
 * The form is this machine's own, as a stage directory is: numbers as they lie in memory. What is
 * read is believed in nothing, as the disk may have damaged it, or somebody else written it: each
 * length is checked before it is used.
 *
 * No locks: one that is parsed is not changed any more.
 */
#ifndef STG_CACHE_FOLDER_H
#define STG_CACHE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Raised with each change of the form: what has another is none. */
#define STG_FOLDER_FORMAT 1
/* What would be longer fails. */
#define STG_FOLDER_MAX_BYTES (UINT32_C(16) << 20)

struct stg_folder_entry {
    const char *name;   /* borrowed, as all pointers here */
    const char *target; /* of a symbolic link; else "" */
    const void *handle; /* a file handle of `handle_bytes`; 0: there is none */
    uint8_t handle_bytes;
    int32_t handle_type;
    bool is_known;    /* false: only its name is, and its type in stx_mode */
    bool has_xattrs;  /* may have extended attributes */
    struct statx stx; /* without times of birth, and what names a device or a mount */
};

/* ---- writing ---- */

struct stg_folder_writer {
    char *bytes;
    size_t used;
    size_t room;
    uint32_t count;
    bool tells_absent; /* to be set before the end: a name that is not added is not there */
    bool failed;       /* out of memory, or more than fits: nothing comes of it */
};

/* Begins with what the folder itself is. */
void stg_folder_begin(struct stg_folder_writer *writer, const struct statx *self);
void stg_folder_add(struct stg_folder_writer *writer, const struct stg_folder_entry *entry);

/* The whole, `*ret_bytes` long, which the caller frees; NULL where it failed. */
char *stg_folder_end(struct stg_folder_writer *writer, uint64_t *ret_bytes);

/* ---- reading ---- */

struct stg_folder;

/*
 * Takes what stg_folder_end() gave, `content`, which is freed with it, or at once where it fails.
 * 0; -EBADMSG, it is not that; or -ENOMEM.
 */
int stg_folder_parse(char *content, uint64_t bytes, struct stg_folder **ret_folder);
void stg_folder_free(struct stg_folder *folder);

/* Is a name that it has not surely not there? */
bool stg_folder_tells_absent(const struct stg_folder *folder);

size_t stg_folder_count(const struct stg_folder *folder);

/* What the folder was itself. */
void stg_folder_self(const struct stg_folder *folder, struct statx *ret_stx);

/* The entry of that number, in the order in which they were added; it must be there. */
void stg_folder_at(const struct stg_folder *folder, size_t index,
                   struct stg_folder_entry *ret_entry);

/* The entry of that name; false: there is none. */
bool stg_folder_find(const struct stg_folder *folder, const char *name,
                     struct stg_folder_entry *ret_entry);

#endif
