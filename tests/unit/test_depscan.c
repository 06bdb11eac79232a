/* SPDX-License-Identifier: GPL-2.0-only */
/* What is found in a text, by rows; and that no text makes it read beyond its end. */
#include "tests/unit/unit.h"

#include "cache/depscan.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LIST_BYTES 4096

static void add(void *context, const char *name, bool angled) {
    char *list = context;
    size_t used = strlen(list);

    assert_true(strlen(name) < STG_DEPSCAN_NAME_BYTES);
    (void)snprintf(list + used, LIST_BYTES - used, "%s%c%s", used ? " " : "", angled ? '<' : '"',
                   name); /* cut where longer */
}

static void names_are_found(void **state) {
    static const struct {
        const char *text;
        const char *names;
    } rows[] = {
        {"", ""},
        {"#include <a.h>", "<a.h"},
        {"#include \"a.h\"\n#include <b/c.h>\n", "\"a.h <b/c.h"},
        {"  #\tinclude  <a.h>  // <b.h>\n", "<a.h"},
        {"%: include <a.h>\n", "<a.h"},
        {"#include_next <a.h>\n#import \"b.h\"\n", "<a.h \"b.h"},
        {"#include<a.h>\r\n#include \"b.h\"\r\n", "<a.h \"b.h"},
        {"/* */ # /* */ include /* */ <a.h>\n", "<a.h"},
        {"/* over\n lines */ #include <a.h>\n", "<a.h"},
        {"/*\n#include <no.h>\n*/\n#include <a.h>\n", "<a.h"},
        {"// #include <no.h>\n#include <a.h>\n", "<a.h"},
        {"// goes on \\\n#include <no.h>\n#include <a.h>\n", "<a.h"},
        {"#inc\\\nlude <a\\\n.h>\n", "<a.h"},
        {"#inc\\\r\nlude <a.h>\n", "<a.h"},
        {"int a; #include <no.h>\n", ""},
        {"a /* */ #include <no.h>\n", ""},
        {"#include NAME\n#include MAKE(a.h)\n#include <a.h>\n", "<a.h"},
        {"#include <no.h\n#include \"no.h\n#include <a.h>\n", "<a.h"},
        {"#include <>\n#include \"\"\n", ""},
        {"#includes <no.h>\n#define include <no.h>\n", ""},
        {"#if 0\n#include <a.h>\n#else\n#include <b.h>\n#endif\n", "<a.h <b.h"},
        {"#if __has_include(<a.h>) && __has_include (\"b.h\")\n", "<a.h \"b.h"},
        {"#elif defined(X) || __has_include_next(<a.h>)\n", "<a.h"},
        {"#if __has_include(NAME) || '\"' == X || __has_include(<a.h>)\n", "<a.h"},
        {"#if A /* __has_include(<no.h>) */\n", ""},
        {"#error don't \"\n#include <a.h>\n", "<a.h"},
        {"char *a = \"/*\";\n#include <a.h>\n", "<a.h"},
        {"char a = '\"', b = '\\'';\n#include <a.h>\n", "<a.h"},
        {"char *a = \"\\\n#include <no.h>\\\n\";\n#include <a.h>\n", "<a.h"},
        {"char *a = \"\\\\\"; /* \" */\n#include <a.h>\n", "<a.h"},
        {"int a = 1'000'000; // '\n#include <a.h>\n", "<a.h"},
        {"int a = 1'000; /*\n#include <no.h>\n*/\n", ""},
        {"char a = u8'/', b = L'*';\n#include <a.h>\n", "<a.h"},
        {"auto a = R\"(\n#include <no.h>\n)\";\n#include <a.h>\n", "<a.h"},
        {"auto a = u8R\"x(\n)\"\n#include <no.h>\n)x\";\n#include <a.h>\n", "<a.h"},
        {"auto a = NOT_R\"(\"; \n#include <a.h>\n", "<a.h"},
        {"a / b\n#include <a.h>\n", "<a.h"},
        {"a /\\\n* \n#include <no.h>\n*/\n#include <a.h>\n", "<a.h"},
        {"don't\n#include <a.h>\n", "<a.h"},
        {"#include <a.h> #include <no.h>\n", "<a.h"},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        char list[LIST_BYTES] = "";

        stg_depscan(rows[i].text, strlen(rows[i].text), add, list);
        if (strcmp(list, rows[i].names))
            print_error("row %zu: %s\n", i, rows[i].text);
        assert_string_equal(list, rows[i].names);
    }
}

