/* SPDX-License-Identifier: GPL-2.0-only */
/* When to shrink and when to grow: the arithmetic, a made-up clock, and a watch told by the test.
 */
#include "tests/unit/unit.h"

#include "cache/pressure.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define MS INT64_C(1000000)

/* ---- arithmetic ---- */

static void a_limit_shrinks_to_three_quarters_of_what_is_used(void **state) {
    static const struct {
        uint64_t limit, used, floor;
        unsigned level;
        uint64_t expected;
    } rows[] = {
        {1000, 800, 100, 1, 600}, {1000, 800, 100, 2, 450}, {1000, 800, 700, 1, 700},
        {1000, 0, 100, 1, 100},   {1000, 0, 0, 1, 0},       {50, 40, 100, 1, 50},
        {1000, 4000, 0, 1, 1000}, {1000, 1, 0, 1, 1},       {1000, 800, 100, 0, 800},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++)
        assert_int_equal(
            stg_pressure_shrunk(rows[i].limit, rows[i].used, rows[i].floor, rows[i].level),
            rows[i].expected);
    assert_int_equal(stg_pressure_shrunk(UINT64_MAX, UINT64_MAX, 0, 1),
                     UINT64_MAX - UINT64_MAX / 4);
}

static void a_limit_grows_back_by_eighths_and_no_further(void **state) {
    uint64_t limit = 100;
    unsigned steps = 0;

    (void)state;
    for (; limit != 800; steps++)
        limit = stg_pressure_regrown(limit, 800);
    assert_int_equal(steps, 7);
    assert_int_equal(stg_pressure_regrown(800, 800), 800);
    assert_int_equal(stg_pressure_regrown(900, 800), 800);
    assert_int_equal(stg_pressure_regrown(0, 3), 1);
    assert_int_equal(stg_pressure_regrown(0, 0), 0);
    assert_int_equal(stg_pressure_regrown(UINT64_MAX - 1, UINT64_MAX), UINT64_MAX);
}

static void what_is_available_tells_how_bad_it_is(void **state) {
    static const struct {
        struct stg_memory memory;
        unsigned level;
    } rows[] = {
        {{0, 1600, 100}, STG_PRESSURE_NONE}, {{0, 1600, 99}, STG_PRESSURE_SOME},
        {{0, 1600, 50}, STG_PRESSURE_SOME},  {{0, 1600, 49}, STG_PRESSURE_FULL},
        {{0, 1600, 0}, STG_PRESSURE_FULL},   {{0, UINT64_MAX, UINT64_MAX}, STG_PRESSURE_NONE},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++)
        assert_int_equal(stg_pressure_level(&rows[i].memory), rows[i].level);
}

static void rest_is_due_after_quiet_time(void **state) {
    struct stg_pressure_rest rest = {0};

    (void)state;
    assert_false(stg_pressure_rest_is_due(&rest, INT64_MAX));
    assert_int_equal(stg_pressure_rest_wait_ms(&rest, 5), -1);
    stg_pressure_rest_begin(&rest, 1000 * MS, 10000);
    assert_false(stg_pressure_rest_is_due(&rest, 11000 * MS - 1));
    assert_true(stg_pressure_rest_is_due(&rest, 11000 * MS));
    assert_int_equal(stg_pressure_rest_wait_ms(&rest, 1000 * MS), 10000);
    assert_int_equal(stg_pressure_rest_wait_ms(&rest, 11000 * MS - 1), 1); /* rounded up */
    assert_int_equal(stg_pressure_rest_wait_ms(&rest, 12000 * MS), 0);
    stg_pressure_rest_begin(&rest, 5000 * MS, 10000); /* not quiet after all */
    assert_false(stg_pressure_rest_is_due(&rest, 14999 * MS));
    stg_pressure_rest_begin(&rest, 0, UINT32_MAX);
    assert_int_equal(stg_pressure_rest_wait_ms(&rest, -(INT64_C(1) << 62)), INT32_MAX);
}

/* ---- the watch ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned shrunk;
    unsigned relaxed;
    unsigned level;
    unsigned to_grow; /* relaxed() is true so often */
} owner = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void shrink(void *context, unsigned level) {
    assert_ptr_equal(context, &owner);
    pthread_mutex_lock(&owner.lock);
    owner.shrunk++;
    owner.level = level;
    pthread_cond_broadcast(&owner.changed);
    pthread_mutex_unlock(&owner.lock);
}

static bool relaxed(void *context) {
    bool more;

    assert_ptr_equal(context, &owner);
    pthread_mutex_lock(&owner.lock);
    owner.relaxed++;
    more = owner.to_grow > 0;
    owner.to_grow -= more;
    pthread_cond_broadcast(&owner.changed);
    pthread_mutex_unlock(&owner.lock);
    return more;
}

static void await(const unsigned *counter, unsigned value) {
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&owner.lock);
    while (*counter < value)
        assert_int_equal(pthread_cond_timedwait(&owner.changed, &owner.lock, &until), 0);
    pthread_mutex_unlock(&owner.lock);
}

