/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What makes slowfs slow: the delay of each operation, errors and gates on demand, and counts.
 * Knows nothing of files. Everything here may be called by any number of threads at once.
 */
#ifndef SLOWFS_DELAY_H
#define SLOWFS_DELAY_H

#define FUSE_USE_VERSION 318
#include <fuse_lowlevel.h>

#include <stdbool.h>
#include <stddef.h>

enum slow_operation {
    SLOW_LOOKUP,
    SLOW_GETATTR,
    SLOW_READLINK,
    SLOW_OPEN,
    SLOW_READ,
    SLOW_WRITE,
    SLOW_READDIR,
    SLOW_CREATE,
    SLOW_MKDIR,
    SLOW_UNLINK,
    SLOW_RENAME,
    SLOW_SETATTR,
    SLOW_OTHER,
    SLOW_OPERATIONS
};

/* Borrowed strings; set before the first thread starts and never changed after that. */
struct slow_settings {
    long latency_us;
    long bandwidth;   /* bytes per second; 0: no limit */
    long error_after; /* operations until all fail with EIO; 0: never */
    int serial;       /* one operation at a time */
    char *control;    /* file names, or NULL */
    char *stats;
};

/* Takes the settings, reads the control file and starts the thread that waits for SIGHUP and
 * SIGUSR1. Only after the last fork; the caller has blocked both signals. 0 or -errno. */
int slow_delay_start(const struct slow_settings *settings, struct fuse_session *session);

/* What each operation begins with: counts it, waits as long as it has to. 0, or the -errno that it
 * is to answer with. */
int slow_delay_begin(enum slow_operation operation, fuse_req_t req);

/* What of a read of `bytes` may be answered (the control file's "short"). */
size_t slow_delay_limit(size_t bytes);

/* Waits until `bytes` have gone over the line that all reads and writes share. */
void slow_delay_transfer(enum slow_operation operation, size_t bytes);

/* Writes the file of statistics, if one was asked for. */
void slow_delay_report(void);

#endif
