/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A long random sequence of operations, done on the mount and on a plain directory alike.
 *
 *   random [--seed N] [--steps N] [--threads N] [--only THREAD] [--phase NAME] [--trace] [--check]
 *          [--source DIR] MOUNT PLAIN
 *
 * MOUNT and PLAIN are empty directories, PLAIN on the file system of the mount's source. Three
 * phases:
 *   private  each thread has a tree of its own; each step's results are compared at once, the trees
 *            at the end. Repeatable: the seed and the thread's number decide every step.
 *   shared   the threads work on the same files and directories, with operations whose outcome
 *            does not depend on the order (own stripes of one file, records appended to one log,
 *            own names in one directory); results and final trees are compared.
 *   chaos    anything goes, in one directory of the mount only: no error that a race cannot
 *            explain, and the tree seen through the mount must be the source's at the end.
 *
 * --only, --trace (prints each step) and --check (compares the trees after each step, with --only)
 * are for finding out what went wrong. Prints the seed first, then TAP. The operations are in
 * random_ops.c.
 */
#include "random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { THREADS_AT_MOST = 32, STRIPE_BYTES = 4096, STRIPES_EACH = 16, RECORD_BYTES = 32 };

struct settings {
    uint64_t seed;
    unsigned long steps;
    unsigned threads;
    int only; /* -1: all threads */
    const char *phase;
    bool trace;
    bool check;
    int top[RT_SIDES];
    int source; /* -1 when not given */
};

static unsigned cases, failed_cases;

static void result(bool ok, const char *name) {
    cases++;
    failed_cases += !ok;
    printf("%sok %u - %s\n", ok ? "" : "not ", cases, name);
}

static void die(const char *what) {
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(2);
}

static int open_dir(int at, const char *name) {
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die(name);
    return fd;
}

static int make_dir(int at, const char *name) {
    if (mkdirat(at, name, 0755) != 0)
        die(name);
    return open_dir(at, name);
}

/* ---- threads ---- */

static struct rt_runner *runner_new(const struct settings *s, unsigned id, uint64_t stream) {
    struct rt_runner *r = calloc(1, sizeof(*r));
    if (r == NULL)
        die("memory");
    uint64_t mix = s->seed;
    r->rng = stg_rt_next(&mix) ^ (stream * 1000003 + id);
    r->id = id;
    r->steps = s->steps;
    r->trace_all = s->trace;
    r->check_all = s->check;
    r->buffer[0] = aligned_alloc(4096, RT_BUFFER_BYTES);
    r->buffer[1] = aligned_alloc(4096, RT_BUFFER_BYTES);
    r->data = aligned_alloc(4096, RT_BUFFER_BYTES);
    if (r->buffer[0] == NULL || r->buffer[1] == NULL || r->data == NULL)
        die("memory");
    return r;
}

static void runner_free(struct rt_runner *r) {
    free(r->buffer[0]);
    free(r->buffer[1]);
    free(r->data);
    free(r->report);
    free(r);
}

/* Runs all threads of one phase to their end; says whether none failed. */
static bool run_threads(const struct settings *s, const char *phase, struct rt_runner **runners,
                        void *(*body)(void *)) {
    pthread_t threads[THREADS_AT_MOST];
    unsigned long done = 0, succeeded = 0;
    bool ok = true;
    for (unsigned i = 0; i < s->threads; i++)
        if (runners[i] != NULL &&
            (errno = pthread_create(&threads[i], NULL, body, runners[i])) != 0)
            die("thread");
    for (unsigned i = 0; i < s->threads; i++) {
        if (runners[i] == NULL)
            continue;
        (void)pthread_join(threads[i], NULL); /* joinable and ours: cannot fail */
        done += runners[i]->done;
        succeeded += runners[i]->succeeded;
        if (runners[i]->failed) {
            ok = false;
            for (char *line = strtok(runners[i]->report, "\n"); line; line = strtok(NULL, "\n"))
                printf("# %s\n", line);
            printf("# again: --seed %llu --phase %s%s\n", (unsigned long long)s->seed, phase,
                   strcmp(phase, "private") == 0 ? " --only THREAD" : "");
        }
    }
    printf("# %s: %lu steps, of which %lu succeeded\n", phase, done, succeeded);
    return ok;
}

static void compare(const char *name, int a, int b, const struct rt_compare *how) {
    unsigned long objects, differences = stg_rt_compare_trees(name, a, b, how, &objects);
    printf("# %s: %lu objects\n", name, objects);
    result(differences == 0, name);
}

