/* SPDX-License-Identifier: GPL-2.0-only */
/* Large files, beside the store: what is kept comes back unchanged or not at all, and is not
 * changed while somebody has it. */
#include "tests/unit/disk_stage.h"
#include "tests/unit/unit.h"

#include "cache/disk.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)256 << 10)
#define LARGE_BYTES (PIECE * 11 + 1000)

static void put(struct stg_disk *disk, const char *path, unsigned seed, size_t bytes) {
    struct stg_disk_name name = {.path = path, .now.size_bytes = (int64_t)bytes, .bytes = bytes};

    (void)stg_disk_put(disk, &name, content_of(seed, bytes), stg_disk_forgotten(disk));
}

static struct stg_disk_name large_name(const char *path, int64_t mtime_ns) {
    return (struct stg_disk_name){.path = path,
                                  .now = {.size_bytes = LARGE_BYTES, .mtime_ns = mtime_ns},
                                  .bytes = LARGE_BYTES};
}

/* Of a piece: where it is, and how long. */
static struct stg_disk_name piece_name(const char *path, int64_t mtime_ns, size_t index) {
    struct stg_disk_name name = large_name(path, mtime_ns);

    name.offset = index * PIECE;
    name.bytes = LARGE_BYTES - name.offset < PIECE ? LARGE_BYTES - name.offset : PIECE;
    return name;
}

static void put_piece(struct stg_disk *disk, const char *path, int64_t mtime_ns, unsigned seed,
                      size_t index) {
    struct stg_disk_name name = piece_name(path, mtime_ns, index);
    stg_auto_free char *whole = content_of(seed, LARGE_BYTES);
    char *content = malloc(name.bytes + 1);

    assert_non_null(content);
    memcpy(content, whole + name.offset, name.bytes);
    assert_true(stg_disk_put(disk, &name, content, stg_disk_forgotten(disk)));
}

static void put_large(struct stg_disk *disk, const char *path, int64_t mtime_ns, unsigned seed) {
    for (size_t i = 0; i * PIECE < LARGE_BYTES; i++)
        put_piece(disk, path, mtime_ns, seed, i);
    stg_disk_flush(disk);
}

static int has_piece(struct stg_disk *disk, const char *path, int64_t mtime_ns, unsigned seed,
                     size_t index) {
    struct stg_disk_name name = piece_name(path, mtime_ns, index);
    stg_auto_free char *whole = content_of(seed, LARGE_BYTES);
    stg_auto_free char *content = stg_disk_get(disk, &name);

    if (content)
        assert_memory_equal(content, whole + name.offset, name.bytes);
    return content != NULL;
}

static int take(struct stg_disk *disk, const char *path, int64_t mtime_ns,
                struct stg_disk_whole *ret_whole) {
    struct stg_disk_name name = large_name(path, mtime_ns);

    return stg_disk_take_whole(disk, &name, 0, ret_whole);
}

static int open_taken(const struct stg_disk_whole *whole, int flags) {
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", whole->fd);
    return open(path, flags | O_CLOEXEC);
}

static void check_taken(const struct stg_disk_whole *whole, unsigned seed) {
    stg_auto_free char *right = content_of(seed, LARGE_BYTES);
    stg_auto_free char *content = malloc(LARGE_BYTES + 1);
    stg_auto_fd int fd = open_taken(whole, O_RDONLY);

    assert_non_null(content);
    assert_int_equal(pread(fd, content, LARGE_BYTES + 1, 0), LARGE_BYTES);
    assert_memory_equal(content, right, LARGE_BYTES);
}

static void give(struct stg_disk *disk, const struct stg_disk_whole *whole) {
    stg_disk_release_whole(disk, whole->number);
    (void)close(whole->fd);
}

/* How many files there are beside the store. */
static unsigned count_large(void) {
    char path[320];
    unsigned count = 0;
    const struct dirent *entry;
    DIR *stream;

    (void)snprintf(path, sizeof(path), "%s/large", stage);
    stream = opendir(path);
    while (stream && (entry = readdir(stream)))
        count += entry->d_name[0] != '.';
    if (stream)
        (void)closedir(stream);
    return count;
}

/* Writes into the file of that number. */
static void damage_large(uint64_t number, off_t offset) {
    char path[340];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/large/%jx", stage, (uintmax_t)number);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "damaged", 7, offset), 7);
    (void)close(fd);
}

