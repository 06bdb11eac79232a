/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the readers on the mount, what they hold open and mapped across changes, and who works
 * through the mount. Each reading is judged at once.
 */
#include "coherence.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOUNT stg_ch_settings.mount

struct reader {
    uint64_t rng;
    char *data; /* STG_CH_ROOM_BYTES and one block more, to meet the end */
};
enum { DATA_BYTES = STG_CH_ROOM_BYTES + STG_CH_BLOCK_BYTES };

static unsigned random_name(struct reader *r) {
    return (unsigned)stg_ch_below(&r->rng, STG_CH_NAMES);
}

/* ---- files ---- */

static void judge_file(struct reader *r, unsigned name, int64_t begin, uint64_t got) {
    struct stg_ch_bytes bytes = {.data = r->data, .got = got, .asked = DATA_BYTES};
    struct stg_ch_seen seen = {.kind = STG_CH_FILE, .id = stg_ch_bytes_of(&bytes), .bytes = &bytes};
    struct stg_ch_span span = stg_ch_span(STG_CH_OPENED, begin);
    const char *wrong;

    if (!stg_ch_judge_name(name, &seen, span)) {
        stg_ch_violation((int)name, seen.id, "%llu bytes of object %u, which the name is not",
                         (unsigned long long)got, seen.id);
        return;
    }
    wrong = seen.id ? stg_ch_judge_bytes(stg_ch_object(seen.id), &bytes, span) : NULL;
    if (wrong != NULL)
        stg_ch_violation((int)name, seen.id, "read of %llu bytes: %s", (unsigned long long)got,
                         wrong);
}

/*
 * The kernel walks a path once more where it found a folder moved from under it, and gives up with
 * ESTALE where that happens again; or where it cannot have the locks to move the folder at once
 * (d_splice_alias()). A program tries again.
 */
#define WALKS 200 /* a millisecond apart */
#define WALK(result, call)                                                                         \
    do {                                                                                           \
        for (int walks_ = 0; ((result) = (call)) < 0 && errno == ESTALE && walks_ < WALKS;         \
             walks_++)                                                                             \
            (void)usleep(1000);                                                                    \
    } while (0)

/* What an open says of a name that it does not open as a file. */
static void judge_refusal(unsigned name, int error, int64_t begin) {
    struct stg_ch_seen seen = {.kind = STG_CH_ABSENT};

    if (error == ELOOP)
        seen.kind = STG_CH_LINK;
    else if (error == EISDIR)
        seen.kind = STG_CH_DIR;
    else if (error == ESTALE && stg_ch_settings.mode == STG_CH_FROZEN)
        return; /* what was there is gone, and what is there instead is not looked at */
    else if (error != ENOENT) {
        stg_ch_violation((int)name, 0, "open: %s", strerror(error));
        return;
    }
    if (!stg_ch_judge_name(name, &seen, stg_ch_span(STG_CH_OPENED, begin)))
        stg_ch_violation((int)name, 0, "open: %s, which is out of date", strerror(error));
}

