/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Staged copies on a fake source of many files: one fetch for however many readers, nothing old or
 * wrong served, budgets that hold, and nothing left at the end. The source can be made to wait at a
 * gate in the middle of a fetch, so that each race happens when the test says so.
 */
#include "tests/unit/unit.h"

#include "cache/codec.h"
#include "cache/stage.h"
#include "cache/stage_impl.h"

#include "util/clock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 64, FILE_BYTES = 5000, HANDLE_BASE = 100 };
#define NOW_NS INT64_C(1000000000000)

/* ---- the source ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned versions[FILES];
    unsigned opens[FILES];
    int handles;
    unsigned released;
    bool gate_closed; /* reads wait */
    unsigned waiting; /* at the gate */
    int fail_with;
    bool restless; /* each read is of a new version */
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Text that shrinks, and tells file and version in each word. */
static void content_of(size_t file, unsigned version, char *content) {
    char word[32];
    int length = snprintf(word, sizeof(word), "file %zu version %u;\n", file, version);

    for (size_t i = 0; i < FILE_BYTES; i++)
        content[i] = word[i % (size_t)length];
}

static int disk_open(void *context, void *key, bool again) {
    size_t file = (uintptr_t)key - 1;
    int error;

    (void)again;
    (void)context;
    pthread_mutex_lock(&disk.lock);
    error = disk.fail_with;
    disk.opens[file]++;
    disk.handles += !error;
    pthread_mutex_unlock(&disk.lock);
    return error ? error : (int)file + HANDLE_BASE;
}

static int disk_identify(void *context, int handle, bool fresh, struct stg_identity *ret_identity) {
    (void)fresh;
    (void)context;
    pthread_mutex_lock(&disk.lock);
    *ret_identity = (struct stg_identity){.device = 1,
                                          .ino = (uint64_t)handle,
                                          .size_bytes = FILE_BYTES,
                                          .mtime_ns = 1,
                                          .ctime_ns = disk.versions[handle - HANDLE_BASE]};
    pthread_mutex_unlock(&disk.lock);
    return 0;
}

static ssize_t disk_read(void *context, int handle, void *buffer, size_t bytes, uint64_t offset) {
    char content[FILE_BYTES];

    (void)context;
    pthread_mutex_lock(&disk.lock);
    disk.versions[handle - HANDLE_BASE] += disk.restless && offset < FILE_BYTES;
    content_of((size_t)(handle - HANDLE_BASE), disk.versions[handle - HANDLE_BASE], content);
    disk.waiting++;
    pthread_cond_broadcast(&disk.changed);
    while (disk.gate_closed)
        pthread_cond_wait(&disk.changed, &disk.lock);
    disk.waiting--;
    pthread_mutex_unlock(&disk.lock);
    if (offset >= FILE_BYTES)
        return 0;
    bytes = bytes < FILE_BYTES - offset ? bytes : FILE_BYTES - offset;
    memcpy(buffer, content + offset, bytes);
    return (ssize_t)bytes;
}

static void disk_close(void *context, int handle) {
    (void)context;
    (void)handle;
    pthread_mutex_lock(&disk.lock);
    disk.handles--;
    pthread_mutex_unlock(&disk.lock);
}

static void disk_release(void *context, void *key) {
    (void)context;
    (void)key;
    pthread_mutex_lock(&disk.lock);
    disk.released++;
    pthread_mutex_unlock(&disk.lock);
}

static void set_gate(bool closed) {
    pthread_mutex_lock(&disk.lock);
    disk.gate_closed = closed;
    pthread_cond_broadcast(&disk.changed);
    pthread_mutex_unlock(&disk.lock);
}

static void await_reader(void) {
    pthread_mutex_lock(&disk.lock);
    while (!disk.waiting)
        pthread_cond_wait(&disk.changed, &disk.lock);
    pthread_mutex_unlock(&disk.lock);
}

static void change(size_t file) {
    pthread_mutex_lock(&disk.lock);
    disk.versions[file]++;
    pthread_mutex_unlock(&disk.lock);
}

static int64_t fixed_now_ns(void) { return NOW_NS; }

