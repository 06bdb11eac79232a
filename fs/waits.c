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
static pthread_cond_t over = PTHREAD_COND_INITIALIZER; /* the use of one by the sweeper */
static struct stg_wait *first;                         /* protected by lock, as all below */
static unsigned interrupted_count;                     /* of them */
static bool timing;     /* the sweeper goes round, for those that come, too */
static unsigned sweeps; /* that were begun */

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
    if (!timing && stg_fs.options.source_timeout_s > 0) {
        timing = true;
        stg_sweeper_wake_locked(&sweeper);
    } else if (wait->interrupted && interrupted_count == 1) {
        stg_sweeper_wake_locked(&sweeper);
    }
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

static bool is_late(const struct stg_wait *wait, int64_t now_ns) {
    int64_t timeout_ns = (int64_t)(stg_fs.options.source_timeout_s * 1e9);

    return timeout_ns && now_ns - wait->begun_ns >= timeout_ns;
}

/* Drops the lock while that is looked up; the wait stays until it is known. */
static bool is_ending_locked(struct stg_wait *wait) {
    pid_t thread = fuse_req_ctx(wait->req)->pid;
    bool ending;

    wait->used = true;
    stg_lock_drop(&lock);
    ending = is_ending(thread);
    stg_lock_take(&lock);
    wait->used = false;
    (void)pthread_cond_broadcast(&over); /* cannot fail */
    return ending;
}

/* The same while it is answered; it is out of the list then. */
static void answer_locked(struct stg_wait *wait, int error) {
    unlink_locked(wait);
    wait->used = true;
    stg_lock_drop(&lock);
    fuse_req_interrupt_func(wait->req, NULL, NULL);
    (void)fuse_reply_err(wait->req, error); /* nothing to undo */
    stg_lock_take(&lock);
    wait->used = false;
    wait->answered = true;
    (void)pthread_cond_broadcast(&over); /* cannot fail */
}

static bool has_work(void) { return timing || interrupted_count; }

/* Whoever was answered may be gone, and the list another: from the front, past those seen. */
static void sweep_locked(void) {
    int64_t now_ns = stg_clock_monotonic_ns();
    bool answers;

    timing = first && stg_fs.options.source_timeout_s > 0;
    sweeps++;
    for (struct stg_wait *wait = first; wait; wait = answers ? first : wait->next) {
        int error = 0;

        if (wait->sweep != sweeps) {
            wait->sweep = sweeps;
            if (is_late(wait, now_ns))
                error = ETIMEDOUT;
            else if (wait->interrupted && is_ending_locked(wait))
                error = EINTR;
        }
        answers = error;
        if (answers)
            answer_locked(wait, error);
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
    while (wait->used)
        stg_lock_wait(&lock, &over);
    ours = !wait->answered;
    if (wait->waits)
        unlink_locked(wait);
    stg_lock_drop(&lock);
    if (ours) /* waits for one that is in interrupted() */
        fuse_req_interrupt_func(wait->req, NULL, NULL);
    return ours;
}
