/* SPDX-License-Identifier: GPL-2.0-only */
/* What a log of ninja names, of either version; and that no log does harm. */
#include "tests/unit/unit.h"

#include "cache/ninjadeps.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_BYTES 4096

static void add(void *context, const char *path) {
    char *list = context;
    size_t used = strlen(list);

    (void)snprintf(list + used, LIST_BYTES - used, "%s%s", used ? " " : "", path); /* cut */
}

/* ---- making a log ---- */

static struct {
    char bytes[4096];
    size_t used;
    uint32_t version;
    uint32_t nodes;
} made;

static void put(const void *bytes, size_t count) {
    assert_true(made.used + count <= sizeof(made.bytes));
    memcpy(made.bytes + made.used, bytes, count);
    made.used += count;
}

static void put_word(uint32_t word) { put(&word, sizeof(word)); }

static void begin(uint32_t version) {
    made.used = 0;
    made.nodes = 0;
    made.version = version;
    put("# ninjadeps\n", 12);
    put_word(version);
}

static uint32_t put_path(const char *path) {
    size_t bytes = strlen(path);
    size_t padded = (bytes + 3) / 4 * 4;

    put_word((uint32_t)padded + 4);
    put(path, bytes);
    put("\0\0\0", padded - bytes);
    put_word(~made.nodes);
    return made.nodes++;
}

static void put_deps(uint32_t of, uint32_t count, const uint32_t *nodes) {
    uint32_t time_words = made.version == 4 ? 2 : 1;

    put_word(UINT32_C(0x80000000) | (1 + time_words + count) * 4);
    put_word(of);
    for (uint32_t i = 0; i < time_words; i++)
        put_word(7);
    for (uint32_t i = 0; i < count; i++)
        put_word(nodes[i]);
}

/* Two objects; the first was built twice. */
static void make_log(uint32_t version) {
    uint32_t a;
    uint32_t b;
    uint32_t sources[4];

    begin(version);
    a = put_path("a.o");
    sources[0] = put_path("../a.c");
    sources[1] = put_path("../inc/abc.h");
    put_deps(a, 2, sources);
    b = put_path("b.o");
    sources[2] = put_path("/abs/b.c");
    put_deps(b, 2, sources + 1);
    sources[3] = put_path("gen.h");
    sources[1] = sources[3];
    put_deps(a, 2, sources);
}

static int read_into(char *list, size_t bytes) {
    *list = '\0';
    return stg_ninjadeps_read(made.bytes, bytes, add, list);
}

/* ---- reading one ---- */

static void each_file_is_named_once_in_order(void **state) {
    char list[LIST_BYTES];

    (void)state;
    for (uint32_t version = 3; version <= 4; version++) {
        make_log(version);
        assert_int_equal(read_into(list, made.used), 0);
        assert_string_equal(list, "../inc/abc.h /abs/b.c ../a.c gen.h");
    }
}

static void what_is_no_log_is_refused(void **state) {
    char list[LIST_BYTES];

    (void)state;
    for (uint32_t version = 0; version < 8; version++) {
        make_log(version);
        assert_int_equal(read_into(list, made.used), version == 3 || version == 4 ? 0 : -EBADMSG);
    }
    make_log(4);
    assert_int_equal(read_into(list, 15), -EBADMSG);
    assert_int_equal(read_into(list, 0), -EBADMSG);
    made.bytes[3] = 'x';
    assert_int_equal(read_into(list, made.used), -EBADMSG);
}

/* As ninja itself reads it: what comes before the mistake counts. */
static void a_log_that_is_cut_off_is_read_so_far(void **state) {
    uint32_t out_of_range = 99;
    char list[LIST_BYTES];

    (void)state;
    make_log(4);
    assert_int_equal(read_into(list, made.used - 1), 0);
    assert_string_equal(list, "../a.c ../inc/abc.h /abs/b.c");
    begin(4);
    put_deps(put_path("a.o"), 1, &out_of_range);
    assert_int_equal(read_into(list, made.used), 0);
    assert_string_equal(list, "");
    put_deps(99, 0, NULL); /* of nothing */
    put_path("never.c");
    assert_int_equal(read_into(list, made.used), 0);
    assert_string_equal(list, "");
}

/* Cut and changed at random: it ends, and reads nothing that is not its own (ASan). */
static void odd_logs_do_no_harm(void **state) {
    unsigned seed = 1;
    char list[LIST_BYTES];

    (void)state;
    for (int round = 0; round < 50000; round++) {
        char *log;
        size_t bytes;

        make_log(3 + (uint32_t)round % 2);
        bytes = (size_t)rand_r(&seed) % (made.used + 1);
        log = malloc(bytes + !bytes);
        assert_non_null(log);
        memcpy(log, made.bytes, bytes);
        for (int i = rand_r(&seed) % 4; bytes && i > 0; i--)
            log[(size_t)rand_r(&seed) % bytes] = (char)rand_r(&seed);
        *list = '\0';
        (void)stg_ninjadeps_read(log, bytes, add, list); /* whatever it says */
        free(log);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_file_is_named_once_in_order),
        cmocka_unit_test(what_is_no_log_is_refused),
        cmocka_unit_test(a_log_that_is_cut_off_is_read_so_far),
        cmocka_unit_test(odd_logs_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
