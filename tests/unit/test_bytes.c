/* SPDX-License-Identifier: GPL-2.0-only */
/* Hashes that spread, and text that cannot steer a terminal. */
#include "tests/unit/unit.h"

#include "util/bytes.h"

#include <string.h>

static void assert_escaped(const char *text, size_t room, const char *expected) {
    char line[64];

    memset(line, 'X', sizeof(line));
    stg_bytes_escape(line, room, text);
    assert_string_equal(line, expected);
    for (size_t i = room; i < sizeof(line); i++)
        assert_int_equal(line[i], 'X');
}

static void escapes_control_bytes(void **state) {
    (void)state;
    assert_escaped("", 64, "");
    assert_escaped("plain text", 64, "plain text");
    assert_escaped("two\nlines", 64, "two\\nlines");
    assert_escaped("\x1b[31mred", 64, "\\x1b[31mred");
    assert_escaped("\t\r\x7f", 64, "\\x09\\x0d\\x7f");
    assert_escaped("\xc3\xa4", 64, "\xc3\xa4"); /* UTF-8 stays */
}

static void cuts_at_the_end_and_never_inside_an_escape(void **state) {
    (void)state;
    assert_escaped("abcdef", 4, "abc");
    assert_escaped("ab\ncd", 4, "ab");
    assert_escaped("ab\ncd", 5, "ab\\n");
    assert_escaped("a\x01", 5, "a");
    assert_escaped("a\x01", 6, "a\\x01");
    assert_escaped("abc", 1, "");
}

/* Neighbouring numbers, as inodes have them, must fall into all the buckets of a small table. */
static void hashes_spread(void **state) {
    unsigned counts[64] = {0};

    (void)state;
    for (uint64_t i = 0; i < 6400; i++)
        counts[stg_hash_u64(i * 256) % 64]++;
    for (size_t i = 0; i < STG_COUNT(counts); i++) {
        assert_true(counts[i] > 50);
        assert_true(counts[i] < 200);
    }
}

/* Each byte, the length and the seed count; zeros at the end, too. */
static void hashes_every_byte(void **state) {
    unsigned char bytes[40] = {0};
    uint64_t plain = stg_hash_bytes(bytes, sizeof(bytes), 1);

    (void)state;
    assert_true(plain != stg_hash_bytes(bytes, sizeof(bytes), 2));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        assert_true(stg_hash_bytes(bytes, i, 1) != plain);
        bytes[i] = 1;
        assert_true(stg_hash_bytes(bytes, sizeof(bytes), 1) != plain);
        bytes[i] = 0;
    }
    assert_true(stg_hash_bytes(bytes, sizeof(bytes), 1) == plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_control_bytes),
        cmocka_unit_test(cuts_at_the_end_and_never_inside_an_escape),
        cmocka_unit_test(hashes_spread),
        cmocka_unit_test(hashes_every_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
