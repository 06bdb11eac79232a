/* SPDX-License-Identifier: GPL-2.0-only */
/* What a compilation database names, by rows; and that no text does harm. */
#include "tests/unit/unit.h"

#include "cache/compdb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_BYTES 4096

static void add(char *list, char kind, const char *directory, const char *path) {
    size_t used = strlen(list);

    (void)snprintf(list + used, LIST_BYTES - used, "%s%c%s:%s", used ? " " : "", kind, directory,
                   path); /* cut where longer */
}

static void add_file(void *list, const char *directory, const char *file) {
    add(list, 'F', directory, file);
}

static void add_searched(void *list, const char *directory, const char *path) {
    add(list, 'S', directory, path);
}

static void add_response(void *list, const char *directory, const char *path) {
    add(list, 'R', directory, path);
}

static int read_into(char *list, const char *text, size_t bytes) {
    const struct stg_compdb_visitor visitor = {add_file, add_searched, add_response, list};

    *list = '\0';
    return stg_compdb_read(text, bytes, &visitor);
}

static void entries_are_read(void **state) {
    static const struct {
        const char *text;
        const char *names;
    } rows[] = {
        {"[]", ""},
        {"[{\"directory\":\"/b\",\"file\":\"a.c\",\"command\":\"cc -c a.c\"}]", "F/b:a.c"},
        {"[{\"directory\":\"/b\",\"file\":\"a.c\",\"command\":\"cc -Iinc -I /abs a.c\"}]",
         "F/b:a.c S/b:inc S/b:/abs"},
        {"[{\"directory\":\"/b\",\"file\":\"a.c\",\"arguments\":[\"cc\",\"-I\",\"x y\","
         "\"-isystem\",\"s\",\"-iquoteq\",\"-idirafter\",\"d\"]}]",
         "F/b:a.c S/b:x y S/b:s S/b:q S/b:d"},
        {"[{\"directory\":\"/b\",\"command\":\"cc '-Ione two' -I\\\"three\\\" -I\\\\ four\"}]",
         "S/b:one two S/b:three S/b: four"},
        {"[{\"directory\":\"/b\",\"file\":\"a.c\",\"command\":\"cc -include pre.h -imacros m.h\"}]",
         "F/b:a.c F/b:pre.h F/b:m.h"},
        {"[{\"directory\":\"/b\",\"command\":\"cc -includes -include-pch x -DI -o -I\"}]", ""},
        {"[{\"directory\":\"/b\",\"arguments\":[\"-I\"],\"file\":\"a\"},"
         "{\"directory\":\"/c\",\"arguments\":[\"i\"],\"file\":\"b\"}]",
         "F/b:a F/c:b"},
        {"[{\"file\":\"a.c\"},1,null,{\"directory\":2,\"file\":\"x\"},"
         "{\"directory\":\"/b\",\"file\":3,\"arguments\":4,\"command\":5},"
         "{\"directory\":\"/b\",\"file\":\"a.c\",\"arguments\":[1,\"-Ix\"]}]",
         "F/b:a.c S/b:x"},
        {"[{\"directory\":\"/b\",\"file\":\"a\\u00e4.c\"}]", "F/b:a\303\244.c"},
    };
    char list[LIST_BYTES];

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        assert_int_equal(read_into(list, rows[i].text, strlen(rows[i].text)), 0);
        assert_string_equal(list, rows[i].names);
    }
}

static void a_response_file_is_read_as_a_command(void **state) {
    static const char text[] = "-Iinc\n-I 'with space'\n@more.rsp -DX=1\t-include pre.h -I";
    static const char command[] = "[{\"directory\":\"/b\",\"command\":\"cc @o.rsp @ a@b\"}]";
    char list[LIST_BYTES] = "";
    const struct stg_compdb_visitor visitor = {add_file, add_searched, add_response, list};
    const struct stg_compdb_visitor of_one = {add_file, add_searched, NULL, list};

    (void)state;
    assert_int_equal(read_into(list, command, sizeof(command) - 1), 0);
    assert_string_equal(list, "R/b:o.rsp");
    *list = '\0';
    assert_int_equal(stg_compdb_read_response("/b", text, sizeof(text) - 1, &visitor), 0);
    assert_string_equal(list, "S/b:inc S/b:with space R/b:more.rsp F/b:pre.h");
    *list = '\0';
    assert_int_equal(stg_compdb_read_response("/b", text, 5, &of_one), 0);
    assert_string_equal(list, "S/b:inc");
}

static void what_is_no_database_is_refused(void **state) {
    static const char *const texts[] = {"",  "{}",   "[",        "[{]",
                                        "1", "[] x", "\xff\xfe", "[\"\\ud800\"]"};
    char list[LIST_BYTES];

    (void)state;
    for (size_t i = 0; i < STG_COUNT(texts); i++)
        assert_int_equal(read_into(list, texts[i], strlen(texts[i])), -EBADMSG);
}

static void what_comes_before_a_mistake_is_read(void **state) {
    static const char text[] =
        "[{\"directory\":\"/b\",\"file\":\"a.c\"},{\"directory\":\"/b\",\"fi";
    char list[LIST_BYTES];

    (void)state;
    assert_int_equal(read_into(list, text, strlen(text)), -EBADMSG);
    assert_string_equal(list, "F/b:a.c");
}

/* As JSON each of the many empty lists takes some hundred bytes. */
static void a_huge_entry_is_passed_over(void **state) {
    static const char after[] = "[1]],{\"directory\":\"/b\",\"file\":\"a\\\"],{\"}]";
    size_t bytes = 4 << 20;
    char *text = malloc(bytes + sizeof(after));
    char list[LIST_BYTES];

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < bytes; i++)
        text[i] = i < 2 ? '[' : "[],"[(i - 2) % 3];
    memcpy(text + 2 + (bytes - 2) / 3 * 3, after, sizeof(after));
    assert_int_equal(read_into(list, text, strlen(text)), 0);
    assert_string_equal(list, "F/b:a\"],{");
    free(text);
}

/* Cut and changed at random: it ends, and reads nothing that is not its own (ASan). */
static void odd_texts_do_no_harm(void **state) {
    static const char whole[] =
        "[{\"directory\":\"/b\",\"file\":\"a.c\",\"command\":\"cc '-Ia b' \\\\\\\" -I\"},"
        "{\"directory\":\"/b\",\"file\":\"b.c\",\"arguments\":[\"cc\",\"-I\",\"i\",\"-include\"]}]";
    char list[LIST_BYTES];
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < 50000; round++) {
        size_t bytes = (size_t)rand_r(&seed) % sizeof(whole);
        char *text = malloc(bytes + 1);

        assert_non_null(text);
        memcpy(text, whole, bytes);
        for (int i = rand_r(&seed) % 4; bytes && i > 0; i--)
            text[(size_t)rand_r(&seed) % bytes] = (char)rand_r(&seed);
        (void)read_into(list, text, bytes); /* whatever it says */
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_read),
        cmocka_unit_test(a_response_file_is_read_as_a_command),
        cmocka_unit_test(what_is_no_database_is_refused),
        cmocka_unit_test(what_comes_before_a_mistake_is_read),
        cmocka_unit_test(a_huge_entry_is_passed_over),
        cmocka_unit_test(odd_texts_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