static const struct stg_source_ops ops = {.open = disk_open,
                                          .identify = disk_identify,
                                          .read = disk_read,
                                          .close = disk_close,
                                          .release = disk_release};
static const struct stg_source source = {.ops = &ops};

/* ---- the cache, and a reader that waits ---- */

static struct stg_cache *cache;
static struct stg_object *objects[FILES];

#define ROOM(files) ((files)*stg_store_cost_bytes(FILE_BYTES))

static bool in_memory = true; /* copies that cannot be rewritten, and need no privilege */

static void start(uint64_t hot_bytes, uint64_t cold_bytes) {
    const struct stg_cache_config config = {.hot_bytes = hot_bytes,
                                            .cold_bytes = cold_bytes,
                                            .file_bytes = 1 << 20,
                                            .compress_level = 1,
                                            .workers = 4,
                                            .in_memory = in_memory,
                                            .now_ns = fixed_now_ns};

    disk.released = 0;
    disk.fail_with = 0;
    memset(disk.opens, 0, sizeof(disk.opens));
    assert_int_equal(stg_cache_new(&config, &source, &cache), 0);
    for (uintptr_t i = 0; i < FILES; i++) {
        objects[i] = stg_object_new(cache, (void *)(i + 1), (struct stg_range){0}, i + 1);
        assert_non_null(objects[i]);
    }
}

static void stop(void) {
    for (size_t i = 0; i < FILES; i++)
        stg_object_free(cache, objects[i]);
    while (stg_queue_length(&cache->queue))
        assert_true(false); /* nothing stays queued */
    stg_queue_close(&cache->queue);
    for (unsigned i = 0; i < cache->thread_count; i++)
        assert_int_equal(pthread_join(cache->threads[i], NULL), 0);
    cache->thread_count = 0;
    assert_int_equal(stg_cache_usage(cache).hot_bytes, 0);
    assert_int_equal(stg_cache_usage(cache).cold_bytes, 0);
    stg_cache_free(cache);
    assert_int_equal(disk.handles, 0);
    assert_int_equal(disk.released, FILES);
}

struct reader {
    struct stg_waiter waiter; /* first */
    pthread_mutex_t lock;
    pthread_cond_t told;
    int result; /* 0: not told */
};

static void tell_reader(struct stg_waiter *waiter, int result) {
    struct reader *reader = (struct reader *)(void *)waiter;

    pthread_mutex_lock(&reader->lock);
    assert_int_equal(reader->result, 0);
    reader->result = result;
    pthread_cond_signal(&reader->told);
    pthread_mutex_unlock(&reader->lock);
}

static struct reader new_reader(void) {
    return (struct reader){.waiter.done = tell_reader,
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .told = PTHREAD_COND_INITIALIZER};
}

static int await(struct reader *reader) {
    int result;

    pthread_mutex_lock(&reader->lock);
    while (!reader->result)
        pthread_cond_wait(&reader->told, &reader->lock);
    result = reader->result;
    pthread_mutex_unlock(&reader->lock);
    return result;
}

/* Asks and waits. */
static int hold(size_t file) {
    struct reader reader = new_reader();
    int result = stg_object_want(cache, objects[file], STG_PRIORITY_WAITING, &reader.waiter);

    return result ? result : await(&reader);
}

static void put(size_t file) { stg_object_put(cache, objects[file]); }

static void assert_shows_version(size_t file, unsigned version) {
    char expected[FILE_BYTES];
    char got[FILE_BYTES];

    content_of(file, version, expected);
    assert_int_equal(
        stg_store_read(stg_cache_store(cache), stg_object_copy(objects[file]), got, FILE_BYTES, 0),
        FILE_BYTES);
    assert_memory_equal(got, expected, FILE_BYTES);
}

static void assert_holds_version(size_t file, unsigned version) {
    assert_shows_version(file, version);
    assert_int_equal(stg_object_identity(objects[file])->ctime_ns, version);
}

static enum stg_state state_of(size_t file) { return stg_object_state(cache, objects[file]); }

/* ---- the tests ---- */

