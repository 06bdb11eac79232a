/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a stagefs mount is asked by ioctl(2): version 1 of the protocol. Programs use stagefs.h;
 * this is for whoever cannot.
 *
 * Each request is one structure, sent on any descriptor of the mount that was not opened with
 * O_PATH, and answered in place. `version` is STAGEFS_PROTOCOL_VERSION; fields named `reserved` and
 * flags that are not named here are zero, or the answer is EINVAL. Numbers have the machine's byte
 * order, and no structure has padding that is not named.
 *
 *   ENOTTY      the file is not on a stagefs mount
 *   EINVAL      a payload that is not of this protocol; nothing was done
 *   EACCES      the caller may not read the file
 *   EPERM       the request is for the mount's owner or root
 *   EOPNOTSUPP  the mount does not stage (stage=none); never of STATS. Of SYNC: the tree is frozen,
 * and the kernel cannot drop names (Linux 6.16 can)
 */
#ifndef STAGEFS_PROTOCOL_H
#define STAGEFS_PROTOCOL_H

#include <linux/ioctl.h>
#include <stdint.h>

#define STAGEFS_PROTOCOL_VERSION 1
#define STAGEFS_IOC_TYPE 0xF5

#define STAGEFS_SET_BYTES 64      /* a set's name with its NUL */
#define STAGEFS_NAMES_BYTES 15360 /* of names in one request */
#define STAGEFS_NAME_BYTES 4096   /* one path with its NUL */
#define STAGEFS_WHY_BYTES 96

/* `mode` of a request; in an answer never STAGEFS_MODE_DEFAULT. */
enum stagefs_protocol_mode {
    STAGEFS_MODE_NONE = 0,
    STAGEFS_MODE_MMAP = 1,
    STAGEFS_MODE_PREFETCH = 2,
    STAGEFS_MODE_ADAPTIVE = 3,
    STAGEFS_MODE_DEFAULT = 4, /* the mount's own */
};

enum stagefs_protocol_state {
    STAGEFS_STATE_ABSENT = 0,
    STAGEFS_STATE_FILLING = 1,
    STAGEFS_STATE_HOT = 2,
    STAGEFS_STATE_COLD = 3,
    STAGEFS_STATE_STALE = 4,
};

/*
 * STAGE and UNSTAGE. With `names_bytes` 0 they are about the descriptor's own file (a directory:
 * with STAGEFS_RECURSIVE all regular files below, symbolic links and other mounts not followed).
 * Else `names` has paths relative to the descriptor's directory, each with its NUL; none begins
 * with "/", has "..", or goes through a symbolic link: what does counts as failed with ELOOP or
 * EINVAL, and can be asked for by a descriptor of its own.
 *
 * The work goes on after the answer. `job` names it, for STAGEFS_IOC_JOB. The caller's right to
 * read each file, and to search its folders, is checked as open(2) would.
 */
#define STAGEFS_RECURSIVE 1U

struct stagefs_stage_request {
    uint32_t version;
    uint32_t flags;
    uint32_t mode; /* of STAGE; 0 for UNSTAGE */
    uint32_t names_bytes;
    char set[STAGEFS_SET_BYTES]; /* the files join this set; "": none. For UNSTAGE with no names on
                                    the mount's root directory: exactly the files of the set */
    uint64_t job;                /* in: 0, or a job of the caller to add to; out: the job */
    uint64_t reserved;
    char names[STAGEFS_NAMES_BYTES];
};

/*
 * How far a job is. A job is forgotten a minute after it is done, or when 256 newer ones are, then
 * ENOENT. For who started it, or root.
 */
struct stagefs_job_request {
    uint32_t version;
    uint32_t running;     /* out: 1 while there is work left */
    uint64_t job;         /* in */
    uint64_t files;       /* out, as all below: found so far */
    uint64_t done;        /* of them staged, or in no need of it */
    uint64_t failed;      /* of them neither */
    uint64_t bytes;       /* of the files that are done */
    uint32_t first_error; /* an errno value; 0: none */
    uint32_t reserved;
    char first_failed[STAGEFS_NAME_BYTES]; /* what it was about, as the request named it */
};

