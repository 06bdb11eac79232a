/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of the coherence test share: coherence.c (options, rounds, sync, latency),
 * coherence_model.c (what was when: logs of names and objects), coherence_edit.c (changes behind
 * the mount), coherence_read.c (readers on the mount, and who works through it),
 * coherence_check.c (a reading judged by the logs) and coherence_compare.c (the whole mount
 * compared with the source).
 *
 * The tree is five folders with a folder "sub" each; in each of the ten are twenty names, which are
 * absent, a file, a symbolic link or an empty folder. An object is one regular file from its
 * creation to its end, whatever its names. Its content is blocks, each of which says of which
 * object, of which version of it, and which block it is.
 *
 * A log has for every state the times at which the change to it began and ended. While it goes on,
 * the old state and the new one are both right; `ended` is STG_CH_PENDING then.
 *
 * Locks, in this order: a writer's dir_lock of the folders, ascending; an object's `edit`; a log's
 * `lock` (of a name, then of an object), held for no I/O.
 */
#ifndef STG_TESTS_COHERENCE_H
#define STG_TESTS_COHERENCE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

enum { STG_CH_WATCH, STG_CH_TTL, STG_CH_STRICT, STG_CH_FROZEN };

enum {
    STG_CH_TOPS = 5,
    STG_CH_DIRS = 10, /* d0 to d4, then their sub */
    STG_CH_LEAVES = 20,
    STG_CH_NAMES = STG_CH_DIRS * STG_CH_LEAVES,
    STG_CH_PATH_BYTES = 64,
    STG_CH_BLOCK_BYTES = 64,
    STG_CH_SMALL_BYTES = 200 << 10,
    STG_CH_LARGE_BYTES = 3 << 19,
    STG_CH_ROOM_BYTES = 2 << 20, /* no file grows beyond it */
    STG_CH_TEMPORARIES = 64,     /* names of the last temporary files, which must be absent */
};

#define STG_CH_PENDING INT64_MAX
#define STG_CH_TO_END UINT32_MAX /* of blocks: all from the first on */

struct stg_ch_settings {
    const char *source_path, *mount_path;
    int source, mount; /* descriptors of the two */
    int mode;
    int64_t ttl_ns, slack_ns;
    uint64_t seed;
    unsigned long edits, round_edits;
    unsigned writers, readers, pace_us;
    unsigned long latency; /* measurements; 0: none */
    bool no_sync, pagecache, by_names;
    double sync_timeout_s;
    const char *control; /* the stagectl to run, or NULL */
    const char *without; /* comma separated names of edits that are not made, or NULL */
};
extern struct stg_ch_settings stg_ch_settings;

/* Set when all is done: the threads that read end. */
extern atomic_bool stg_ch_stop;
extern atomic_ulong stg_ch_reads, stg_ch_edits;

int64_t stg_ch_now_ns(void);
uint64_t stg_ch_next(uint64_t *rng);
uint64_t stg_ch_below(uint64_t *rng, uint64_t n); /* n > 0 */
/* For what the test itself cannot do: prints errno and ends with 2. */
_Noreturn void stg_ch_die(const char *what);

/* ---- the model ---- */

enum stg_ch_kind {
    STG_CH_ABSENT,
    STG_CH_FILE,
    STG_CH_LINK,
    STG_CH_DIR,
    STG_CH_THERE, /* any of the three; only of what was seen */
};

struct stg_ch_entry {
    int64_t begun_ns, ended_ns;
    enum stg_ch_kind kind;
    uint32_t id;      /* the object, or the link's target */
    const char *what; /* the edit */
};

/* The states of one name, oldest first; there is always one. */
struct stg_ch_log {
    pthread_mutex_t lock;
    struct stg_ch_entry *entries; /* this and below protected by lock */
    size_t n, room;
};

struct stg_ch_version {
    int64_t begun_ns, ended_ns;
    uint32_t first, blocks; /* that it set; none, or to the end */
    uint64_t size;          /* after it */
    mode_t mode;            /* permissions after it */
    bool zero;              /* its blocks are a hole */
    const char *what;
};

struct stg_ch_object {
    uint32_t id;
    pthread_mutex_t edit; /* held by the one who changes content or mode */
    pthread_mutex_t lock;
    ino_t ino;                       /* 0: not known yet; this and below protected by lock */
    struct stg_ch_version *versions; /* the number of a version is its place */
    size_t n, room;
};

extern struct stg_ch_log stg_ch_names[STG_CH_NAMES], stg_ch_dirs[STG_CH_DIRS];
extern pthread_mutex_t stg_ch_dir_locks[STG_CH_DIRS];

void stg_ch_model_init(unsigned long edits);
void stg_ch_dir_path(unsigned dir, char path[STG_CH_PATH_BYTES]);
void stg_ch_name_path(unsigned name, char path[STG_CH_PATH_BYTES]);

/* The state that a name is in; the caller holds the lock of its folder, or no writer runs. */
struct stg_ch_entry stg_ch_state(struct stg_ch_log *log);
/* Begins a state, and ends all that were begun in the log. */
void stg_ch_begin(struct stg_ch_log *log, enum stg_ch_kind kind, uint32_t id, const char *what);
void stg_ch_end(struct stg_ch_log *log);

