/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the descriptors that tell of pressure, and the thread that waits for them. Knows nothing of
 * caches: what is done is the owner's, how much the pure functions below say.
 *
 * Two places are watched. Our own cgroup (version 2), since it can be short of memory where the
 * machine is not. And the machine, since it can be short of memory because of what we keep while
 * we wait for nothing ourselves. The machine's stalls include those of other cgroups at their own
 * limits, which are no affair of ours, so there we look first whether little is available.
 *
 * No locks: the thread alone has everything but `stop`.
 */
#include "cache/pressure.h"

#include "util/clock.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#define QUIET_MS 10000U
#define POLL_MS 1000U
#define NS_PER_MS INT64_C(1000000)
/* What is called compresses on the stack, too. */
#define STACK_BYTES ((size_t)1 << 20)

/* Of the limit; the machine's stalls are ours where less is available. */
#define SHORT_PART 8
#define SOME_PART 16
#define FULL_PART 32

/* Stalls of the first length, in µs, within a window of the second. */
struct threshold {
    unsigned level;
    const char *words;
    const char *unprivileged;
};

/*
 * Without CAP_SYS_RESOURCE the window must be a multiple of 2 s (Linux 6.5, commit d82caa273565;
 * before, there is none).
 */
static const struct threshold thresholds[] = {
    {STG_PRESSURE_SOME, "some 150000 1000000", "some 300000 2000000"},
    {STG_PRESSURE_FULL, "full 100000 1000000", "full 200000 2000000"},
};
#define THRESHOLDS (sizeof(thresholds) / sizeof(thresholds[0]))

struct trigger {
    int fd; /* -1: none */
    unsigned level;
    bool whole_machine;
};
#define TRIGGERS (2 * THRESHOLDS)

struct stg_pressure {
    struct stg_pressure_config config; /* constant */
    int stop;                          /* an eventfd */
    pthread_t thread;
    bool started;
    const char *source; /* constant, as what is below but for the thread */
    struct trigger triggers[TRIGGERS];
    unsigned trigger_count;
    struct stg_pressure_rest rest;
    int64_t next_look_ns; /* where there are no triggers */
};

/* ---- what is decided ---- */

unsigned stg_pressure_level(const struct stg_memory *memory) {
    if (memory->limit_bytes == UINT64_MAX || memory->available_bytes == UINT64_MAX)
        return STG_PRESSURE_NONE;
    if (memory->available_bytes < memory->limit_bytes / FULL_PART)
        return STG_PRESSURE_FULL;
    return memory->available_bytes < memory->limit_bytes / SOME_PART ? STG_PRESSURE_SOME
                                                                     : STG_PRESSURE_NONE;
}

uint64_t stg_pressure_shrunk(uint64_t limit_bytes, uint64_t used_bytes, uint64_t floor_bytes,
                             unsigned level) {
    uint64_t shrunk = used_bytes;

    for (; level; level--)
        shrunk -= shrunk / 4;
    if (shrunk < floor_bytes)
        shrunk = floor_bytes;
    return shrunk < limit_bytes ? shrunk : limit_bytes;
}

uint64_t stg_pressure_regrown(uint64_t limit_bytes, uint64_t configured_bytes) {
    uint64_t step_bytes = configured_bytes / 8 ? configured_bytes / 8 : 1;

    if (limit_bytes >= configured_bytes || configured_bytes - limit_bytes <= step_bytes)
        return configured_bytes;
    return limit_bytes + step_bytes;
}

void stg_pressure_rest_begin(struct stg_pressure_rest *rest, int64_t now_ns, unsigned quiet_ms) {
    *rest = (struct stg_pressure_rest){.awaited = true, .due_ns = now_ns + quiet_ms * NS_PER_MS};
}

bool stg_pressure_rest_is_due(const struct stg_pressure_rest *rest, int64_t now_ns) {
    return rest->awaited && now_ns >= rest->due_ns;
}

