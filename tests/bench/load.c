/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inner loops of the benchmark. One call does one kind of work again and again until a minimum
 * of time has passed, and prints "NANOSECONDS OPERATIONS". It knows nothing of file systems or
 * rounds: tests/bench/run does.
 *
 *   load KIND SECONDS PATH [ARGUMENT]
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_AT_MOST = 64, PAGE = 4096, BLOCK = 256 << 10 };

struct job {
    const char *path;
    const char *argument; /* NULL when not given */
    char **files;         /* for the kinds that take a tree; sorted by directory order */
    size_t n_files;
    int64_t minimum_ns;
};

/* One kind of work: does it for at least the minimum and returns the operations done. */
struct kind {
    const char *name;
    uint64_t (*run)(const struct job *job);
    bool takes_tree;
};

static int64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_or_die(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        die(path);
    return fd;
}

static size_t size_or_die(int fd, const char *path) {
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size < PAGE) {
        errno = errno ? errno : EINVAL;
        die(path);
    }
    return (size_t)st.st_size;
}

/* A loop that lasts at least the job's minimum. */
struct timer {
    int64_t end_ns;
    uint64_t count;
    unsigned batch, left;
};

static struct timer timer_start(const struct job *job, unsigned batch) {
    return (struct timer){now_ns() + job->minimum_ns, 0, batch, batch};
}

/* The clock is asked once in a batch, so that it costs next to nothing. */
static bool timer_again(struct timer *t) {
    if (t->left == 0) {
        if (now_ns() >= t->end_ns)
            return false;
        t->left = t->batch;
    }
    t->left--;
    t->count++;
    return true;
}

static uint64_t run_openclose(const struct job *job) {
    struct timer t = timer_start(job, 100);
    while (timer_again(&t))
        (void)close(open_or_die(job->path, O_RDONLY));
    return t.count;
}

static void read_whole(const char *path, char *block) {
    int fd = open_or_die(path, O_RDONLY);
    ssize_t n;
    while ((n = read(fd, block, BLOCK)) > 0)
        continue;
    if (n < 0)
        die(path);
    (void)close(fd);
}

struct reader {
    const struct job *job;
    atomic_size_t *next;
};

static void *reader_body(void *arg) {
    const struct reader *reader = arg;
    char *block = malloc(BLOCK);
    if (block == NULL)
        die("memory");
    for (size_t i; (i = atomic_fetch_add(reader->next, 1)) < reader->job->n_files;)
        read_whole(reader->job->files[i], block);
    free(block);
    return NULL;
}

/* Every file opened, read and closed, by as many threads as the argument says. */
static uint64_t run_orc(const struct job *job) {
    unsigned threads = job->argument ? (unsigned)atoi(job->argument) : 1;
    pthread_t thread[THREADS_AT_MOST];
    if (threads < 1 || threads > THREADS_AT_MOST)
        threads = 1;
    struct timer t = timer_start(job, 1);
    while (timer_again(&t)) {
        atomic_size_t next = 0;
        struct reader reader = {job, &next};
        for (unsigned i = 1; i < threads; i++)
            if ((errno = pthread_create(&thread[i], NULL, reader_body, &reader)) != 0)
                die("thread");
        (void)reader_body(&reader);
        for (unsigned i = 1; i < threads; i++)
            (void)pthread_join(thread[i], NULL);
    }
    return t.count * job->n_files;
}

static uint64_t run_stat(const struct job *job) {
    struct stat st;
    struct timer t = timer_start(job, 1);
    while (timer_again(&t)) {
        for (size_t i = 0; i < job->n_files; i++)
            if (stat(job->files[i], &st) != 0)
                die(job->files[i]);
    }
    return t.count * job->n_files;
}

/* Names that do not exist, the same ones over and over, as an include search asks for them. */
static uint64_t run_miss(const struct job *job) {
    enum { NAMES = 200 };
    struct stat st;
    char *names[NAMES];
    for (unsigned i = 0; i < NAMES; i++)
        if (asprintf(&names[i], "%s/no-such-file-%u.h", job->path, i) < 0)
            die("memory");
    for (unsigned i = 0; i < NAMES; i++)
        (void)stat(names[i], &st); /* the first time is not what is measured */
    struct timer t = timer_start(job, 1);
    while (timer_again(&t)) {
        for (unsigned i = 0; i < NAMES; i++)
            if (stat(names[i], &st) == 0)
                die(names[i]);
    }
    return t.count * NAMES;
}