/* What is known of one file; it is not opened for this. "" for the descriptor's own file. */
struct stagefs_query_request {
    uint32_t version;
    uint32_t flags; /* 0 */
    char name[STAGEFS_NAME_BYTES];
    uint32_t mode; /* out, as all below: in which it was or would be staged */
    uint32_t state;
    uint32_t opens;  /* through the mount, now */
    uint32_t copied; /* 1: a copy is what is served to who opens it now */
    uint64_t hits;   /* opens that a copy served */
    uint64_t size_bytes;
    uint64_t staged_bytes; /* in memory, compressed or not */
    char set[STAGEFS_SET_BYTES];
    char why[STAGEFS_WHY_BYTES]; /* the reason, for people */
};

/* One set. `index` counts from 0; ENOENT past the last. With `name` given, that one. */
struct stagefs_set_request {
    uint32_t version;
    uint32_t index;               /* in, where name is "" */
    char name[STAGEFS_SET_BYTES]; /* in or out */
    uint64_t files;               /* out, as all below */
    uint64_t staged_files;        /* hot or cold */
    uint64_t size_bytes;
    uint64_t staged_bytes;
};

/* How what is read comes to who reads it. */
enum stagefs_protocol_serve {
    STAGEFS_SERVE_DAEMON = 0,      /* each open and read is the daemon's */
    STAGEFS_SERVE_PASSTHROUGH = 1, /* the kernel reads the source's file, or the copy, itself */
    STAGEFS_SERVE_PAGECACHE = 2,   /* by the mount's own pages; the daemon hears of no open */
};

/* How the mount comes to know of changes that are made on the source and not through it. */
enum stagefs_protocol_coherence {
    STAGEFS_COHERENCE_WATCH = 0,  /* the source tells of them */
    STAGEFS_COHERENCE_TTL = 1,    /* what is known is looked at again after a while */
    STAGEFS_COHERENCE_STRICT = 2, /* and before each use */
    STAGEFS_COHERENCE_FROZEN = 3, /* never: the source is said not to change */
};

/*
 * Counters since the mount began, and what is in use now. All out but the version. A mount that
 * does not stage answers, too; what is about staging is then 0.
 */
struct stagefs_stats_request {
    uint32_t version;
    uint32_t serve;          /* enum stagefs_protocol_serve */
    uint64_t hot_hits;       /* opens and reads served by a copy that was there */
    uint64_t cold_hits;      /* by one that was inflated for it */
    uint64_t misses;         /* that waited for a fetch */
    uint64_t source_opens;   /* that the source served, staged or not wanted */
    uint64_t prefetch_fills; /* whole files fetched */
    uint64_t range_fills;    /* ranges fetched */
    uint64_t filled_bytes;
    uint64_t advised;       /* files that a readahead hint was given for */
    uint64_t failed_fills;  /* the source's errors */
    uint64_t changed_fills; /* the file changed meanwhile */
    uint64_t refused_fills; /* no room */
    uint64_t packed;        /* copies compressed */
    uint64_t unpacked;
    uint64_t incompressible;
    uint64_t evicted;
    uint64_t evicted_unused; /* never used by anybody */
    uint64_t evicted_unused_bytes;
    uint64_t invalidated; /* stale copies dropped */
    uint64_t corrupt;     /* damaged compressed copies dropped */
    uint64_t hot_bytes;   /* now */
    uint64_t hot_peak_bytes;
    uint64_t hot_limit_bytes;
    uint64_t cold_bytes;
    uint64_t cold_peak_bytes;
    uint64_t cold_limit_bytes;
    uint64_t cold_raw_bytes; /* what the cold copies are when inflated */
    uint64_t queued;         /* fetches that wait for a worker */
    uint64_t inodes;         /* files and folders known */
    uint64_t fetch_mean_ns;  /* of one file */
    uint64_t fetch_p50_ns;
    uint64_t fetch_p90_ns;
    uint64_t fetch_p99_ns;
    uint64_t pressure_events; /* times that memory pressure shrank the limit */
    uint64_t hot_range_hits;  /* of hot_hits those by ranges; the rest is of whole files */
    uint64_t range_misses;    /* the same of misses */
    uint64_t mmap_opens;      /* of source_opens those in mode mmap: by the source's own pages */
    uint64_t coherence;       /* enum stagefs_protocol_coherence */
    uint64_t events;          /* of the source that were heard */
    uint64_t invalidated_names;
    uint64_t invalidated_files; /* attributes or pages that the kernel was told to drop */
    uint64_t overflows;         /* times that events were lost and everything was looked at again */
    uint64_t syncs;
    uint64_t unwatched;                /* file systems, or folders, that cannot be watched */
    uint64_t leases;                   /* names that the daemon looks at for the kernel now */
    uint64_t fetch_depth;              /* fetches at once that nobody waits for, as pays now */
    uint64_t spare[3];                 /* 0 */
    char serve_why[STAGEFS_WHY_BYTES]; /* the reason for the way to serve, for people */
};