static void a_file_is_fetched_once_and_served_again(void **state) {
    (void)state;
    start(ROOM(8), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hold(1), STG_WANT_READY);
        assert_holds_version(1, disk.versions[1]);
        put(1);
    }
    assert_int_equal(disk.opens[1], 1);
    assert_int_equal(state_of(1), STG_HOT);
    assert_int_equal(stg_cache_stats(cache)->fills, 1);
    assert_int_equal(stg_cache_stats(cache)->hot_hits, 2);
    stop();
}

static void many_readers_wait_for_one_fetch(void **state) {
    enum { READERS = 100 };
    static struct reader readers[READERS];

    (void)state;
    start(ROOM(8), 0);
    set_gate(true);
    for (int i = 0; i < READERS; i++) {
        readers[i] = new_reader();
        assert_int_equal(
            stg_object_want(cache, objects[2], STG_PRIORITY_WAITING, &readers[i].waiter), 0);
    }
    await_reader();
    assert_int_equal(state_of(2), STG_FILLING);
    set_gate(false);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(await(&readers[i]), STG_WANT_READY);
    assert_int_equal(disk.opens[2], 1);
    assert_holds_version(2, disk.versions[2]);
    for (int i = 0; i < READERS; i++)
        put(2);
    stop();
}

static void a_prediction_needs_nobody_to_wait(void **state) {
    (void)state;
    start(ROOM(8), 0);
    assert_int_equal(stg_object_want(cache, objects[3], STG_PRIORITY_PREDICTED, NULL), 0);
    assert_int_equal(hold(3), STG_WANT_READY);
    put(3);
    assert_int_equal(disk.opens[3], 1);
    stop();
}

static void the_sources_error_is_passed_on_and_forgotten(void **state) {
    (void)state;
    start(ROOM(8), 0);
    disk.fail_with = -EIO;
    assert_int_equal(hold(4), -EIO);
    assert_int_equal(state_of(4), STG_ABSENT);
    disk.fail_with = 0;
    assert_int_equal(hold(4), STG_WANT_READY);
    put(4);
    assert_int_equal(stg_cache_stats(cache)->failed_fills, 1);
    stop();
}

/* The source shows the change by its times; or it does not, and whoever saw it invalidates. */
static void a_change_during_the_fetch_is_never_kept(void **state) {
    (void)state;
    for (int told = 0; told < 2; told++) {
        struct reader reader = new_reader();

        start(ROOM(8), 0);
        set_gate(true);
        assert_int_equal(stg_object_want(cache, objects[5], STG_PRIORITY_WAITING, &reader.waiter),
                         0);
        await_reader();
        if (told)
            stg_object_invalidate(cache, objects[5]);
        else
            change(5);
        set_gate(false);
        assert_int_equal(await(&reader), -ESTALE);
        assert_int_equal(state_of(5), STG_ABSENT);
        assert_int_equal(hold(5), STG_WANT_READY);
        assert_holds_version(5, disk.versions[5]);
        put(5);
        stop();
    }
}

/* The file may look the same before and after, and another in between to somebody else. */
static void what_was_seen_during_the_fetch_is_compared(void **state) {
    struct stg_identity seen;
    struct reader reader = new_reader();

    (void)state;
    start(ROOM(8), 0);
    assert_int_equal(hold(5), STG_WANT_READY);
    seen = *stg_object_identity(objects[5]);
    put(5);
    stg_object_invalidate(cache, objects[5]);
    set_gate(true);
    assert_int_equal(stg_object_want(cache, objects[5], STG_PRIORITY_WAITING, &reader.waiter), 0);
    await_reader();
    seen.ctime_ns++;
    assert_true(stg_object_validate(cache, objects[5], &seen)); /* there is nothing yet */
    set_gate(false);
    assert_int_equal(await(&reader), -ESTALE);
    assert_int_equal(state_of(5), STG_ABSENT);
    stop();
}

static void *refresh(void *result) {
    *(int *)result = stg_object_refresh(cache, objects[6], false);
    return NULL;
}