static void read_file(struct reader *r) {
    unsigned name = random_name(r);
    char path[STG_CH_PATH_BYTES];
    int64_t begin = stg_ch_now_ns();
    uint64_t got = 0;
    ssize_t n = -1;
    int fd;

    stg_ch_name_path(name, path);
    WALK(fd, openat(MOUNT, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0) {
        judge_refusal(name, errno, begin);
        return;
    }
    while (got < DATA_BYTES && (n = read(fd, r->data + got, DATA_BYTES - got)) > 0)
        got += (uint64_t)n;
    if (n < 0 && errno == EISDIR)
        judge_refusal(name, EISDIR, begin);
    else if (n < 0 &&
             (errno != ESTALE || !stg_ch_judge_gone(name, stg_ch_span(STG_CH_OPENED, begin))))
        stg_ch_violation((int)name, 0, "read: %s", strerror(errno));
    else if (n >= 0)
        judge_file(r, name, begin, got);
    (void)close(fd);
}

static void look_at_name(struct reader *r) {
    unsigned name = random_name(r);
    struct stg_ch_seen seen = {.kind = STG_CH_ABSENT};
    char path[STG_CH_PATH_BYTES];
    int64_t begin = stg_ch_now_ns();
    struct stat st;
    int found;

    stg_ch_name_path(name, path);
    WALK(found, fstatat(MOUNT, path, &st, AT_SYMLINK_NOFOLLOW));
    if (found == 0)
        seen.kind = S_ISDIR(st.st_mode)   ? STG_CH_DIR
                    : S_ISLNK(st.st_mode) ? STG_CH_LINK
                                          : STG_CH_FILE;
    else if (errno != ENOENT) {
        stg_ch_violation((int)name, 0, "lstat: %s", strerror(errno));
        return;
    }
    if (seen.kind == STG_CH_FILE)
        seen.st = &st;
    if (!stg_ch_judge_name(name, &seen, stg_ch_span(STG_CH_OPENED, begin)))
        stg_ch_violation((int)name, 0, "lstat is out of date: kind %d, inode %lu, size %lld, %o",
                         seen.kind, seen.st ? (unsigned long)st.st_ino : 0,
                         seen.st ? (long long)st.st_size : 0, seen.st ? st.st_mode : 0);
}

static void read_link(struct reader *r) {
    unsigned name = random_name(r);
    struct stg_ch_seen seen = {.kind = STG_CH_LINK};
    char path[STG_CH_PATH_BYTES], target[STG_CH_PATH_BYTES] = "";
    int64_t begin = stg_ch_now_ns();
    ssize_t length;

    stg_ch_name_path(name, path);
    WALK(length, readlinkat(MOUNT, path, target, sizeof(target) - 1));
    if (length < 0) {
        if (errno != ENOENT && errno != EINVAL)
            stg_ch_violation((int)name, 0, "readlink: %s", strerror(errno));
        return;
    }
    seen.id = stg_ch_target_of(target);
    if (seen.id == 0 || !stg_ch_judge_name(name, &seen, stg_ch_span(STG_CH_OPENED, begin)))
        stg_ch_violation((int)name, 0, "readlink is out of date: '%s'", target);
}

/* ---- folders ---- */

static void look_at_dir(struct reader *r) {
    unsigned dir = (unsigned)stg_ch_below(&r->rng, STG_CH_DIRS);
    char path[STG_CH_PATH_BYTES];
    int64_t begin = stg_ch_now_ns();
    struct stat st;
    bool there;
    int found;

    stg_ch_dir_path(dir, path);
    WALK(found, fstatat(MOUNT, path, &st, AT_SYMLINK_NOFOLLOW));
    there = found == 0;
    if (!there && errno != ENOENT)
        stg_ch_violation(STG_CH_OF_DIR(dir), 0, "lstat of folder %s: %s", path, strerror(errno));
    else if (!stg_ch_judge_dir(dir, there ? STG_CH_DIR : STG_CH_ABSENT,
                               stg_ch_span(STG_CH_OPENED, begin)))
        stg_ch_violation(STG_CH_OF_DIR(dir), 0, "the folder %s is out of date: %s", path,
                         there ? "there" : "not there");
}

static void judge_list(unsigned dir, const bool *listed, struct stg_ch_span span) {
    struct stg_ch_seen there = {.kind = STG_CH_THERE};

    if (stg_ch_dir_moved(dir, span))
        return; /* the list may be of what was here, or went elsewhere */
    for (unsigned i = 0; i < STG_CH_LEAVES; i++) {
        unsigned name = dir * STG_CH_LEAVES + i;

        if (!listed[i] && stg_ch_always(name, span))
            stg_ch_violation((int)name, 0, "is not in its folder's list");
        if (listed[i] && !stg_ch_judge_name(name, &there, span))
            stg_ch_violation((int)name, 0, "is in its folder's list");
    }
}

static void read_dir(struct reader *r) {
    unsigned dir = (unsigned)stg_ch_below(&r->rng, STG_CH_DIRS);
    bool listed[STG_CH_LEAVES] = {false};
    char path[STG_CH_PATH_BYTES];
    int64_t begin = stg_ch_now_ns();
    unsigned leaf;
    DIR *stream;
    int fd;

    stg_ch_dir_path(dir, path);
    fd = openat(MOUNT, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL)
        return; /* look_at_dir judges that */
    errno = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (sscanf(entry->d_name, "f%u", &leaf) == 1 && leaf < STG_CH_LEAVES)
            listed[leaf] = true;
    if (errno != 0 && errno != ENOENT)
        stg_ch_violation(STG_CH_OF_DIR(dir), 0, "readdir of %s: %s", path, strerror(errno));
    else if (errno == 0)
        judge_list(dir, listed, stg_ch_span(STG_CH_LISTED, begin));
    (void)closedir(stream);
}

/* ---- what is held ---- */

struct held {
    pthread_mutex_t lock;
    int source, mount; /* one object; -1: nothing is held */
    char *mapped;
    size_t mapped_bytes;
    unsigned name; /* that it was opened by */
    uint32_t id;
};

enum { HELD = 24 };
static struct held held[HELD];
static pthread_once_t held_once = PTHREAD_ONCE_INIT;

static void held_init(void) {
    for (unsigned i = 0; i < HELD; i++) {
        pthread_mutex_init(&held[i].lock, NULL);
        held[i].source = held[i].mount = -1;
    }
}

static void drop_locked(struct held *h) {
    if (h->mapped != NULL)
        (void)munmap(h->mapped, h->mapped_bytes);
    if (h->source >= 0)
        (void)close(h->source);
    if (h->mount >= 0)
        (void)close(h->mount);
    h->mapped = NULL;
    h->source = h->mount = -1;
}

static uint32_t object_in(int fd) {
    char block[STG_CH_BLOCK_BYTES];
    struct stg_ch_bytes bytes = {.data = block, .got = sizeof(block)};

    return pread(fd, block, sizeof(block), 0) == sizeof(block) ? stg_ch_bytes_of(&bytes) : 0;
}

/* The folder's lock keeps the name at its object, unless the mount is late with it. */
static void take_locked(struct held *h, unsigned name) {
    pthread_mutex_t *lock = &stg_ch_dir_locks[name / STG_CH_LEAVES];
    int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC;
    char path[STG_CH_PATH_BYTES];
    struct stat st;

    stg_ch_name_path(name, path);
    pthread_mutex_lock(lock);
    if (stg_ch_state(&stg_ch_names[name]).kind == STG_CH_FILE) {
        h->source = openat(stg_ch_settings.source, path, flags);
        h->mount = openat(MOUNT, path, flags);
    }
    pthread_mutex_unlock(lock);
    h->name = name;
    h->id = h->source >= 0 && h->mount >= 0 ? object_in(h->source) : 0;
    if (h->id == 0 || object_in(h->mount) != h->id || fstat(h->source, &st) != 0) {
        drop_locked(h);
        return;
    }
    h->mapped_bytes = (size_t)st.st_size + 8192; /* it may grow into that */
    h->mapped = mmap(NULL, h->mapped_bytes, PROT_READ, MAP_SHARED, h->mount, 0);
    if (h->mapped == MAP_FAILED) {
        stg_ch_violation((int)name, h->id, "mmap: %s", strerror(errno));
        h->mapped = NULL;
        drop_locked(h);
    }
}

/* By the kernel, which says EFAULT where a load would be ended by SIGBUS. */
static size_t load(const char *mapped, char *data, size_t bytes) {
    struct iovec to = {data, bytes}, from = {(char *)(uintptr_t)mapped, bytes};
    ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

    return n < 0 ? 0 : (size_t)n;
}

static unsigned long names_of(const struct held *h) {
    struct stat st;

    return fstat(h->source, &st) == 0 ? (unsigned long)st.st_nlink : 0;
}

/* It could not be looked at: is that as it may be, of a file that has no name any more? */
static bool may_be_stale(const struct held *h, int error) {
    return error == ESTALE && stg_ch_settings.by_names && names_of(h) == 0;
}

static void read_held_locked(struct reader *r, struct held *h) {
    uint64_t blocks = h->mapped_bytes / STG_CH_BLOCK_BYTES;
    struct stg_ch_bytes bytes = {.data = r->data, .mapped = stg_ch_below(&r->rng, 2)};
    int64_t begin = stg_ch_now_ns();
    const char *wrong;

    bytes.at = stg_ch_below(&r->rng, blocks) * STG_CH_BLOCK_BYTES;
    bytes.asked = (1 + stg_ch_below(&r->rng, 512)) * STG_CH_BLOCK_BYTES;
    if (bytes.mapped && bytes.at + bytes.asked > h->mapped_bytes)
        bytes.asked = (h->mapped_bytes - bytes.at) / STG_CH_BLOCK_BYTES * STG_CH_BLOCK_BYTES;
    if (bytes.mapped) {
        bytes.got = load(h->mapped + bytes.at, r->data, bytes.asked);
    } else {
        ssize_t n = pread(h->mount, r->data, bytes.asked, (off_t)bytes.at);

        if (n < 0 && may_be_stale(h, errno))
            return;
        if (n < 0) {
            stg_ch_violation((int)h->name, h->id, "pread of what is held: %s", strerror(errno));
            return;
        }
        bytes.got = (uint64_t)n;
    }
    wrong = stg_ch_judge_bytes(stg_ch_object(h->id), &bytes, stg_ch_span(STG_CH_HELD, begin));
    if (wrong != NULL)
        stg_ch_violation((int)h->name, h->id, "held, %s, with %lu names: %s",
                         bytes.mapped ? "mapped" : "open", names_of(h), wrong);
}

static void use_held(struct reader *r) {
    struct held *h = &held[stg_ch_below(&r->rng, HELD)];

    pthread_mutex_lock(&h->lock);
    if (h->mount >= 0 && stg_ch_below(&r->rng, 8) == 0)
        drop_locked(h);
    if (h->mount < 0)
        take_locked(h, random_name(r));
    else
        read_held_locked(r, h);
    pthread_mutex_unlock(&h->lock);
}

/*
 * That a file has grown the kernel learns when the attributes are asked for: a load from beyond its
 * old end does not ask, so it may fail once.
 */
static void compare_mapped_locked(struct held *h, const char *when) {
    static char data[2][STG_CH_ROOM_BYTES]; /* one thread compares */
    size_t wanted = h->mapped_bytes < sizeof(data[0]) ? h->mapped_bytes : sizeof(data[0]);
    ssize_t there = pread(h->source, data[0], wanted, 0);
    size_t seen = there > 0 ? load(h->mapped, data[1], (size_t)there) : 0, i = 0;
    struct stat st;

    if (there > 0 && seen < (size_t)there && fstat(h->mount, &st) == 0)
        seen += load(h->mapped + seen, data[1] + seen, (size_t)there - seen);
    while (i < seen && data[0][i] == data[1][i])
        i++;
    if (there > 0 && i < (size_t)there)
        stg_ch_violation((int)h->name, h->id, "%s: a held mapping differs at %zu (%zu of %zd)",
                         when, i, seen, there);
}

static void compare_held_locked(struct held *h, unsigned what, const char *when) {
    struct stat source, mount;
    const char *how = NULL;

    if (what == 0) {
        /* A file without a name cannot be looked at again, and how far it may be mapped with it. */
        if (names_of(h) > 0)
            compare_mapped_locked(h, when);
    } else if (stg_ch_settings.by_names && names_of(h) == 0) {
        return; /* nor at all, perhaps */
    } else if (what == 1) {
        how = stg_ch_differ_bytes(h->source, h->mount);
    } else if (fstat(h->source, &source) != 0 || fstat(h->mount, &mount) != 0) {
        how = strerror(errno);
    } else {
        how = stg_ch_differ_stat(&source, &mount);
    }
    if (how != NULL)
        stg_ch_violation((int)h->name, h->id, "%s: what is held, with %lu names, differs: %s", when,
                         names_of(h), how);
}

void stg_ch_held_compare(uint64_t *rng, const char *when) {
    pthread_once(&held_once, held_init);
    for (unsigned i = 0; i < HELD; i++) {
        unsigned first = (unsigned)stg_ch_below(rng, 3);

        pthread_mutex_lock(&held[i].lock);
        for (unsigned k = 0; held[i].mount >= 0 && k < 3; k++)
            compare_held_locked(&held[i], (first + k) % 3, when);
        pthread_mutex_unlock(&held[i].lock);
    }
}

/* ---- the readers ---- */

static struct reader *reader_new(void *seed) {
    struct reader *r = calloc(1, sizeof(*r));

    if (r == NULL || (r->data = malloc(DATA_BYTES)) == NULL)
        stg_ch_die("memory");
    r->rng = (uint64_t)(uintptr_t)seed;
    return r;
}

static void reader_free(struct reader *r) {
    free(r->data);
    free(r);
}

void *stg_ch_read(void *seed) {
    static void (*const ways[])(struct reader *) = {
        read_file, read_file, read_file,   read_file, look_at_name, look_at_name,
        read_link, read_dir,  look_at_dir, use_held,  use_held,     use_held,
    };
    struct reader *r = reader_new(seed);

    pthread_once(&held_once, held_init);
    while (!atomic_load(&stg_ch_stop)) {
        ways[stg_ch_below(&r->rng, sizeof(ways) / sizeof(*ways))](r);
        atomic_fetch_add(&stg_ch_reads, 1);
        (void)usleep((useconds_t)stg_ch_below(&r->rng, 200));
    }
    reader_free(r);
    return NULL;
}

/* ---- work through the mount ---- */

pthread_mutex_t stg_ch_through_lock = PTHREAD_MUTEX_INITIALIZER;

static void through_is(int top, const char *path, const char *data, ssize_t bytes,
                       const char *where) {
    static char got[65536]; /* one thread works */
    int fd = openat(top, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, got, sizeof(got));

    if (bytes < 0 ? fd >= 0 || errno != ENOENT
                  : n != bytes || memcmp(got, data, (size_t)bytes) != 0)
        stg_ch_violation(-1, 0, "%s %s: %zd bytes where %zd were left (%s)", where, path, n, bytes,
                         fd < 0 ? strerror(errno) : "opened");
    if (fd >= 0)
        (void)close(fd);
}

static void through_is_both(const char *path, const char *data, ssize_t bytes) {
    through_is(MOUNT, path, data, bytes, "through the mount:");
    through_is(stg_ch_settings.source, path, data, bytes, "in the source, made through the mount:");
}

static void through_write(struct reader *r, const char *path) {
    size_t bytes = stg_ch_below(&r->rng, 40000), from = stg_ch_below(&r->rng, 1000);
    int fd = openat(MOUNT, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    struct stat st;

    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = stg_ch_next(&r->rng);

        memcpy(r->data + i, &word, sizeof(word));
    }
    if (fd < 0 || write(fd, r->data, bytes) != (ssize_t)bytes)
        stg_ch_violation(-1, 0, "write through the mount: %s: %s", path, strerror(errno));
    through_is_both(path, r->data, (ssize_t)bytes);
    if (bytes > from && fd >= 0) {
        memset(r->data + from, 'x', 1);
        if (pwrite(fd, "x", 1, (off_t)from) != 1)
            stg_ch_violation(-1, 0, "pwrite through the mount: %s", strerror(errno));
        through_is_both(path, r->data, (ssize_t)bytes);
    }
    if (fd >= 0)
        (void)close(fd);
    if (fstatat(MOUNT, path, &st, 0) != 0 || st.st_size != (off_t)bytes)
        stg_ch_violation(-1, 0, "stat of what was written through the mount: %s", path);
}

static void through_once(struct reader *r) {
    char one[STG_CH_PATH_BYTES], other[STG_CH_PATH_BYTES];
    ssize_t bytes;

    snprintf(one, sizeof(one), "through/t%u", (unsigned)stg_ch_below(&r->rng, 6));
    snprintf(other, sizeof(other), "through/u%u", (unsigned)stg_ch_below(&r->rng, 6));
    through_write(r, one);
    if (stg_ch_below(&r->rng, 2) == 0) {
        int fd = openat(MOUNT, one, O_RDONLY | O_CLOEXEC);

        bytes = fd < 0 ? -1 : read(fd, r->data, DATA_BYTES);
        if (fd >= 0)
            (void)close(fd);
        if (renameat(MOUNT, one, MOUNT, other) != 0)
            stg_ch_violation(-1, 0, "rename through the mount: %s", strerror(errno));
        through_is_both(one, NULL, -1);
        through_is_both(other, r->data, bytes);
    } else if (stg_ch_below(&r->rng, 2) == 0) {
        if (unlinkat(MOUNT, one, 0) != 0)
            stg_ch_violation(-1, 0, "unlink through the mount: %s", strerror(errno));
        through_is_both(one, NULL, -1);
    }
}

void *stg_ch_work_through(void *seed) {
    struct reader *r = reader_new(seed);

    while (!atomic_load(&stg_ch_stop)) {
        pthread_mutex_lock(&stg_ch_through_lock);
        through_once(r);
        pthread_mutex_unlock(&stg_ch_through_lock);
        atomic_fetch_add(&stg_ch_reads, 1);
        (void)usleep(2000 + (useconds_t)stg_ch_below(&r->rng, 4000));
    }
    reader_free(r);
    return NULL;
}
