/* SPDX-License-Identifier: GPL-2.0-only */
/* Copies that outlive the mount: what is kept comes back unchanged or not at all, whatever happens
 * to the disk. */
#include "tests/unit/disk_stage.h"
#include "tests/unit/unit.h"

#include "cache/disk.h"
#include "util/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct stg_disk_name name_of(const char *path, int64_t mtime_ns, uint64_t offset,
                                    uint64_t bytes) {
    return (struct stg_disk_name){
        .path = path,
        .now = {.size_bytes = (int64_t)(offset + bytes), .mtime_ns = mtime_ns},
        .offset = offset,
        .bytes = bytes};
}

static void put(struct stg_disk *disk, const char *path, int64_t mtime_ns, unsigned seed,
                size_t bytes) {
    struct stg_disk_name name = name_of(path, mtime_ns, 0, bytes);

    stg_disk_put(disk, &name, content_of(seed, bytes), stg_disk_forgotten(disk));
}

/* 1: it is there, 0: it is not; anything else fails. */
static int has(struct stg_disk *disk, const char *path, int64_t mtime_ns, unsigned seed,
               size_t bytes) {
    struct stg_disk_name name = name_of(path, mtime_ns, 0, bytes);
    stg_auto_free char *right = content_of(seed, bytes);
    stg_auto_free char *content = stg_disk_get(disk, &name);

    if (content)
        assert_memory_equal(content, right, bytes);
    return content != NULL;
}

static void test_comes_back(void **state) {
    static const size_t sizes[] = {1, 100, 2000, 4096, 100000, 1 << 20};
    struct stg_disk *disk = start(SIZE);
    char path[32];

    (void)state;
    for (unsigned i = 0; i < STG_COUNT(sizes) * 2; i++) {
        (void)snprintf(path, sizeof(path), "dir/file%u", i);
        put(disk, path, 7, i, sizes[i / 2]);
    }
    stg_disk_flush(disk);
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < STG_COUNT(sizes) * 2; i++) {
            (void)snprintf(path, sizeof(path), "dir/file%u", i);
            assert_int_equal(has(disk, path, 7, i, sizes[i / 2]), 1);
            assert_int_equal(has(disk, path, 8, i, sizes[i / 2]), 0); /* another version */
            assert_int_equal(has(disk, path, 7, i, sizes[i / 2] + 1), 0);
        }
        assert_int_equal(has(disk, "dir/file", 7, 0, 1), 0);
        stop(disk);
        disk = start(SIZE);
    }
    stop(disk);
}

/* By path and offset alone, of whatever length; and whether there is anything below a path. */
static void test_finds_any_length(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_name name = name_of("/tree/a", 0, UINT64_MAX, 3000);
    stg_auto_free char *right = content_of(1, 3000);
    char *content;

    (void)state;
    name.now = (struct stg_identity){.size_bytes = 1};
    put(disk, "/tree/a", 7, 3, 100);  /* at another offset */
    put(disk, "/tree/ab", 7, 3, 100); /* which begins as that does */
    stg_disk_flush(disk);
    assert_null(stg_disk_find(disk, &name));
    name.bytes = 3000;
    stg_disk_put(disk, &name, content_of(1, 3000), stg_disk_forgotten(disk));
    stg_disk_flush(disk);
    content = stg_disk_find(disk, &name);
    assert_non_null(content);
    assert_int_equal(name.bytes, 3000);
    assert_memory_equal(content, right, 3000);
    free(content);
    name.now.size_bytes = 2;
    assert_null(stg_disk_find(disk, &name)); /* of another form */
    name.now.size_bytes = 1;
    name.path = "/tree/none";
    assert_null(stg_disk_find(disk, &name));
    name.path = "/tree/zzz";
    assert_null(stg_disk_find(disk, &name)); /* behind all that is there */

    assert_true(stg_disk_has_below(disk, "/tree"));
    assert_true(stg_disk_has_below(disk, "/tree/a"));
    assert_false(stg_disk_has_below(disk, "/tre"));
    assert_false(stg_disk_has_below(disk, "/tree/aa"));
    assert_false(stg_disk_has_below(disk, "/zzz"));
    stg_disk_forget(disk, "/tree", true);
    stg_disk_flush(disk);
    assert_false(stg_disk_has_below(disk, "/tree"));
    stop(disk);
}