static void test_large_comes_back(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_name name = large_name("dir/large", 7);
    struct stg_disk_whole whole;
    struct stg_disk_whole second;

    (void)state;
    for (size_t i = 0; i < 11; i++)
        put_piece(disk, "dir/large", 7, 1, i);
    stg_disk_flush(disk);
    assert_int_equal(has_piece(disk, "dir/large", 7, 1, 3), 1);
    assert_int_equal(has_piece(disk, "dir/large", 7, 1, 11), 0);
    assert_int_equal(has_piece(disk, "dir/large", 8, 1, 3), 0); /* another version */
    assert_false(stg_disk_has_whole(disk, &name));
    assert_int_equal(take(disk, "dir/large", 7, &whole), -ENOENT);
    put_piece(disk, "dir/large", 7, 1, 11);
    stg_disk_flush(disk);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(count_large(), 1);
        assert_true(round || stg_disk_view(disk).large_bytes >= LARGE_BYTES);
        assert_true(stg_disk_has_whole(disk, &name));
        assert_int_equal(take(disk, "dir/large", 8, &whole), -ENOENT);
        assert_int_equal(take(disk, "dir/large", 7, &whole), 0);
        check_taken(&whole, 1);
        assert_int_equal(take(disk, "dir/large", 7, &second), -EBUSY);
        give(disk, &whole);
        assert_int_equal(take(disk, "dir/large", 7, &whole), 0);
        give(disk, &whole);
        for (size_t i = 0; i < 12; i++)
            assert_int_equal(has_piece(disk, "dir/large", 7, 1, i), 1);
        assert_true(stg_disk_has_below(disk, "dir"));
        stop(disk);
        disk = start(SIZE);
    }
    put_large(disk, "dir/large", 8, 3); /* another version takes the place of that */
    assert_int_equal(take(disk, "dir/large", 7, &whole), -ENOENT);
    assert_int_equal(take(disk, "dir/large", 8, &whole), 0);
    check_taken(&whole, 3);
    give(disk, &whole);
    assert_int_equal(count_large(), 1);
    stop(disk);
}

/* Time is given to it bit by bit. */
static void test_large_is_looked_through(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_name name = large_name("large", 7);
    struct stg_disk_whole whole;

    (void)state;
    put_large(disk, "large", 7, 1);
    assert_int_equal(stg_disk_take_whole(disk, &name, 1, &whole), -EAGAIN);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(has_piece(disk, "large", 7, 1, i), 1);
    assert_int_equal(stg_disk_take_whole(disk, &name, 1, &whole), 0); /* by these */
    check_taken(&whole, 1);
    give(disk, &whole);
    stop(disk);
}

static void test_large_is_damaged(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_report report;
    struct stg_disk_whole whole;

    (void)state;
    put_large(disk, "large", 7, 1);
    put_large(disk, "other", 7, 3);
    assert_int_equal(take(disk, "large", 7, &whole), 0);
    give(disk, &whole);
    stop(disk);
    damage_large(whole.number, PIECE * 5 + 17);
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_int_equal(report.damaged, 1);
    assert_int_equal(report.entries, 1);
    assert_int_equal(report.bytes, LARGE_BYTES);
    disk = start(SIZE);
    assert_int_equal(take(disk, "large", 7, &whole), -EBADMSG);
    assert_int_equal(stg_disk_view(disk).corrupt, 1);
    stg_disk_flush(disk);
    assert_int_equal(has_piece(disk, "large", 7, 1, 1), 0); /* it is forgotten */
    assert_int_equal(count_large(), 1);
    put_large(disk, "large", 7, 1);
    assert_int_equal(take(disk, "large", 7, &whole), 0);
    check_taken(&whole, 1);
    give(disk, &whole);
    stop(disk);
    damage_large(whole.number, 0);
    disk = start(SIZE);
    assert_int_equal(has_piece(disk, "large", 7, 1, 0), 0);
    assert_int_equal(stg_disk_view(disk).corrupt, 1);
    put_large(disk, "large", 7, 1);
    assert_int_equal(take(disk, "large", 7, &whole), 0);
    give(disk, &whole);
    stop(disk);
    damage_large(whole.number, 100);
    assert_int_equal(stg_disk_check(stage, true, &report), 0);
    assert_int_equal(report.damaged, 1);
    assert_int_equal(count_large(), 1);
    assert_int_equal(stg_disk_check(stage, false, &report), 0);
    assert_int_equal(report.damaged, 0);
}

/* What is in use is not changed, whatever becomes of it; and who has to change it takes it away. */
static void test_large_in_use(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_whole whole;
    struct stg_disk_whole other;
    stg_auto_fd int fd = -1;

    (void)state;
    put_large(disk, "large", 7, 1);
    assert_int_equal(take(disk, "large", 7, &whole), 0);
    stg_disk_forget(disk, "large", false);
    assert_int_equal(take(disk, "large", 7, &other), -ENOENT);
    stg_disk_flush(disk);
    assert_int_equal(count_large(), 0);
    check_taken(&whole, 1);
    put_large(disk, "large", 7, 3); /* as of a file that shows no other times */
    check_taken(&whole, 1);
    assert_int_equal(take(disk, "large", 7, &other), 0);
    check_taken(&other, 3);
    give(disk, &whole);
    stg_disk_leave_whole(disk, other.number);
    fd = open_taken(&other, O_WRONLY);
    assert_int_equal(pwrite(fd, "written", 7, 100), 7);
    assert_int_equal(take(disk, "large", 7, &whole), -ENOENT);
    assert_int_equal(has_piece(disk, "large", 7, 3, 0), 0);
    give(disk, &other);
    assert_int_equal(take(disk, "large", 7, &whole), -ENOENT);
    put_large(disk, "large", 7, 3);
    assert_int_equal(take(disk, "large", 7, &whole), 0);
    check_taken(&whole, 3);
    give(disk, &whole);
    assert_int_equal(stg_disk_view(disk).corrupt, 0);
    stop(disk);
}