static void a_copy_in_use_follows_changes_during_its_refresh(void **state) {
    struct stg_identity now;
    pthread_t thread;
    int result = -1;

    (void)state;
    in_memory = false;
    start(ROOM(8), 0);
    in_memory = true;
    assert_int_equal(hold(6), STG_WANT_READY);
    now = *stg_object_identity(objects[6]);
    change(6);
    now.ctime_ns++;
    assert_false(stg_object_validate(cache, objects[6], &now));
    assert_int_equal(state_of(6), STG_STALE);
    set_gate(true);
    assert_int_equal(pthread_create(&thread, NULL, refresh, &result), 0);
    await_reader();
    change(6);
    now.ctime_ns++;
    (void)stg_object_validate(cache, objects[6], &now);
    assert_int_equal(stg_object_refresh(cache, objects[6], false), -EBUSY);
    set_gate(false);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(result, 0);
    assert_holds_version(6, disk.versions[6]);
    put(6);
    stop();
}

static void *follow(void *result) {
    __atomic_store_n((int *)result, stg_object_follow(cache, objects[6]), __ATOMIC_RELEASE);
    return NULL;
}

/* Does that become another than -1 within a tenth of a second? */
static bool is_over(const int *result) {
    int64_t until_ns = stg_clock_monotonic_ns() + 100000000;

    while (stg_clock_monotonic_ns() < until_ns)
        if (__atomic_load_n(result, __ATOMIC_ACQUIRE) != -1)
            return true;
    return false;
}

/* A held copy is being refreshed, at the gate, when its file changes again, which one follows. */
struct chase {
    pthread_t refresher;
    pthread_t follower;
    int refreshed;
    int followed; /* -1: not yet, as above */
};

static void begin_chase(struct chase *chase) {
    *chase = (struct chase){.refreshed = -1, .followed = -1};
    in_memory = false;
    start(ROOM(8), 0);
    in_memory = true;
    assert_int_equal(hold(6), STG_WANT_READY);
    stg_object_invalidate(cache, objects[6]);
    set_gate(true);
    assert_int_equal(pthread_create(&chase->refresher, NULL, refresh, &chase->refreshed), 0);
    await_reader(); /* it has the old content */
    change(6);
    stg_object_invalidate(cache, objects[6]);
    assert_int_equal(pthread_create(&chase->follower, NULL, follow, &chase->followed), 0);
}

/* Who was told of a change during another's refresh follows it, and finds what it has missed. */
static void what_a_refresh_has_missed_is_followed(void **state) {
    struct chase chase;

    (void)state;
    begin_chase(&chase);
    assert_false(is_over(&chase.followed)); /* for a while, which a wrong one would not need */
    set_gate(false);
    assert_int_equal(pthread_join(chase.follower, NULL), 0);
    assert_int_equal(chase.followed, 0);
    assert_holds_version(6, disk.versions[6]);
    assert_int_equal(pthread_join(chase.refresher, NULL), 0);
    assert_holds_version(6, disk.versions[6]);
    assert_int_equal(state_of(6), STG_HOT);
    put(6);
    stop();
}

/* Nobody holds it any more when the refresh ends, and it is fetched at once: that is not waited
 * for. */
static void what_nobody_holds_is_not_followed(void **state) {
    struct reader reader;
    struct chase chase;

    (void)state;
    begin_chase(&chase);
    reader = new_reader();
    assert_int_equal(stg_object_want(cache, objects[6], STG_PRIORITY_WAITING, &reader.waiter), 0);
    put(6);
    set_gate(false);
    assert_int_equal(pthread_join(chase.refresher, NULL), 0);
    assert_int_equal(pthread_join(chase.follower, NULL), 0); /* it ends */
    assert_int_equal(await(&reader), STG_WANT_READY);
    stg_object_put(cache, objects[6]);
    stop();
}