static void test_a_part_is_that_part(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_name first = name_of("f", 1, 0, 5000);
    struct stg_disk_name second = name_of("f", 1, 5000, 5000);
    char *content;

    (void)state;
    first.now.size_bytes = second.now.size_bytes = 10000;
    stg_disk_put(disk, &first, content_of(1, 5000), 0);
    stg_disk_put(disk, &second, content_of(3, 5000), 0);
    stg_disk_flush(disk);
    content = stg_disk_get(disk, &second);
    assert_non_null(content);
    {
        stg_auto_free char *right = content_of(3, 5000);

        assert_memory_equal(content, right, 5000);
    }
    free(content);
    second.bytes = 4999;
    assert_null(stg_disk_get(disk, &second));
    stop(disk);
}

static void test_the_last_version_is_kept(void **state) {
    struct stg_disk *disk = start(SIZE);

    (void)state;
    put(disk, "f", 1, 1, 3000);
    put(disk, "f", 2, 3, 3000);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "f", 1, 1, 3000), 0);
    assert_int_equal(has(disk, "f", 2, 3, 3000), 1);
    assert_int_equal(stg_disk_view(disk).entries, 1);
    stop(disk);
}

static void test_forgotten_at_once(void **state) {
    struct stg_disk *disk = start(SIZE);

    (void)state;
    put(disk, "a", 1, 1, 100);
    put(disk, "a/b", 1, 2, 100);
    put(disk, "a/b/c", 1, 3, 100);
    put(disk, "ab", 1, 4, 100);
    stg_disk_flush(disk);
    stg_disk_forget(disk, "a", false);
    assert_int_equal(has(disk, "a", 1, 1, 100), 0);
    assert_int_equal(has(disk, "a/b", 1, 2, 100), 1);
    stg_disk_forget(disk, "a", true);
    assert_int_equal(has(disk, "a/b", 1, 2, 100), 0);
    assert_int_equal(has(disk, "a/b/c", 1, 3, 100), 0);
    assert_int_equal(has(disk, "ab", 1, 4, 100), 1);
    put(disk, "a/b", 1, 5, 100); /* what comes later is not meant */
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "a/b", 1, 5, 100), 1);
    assert_int_equal(has(disk, "a/b/c", 1, 3, 100), 0);
    assert_int_equal(has(disk, "ab", 1, 4, 100), 1);
    assert_int_equal(stg_disk_view(disk).entries, 2);
    stop(disk);
}

/* Without anybody's asking for it. */
static void test_written_before_long(void **state) {
    struct stg_disk *disk = start(SIZE);

    (void)state;
    put(disk, "f", 1, 1, 100);
    for (int i = 0; i < 2000 && stg_disk_view(disk).queued_bytes; i++)
        (void)usleep(10000); /* looked at again, for twenty seconds */
    assert_int_equal(stg_disk_view(disk).written, 1);
    assert_int_equal(has(disk, "f", 1, 1, 100), 1);
    stop(disk);
}

