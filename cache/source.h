/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The backing tree as the staging engine sees it: keys that stand for files, and what can be done
 * with them. The mount implements it; tests have a fake one.
 *
 * Every function may block for as long as the source does, may be called by several threads at
 * once, and is called without any lock held. Errors are the source's own, as -errno.
 */
#ifndef STG_CACHE_SOURCE_H
#define STG_CACHE_SOURCE_H

#include "cache/types.h"

#include <stddef.h>
#include <sys/types.h>

struct stg_object;

struct stg_source_ops {
    /*
     * Opens the file for reading, its data included. A handle of 0 or more, or -errno. `again`:
     * nobody's read is behind it, so it moves no access time where that can be had.
     */
    int (*open)(void *context, void *key, bool again);

    /*
     * What the open file is: `fresh`, now; else what the source's own cache of attributes has will
     * do. 0 or -errno.
     */
    int (*identify)(void *context, int handle, bool fresh, struct stg_identity *ret_identity);

    /* As pread(2): may be short, 0 at the end. */
    ssize_t (*read)(void *context, int handle, void *buffer, size_t bytes, uint64_t offset);

    /* Gives the handle back; cannot fail. */
    void (*close)(void *context, int handle);

    /* The engine is done with the key for good. May be NULL. */
    void (*release)(void *context, void *key);

    /*
     * The copy of that number (as of store.h) is about to go, and nobody holds it: what was kept
     * of it beyond a hold, such as a registration with the kernel, is to be given up. The same key
     * may have another copy by now. May be NULL.
     */
    void (*withdraw)(void *context, void *key, uint64_t number);

    /*
     * What was read of the file, from its beginning, as soon as it is there and before it is known
     * to be of one version; borrowed. May be NULL.
     */
    void (*content)(void *context, void *key, const char *content, uint64_t bytes);

    /* A fetch of `bytes` took that long. May be NULL. */
    void (*fetched)(void *context, void *key, uint64_t bytes, uint64_t took_ns);

    /* There is no room: holds that are not needed are to be given back now. May be NULL. */
    void (*press)(void *context);

    /*
     * What the file is, as recently as copies of it must be compared with it; may look. 0 or
     * -errno. NULL where nothing is kept on disk, as the next.
     */
    int (*known)(void *context, void *key, struct stg_identity *ret_identity);

    /*
     * What the file is called whenever the source is mounted, into `path` of PATH_MAX bytes, and
     * whether its ino is the same then. False where it has no such name.
     */
    bool (*lasting)(void *context, void *key, char *path, bool *ret_numbers_last);

    /* An object of the key has nothing any more; see stg_object_retire(). May be NULL. */
    void (*absent)(void *context, void *key, struct stg_object *object);
};

struct stg_source {
    const struct stg_source_ops *ops;
    void *context;
};

#endif