/* Never the same before and after a read: who has it open sees what a read brings, all the same. */
static void a_copy_in_use_follows_a_file_that_does_not_rest(void **state) {
    (void)state;
    in_memory = false;
    start(ROOM(8), 0);
    in_memory = true;
    assert_int_equal(hold(6), STG_WANT_READY);
    stg_object_invalidate(cache, objects[6]);
    disk.restless = true;
    assert_int_equal(stg_object_refresh(cache, objects[6], false), -ESTALE);
    assert_int_equal(stg_object_follow(cache, objects[6]), 0);
    disk.restless = false;
    assert_shows_version(6, disk.versions[6]);
    assert_int_equal(state_of(6), STG_STALE); /* and for those alone who have it */
    assert_int_equal(stg_object_follow(cache, objects[6]), 0);
    assert_int_equal(state_of(6), STG_HOT);
    assert_int_equal(stg_object_follow(cache, objects[6]), 0); /* nothing to do */
    put(6);
    stop();
}

/* Memory got short, and the limit less than the file: who has it open must see what it is now. */
static void a_copy_in_use_follows_changes_when_memory_is_short(void **state) {
    struct stg_identity now;

    (void)state;
    in_memory = false;
    start(ROOM(8), 0);
    in_memory = true;
    cache->config.file_bytes = 0; /* what fits the limit */
    assert_int_equal(hold(6), STG_WANT_READY);
    stg_cache_limit(cache, FILE_BYTES / 2, 0);
    now = *stg_object_identity(objects[6]);
    change(6);
    now.ctime_ns++;
    assert_false(stg_object_validate(cache, objects[6], &now));
    assert_int_equal(stg_object_refresh(cache, objects[6], false), 0);
    assert_holds_version(6, disk.versions[6]);
    put(6);
    stop();
}

/* A reader who takes what was read before it is known to be of one version. */
struct hasty {
    struct reader reader; /* first */
    char content[FILE_BYTES];
    uint64_t bytes;
};

static void content_came(struct stg_waiter *waiter, const struct stg_filled *filled) {
    struct hasty *hasty = (struct hasty *)(void *)waiter;

    memcpy(hasty->content, filled->content, filled->bytes);
    hasty->bytes = filled->bytes;
    tell_reader(waiter, STG_WANT_READY);
}

static void who_is_hasty_gets_what_was_read_and_nothing_else(void **state) {
    (void)state;
    for (int told = 0; told < 2; told++) {
        struct hasty hasty = {.reader = new_reader()};
        struct reader patient = new_reader();
        char expected[FILE_BYTES];

        start(ROOM(8), 0);
        hasty.reader.waiter.came = content_came;
        set_gate(true);
        assert_int_equal(stg_object_want(cache, objects[6], STG_PRIORITY_WAITING, &patient.waiter),
                         0);
        assert_int_equal(
            stg_object_want(cache, objects[6], STG_PRIORITY_WAITING, &hasty.reader.waiter), 0);
        await_reader();
        content_of(6, disk.versions[6], expected);
        if (told)
            stg_object_invalidate(cache, objects[6]);
        else
            change(6);
        set_gate(false);
        assert_int_equal(await(&patient), -ESTALE);
        /* Who wrote through the mount is not to read what was before. */
        assert_int_equal(await(&hasty.reader), told ? -ESTALE : STG_WANT_READY);
        assert_int_equal(hasty.bytes, told ? 0 : FILE_BYTES);
        if (!told)
            assert_memory_equal(hasty.content, expected, FILE_BYTES);
        assert_int_equal(state_of(6), STG_ABSENT);
        stop();
    }
}

/* Uses the file so often; `one` says that it is all one use, as of who reads piece by piece. */
static void use(size_t file, int times, bool one) {
    for (int i = 0; i < times; i++) {
        struct reader reader = new_reader();
        int result;

        reader.waiter.goes_on = one && i;
        result = stg_object_want(cache, objects[file], STG_PRIORITY_WAITING, &reader.waiter);
        assert_int_equal(result ? result : await(&reader), STG_WANT_READY);
        put(file);
    }
}

/* Only what was used twice stays where all else is used once. */
static void what_goes_on_is_no_second_use_and_a_hasty_one_is_a_first(void **state) {
    struct hasty hasty = {.reader = new_reader()};

    (void)state;
    start(ROOM(8), 0);
    use(0, 5, true);
    use(1, 2, false);
    hasty.reader.waiter.came = content_came;
    assert_int_equal(stg_object_want(cache, objects[2], STG_PRIORITY_WAITING, &hasty.reader.waiter),
                     0);
    assert_int_equal(await(&hasty.reader), STG_WANT_READY);
    use(2, 1, false); /* waits for the copy, which is made after the hasty one was told */
    for (size_t i = 3; i < 20; i++)
        use(i, 1, false);
    assert_int_equal(state_of(0), STG_ABSENT);
    assert_int_equal(state_of(1), STG_HOT);
    assert_int_equal(state_of(2), STG_HOT);
    stop();
}