/* All of the folder's files. */
static uint64_t taken_bytes(void) { return stg_disk_bytes_in(stage); }

static void test_large_limit(void **state) {
    struct stg_disk *disk = start(SIZE);
    struct stg_disk_whole whole;
    char path[32];
    unsigned kept = 0;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(path, sizeof(path), "large%u", i);
        put_large(disk, path, 7, 1);
        assert_true(taken_bytes() <= SIZE);
        if (i < 3) { /* what was asked for stays for longer */
            assert_int_equal(take(disk, path, 7, &whole), 0);
            give(disk, &whole);
        }
    }
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(path, sizeof(path), "large%u", i);
        kept += !take(disk, path, 7, &whole) && (check_taken(&whole, 1), give(disk, &whole), true);
        assert_true(i != 2 || kept == 3);
    }
    assert_true(kept >= 7 && kept < 11);
    assert_int_equal(count_large(), kept);
    /* The store grows: they go. */
    for (unsigned i = 0; i < 40; i++) {
        (void)snprintf(path, sizeof(path), "small%u", i);
        put(disk, path, 1, 600000);
        stg_disk_flush(disk);
    }
    put(disk, "last", 1, 10);
    stg_disk_flush(disk);
    assert_true(count_large() < kept);
    assert_true(taken_bytes() <= SIZE);
    /* And there is no room beside the store: pieces go into it. */
    put_large(disk, "late", 7, 5);
    assert_int_equal(has_piece(disk, "late", 7, 5, 4), 1);
    assert_true(taken_bytes() <= SIZE);
    stop(disk);
    disk = start(SIZE / 4); /* which is less than the store: all is begun anew */
    assert_int_equal(count_large(), 0);
    put_large(disk, "large", 7, 1);
    put_large(disk, "again", 7, 1);
    assert_true(count_large() >= 1);
    stop(disk);
    disk = start(STG_DISK_MIN_BYTES);
    stg_disk_flush(disk);
    for (int i = 0; i < 200 && count_large() > 1; i++) /* nobody waits for that */
        (void)usleep(10000);
    assert_true(taken_bytes() <= STG_DISK_MIN_BYTES);
    stop(disk);
}

static unsigned count_whole(struct stg_disk *disk, unsigned of) {
    struct stg_disk_whole whole;
    char path[32];
    unsigned count = 0;

    for (unsigned i = 0; i < of; i++) {
        (void)snprintf(path, sizeof(path), "large%u", i);
        if (take(disk, path, 7, &whole))
            continue;
        give(disk, &whole);
        count++;
    }
    return count;
}

/* Of a file that somebody reads a part of, the rest may never come: no room is made for that. */
static void test_large_begun(void **state) {
    const uint64_t bytes = SIZE * 5 / 8;
    struct stg_disk_name begun = {
        .path = "begun", .now.size_bytes = (int64_t)bytes, .bytes = stg_fill_piece_bytes(bytes)};
    struct stg_disk *disk = start(SIZE);
    unsigned count = 0;
    unsigned whole;
    char path[32];

    (void)state;
    while (count < 20 && count_large() == count) { /* until one had to go */
        (void)snprintf(path, sizeof(path), "large%u", count++);
        put_large(disk, path, 7, 1);
    }
    whole = count_whole(disk, count);
    assert_true(whole >= 5);
    assert_true(stg_disk_put(disk, &begun, content_of(2, begun.bytes), stg_disk_forgotten(disk)));
    stg_disk_flush(disk);
    assert_int_equal(count_large(), count_whole(disk, count) + 1);
    assert_true(count_whole(disk, count) + 1 >= whole);
    assert_true(taken_bytes() <= SIZE);
    stop(disk);
}

/* A file that no entry names is of one who was killed. */
static void test_large_left_over(void **state) {
    struct stg_disk *disk = start(SIZE);
    char path[340];
    int fd;

    (void)state;
    put_large(disk, "large", 7, 1);
    stop(disk);
    (void)snprintf(path, sizeof(path), "%s/large/%x", stage, 0xffff);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(count_large(), 2);
    disk = start(SIZE);
    put(disk, "small", 1, 10);
    stg_disk_flush(disk); /* it has counted before that */
    assert_int_equal(count_large(), 1);
    assert_int_equal(has_piece(disk, "large", 7, 1, 2), 1);
    stop(disk);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_large_comes_back), TEST(test_large_is_looked_through),
        TEST(test_large_is_damaged), TEST(test_large_in_use),
        TEST(test_large_limit),      TEST(test_large_begun),
        TEST(test_large_left_over),
    };

    (void)signal(SIGIO, SIG_IGN); /* as the daemon: a lease that is asked for may be broken */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