/* What was fetched before a change that its identity does not show is not kept after it. */
static void test_not_kept_after_it_was_forgotten(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_name name = name_of("a/b", 1, 0, 100);
    struct stg_disk_name other = name_of("c", 1, 0, 100);
    uint64_t before = stg_disk_forgotten(disk);
    uint64_t after;

    (void)state;
    stg_disk_forget(disk, "a", true);
    after = stg_disk_forgotten(disk);
    stg_disk_put(disk, &name, content_of(1, 100), before);
    stg_disk_put(disk, &other, content_of(1, 100), before);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "a/b", 1, 1, 100), 0);
    assert_int_equal(has(disk, "c", 1, 1, 100), 1);
    stg_disk_put(disk, &name, content_of(3, 100), after);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "a/b", 1, 3, 100), 1);
    for (int i = 0; i < 100; i++) /* more than are remembered one by one */
        stg_disk_forget(disk, "x", false);
    stg_disk_put(disk, &other, content_of(5, 100), after);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "c", 1, 1, 100), 1);
    stop(disk);
}

/* The process is killed before what was to be forgotten is: it is not given to the next one. */
static void test_killed_before_it_forgot(void **state) {
    struct stg_disk_report report;
    struct stg_disk *disk = start(SIZE);
    pid_t pid;

    (void)state;
    put(disk, "f", 1, 1, 100);
    stop(disk);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        disk = start(SIZE);
        stg_disk_forget(disk, "f", false);
        (void)raise(SIGKILL);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_true(report.unfinished);
    disk = start(SIZE);
    assert_int_equal(has(disk, "f", 1, 1, 100), 0);
    put(disk, "f", 1, 3, 100);
    stg_disk_forget(disk, "g", false);
    stop(disk);
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_false(report.unfinished);
    disk = start(SIZE);
    assert_int_equal(has(disk, "f", 1, 3, 100), 1);
    stop(disk);
}

/* Who has the folder is about to end: the next one waits for that. */
static void test_the_next_one_waits(void **state) {
    struct stg_disk *disk;
    int ends[2];
    char byte;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        disk = start(SIZE);
        put(disk, "f", 1, 1, 100);
        stg_disk_ending(disk);
        (void)!write(ends[1], "x", 1);
        (void)usleep(300000); /* what it does meanwhile */
        stop(disk);
        _exit(0);
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    disk = start(SIZE);
    assert_int_equal(has(disk, "f", 1, 1, 100), 1);
    stop(disk);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    stg_fd_close(ends[0]);
    stg_fd_close(ends[1]);
}

static void note_folder(const char *path, void *text) {
    (void)strcat(text, *path ? path : ".");
    (void)strcat(text, " ");
}

static void test_folders(void **state) {
    static const char *const paths[] = {"z",     "a/b/c/1", "a/b.c", "a/b/1",  "a/b/2",
                                        "a-b/1", "/77",     "a/x",   "ab/c/1", "0"};
    struct stg_disk *disk = start(SIZE);
    char text[256] = "";

    (void)state;
    for (size_t i = 0; i < STG_COUNT(paths); i++)
        put(disk, paths[i], 1, 1, 10);
    stg_disk_flush(disk);
    stg_disk_each_folder(disk, note_folder, text);
    assert_string_equal(text, ". a-b a a/b a/b/c ab/c ");
    stop(disk);
}

struct visited {
    char text[256];
    unsigned left;
};

static bool note_recent(const char *path, void *context) {
    struct visited *visited = context;

    note_folder(path, visited->text);
    return --visited->left;
}

static void test_recent(void **state) {
    static const char *const paths[] = {"first", "a/used", "/77", "a/used too", "last"};
    struct stg_disk_name part = name_of("part", 1, 4096, 10);
    struct visited all = {.left = 100};
    struct visited some = {.left = 2};
    struct stg_disk *disk = start(SIZE);

    (void)state;
    for (size_t i = 0; i < STG_COUNT(paths); i++)
        put(disk, paths[i], 1, 1, 10);
    stg_disk_put(disk, &part, content_of(1, 10), stg_disk_forgotten(disk));
    stg_disk_flush(disk);
    assert_true(has(disk, "a/used", 1, 1, 10));
    assert_true(has(disk, "a/used too", 1, 1, 10));
    stg_disk_flush(disk);
    stg_disk_each_recent(disk, INT64_MAX, note_recent, &all);
    assert_string_equal(all.text, "a/used too a/used last first ");
    stg_disk_each_recent(disk, INT64_MAX, note_recent, &some);
    assert_string_equal(some.text, "a/used too a/used ");
    some = (struct visited){.left = 100};
    stg_disk_each_recent(disk, 1, note_recent, &some); /* that is over */
    assert_string_equal(some.text, "");
    stop(disk);
}

