/* SPDX-License-Identifier: GPL-2.0-only */
/* A profile is read as it was written, refused where it is none, and merged without losing order.
 */
#include "tests/unit/unit.h"

#include "util/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void add_all(struct stg_profile *profile, const char *text) {
    size_t line;

    assert_int_equal(stg_profile_parse(profile, text, strlen(text), true, &line), 0);
}

/* The text without its first line, for one test at a time. */
static const char *lines_of(const struct stg_profile *profile) {
    static char kept[65536];
    FILE *stream = fmemopen(kept, sizeof(kept), "w");

    assert_non_null(stream);
    stg_profile_write(profile, stream);
    assert_int_equal(fclose(stream), 0);
    assert_memory_equal(kept, "stagefs-profile 1\n", 18);
    return kept + 18;
}

static size_t wrong_line(const char *text, size_t bytes, bool headless) {
    struct stg_profile profile = STG_PROFILE_NONE;
    size_t line = 0;
    int error = stg_profile_parse(&profile, text, bytes, headless, &line);

    assert_true(error == 0 || error == -EINVAL);
    stg_profile_fini(&profile);
    return error ? line : 0;
}

static size_t wrong(const char *text) { return wrong_line(text, strlen(text), false); }

static void it_is_read_as_it_was_written(void **state) {
    struct stg_profile profile = STG_PROFILE_NONE;
    struct stg_profile again = STG_PROFILE_NONE;
    const char *text = "folder 0 .\n"
                       "search 2 a b/include\n"
                       "file 0 \\\\odd\\nname\\\\n \n"
                       "file 0 \\r\n"
                       "file 3 \xff\xc3\xa4\n";
    char copy[256];

    (void)state;
    add_all(&profile, text);
    assert_int_equal(profile.count, 5);
    assert_string_equal(profile.entries[3].path, "\r");
    assert_string_equal(profile.entries[1].path, "a b/include");
    assert_int_equal(profile.entries[1].kind, STG_PROFILE_SEARCH);
    assert_int_equal(profile.entries[1].age, 2);
    assert_string_equal(profile.entries[2].path, "\\odd\nname\\n ");
    assert_string_equal(lines_of(&profile), text);
    (void)snprintf(copy, sizeof(copy), "%s", lines_of(&profile));
    add_all(&again, copy);
    assert_string_equal(lines_of(&again), text);
    stg_profile_fini(&profile);
    stg_profile_fini(&again);
}

static void what_people_do_to_it_is_taken(void **state) {
    (void)state;
    assert_int_equal(wrong("stagefs-profile 1\r\n# ours\r\n\r\nfile 0 a\r\n"), 0);
    assert_int_equal(wrong("stagefs-profile 1\n\n#\n#file\nfile 0 a"), 0);
    assert_int_equal(wrong("stagefs-profile 1"), 0);
}

static void what_is_none_is_refused(void **state) {
    static const char *const lines[] = {
        "file",         "file 0",      "file 0 ",    "file  a",       "file 4 a",
        "file -1 a",    "file 1x a",   "fil 0 a",    "files 0 a",     "file 0 /a",
        "file 0 a/",    "file 0 a//b", "file 0 ..",  "file 0 a/../b", "file 0 ./a",
        "file 0 a/./b", "file 0 a/.",  "file 0 a\\", "file 0 a\\t",   " file 0 a",
    };
    char text[128];
    char *longest = malloc(20000);

    (void)state;
    assert_int_equal(wrong(""), 1);
    assert_int_equal(wrong("\n"), 1);
    assert_int_equal(wrong("stagefs-profile 2\n"), 1);
    assert_int_equal(wrong("file 0 a\n"), 1);
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        (void)snprintf(text, sizeof(text), "stagefs-profile 1\nfile 0 a\n%s\n", lines[i]);
        if (wrong(text) != 3)
            fail_msg("line %zu for \"%s\"", wrong(text), lines[i]);
    }
    assert_int_equal(wrong_line("file 0 a\0b\n", 11, true), 1);
    assert_non_null(longest);
    memset(longest, 'a', 20000);
    memcpy(longest, "file 0 ", 7);
    assert_int_equal(wrong_line(longest, 20000, true), 1);
    assert_int_equal(wrong_line(longest, 7 + PATH_MAX, true), 1);
    assert_int_equal(wrong_line(longest, 7 + PATH_MAX - 1, true), 0);
    free(longest);
}

static void odd_input_does_no_harm(void **state) {
    static const char alphabet[] = "filesearchfolder 0123\n\n\n/.\\#\r\xff";
    char text[400];

    (void)state;
    srand(1);
    for (int turn = 0; turn < 20000; turn++) {
        size_t bytes = (size_t)rand() % sizeof(text);
        char *exact;

        for (size_t i = 0; i < bytes; i++)
            text[i] = alphabet[(size_t)rand() % sizeof(alphabet)];
        if (turn % 2 && bytes > 7)
            memcpy(text, "file 0 ", 7);
        exact = malloc(bytes + !bytes); /* what reads behind it is seen by a sanitizer */
        assert_non_null(exact);
        memcpy(exact, text, bytes);
        (void)wrong_line(exact, bytes, true);
        free(exact);
    }
}

