/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the settings that a test may change while it runs, the two queues (of the server where it
 * is serial, of the line where it has a bandwidth) and the counts. One lock, never held over a wait
 * for time: an operation books its place in a queue and sleeps until then.
 */
#include "delay.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define NS_PER_S 1000000000
#define ERRNO_MAX 133
#define LOOK_AGAIN_MS 50 /* for an interrupt or the end, while held at a gate */

static const char *const names[SLOW_OPERATIONS] = {
    "lookup", "getattr", "readlink", "open",   "read",    "write", "readdir",
    "create", "mkdir",   "unlink",   "rename", "setattr", "other",
};

static struct {
    struct slow_settings settings;
    struct fuse_session *session;
    pthread_mutex_t lock; /* protects all below, and the settings' numbers */
    pthread_cond_t changed;
    int fail[SLOW_OPERATIONS];        /* an errno */
    long fail_times[SLOW_OPERATIONS]; /* how often yet; below 0: always */
    bool gated[SLOW_OPERATIONS];
    long short_bytes;
    int64_t server_free_ns;
    int64_t line_free_ns;
    unsigned long counts[SLOW_OPERATIONS];
    unsigned long operations; /* since the control file was read */
    unsigned long bytes[SLOW_OPERATIONS];
    unsigned long controls; /* times that the control file was read */
    unsigned at_gate;
    unsigned waiting; /* operations that are delayed or held now */
    unsigned most_waiting;
} slow = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* ---- control ---- */

/* `text` up to its colon or end names an operation, in either case; -1: none. */
static int operation_of(const char *text) {
    size_t length = strcspn(text, ":");

    for (int i = 0; i < SLOW_OPERATIONS; i++)
        if (strlen(names[i]) == length && !strncasecmp(names[i], text, length))
            return i;
    fprintf(stderr, "slowfs: no operation is called \"%.*s\"\n", (int)length, text);
    return -1;
}

/* "EIO" or "5". */
static int errno_of(const char *text) {
    size_t length = strcspn(text, ":");

    for (int i = 1; i <= ERRNO_MAX; i++) {
        const char *name = strerrorname_np(i);

        if (name && strlen(name) == length && !strncasecmp(name, text, length))
            return i;
    }
    return atoi(text);
}

static void set_fail_locked(const char *text) {
    int operation = operation_of(text);
    const char *error = strchr(text, ':');
    const char *times = error ? strchr(error + 1, ':') : NULL;

    if (operation < 0)
        return;
    slow.fail[operation] = error ? errno_of(error + 1) : EIO;
    slow.fail_times[operation] = times ? atol(times + 1) : -1;
}

static void set_gate_locked(const char *text) {
    int operation = operation_of(text);

    if (operation >= 0)
        slow.gated[operation] = true;
}

static void apply_word_locked(const char *word) {
    if (sscanf(word, "latency_us=%ld", &slow.settings.latency_us) == 1 ||
        sscanf(word, "bandwidth=%ld", &slow.settings.bandwidth) == 1 ||
        sscanf(word, "error_after=%ld", &slow.settings.error_after) == 1 ||
        sscanf(word, "short=%ld", &slow.short_bytes) == 1)
        return;
    if (!strncmp(word, "fail=", 5))
        set_fail_locked(word + 5);
    else if (!strncmp(word, "gate=", 5))
        set_gate_locked(word + 5);
    else if (!strcmp(word, "gate"))
        slow.gated[SLOW_READ] = true;
    else
        fprintf(stderr, "slowfs: \"%s\" means nothing in a control file\n", word);
}

/* What the file does not say any more is off again; the numbers keep their last value. */
static void read_control(void) {
    FILE *file = slow.settings.control ? fopen(slow.settings.control, "re") : NULL;
    char word[128];

    pthread_mutex_lock(&slow.lock);
    memset(slow.fail, 0, sizeof(slow.fail));
    memset(slow.gated, 0, sizeof(slow.gated));
    slow.short_bytes = 0;
    slow.operations = 0;
    while (file && fscanf(file, " %127[^ ,\n\t]%*[,]", word) >= 1)
        apply_word_locked(word);
    slow.controls++;
    pthread_cond_broadcast(&slow.changed);
    pthread_mutex_unlock(&slow.lock);
    if (file)
        (void)fclose(file); /* was only read */
}

/* ---- statistics ---- */

static void print_locked(FILE *file) {
    fprintf(file, "{");
    for (int i = 0; i < SLOW_OPERATIONS; i++)
        fprintf(file, "\"%s\": %lu, ", names[i], slow.counts[i]);
    fprintf(file, "\"read_bytes\": %lu, \"written_bytes\": %lu, ", slow.bytes[SLOW_READ],
            slow.bytes[SLOW_WRITE]);
    fprintf(file, "\"at_gate\": %u, \"waiting\": %u, \"most_waiting\": %u, \"controls\": %lu}\n",
            slow.at_gate, slow.waiting, slow.most_waiting, slow.controls);
}

