/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changes behind the mount, and what is seen of them through it.
 *
 *   coherence SOURCE MOUNT --mode watch|ttl|strict|frozen [OPTION...]
 *
 * Writers change the source at random, readers read the mount meanwhile, and each reading is held
 * against what is promised: what was seen was so at some time since
 *   watch   the slack before the reading (events are to be handled in that time)
 *   ttl     the ttl and the slack before it, where a file is opened or looked up
 *   strict  the reading's own begin, where a file is opened or looked up
 *   frozen  ever
 * and since the last sync in each. From time to time the writers pause, the mount is asked to sync,
 * and everything in it must be as in the source. Where a promise has a bound, the same is sometimes
 * done without a sync, when the bound is over. Ends with 1 where anything was wrong.
 *
 *   --seed N      what is drawn; the same seed makes the same changes only with one writer
 *   --edits N     changes in all; --round N between two syncs; --writers N, --readers N
 *   --pace US     the mean pause of a writer between two changes
 *   --ttl S       of the mount, with --mode ttl
 *   --slack S     for a machine that is busy
 *   --pagecache   of the mount, which then hears of no open: a file that is removed behind it may
 * be gone before who opened it has read it
 *   --control PATH  a stagectl, to stage and unstage meanwhile
 *   --without LIST  edits that are not made (coherence_edit.c has their names)
 *   --by-names    the source has no file handles: what has no name left there may be ESTALE, as on
 * NFS; and numbers in its lists, which GlusterFS takes from files before, are not compared
 *   --sync-timeout S
 *   --no-sync     for a mount that knows no sync: compares at once, or after the promise's bound
 *   --latency N   no stress: N times each, how long until a change shows; in ms
 *
 * Both directories are to be empty; the test leaves its files there.
 */
#include "coherence.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/ioctl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_AT_MOST = 16 };

struct stg_ch_settings stg_ch_settings = {
    .mode = -1,
    .slack_ns = 2000000000,
    .seed = 1,
    .edits = 3000,
    .round_edits = 300,
    .writers = 3,
    .readers = 3,
    .pace_us = 500,
    .sync_timeout_s = 60,
};
atomic_bool stg_ch_stop;
atomic_ulong stg_ch_reads, stg_ch_edits;

static const char *const modes[] = {"watch", "ttl", "strict", "frozen", NULL};
static unsigned long syncs;