static int wait_ms(int64_t due_ns, int64_t now_ns) {
    int64_t ms = (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;

    if (due_ns <= now_ns)
        return 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

int stg_pressure_rest_wait_ms(const struct stg_pressure_rest *rest, int64_t now_ns) {
    return rest->awaited ? wait_ms(rest->due_ns, now_ns) : -1;
}

/* ---- triggers ---- */

/* A descriptor that has POLLPRI when the threshold is passed, or -errno. */
static int open_trigger(const char *path, const char *words) {
    stg_auto_fd int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (write(fd, words, strlen(words) + 1) < 0) /* the NUL belongs to it */
        return -errno;
    return stg_fd_steal(&fd);
}

static void add_triggers(struct stg_pressure *pressure, const char *path, bool whole_machine) {
    for (size_t i = 0; i < THRESHOLDS; i++) {
        int fd = open_trigger(path, thresholds[i].words);

        if (fd == -EINVAL || fd == -EPERM)
            fd = open_trigger(path, thresholds[i].unprivileged);
        if (fd < 0) {
            stg_debug("%s: %s: %s", path, thresholds[i].words, strerror(-fd));
            continue;
        }
        pressure->triggers[pressure->trigger_count++] =
            (struct trigger){fd, thresholds[i].level, whole_machine};
    }
}

static void add_own_triggers(struct stg_pressure *pressure) {
    char folder[PATH_MAX - 32]; /* with room for the names below */
    char path[PATH_MAX];

    if (stg_memory_cgroup_path("", folder, sizeof(folder)))
        return;
    /* The root cgroup is the machine, and has no such file (cgroup-v2.rst, "Core Interface"). */
    (void)snprintf(path, sizeof(path), "%s/cgroup.events", folder);
    if (access(path, F_OK))
        return;
    (void)snprintf(path, sizeof(path), "%s/memory.pressure", folder);
    add_triggers(pressure, path, false);
}

static void find_triggers(struct stg_pressure *pressure) {
    if (pressure->config.no_psi || *pressure->config.root)
        return;
    add_own_triggers(pressure);
    add_triggers(pressure, "/proc/pressure/memory", true);
}

static bool is_short(const struct stg_pressure *pressure) {
    struct stg_memory memory;

    if (stg_memory_read(pressure->config.root, &memory))
        return true; /* what the kernel said stands */
    return memory.available_bytes < memory.limit_bytes / SHORT_PART;
}

/* What the kernel tells of one trigger. */
static unsigned ask_trigger(const struct stg_pressure *pressure, struct trigger *trigger,
                            short events) {
    if (events & (POLLERR | POLLNVAL)) { /* its cgroup is gone */
        stg_fd_close(trigger->fd);
        trigger->fd = -1;
        return STG_PRESSURE_NONE;
    }
    if (!(events & POLLPRI) || (trigger->whole_machine && !is_short(pressure)))
        return STG_PRESSURE_NONE;
    return trigger->level;
}

/* The tests' own trigger: an eventfd, whose value is the level. */
static unsigned ask_test(int fd) {
    uint64_t level;

    return read(fd, &level, sizeof(level)) == sizeof(level) ? (unsigned)level : STG_PRESSURE_NONE;
}

/* ---- the thread ---- */

static bool has_triggers(const struct stg_pressure *pressure) {
    if (pressure->config.trigger)
        return true;
    for (unsigned i = 0; i < pressure->trigger_count; i++)
        if (pressure->triggers[i].fd >= 0)
            return true;
    return false;
}

static int time_to_wait_ms(const struct stg_pressure *pressure, int64_t now_ns) {
    int rest_ms = stg_pressure_rest_wait_ms(&pressure->rest, now_ns);
    int look_ms = wait_ms(pressure->next_look_ns, now_ns);

    if (has_triggers(pressure))
        return rest_ms;
    return rest_ms >= 0 && rest_ms < look_ms ? rest_ms : look_ms;
}

/* Where nobody tells us. */
static unsigned look(struct stg_pressure *pressure, int64_t now_ns) {
    struct stg_memory memory;

    if (now_ns < pressure->next_look_ns)
        return STG_PRESSURE_NONE;
    pressure->next_look_ns = now_ns + pressure->config.poll_ms * NS_PER_MS;
    if (stg_memory_read(pressure->config.root, &memory))
        return STG_PRESSURE_NONE;
    return stg_pressure_level(&memory);
}

/* Waits for what is next; false at the end. */
static bool wait_for_level(struct stg_pressure *pressure, unsigned *ret_level) {
    struct pollfd polled[2 + TRIGGERS] = {
        {.fd = pressure->stop, .events = POLLIN},
        {.fd = pressure->config.trigger ? pressure->config.trigger : -1, .events = POLLIN}};
    unsigned level = STG_PRESSURE_NONE;

    for (unsigned i = 0; i < pressure->trigger_count; i++)
        polled[2 + i] = (struct pollfd){.fd = pressure->triggers[i].fd, .events = POLLPRI};
    *ret_level = STG_PRESSURE_NONE;
    if (poll(polled, 2 + pressure->trigger_count,
             time_to_wait_ms(pressure, stg_clock_monotonic_ns())) < 0)
        return true; /* interrupted */
    if (polled[0].revents)
        return false;
    if (polled[1].revents)
        level = ask_test(pressure->config.trigger);
    for (unsigned i = 0; i < pressure->trigger_count; i++) {
        unsigned more = ask_trigger(pressure, &pressure->triggers[i], polled[2 + i].revents);

        level = level > more ? level : more;
    }
    *ret_level = has_triggers(pressure) ? level : look(pressure, stg_clock_monotonic_ns());
    return true;
}

static void *watch(void *argument) {
    struct stg_pressure *pressure = argument;
    const struct stg_pressure_config *config = &pressure->config;
    unsigned level;

    while (wait_for_level(pressure, &level)) {
        if (level) {
            config->shrink(config->context, level);
            stg_pressure_rest_begin(&pressure->rest, stg_clock_monotonic_ns(), config->quiet_ms);
        } else if (stg_pressure_rest_is_due(&pressure->rest, stg_clock_monotonic_ns())) {
            pressure->rest.awaited = config->relaxed(config->context);
            if (pressure->rest.awaited)
                stg_pressure_rest_begin(&pressure->rest, stg_clock_monotonic_ns(),
                                        config->quiet_ms);
        }
    }
    return NULL;
}

/* ---- beginning and end ---- */

static int start(struct stg_pressure *pressure) {
    pthread_attr_t attributes;
    int error;

    pressure->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pressure->stop < 0)
        return -errno;
    (void)pthread_attr_init(&attributes); /* these cannot fail with valid arguments */
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    error = pthread_create(&pressure->thread, &attributes, watch, pressure);
    (void)pthread_attr_destroy(&attributes);
    pressure->started = !error;
    return -error;
}

int stg_pressure_new(const struct stg_pressure_config *config, struct stg_pressure **ret_pressure) {
    struct stg_pressure *pressure = calloc(1, sizeof(*pressure));
    int error;

    if (!pressure)
        return -ENOMEM;
    pressure->config = *config;
    if (!config->quiet_ms)
        pressure->config.quiet_ms = QUIET_MS;
    if (!config->poll_ms)
        pressure->config.poll_ms = POLL_MS;
    pressure->stop = -1;
    if (!config->trigger)
        find_triggers(pressure);
    pressure->source = has_triggers(pressure) ? "psi" : "meminfo";
    error = start(pressure);
    if (error) {
        stg_pressure_free(pressure);
        return error;
    }
    *ret_pressure = pressure;
    return 0;
}

void stg_pressure_free(struct stg_pressure *pressure) {
    static const uint64_t one = 1;

    if (!pressure)
        return;
    if (pressure->started) {
        (void)!write(pressure->stop, &one, sizeof(one)); /* cannot fail: it is 0 until now */
        (void)pthread_join(pressure->thread, NULL);      /* ours, and joined once */
    }
    for (unsigned i = 0; i < pressure->trigger_count; i++)
        stg_fd_close(pressure->triggers[i].fd);
    stg_fd_close(pressure->stop);
    free(pressure);
}

const char *stg_pressure_source(const struct stg_pressure *pressure) { return pressure->source; }