/* Of the folder of stage_dir=: profiles by their names. */
#define STAGEFS_PROFILES "profiles"

/*
 * What one predictor has done since the mount began. `index` counts from 0; ENOENT past the last.
 * EOPNOTSUPP of a mount that does not stage.
 */
#define STAGEFS_PREDICTOR_BYTES 32

enum stagefs_protocol_predictor {
    STAGEFS_PREDICTOR_ENABLED = 1,   /* by predict= */
    STAGEFS_PREDICTOR_THROTTLED = 2, /* it holds back now: too little of what it staged was read */
};

struct stagefs_predict_request {
    uint32_t version;
    uint32_t index;                     /* in */
    char name[STAGEFS_PREDICTOR_BYTES]; /* out, as all below: as predict= has it */
    uint64_t flags;                     /* enum stagefs_protocol_predictor */
    uint64_t files;                     /* that it had staged */
    uint64_t bytes;
    uint64_t used_files; /* of them those that were opened afterwards */
    uint64_t used_bytes;
    uint64_t opened_files; /* by anybody for the first time, predicted or not */
    uint64_t skipped;      /* guesses that were not followed: throttled, or no room */
    uint64_t spare[4];     /* 0 */
};

/* Settings of the mount. UINT64_MAX or STAGEFS_MODE_DEFAULT: leave it. All are answered. */
struct stagefs_config_request {
    uint32_t version;
    uint32_t mode;
    uint64_t threshold_bytes;
    uint64_t hot_bytes;
    uint64_t cold_bytes;
    uint64_t reserved[4];
};

/* Advice on a range of the descriptor's own file; length 0: to the end. As posix_fadvise(2). */
enum stagefs_protocol_advice {
    STAGEFS_ADVICE_NORMAL = 0,
    STAGEFS_ADVICE_SEQUENTIAL = 1,
    STAGEFS_ADVICE_RANDOM = 2,
    STAGEFS_ADVICE_WILLNEED = 3,
    STAGEFS_ADVICE_DONTNEED = 4,
};

struct stagefs_advise_request {
    uint32_t version;
    uint32_t advice;
    uint64_t offset;
    uint64_t length;
};

/*
 * That changes made on the source show: begun by a request with ticket 0, whose answer has the
 * number to ask with from then on. No request is held back until it is done; who waits asks again.
 * Each change that was made on the source before the first request was sent is visible through the
 * mount once `done` is 1. A ticket can be asked about as long as the mount lives, by anybody, and
 * stays done; EINVAL where no such number was given out.
 */
struct stagefs_sync_request {
    uint32_t version;
    uint32_t flags;  /* 0 */
    uint64_t ticket; /* in: 0 begins one, else asks about it; out: its number, never 0 */
    uint32_t done;   /* out: 1 when every such change is visible; may be in the first answer */
    uint32_t reserved;
};

/*
 * A recording of what is touched through the mount, in the form of stagefs-profile(5). For the
 * mount's owner or root. One at a time.
 */
#define STAGEFS_TEXT_BYTES 15360

enum stagefs_protocol_record {
    STAGEFS_RECORD_ASK = 0,   /* how far it is */
    STAGEFS_RECORD_START = 1, /* EBUSY while one is going on */
    STAGEFS_RECORD_STOP = 2,  /* also where it is over already; ENOENT where there is none */
    STAGEFS_RECORD_READ = 3,  /* the text from `offset` on, once it is over; else ENOENT */
    STAGEFS_RECORD_DROP = 4,  /* ends it, and forgets what was recorded */
};

enum stagefs_protocol_record_state {
    STAGEFS_RECORD_NONE = 0,
    STAGEFS_RECORD_STARTING = 1, /* the kernel is told to forget what it would answer alone */
    STAGEFS_RECORD_RUNNING = 2,
    STAGEFS_RECORD_OVER = 3,
};

