/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything that can fail fails once, in turn: the n-th allocation, call of the kernel or call of
 * the source, for n = 1, 2, … until nothing fails any more. Nothing wrong is served, who waits is
 * told once, the next call works, and nothing is left at the end (the sanitizers look for leaks).
 *
 * The program is linked so that calls of the libraries' functions come to the __wrap_ ones here.
 */
#include "tests/unit/unit.h"

#include "cache/codec.h"
#include "cache/parallel_read.h"
#include "cache/pressure.h"
#include "cache/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- failing ---- */

static struct {
    _Atomic unsigned calls;
    _Atomic unsigned fail_at; /* 0: none */
    _Atomic int failed;       /* the errno that was given */
} fault;

static void arm(unsigned fail_at) {
    fault.fail_at = 0;
    fault.calls = 0;
    fault.failed = 0;
    fault.fail_at = fail_at;
}

/* True where it failed. */
static bool disarm(void) {
    fault.fail_at = 0;
    return fault.failed != 0;
}

/* Counts a call; true where this is the one that fails, with errno set. */
static bool fails(int error) {
    if (!fault.fail_at || atomic_fetch_add(&fault.calls, 1) + 1 != fault.fail_at)
        return false;
    fault.failed = error;
    errno = error;
    return true;
}

/* The linker's names: __real_x is x as it was (ld(1), --wrap). */
#define WRAP(type, name, declared, passed, error, failure)                                         \
    type __real_##name declared;                                                                   \
    type __wrap_##name declared;                                                                   \
    type __wrap_##name declared { return fails(error) ? (failure) : __real_##name passed; }

WRAP(void *, malloc, (size_t bytes), (bytes), ENOMEM, NULL)
WRAP(void *, calloc, (size_t count, size_t bytes), (count, bytes), ENOMEM, NULL)
WRAP(void *, realloc, (void *old, size_t bytes), (old, bytes), ENOMEM, NULL)
WRAP(ssize_t, pread64, (int fd, void *to, size_t bytes, off64_t offset), (fd, to, bytes, offset),
     EIO, -1)
WRAP(ssize_t, pwrite64, (int fd, const void *from, size_t bytes, off64_t offset),
     (fd, from, bytes, offset), ENOSPC, -1)
WRAP(int, ftruncate64, (int fd, off64_t bytes), (fd, bytes), EIO, -1)
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument),
     (thread, attributes, start, argument), EAGAIN, EAGAIN)
WRAP(int, eventfd, (unsigned value, int flags), (value, flags), EMFILE, -1)

int __real_openat64(int folder, const char *path, int flags, mode_t mode);
int __wrap_openat64(int folder, const char *path, int flags, mode_t mode);

/* Variadic in truth; a mode that was not given is not looked at. */
int __wrap_openat64(int folder, const char *path, int flags, mode_t mode) {
    return fails(EMFILE) ? -1 : __real_openat64(folder, path, flags, mode);
}

/* ---- the source: a few files of text, and what goes wrong with it ---- */

enum { FILES = 6, FILE_BYTES = 5000, HANDLE_BASE = 100, RANGE_START = 1000, RANGE_BYTES = 3000 };
enum { RANGED = FILES - 1 }; /* the file of which only a range is wanted */

enum misfortune { FAILS, IS_SHORT, ENDS, IS_INTERRUPTED };

static struct {
    enum misfortune misfortune;
    unsigned calls;
    unsigned at; /* this call; 0: none */
    bool happened;
    unsigned versions[FILES];
    int handles;
    unsigned released;
} disk;

static void content_of(size_t number, unsigned version, char *content) {
    char word[64];
    int length =
        snprintf(word, sizeof(word), "int file_%zu(void) { return %u; }\n", number, version);

    for (size_t i = 0; i < FILE_BYTES; i++)
        content[i] = word[i % (size_t)length];
}

static bool happens(void) {
    bool now = ++disk.calls == disk.at;

    disk.happened = disk.happened || now;
    return now;
}

static int disk_open(void *context, void *key, bool again) {
    (void)context;
    (void)again;
    if (happens() && disk.misfortune == FAILS)
        return -EIO;
    disk.handles++;
    return (int)((uintptr_t)key - 1) + HANDLE_BASE;
}

static int disk_identify(void *context, int handle, bool again, struct stg_identity *ret_identity) {
    (void)context;
    (void)again;
    if (happens() && disk.misfortune == FAILS)
        return -EIO;
    *ret_identity = (struct stg_identity){.device = 1,
                                          .ino = (uint64_t)handle,
                                          .size_bytes = FILE_BYTES,
                                          .mtime_ns = 1,
                                          .ctime_ns = disk.versions[handle - HANDLE_BASE] + 1};
    return 0;
}