/* The mount's view of one of its directories against the source's own. */
static void compare_source(const struct settings *s, const char *name, int mount, const char *dir) {
    static const struct rt_compare how = {.exact = true};
    if (s->source < 0)
        return;
    int fd = open_dir(s->source, dir);
    compare(name, mount, fd, &how);
    (void)close(fd);
}

/* ---- private trees ---- */

static void *private_body(void *arg) {
    stg_rt_run(arg);
    return NULL;
}

static void phase_private(const struct settings *s) {
    struct rt_runner *runners[THREADS_AT_MOST] = {NULL};
    int tops[RT_SIDES] = {make_dir(s->top[RT_MOUNT], "private"),
                          make_dir(s->top[RT_PLAIN], "private")};
    for (unsigned i = 0; i < s->threads; i++) {
        if (s->only >= 0 && s->only != (int)i)
            continue;
        char name[16];
        runners[i] = runner_new(s, i, 1);
        snprintf(name, sizeof(name), "t%u", i);
        for (int side = 0; side < RT_SIDES; side++)
            runners[i]->top[side] = make_dir(tops[side], name);
    }
    result(run_threads(s, "private", runners, private_body), "private trees: each step's result");
    static const struct rt_compare how = {0};
    compare("private trees: mount and plain directory", tops[RT_MOUNT], tops[RT_PLAIN], &how);
    compare_source(s, "private trees: mount and source", tops[RT_MOUNT], "private");
    for (unsigned i = 0; i < s->threads; i++)
        if (runners[i] != NULL) {
            (void)close(runners[i]->top[0]);
            (void)close(runners[i]->top[1]);
            runner_free(runners[i]);
        }
    (void)close(tops[0]);
    (void)close(tops[1]);
}

/* ---- shared files ---- */

static void expect_same(struct rt_runner *r, const char *what, const long ret[2],
                        const int err[2]) {
    r->done++;
    r->succeeded += ret[RT_PLAIN] >= 0;
    if (ret[0] != ret[1] || (ret[0] < 0 && err[0] != err[1]))
        stg_rt_fail(r, "thread %u, step %lu: %s: mount %ld %s, plain %ld %s", r->id, r->done, what,
                    ret[0], ret[0] < 0 ? strerrorname_np(err[0]) : "", ret[1],
                    ret[1] < 0 ? strerrorname_np(err[1]) : "");
}

/* One operation on a thread's own stripe of the file that all threads write. */
static long stripe_step(struct rt_runner *r, int side, int kind, off_t at, int flags) {
    int fd = openat(r->top[side], "stripes", flags | O_CLOEXEC);
    long ret = -1;
    if (fd < 0)
        return -1;
    if (kind == 0) {
        ret = pwrite(fd, r->data, STRIPE_BYTES, at);
    } else if (kind == 1) {
        ret = pread(fd, r->buffer[side], STRIPE_BYTES, at);
    } else if (kind == 2) {
        ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, STRIPE_BYTES);
    } else {
        char *p = mmap(NULL, STRIPE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
        if (p != MAP_FAILED) {
            memcpy(r->buffer[side], p, STRIPE_BYTES);
            memcpy(p, r->data, STRIPE_BYTES);
            ret = munmap(p, STRIPE_BYTES);
        }
    }
    int saved = errno;
    if (close(fd) != 0)
        return -1;
    errno = saved;
    return ret;
}

