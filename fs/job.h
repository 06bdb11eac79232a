/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Staging on request: many files at once, found and fetched in parallel, and named sets of them.
 *
 * A job is a number of files that somebody asked for. They are looked up by threads of their own,
 * as the caller who asked: what he may not read is not staged. It is done when each file is staged
 * or cannot be; how far it is can be asked for until a minute after that.
 */
#ifndef STG_FS_JOB_H
#define STG_FS_JOB_H

#include "client/protocol.h"
#include "fs/creds.h"
#include "fs/inode.h"

enum stg_job_kind { STG_JOB_STAGE, STG_JOB_UNSTAGE };

struct stg_job_order {
    enum stg_job_kind kind;
    int mode; /* enum stg_mode, or STG_STAGED_NO_MODE for the mount's */
    bool recursive;
    const char *set; /* "": none */
};

/* Ends the threads; what is left to do is given up. Before the engine stops. */
void stg_job_stop(void);

/* Drops the sets; after stg_job_stop(). */
void stg_job_fini(void);

/*
 * Adds work to the job `*job` of the caller, or to a new one where that is 0, and returns its
 * number there: the files `names`, `bytes` of them with a NUL after each, below the folder `inode`;
 * or without names `inode` itself. Returns 0; -ENOENT, there is no such job; -EAGAIN, too many are
 * running; -ENOMEM.
 */
int stg_job_add(struct stg_inode *inode, const struct stg_caller *caller,
                const struct stg_job_order *order, const char *names, size_t bytes, uint64_t *job);

/* How far the job is. Returns 0, or -ENOENT where it is not known, or not the caller's. */
int stg_job_query(const struct stg_caller *caller, struct stagefs_job_request *request);

/* The set that the request names, or counts to. Returns 0 or -ENOENT. */
int stg_job_query_set(struct stagefs_set_request *request);

/*
 * Drops the copies of a set's files, and the set. Returns how many files it had; -ENOENT; or -EPERM
 * where it is another's, and the caller not the mount's owner.
 */
int64_t stg_job_unstage_set(const char *name, const struct stg_caller *caller);

/* Writes the name of the set, "" where it is gone. */
void stg_job_set_name(uint32_t set, char name[STAGEFS_SET_BYTES]);

/*
 * Finds `path` below `from`, as the caller, who must be allowed to search the folders and to read
 * what is there; no symbolic link is followed. Returns 0 and the inode with its lookup count
 * raised, or -errno. With an empty path it is `from`.
 */
int stg_job_find(struct stg_inode *from, const char *path, const struct stg_caller *caller,
                 struct stg_inode **ret_inode);

#endif
