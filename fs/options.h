/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The command line: one table of options from which parsing, --help and the manual page come.
 */
#ifndef STG_FS_OPTIONS_H
#define STG_FS_OPTIONS_H

#include "cache/types.h"

#include <stdbool.h>
#include <stdio.h>

enum stg_serve { STG_SERVE_AUTO, STG_SERVE_PASSTHROUGH, STG_SERVE_PAGECACHE };
enum stg_coherence {
    STG_COHERENCE_AUTO,
    STG_COHERENCE_WATCH,
    STG_COHERENCE_TTL,
    STG_COHERENCE_STRICT,
    STG_COHERENCE_FROZEN
};
enum stg_compress { STG_COMPRESS_LZ4, STG_COMPRESS_NONE };
enum stg_uring { STG_URING_AUTO, STG_URING_ON, STG_URING_OFF };

#define STG_MOUNT_FLAGS_BYTES 256
#define STG_BYTES_DEFAULT UINT64_MAX

struct stg_options {
    char *source;     /* as given; owned */
    char *mountpoint; /* as given; owned */
    char *fsname;     /* owned; NULL: the source */
    enum stg_serve serve;
    enum stg_uring uring;
    enum stg_coherence coherence; /* not AUTO after preflight */
    double ttl_s;
    double lease_s;
    double entry_timeout_s; /* the three: below 0 as coherence says */
    double attr_timeout_s;
    double negative_timeout_s;
    unsigned threads;
    enum stg_mode stage;
    uint64_t threshold_bytes; /* the largest file that is staged whole without being asked to */
    uint64_t mem_bytes;       /* of hot copies; STG_BYTES_DEFAULT until preflight */
    uint64_t cold_bytes;      /* of compressed ones; the same */
    uint64_t readahead_bytes; /* of the kernel in this mount; STG_BYTES_DEFAULT: its own choice */
    double settle_s;          /* how long ago the last change of what is staged must be */
    enum stg_compress compress;
    unsigned compress_level;
    char *stage_dir;          /* where copies outlive the mount; owned; NULL: nowhere */
    uint64_t stage_bytes;     /* what that may take; STG_BYTES_DEFAULT until preflight */
    char *profile;            /* of a recorded build, to be followed; owned; NULL: none */
    unsigned predict;         /* bits, by enum stg_predictor of predict.h */
    double source_timeout_s;  /* for content that somebody waits for; 0: as long as it takes */
    uint64_t bandwidth_bytes; /* a second, for fetches; 0: no limit */
    unsigned workers;         /* that fetch */
    bool read_only;
    bool allow_other;
    bool nonempty;
    bool suid;
    bool dev;
    bool relatime; /* access times: as the source's own mount says where none is given */
    bool strictatime;
    bool nodiratime;
    bool foreground;
    bool debug;
    bool show_help;
    bool show_version;
    bool show_manual;
    char mount_flags[STG_MOUNT_FLAGS_BYTES]; /* for the kernel: ",noatime,…", each with a comma */
};

/*
 * Reads the command line into `ret_options`. Returns 0; or -EINVAL after saying on stderr what is
 * wrong and what to write instead. stg_options_fini() is due either way.
 */
int stg_options_parse(int argc, char **argv, struct stg_options *ret_options);

void stg_options_fini(struct stg_options *options);

/* Writes the help that -h prints. */
void stg_options_help(FILE *stream);

/*
 * Copies the manual page's template `path` to `stream`, the line `@OPTIONS@` replaced by the table
 * in mdoc(7). Returns 0 or -errno.
 */
int stg_options_manual(const char *path, FILE *stream);

#endif