static void a_copy_made_for_a_hasty_one_is_not_unused(void **state) {
    struct hasty hasty = {.reader = new_reader()};

    (void)state;
    start(ROOM(4), 0);
    hasty.reader.waiter.came = content_came;
    assert_int_equal(stg_object_want(cache, objects[0], STG_PRIORITY_WAITING, &hasty.reader.waiter),
                     0);
    assert_int_equal(await(&hasty.reader), STG_WANT_READY);
    while (state_of(0) != STG_HOT) /* who was told early was told before that */
        (void)sched_yield();
    for (size_t i = 1; i < 20; i++)
        use(i, 1, false);
    assert_int_equal(state_of(0), STG_ABSENT);
    assert_int_equal(stg_cache_stats(cache)->evicted_unused, 0);
    stop();
}

static void who_holds_an_old_copy_keeps_it_and_nobody_else_gets_it(void **state) {
    unsigned before;

    (void)state;
    start(ROOM(8), 0);
    assert_int_equal(hold(6), STG_WANT_READY);
    before = disk.versions[6];
    change(6);
    stg_object_invalidate(cache, objects[6]);
    assert_int_equal(state_of(6), STG_STALE);
    assert_int_equal(hold(6), -EBUSY);
    assert_holds_version(6, before);
    put(6);
    assert_int_equal(state_of(6), STG_ABSENT);
    assert_int_equal(hold(6), STG_WANT_READY);
    assert_holds_version(6, before + 1);
    put(6);
    stop();
}

static void validation_compares_identities(void **state) {
    struct stg_identity now;

    (void)state;
    start(ROOM(8), 0);
    assert_int_equal(hold(7), STG_WANT_READY);
    now = *stg_object_identity(objects[7]);
    put(7);
    assert_true(stg_object_validate(cache, objects[7], &now));
    assert_int_equal(state_of(7), STG_HOT);
    now.ctime_ns++;
    assert_false(stg_object_validate(cache, objects[7], &now));
    assert_int_equal(state_of(7), STG_ABSENT);
    assert_true(stg_object_validate(cache, objects[7], &now)); /* nothing to be wrong */
    stop();
}

static void the_hot_limit_holds_and_the_held_stay(void **state) {
    (void)state;
    start(ROOM(4), 0);
    assert_int_equal(hold(0), STG_WANT_READY);
    for (size_t i = 1; i < FILES; i++) {
        assert_int_equal(hold(i), STG_WANT_READY);
        assert_holds_version(i, disk.versions[i]);
        put(i);
    }
    assert_int_equal(state_of(0), STG_HOT);
    assert_holds_version(0, disk.versions[0]);
    put(0);
    assert_true(stg_cache_usage(cache).hot_peak_bytes <= ROOM(4));
    assert_int_equal(stg_cache_stats(cache)->evicted, FILES - 4);
    stop();
}

static void what_finds_no_room_is_refused(void **state) {
    (void)state;
    start(ROOM(2), 0);
    assert_int_equal(hold(0), STG_WANT_READY);
    assert_int_equal(hold(1), STG_WANT_READY);
    assert_int_equal(hold(2), -ENOSPC);
    assert_int_equal(state_of(2), STG_ABSENT);
    put(0);
    assert_int_equal(hold(2), STG_WANT_READY);
    put(1);
    put(2);
    stop();
    start(0, 0); /* mem=0 */
    assert_int_equal(hold(0), -ENOSPC);
    assert_int_equal(stg_cache_stats(cache)->refused_fills, 1);
    stop();
}