static void a_name_that_is_too_long_is_passed_over(void **state) {
    char text[STG_DEPSCAN_NAME_BYTES + 64];
    char list[LIST_BYTES] = "";
    char longest[STG_DEPSCAN_NAME_BYTES];

    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    (void)snprintf(text, sizeof(text), "#include <%sy>\n#include <a.h>\n", longest);
    stg_depscan(text, strlen(text), add, list);
    assert_string_equal(list, "<a.h");
    list[0] = '\0';
    (void)snprintf(text, sizeof(text), "#include <%s>\n", longest);
    stg_depscan(text, strlen(text), add, list);
    assert_int_equal(strlen(list), sizeof(longest));
}

static void a_nul_in_the_text_is_a_character(void **state) {
    static const char text[] = "a\0b\n#include <a.h>\n#include <no\0.h>\n";
    char list[LIST_BYTES] = "";

    (void)state;
    stg_depscan(text, sizeof(text) - 1, add, list);
    assert_string_equal(list, "<a.h");
}

static void count(void *context, const char *name, bool angled) {
    (void)angled;
    *(size_t *)context += strlen(name);
}

/* Random pieces of what means something, at the very end of a page that nothing follows. */
static void no_text_is_read_beyond_its_end(void **state) {
    static const char *const pieces[] = {"#",
                                         "include",
                                         " ",
                                         "\n",
                                         "\\\n",
                                         "\\",
                                         "<",
                                         ">",
                                         "\"",
                                         "'",
                                         "/*",
                                         "*/",
                                         "//",
                                         "R\"",
                                         "(",
                                         ")",
                                         "x",
                                         "1'0",
                                         "%:",
                                         "if ",
                                         "\r\n",
                                         "\\\r\n",
                                         "u8R\"",
                                         "#if __has_include(",
                                         "#include <a.h>\n",
                                         "\xc3\xa9",
                                         "\t",
                                         "/",
                                         "*"};
    enum { PAGE = 4096, ROUNDS = 200000 };
    char *pages =
        mmap(NULL, (size_t)PAGE * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t seed = 1;

    (void)state;
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + PAGE, PAGE, PROT_NONE), 0);
    for (int round = 0; round < ROUNDS; round++) {
        char text[512] = "";
        size_t bytes = 0;
        size_t names = 0;

        for (int i = 0; i < 40; i++) {
            const char *piece;

            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            piece = pieces[(seed >> 33) % STG_COUNT(pieces)];
            if (bytes + strlen(piece) >= sizeof(text))
                break;
            memcpy(text + bytes, piece, strlen(piece));
            bytes += strlen(piece);
        }
        bytes -= seed % 3 < bytes ? seed % 3 : 0;
        memcpy(pages + PAGE - bytes, text, bytes);
        stg_depscan(pages + PAGE - bytes, bytes, count, &names);
        assert_true(names <= bytes);
    }
    (void)munmap(pages, (size_t)PAGE * 2);
}

static void code_is_told_by_its_ending(void **state) {
    (void)state;
    assert_true(stg_depscan_is_code("a.c"));
    assert_true(stg_depscan_is_code("a.b.hpp"));
    assert_true(stg_depscan_is_code("x.S"));
    assert_false(stg_depscan_is_code("a.o"));
    assert_false(stg_depscan_is_code("Makefile"));
    assert_false(stg_depscan_is_code(".c"));
    assert_false(stg_depscan_is_code("c"));
    assert_false(stg_depscan_is_code("a.c~"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(a_name_that_is_too_long_is_passed_over),
        cmocka_unit_test(a_nul_in_the_text_is_a_character),
        cmocka_unit_test(no_text_is_read_beyond_its_end),
        cmocka_unit_test(code_is_told_by_its_ending),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