static ssize_t disk_read(void *context, int handle, void *buffer, size_t bytes, uint64_t offset) {
    char content[FILE_BYTES];
    bool now = happens();

    (void)context;
    if (now && disk.misfortune != IS_SHORT)
        return disk.misfortune == FAILS ? -EIO : disk.misfortune == ENDS ? 0 : -EINTR;
    content_of((size_t)(handle - HANDLE_BASE), disk.versions[handle - HANDLE_BASE], content);
    if (offset >= FILE_BYTES)
        return 0;
    bytes = bytes < FILE_BYTES - offset ? bytes : FILE_BYTES - offset;
    if (now && bytes > 1)
        bytes /= 2;
    memcpy(buffer, content + offset, bytes);
    return (ssize_t)bytes;
}

static void disk_close(void *context, int handle) {
    (void)context;
    (void)handle;
    disk.handles--;
}

static void disk_release(void *context, void *key) {
    (void)context;
    (void)key;
    disk.released++;
}

static const struct stg_source_ops ops = {.open = disk_open,
                                          .identify = disk_identify,
                                          .read = disk_read,
                                          .close = disk_close,
                                          .release = disk_release};
static const struct stg_source source = {.ops = &ops};

static int64_t fixed_now_ns(void) { return INT64_C(1000000000000); }

/* ---- the cache ---- */

static struct stg_cache *cache;
static struct stg_object *objects[FILES];
static unsigned failures; /* of what was asked of the cache */
static unsigned waited;
static unsigned told;

/* One worker: with one question at a time the n-th call is the same one each time. */
static struct stg_cache_config config_of(bool in_memory) {
    return (struct stg_cache_config){.hot_bytes = 2 * stg_store_cost_bytes(FILE_BYTES),
                                     .cold_bytes = 1 << 20,
                                     .file_bytes = 1 << 20,
                                     .compress_level = STG_CODEC_LEVEL_MAX,
                                     .workers = 1,
                                     .in_memory = in_memory,
                                     .now_ns = fixed_now_ns};
}

static void start(bool in_memory) {
    const struct stg_cache_config config = config_of(in_memory);

    memset(&disk, 0, sizeof(disk));
    failures = waited = told = 0;
    assert_int_equal(stg_cache_new(&config, &source, &cache), 0);
    for (uintptr_t i = 0; i < FILES; i++) {
        struct stg_range range = {0};

        if (i == RANGED)
            range = (struct stg_range){RANGE_START, RANGE_BYTES};
        objects[i] = stg_object_new(cache, (void *)(i + 1), range, i + 1);
        assert_non_null(objects[i]);
    }
}

static void stop(void) {
    for (size_t i = 0; i < FILES; i++)
        stg_object_free(cache, objects[i]);
    stg_cache_stop(cache);
    assert_int_equal(stg_cache_usage(cache).hot_bytes, 0);
    assert_int_equal(stg_cache_usage(cache).cold_bytes, 0);
    assert_int_equal(stg_cache_usage(cache).cold_raw_bytes, 0);
    assert_true(stg_cache_usage(cache).hot_peak_bytes <= 2 * stg_store_cost_bytes(FILE_BYTES));
    stg_cache_free(cache);
    assert_int_equal(disk.handles, 0);
    assert_int_equal(disk.released, FILES);
    assert_int_equal(told, waited);
}

struct reader {
    struct stg_waiter waiter; /* first */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int result; /* 0: not told */
};

static void tell(struct stg_waiter *waiter, int result) {
    struct reader *reader = (struct reader *)(void *)waiter;

    pthread_mutex_lock(&reader->lock);
    told++;
    reader->result = result;
    pthread_cond_signal(&reader->changed);
    pthread_mutex_unlock(&reader->lock);
}

static int hold(size_t number) {
    struct reader reader = {.waiter.done = tell,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .changed = PTHREAD_COND_INITIALIZER};
    int result = stg_object_want(cache, objects[number], STG_PRIORITY_WAITING, &reader.waiter);

    if (result)
        return result;
    waited++;
    pthread_mutex_lock(&reader.lock);
    while (!reader.result)
        pthread_cond_wait(&reader.changed, &reader.lock);
    pthread_mutex_unlock(&reader.lock);
    return reader.result;
}

static void assert_is_right(size_t number) {
    const struct stg_copy *copy = stg_object_copy(objects[number]);
    size_t start_at = number == RANGED ? RANGE_START : 0;
    size_t bytes = number == RANGED ? RANGE_BYTES : FILE_BYTES;
    char expected[FILE_BYTES];
    char got[FILE_BYTES];
    ssize_t result = stg_store_read(stg_cache_store(cache), copy, got, FILE_BYTES, 0);

    if (result < 0) { /* this was the call to fail */
        assert_int_equal(result, -fault.failed);
        return;
    }
    content_of(number, disk.versions[number], expected);
    assert_int_equal(result, bytes);
    assert_memory_equal(got, expected + start_at, bytes);
}