struct stg_ch_object *stg_ch_object_new(void);
struct stg_ch_object *stg_ch_object(uint32_t id); /* NULL: there was never one */
void stg_ch_object_is(struct stg_ch_object *object, int fd);
/* Begins a version, and returns its number; `template` has what it sets. */
uint32_t stg_ch_version_begin(struct stg_ch_object *object, struct stg_ch_version template);
void stg_ch_version_end(struct stg_ch_object *object);
struct stg_ch_version stg_ch_version_now(struct stg_ch_object *object);

/* The blocks of a version, `n` from `first` on. */
void stg_ch_fill(char *data, uint32_t id, uint32_t version, uint32_t first, uint32_t n);
/* Whose block it is: its object, or 0 where it is none of this test's, or damaged. */
uint32_t stg_ch_block_of(const char *block, uint32_t *ret_version, uint32_t *ret_index);

/* A target that was never used; and what a link with it says. */
uint32_t stg_ch_target_new(void);
void stg_ch_target(uint32_t id, char text[STG_CH_PATH_BYTES]);
uint32_t stg_ch_target_of(const char *text);

/* The names of temporary files are remembered in a ring. */
void stg_ch_temporary(unsigned dir, char path[STG_CH_PATH_BYTES]);
/* The index-th of the remembered; false: there are fewer. */
bool stg_ch_temporary_at(unsigned index, char path[STG_CH_PATH_BYTES]);

/* ---- writers behind the mount ---- */

void stg_ch_populate(uint64_t seed);
/* A thread of them: makes `count` edits. */
struct stg_ch_writer {
    uint64_t rng;
    unsigned long count;
    char *data;
};
void *stg_ch_write(void *writer);

/* ---- readers of the mount ---- */

void *stg_ch_read(void *seed);
void *stg_ch_work_through(void *seed);
extern pthread_mutex_t stg_ch_through_lock; /* held while somebody works through the mount */
/* Held mappings and descriptors against the source. */
void stg_ch_held_compare(uint64_t *rng, const char *when);

/* ---- judging ---- */

/* What a reader did: what was seen must have been so at some time from `edge_ns` to `end_ns`. */
struct stg_ch_span {
    int64_t edge_ns, begin_ns, end_ns; /* the reading itself is from begin_ns on */
};
enum stg_ch_promise {
    STG_CH_OPENED, /* looked up or opened anew */
    STG_CH_LISTED, /* a folder's list */
    STG_CH_HELD,   /* open or mapped before */
};
struct stg_ch_span stg_ch_span(enum stg_ch_promise promise, int64_t begin_ns);
/* A sync that began then has returned now. */
void stg_ch_synced(int64_t begin_ns);

/* Bytes that were got of a file where `asked` were wanted. */
struct stg_ch_bytes {
    const char *data;
    uint64_t at, got, asked;
    bool mapped; /* nothing is known of the size */
};
/* The object that the bytes are of, by the first good block; 0: none. */
uint32_t stg_ch_bytes_of(const struct stg_ch_bytes *bytes);
/* NULL, or what is wrong with them, as content of the object. Text of the calling thread. */
const char *stg_ch_judge_bytes(struct stg_ch_object *object, const struct stg_ch_bytes *bytes,
                               struct stg_ch_span span);

/* What was seen of a name. */
struct stg_ch_seen {
    enum stg_ch_kind kind;
    uint32_t id;                      /* of object or target; 0: any */
    const struct stat *st;            /* or NULL */
    const struct stg_ch_bytes *bytes; /* or NULL: to be judged only where id is 0 */
};
bool stg_ch_judge_name(unsigned name, const struct stg_ch_seen *seen, struct stg_ch_span span);
bool stg_ch_judge_dir(unsigned dir, enum stg_ch_kind kind, struct stg_ch_span span);
/*
 * May a file that was opened by the name be gone before it was read? Where the daemon hears of no
 * open, nothing keeps a file that is removed behind the mount.
 */
bool stg_ch_judge_gone(unsigned name, struct stg_ch_span span);
/* Was the name so all the time? Then a list must have it. And: did its folder's name change? */
bool stg_ch_always(unsigned name, struct stg_ch_span span);
bool stg_ch_dir_moved(unsigned dir, struct stg_ch_span span);

/*
 * Counts a violation and prints it with the last edits of the name and of its object. -1: of none;
 * STG_CH_OF_DIR(): of a folder.
 */
#define STG_CH_OF_DIR(dir) (-2 - (int)(dir))
void stg_ch_violation(int name, uint32_t object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
extern atomic_ulong stg_ch_violations, stg_ch_torn, stg_ch_gone;
/* How late what was seen was, at most, in ns. */
extern _Atomic int64_t stg_ch_late_names_ns, stg_ch_late_bytes_ns;

/* Compares all of the mount with the source, while nobody changes either. */
void stg_ch_compare(uint64_t *rng, const char *when);
/* The attributes that differ, or NULL. Text of the calling thread. */
const char *stg_ch_differ_stat(const struct stat *source, const struct stat *mount);
/* Contents; the same. */
const char *stg_ch_differ_bytes(int source, int mount);

#endif
