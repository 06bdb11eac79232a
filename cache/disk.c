/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the folder, the store's opening and end, and what is read. */
#include "cache/disk.h"

#include "cache/disk_impl.h"
#include "cache/guard.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MARKER "stagefs-stage"
#define MARKER_NEW "stagefs-stage.new"
#define LOCK_NAME "lock"
#define FORGETTING "forgetting"
/* Who has the folder may be about to end; who says that he ends is waited for for longer. */
#define LOCK_PATIENCE_MS 2000
#define LOCK_PATIENCE_AT_END_MS 30000
#define LOCK_LOOK_MS 50
#define ENDING "ending"
#define DATA_LOCK_NAME "lock.mdb"
#define TITLE "stagefs stage directory, format 1\n"
#define SOURCE_WORD "source: "

#define READERS_MAX 1024
/* Of what the folder may take, what the other files in it need. */
#define BESIDES_BYTES (UINT64_C(256) << 10)

/* ---- the folder ---- */

/* Reads a small file of the folder. Returns 0 or -errno. */
static int read_small(int dir_fd, const char *name, char *text, size_t room) {
    stg_auto_fd int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t bytes = fd < 0 ? -1 : read(fd, text, room - 1);

    if (bytes < 0)
        return -errno;
    text[bytes] = '\0';
    return 0;
}

/* What may lie about in a folder that nobody has used yet. */
static bool is_nothing(const char *name) {
    return !strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, "lost+found") ||
           !strcmp(name, LOCK_NAME) || !strcmp(name, MARKER_NEW);
}