/* The error is the one that was made, or says that the file seemed to change. */
static void note_failure(int error) {
    failures++;
    if (fault.failed)
        assert_int_equal(error, -fault.failed);
    else if (disk.misfortune == ENDS)
        assert_int_equal(error, -ESTALE);
    else
        assert_int_equal(error, -EIO);
}

/* Has the file, at the second try at last. */
static void use(size_t number) {
    int result = hold(number);

    if (result != STG_WANT_READY) {
        note_failure(result);
        result = hold(number);
    }
    assert_int_equal(result, STG_WANT_READY);
    assert_is_right(number);
    stg_object_put(cache, objects[number]);
}

/* A new version of a file that is in use. */
static void refresh(size_t number) {
    int result = hold(number);

    if (result != STG_WANT_READY) {
        note_failure(result);
        return;
    }
    disk.versions[number]++;
    result = stg_object_refresh(cache, objects[number], false);
    if (result)
        note_failure(result);
    else
        assert_is_right(number);
    stg_object_put(cache, objects[number]);
}

/* Each way that a copy can take. */
static void live(void) {
    for (size_t i = 0; i < FILES; i++)
        use(i);
    for (size_t i = 0; i < FILES; i++) /* these come back from the cold */
        use(i);
    disk.versions[2]++;
    stg_object_invalidate(cache, objects[2]);
    use(2);
    (void)stg_object_want(cache, objects[0], STG_PRIORITY_PREDICTED, NULL);
    use(0);
    if (stg_store_has_files(stg_cache_store(cache)))
        refresh(3);
    stg_cache_limit(cache, stg_store_cost_bytes(FILE_BYTES), 200); /* less than the copies take */
    use(1);
    use(3);
}

/* ---- the tests ---- */

static void a_cache_is_made_whole_or_not_at_all(void **state) {
    const struct stg_cache_config config = config_of(true);
    bool failed = true;
    unsigned at;

    (void)state;
    for (at = 1; failed; at++) {
        struct stg_cache *made = NULL;
        int error;

        arm(at);
        error = stg_cache_new(&config, &source, &made);
        failed = disarm();
        assert_int_equal(error, failed ? -ENOMEM : 0);
        assert_true(failed ? !made : made != NULL);
        stg_cache_free(made);
    }
    assert_true(at > 5);
    stg_cache_free(NULL);
}

static void an_object_is_made_or_not(void **state) {
    struct stg_object *object;

    (void)state;
    start(true);
    arm(1);
    object = stg_object_new(cache, NULL, (struct stg_range){0}, 1);
    assert_true(disarm());
    assert_null(object);
    stop();
}

static void whatever_fails_nothing_wrong_is_served(void **state) {
    (void)state;
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        bool failed = true;
        unsigned failing = 0;
        unsigned at;

        for (at = 1; failed; at++) {
            start(in_memory);
            arm(at);
            live();
            failed = disarm();
            assert_true(failures <= failed); /* one at most, and nothing goes wrong by itself */
            failing += failures;
            stop();
        }
        print_message("# %u calls can fail, %u of them are seen\n", at - 2, failing);
        assert_true(at > 40 && failing > 20);
    }
}

static void whatever_the_source_does_nothing_wrong_is_served(void **state) {
    (void)state;
    for (enum misfortune misfortune = FAILS; misfortune <= IS_INTERRUPTED; misfortune++) {
        bool happened = true;
        unsigned failing = 0;
        unsigned at;

        arm(0);
        for (at = 1; happened; at++) {
            start(false);
            disk.misfortune = misfortune;
            disk.at = at;
            live();
            happened = disk.happened;
            assert_true(failures <= happened);
            failing += failures;
            stop();
        }
        assert_true(at > 30);
        if (misfortune == IS_SHORT || misfortune == IS_INTERRUPTED)
            assert_int_equal(failing, 0);
        else
            assert_true(failing > 5);
    }
}

/* Writers see what was written, or the error; what did not come to be takes no room. */
static void a_write_that_fails_takes_no_room(void **state) {
    char more[FILE_BYTES] = {0};
    bool failed = true;

    (void)state;
    for (unsigned at = 1; failed; at++) {
        int error;

        start(false);
        if (!stg_store_has_files(stg_cache_store(cache))) {
            stop();
            skip();
        }
        assert_int_equal(hold(0), STG_WANT_READY);
        stg_object_join(cache, objects[0], true);
        arm(at);
        error = stg_object_write(cache, objects[0], more, sizeof(more), FILE_BYTES);
        failed = disarm();
        assert_int_equal(error, -fault.failed);
        stg_object_unshare(cache, objects[0]);
        stg_object_put(cache, objects[0]);
        stg_object_put(cache, objects[0]);
        assert_int_equal(stg_cache_usage(cache).hot_bytes, 0);
        for (size_t i = 0; i < FILES; i++) {
            stg_object_free(cache, objects[i]);
            objects[i] = NULL;
        }
        stg_cache_free(cache);
    }
}

