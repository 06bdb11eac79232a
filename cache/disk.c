/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the folder, the store's opening and end, and what is read. */
#include "cache/disk.h"

#include "cache/disk_impl.h"
#include "cache/guard.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MARKER "stagefs-stage"
#define MARKER_NEW "stagefs-stage.new"
#define LOCK_NAME "lock"
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

static int lock_folder(struct stg_disk *disk) {
    char holder[32] = "";
    int error;

    disk->lock_fd =
        openat(disk->dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (disk->lock_fd >= 0 && !flock(disk->lock_fd, LOCK_EX | LOCK_NB))
        return 0;
    error = -errno;
    if (error == -EWOULDBLOCK) {
        (void)read_small(disk->dir_fd, LOCK_NAME, holder, sizeof(holder));
        stg_error("stage directory %s is in use by process %d; give each mount its own", disk->path,
                  atoi(holder));
        return -EBUSY;
    }
    stg_error("stage directory %s: %s", disk->path, strerror(-error));
    return error;
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
    disk->dir_fd = disk->path ? open(disk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
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
    stg_lock_init(&disk->lock, STG_RANK_QUEUE);
    pthread_cond_init(&disk->filled, NULL);
    pthread_cond_init(&disk->written, NULL);
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

void stg_disk_free(struct stg_disk *disk) {
    if (!disk)
        return;
    stg_fd_close(disk->lock_fd);
    stg_fd_close(disk->dir_fd);
    free(disk->path);
    free(disk->source);
    pthread_cond_destroy(&disk->filled);
    pthread_cond_destroy(&disk->written);
    stg_lock_fini(&disk->lock);
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
                    error == STG_DISK_GONE ? "it could not be written" : mdb_strerror(error));
    if (error == STG_DISK_GONE || stg_disk_is_damage(error))
        disk->is_suspect = true;
}

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
    (void)unlinkat(disk->dir_fd, STG_DISK_DATA,
                   0); /* what cannot be removed, opening it will tell */
    (void)unlinkat(disk->dir_fd, DATA_LOCK_NAME, 0);
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
    int error;
};

static void open_guarded(void *argument) {
    struct opening *opening = argument;
    struct stg_disk *disk = opening->disk;
    unsigned flags = MDB_NOTLS | (opening->map_bytes ? 0 : MDB_RDONLY);
    int error = mdb_env_create(&disk->env);

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
        error = mdb_env_open(disk->env, disk->path, flags, 0600);
    if (!error)
        error = open_tables(disk, opening->map_bytes ? 0 : MDB_RDONLY);
    opening->error = error;
}

int stg_disk_open(struct stg_disk *disk, uint64_t map_bytes) {
    struct opening opening = {.disk = disk, .map_bytes = map_bytes};

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
    }
    error = stg_disk_child_start(disk, ret_answer);
    if (!stg_disk_is_damage(error))
        return error;
    stg_warning("stage directory %s is damaged (%s), and is begun anew", disk->path,
                mdb_strerror(error));
    stg_disk_erase(disk);
    disk->is_suspect = false;
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
        error = stg_disk_open(disk, 0);
    if (error) {
        stg_disk_fail(disk, error);
        return error < 0 ? -EIO : -error;
    }
    if (ftruncate(disk->lock_fd, 0) || dprintf(disk->lock_fd, "%d\n", (int)getpid()) < 0)
        stg_debug("stage directory %s: who has it is not written down: %m", disk->path);
    error = pthread_create(&disk->thread, NULL, stg_disk_hand_over, disk);
    if (error) {
        stg_disk_fail(disk, error);
        return -error;
    }
    disk->running = true;
    atomic_store(&disk->is_open, true);
    return 0;
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
    if (disk->env && atomic_load(&disk->state) == STG_DISK_FAILED)
        abandon(disk->env);
    else if (disk->env)
        mdb_env_close(disk->env);
    disk->env = NULL;
    if (disk->is_suspect)
        stg_disk_erase(disk);
}

/* ---- reading ---- */

struct reading {
    struct stg_disk *disk;
    const struct stg_disk_name *name;
    const struct stg_disk_key *key;
    MDB_txn *txn;
    char *content;
    int error; /* of LMDB's, or -errno */
};

static void read_guarded(void *argument) {
    struct reading *reading = argument;
    MDB_val key = {reading->key->bytes, (void *)reading->key->text};
    MDB_val value;

    reading->error = mdb_txn_begin(reading->disk->env, NULL, MDB_RDONLY, &reading->txn);
    if (reading->error)
        return;
    reading->error = mdb_get(reading->txn, reading->disk->copies, &key, &value);
    if (!reading->error)
        reading->error = stg_disk_entry_read(&value, &reading->name->now, reading->name->bytes,
                                             &reading->content);
    mdb_txn_abort(reading->txn);
}

char *stg_disk_get(struct stg_disk *disk, const struct stg_disk_name *name) {
    struct stg_disk_key key;
    struct reading reading = {.disk = disk, .name = name, .key = &key};

    if (!stg_disk_is_usable(disk) || !name->bytes || !stg_disk_key_make(name, &key) ||
        stg_disk_is_forgotten(disk, name->path))
        return NULL;
    if (!stg_guard_run(read_guarded, &reading)) {
        free(reading.content);
        abandon(reading.txn);
        stg_disk_fail(disk, MDB_CORRUPTED);
        return NULL;
    }
    if (!reading.error) {
        atomic_fetch_add(&disk->hits, 1);
        atomic_fetch_add(&disk->hit_bytes, name->bytes);
        stg_disk_touch(disk, &key);
        return reading.content;
    }
    free(reading.content);
    if (reading.error == -EBADMSG) {
        atomic_fetch_add(&disk->corrupt, 1);
        stg_disk_forget(disk, name->path, false);
    } else if (stg_disk_is_damage(reading.error) || reading.error == EIO) {
        stg_disk_fail(disk, reading.error);
    }
    return NULL;
}

struct stg_disk_view stg_disk_view(struct stg_disk *disk) {
    struct stg_disk_view view = {.state = (enum stg_disk_state)atomic_load(&disk->state),
                                 .limit_bytes = disk->limit_bytes,
                                 .used_bytes = disk->used_bytes,
                                 .entries = disk->entries,
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
