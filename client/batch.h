/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many paths in few requests. For one thread.
 *
 * To be staged a path needs a descriptor on its mount and a name from there without symbolic links.
 * Opening each file would cost more than staging it, so paths are named from a folder that many of
 * them are below: a base. A path's folder is checked once, by the kernel, to lead from a base to
 * itself without symbolic links and without another mount between; if from none, it gets a base of
 * its own, as high up as all paths have in common. Names are packed in requests of 15 KiB, one
 * being filled for each base.
 *
 * A last name that is a symbolic link is the mount's to refuse, and the caller's to resolve.
 */
#ifndef STG_CLIENT_BATCH_H
#define STG_CLIENT_BATCH_H

#include "client/jobs.h"

#include <limits.h>

enum { STG_BASES_MAX = 16 }; /* open at a time */

struct stg_plan {
    unsigned long command; /* STAGEFS_IOC_STAGE or _UNSTAGE */
    uint32_t mode;         /* STAGEFS_MODE_*; 0 for unstaging */
    bool recursive;
    const char *set;    /* or "" */
    int outside_advice; /* POSIX_FADV_*, where there is no mount */
};

struct stg_base {
    char *dir; /* owned; NULL: unused */
    int fd;    /* owned */
    size_t names;
    struct stagefs_stage_request request;
};

struct stg_batch {
    const struct stg_plan *plan;
    int dirfd;
    const char *common; /* what limits a base, */
    size_t common_bytes;
    size_t next; /* base to give up for another */
    struct stg_base bases[STG_BASES_MAX];
    /* The last path's folder, as most often the next is in it too. */
    struct stg_base *last_base; /* NULL: none */
    char last_dir[PATH_MAX];
    char last_below[PATH_MAX];
    struct stg_jobs jobs;
    struct stagefs_result result; /* of what is decided without a job */
    uint64_t taken;               /* paths that a job was given */
};

/* The plan is borrowed, as is the descriptor. Returns NULL without memory. */
struct stg_batch *stg_batch_new(int dirfd, const struct stg_plan *plan);
void stg_batch_free(struct stg_batch *batch);

/* Limits bases to the dir that all of the paths have in common; they are borrowed. */
void stg_batch_limit(struct stg_batch *batch, const char *const *files, size_t count);

/* Adds a file, which may be sent later. What goes wrong is counted in the result. */
void stg_batch_add(struct stg_batch *batch, const char *path);

/* Opens the file or folder and sends a request about it alone. */
void stg_batch_add_alone(struct stg_batch *batch, const char *path);

/* Sends a request about what `fd` (borrowed) is open on. */
void stg_batch_add_open(struct stg_batch *batch, int fd, const char *path);

/* Sends what is left to send. */
void stg_batch_flush(struct stg_batch *batch);

#endif
