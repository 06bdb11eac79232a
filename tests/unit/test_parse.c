/* SPDX-License-Identifier: GPL-2.0-only */
/* The readers of option values: what is taken, what is refused, and that a refusal changes nothing.
 */
#include "tests/unit/unit.h"

#include "util/parse.h"

#include <errno.h>
#include <locale.h>
#include <string.h>

#define UNTOUCHED 4711

static void reads_whole_numbers(void **state) {
    static const struct {
        const char *text;
        int error;
        uint64_t value;
    } rows[] = {
        {"0", 0, 0},
        {"7", 0, 7},
        {"007", 0, 7},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"99999999999999999999999", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"1k", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1.0", -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        uint64_t value = UNTOUCHED;

        assert_int_equal(stg_parse_uint(rows[i].text, 0, UINT64_MAX, &value), rows[i].error);
        assert_int_equal(value, rows[i].error ? UNTOUCHED : rows[i].value);
    }
}

static void keeps_numbers_in_range(void **state) {
    uint64_t value = UNTOUCHED;

    (void)state;
    assert_int_equal(stg_parse_uint("0", 1, 256, &value), -ERANGE);
    assert_int_equal(stg_parse_uint("257", 1, 256, &value), -ERANGE);
    assert_int_equal(value, UNTOUCHED);
    assert_int_equal(stg_parse_uint("1", 1, 256, &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(stg_parse_uint("256", 1, 256, &value), 0);
    assert_int_equal(value, 256);
}

static void reads_seconds(void **state) {
    static const struct {
        const char *text;
        int error;
        double value;
    } rows[] = {
        {"0", 0, 0},        {"1", 0, 1},         {"0.5", 0, 0.5},       {".25", 0, 0.25},
        {"2.", 0, 2},       {"100", 0, 100},     {"100.1", -ERANGE, 0}, {"1e3", -EINVAL, 0},
        {"", -EINVAL, 0},   {".", -EINVAL, 0},   {"-1", -EINVAL, 0},    {"1,5", -EINVAL, 0},
        {"1s", -EINVAL, 0}, {"inf", -EINVAL, 0}, {"nan", -EINVAL, 0},   {"1.2.3", -EINVAL, 0},
        {" 1", -EINVAL, 0}, {"0x1", -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        double value = UNTOUCHED;

        assert_int_equal(stg_parse_seconds(rows[i].text, 100, &value), rows[i].error);
        assert_true(value == (rows[i].error ? UNTOUCHED : rows[i].value));
    }
}

static void seconds_are_the_same_in_every_locale(void **state) {
    double value = 0;

    (void)state;
    (void)setlocale(LC_ALL, "de_DE.UTF-8"); /* where it is installed, the decimal mark is a comma */
    assert_int_equal(stg_parse_seconds("1.5", 100, &value), 0);
    assert_true(value == 1.5);
    (void)setlocale(LC_ALL, "C");
}

/* Cuts the list apart and joins what comes out with '|'. */
static void assert_options(const char *list, const char *expected) {
    char copy[128];
    char joined[128] = "";
    char *cursor = copy;
    const char *option;

    assert_true(strlen(list) < sizeof(copy));
    memcpy(copy, list, strlen(list) + 1);
    while ((option = stg_parse_next_option(&cursor))) {
        strncat(joined, option, sizeof(joined) - strlen(joined) - 1);
        strncat(joined, "|", sizeof(joined) - strlen(joined) - 1);
    }
    assert_string_equal(joined, expected);
}

static void cuts_options_apart(void **state) {
    (void)state;
    assert_options("", "");
    assert_options("ro", "ro|");
    assert_options("ro,threads=4", "ro|threads=4|");
    assert_options("a,,b", "a||b|");
    assert_options(",a", "|a|");
    assert_options("a,", "a|");
    assert_options("fsname=a\\,b,ro", "fsname=a,b|ro|");
    assert_options("a\\\\,b", "a\\|b|");
    assert_options("a\\b", "a\\b|");
    assert_options("a\\", "a\\|");
    assert_options("a\\,", "a,|");
}

static void finds_words(void **state) {
    static const char *const words[] = {"auto", "on", "off", NULL};

    (void)state;
    assert_int_equal(stg_parse_word("auto", words), 0);
    assert_int_equal(stg_parse_word("off", words), 2);
    assert_int_equal(stg_parse_word("of", words), -EINVAL);
    assert_int_equal(stg_parse_word("OFF", words), -EINVAL);
    assert_int_equal(stg_parse_word("", words), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_whole_numbers),
        cmocka_unit_test(keeps_numbers_in_range),
        cmocka_unit_test(reads_seconds),
        cmocka_unit_test(seconds_are_the_same_in_every_locale),
        cmocka_unit_test(cuts_options_apart),
        cmocka_unit_test(finds_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
