/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of a mount that serves from the kernel's page cache are read once after they were staged,
 * so that the first read of a program asks nobody. For one thread.
 *
 * Why it is the client that does this: the daemon could store the contents in the page cache
 * (FUSE_NOTIFY_STORE), but the kernel does not leave out pages that are up to date, so what a
 * program has just stored through a shared mapping would be overwritten. A read fills only what is
 * absent.
 *
 * Folders are listed on the way and each of their entries is looked at, which makes names and
 * attributes known to the kernel, too. What cannot be read is passed over without a word: the job
 * that staged it has told. Of a mount no more is read than its limit for copies in memory.
 */
#ifndef STG_CLIENT_WARM_H
#define STG_CLIENT_WARM_H

#include "client/stagefs.h"

#include <stdbool.h>

struct stg_warm_mount {
    dev_t device;
    uint64_t left_bytes; /* that may still be read */
};

struct stg_warm {
    stagefs_progress progress; /* or NULL; called as stagefs.h says, with */
    const struct stagefs_result *result;
    void *data;
    struct stg_warm_mount *mounts; /* owned; those that serve from the page cache */
    size_t count;
    char *buffer; /* owned; NULL before the first read */
    uint64_t read_bytes;
    int64_t told_ns; /* when there was progress last */
    bool stopped;    /* by that */
};

/* Begins as {.progress = …}, without mounts. */
void stg_warm_fini(struct stg_warm *warm);

/* Asks the mount of `device` on `fd` (borrowed) how it serves, and adds it if that is so. */
void stg_warm_ask(struct stg_warm *warm, dev_t device, int fd);

/* Adds a mount, of which `limit_bytes` may be read. One that is there already stays as it is. */
void stg_warm_add(struct stg_warm *warm, dev_t device, uint64_t limit_bytes);

/*
 * Reads the file at `path`, or with `recursive` those below the folder, if it is on a mount that
 * was added. A symbolic link is followed at `path` and not below; other mounts are not entered.
 * Returns 0, or -ECANCELED where the caller's progress wanted the end.
 */
int stg_warm_path(struct stg_warm *warm, int dirfd, const char *path, bool recursive);

/* The same for the file that `fd` (borrowed, its offset kept) is open on, if that is for reading.
 */
int stg_warm_open(struct stg_warm *warm, int fd);

#endif
