/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests that wait for a remote source, for content which is being fetched, a name, or
 * attributes; and the two ends that they have before it comes: whoever waits is killed, or the
 * source has taken longer than source_timeout=.
 *
 * The kernel does not let a process go that waits for an answer, not even a killed one; it says
 * (FUSE_INTERRUPT) that some signal came, once for each request. Most signals are no reason to give
 * up: a program that handles them does not expect EINTR of a file (the runtime of Go sends itself
 * some all the time). So a request is answered with EINTR where its process is going to end.
 */
#ifndef STG_FS_WAITS_H
#define STG_FS_WAITS_H

#include "fs/fs.h"

/* Zeroed, and the owner's until stg_wait_end(); the fields are those of waits.c. */
struct stg_wait {
    struct stg_wait *next;
    struct stg_wait *previous;
    fuse_req_t req;
    int64_t begun_ns; /* monotonic */
    bool waits;       /* it is in the list */
    unsigned sweep;   /* the last that has seen it */
    bool interrupted;
    bool used; /* by the sweeper, without the lock */
    bool answered;
};

/* Starts the thread that looks after them; 0 or -errno. */
int stg_waits_start(void);
void stg_waits_stop(void);

/* The request waits from now on, and may be answered by others, with an error, at any time. */
void stg_wait_begin(struct stg_wait *wait, fuse_req_t req);

/*
 * It does not wait any more. True where the caller is to answer it; false where that was done. True
 * for one that was never begun.
 */
bool stg_wait_end(struct stg_wait *wait);

#endif