static void a_cold_copy_comes_back_without_the_source(void **state) {
    (void)state;
    start(ROOM(4), 1 << 20);
    for (size_t i = 0; i < FILES; i++) {
        assert_int_equal(hold(i), STG_WANT_READY);
        put(i);
    }
    assert_int_equal(state_of(0), STG_COLD);
    assert_true(stg_cache_usage(cache).cold_bytes < FILES * FILE_BYTES / 2);
    for (size_t i = 0; i < FILES; i++) {
        assert_int_equal(hold(i), STG_WANT_READY);
        assert_holds_version(i, disk.versions[i]);
        put(i);
        assert_int_equal(disk.opens[i], 1);
    }
    assert_true(stg_cache_stats(cache)->cold_hits >= FILES - 4);
    assert_true(stg_cache_usage(cache).hot_peak_bytes <= ROOM(4));
    stg_object_invalidate(cache, objects[0]);
    stg_object_invalidate(cache, objects[1]);
    assert_int_equal(state_of(0), STG_ABSENT);
    stop();
}

static void the_cold_limit_holds(void **state) {
    (void)state;
    start(ROOM(2), 1000);
    for (size_t i = 0; i < FILES; i++) {
        assert_int_equal(hold(i), STG_WANT_READY);
        put(i);
    }
    assert_true(stg_cache_usage(cache).cold_peak_bytes <= 1000);
    assert_true(stg_cache_usage(cache).cold_bytes > 0);
    stop();
}

static void a_damaged_blob_is_fetched_again(void **state) {
    (void)state;
    start(ROOM(1), 1 << 20);
    assert_int_equal(hold(0), STG_WANT_READY);
    put(0);
    assert_int_equal(hold(1), STG_WANT_READY);
    put(1);
    assert_int_equal(state_of(0), STG_COLD);
    memset((char *)objects[0]->blob + objects[0]->blob_bytes / 2, 0x5a, 16);
    assert_int_equal(hold(0), STG_WANT_READY);
    assert_holds_version(0, disk.versions[0]);
    put(0);
    assert_int_equal(disk.opens[0], 2);
    assert_int_equal(stg_cache_stats(cache)->corrupt, 1);
    stop();
}

static void a_lower_limit_evicts(void **state) {
    (void)state;
    start(ROOM(16), 0);
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(hold(i), STG_WANT_READY);
    for (size_t i = 1; i < 16; i++)
        put(i);
    stg_cache_limit(cache, ROOM(3), 0);
    assert_true(stg_cache_usage(cache).hot_bytes <= ROOM(3));
    assert_int_equal(state_of(0), STG_HOT); /* held */
    put(0);
    stg_cache_limit(cache, 0, 0);
    assert_int_equal(stg_cache_usage(cache).hot_bytes, 0);
    stop();
}

static void a_lower_limit_holds_for_what_was_in_use(void **state) {
    (void)state;
    start(ROOM(16), 0);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(hold(i), STG_WANT_READY);
    stg_cache_limit(cache, ROOM(3), 0);
    assert_true(stg_cache_usage(cache).hot_bytes > ROOM(3)); /* nothing may go */
    for (size_t i = 0; i < 8; i++)
        put(i);
    assert_true(stg_cache_usage(cache).hot_bytes <= ROOM(3));
    assert_int_equal(state_of(0), STG_ABSENT);
    assert_int_equal(state_of(7), STG_HOT); /* there is room for that */
    stop();
}

/* Freed while queued, and while being fetched: those who wait are told, and nothing is left. */
static void an_object_can_be_freed_at_any_time(void **state) {
    struct reader readers[8];

    (void)state;
    start(ROOM(16), 0);
    set_gate(true);
    for (size_t i = 0; i < STG_COUNT(readers); i++) { /* four are fetched, four queued */
        readers[i] = new_reader();
        assert_int_equal(
            stg_object_want(cache, objects[i], STG_PRIORITY_WAITING, &readers[i].waiter), 0);
    }
    await_reader();
    for (size_t i = 0; i < STG_COUNT(readers); i++) {
        stg_object_free(cache, objects[i]);
        objects[i] = NULL;
    }
    set_gate(false);
    for (size_t i = 0; i < STG_COUNT(readers); i++)
        assert_int_equal(await(&readers[i]), -ECANCELED);
    stop();
}

