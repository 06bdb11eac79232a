/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of stagectl share. One thread; the command line is read once, in stagectl.c. */
#ifndef STG_CLIENT_CTL_H
#define STG_CLIENT_CTL_H

#include "client/stagefs.h"

#include <stdbool.h>
#include <stdio.h>

enum stg_ctl_status {
    STG_CTL_OK = 0,
    STG_CTL_FAILED = 1,
    STG_CTL_USAGE = 2,
    STG_CTL_LATE = 3, /* of sync: the time is over */
};

#define STG_CTL_SYNC_S 60 /* for how long sync waits, unless told */

struct stg_ctl {
    bool recursive;
    bool json;
    bool no_wait;
    bool repair;
    bool nul; /* lists have NULs between paths, not newlines */
    enum stagefs_mode mode;
    double timeout_s;
    const char *set;   /* or NULL; as all here of argv */
    const char *list;  /* or NULL; "-" is stdin */
    const char *mount; /* or NULL */
    char **words;      /* the operands */
    size_t count;
};

/* Each is one command; returns an enum stg_ctl_status. */
int stg_ctl_stage(const struct stg_ctl *ctl);
int stg_ctl_unstage(const struct stg_ctl *ctl);
int stg_ctl_status(const struct stg_ctl *ctl);
int stg_ctl_stats(const struct stg_ctl *ctl);
int stg_ctl_sync(const struct stg_ctl *ctl);
int stg_ctl_set(const struct stg_ctl *ctl);
int stg_ctl_config(const struct stg_ctl *ctl);
int stg_ctl_copy(const struct stg_ctl *ctl);
int stg_ctl_hint(const struct stg_ctl *ctl);
int stg_ctl_profile(const struct stg_ctl *ctl);
int stg_ctl_doctor(const struct stg_ctl *ctl);

/* ---- ctl_text.c: for people ---- */

extern const char *const stg_ctl_modes[]; /* by enum stagefs_mode, NULL after the last */

/* One line on stderr; control characters are escaped. */
void stg_ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same about a path and an errno value, with what can be done. Returns STG_CTL_FAILED. */
int stg_ctl_failed(const char *path, int error);

/* A line on stderr about the wrong use of the command. Returns STG_CTL_USAGE. */
int stg_ctl_misused(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes `text` with its control characters escaped. */
void stg_ctl_print(const char *text);

#define STG_CTL_NUMBER_BYTES 32
/* "1.5 MiB", "12 ms": returns `text`. */
const char *stg_ctl_bytes(uint64_t bytes, char text[STG_CTL_NUMBER_BYTES]);
const char *stg_ctl_time(uint64_t ns, char text[STG_CTL_NUMBER_BYTES]);

/* ---- ctl_list.c: the paths that a command is about ---- */

struct stg_ctl_list {
    char **paths; /* owned, as is each of them */
    size_t count;
};

/* The operands from the `first` on, and the lines of --from-file. Returns 0 or -errno, told. */
int stg_ctl_list_init(const struct stg_ctl *ctl, size_t first, struct stg_ctl_list *ret_list);
void stg_ctl_list_fini(struct stg_ctl_list *list);

#define STG_CTL_AUTO_LIST __attribute__((cleanup(stg_ctl_list_fini)))

/* ---- ctl_mount.c ---- */

/*
 * A descriptor on the mount that `path` is on, or without one on the only mount there is; and its
 * name for people in `*ret_name`, to be freed. Returns -errno after saying what is wrong.
 */
int stg_ctl_open_mount(const char *path, char **ret_name);

/* ioctl(2) on such a descriptor. Returns 0 or -errno. */
int stg_ctl_ask(int fd, unsigned long command, void *request);

/* ---- ctl_json.c ---- */

/* Writes one JSON text on one line. */
struct stg_json {
    FILE *stream;
    bool comma; /* before what comes next */
};

/* `key` is NULL in a list and for the outermost. `bracket` is one of [ { and ] }. */
void stg_json_begin(struct stg_json *json, const char *key, char bracket);
void stg_json_end(struct stg_json *json, char bracket);

/* NULL is null. A byte that is not part of UTF-8 becomes a lone surrogate, as Python has it. */
void stg_json_text(struct stg_json *json, const char *key, const char *text);
void stg_json_number(struct stg_json *json, const char *key, uint64_t number);
void stg_json_fraction(struct stg_json *json, const char *key, double number);
void stg_json_bool(struct stg_json *json, const char *key, bool value);

#endif