static uint64_t bytes_on_disk(void) {
    DIR *stream = opendir(stage);
    const struct dirent *entry;
    uint64_t bytes = 0;

    assert_non_null(stream);
    while ((entry = readdir(stream))) {
        struct stat info;

        if (!fstatat(dirfd(stream), entry->d_name, &info, 0) && S_ISREG(info.st_mode))
            bytes += (uint64_t)info.st_size;
    }
    (void)closedir(stream);
    return bytes;
}

/* More and more comes; what is asked for all the time stays, and the folder is never too large. */
static void test_limit(void **state) {
    const uint64_t size = UINT64_C(8) << 20;
    struct stg_disk *disk = start(size);
    char path[32];

    (void)state;
    put(disk, "used", 1, 1, 5000);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "used", 1, 1, 5000), 1);
    for (unsigned i = 0; i < 3000; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i);
        put(disk, path, 1, i * 2 + 1, 100 + i * 37 % 20000);
        if (i % 100 == 99) {
            stg_disk_flush(disk);
            assert_true(bytes_on_disk() <= size);
        }
    }
    assert_true(stg_disk_view(disk).evicted > 1000);
    assert_true(stg_disk_view(disk).used_bytes <= stg_disk_view(disk).limit_bytes);
    assert_int_equal(stg_disk_view(disk).overrun, 0);
    assert_int_equal(has(disk, "used", 1, 1, 5000), 1);
    assert_int_equal(has(disk, "file2999", 1, 5999, 100 + 2999 * 37 % 20000), 1);
    assert_int_equal(has(disk, "file0", 1, 1, 100), 0);
    stop(disk);
    disk = start(size * 4);
    for (unsigned i = 0; i < 3000; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i);
        put(disk, path, 2, i * 2 + 1, 100 + i * 37 % 20000);
        if (i % 500 == 499)
            stg_disk_flush(disk);
    }
    assert_true(bytes_on_disk() > size * 2); /* it may be larger than it was before */
    assert_int_equal(has(disk, "file2999", 2, 5999, 100 + 2999 * 37 % 20000), 1);
    assert_int_equal(has(disk, "file1500", 2, 3001, 100 + 1500 * 37 % 20000), 1);
    stop(disk);
    disk = start(size / 2); /* less than what there is */
    put(disk, "new", 1, 1, 5000);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "new", 1, 1, 5000), 1);
    assert_true(bytes_on_disk() <= size / 2);
    stop(disk);
}

/* Entries of all sizes by turns, so that free pages are in pieces. */
static void test_churn(void **state) {
    const uint64_t size = UINT64_C(4) << 20;
    struct stg_disk *disk = start(size);
    unsigned there = 0;
    char path[32];

    (void)state;
    for (unsigned i = 0; i < 4000; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i * 7919 % 500);
        put(disk, path, i, i, (i * 2654435761U) % (i % 10 ? 9000 : 300000) + 1);
        if (i % 50 == 49)
            stg_disk_flush(disk);
    }
    for (unsigned i = 3900; i < 4000; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i * 7919 % 500);
        there += (unsigned)has(disk, path, i, i, (i * 2654435761U) % (i % 10 ? 9000 : 300000) + 1);
    }
    assert_in_range(there, 50, 100);
    assert_int_equal(stg_disk_view(disk).state, STG_DISK_OPEN);
    assert_true(bytes_on_disk() <= size);
    stop(disk);
}

/* ---- the folder ---- */