void slow_delay_report(void) {
    char temporary[4096];
    FILE *file;

    if (!slow.settings.stats)
        return;
    (void)snprintf(temporary, sizeof(temporary), "%s.new", slow.settings.stats);
    file = fopen(temporary, "we");
    if (!file)
        return;
    pthread_mutex_lock(&slow.lock);
    print_locked(file);
    pthread_mutex_unlock(&slow.lock);
    if (!fclose(file))
        (void)rename(temporary, slow.settings.stats); /* whoever reads it polls for it */
}

static void *take_signals(void *argument) {
    sigset_t set;
    int number;

    (void)argument;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    while (!sigwait(&set, &number)) {
        if (number == SIGHUP)
            read_control();
        slow_delay_report();
    }
    return NULL;
}

int slow_delay_start(const struct slow_settings *settings, struct fuse_session *session) {
    pthread_t thread;
    int error;

    slow.settings = *settings;
    slow.session = session;
    read_control();
    error = pthread_create(&thread, NULL, take_signals, NULL);
    if (!error)
        error = pthread_detach(thread);
    return -error;
}

/* ---- delay ---- */

static int64_t now_ns(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void sleep_until(int64_t ns) {
    struct timespec until = {ns / NS_PER_S, ns % NS_PER_S};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Books `cost_ns` in a queue; when it is done. */
static int64_t book_locked(int64_t *free_ns, int64_t cost_ns) {
    int64_t now = now_ns();

    if (*free_ns < now)
        *free_ns = now;
    *free_ns += cost_ns;
    return *free_ns;
}

/* Holds the operation while it is gated. One that is interrupted, or still held when the session
 * ends, goes: else neither its caller nor slowfs could be killed. */
static int wait_at_gate_locked(enum slow_operation operation, fuse_req_t req) {
    int error = 0;

    slow.at_gate++;
    while (slow.gated[operation] && !error) {
        struct timespec until;

        (void)clock_gettime(CLOCK_REALTIME, &until); /* cannot fail; what the condition counts in */
        until.tv_nsec += LOOK_AGAIN_MS * 1000000;
        until.tv_sec += until.tv_nsec / NS_PER_S;
        until.tv_nsec %= NS_PER_S;
        (void)pthread_cond_timedwait(&slow.changed, &slow.lock,
                                     &until); /* both ends are looked at */
        if (fuse_session_exited(slow.session) || fuse_req_interrupted(req))
            error = -EINTR;
    }
    slow.at_gate--;
    return error;
}

static int failure_locked(enum slow_operation operation) {
    slow.operations++;
    if (slow.settings.error_after && slow.operations > (unsigned long)slow.settings.error_after)
        return -EIO;
    if (!slow.fail[operation] || !slow.fail_times[operation])
        return 0;
    if (slow.fail_times[operation] > 0)
        slow.fail_times[operation]--;
    return -slow.fail[operation];
}

static int64_t arrive(enum slow_operation operation) {
    int64_t until = 0;
    int64_t latency_ns;

    pthread_mutex_lock(&slow.lock);
    slow.counts[operation]++;
    if (++slow.waiting > slow.most_waiting)
        slow.most_waiting = slow.waiting;
    latency_ns = (int64_t)slow.settings.latency_us * 1000;
    if (latency_ns)
        until = slow.settings.serial ? book_locked(&slow.server_free_ns, latency_ns)
                                     : now_ns() + latency_ns;
    pthread_mutex_unlock(&slow.lock);
    return until;
}

int slow_delay_begin(enum slow_operation operation, fuse_req_t req) {
    int64_t until = arrive(operation);
    int error = 0;

    if (until)
        sleep_until(until);
    pthread_mutex_lock(&slow.lock);
    if (slow.gated[operation])
        error = wait_at_gate_locked(operation, req);
    if (!error)
        error = failure_locked(operation);
    slow.waiting--;
    pthread_mutex_unlock(&slow.lock);
    return error;
}

size_t slow_delay_limit(size_t bytes) {
    size_t limit;

    pthread_mutex_lock(&slow.lock);
    limit = (size_t)slow.short_bytes;
    pthread_mutex_unlock(&slow.lock);
    return limit && limit < bytes ? limit : bytes;
}

void slow_delay_transfer(enum slow_operation operation, size_t bytes) {
    int64_t until = 0;

    pthread_mutex_lock(&slow.lock);
    slow.bytes[operation] += bytes;
    if (slow.settings.bandwidth && bytes)
        until = book_locked(&slow.line_free_ns,
                            (int64_t)((double)bytes / (double)slow.settings.bandwidth * NS_PER_S));
    pthread_mutex_unlock(&slow.lock);
    if (until)
        sleep_until(until);
}