static const char *merged(const char *old_text, const char *fresh_text, bool whole) {
    struct stg_profile old = STG_PROFILE_NONE;
    struct stg_profile fresh = STG_PROFILE_NONE;
    struct stg_profile both = STG_PROFILE_NONE;
    const char *lines;

    add_all(&old, old_text);
    add_all(&fresh, fresh_text);
    assert_int_equal(stg_profile_merge(&old, &fresh, whole, &both), 0);
    lines = lines_of(&both);
    stg_profile_fini(&old);
    stg_profile_fini(&fresh);
    stg_profile_fini(&both);
    return lines;
}

static void what_was_not_met_ages_and_goes(void **state) {
    (void)state;
    assert_string_equal(merged("", "file 0 a\nfile 0 b\n", true), "file 0 a\nfile 0 b\n");
    assert_string_equal(merged("file 0 a\nfile 2 b\n", "", true), "file 1 a\nfile 3 b\n");
    assert_string_equal(merged("file 3 a\nfile 0 b\n", "", true), "file 1 b\n");
    assert_string_equal(merged("file 3 a\nfile 0 b\n", "", false), "file 3 a\nfile 0 b\n");
    assert_string_equal(merged("file 3 a\n", "file 0 a\n", true), "file 0 a\n");
    assert_string_equal(merged("folder 0 a\n", "search 0 a\n", true), "search 0 a\n");
}

static void what_is_left_stays_where_it_was(void **state) {
    (void)state;
    assert_string_equal(merged("file 0 a\nfile 0 x\nfile 0 b\nfile 0 y\nfile 0 z\n",
                               "file 0 a\nfile 0 b\nfile 0 c\n", true),
                        "file 0 a\nfile 1 x\nfile 0 b\nfile 1 y\nfile 1 z\nfile 0 c\n");
    assert_string_equal(merged("file 0 x\nfile 0 a\n", "file 0 a\n", true), "file 1 x\nfile 0 a\n");
    /* The order of the new one counts. */
    assert_string_equal(
        merged("file 0 a\nfile 0 x\nfile 0 b\nfile 0 y\n", "file 0 b\nfile 0 a\n", true),
        "file 0 b\nfile 1 y\nfile 0 a\nfile 1 x\n");
}

static void it_is_capped(void **state) {
    struct stg_profile profile = STG_PROFILE_NONE;
    struct stg_profile none = STG_PROFILE_NONE;
    struct stg_profile both = STG_PROFILE_NONE;
    char path[32];

    (void)state;
    for (int i = 0; i < STG_PROFILE_ENTRIES_MAX + 5; i++) {
        (void)snprintf(path, sizeof(path), "f%d", i);
        assert_int_equal(stg_profile_add(&profile, STG_PROFILE_FILE, 0, path), 0);
    }
    assert_int_equal(profile.count, STG_PROFILE_ENTRIES_MAX);
    assert_int_equal(profile.left_out, 5);
    assert_int_equal(stg_profile_merge(&profile, &none, true, &both), 0);
    assert_int_equal(both.count, STG_PROFILE_ENTRIES_MAX);
    stg_profile_fini(&both);
    stg_profile_fini(&profile);
}

static void a_file_is_read(void **state) {
    char folder[] = "/tmp/stagefs-profile.XXXXXX";
    struct stg_profile profile = STG_PROFILE_NONE;
    char path[64];
    size_t line = 9;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/p", folder);
    assert_int_equal(stg_profile_read(&profile, path, &line), -ENOENT);
    assert_int_equal(stg_profile_read(&profile, folder, &line), -EINVAL);
    assert_int_equal(line, 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(stg_profile_read(&profile, path, &line), -EINVAL); /* and does not wait */
    assert_int_equal(unlink(path), 0);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "stagefs-profile 1\nfile 0 a\nx\n", 29), 29);
    assert_int_equal(stg_profile_read(&profile, path, &line), -EINVAL);
    assert_int_equal(line, 3);
    assert_int_equal(ftruncate(fd, 27), 0);
    stg_profile_fini(&profile);
    assert_int_equal(stg_profile_read(&profile, path, &line), 0);
    assert_int_equal(profile.count, 1);
    assert_int_equal(ftruncate(fd, (off_t)STG_PROFILE_TEXT_MAX_BYTES + 1), 0);
    assert_int_equal(stg_profile_read(&profile, path, &line), -EFBIG);
    stg_profile_fini(&profile);
    (void)close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_read_as_it_was_written),
        cmocka_unit_test(what_people_do_to_it_is_taken),
        cmocka_unit_test(what_is_none_is_refused),
        cmocka_unit_test(odd_input_does_no_harm),
        cmocka_unit_test(what_was_not_met_ages_and_goes),
        cmocka_unit_test(what_is_left_stays_where_it_was),
        cmocka_unit_test(it_is_capped),
        cmocka_unit_test(a_file_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