/* ---- everything at once ---- */

enum { STORM_THREADS = 6, STORM_STEPS = 3000 };

static void *storm(void *argument) {
    uint64_t seed = (uintptr_t)argument;

    for (int i = 0; i < STORM_STEPS; i++) {
        size_t file;
        unsigned choice;
        char got[FILE_BYTES];
        char expected[FILE_BYTES];
        int result;

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        file = (seed >> 33) % FILES;
        choice = (seed >> 20) % 100;
        if (choice < 5) {
            change(file);
            stg_object_invalidate(cache, objects[file]);
            continue;
        }
        if (choice < 10) {
            (void)stg_object_want(cache, objects[file], STG_PRIORITY_PREDICTED, NULL);
            continue;
        }
        result = hold(file);
        if (result != STG_WANT_READY) {
            assert_true(result == -ESTALE || result == -EBUSY || result == -ENOSPC);
            continue;
        }
        /* Whatever happens meanwhile, what is held is one version, whole. */
        content_of(file, (unsigned)stg_object_identity(objects[file])->ctime_ns, expected);
        assert_int_equal(stg_store_read(stg_cache_store(cache), stg_object_copy(objects[file]), got,
                                        FILE_BYTES, 0),
                         FILE_BYTES);
        assert_memory_equal(got, expected, FILE_BYTES);
        put(file);
    }
    return NULL;
}

static void everything_at_once(void **state) {
    pthread_t threads[STORM_THREADS];

    (void)state;
    start(ROOM(10), 8000);
    for (uintptr_t i = 0; i < STORM_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)), 0);
    for (size_t i = 0; i < STORM_THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(stg_cache_usage(cache).hot_peak_bytes <= ROOM(10));
    assert_true(stg_cache_usage(cache).cold_peak_bytes <= 8000);
    /* At rest, each file is served in its newest version. */
    for (size_t i = 0; i < FILES; i++) {
        int result;

        /* Predictions that are still under way may have all the room for a moment. */
        while ((result = hold(i)) == -ENOSPC)
            (void)sched_yield();
        assert_int_equal(result, STG_WANT_READY);
        assert_holds_version(i, disk.versions[i]);
        put(i);
    }
    stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_fetched_once_and_served_again),
        cmocka_unit_test(many_readers_wait_for_one_fetch),
        cmocka_unit_test(a_prediction_needs_nobody_to_wait),
        cmocka_unit_test(the_sources_error_is_passed_on_and_forgotten),
        cmocka_unit_test(a_change_during_the_fetch_is_never_kept),
        cmocka_unit_test(what_was_seen_during_the_fetch_is_compared),
        cmocka_unit_test(a_copy_in_use_follows_changes_during_its_refresh),
        cmocka_unit_test(what_a_refresh_has_missed_is_followed),
        cmocka_unit_test(what_nobody_holds_is_not_followed),
        cmocka_unit_test(a_copy_in_use_follows_a_file_that_does_not_rest),
        cmocka_unit_test(a_copy_in_use_follows_changes_when_memory_is_short),
        cmocka_unit_test(who_is_hasty_gets_what_was_read_and_nothing_else),
        cmocka_unit_test(what_goes_on_is_no_second_use_and_a_hasty_one_is_a_first),
        cmocka_unit_test(a_copy_made_for_a_hasty_one_is_not_unused),
        cmocka_unit_test(who_holds_an_old_copy_keeps_it_and_nobody_else_gets_it),
        cmocka_unit_test(validation_compares_identities),
        cmocka_unit_test(the_hot_limit_holds_and_the_held_stay),
        cmocka_unit_test(what_finds_no_room_is_refused),
        cmocka_unit_test(a_cold_copy_comes_back_without_the_source),
        cmocka_unit_test(the_cold_limit_holds),
        cmocka_unit_test(a_damaged_blob_is_fetched_again),
        cmocka_unit_test(a_lower_limit_evicts),
        cmocka_unit_test(a_lower_limit_holds_for_what_was_in_use),
        cmocka_unit_test(an_object_can_be_freed_at_any_time),
        cmocka_unit_test(everything_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