static int check_empty(const struct stg_disk *disk) {
    int fd = openat(disk->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int error = 0;

    if (!stream) {
        error = -errno;
        stg_fd_close(fd);
        stg_error("stage directory %s: %s", disk->path, strerror(-error));
        return error;
    }
    while (!error && (entry = readdir(stream)))
        error = is_nothing(entry->d_name) ? 0 : -EINVAL;
    (void)closedir(stream); /* read-only */
    if (error)
        stg_error("stage directory %s holds other things; give an empty directory, or one that "
                  "stagefs has made",
                  disk->path);
    return error;
}

/* 1: it is a stage directory; 0: it can become one; or -errno, after saying what is wrong. */
static int check_marker(struct stg_disk *disk, const char *source) {
    char text[sizeof(((struct stg_disk_report *)NULL)->source) + 64];
    char *line = text + strlen(TITLE);
    int error = read_small(disk->dir_fd, MARKER, text, sizeof(text));

    if (error == -ENOENT && source)
        return check_empty(disk);
    if (error == -ENOENT) {
        stg_error("%s is no stage directory", disk->path);
        return -EINVAL;
    }
    if (!error && (strncmp(text, TITLE, strlen(TITLE)) ||
                   strncmp(line, SOURCE_WORD, strlen(SOURCE_WORD)) || !strchr(line, '\n')))
        error = -EINVAL;
    if (error) {
        stg_error("stage directory %s: %s; remove it, or give another", disk->path,
                  error == -EINVAL ? "another version of stagefs has made it, or it is damaged"
                                   : strerror(-error));
        return error;
    }
    line += strlen(SOURCE_WORD);
    *strchr(line, '\n') = '\0';
    if (source && strcmp(line, source)) {
        stg_error("stage directory %s has copies of another source, %s, and not of %s; give "
                  "another, or remove it",
                  disk->path, line, source);
        return -EINVAL;
    }
    disk->source = strdup(line);
    return disk->source ? 1 : -ENOMEM;
}

/* Nobody else may write there what would be taken for the source's content. */
static int check_owner(const struct stg_disk *disk) {
    struct stat info;

    if (fstat(disk->dir_fd, &info))
        return -errno;
    if (info.st_uid != geteuid()) {
        stg_error("stage directory %s is another user's; give one of your own", disk->path);
        return -EPERM;
    }
    if (info.st_mode & (S_IWGRP | S_IWOTH)) {
        stg_error("stage directory %s can be written by others; run chmod go-w on it", disk->path);
        return -EPERM;
    }
    return 0;
}

static bool is_locked_by_other(const struct stg_disk *disk) {
    return flock(disk->lock_fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
}

/* Where the holder ends, or was killed, what it was writing is waited for. */
static bool is_gone(const char *holder) {
    pid_t process = atoi(holder);

    return process > 0 && kill(process, 0) && errno == ESRCH;
}

static unsigned patience_ms(const char *holder) {
    return is_gone(holder) || strstr(holder, ENDING) ? LOCK_PATIENCE_AT_END_MS : LOCK_PATIENCE_MS;
}

static int lock_folder(struct stg_disk *disk) {
    char holder[64] = "";

    disk->lock_fd =
        openat(disk->dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (disk->lock_fd < 0) {
        int error = -errno;

        stg_error("stage directory %s: %s", disk->path, strerror(-error));
        return error;
    }
    for (unsigned waited_ms = 0; is_locked_by_other(disk); waited_ms += LOCK_LOOK_MS) {
        (void)read_small(disk->dir_fd, LOCK_NAME, holder, sizeof(holder)); /* or as it was */
        if (waited_ms >= patience_ms(holder)) {
            if (is_gone(holder))
                stg_error("stage directory %s is being written to for a mount that was killed; "
                          "try once more",
                          disk->path);
            else
                stg_error("stage directory %s is in use by process %d; give each mount its own",
                          disk->path, atoi(holder));
            return -EBUSY;
        }
        (void)usleep(LOCK_LOOK_MS * 1000); /* looked at again */
    }
    return 0;
}

/* Says who has the folder, to whoever finds it locked. */
static void write_holder(struct stg_disk *disk, const char *state) {
    char text[64];
    int bytes = snprintf(text, sizeof(text), "%d %s\n", (int)getpid(), state);

    if (pwrite(disk->lock_fd, text, (size_t)bytes, 0) != bytes || ftruncate(disk->lock_fd, bytes))
        stg_debug("stage directory %s: who has it is not written down: %m", disk->path);
}

void stg_disk_ending(struct stg_disk *disk) {
    if (disk)
        write_holder(disk, ENDING);
}

static int write_marker(struct stg_disk *disk, const char *source) {
    stg_auto_fd int fd = openat(disk->dir_fd, MARKER_NEW,
                                O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error;

    if (fd >= 0 && dprintf(fd, "%s%s%s\n", TITLE, SOURCE_WORD, source) > 0 && !fsync(fd) &&
        !renameat(disk->dir_fd, MARKER_NEW, disk->dir_fd, MARKER)) {
        disk->source = strdup(source);
        return disk->source ? 0 : -ENOMEM;
    }
    error = -errno;
    stg_error("stage directory %s: %s", disk->path, strerror(-error));
    return error;
}

static int take(struct stg_disk *disk, const char *path, const char *source) {
    int error;

    if (source && mkdir(path, 0700) && errno != EEXIST) {
        error = -errno;
        stg_error("stage directory %s: %s; name one in a folder that exists", path,
                  strerror(-error));
        return error;
    }
    disk->path = realpath(path, NULL);
    disk->dir_fd =
        disk->path ? open(disk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (disk->dir_fd < 0) {
        error = -errno;
        stg_error("stage directory %s: %s", path, strerror(-error));
        return error;
    }
    error = check_owner(disk);
    if (!error)
        error = check_marker(disk, source);
    if (error < 0)
        return error;
    free(disk->source);
    disk->source = NULL;
    error = lock_folder(disk);
    if (!error)
        write_holder(disk, "starting");
    if (!error) /* once more: now nobody makes one of it at the same time */
        error = check_marker(disk, source);
    if (!error)
        error = write_marker(disk, source);
    return error < 0 ? error : 0;
}

int stg_disk_take(const char *path, const char *source, struct stg_disk **ret_disk) {
    struct stg_disk *disk = calloc(1, sizeof(*disk));
    int error;

    if (!disk)
        return -ENOMEM;
    disk->dir_fd = disk->lock_fd = -1;
    for (unsigned i = 0; i < STG_DISK_LARGE_FILES; i++)
        disk->large_open[i].fd = -1;
    stg_lock_init(&disk->lock, STG_RANK_QUEUE);
    stg_lock_init(&disk->whole_lock, STG_RANK_QUEUE);
    stg_lock_init(&disk->idle_lock, STG_RANK_QUEUE);
    stg_lock_init(&disk->mark_lock, STG_RANK_CACHE);
    (void)pthread_cond_init(&disk->filled, NULL); /* cannot fail, as the next */
    (void)pthread_cond_init(&disk->written, NULL);
    error = take(disk, path, source);
    if (error) {
        stg_disk_free(disk);
        return error;
    }
    *ret_disk = disk;
    return 0;
}

int stg_disk_claim(const char *path, const char *source, struct stg_disk **ret_disk) {
    stg_auto_free char *line = malloc(sizeof(((struct stg_disk_report *)NULL)->source));

    if (!line)
        return -ENOMEM;
    stg_bytes_escape(line, sizeof(((struct stg_disk_report *)NULL)->source), source);
    return stg_disk_take(path, line, ret_disk);
}

const char *stg_disk_path(const struct stg_disk *disk) { return disk->path; }

void stg_disk_free(struct stg_disk *disk) {
    if (!disk)
        return;
    stg_fd_close(disk->lock_fd);
    stg_fd_close(disk->dir_fd);
    free(disk->path);
    free(disk->source);
    pthread_cond_destroy(&disk->filled);
    pthread_cond_destroy(&disk->written);
    stg_disk_whole_fini(disk);
    stg_disk_numbers_fini(&disk->made);
    stg_disk_numbers_fini(&disk->leaving);
    stg_lock_fini(&disk->lock);
    stg_lock_fini(&disk->whole_lock);
    stg_lock_fini(&disk->idle_lock);
    stg_lock_fini(&disk->mark_lock);
    free(disk);
}

/* ---- the store ---- */

/*
 * What belongs to a store that failed is left as it is, as freeing it may lead astray; and it stays
 * reachable, which tells it from a leak.
 */
static void abandon(void *what) {
    struct left {
        struct left *next;
        void *what;
    };
    static _Atomic(struct left *) all;
    struct left *left = what ? malloc(sizeof(*left)) : NULL;

    if (!left)
        return;
    left->what = what;
    left->next = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &left->next, left))
        ;
}

void stg_disk_fail(struct stg_disk *disk, int error) {
    if (atomic_exchange(&disk->state, STG_DISK_FAILED) != STG_DISK_FAILED)
        stg_warning("stage directory %s: %s; going on without it", disk->path,
                    error == STG_DISK_GONE      ? "it could not be written"
                    : error == STG_DISK_UNNAMED ? "what was changed could not be found in it"
                                                : mdb_strerror(error));
    stg_disk_erase(disk); /* who has it open keeps it */
}

void stg_disk_give_up(struct stg_disk *disk) { stg_disk_fail(disk, STG_DISK_UNNAMED); }

bool stg_disk_is_damage(int error) {
    switch (error) {
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_VERSION_MISMATCH:
    case MDB_BAD_TXN:
        return true;
    default:
        return false;
    }
}

void stg_disk_erase(struct stg_disk *disk) {
    /* What cannot be removed, opening it will tell. */
    (void)unlinkat(disk->dir_fd, STG_DISK_DATA, 0);
    (void)unlinkat(disk->dir_fd, DATA_LOCK_NAME, 0);
    (void)unlinkat(disk->dir_fd, FORGETTING, 0);
    stg_disk_large_erase(disk);
}

int stg_disk_mark(struct stg_disk *disk) {
    stg_auto_fd int fd =
        openat(disk->dir_fd, FORGETTING, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 || fsync(disk->dir_fd) ? -errno : 0;
}

void stg_disk_unmark(struct stg_disk *disk) {
    (void)unlinkat(disk->dir_fd, FORGETTING, 0); /* or the next mount begins anew */
}

bool stg_disk_has_mark(const struct stg_disk *disk) {
    return !faccessat(disk->dir_fd, FORGETTING, F_OK, AT_SYMLINK_NOFOLLOW);
}

static void on_assert(MDB_env *env, const char *message) {
    (void)env;
    (void)message;
    stg_guard_leave();
}

static int open_tables(struct stg_disk *disk, unsigned flags) {
    unsigned create = flags & MDB_RDONLY ? 0 : MDB_CREATE;
    MDB_txn *txn;
    int error = mdb_txn_begin(disk->env, NULL, flags, &txn);

    if (error)
        return error;
    error = mdb_dbi_open(txn, NULL, 0, &disk->main);
    if (!error)
        error = mdb_dbi_open(txn, "copies", create, &disk->copies);
    if (!error)
        error = mdb_dbi_open(txn, "order", create, &disk->order);
    if (!error)
        error = mdb_dbi_open(txn, "places", create, &disk->places);
    if (!error)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return error;
}

struct opening {
    struct stg_disk *disk;
    uint64_t map_bytes;
    bool to_change;
    int error;
};

static void open_guarded(void *argument) {
    struct opening *opening = argument;
    struct stg_disk *disk = opening->disk;
    unsigned flags = opening->to_change ? 0 : MDB_RDONLY;
    char path[64];
    int error = mdb_env_create(&disk->env);

    /* The folder that was looked at, and not what has its name by now. */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", disk->dir_fd); /* fits */
    if (!error && opening->map_bytes)
        error = mdb_env_set_mapsize(disk->env, opening->map_bytes);
    if (!error)
        error = mdb_env_set_maxdbs(disk->env, 3);
    if (!error)
        error = mdb_env_set_maxreaders(disk->env, READERS_MAX);
    if (!error)
        error = mdb_env_set_assert(disk->env, on_assert);
    /* Readers have a place of their own each, and not each thread that ever read. */
    if (!error)
        error = mdb_env_open(disk->env, path, MDB_NOTLS | flags, 0600);
    if (!error)
        error = open_tables(disk, flags);
    opening->error = error;
}

int stg_disk_open(struct stg_disk *disk, uint64_t map_bytes, bool to_change) {
    struct opening opening = {.disk = disk, .map_bytes = map_bytes, .to_change = to_change};

    stg_guard_install();
    if (!stg_guard_run(open_guarded, &opening)) {
        abandon(disk->env);
        disk->env = NULL;
        return MDB_CORRUPTED;
    }
    if (opening.error && disk->env) {
        mdb_env_close(disk->env);
        disk->env = NULL;
    }
    return opening.error;
}

uint64_t stg_disk_bytes_in(const char *path) {
    stg_auto_fd int dir_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat info;

    if (fstatat(dir_fd, STG_DISK_DATA, &info, AT_SYMLINK_NOFOLLOW))
        return 0;
    return (uint64_t)info.st_size + BESIDES_BYTES + stg_disk_large_bytes_in(dir_fd);
}

/* Is what is there more than it may be? */
static bool is_too_large(const struct stg_disk *disk, uint64_t map_bytes) {
    struct stat info;

    return !fstatat(disk->dir_fd, STG_DISK_DATA, &info, AT_SYMLINK_NOFOLLOW) &&
           (uint64_t)info.st_size > map_bytes;
}

static int start_or_begin_anew(struct stg_disk *disk, struct stg_disk_answer *ret_answer) {
    int error;

    if (is_too_large(disk, disk->map_bytes)) {
        stg_info("stage directory %s has more than it may take now, and is begun anew", disk->path);
        stg_disk_erase(disk);
    } else if (stg_disk_has_mark(disk)) {
        stg_info("stage directory %s was left while changes were made, and is begun anew",
                 disk->path);
        stg_disk_erase(disk);
    }
    error = stg_disk_child_start(disk, ret_answer);
    if (!stg_disk_is_damage(error))
        return error;
    stg_warning("stage directory %s is damaged (%s), and is begun anew", disk->path,
                mdb_strerror(error));
    stg_disk_erase(disk);
    return stg_disk_child_start(disk, ret_answer);
}

int stg_disk_start(struct stg_disk *disk, uint64_t size_bytes) {
    const uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    struct stg_disk_answer answer;
    int error;

    disk->map_bytes = (size_bytes - BESIDES_BYTES) / page_bytes * page_bytes;
    disk->limit_bytes = disk->map_bytes / 16 * 12;
    error = start_or_begin_anew(disk, &answer);
    if (!error)
        error = stg_disk_open(disk, disk->map_bytes, false);
    if (error) {
        stg_disk_fail(disk, error);
        return error < 0 ? -EIO : -error;
    }
    write_holder(disk, "running");
    error = pthread_create(&disk->thread, NULL, stg_disk_hand_over, disk);
    if (error) {
        stg_disk_fail(disk, error);
        return -error;
    }
    disk->running = true;
    atomic_store(&disk->is_open, true);
    return 0;
}

/* One that was ended, to be used again: making one takes memory, and a lock in the store's file. */
static MDB_txn *take_idle(struct stg_disk *disk) {
    MDB_txn *txn = NULL;

    stg_lock_take(&disk->idle_lock);
    if (disk->idle_count)
        txn = disk->idle[--disk->idle_count];
    stg_lock_drop(&disk->idle_lock);
    return txn;
}

/* Begins to read, in `*txn` where there is one already. 0, or an error of LMDB's. */
static int begin_reading(struct stg_disk *disk, MDB_txn **txn) {
    return *txn ? mdb_txn_renew(*txn) : mdb_txn_begin(disk->env, NULL, MDB_RDONLY, txn);
}

/* Keeps what was read with for the next time. */
static void give_idle(struct stg_disk *disk, MDB_txn *txn) {
    bool kept;

    if (!txn)
        return;
    mdb_txn_reset(txn);
    stg_lock_take(&disk->idle_lock);
    kept = disk->idle_count < STG_DISK_IDLE_MAX;
    if (kept)
        disk->idle[disk->idle_count++] = txn;
    stg_lock_drop(&disk->idle_lock);
    if (!kept)
        mdb_txn_abort(txn);
}

/*
 * Runs what reads with `*txn`, guarded. False where the store is damaged, which is the end of it.
 */
static bool read_with(struct stg_disk *disk, MDB_txn **txn, void (*run)(void *argument),
                      void *argument) {
    *txn = take_idle(disk);
    if (stg_guard_run(run, argument)) {
        give_idle(disk, *txn);
        return true;
    }
    abandon(*txn);
    stg_disk_fail(disk, MDB_CORRUPTED);
    return false;
}

/* Nobody reads any more. */
static void close_store(struct stg_disk *disk) {
    bool failed = atomic_load(&disk->state) == STG_DISK_FAILED;
    MDB_txn *txn;

    while ((txn = take_idle(disk))) {
        if (failed)
            abandon(txn);
        else
            mdb_txn_abort(txn);
    }
    if (failed)
        abandon(disk->env);
    else if (disk->env)
        mdb_env_close(disk->env);
    disk->env = NULL;
}

void stg_disk_stop(struct stg_disk *disk) {
    if (!disk)
        return;
    atomic_store(&disk->is_open, false);
    if (disk->running) {
        stg_lock_take(&disk->lock);
        disk->stopping = true;
        pthread_cond_broadcast(&disk->filled);
        stg_lock_drop(&disk->lock);
        (void)pthread_join(disk->thread, NULL); /* ours, and joined once */
        disk->running = false;
    }
    stg_disk_child_stop(disk);
    close_store(disk);
}

/* ---- reading ---- */

struct reading {
    struct stg_disk *disk;
    struct stg_disk_name *name;
    struct stg_disk_key *key;
    bool any_length; /* which `name` and `key` get */
    MDB_txn *txn;
    char *content;
    struct stg_disk_large *large; /* the file beside the store that it is a part of */
    int error;                    /* of LMDB's, or -errno */
};

/* The first entry that has the key but for its length. 0, or an error of LMDB's. */
static int get_any_length(struct reading *reading, MDB_val *value) {
    const size_t same_bytes = reading->key->bytes - sizeof(uint64_t);
    MDB_val key = {reading->key->bytes, reading->key->text};
    MDB_cursor *cursor;
    uint64_t big;
    int error = mdb_cursor_open(reading->txn, reading->disk->copies, &cursor);

    if (error)
        return error;
    error = mdb_cursor_get(cursor, &key, value, MDB_SET_RANGE);
    if (!error && (key.mv_size != reading->key->bytes ||
                   memcmp(key.mv_data, reading->key->text, same_bytes) != 0))
        error = MDB_NOTFOUND;
    if (!error) {
        memcpy(reading->key->text, key.mv_data, key.mv_size);
        memcpy(&big, reading->key->text + same_bytes, sizeof(big));
        reading->name->bytes = be64toh(big);
    }
    mdb_cursor_close(cursor);
    return error;
}

/* The entry of the large file whose key it is. */
static void read_large_guarded(void *argument) {
    struct reading *reading = argument;
    MDB_val key = {reading->key->bytes, reading->key->text};
    MDB_val value;

    reading->error = begin_reading(reading->disk, &reading->txn);
    if (!reading->error)
        reading->error = mdb_get(reading->txn, reading->disk->copies, &key, &value);
    if (!reading->error)
        reading->error = stg_disk_large_parse(&value, &reading->name->now, &reading->large);
}

static void read_guarded(void *argument) {
    struct reading *reading = argument;
    MDB_val key = {reading->key->bytes, reading->key->text};
    MDB_val value;

    reading->error = begin_reading(reading->disk, &reading->txn);
    if (reading->error)
        return;
    reading->error = reading->any_length
                         ? get_any_length(reading, &value)
                         : mdb_get(reading->txn, reading->disk->copies, &key, &value);
    if (!reading->error)
        reading->error = stg_disk_entry_read(&value, &reading->name->now, reading->name->bytes,
                                             &reading->content);
}

int stg_disk_get_large(struct stg_disk *disk, const struct stg_disk_name *name,
                       struct stg_disk_key *ret_key, struct stg_disk_large **ret_large) {
    struct stg_disk_name copy = *name;
    struct reading reading = {.disk = disk, .name = &copy, .key = ret_key};

    if (!stg_disk_is_usable(disk) || !stg_disk_large_key(name->path, ret_key) ||
        stg_disk_is_forgotten(disk, name->path))
        return MDB_NOTFOUND;
    if (!read_with(disk, &reading.txn, read_large_guarded, &reading))
        return MDB_NOTFOUND;
    *ret_large = reading.large;
    return reading.error;
}

void stg_disk_note_miss(struct stg_disk *disk, const char *path, int error) {
    switch (error) {
    case MDB_NOTFOUND:
    case -ENOENT: /* another version */
    case -ENOMEM:
    case ENOMEM:
    case MDB_READERS_FULL:
        return;
    case -EBADMSG:
        atomic_fetch_add(&disk->corrupt, 1);
        stg_disk_forget(disk, path, false);
        return;
    default:
        stg_disk_fail(disk, error);
    }
}

static char *get(struct stg_disk *disk, struct stg_disk_name *name, bool any_length) {
    struct stg_disk_key key;
    struct reading reading = {.disk = disk, .name = name, .key = &key, .any_length = any_length};

    if (!stg_disk_is_usable(disk) || !stg_disk_key_make(name, &key) ||
        stg_disk_is_forgotten(disk, name->path))
        return NULL;
    if (!read_with(disk, &reading.txn, read_guarded, &reading)) {
        free(reading.content);
        return NULL;
    }
    if (!reading.error) {
        stg_disk_touch(disk, &key);
        return reading.content;
    }
    free(reading.content);
    stg_disk_note_miss(disk, name->path, reading.error);
    return NULL;
}

/* A piece of a large file. */
static char *get_piece(struct stg_disk *disk, const struct stg_disk_name *name) {
    stg_auto_free struct stg_disk_large *large = NULL;
    stg_auto_free char *content = NULL;
    stg_auto_fd int fd = -1;
    struct stg_disk_key key;
    char *given;
    uint64_t index;
    int error = stg_disk_get_large(disk, name, &key, &large);

    if (error) {
        stg_disk_note_miss(disk, name->path, error);
        return NULL;
    }
    index = name->offset / large->piece_bytes;
    if (stg_disk_large_piece_length(large, index) != name->bytes || !large->checksums[index])
        return NULL;
    content = malloc(name->bytes + 1);
    fd = content ? stg_disk_large_open(disk, large->number, O_RDONLY) : -1;
    if (fd < 0) /* it went just now, or there is no descriptor to be had */
        return NULL;
    if (stg_disk_large_read_piece(fd, large, index, content)) {
        stg_disk_note_miss(disk, name->path, -EBADMSG);
        return NULL;
    }
    stg_disk_whole_checked(disk, large, index);
    stg_disk_touch(disk, &key);
    given = content;
    content = NULL;
    return given;
}

char *stg_disk_get(struct stg_disk *disk, const struct stg_disk_name *name) {
    struct stg_disk_name exact = *name;
    char *content = NULL;

    if (stg_disk_is_large(name))
        content = get_piece(disk, name);
    if (!content && name->bytes && name->bytes <= STG_DISK_ENTRY_MAX_BYTES)
        content = get(disk, &exact, false);
    if (content) {
        atomic_fetch_add(&disk->hits, 1);
        atomic_fetch_add(&disk->hit_bytes, name->bytes);
    }
    return content;
}

char *stg_disk_find(struct stg_disk *disk, struct stg_disk_name *name) {
    name->bytes = 0; /* the least: the search begins there */
    return get(disk, name, true);
}

struct presence {
    struct stg_disk *disk;
    const char *path;
    MDB_txn *txn;
    bool found;
};

static void look_below_guarded(void *argument) {
    struct presence *presence = argument;
    size_t bytes = strlen(presence->path);
    MDB_val key = {bytes, (void *)presence->path};
    const char *at;
    MDB_cursor *cursor;

    if (begin_reading(presence->disk, &presence->txn) ||
        mdb_cursor_open(presence->txn, presence->disk->copies, &cursor))
        return;
    if (!mdb_cursor_get(cursor, &key, NULL, MDB_SET_RANGE)) {
        at = key.mv_data;
        presence->found = key.mv_size > bytes && !memcmp(at, presence->path, bytes) &&
                          (!at[bytes] || at[bytes] == '/');
    }
    mdb_cursor_close(cursor);
}

bool stg_disk_has_below(struct stg_disk *disk, const char *path) {
    struct presence presence = {.disk = disk, .path = path};

    return stg_disk_is_usable(disk) &&
           read_with(disk, &presence.txn, look_below_guarded, &presence) && presence.found;
}

/* ---- folders ---- */

struct walking {
    struct stg_disk *disk;
    void (*visit)(const char *folder, void *context);
    void *context;
    MDB_txn *txn;
    char folder[STG_DISK_KEY_MAX_BYTES]; /* the last one */
    /* The lengths of the paths, in its own, of those that were visited: of it, and above it. */
    size_t visited[STG_DISK_KEY_MAX_BYTES];
    size_t count;
};

static bool is_above(const char *folder, size_t length, const char *other) {
    return !length || (!strncmp(folder, other, length) && (!other[length] || other[length] == '/'));
}

/* Visits the folder of the key, unless that was done: all that is below a folder is one stretch. */
static void visit_folder(struct walking *walking, const MDB_val *key) {
    const char *path = key->mv_data;
    const char *slash = memrchr(path, '/', strnlen(path, key->mv_size));
    char folder[STG_DISK_KEY_MAX_BYTES];
    size_t length = slash ? (size_t)(slash - path) : 0;

    if (key->mv_size > STG_DISK_KEY_MAX_BYTES || *path == '/')
        return;
    memcpy(folder, path, length);
    folder[length] = '\0';
    while (walking->count &&
           !is_above(walking->folder, walking->visited[walking->count - 1], folder))
        walking->count--;
    memcpy(walking->folder, folder, length + 1);
    if (walking->count && walking->visited[walking->count - 1] == length)
        return;
    walking->visited[walking->count++] = length; /* each is longer than the one before */
    walking->visit(walking->folder, walking->context);
}

static void walk_guarded(void *argument) {
    struct walking *walking = argument;
    MDB_cursor *cursor;
    MDB_val key;

    if (begin_reading(walking->disk, &walking->txn))
        return;
    if (!mdb_cursor_open(walking->txn, walking->disk->places, &cursor)) {
        while (!mdb_cursor_get(cursor, &key, NULL, MDB_NEXT))
            visit_folder(walking, &key);
        mdb_cursor_close(cursor);
    }
}

void stg_disk_each_folder(struct stg_disk *disk, void (*visit)(const char *folder, void *context),
                          void *context) {
    stg_auto_free struct walking *walking = calloc(1, sizeof(*walking));

    if (!walking || !stg_disk_is_usable(disk))
        return;
    walking->disk = disk;
    walking->visit = visit;
    walking->context = context;
    (void)read_with(disk, &walking->txn, walk_guarded, walking); /* or what was visited is all */
}

/* ---- what was asked for last ---- */

struct recalling {
    struct stg_disk *disk;
    int64_t until_ns;
    bool (*visit)(const char *path, void *context);
    void *context;
    MDB_txn *txn;
};

/* Visits what the place in the order is of, if that is the beginning of a file that has a path. */
static bool visit_recent(struct recalling *recalling, const MDB_val *place) {
    char path[STG_DISK_KEY_MAX_BYTES];
    uint64_t offset;
    uint64_t cost;
    size_t length;
    MDB_val key;

    if (!stg_disk_parse_cost(place, &cost, &key))
        return true;
    length = strnlen(key.mv_data, key.mv_size);
    if (key.mv_size != length + 1 + 2 * sizeof(offset))
        return true;
    memcpy(path, key.mv_data, length + 1);
    memcpy(&offset, (char *)key.mv_data + length + 1, sizeof(offset));
    return *path == '/' || offset || recalling->visit(path, recalling->context);
}

static void recall_guarded(void *argument) {
    struct recalling *recalling = argument;
    MDB_cursor *cursor;
    MDB_val number;
    MDB_val place;

    if (begin_reading(recalling->disk, &recalling->txn))
        return;
    if (!mdb_cursor_open(recalling->txn, recalling->disk->order, &cursor)) {
        while (stg_clock_monotonic_ns() < recalling->until_ns &&
               !mdb_cursor_get(cursor, &number, &place, MDB_PREV) &&
               visit_recent(recalling, &place))
            ;
        mdb_cursor_close(cursor);
    }
}

void stg_disk_each_recent(struct stg_disk *disk, int64_t until_ns,
                          bool (*visit)(const char *path, void *context), void *context) {
    struct recalling recalling = {
        .disk = disk, .until_ns = until_ns, .visit = visit, .context = context};

    if (stg_disk_is_usable(disk))
        (void)read_with(disk, &recalling.txn, recall_guarded, &recalling); /* as above */
}

struct stg_disk_view stg_disk_view(struct stg_disk *disk) {
    struct stg_disk_view view = {.state = (enum stg_disk_state)atomic_load(&disk->state),
                                 .limit_bytes = disk->limit_bytes,
                                 .used_bytes = disk->used_bytes,
                                 .entries = disk->entries,
                                 .large_files = disk->large_files,
                                 .large_bytes = disk->large_bytes,
                                 .passed = disk->passed,
                                 .hits = disk->hits,
                                 .hit_bytes = disk->hit_bytes,
                                 .written = disk->written_entries,
                                 .written_bytes = disk->written_bytes,
                                 .evicted = disk->evicted,
                                 .overrun = disk->overrun,
                                 .corrupt = disk->corrupt};

    stg_lock_take(&disk->lock);
    view.queued_bytes = disk->queued_bytes;
    stg_lock_drop(&disk->lock);
    return view;
}