static long append_step(struct rt_runner *r, int side, unsigned long number) {
    char record[RECORD_BYTES + 32];
    snprintf(record, sizeof(record), "thread %4u record %10lu  \n", r->id % 1000,
             number % 1000000000);
    int fd = openat(r->top[side], "log", O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return -1;
    long ret = write(fd, record, RECORD_BYTES);
    return close(fd) == 0 ? ret : -1;
}

/* An operation on this thread's own names in the directory that all threads change. */
static long name_step(struct rt_runner *r, int side, int kind, const char *a, const char *b) {
    int fd = 0;
    switch (kind) {
    case 0:
        fd = openat(r->top[side], a, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        return fd < 0 ? -1 : close(fd);
    case 1:
        return renameat(r->top[side], a, r->top[side], b);
    case 2:
        return unlinkat(r->top[side], a, 0);
    case 3:
        return linkat(r->top[side], "stripes", r->top[side], b, 0);
    case 4:
        return renameat2(r->top[side], a, r->top[side], b, 2 /* RENAME_EXCHANGE */);
    case 5: {
        struct stat st;
        return fstatat(r->top[side], a, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (long)st.st_mode : -1;
    }
    default:
        return symlinkat(b, r->top[side], a);
    }
}

/* This thread's names as a set of bits, -1 when one is listed twice. */
static long list_step(struct rt_runner *r, int side) {
    long seen = 0;
    unsigned id, number;
    DIR *dir = fdopendir(openat(r->top[side], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (dir == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (sscanf(entry->d_name, "n%u.%u", &id, &number) != 2 || id != r->id)
            continue;
        if (seen & (1L << number)) {
            (void)closedir(dir);
            errno = EEXIST;
            return -1;
        }
        seen |= 1L << number;
    }
    (void)closedir(dir);
    return seen;
}

static void shared_step(struct rt_runner *r, unsigned threads, unsigned long step) {
    static const int flags[] = {O_RDWR, O_RDWR, O_RDWR | O_DIRECT, O_RDWR | O_NONBLOCK};
    long ret[RT_SIDES];
    int err[RT_SIDES];
    char a[32], b[32], what[96];
    unsigned choice = (unsigned)stg_rt_below(&r->rng, 10),
             kind = (unsigned)stg_rt_below(&r->rng, 7);
    unsigned flag = (unsigned)stg_rt_below(&r->rng, 4);
    off_t at = (off_t)(stg_rt_below(&r->rng, STRIPES_EACH) * threads + r->id) * STRIPE_BYTES;
    snprintf(a, sizeof(a), "n%u.%u", r->id, (unsigned)stg_rt_below(&r->rng, 12));
    snprintf(b, sizeof(b), "n%u.%u", r->id, (unsigned)stg_rt_below(&r->rng, 12));
    stg_rt_fill(r->data, STRIPE_BYTES, stg_rt_next(&r->rng));
    bool content = choice < 4 && (kind % 4 == 1 || kind % 4 == 3);
    for (int side = 0; side < RT_SIDES; side++) {
        errno = 0;
        if (choice < 4) {
            ret[side] = stripe_step(r, side, (int)kind % 4, at, flags[flag]);
            snprintf(what, sizeof(what), "stripe at %lld, kind %u, flags 0%o", (long long)at,
                     kind % 4, flags[flag]);
        } else if (choice == 4) {
            ret[side] = append_step(r, side, step);
            snprintf(what, sizeof(what), "append");
        } else if (choice == 5) {
            ret[side] = list_step(r, side);
            snprintf(what, sizeof(what), "list");
        } else {
            ret[side] = name_step(r, side, (int)kind, a, b);
            snprintf(what, sizeof(what), "names %s %s, kind %u", a, b, kind);
        }
        err[side] = errno;
    }
    expect_same(r, what, ret, err);
    if (content && !r->failed && memcmp(r->buffer[0], r->buffer[1], STRIPE_BYTES) != 0)
        stg_rt_fail(r, "thread %u: content: %s", r->id, what);
}

static unsigned shared_threads; /* set before the threads start */

static void *shared_body(void *arg) {
    struct rt_runner *r = arg;
    for (unsigned long step = 0; step < r->steps && !r->failed; step++)
        shared_step(r, shared_threads, step);
    return NULL;
}

static void make_shared_file(int dir, const char *name, off_t bytes) {
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, bytes) != 0 || close(fd) != 0)
        die(name);
}

/* Each thread's records must be there once and in the order in which it wrote them. */
static void check_log(const struct settings *s) {
    unsigned long last[THREADS_AT_MOST] = {0}, count[2][THREADS_AT_MOST] = {{0}};
    bool ok = true;
    for (int side = 0; side < RT_SIDES; side++) {
        int fd =
            openat(side ? s->top[RT_PLAIN] : s->top[RT_MOUNT], "shared/log", O_RDONLY | O_CLOEXEC);
        FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
        char line[256];
        unsigned id;
        unsigned long number;
        memset(last, 0, sizeof(last));
        while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
            if (strlen(line) != RECORD_BYTES ||
                sscanf(line, "thread %u record %lu", &id, &number) != 2 || id >= s->threads ||
                (count[side][id] > 0 && number <= last[id])) {
                ok = false;
                printf("# shared log: torn or out of order: %s", line);
                break;
            }
            last[id] = number;
            count[side][id]++;
        }
        if (f == NULL)
            ok = false;
        else
            (void)fclose(f);
    }
    result(ok && memcmp(count[0], count[1], sizeof(count[0])) == 0,
           "shared log: every record once and in order");
}

static void phase_shared(const struct settings *s) {
    struct rt_runner *runners[THREADS_AT_MOST] = {NULL};
    int tops[RT_SIDES];
    shared_threads = s->threads;
    for (int side = 0; side < RT_SIDES; side++) {
        tops[side] = make_dir(s->top[side], "shared");
        make_shared_file(tops[side], "stripes", (off_t)s->threads * STRIPES_EACH * STRIPE_BYTES);
        make_shared_file(tops[side], "log", 0);
    }
    for (unsigned i = 0; i < s->threads; i++) {
        runners[i] = runner_new(s, i, 2);
        runners[i]->top[0] = tops[0];
        runners[i]->top[1] = tops[1];
    }
    result(run_threads(s, "shared", runners, shared_body), "shared files: each step's result");
    check_log(s);
    static const struct rt_compare how = {.skip_content = "log"};
    compare("shared files: mount and plain directory", tops[RT_MOUNT], tops[RT_PLAIN], &how);
    compare_source(s, "shared files: mount and source", tops[RT_MOUNT], "shared");
    for (unsigned i = 0; i < s->threads; i++)
        runner_free(runners[i]);
    (void)close(tops[0]);
    (void)close(tops[1]);
}

/* ---- chaos ---- */

static void phase_chaos(const struct settings *s) {
    struct rt_runner *runners[THREADS_AT_MOST] = {NULL};
    int top = make_dir(s->top[RT_MOUNT], "chaos");
    for (unsigned i = 0; i < s->threads; i++) {
        runners[i] = runner_new(s, i, 3);
        runners[i]->chaos = true;
        runners[i]->check_all = false;
        runners[i]->top[RT_MOUNT] = top;
        runners[i]->top[RT_PLAIN] = -1;
    }
    result(run_threads(s, "chaos", runners, private_body),
           "chaos: no error that a race cannot explain");
    compare_source(s, "chaos: mount and source", top, "chaos");
    for (unsigned i = 0; i < s->threads; i++)
        runner_free(runners[i]);
    (void)close(top);
}

/* ---- options ---- */

static void usage(void) {
    fprintf(stderr, "usage: random [--seed N] [--steps N] [--threads N] [--only THREAD]\n"
                    "              [--phase private|shared|chaos] [--trace] [--check] [--source "
                    "DIR] MOUNT PLAIN\n");
    exit(2);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},
        {"steps", required_argument, NULL, 'n'},
        {"threads", required_argument, NULL, 't'},
        {"only", required_argument, NULL, 'o'},
        {"phase", required_argument, NULL, 'p'},
        {"source", required_argument, NULL, 'd'},
        {"trace", no_argument, NULL, 'v'},
        {"check", no_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    struct settings s = {.steps = 10000, .threads = 4, .only = -1, .source = -1};
    const char *source = NULL;
    if (getrandom(&s.seed, sizeof(s.seed), 0) != sizeof(s.seed))
        s.seed = (uint64_t)time(NULL);
    s.seed %= 1000000000;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            s.seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            s.steps = strtoul(optarg, NULL, 0);
            break;
        case 't':
            s.threads = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'o':
            s.only = atoi(optarg);
            break;
        case 'p':
            s.phase = optarg;
            break;
        case 'd':
            source = optarg;
            break;
        case 'c':
            s.check = true;
            break;
        case 'v':
            s.trace = true;
            break;
        default:
            usage();
        }
    }
    if (argc - optind != 2 || s.threads < 1 || s.threads > THREADS_AT_MOST)
        usage();
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("# seed %llu, %u threads, %lu steps each\n", (unsigned long long)s.seed, s.threads,
           s.steps);
    (void)umask(022);
    (void)signal(SIGPIPE, SIG_IGN);
    s.top[RT_MOUNT] = open_dir(AT_FDCWD, argv[optind]);
    s.top[RT_PLAIN] = open_dir(AT_FDCWD, argv[optind + 1]);
    if (source != NULL)
        s.source = open_dir(AT_FDCWD, source);
    if (s.phase == NULL || strcmp(s.phase, "private") == 0)
        phase_private(&s);
    if (s.phase == NULL || strcmp(s.phase, "shared") == 0)
        phase_shared(&s);
    if (s.phase == NULL || strcmp(s.phase, "chaos") == 0)
        phase_chaos(&s);
    printf("1..%u\n", cases);
    return failed_cases != 0;
}