static void refused(int error, const char *source) {
    struct stg_disk *disk = NULL;

    assert_int_equal(stg_disk_claim(stage, source, &disk), error);
    assert_null(disk);
}

static unsigned count_names(void) {
    DIR *stream = opendir(stage);
    unsigned count = 0;

    assert_non_null(stream);
    while (readdir(stream))
        count++;
    (void)closedir(stream);
    return count - 2;
}

static void test_what_is_not_taken(void **state) {
    char other[512];
    struct stg_disk *disk;
    int fd;

    (void)state;
    assert_int_equal(mkdir(stage, 0700), 0);
    (void)snprintf(other, sizeof(other), "%s/precious", stage);
    fd = open(other, O_CREAT | O_WRONLY, 0600);
    stg_fd_close(fd);
    refused(-EINVAL, SOURCE); /* something else is in it */
    assert_int_equal(count_names(), 1);
    (void)unlink(other);
    assert_int_equal(chmod(stage, 0720), 0);
    refused(-EPERM, SOURCE);
    assert_int_equal(count_names(), 0);
    assert_int_equal(chmod(stage, 0700), 0);
    disk = start(SIZE);
    put(disk, "f", 1, 1, 100);
    refused(-EBUSY, SOURCE); /* another mount */
    stop(disk);
    refused(-EINVAL, "fuse.test elsewhere /");
    if (!geteuid()) {
        assert_int_equal(chown(stage, 1, (gid_t)-1), 0);
        refused(-EPERM, SOURCE);
        assert_int_equal(chown(stage, 0, (gid_t)-1), 0);
    }
    disk = start(SIZE);
    assert_int_equal(has(disk, "f", 1, 1, 100), 1); /* nothing was lost by that */
    stop(disk);
    (void)snprintf(other, sizeof(other), "%s/stagefs-stage", stage);
    fd = open(other, O_TRUNC | O_WRONLY);
    assert_int_equal(dprintf(fd, "stagefs stage directory, format 9\n"), 34);
    stg_fd_close(fd);
    refused(-EINVAL, SOURCE);
    (void)snprintf(stage, sizeof(stage), "%s/no/stage", folder);
    refused(-ENOENT, SOURCE);
    (void)snprintf(stage, sizeof(stage), "%s/stage", folder);
}

static void test_a_long_path_is_not_kept(void **state) {
    struct stg_disk *disk = start(SIZE);
    char path[1000];

    (void)state;
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    put(disk, path, 1, 1, 10);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, path, 1, 1, 10), 0);
    path[494] = '\0'; /* the longest */
    put(disk, path, 1, 1, 10);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, path, 1, 1, 10), 1);
    stg_disk_forget(disk, path, true);
    assert_int_equal(has(disk, path, 1, 1, 10), 0);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, path, 1, 1, 10), 0);
    stop(disk);
}

/* ---- damage ---- */

static void data_path(char path[400]) { (void)snprintf(path, 400, "%s/data.mdb", stage); }

static void fill_store(unsigned count) {
    struct stg_disk *disk = start(SIZE);
    char path[32];

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i);
        put(disk, path, 1, i, 1000 + i * 97);
    }
    stop(disk);
}

/* How many of them are there; none may be wrong. */
static unsigned count_store(struct stg_disk *disk, unsigned count) {
    unsigned there = 0;
    char path[32];

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i);
        there += (unsigned)has(disk, path, 1, i, 1000 + i * 97);
    }
    return there;
}

/* Changes `bytes` bytes of the file, from the page `from` on. */
static void damage(unsigned seed, unsigned bytes, off_t from) {
    char path[400];
    struct stat info;
    int fd;

    data_path(path);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0 && !fstat(fd, &info) && info.st_size > from);
    srandom(seed);
    for (unsigned i = 0; i < bytes; i++) {
        char value = (char)random();

        assert_int_equal(pwrite(fd, &value, 1, from + random() % (info.st_size - from)), 1);
    }
    stg_fd_close(fd);
}

