/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns where messages go and how a line is made safe; decides nothing about what is said. */
#include "util/log.h"

#include "util/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>

#define LINE_BYTES 2048

static _Atomic enum stg_log_level current_level = STG_LOG_INFO;
static atomic_bool to_syslog;

void stg_log_set_level(enum stg_log_level level) { atomic_store(&current_level, level); }

bool stg_log_enabled(enum stg_log_level level) {
    return level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

void stg_log_to_syslog(const char *name) {
    openlog(name, LOG_PID, LOG_DAEMON);
    atomic_store(&to_syslog, true);
}

void stg_log(enum stg_log_level level, const char *format, ...) {
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    static const char *const prefixes[] = {"error: ", "warning: ", "", "debug: "};
    char raw[LINE_BYTES];
    char line[LINE_BYTES];
    int saved = errno;
    va_list args;

    if (!stg_log_enabled(level))
        return;
    va_start(args, format);
    if (vsnprintf(raw, sizeof(raw), format, args) < 0)
        raw[0] = '\0';
    va_end(args);
    stg_bytes_escape(line, sizeof(line), raw);
    if (atomic_load(&to_syslog))
        syslog(priorities[level], "%s", line);
    else
        (void)fprintf(stderr, "stagefs: %s%s\n", prefixes[level], line); /* nobody left to tell */
    errno = saved;
}