static uint64_t pread_pages(const struct job *job, bool random, bool with_fstat) {
    int fd = open_or_die(job->path, O_RDONLY);
    size_t pages = size_or_die(fd, job->path) / PAGE;
    uint64_t x = 88172645463325252u;
    char page[PAGE];
    struct stat st;
    struct timer t = timer_start(job, 500);
    while (timer_again(&t)) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        off_t at = random ? (off_t)(x % pages * PAGE) : 0;
        if (pread(fd, page, PAGE, at) != PAGE)
            die(job->path);
        if (with_fstat && fstat(fd, &st) != 0)
            die(job->path);
    }
    (void)close(fd);
    return t.count;
}

static uint64_t run_pread(const struct job *job) { return pread_pages(job, true, false); }
static uint64_t run_onepage(const struct job *job) { return pread_pages(job, false, false); }
static uint64_t run_readfstat(const struct job *job) { return pread_pages(job, false, true); }

static uint64_t run_seqread(const struct job *job) {
    char *block = malloc(BLOCK);
    if (block == NULL)
        die("memory");
    struct timer t = timer_start(job, 1);
    while (timer_again(&t))
        read_whole(job->path, block);
    free(block);
    return t.count;
}

/* A new file of as many MiB as the argument says, until it is on the disk. */
static uint64_t run_seqwrite(const struct job *job) {
    size_t bytes = (job->argument ? strtoul(job->argument, NULL, 10) : 1) << 20;
    char *block = malloc(BLOCK);
    if (block == NULL)
        die("memory");
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = (char)(i * 131);
    struct timer t = timer_start(job, 1);
    while (timer_again(&t)) {
        int fd = open_or_die(job->path, O_WRONLY | O_CREAT | O_TRUNC);
        for (size_t done = 0; done < bytes; done += BLOCK)
            if (write(fd, block, BLOCK) != BLOCK)
                die(job->path);
        if (fsync(fd) != 0)
            die(job->path);
        (void)close(fd);
    }
    free(block);
    return t.count;
}

/* Mapped anew each time, each cache line read. */
static uint64_t run_mmapread(const struct job *job) {
    volatile uint64_t sum = 0;
    struct timer t = timer_start(job, 1);
    while (timer_again(&t)) {
        int fd = open_or_die(job->path, O_RDONLY);
        size_t bytes = size_or_die(fd, job->path);
        char *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            die(job->path);
        uint64_t s = 0;
        for (size_t i = 0; i + 8 <= bytes; i += 64)
            s += *(const uint64_t *)(const void *)(p + i);
        sum += s;
        (void)munmap(p, bytes);
        (void)close(fd);
    }
    return t.count;
}

/* ---- once over known names: what is not in any cache yet must not be listed first ---- */

/* PATH/file0.h, PATH/file1.h, ...: opened, read, and handed over with a NUL behind. */
static uint64_t each_name(const struct job *job, size_t (*use)(const char *text)) {
    unsigned names = job->argument ? (unsigned)atoi(job->argument) : 1;
    size_t room_bytes = 1 << 20;
    char *text = malloc(room_bytes + 1);
    volatile size_t sum = 0;
    if (text == NULL)
        die("memory");
    for (unsigned i = 0; i < names; i++) {
        char path[4096];
        (void)snprintf(path, sizeof(path), "%s/file%u.h", job->path, i);
        int fd = open_or_die(path, O_RDONLY);
        size_t bytes = 0;
        ssize_t n;
        while ((n = read(fd, text + bytes, room_bytes - bytes)) > 0)
            bytes += (size_t)n;
        if (n < 0)
            die(path);
        (void)close(fd);
        text[bytes] = '\0';
        sum += use(text);
    }
    free(text);
    return names;
}

static size_t first_byte(const char *text) { return (size_t)*text; }

