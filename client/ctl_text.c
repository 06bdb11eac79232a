/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns what stagectl says to people: messages, and numbers with their units. */
#include "client/ctl.h"

#include "util/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 8192 };

const char *const stg_ctl_modes[] = {"none", "mmap", "prefetch", "adaptive", "default", NULL};

static void say(const char *format, va_list arguments) {
    char text[LINE_BYTES];
    char line[LINE_BYTES];

    (void)vsnprintf(text, sizeof(text), format, arguments); /* cut where it is longer */
    stg_bytes_escape(line, sizeof(line), text);
    (void)fprintf(stderr, "stagectl: %s\n", line);
}

void stg_ctl_error(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

int stg_ctl_misused(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return STG_CTL_USAGE;
}

static const char *advice_for(int error) {
    switch (error) {
    case ENOTTY:
        return "not on a stagefs mount, or on one of another version";
    case EOPNOTSUPP:
        return "the mount does not stage: mount with -o stage=adaptive";
    case EISDIR:
        return "is a folder: give -r for the files below it";
    case EPERM:
        return "only the mount's owner or root may do that";
    case EACCES:
        return "permission denied: it has to be readable for you";
    case EAGAIN:
        return "what became of it is not known: try again";
    case ENOTCONN:
        return "the mount's daemon is gone: unmount it and mount it again";
    default:
        return strerror(error);
    }
}

int stg_ctl_failed(const char *path, int error) {
    stg_ctl_error("%s: %s", path, advice_for(error));
    return STG_CTL_FAILED;
}

void stg_ctl_print(const char *text) {
    size_t bytes = 4 * strlen(text) + 1; /* "\x1b" for one */
    char *line = malloc(bytes);

    if (!line) {
        (void)fputc('?', stdout);
        return;
    }
    stg_bytes_escape(line, bytes, text);
    (void)fputs(line, stdout); /* errors are looked at once, at the end of main */
    free(line);
}

const char *stg_ctl_bytes(uint64_t bytes, char text[STG_CTL_NUMBER_BYTES]) {
    static const char units[] = "KMGTPE";
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        (void)snprintf(text, STG_CTL_NUMBER_BYTES, "%" PRIu64 " B", bytes);
        return text;
    }
    for (; value >= 1024 && units[unit + 1]; unit++)
        value /= 1024;
    (void)snprintf(text, STG_CTL_NUMBER_BYTES, "%.1f %ciB", value, units[unit]);
    return text;
}

const char *stg_ctl_time(uint64_t ns, char text[STG_CTL_NUMBER_BYTES]) {
    static const char *const units[] = {"ns", "us", "ms", "s"};
    double value = (double)ns;
    size_t unit = 0;

    for (; value >= 1000 && unit + 1 < sizeof(units) / sizeof(*units); unit++)
        value /= 1000;
    (void)snprintf(text, STG_CTL_NUMBER_BYTES, "%.*f %s", unit ? 1 : 0, value, units[unit]);
    return text;
}
