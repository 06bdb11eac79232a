/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages for people: stderr while in the foreground, syslog once in the background.
 *
 * Thread-safe. One call is one line: control characters in a message are written as `\n`, `\x1b`
 * and so on, so a file's name can neither forge a line nor steer a terminal.
 */
#ifndef STG_UTIL_LOG_H
#define STG_UTIL_LOG_H

#include <stdbool.h>

enum stg_log_level { STG_LOG_ERROR, STG_LOG_WARNING, STG_LOG_INFO, STG_LOG_DEBUG };

/* Sets the most detailed level that is written; INFO at start. */
void stg_log_set_level(enum stg_log_level level);

/* True where a message of `level` would be written. */
bool stg_log_enabled(enum stg_log_level level);

/* From now on messages go to syslog under `name` (borrowed, must stay valid). */
void stg_log_to_syslog(const char *name);

/* Writes one message; `format` as printf's, without a newline at its end. Keeps errno. */
void stg_log(enum stg_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define stg_error(...) stg_log(STG_LOG_ERROR, __VA_ARGS__)
#define stg_warning(...) stg_log(STG_LOG_WARNING, __VA_ARGS__)
#define stg_info(...) stg_log(STG_LOG_INFO, __VA_ARGS__)
#define stg_debug(...)                                                                             \
    do {                                                                                           \
        if (stg_log_enabled(STG_LOG_DEBUG))                                                        \
            stg_log(STG_LOG_DEBUG, __VA_ARGS__);                                                   \
    } while (0)

#endif
