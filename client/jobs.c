/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the jobs of one call. */
#include "client/jobs.h"

#include "client/cleanup.h"
#include "client/outside.h"
#include "client/request.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

enum { DELAY_MAX_MS = 50, TRIES_MAX = 100 };

void stg_jobs_fini(struct stg_jobs *jobs) {
    for (size_t i = 0; i < jobs->count; i++)
        stg_client_close(&jobs->jobs[i].fd);
    free(jobs->jobs);
    *jobs = (struct stg_jobs){0};
}

void stg_jobs_pause(unsigned *delay_ms) {
    struct timespec delay = {.tv_nsec = 1000000L * (*delay_ms ? *delay_ms : 1)};

    (void)nanosleep(&delay, NULL); /* shorter where a signal comes */
    *delay_ms = *delay_ms ? *delay_ms + *delay_ms / 2 + 1 : 1;
    if (*delay_ms > DELAY_MAX_MS)
        *delay_ms = DELAY_MAX_MS;
}

/* The newest of the mount: an older one has been forgotten by it. */
static struct stg_job *find_job(struct stg_jobs *jobs, dev_t device) {
    for (size_t i = jobs->count; i > 0; i--)
        if (jobs->jobs[i - 1].device == device)
            return &jobs->jobs[i - 1];
    return NULL;
}

static struct stg_job *add_job(struct stg_jobs *jobs, dev_t device, int fd) {
    struct stg_job *grown = realloc(jobs->jobs, (jobs->count + 1) * sizeof(*grown));
    int own;

    if (!grown)
        return NULL;
    jobs->jobs = grown;
    own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return NULL;
    grown[jobs->count] = (struct stg_job){.device = device, .fd = own};
    return &grown[jobs->count++];
}

/* A mount takes so many jobs at a time, and says EAGAIN to more. */
static int send_patiently(int fd, unsigned long command, struct stagefs_stage_request *request) {
    unsigned delay_ms = 0;
    int error;

    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        error = stg_request_send(fd, command, request);
        if (error != -EAGAIN)
            return error;
        stg_jobs_pause(&delay_ms);
    }
    return error;
}

int stg_jobs_send(struct stg_jobs *jobs, int fd, unsigned long command,
                  struct stagefs_stage_request *request, size_t count) {
    struct stg_job *job;
    struct stat st;
    int error;

    if (fstat(fd, &st))
        return -errno;
    job = find_job(jobs, st.st_dev);
    request->job = job ? job->id : 0;
    error = send_patiently(fd, command, request);
    if (error == -ENOENT && request->job) {
        /* Done more than a minute ago, while others of this call's mounts were slow. */
        job = NULL;
        request->job = 0;
        error = send_patiently(fd, command, request);
    }
    /* A mount that is done at once gives no job. */
    if (error || !request->job)
        return error;
    if (!job)
        job = add_job(jobs, st.st_dev, fd);
    if (!job)
        return -ENOMEM;
    job->id = request->job;
    job->sent += count;
    job->running = true;
    return 0;
}

/* A job that the mount has forgotten is over, and what became of the rest of it cannot be told. */
static void lose(struct stg_job *job, int error) {
    struct stagefs_job_request *last = &job->last;
    uint64_t told = last->done + last->failed;

    if (!last->first_error)
        last->first_error = error == -ENOENT ? EAGAIN : (uint32_t)-error;
    if (last->files < job->sent)
        last->files = job->sent;
    last->failed += last->files > told ? last->files - told : 0;
    last->running = 0;
}

static void poll_job(struct stg_job *job) {
    struct stagefs_job_request request = {.version = STAGEFS_PROTOCOL_VERSION, .job = job->id};
    int error = stg_request_send(job->fd, STAGEFS_IOC_JOB, &request);

    if (error)
        lose(job, error);
    else
        job->last = request;
    job->running = job->last.running;
}

bool stg_jobs_poll(struct stg_jobs *jobs, struct stagefs_result *result) {
    bool running = false;

    for (size_t i = 0; i < jobs->count; i++) {
        struct stg_job *job = &jobs->jobs[i];

        if (job->running)
            poll_job(job);
        running = running || job->running;
        if (job->last.first_error)
            stg_result_note(result, job->last.first_failed, -(int)job->last.first_error);
        result->files += job->last.files;
        result->staged += job->last.done;
        result->failed += job->last.failed;
        result->bytes += job->last.bytes;
    }
    return running;
}