/* Of the sanitizers; where there is none, NULL. */
extern void __sanitizer_set_report_path(const char *path) __attribute__((weak));

/* How many stores are damaged; each is slow with a sanitizer, whose builds see fewer of them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DAMAGED 12
#else
#define DAMAGED 60
#endif

static bool quiet;

/* What LMDB does to the process that writes a damaged store is known, and of no account. */
static void be_quiet(void) {
    if (quiet && __sanitizer_set_report_path)
        __sanitizer_set_report_path("/dev/null");
}

/* Anywhere in the file: each time what comes back is right, and the process goes on. */
static void test_damaged_bytes(void **state) {
    (void)state;
    quiet = true;
    for (unsigned seed = 0; seed < DAMAGED; seed++) {
        struct stg_disk *disk;

        empty(stage);
        fill_store(100);
        damage(seed, seed % 3 ? 20 : 2000, seed % 2 ? 0 : 8192);
        disk = start(SIZE);
        (void)count_store(disk, 100);
        put(disk, "more", 1, 1, 5000);
        stg_disk_flush(disk);
        (void)has(disk, "more", 1, 1, 5000);
        stop(disk);
    }
    quiet = false;
}

/* A few bytes of many pages, at the same place of each: where the tree is, and where content is. */
static void test_damaged_pages(void **state) {
    char path[400];

    (void)state;
    quiet = true;
    data_path(path);
    for (unsigned seed = 0; seed < DAMAGED / 2; seed++) {
        struct stg_disk *disk;
        struct stat info;
        int fd;

        empty(stage);
        fill_store(100);
        fd = open(path, O_RDWR);
        assert_true(fd >= 0 && !fstat(fd, &info));
        for (off_t at = 16384; at < info.st_size; at += 4096 * (off_t)(1 + seed % 7))
            assert_int_equal(pwrite(fd, "damaged", 7, at + seed * 131 % 4000), 7);
        stg_fd_close(fd);
        disk = start(SIZE);
        (void)count_store(disk, 100);
        put(disk, "more", 1, 1, 5000);
        stg_disk_flush(disk);
        stop(disk);
    }
    quiet = false;
}

static void test_damaged_content_is_noticed(void **state) {
    struct stg_disk_report report;
    struct stg_disk *disk;
    stg_auto_free char *data = malloc(SIZE);
    stg_auto_free char *content = content_of(1, 100000);
    char *at;
    char path[400];
    ssize_t bytes;
    int fd;

    (void)state;
    disk = start(SIZE);
    put(disk, "f", 1, 1, 100000);
    put(disk, "g", 1, 2, 100000);
    stop(disk);
    data_path(path);
    fd = open(path, O_RDWR);
    bytes = pread(fd, data, SIZE, 0);
    assert_true(bytes > 0);
    at = memmem(data, (size_t)bytes, content + 5000, 64);
    assert_non_null(at);
    *at ^= 1;
    assert_int_equal(pwrite(fd, at, 1, at - data), 1);
    stg_fd_close(fd);

    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_string_equal(report.source, SOURCE);
    assert_int_equal(report.entries, 1);
    assert_int_equal(report.damaged, 1);
    assert_false(report.unreadable || report.repaired);
    disk = start(SIZE);
    assert_int_equal(has(disk, "f", 1, 1, 100000), 0);
    assert_int_equal(has(disk, "g", 1, 2, 100000), 1);
    assert_int_equal(stg_disk_view(disk).corrupt, 1);
    stg_disk_flush(disk);
    assert_int_equal(stg_disk_view(disk).entries, 1);
    put(disk, "f", 1, 1, 100000);
    stop(disk);
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_int_equal(report.entries, 2);
    assert_int_equal(report.damaged, 0);
}

