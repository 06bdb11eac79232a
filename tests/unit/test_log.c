/* SPDX-License-Identifier: GPL-2.0-only */
/* One message is one line, the level decides, and errno survives. */
#include "tests/unit/unit.h"

#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static char written[8192];

/* Sends stderr into a file for the time of one message, and reads it back. */
static void capture(enum stg_log_level level, const char *text) {
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    size_t got;

    assert_non_null(file);
    assert_true(saved >= 0);
    (void)fflush(stderr);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    stg_log(level, "%s", text);
    (void)fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    stg_fd_close(saved);
    rewind(file);
    got = fread(written, 1, sizeof(written) - 1, file);
    written[got] = '\0';
    (void)fclose(file);
}

static unsigned lines(void) {
    unsigned count = 0;

    for (const char *at = written; *at; at++)
        count += *at == '\n';
    return count;
}

static void a_message_is_a_line(void **state) {
    (void)state;
    capture(STG_LOG_ERROR, "a name\nwith\x1b[2J traps");
    assert_int_equal(lines(), 1);
    assert_non_null(strstr(written, "a name\\nwith\\x1b[2J traps"));
    assert_null(strchr(written, '\x1b'));
}

static void a_long_message_is_cut_and_still_a_line(void **state) {
    char text[6000];

    (void)state;
    memset(text, '\x01', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    capture(STG_LOG_WARNING, text);
    assert_int_equal(lines(), 1);
    assert_true(strlen(written) < sizeof(text));
}

static void the_level_decides(void **state) {
    (void)state;
    assert_false(stg_log_enabled(STG_LOG_DEBUG));
    capture(STG_LOG_DEBUG, "hidden");
    assert_string_equal(written, "");
    stg_log_set_level(STG_LOG_DEBUG);
    capture(STG_LOG_DEBUG, "shown");
    assert_int_equal(lines(), 1);
    stg_log_set_level(STG_LOG_ERROR);
    capture(STG_LOG_WARNING, "hidden");
    assert_string_equal(written, "");
    stg_log_set_level(STG_LOG_INFO);
}

static void errno_survives(void **state) {
    (void)state;
    errno = ENOTEMPTY;
    stg_log(STG_LOG_INFO, "# said in a test");
    assert_int_equal(errno, ENOTEMPTY);
    stg_log(STG_LOG_DEBUG, "# not said");
    assert_int_equal(errno, ENOTEMPTY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_a_line),
        cmocka_unit_test(a_long_message_is_cut_and_still_a_line),
        cmocka_unit_test(the_level_decides),
        cmocka_unit_test(errno_survives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