/* Freed at each stage of the life, with a failure behind it: nothing is left. */
static void a_life_may_end_after_any_failure(void **state) {
    bool failed = true;

    (void)state;
    for (unsigned at = 1; failed; at++) {
        bool held = false;

        start(true);
        arm(at);
        for (size_t i = 0; i < FILES && !fault.failed; i++) {
            int result = hold(i);

            assert_true(result == STG_WANT_READY || result == -fault.failed);
            if (i == 1) /* that stays held to the end */
                held = result == STG_WANT_READY;
            else if (result == STG_WANT_READY)
                stg_object_put(cache, objects[i]);
        }
        failed = disarm();
        if (held)
            stg_object_put(cache, objects[1]);
        stop();
    }
}

static void packing_fails_cleanly(void **state) {
    static const int levels[] = {STG_CODEC_LEVEL_MIN, 3, 9, STG_CODEC_LEVEL_MAX};
    char content[FILE_BYTES];
    char back[FILE_BYTES];

    (void)state;
    content_of(1, 1, content);
    for (size_t i = 0; i < STG_COUNT(levels); i++) {
        bool failed = true;

        for (unsigned at = 1; failed; at++) {
            void *blob = NULL;
            ssize_t packed;

            arm(at);
            packed = stg_codec_pack(content, FILE_BYTES, levels[i], &blob);
            failed = disarm();
            if (packed < 0) {
                assert_int_equal(packed, -ENOMEM);
                assert_true(failed && !blob);
                continue;
            }
            assert_int_equal(stg_codec_unpack(blob, (size_t)packed, back, FILE_BYTES), FILE_BYTES);
            assert_memory_equal(back, content, FILE_BYTES);
            free(blob);
        }
    }
}

static void do_nothing(void *context, unsigned level) {
    (void)context;
    (void)level;
}

static bool grow_nothing(void *context) {
    (void)context;
    return false;
}

static void a_watch_is_made_whole_or_not_at_all(void **state) {
    const struct stg_pressure_config config = {
        .shrink = do_nothing, .relaxed = grow_nothing, .root = "/nowhere"};
    bool failed = true;
    unsigned at;

    (void)state;
    for (at = 1; failed; at++) {
        struct stg_pressure *pressure = NULL;
        int error;

        arm(at);
        error = stg_pressure_new(&config, &pressure);
        failed = disarm();
        assert_int_equal(error, -fault.failed);
        assert_true(failed ? !pressure : pressure != NULL);
        stg_pressure_free(pressure);
    }
    assert_int_equal(at, 5); /* memory, descriptor and thread */
}

/* Without helpers a reader reads alone. */
static void a_reader_reads_alone_if_need_be(void **state) {
    const size_t bytes = 3 * STG_READER_PIECE_BYTES;
    char *buffer = malloc(bytes);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    bool failed = true;

    (void)state;
    assert_true(buffer && zero >= 0);
    for (unsigned at = 1; failed; at++) {
        struct stg_reader *reader = NULL;
        ssize_t got = 0;
        int error;

        arm(at);
        error = stg_reader_new(STG_READER_THREADS, &reader);
        if (!error)
            got = stg_reader_read(reader, zero, buffer, bytes, 0);
        failed = disarm();
        if (error)
            assert_int_equal(error, -ENOMEM);
        else if (fault.failed == EIO) /* what was before it */
            assert_true(got == -EIO || got % (ssize_t)STG_READER_PIECE_BYTES == 0);
        else
            assert_int_equal(got, bytes);
        stg_reader_free(reader);
    }
    free(buffer);
    (void)close(zero);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cache_is_made_whole_or_not_at_all),
        cmocka_unit_test(an_object_is_made_or_not),
        cmocka_unit_test(whatever_fails_nothing_wrong_is_served),
        cmocka_unit_test(whatever_the_source_does_nothing_wrong_is_served),
        cmocka_unit_test(a_write_that_fails_takes_no_room),
        cmocka_unit_test(a_life_may_end_after_any_failure),
        cmocka_unit_test(packing_fails_cleanly),
        cmocka_unit_test(a_watch_is_made_whole_or_not_at_all),
        cmocka_unit_test(a_reader_reads_alone_if_need_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