/*
 * `recording` is 0 for whichever there is; else what is asked for is done with the recording of
 * that number alone, ENOENT where there is another by now.
 */
struct stagefs_record_request {
    uint32_t version;
    uint32_t what;       /* enum stagefs_protocol_record */
    uint64_t recording;  /* in and out: its number; of START 0 */
    uint64_t offset;     /* in, of READ; else 0 */
    uint32_t state;      /* out, as all below: enum stagefs_protocol_record_state */
    uint32_t text_used;  /* bytes of `text` */
    uint64_t text_bytes; /* of the whole text, once it is over */
    uint64_t entries;
    uint64_t left_out; /* that there was no room for */
    char text[STAGEFS_TEXT_BYTES];
};

/*
 * Stages what the lines of a profile name, in their order, a window ahead of what is read. For the
 * mount's owner or root. EINVAL where a line is none; then nothing of the request is followed.
 */
#define STAGEFS_REPLAY_ANEW 1U /* instead of what is still to be done of profiles before */

struct stagefs_replay_request {
    uint32_t version;
    uint32_t flags;
    uint32_t text_used; /* whole lines, without the first one of a profile */
    uint32_t reserved;
    uint64_t left; /* out: entries to be followed */
    char text[STAGEFS_TEXT_BYTES];
};

/* Copies on disk, for the next mount of the source. EOPNOTSUPP of a mount that keeps none. */
enum stagefs_protocol_disk_state {
    STAGEFS_DISK_OPEN = 0,
    STAGEFS_DISK_FULL = 1,   /* the file system that it is on; nothing is written for a while */
    STAGEFS_DISK_FAILED = 2, /* not used any more */
};

struct stagefs_disk_request {
    uint32_t version;
    uint32_t state;       /* out, as all below: enum stagefs_protocol_disk_state */
    uint64_t entries;     /* whole files, and parts of large ones */
    uint64_t used_bytes;  /* by them, on the disk */
    uint64_t limit_bytes; /* of that */
    uint64_t hits;        /* since the mount began, as all below: taken from there */
    uint64_t hit_bytes;   /* of content */
    uint64_t written;
    uint64_t written_bytes; /* of content */
    uint64_t evicted;
    uint64_t overrun; /* not kept: the disk was too slow, or full */
    uint64_t corrupt; /* damaged ones that were found, and not given */
    uint64_t queued_bytes;
    uint64_t folders_taken; /* answered without a look at the source */
    uint64_t folders_written;
    uint64_t large_bytes;  /* what large files take, beside limit_bytes */
    uint64_t large_passed; /* opens by which one became the copy that the kernel reads */
};

#define STAGEFS_IOC_STAGE _IOWR(STAGEFS_IOC_TYPE, 1, struct stagefs_stage_request)
#define STAGEFS_IOC_UNSTAGE _IOWR(STAGEFS_IOC_TYPE, 2, struct stagefs_stage_request)
#define STAGEFS_IOC_JOB _IOWR(STAGEFS_IOC_TYPE, 3, struct stagefs_job_request)
#define STAGEFS_IOC_QUERY _IOWR(STAGEFS_IOC_TYPE, 4, struct stagefs_query_request)
#define STAGEFS_IOC_SET _IOWR(STAGEFS_IOC_TYPE, 5, struct stagefs_set_request)
#define STAGEFS_IOC_STATS _IOWR(STAGEFS_IOC_TYPE, 6, struct stagefs_stats_request)
#define STAGEFS_IOC_CONFIG _IOWR(STAGEFS_IOC_TYPE, 7, struct stagefs_config_request)
#define STAGEFS_IOC_ADVISE _IOWR(STAGEFS_IOC_TYPE, 8, struct stagefs_advise_request)
#define STAGEFS_IOC_SYNC _IOWR(STAGEFS_IOC_TYPE, 9, struct stagefs_sync_request)
#define STAGEFS_IOC_PREDICT _IOWR(STAGEFS_IOC_TYPE, 10, struct stagefs_predict_request)
#define STAGEFS_IOC_RECORD _IOWR(STAGEFS_IOC_TYPE, 11, struct stagefs_record_request)
#define STAGEFS_IOC_REPLAY _IOWR(STAGEFS_IOC_TYPE, 12, struct stagefs_replay_request)
#define STAGEFS_IOC_DISK _IOWR(STAGEFS_IOC_TYPE, 13, struct stagefs_disk_request)

#endif