static struct stg_pressure *begin(struct stg_pressure_config config) {
    struct stg_pressure *pressure = NULL;

    owner.shrunk = owner.relaxed = owner.to_grow = 0;
    config.shrink = shrink;
    config.relaxed = relaxed;
    config.context = &owner;
    assert_int_equal(stg_pressure_new(&config, &pressure), 0);
    return pressure;
}

static void tell(int trigger, uint64_t level) {
    assert_int_equal(write(trigger, &level, sizeof(level)), sizeof(level));
}

static void a_trigger_shrinks_and_quiet_grows_until_all_is_back(void **state) {
    int trigger = eventfd(0, EFD_CLOEXEC);
    struct stg_pressure *pressure;

    (void)state;
    assert_true(trigger > 0);
    pressure = begin((struct stg_pressure_config){.root = "", .quiet_ms = 10, .trigger = trigger});
    tell(trigger, STG_PRESSURE_FULL);
    await(&owner.shrunk, 1);
    assert_int_equal(owner.level, STG_PRESSURE_FULL);
    await(&owner.relaxed, 1); /* nothing more to grow: it is not called again */
    pthread_mutex_lock(&owner.lock);
    owner.to_grow = 3;
    pthread_mutex_unlock(&owner.lock);
    tell(trigger, STG_PRESSURE_SOME);
    await(&owner.shrunk, 2);
    assert_int_equal(owner.level, STG_PRESSURE_SOME);
    await(&owner.relaxed, 5);
    stg_pressure_free(pressure);
    assert_int_equal(owner.relaxed, 5);
    assert_int_equal(owner.shrunk, 2);
    (void)close(trigger);
}

/* At rest it waits for ever, or for a long time: the end comes at once all the same. */
static void it_ends_at_once(void **state) {
    int trigger = eventfd(0, EFD_CLOEXEC);
    time_t before = time(NULL);

    (void)state;
    for (int i = 0; i < 100; i++)
        stg_pressure_free(begin((struct stg_pressure_config){.root = "", .trigger = trigger}));
    for (int i = 0; i < 100; i++) {
        struct stg_pressure *pressure =
            begin((struct stg_pressure_config){.root = "", .trigger = trigger});

        tell(trigger, STG_PRESSURE_SOME);
        await(&owner.shrunk, 1);
        stg_pressure_free(pressure);
    }
    stg_pressure_free(
        begin((struct stg_pressure_config){.root = "/nowhere", .poll_ms = 1000000000}));
    stg_pressure_free(NULL);
    assert_true(time(NULL) - before < 60);
    (void)close(trigger);
}

static void put_meminfo(const char *folder, uint64_t available_kib) {
    char path[256];
    char new_path[256];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", folder);
    (void)snprintf(new_path, sizeof(new_path), "%s/new", folder);
    file = fopen(new_path, "we");
    assert_non_null(file);
    (void)fprintf(file, "MemTotal: 1000000 kB\nMemAvailable: %ju kB\n", (uintmax_t)available_kib);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(new_path, path), 0);
}

static void without_psi_it_looks_itself(void **state) {
    const char *base = getenv("TMPDIR");
    struct stg_pressure *pressure;
    char folder[128];
    char path[160];
    unsigned before;

    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s/stagefs-pressure.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/proc", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    put_meminfo(folder, 500000);
    pressure = begin((struct stg_pressure_config){.root = folder, .quiet_ms = 50, .poll_ms = 1});
    assert_string_equal(stg_pressure_source(pressure), "meminfo");
    put_meminfo(folder, 50000);
    await(&owner.shrunk, 3); /* again and again while it is short */
    assert_int_equal(owner.relaxed, 0);
    put_meminfo(folder, 10000);
    before = owner.shrunk;
    await(&owner.shrunk, before + 3);
    assert_int_equal(owner.level, STG_PRESSURE_FULL);
    put_meminfo(folder, 500000);
    await(&owner.relaxed, 1);
    stg_pressure_free(pressure);
    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", folder);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/proc", folder);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

/* Whatever this machine has, it can be watched; with or without PSI. */
static void this_machine_can_be_watched(void **state) {
    struct stg_pressure *pressure = begin((struct stg_pressure_config){.root = ""});

    (void)state;
    print_message("# watched by %s\n", stg_pressure_source(pressure));
    stg_pressure_free(pressure);
    pressure = begin((struct stg_pressure_config){.root = "", .no_psi = true});
    assert_string_equal(stg_pressure_source(pressure), "meminfo");
    stg_pressure_free(pressure);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_shrinks_to_three_quarters_of_what_is_used),
        cmocka_unit_test(a_limit_grows_back_by_eighths_and_no_further),
        cmocka_unit_test(what_is_available_tells_how_bad_it_is),
        cmocka_unit_test(rest_is_due_after_quiet_time),
        cmocka_unit_test(a_trigger_shrinks_and_quiet_grows_until_all_is_back),
        cmocka_unit_test(it_ends_at_once),
        cmocka_unit_test(without_psi_it_looks_itself),
        cmocka_unit_test(this_machine_can_be_watched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
