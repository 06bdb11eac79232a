/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the list of requests that wait for content. */
#include "fs/waits.h"

#include "util/clock.h"
#include "util/sweeper.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#define INTERVAL_NS 100000000L

static struct stg_lock lock = STG_LOCK(STG_RANK_NOTIFY);
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static struct stg_wait *first;     /* protected by lock, as all below */
static unsigned interrupted_count; /* of them */

static bool has_work(void);
static void sweep_locked(void);

static struct stg_sweeper sweeper = {
    .lock = &lock, .interval_ns = INTERVAL_NS, .has_work = has_work, .sweep_locked = sweep_locked};

/* ---- the list ---- */

static void link_locked(struct stg_wait *wait) {
    wait->next = first;
    wait->previous = NULL;
    if (first)
        first->previous = wait;
    first = wait;
    wait->waits = true;
    interrupted_count += wait->interrupted;
    if ((wait->interrupted && interrupted_count == 1) ||
        (!wait->next && stg_fs.options.source_timeout_s > 0))
        stg_sweeper_wake_locked(&sweeper);
}

static void unlink_locked(struct stg_wait *wait) {
    if (wait->previous)
        wait->previous->next = wait->next;
    else
        first = wait->next;
    if (wait->next)
        wait->next->previous = wait->previous;
    interrupted_count -= wait->interrupted;
    wait->waits = false;
}

/* ---- looking after them ---- */

#define BIT(signal) (UINT64_C(1) << ((signal)-1))
/* What those do that nobody has said anything about is not to end the process (signal(7)). */
#define HARMLESS                                                                                   \
    (BIT(SIGCHLD) | BIT(SIGURG) | BIT(SIGWINCH) | BIT(SIGCONT) | BIT(SIGSTOP) | BIT(SIGTSTP) |     \
     BIT(SIGTTIN) | BIT(SIGTTOU))

/* Is the thread gone, or going to end by a signal? Where that cannot be seen it is not. */
static bool is_ending(pid_t thread) {
    char path[64];
    char line[256];
    uint64_t pending = 0;
    uint64_t handled = 0; /* or blocked, or ignored */
    FILE *stream;

    if (thread <= 0) /* of another PID namespace */
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
    stream = fopen(path, "re");
    if (!stream)
        return errno == ENOENT && kill(thread, 0) && errno == ESRCH;
    while (fgets(line, sizeof(line), stream)) {
        uint64_t mask;

        if (sscanf(line, "SigPnd: %" SCNx64, &mask) == 1 ||
            sscanf(line, "ShdPnd: %" SCNx64, &mask) == 1)
            pending |= mask;
        else if (sscanf(line, "SigBlk: %" SCNx64, &mask) == 1 ||
                 sscanf(line, "SigIgn: %" SCNx64, &mask) == 1 ||
                 sscanf(line, "SigCgt: %" SCNx64, &mask) == 1)
            handled |= mask;
    }
    (void)fclose(stream); /* read-only */
    return pending & (BIT(SIGKILL) | ~(handled | HARMLESS));
}

/* 0: it goes on waiting. */
static int due_error(const struct stg_wait *wait, int64_t now_ns) {
    int64_t timeout_ns = (int64_t)(stg_fs.options.source_timeout_s * 1e9);

    if (wait->interrupted && is_ending(fuse_req_ctx(wait->req)->pid))
        return EINTR;
    return timeout_ns && now_ns - wait->begun_ns >= timeout_ns ? ETIMEDOUT : 0;
}

/* Drops the lock meanwhile; the wait stays where it is until that is over. */
static void answer_locked(struct stg_wait *wait, int error) {
    unlink_locked(wait);
    wait->answering = true;
    stg_lock_drop(&lock);
    fuse_req_interrupt_func(wait->req, NULL, NULL);
    (void)fuse_reply_err(wait->req, error); /* nothing to undo */
    stg_lock_take(&lock);
    wait->answering = false;
    wait->answered = true;
    (void)pthread_cond_broadcast(&answered); /* cannot fail */
}

static bool has_work(void) {
    return first && (interrupted_count || stg_fs.options.source_timeout_s > 0);
}

static void sweep_locked(void) {
    int64_t now_ns = stg_clock_monotonic_ns();
    struct stg_wait *wait = first;

    while (wait) {
        int error = due_error(wait, now_ns);

        if (error)
            answer_locked(wait, error);
        wait = error ? first : wait->next; /* from the front: the list was another meanwhile */
    }
}

int stg_waits_start(void) { return stg_sweeper_start(&sweeper); }

void stg_waits_stop(void) { stg_sweeper_stop(&sweeper); }

/* ---- waiting ---- */

/* By the thread that has read the interrupt, or at once where it came before. */
static void interrupted(fuse_req_t req, void *data) {
    struct stg_wait *wait = data;

    (void)req;
    stg_lock_take(&lock);
    if (wait->waits && !wait->interrupted && !interrupted_count++)
        stg_sweeper_wake_locked(&sweeper);
    wait->interrupted = true;
    stg_lock_drop(&lock);
}

void stg_wait_begin(struct stg_wait *wait, fuse_req_t req) {
    if (!stg_fs.interrupts && !(stg_fs.options.source_timeout_s > 0))
        return;
    *wait = (struct stg_wait){.req = req, .begun_ns = stg_clock_monotonic_ns()};
    fuse_req_interrupt_func(req, interrupted, wait);
    stg_lock_take(&lock);
    link_locked(wait); /* it may be answered from now on */
    stg_lock_drop(&lock);
}

bool stg_wait_end(struct stg_wait *wait) {
    bool ours;

    if (!wait->req)
        return true;
    stg_lock_take(&lock);
    while (wait->answering)
        stg_lock_wait(&lock, &answered);
    ours = !wait->answered;
    if (wait->waits)
        unlink_locked(wait);
    stg_lock_drop(&lock);
    if (ours) /* waits for one that is in interrupted() */
        fuse_req_interrupt_func(wait->req, NULL, NULL);
    return ours;
}
