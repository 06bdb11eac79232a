/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the process that writes, and what is said to it: a batch, and an answer. It ends with the
 * socket, so with the daemon however that ends, after what it writes just then; until that it has
 * the folder's lock, too. It has nothing else of the daemon's open.
 */
#include "cache/disk_impl.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

/* A disk that takes longer than that for one batch has failed; for a start; and once all ends. */
#define PATIENCE_MS 120000
#define PATIENCE_AT_START_MS 15000
#define PATIENCE_AT_END_MS 15000
/* One that was killed, and is still there after that, is left. */
#define PATIENCE_KILLED_MS 3000
#define LOOK_MS 200
#define PAUSE_MS 5
/* What the process that writes has open. */
#define CHILD_FD 3
#define FOLDER_FD 4
#define LOCK_FD 5
#define FREE_FD 16

/* ---- the socket ---- */

static bool send_all(int fd, const void *bytes, size_t count) {
    const char *at = bytes;

    while (count) {
        ssize_t sent = send(fd, at, count, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        count -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int fd, void *bytes, size_t count) {
    char *at = bytes;

    while (count) {
        ssize_t got = recv(fd, at, count, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        count -= (size_t)got;
    }
    return true;
}

static bool is_stopping(struct stg_disk *disk) {
    bool stopping;

    stg_lock_take(&disk->lock);
    stopping = disk->stopping;
    stg_lock_drop(&disk->lock);
    return stopping;
}

/* How long somebody has been waited for, and may be. */
struct patience {
    struct stg_disk *disk;
    unsigned left_ms;
    unsigned left_at_end_ms;
};

/* Waits until the other process can be heard, or spoken to. False where that takes too long. */
static bool await(struct patience *patience, short events) {
    struct pollfd ready = {.fd = patience->disk->child_fd, .events = events};

    for (;;) {
        int count = poll(&ready, 1, LOOK_MS);

        if (count > 0)
            return true; /* or it is gone, as the next call finds */
        if (count < 0 && errno != EINTR)
            return false;
        if (patience->left_ms < LOOK_MS || patience->left_at_end_ms < LOOK_MS)
            return false;
        patience->left_ms -= LOOK_MS;
        patience->left_at_end_ms -= is_stopping(patience->disk) ? LOOK_MS : 0;
    }
}

/* An answer of the other process, unless it does not come. */
static bool await_answer(struct patience *patience, struct stg_disk_answer *ret_answer) {
    return await(patience, POLLIN) &&
           receive_all(patience->disk->child_fd, ret_answer, sizeof(*ret_answer));
}

/* As send_all(), to one who may not listen. */
static bool send_to(struct patience *patience, const void *bytes, size_t count) {
    const char *at = bytes;

    while (count) {
        ssize_t sent;

        if (!await(patience, POLLOUT))
            return false;
        sent = send(patience->disk->child_fd, at, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        count -= (size_t)sent;
    }
    return true;
}

/* What goes before the content of each item. */
struct item {
    enum stg_disk_work_kind kind;
    bool with_below;
    bool is_last;
    struct stg_identity now;
    uint64_t content_bytes;
    uint64_t held_bytes; /* as of struct stg_disk; the same in each of a batch */
    size_t key_bytes;
};

/* What is to be sent, many items at a time: each call that sends may wake who listens. */
struct outgoing {
    struct patience *patience;
    size_t used;
    char *bytes; /* STG_DISK_OUTGOING_BYTES of them */
};

static bool send_rest(struct outgoing *out) {
    size_t used = out->used;

    out->used = 0;
    return !used || send_to(out->patience, out->bytes, used);
}

static bool send_later(struct outgoing *out, const void *bytes, size_t count) {
    if (count > STG_DISK_OUTGOING_BYTES - out->used && !send_rest(out))
        return false;
    if (count > STG_DISK_OUTGOING_BYTES)
        return send_to(out->patience, bytes, count);
    if (count)
        memcpy(out->bytes + out->used, bytes, count);
    out->used += count;
    return true;
}

static bool send_batch(struct patience *patience, const struct stg_disk_work *batch) {
    struct outgoing out = {.patience = patience, .bytes = patience->disk->outgoing};
    uint64_t held_bytes = stg_disk_whole_held_bytes(patience->disk);
    bool sent = true;

    for (; sent && batch; batch = batch->next) {
        struct item item = {.kind = batch->kind,
                            .with_below = batch->with_below,
                            .is_last = !batch->next,
                            .now = batch->now,
                            .content_bytes = batch->content_bytes,
                            .held_bytes = held_bytes,
                            .key_bytes = batch->key.bytes};

        sent = send_later(&out, &item, sizeof(item)) &&
               send_later(&out, batch->key.text, batch->key.bytes) &&
               send_later(&out, batch->content, batch->content_bytes);
    }
    return sent && send_rest(&out);
}

/* One item of a batch; NULL at the end. */
static struct stg_disk_work *receive_item(struct stg_disk *disk, bool *ret_is_last) {
    const int fd = CHILD_FD;
    struct stg_disk_work *work = calloc(1, sizeof(*work));
    struct item item;

    if (work && receive_all(fd, &item, sizeof(item)) && item.key_bytes <= sizeof(work->key.text) &&
        receive_all(fd, work->key.text, item.key_bytes)) {
        work->kind = item.kind;
        work->with_below = item.with_below;
        work->now = item.now;
        work->key.bytes = item.key_bytes;
        work->content_bytes = item.content_bytes;
        work->content = malloc(item.content_bytes + 1);
        *ret_is_last = item.is_last;
        disk->held_bytes = item.held_bytes;
        if (work->content && receive_all(fd, work->content, item.content_bytes))
            return work;
    }
    stg_disk_free_batch(work);
    return NULL;
}

static struct stg_disk_work *receive_batch(struct stg_disk *disk) {
    struct stg_disk_work *batch = NULL;
    struct stg_disk_work **end = &batch;
    bool is_last = false;

    while (!is_last) {
        *end = receive_item(disk, &is_last);
        if (!*end) {
            stg_disk_free_batch(batch);
            return NULL;
        }
        end = &(*end)->next;
    }
    return batch;
}

/* ---- in the process that writes ---- */

/* Keeps the socket and the folder with its lock alone, and is not ended by what is meant for the
 * daemon. */
static void settle_in(struct stg_disk *disk, int fd) {
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    int kept = fcntl(fd, F_DUPFD, FREE_FD);
    int folder = fcntl(disk->dir_fd, F_DUPFD, FREE_FD);
    int lock = fcntl(disk->lock_fd, F_DUPFD, FREE_FD);

    for (int i = 0; i < 3; i++)
        (void)dup2(nothing, i); /* where that fails, messages go where they are not looked for */
    /* What these do not get is missed at the first use. */
    (void)dup2(kept, CHILD_FD);
    (void)dup2(folder, FOLDER_FD);
    if (lock < 0 || dup2(lock, LOCK_FD) < 0)
        (void)close(LOCK_FD); /* which is another; then the lock ends with the daemon */
    (void)close_range(LOCK_FD + 1, UINT_MAX, 0); /* what stays open is not used */
    disk->dir_fd = FOLDER_FD;
    disk->lock_fd = LOCK_FD;
    (void)!chdir("/"); /* or it keeps a file system busy that it was started in */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);           /* EFBIG will do */
    (void)prctl(PR_SET_NAME, "stagefs-disk"); /* for people */
}

static struct stg_disk_answer answer_of(struct stg_disk *disk, int error, bool written) {
    return (struct stg_disk_answer){.error = error,
                                    .written = written,
                                    .forgotten = !error || error == ENOSPC || error == EDQUOT,
                                    .used_bytes = disk->used_bytes,
                                    .entries = disk->entries,
                                    .large_files = disk->large_files,
                                    .large_bytes = disk->large_bytes,
                                    .evicted = disk->evicted};
}

/* LMDB says EIO where a write was short, which is how a disk becomes full. */
static bool has_no_room(const struct stg_disk *disk) {
    struct statvfs info;

    return !fstatvfs(disk->dir_fd, &info) && info.f_bavail * info.f_frsize < disk->map_bytes / 8;
}

static void serve(struct stg_disk *disk) {
    struct stg_disk_work *batch;
    struct stg_disk_answer answer;
    int error = stg_disk_open(disk, disk->map_bytes, true);

    if (!error) /* those that were killed while they read hold what they had not read any more */
        (void)mdb_reader_check(disk->env, NULL);
    answer = answer_of(disk, error, false);
    if (!send_all(CHILD_FD, &answer, sizeof(answer)) || error)
        return;
    /* After the answer: nobody waits for that. */
    error = stg_disk_count(disk);
    /* The limit may be a lower one than it was. Where that fails, the next batch tries as much. */
    if (!error && disk->large_bytes) {
        error = stg_disk_apply(disk, NULL, &(bool){false});
        error = stg_disk_is_damage(error) ? error : 0;
    }
    while ((batch = receive_batch(disk))) {
        bool written = false;

        if (!error)
            error = stg_disk_apply(disk, batch, &written);
        if (error == EIO && has_no_room(disk))
            error = ENOSPC;
        answer = answer_of(disk, error, written);
        stg_disk_free_batch(batch);
        if (error == ENOSPC || error == EDQUOT)
            error = 0; /* the next time there may be room */
        if (!send_all(CHILD_FD, &answer, sizeof(answer)))
            return;
    }
}

/* ---- in the daemon ---- */

/* Forks with a socket between both. Returns 0 in the child, the number of it, or -errno. */
static pid_t make_child(struct stg_disk *disk, int *ret_fd) {
    int ends[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -errno;
    pid = fork();
    if (pid < 0)
        pid = -errno;
    if (!pid) {
        settle_in(disk, ends[1]);
        return 0;
    }
    stg_fd_close(ends[1]);
    if (pid < 0)
        stg_fd_close(ends[0]);
    else
        *ret_fd = ends[0];
    return pid;
}

/* Waits for its end. False where that takes longer. */
static bool await_end(pid_t pid, unsigned patience_ms, int *ret_status) {
    for (unsigned waited_ms = 0;; waited_ms += PAUSE_MS) {
        pid_t ended = waitpid(pid, ret_status, WNOHANG);

        if (ended == pid)
            return true;
        if ((ended < 0 && errno != EINTR) || waited_ms >= patience_ms)
            return false;
        (void)usleep(PAUSE_MS * 1000); /* looked at again */
    }
}

/* True where it came to its end by itself, and in good order. */
static bool end_child(pid_t pid, int fd, bool kill_it) {
    int status = 0;

    stg_fd_close(fd); /* which it takes for the end */
    if (!kill_it && await_end(pid, PATIENCE_AT_END_MS, &status))
        return WIFEXITED(status) && !WEXITSTATUS(status);
    (void)kill(pid, SIGKILL);                          /* it is ours, and not yet waited for */
    (void)await_end(pid, PATIENCE_KILLED_MS, &status); /* a disk that hangs may hold it */
    return false;
}

void stg_disk_child_stop(struct stg_disk *disk) {
    if (!disk->child)
        return;
    (void)end_child(disk->child, disk->child_fd, false);
    disk->child = 0;
}

/* It does not answer: it is gone, or will not come to an end. */
static void lose_child(struct stg_disk *disk) {
    (void)end_child(disk->child, disk->child_fd, true);
    disk->child = 0;
}

int stg_disk_child_start(struct stg_disk *disk, struct stg_disk_answer *ret_answer) {
    struct patience patience = {disk, PATIENCE_AT_START_MS, PATIENCE_AT_START_MS};

    disk->child = make_child(disk, &disk->child_fd);
    if (!disk->child) {
        serve(disk);
        _exit(0);
    }
    if (disk->child < 0) {
        int error = (int)-disk->child;

        disk->child = 0;
        return error;
    }
    if (await_answer(&patience, ret_answer)) {
        if (ret_answer->error)
            stg_disk_child_stop(disk);
        return ret_answer->error;
    }
    lose_child(disk);
    return patience.left_ms < LOOK_MS ? ETIMEDOUT : MDB_CORRUPTED;
}

struct stg_disk_answer stg_disk_child_write(struct stg_disk *disk,
                                            const struct stg_disk_work *batch) {
    struct stg_disk_answer answer = {.error = STG_DISK_GONE};
    struct patience patience = {disk, PATIENCE_MS, PATIENCE_AT_END_MS};

    if (!disk->child)
        return answer;
    if (send_batch(&patience, batch) && await_answer(&patience, &answer))
        return answer;
    lose_child(disk);
    return (struct stg_disk_answer){.error = patience.left_at_end_ms < LOOK_MS ? STG_DISK_LATE
                                                                               : STG_DISK_GONE};
}

bool stg_disk_child_run(struct stg_disk *disk, void (*run)(void *argument, void *answer),
                        void *argument, void *answer, size_t answer_bytes) {
    int fd = -1;
    pid_t pid = make_child(disk, &fd);
    bool answered;

    if (!pid) {
        run(argument, answer);
        (void)send_all(CHILD_FD, answer, answer_bytes); /* or the end of it tells */
        _exit(0);
    }
    if (pid < 0)
        return false;
    answered = receive_all(fd, answer, answer_bytes);
    return end_child(pid, fd, !answered) && answered;
}
