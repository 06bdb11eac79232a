/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The jobs of one call: one for each mount that its files are on. For one thread.
 *
 * A job is done when the mount says so; asking is by polling, with pauses that grow from 1 to 50
 * milliseconds. Requests are added to a job, so that all of a call's are one job to the mount.
 */
#ifndef STG_CLIENT_JOBS_H
#define STG_CLIENT_JOBS_H

#include "client/protocol.h"
#include "client/stagefs.h"

#include <stdbool.h>

struct stg_job {
    dev_t device; /* of the mount */
    int fd;       /* any on the mount, for asking; owned */
    uint64_t id;
    uint64_t sent; /* paths */
    bool running;
    struct stagefs_job_request last; /* what was last answered */
};

struct stg_jobs {
    struct stg_job *jobs; /* owned */
    size_t count;
};

void stg_jobs_fini(struct stg_jobs *jobs);

/*
 * Sends a request to stage or unstage `count` paths on `fd` (borrowed), as part of the job of its
 * mount. Returns 0, -ENOTTY or -errno as stg_request_send() does.
 */
int stg_jobs_send(struct stg_jobs *jobs, int fd, unsigned long command,
                  struct stagefs_stage_request *request, size_t count);

/* Asks how far all are, and adds that to `result`. Returns true while there is work left. */
bool stg_jobs_poll(struct stg_jobs *jobs, struct stagefs_result *result);

/* Pauses; `*delay_ms`, 0 at first, is how long, and grows. */
void stg_jobs_pause(unsigned *delay_ms);

#endif
