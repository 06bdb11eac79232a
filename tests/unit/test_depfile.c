/* SPDX-License-Identifier: GPL-2.0-only */
/* What files for make name, by rows; and that no text does harm. */
#include "tests/unit/unit.h"

#include "cache/depfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_BYTES 4096

static void add(void *context, const char *path) {
    char *list = context;
    size_t used = strlen(list);

    (void)snprintf(list + used, LIST_BYTES - used, "%s[%s]", used ? " " : "", path); /* cut */
}

static void prerequisites_are_named(void **state) {
    static const struct {
        const char *text;
        const char *names;
    } rows[] = {
        {"", ""},
        {"a.o: a.c a.h\n", "[a.c] [a.h]"},
        {"a.o : a.c", "[a.c]"},
        {"a.o b.o: \\\n a.c \\\n  ../inc/a.h\n\na.h:\n\n../inc/a.h:\n", "[a.c] [../inc/a.h]"},
        {"a.o: a.c \\\r\n b.h\r\n", "[a.c] [b.h]"},
        {"a.o: with\\ space.c a\\#b.h cash$$.h back\\slash.h\n",
         "[with space.c] [a#b.h] [cash$.h] [back\\slash.h]"},
        {"# a.o: a.c\na.o: b.c # c.h\n", "[b.c]"},
        {"no rule here\na.o: a.c\n", "[a.c]"},
        {"a.o: a.c\nb.o: b.c\n", "[a.c] [b.c]"},
        {"a\\ b.o: x.c\n", "[x.c]"},
        {"a.o: /usr/include/c++/12/new\n", "[/usr/include/c++/12/new]"},
        {"a.o: a.c \\", "[a.c] [\\]"},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        char list[LIST_BYTES] = "";

        stg_depfile_read(rows[i].text, strlen(rows[i].text), add, list);
        assert_string_equal(list, rows[i].names);
    }
}

static void names_are_told(void **state) {
    (void)state;
    assert_true(stg_depfile_is("a.d"));
    assert_true(stg_depfile_is(".a.o.d"));
    assert_false(stg_depfile_is(".d"));
    assert_false(stg_depfile_is("a.dd"));
    assert_false(stg_depfile_is(""));
}

/* Longer than any path: passed over, and what comes after it is not. */
static void long_words_are_passed_over(void **state) {
    char text[10000];
    char list[LIST_BYTES] = "";

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "a.o: ", 5);
    memcpy(text + sizeof(text) - 5, " b.c\n", 5);
    stg_depfile_read(text, sizeof(text), add, list);
    assert_string_equal(list, "[b.c]");
}

/* Cut and changed at random: it ends, and reads nothing that is not its own (ASan). */
static void odd_texts_do_no_harm(void **state) {
    static const char whole[] = "a.o b.o: a.c \\\n in\\ c.h $$x.h \\\r\n b.h # c\nb.h:\n: x:y\\";
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < 50000; round++) {
        size_t bytes = (size_t)rand_r(&seed) % sizeof(whole);
        char *text = malloc(bytes + !bytes);
        char list[LIST_BYTES] = "";

        assert_non_null(text);
        memcpy(text, whole, bytes);
        for (int i = rand_r(&seed) % 4; bytes && i > 0; i--)
            text[(size_t)rand_r(&seed) % bytes] = (char)rand_r(&seed);
        stg_depfile_read(text, bytes, add, list);
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prerequisites_are_named),
        cmocka_unit_test(names_are_told),
        cmocka_unit_test(long_words_are_passed_over),
        cmocka_unit_test(odd_texts_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