static const char *skip_quoted(const char *s) {
    char quote = *s++;
    while (*s != '\0' && *s != quote && *s != '\n')
        s += s[0] == '\\' && s[1] != '\0' ? 2 : 1;
    return *s == quote ? s + 1 : s;
}

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* One token of C; words are hashed, as for a table of names. */
static const char *skip_token(const char *s, size_t *hash) {
    if (s[0] == '/' && s[1] == '*') {
        const char *end = strstr(s + 2, "*/");
        return end != NULL ? end + 2 : s + strlen(s);
    }
    if (s[0] == '/' && s[1] == '/')
        return s + strcspn(s, "\n");
    if (*s == '"' || *s == '\'')
        return skip_quoted(s);
    if (!is_word(*s))
        return s + 1;
    for (; is_word(*s); s++)
        *hash = *hash * 31 + (unsigned char)*s;
    return s;
}

static size_t tokenise(const char *s) {
    size_t tokens = 0, hash = 0;
    for (s += strspn(s, " \t\n"); *s != '\0'; s += strspn(s, " \t\n")) {
        s = skip_token(s, &hash);
        tokens++;
    }
    return tokens + (hash & 1);
}

static uint64_t run_names(const struct job *job) { return each_name(job, first_byte); }
static uint64_t run_tokens(const struct job *job) { return each_name(job, tokenise); }

/* As many single pages as the argument says, from all over the file; COUNT:SEED for others. */
static uint64_t run_scatter(const struct job *job) {
    unsigned long count = job->argument ? strtoul(job->argument, NULL, 10) : 1000;
    const char *seed = job->argument ? strchr(job->argument, ':') : NULL;
    int fd = open_or_die(job->path, O_RDONLY);
    size_t pages = size_or_die(fd, job->path) / PAGE;
    uint64_t x = 88172645463325252u + (seed != NULL ? strtoul(seed + 1, NULL, 10) : 0);
    char page[PAGE];
    for (unsigned long i = 0; i < count; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if (pread(fd, page, PAGE, (off_t)(x % pages * PAGE)) != PAGE)
            die(job->path);
    }
    (void)close(fd);
    return count;
}

/* ---- the tree ---- */

static size_t room;

static void add_file(struct job *job, char *path) {
    if (job->n_files == room) {
        room = room ? room * 2 : 1024;
        job->files = realloc(job->files, room * sizeof(*job->files));
        if (job->files == NULL)
            die("memory");
    }
    job->files[job->n_files++] = path;
}

static void collect(struct job *job, const char *dir_path) {
    DIR *dir = opendir(dir_path);
    struct stat st;
    if (dir == NULL)
        die(dir_path);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char *path;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (asprintf(&path, "%s/%s", dir_path, entry->d_name) < 0)
            die("memory");
        if (lstat(path, &st) != 0)
            die(path);
        if (S_ISDIR(st.st_mode)) {
            collect(job, path);
            free(path);
        } else {
            add_file(job, path);
        }
    }
    (void)closedir(dir);
}

/* Nothing but the walk, which asks for each file's attributes: for the daemon's memory. */
static uint64_t run_walk(const struct job *job) { return job->n_files; }

static const struct kind kinds[] = {
    {"openclose", run_openclose, false},
    {"orc", run_orc, true},
    {"stat", run_stat, true},
    {"miss", run_miss, false},
    {"pread", run_pread, false},
    {"onepage", run_onepage, false},
    {"readfstat", run_readfstat, false},
    {"seqread", run_seqread, false},
    {"seqwrite", run_seqwrite, false},
    {"mmapread", run_mmapread, false},
    {"names", run_names, false},
    {"tokens", run_tokens, false},
    {"scatter", run_scatter, false},
    {"walk", run_walk, true},
};

int main(int argc, char **argv) {
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: load KIND SECONDS PATH [ARGUMENT]\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, argv[1]) != 0)
            continue;
        struct job job = {.path = argv[3], .argument = argc == 5 ? argv[4] : NULL};
        job.minimum_ns = (int64_t)(atof(argv[2]) * 1e9);
        if (kinds[i].takes_tree)
            collect(&job, job.path);
        int64_t start = now_ns();
        uint64_t operations = kinds[i].run(&job);
        printf("%lld %llu\n", (long long)(now_ns() - start), (unsigned long long)operations);
        return 0;
    }
    fprintf(stderr, "load: no kind of work is called '%s'\n", argv[1]);
    return 2;
}