static void test_repair(void **state) {
    struct stg_disk_report report;
    struct stg_disk *disk;
    char path[400];

    (void)state;
    fill_store(50);
    damage(5, 20000, 8192);
    quiet = true;
    assert_int_equal(stg_disk_check(stage, true, &report), 0);
    quiet = false;
    assert_true(report.repaired && (report.unreadable || report.damaged));
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_false(report.unreadable || report.damaged || report.repaired);
    disk = start(SIZE);
    put(disk, "more", 1, 1, 5000);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "more", 1, 1, 5000), 1);
    assert_int_equal(stg_disk_check(stage, false, &report), -EBUSY);
    stop(disk);
    data_path(path);
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_true(report.unreadable && !report.repaired);
    assert_int_equal(stg_disk_check(folder, false, &report), -EINVAL);
}

/* The file is cut short while it is in use: as where the disk cannot be read. */
static void test_unreadable_while_in_use(void **state) {
    struct stg_disk *disk;
    char path[400];

    (void)state;
    fill_store(100);
    quiet = true;
    disk = start(SIZE);
    quiet = false;
    data_path(path);
    assert_int_equal(truncate(path, 8192), 0);
    assert_int_equal(count_store(disk, 100), 0);
    assert_int_equal(stg_disk_view(disk).state, STG_DISK_FAILED);
    put(disk, "more", 1, 1, 5000);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "more", 1, 1, 5000), 0);
    stop(disk);
    disk = start(SIZE);
    put(disk, "more", 1, 1, 5000);
    stg_disk_flush(disk);
    assert_int_equal(has(disk, "more", 1, 1, 5000), 1);
    stop(disk);
}

static void write_for_ever(int ready_fd) {
    struct stg_disk *disk = start(SIZE);
    char path[32];

    for (unsigned i = 0;; i++) {
        (void)snprintf(path, sizeof(path), "file%u", i % 300);
        put(disk, path, 1, i % 300, 1000 + i % 300 * 97);
        if (i % 40 == 39)
            stg_disk_flush(disk);
        if (i == 400)
            (void)!write(ready_fd, "x", 1);
    }
}

/* Killed in the middle of it, again and again: what is there is whole, and most of it is there. */
static void test_killed_while_writing(void **state) {
    (void)state;
    for (int round = 0; round < 8; round++) {
        struct stg_disk_report report;
        struct stg_disk *disk;
        int ends[2];
        char byte;
        pid_t pid;

        assert_int_equal(pipe(ends), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (!pid) {
            write_for_ever(ends[1]);
            _exit(0);
        }
        assert_int_equal(read(ends[0], &byte, 1), 1);
        (void)usleep((useconds_t)(round * 3001)); /* to be killed at another moment each time */
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        stg_fd_close(ends[0]);
        stg_fd_close(ends[1]);
        assert_int_equal(stg_disk_check(stage, false, &report), 0);
        assert_int_equal(report.damaged, 0);
        assert_false(report.unreadable);
        disk = start(SIZE);
        assert_int_equal(count_store(disk, 300), 300);
        stop(disk);
    }
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_comes_back),
        TEST(test_finds_any_length),
        TEST(test_a_part_is_that_part),
        TEST(test_the_last_version_is_kept),
        TEST(test_forgotten_at_once),
        TEST(test_written_before_long),
        TEST(test_not_kept_after_it_was_forgotten),
        TEST(test_killed_before_it_forgot),
        TEST(test_the_next_one_waits),
        TEST(test_folders),
        TEST(test_recent),
        TEST(test_limit),
        TEST(test_churn),
        TEST(test_what_is_not_taken),
        TEST(test_a_long_path_is_not_kept),
        TEST(test_damaged_bytes),
        TEST(test_damaged_pages),
        TEST(test_damaged_content_is_noticed),
        TEST(test_repair),
        TEST(test_unreadable_while_in_use),
        TEST(test_killed_while_writing),
    };

    (void)pthread_atfork(NULL, NULL, be_quiet); /* cannot fail with memory */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