int64_t stg_ch_now_ns(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* it has this clock */
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

uint64_t stg_ch_next(uint64_t *rng) { /* splitmix64 */
    uint64_t z = *rng += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t stg_ch_below(uint64_t *rng, uint64_t n) { return stg_ch_next(rng) % n; }

void stg_ch_die(const char *what) {
    printf("the test itself failed: %s: %s\n", what, strerror(errno));
    (void)fflush(stdout);
    _exit(2); /* other threads go on */
}

/* ---- sync ---- */

/* As in client/protocol.h, which this test does not need to be built with. */
struct sync_request {
    uint32_t version, flags;
    uint64_t ticket;
    uint32_t done, reserved;
};
#define IOC_SYNC _IOWR(0xF5, 9, struct sync_request)

static void wait_ns(int64_t ns) {
    struct timespec delay = {ns / 1000000000, ns % 1000000000};

    while (nanosleep(&delay, &delay) != 0)
        ;
}

static void sync_mount(void) {
    struct sync_request request = {.version = 1};
    int64_t begin = stg_ch_now_ns();
    double limit_ns = stg_ch_settings.sync_timeout_s * 1e9;

    while (ioctl(stg_ch_settings.mount, IOC_SYNC, &request) == 0 && !request.done) {
        if ((double)(stg_ch_now_ns() - begin) > limit_ns) {
            stg_ch_violation(-1, 0, "the sync did not end in %g s", limit_ns / 1e9);
            return;
        }
        wait_ns(1000000);
    }
    if (!request.done)
        stg_ch_die("sync");
    syncs++;
    stg_ch_synced(begin);
}

/* ---- rounds ---- */

static uint64_t stream_of(uint64_t *rng) { return stg_ch_next(rng); }

static void start(pthread_t *thread, void *(*body)(void *), void *argument) {
    errno = pthread_create(thread, NULL, body, argument);
    if (errno != 0)
        stg_ch_die("thread");
}

/* The writers' threads end with the round: that is the barrier. */
static void write_round(uint64_t *rng, struct stg_ch_writer *writers, unsigned long edits) {
    unsigned n = stg_ch_settings.writers;
    pthread_t threads[THREADS_AT_MOST];

    for (unsigned i = 0; i < n; i++) {
        writers[i].rng = stream_of(rng);
        writers[i].count = edits / n + (i < edits % n);
        start(&threads[i], stg_ch_write, &writers[i]);
    }
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(threads[i], NULL); /* joinable and ours: cannot fail */
}

static void compare_all(uint64_t *rng, const char *when, bool held) {
    pthread_mutex_lock(&stg_ch_through_lock);
    if (held && stg_ch_below(rng, 2))
        stg_ch_held_compare(rng, when);
    stg_ch_compare(rng, when);
    if (held)
        stg_ch_held_compare(rng, when);
    pthread_mutex_unlock(&stg_ch_through_lock);
}

/* What is promised without a sync, once its bound is over. */
static void check_bound(uint64_t *rng, unsigned long round) {
    const struct stg_ch_settings *s = &stg_ch_settings;

    if (s->mode == STG_CH_STRICT && round % 2)
        compare_all(rng, "without a sync", false);
    if (round % 8 != 1 || (s->mode != STG_CH_WATCH && s->mode != STG_CH_TTL))
        return;
    wait_ns(s->slack_ns + (s->mode == STG_CH_TTL ? s->ttl_ns : 0));
    compare_all(rng, "after the bound", s->mode == STG_CH_WATCH);
}

static void check_round(uint64_t *rng, unsigned long round) {
    check_bound(rng, round);
    if (!stg_ch_settings.no_sync)
        sync_mount();
    else if (stg_ch_settings.mode == STG_CH_TTL)
        wait_ns(stg_ch_settings.ttl_ns + 100000000);
    compare_all(rng, stg_ch_settings.no_sync ? "without a sync" : "after the sync", true);
}

static void run_rounds(uint64_t *rng) {
    struct stg_ch_writer writers[THREADS_AT_MOST] = {0};
    const struct stg_ch_settings *s = &stg_ch_settings;

    for (unsigned i = 0; i < s->writers; i++)
        if ((writers[i].data = malloc(STG_CH_ROOM_BYTES)) == NULL)
            stg_ch_die("memory");
    check_round(rng, 0);
    for (unsigned long done = 0, round = 1; done < s->edits; round++) {
        unsigned long edits = s->round_edits < s->edits - done ? s->round_edits : s->edits - done;

        write_round(rng, writers, edits);
        check_round(rng, round);
        done += edits;
    }
    for (unsigned i = 0; i < s->writers; i++)
        free(writers[i].data);
}

/* ---- staging meanwhile ---- */

extern char **environ;

static void run_control(char *const *words) {
    posix_spawn_file_actions_t actions;
    int status;
    pid_t pid;

    if (posix_spawn_file_actions_init(&actions) != 0)
        stg_ch_die("memory");
    /* What a file says that is gone meanwhile is nothing to report. */
    for (int fd = 0; fd < 3; fd++)
        (void)posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    if (posix_spawn(&pid, words[0], &actions, NULL, words, environ) != 0)
        stg_ch_die(words[0]);
    (void)waitpid(pid, &status, 0);
    (void)posix_spawn_file_actions_destroy(&actions);
}

static void *control(void *seed) {
    const char *words[][7] = {
        {"", "stage", "-r", stg_ch_settings.mount_path, NULL},
        {"", "stage", "-n", "-r", "-m", "prefetch", stg_ch_settings.mount_path},
        {"", "stage", "-r", "-m", "mmap", stg_ch_settings.mount_path, NULL},
        {"", "unstage", "-r", stg_ch_settings.mount_path, NULL},
        {"", "unstage", "-n", "-r", stg_ch_settings.mount_path, NULL},
        {"", "config", stg_ch_settings.mount_path, "mem=3M", "cold=1M", NULL},
        {"", "config", stg_ch_settings.mount_path, "mem=16M", "cold=4M", NULL},
    };
    uint64_t rng = (uint64_t)(uintptr_t)seed;

    while (!atomic_load(&stg_ch_stop)) {
        const char *run[8] = {NULL};

        memcpy(run, words[stg_ch_below(&rng, sizeof(words) / sizeof(*words))], sizeof(words[0]));
        run[0] = stg_ch_settings.control;
        run_control((char *const *)(uintptr_t)run);
        wait_ns(20000000 + (int64_t)stg_ch_below(&rng, 200000000));
    }
    return NULL;
}

/* ---- the stress ---- */

static void stress(void) {
    const struct stg_ch_settings *s = &stg_ch_settings;
    uint64_t rng = s->seed * UINT64_C(1000003);
    pthread_t threads[THREADS_AT_MOST + 2];
    unsigned n = 0;

    stg_ch_model_init(s->edits);
    if (mkdirat(s->source, "through", 0755) != 0)
        stg_ch_die("mkdir");
    stg_ch_populate(stream_of(&rng));
    for (; n < s->readers; n++)
        start(&threads[n], stg_ch_read, (void *)(uintptr_t)stream_of(&rng));
    if (!s->no_sync)
        sync_mount(); /* "through" is new, and the mount may be frozen */
    start(&threads[n++], stg_ch_work_through, (void *)(uintptr_t)stream_of(&rng));
    if (s->control != NULL)
        start(&threads[n++], control, (void *)(uintptr_t)stream_of(&rng));
    run_rounds(&rng);
    atomic_store(&stg_ch_stop, true);
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
}

static void print_result(void) {
    const struct stg_ch_settings *s = &stg_ch_settings;
    unsigned long violations = atomic_load(&stg_ch_violations);

    printf("# seed %llu, torn blocks %lu, gone %lu", (unsigned long long)s->seed,
           atomic_load(&stg_ch_torn), atomic_load(&stg_ch_gone));
    if (s->mode != STG_CH_FROZEN)
        printf(", latest: names %.1f ms, contents %.1f ms",
               (double)atomic_load(&stg_ch_late_names_ns) / 1e6,
               (double)atomic_load(&stg_ch_late_bytes_ns) / 1e6);
    printf("\n%s%s: %lu edits, %lu reads, %lu syncs, %lu violations\n", modes[s->mode],
           s->pagecache ? " pagecache" : "", atomic_load(&stg_ch_edits), atomic_load(&stg_ch_reads),
           syncs, violations);
}

/* ---- latency ---- */

enum { LATENCY_KINDS = 4, LATENCY_LIMIT_S = 30 };
static const char *const latency_kinds[LATENCY_KINDS] = {"content", "size", "new name",
                                                         "removed name"};

static void latency_change(unsigned kind, unsigned long i) {
    static const int flags = O_WRONLY | O_CREAT | O_CLOEXEC;
    const char *path = kind < 2 ? "known" : "comes";
    bool ok = true;
    int fd;

    if (kind == 3) {
        ok = unlinkat(stg_ch_settings.source, path, 0) == 0;
    } else {
        fd = openat(stg_ch_settings.source, path, flags | (kind == 1 ? O_APPEND : 0), 0644);
        ok = fd >= 0 && pwrite(fd, &i, sizeof(i), 0) == sizeof(i);
        (void)close(fd);
    }
    if (!ok)
        stg_ch_die("change of the source");
}

static bool latency_shows(unsigned kind, unsigned long i) {
    const char *path = kind < 2 ? "known" : "comes";
    unsigned long got = ULONG_MAX;
    struct stat st;
    int fd;

    if (kind == 0) {
        fd = openat(stg_ch_settings.mount, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, &got, sizeof(got), 0) != sizeof(got))
            stg_ch_die("read of the mount");
        (void)close(fd);
        return got == i;
    }
    if (fstatat(stg_ch_settings.mount, path, &st, 0) != 0)
        return kind == 3;
    /* A write to a file that is open to append goes to its end. */
    return kind == 2 || (kind == 1 && st.st_size == (off_t)((i + 1) * sizeof(i)));
}

static int by_value(const void *one, const void *other) {
    const int64_t *a = one, *b = other;

    return (*a > *b) - (*a < *b);
}

static void print_latency(const char *kind, int64_t *values, unsigned long n) {
    qsort(values, n, sizeof(*values), by_value);
    printf("%-12s  p50 %8.3f  p99 %8.3f  max %8.3f ms\n", kind, (double)values[n / 2] / 1e6,
           (double)values[(n * 99) / 100] / 1e6, (double)values[n - 1] / 1e6);
}

/* False where it never showed. */
static bool measure_once(unsigned kind, unsigned long i, int64_t *ret_ns) {
    int64_t begin, now;

    (void)latency_shows(kind, ULONG_MAX - 1); /* is known before */
    wait_ns(2000000);
    (void)latency_shows(kind, ULONG_MAX - 1);
    begin = stg_ch_now_ns();
    latency_change(kind, i);
    do {
        bool shows = latency_shows(kind, i);

        now = stg_ch_now_ns();
        if (shows) {
            *ret_ns = now - begin;
            return true;
        }
        wait_ns(20000); /* else the daemon may wait a tick for this processor */
    } while (now - begin < LATENCY_LIMIT_S * INT64_C(1000000000));
    printf("%s: change %lu did not show in %d s\n", latency_kinds[kind], i, LATENCY_LIMIT_S);
    atomic_fetch_add(&stg_ch_violations, 1);
    return false;
}

static void measure_latency(void) {
    unsigned long n = stg_ch_settings.latency;
    int64_t *values[LATENCY_KINDS];

    latency_change(0, 0);
    if (!stg_ch_settings.no_sync)
        sync_mount();
    for (unsigned kind = 0; kind < LATENCY_KINDS; kind++)
        if ((values[kind] = calloc(n, sizeof(int64_t))) == NULL)
            stg_ch_die("memory");
    for (unsigned long i = 0; i < n; i++)
        for (unsigned kind = 0; kind < LATENCY_KINDS; kind++)
            if (!measure_once(kind, i + 1, &values[kind][i]))
                return;
    for (unsigned kind = 0; kind < LATENCY_KINDS; kind++) {
        print_latency(latency_kinds[kind], values[kind], n);
        free(values[kind]);
    }
}

/* ---- options ---- */

static const struct option options[] = {
    {"mode", required_argument, NULL, 'm'},
    {"ttl", required_argument, NULL, 't'},
    {"seed", required_argument, NULL, 's'},
    {"edits", required_argument, NULL, 'e'},
    {"round", required_argument, NULL, 'r'},
    {"writers", required_argument, NULL, 'w'},
    {"readers", required_argument, NULL, 'R'},
    {"pace", required_argument, NULL, 'p'},
    {"slack", required_argument, NULL, 'S'},
    {"pagecache", no_argument, NULL, 'P'},
    {"latency", required_argument, NULL, 'l'},
    {"control", required_argument, NULL, 'c'},
    {"without", required_argument, NULL, 'x'},
    {"sync-timeout", required_argument, NULL, 'T'},
    {"no-sync", no_argument, NULL, 'n'},
    {"by-names", no_argument, NULL, 'N'},
    {0},
};

static int mode_of(const char *word) {
    for (int i = 0; modes[i] != NULL; i++)
        if (strcmp(word, modes[i]) == 0)
            return i;
    return -1;
}

static bool take(int letter, const char *word) {
    struct stg_ch_settings *s = &stg_ch_settings;
    unsigned long number = word != NULL ? strtoul(word, NULL, 10) : 0;
    int64_t ns = word != NULL ? (int64_t)(strtod(word, NULL) * 1e9) : 0;

    switch (letter) {
    case 'm':
        s->mode = mode_of(word);
        return s->mode >= 0;
    case 't':
        s->ttl_ns = ns;
        return true;
    case 's':
        s->seed = number;
        return true;
    case 'e':
        s->edits = number;
        return true;
    case 'r':
        s->round_edits = number;
        return number > 0;
    case 'w':
        s->writers = (unsigned)number;
        return number > 0 && number <= THREADS_AT_MOST;
    case 'R':
        s->readers = (unsigned)number;
        return number <= THREADS_AT_MOST;
    case 'p':
        s->pace_us = (unsigned)number;
        return true;
    case 'S':
        s->slack_ns = ns;
        return true;
    case 'P':
        s->pagecache = true;
        return true;
    case 'l':
        s->latency = number;
        return number > 0;
    case 'c':
        s->control = word;
        return true;
    case 'x':
        s->without = word;
        return true;
    case 'T':
        s->sync_timeout_s = strtod(word, NULL);
        return true;
    case 'n':
        s->no_sync = true;
        return true;
    case 'N':
        s->by_names = true;
        return true;
    default:
        return false;
    }
}

static int open_top(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        stg_ch_die(path);
    return fd;
}

int main(int argc, char **argv) {
    struct stg_ch_settings *s = &stg_ch_settings;
    bool right = true;
    int letter;

    while ((letter = getopt_long(argc, argv, "", options, NULL)) >= 0)
        right = right && take(letter, optarg);
    if (!right || optind + 2 != argc || s->mode < 0) {
        fprintf(stderr, "usage: coherence SOURCE MOUNT --mode watch|ttl|strict|frozen [--ttl S]\n"
                        "       [--seed N] [--edits N] [--round N] [--writers N] [--readers N]\n"
                        "       [--pace US] [--slack S] [--pagecache] [--control STAGECTL]\n"
                        "       [--without EDIT,...] [--sync-timeout S] [--no-sync] [--by-names]\n"
                        "       [--latency N]\n");
        return 2;
    }
    (void)umask(022);
    s->source_path = argv[optind];
    s->mount_path = argv[optind + 1];
    s->source = open_top(s->source_path);
    s->mount = open_top(s->mount_path);
    if (s->latency > 0) {
        measure_latency();
        return atomic_load(&stg_ch_violations) > 0;
    }
    stress();
    print_result();
    return atomic_load(&stg_ch_violations) > 0;
}
