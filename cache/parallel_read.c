/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns how one read becomes several, and what of their results is the result of the whole.
 *
 * A job is a read that is cut into pieces of equal size. Whoever works on it takes the next piece
 * until there is none. A piece is read to its end, or up to the end of the file or an error, which
 * cuts the job there: pieces behind a cut are not begun, and of several cuts the first in the file
 * counts. So when all that was begun is done, everything before the cut has been read.
 *
 * The caller always works on his own job, so nothing depends on rings or helpers: there may be
 * none, and they may be taken by others. An error from a ring is never passed on: that piece is
 * read again with pread, whose word counts.
 *
 * The lock is over the list of jobs and over who has which ring; it is of the highest rank and
 * never held while something is read.
 */
#include "cache/parallel_read.h"

#include "util/cleanup.h"
#include "util/lock.h"
#include "util/log.h"

#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define PIECE_BYTES STG_READER_PIECE_BYTES
#define HELPERS 4U
#define RINGS 4U
#define IN_FLIGHT 8U
#define HELPER_STACK_BYTES ((size_t)256 << 10)
/* A descriptor with O_NONBLOCK says EAGAIN; poll(2) says of every file that it is ready. */
#define AGAIN_MS 1
#define AGAIN_TIMES 1000

#define ERROR_BITS 12 /* errno is below 4096 (include/linux/err.h, MAX_ERRNO) */

struct job {
    int fd;
    char *buffer;
    size_t bytes;
    uint64_t offset;
    _Atomic size_t next;  /* where the next piece begins */
    _Atomic uint64_t cut; /* how far the job goes, above the error that is there; 0: none */
    unsigned helpers;     /* at work on it; protected by reader->lock, as all below */
    struct job *next_job;
};

struct ring {
    struct io_uring uring;
    bool made;
    bool refused; /* could not be made, or broke */
    bool taken;   /* protected by reader->lock, as the rest is unless it is taken */
};

struct stg_reader {
    enum stg_reader_engine engine; /* constant */
    struct stg_lock lock;
    pthread_cond_t work; /* a job has come, or the end */
    pthread_cond_t left; /* a helper has left a job */
    struct job *jobs;    /* protected by lock, as all below */
    pthread_t threads[HELPERS];
    unsigned thread_count;
    bool stopping;
    struct ring rings[RINGS];
};

/* ---- a job and its pieces ---- */

struct piece {
    size_t start;
    size_t bytes;
};

static size_t end_of(const struct job *job) { return (size_t)(job->cut >> ERROR_BITS); }

/* The job ends at `position`, with `error` or, where that is 0, since the file does. */
static void cut(struct job *job, size_t position, int error) {
    uint64_t now = (uint64_t)position << ERROR_BITS | (uint64_t)error;
    uint64_t before = job->cut;

    while (now < before && !atomic_compare_exchange_weak(&job->cut, &before, now))
        ;
}

static bool has_pieces(const struct job *job) { return job->next < end_of(job); }

static bool take_piece(struct job *job, struct piece *ret_piece) {
    size_t start;

    if (!has_pieces(job))
        return false;
    start = atomic_fetch_add(&job->next, PIECE_BYTES);
    if (start >= end_of(job))
        return false;
    ret_piece->start = start;
    ret_piece->bytes = job->bytes - start < PIECE_BYTES ? job->bytes - start : PIECE_BYTES;
    return true;
}

/* Waits a little, until it has been too often. */
static bool may_try_again(unsigned *tries) {
    if (++*tries > AGAIN_TIMES)
        return false;
    (void)poll(NULL, 0, AGAIN_MS); /* no more than a pause: when it ends does not matter */
    return true;
}

static void read_piece(struct job *job, struct piece piece) {
    unsigned tries = 0;

    while (piece.bytes) {
        ssize_t got = pread(job->fd, job->buffer + piece.start, piece.bytes,
                            (off_t)(job->offset + piece.start));

        if (got > 0) {
            piece.start += (size_t)got;
            piece.bytes -= (size_t)got;
        } else if (!got || (errno != EINTR && !(errno == EAGAIN && may_try_again(&tries)))) {
            cut(job, piece.start, got ? errno : 0);
            return;
        }
    }
}

static void work_on(struct job *job) {
    struct piece piece;

    while (take_piece(job, &piece))
        read_piece(job, piece);
}

/* ---- helpers ---- */

static struct job *find_job_locked(const struct stg_reader *reader) {
    struct job *job = reader->jobs;

    while (job && !has_pieces(job))
        job = job->next_job;
    return job;
}

static void *help(void *argument) {
    struct stg_reader *reader = argument;

    stg_lock_take(&reader->lock);
    while (!reader->stopping) {
        struct job *job = find_job_locked(reader);

        if (!job) {
            stg_lock_wait(&reader->lock, &reader->work);
            continue;
        }
        job->helpers++;
        stg_lock_drop(&reader->lock);
        work_on(job);
        stg_lock_take(&reader->lock);
        job->helpers--;
        pthread_cond_broadcast(&reader->left);
    }
    stg_lock_drop(&reader->lock);
    return NULL;
}

/* As many helpers as the job can use; fewer do, too, and none. */
static void start_helpers_locked(struct stg_reader *reader, const struct job *job) {
    size_t wanted = (job->bytes - 1) / PIECE_BYTES;
    pthread_attr_t attributes;

    (void)pthread_attr_init(&attributes); /* these cannot fail with valid arguments */
    (void)pthread_attr_setstacksize(&attributes, HELPER_STACK_BYTES);
    while (reader->thread_count < HELPERS && reader->thread_count < wanted &&
           !pthread_create(&reader->threads[reader->thread_count], &attributes, help, reader))
        reader->thread_count++;
    (void)pthread_attr_destroy(&attributes);
}

static void read_with_helpers(struct stg_reader *reader, struct job *job) {
    struct job **link;

    stg_lock_take(&reader->lock);
    start_helpers_locked(reader, job);
    job->next_job = reader->jobs;
    reader->jobs = job;
    pthread_cond_broadcast(&reader->work);
    stg_lock_drop(&reader->lock);
    work_on(job);
    stg_lock_take(&reader->lock);
    for (link = &reader->jobs; *link != job; link = &(*link)->next_job)
        ;
    *link = job->next_job;
    while (job->helpers)
        stg_lock_wait(&reader->lock, &reader->left);
    stg_lock_drop(&reader->lock);
}

/* ---- rings ---- */

static int make_ring(struct ring *ring) {
    int error = io_uring_queue_init(IN_FLIGHT, &ring->uring, 0);

    ring->made = !error;
    ring->refused = error;
    return error;
}

static void unmake_ring(struct ring *ring) {
    if (ring->made)
        io_uring_queue_exit(&ring->uring);
    ring->made = false;
}

static struct ring *take_ring(struct stg_reader *reader) {
    struct ring *ring = NULL;

    stg_lock_take(&reader->lock);
    for (unsigned i = 0; i < RINGS && !ring; i++)
        if (!reader->rings[i].taken && !reader->rings[i].refused)
            ring = &reader->rings[i];
    if (ring)
        ring->taken = true;
    stg_lock_drop(&reader->lock);
    return ring;
}

static void give_ring(struct stg_reader *reader, struct ring *ring) {
    stg_lock_take(&reader->lock);
    ring->taken = false;
    stg_lock_drop(&reader->lock);
}

/* What one ring has under way for a job. Pieces of no bytes: none. */
struct flight {
    struct job *job;
    struct io_uring *uring;
    struct piece pieces[IN_FLIGHT];
    unsigned count;
};

static void submit_piece(struct flight *flight, unsigned slot) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(flight->uring); /* there are as many as slots */
    const struct piece *piece = &flight->pieces[slot];
    struct job *job = flight->job;

    io_uring_prep_read(sqe, job->fd, job->buffer + piece->start, (unsigned)piece->bytes,
                       job->offset + piece->start);
    sqe->user_data = slot;
    /*
     * Else what is in the page cache is copied at once, one piece after the other, by the thread
     * that submits (io_uring_enter(2), IOSQE_ASYNC).
     */
    io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
}

static void fill_slots(struct flight *flight) {
    for (unsigned slot = 0; slot < IN_FLIGHT; slot++) {
        if (flight->pieces[slot].bytes || !take_piece(flight->job, &flight->pieces[slot]))
            continue;
        flight->count++;
        submit_piece(flight, slot);
    }
}

/* Takes a piece out; what has not been read of it is read now. */
static void land(struct flight *flight, unsigned slot) {
    read_piece(flight->job, flight->pieces[slot]);
    flight->pieces[slot].bytes = 0;
    flight->count--;
}

static void take_result(struct flight *flight, unsigned slot, int result) {
    struct piece *piece = &flight->pieces[slot];

    if (result > 0) {
        piece->start += (size_t)result;
        piece->bytes -= (size_t)result;
        if (piece->bytes) {
            submit_piece(flight, slot);
            return;
        }
    } else if (!result) {
        cut(flight->job, piece->start, 0);
        piece->bytes = 0;
    }
    land(flight, slot);
}

static void take_results(struct flight *flight) {
    struct io_uring_cqe *cqe;

    while (!io_uring_peek_cqe(flight->uring, &cqe)) {
        unsigned slot = (unsigned)cqe->user_data;
        int result = cqe->res;

        io_uring_cqe_seen(flight->uring, cqe);
        take_result(flight, slot, result);
    }
}

/*
 * The ring takes nothing any more. Waits for what the kernel has of it, since that is written to
 * the caller's memory, and reads the rest of what was under way.
 */
static void abandon(struct flight *flight) {
    while (flight->count > io_uring_sq_ready(flight->uring)) {
        struct io_uring_cqe *cqe;
        int result;
        unsigned slot;

        if (io_uring_wait_cqe(flight->uring, &cqe))
            continue;
        slot = (unsigned)cqe->user_data;
        result = cqe->res;
        io_uring_cqe_seen(flight->uring, cqe);
        if (result > 0) {
            flight->pieces[slot].start += (size_t)result;
            flight->pieces[slot].bytes -= (size_t)result;
        }
        land(flight, slot);
    }
    for (unsigned slot = 0; slot < IN_FLIGHT; slot++)
        if (flight->pieces[slot].bytes)
            land(flight, slot);
}

static void read_with_ring(struct ring *ring, struct job *job) {
    struct flight flight = {.job = job, .uring = &ring->uring};
    int result = 0;

    if (ring->refused || (!ring->made && make_ring(ring)))
        return;
    for (fill_slots(&flight); flight.count; fill_slots(&flight)) {
        result = io_uring_submit_and_wait(&ring->uring, 1);
        if (result < 0 && result != -EINTR)
            break;
        take_results(&flight);
    }
    if (!flight.count)
        return;
    stg_debug("io_uring is given up: %s", strerror(-result));
    abandon(&flight);
    unmake_ring(ring);
    ring->refused = true;
}

/* ---- reading ---- */

static void read_with_rings(struct stg_reader *reader, struct job *job) {
    struct ring *ring = take_ring(reader);

    if (ring) {
        read_with_ring(ring, job);
        give_ring(reader, ring);
    }
    if (has_pieces(job)) /* there was no ring, or it broke */
        read_with_helpers(reader, job);
}

ssize_t stg_reader_read(struct stg_reader *reader, int fd, void *buffer, size_t bytes,
                        uint64_t offset) {
    struct job job = {.fd = fd,
                      .buffer = buffer,
                      .bytes = bytes,
                      .offset = offset,
                      .cut = (uint64_t)bytes << ERROR_BITS};

    /* To io_uring an offset of -1 is the file's own position (io_uring_enter(2)). */
    if (bytes > SSIZE_MAX >> ERROR_BITS || offset > INT64_MAX - bytes)
        return -EINVAL;
    if (bytes <= PIECE_BYTES)
        read_piece(&job, (struct piece){0, bytes});
    else if (reader->engine == STG_READER_RING)
        read_with_rings(reader, &job);
    else
        read_with_helpers(reader, &job);
    bytes = end_of(&job);
    return bytes ? (ssize_t)bytes : -(ssize_t)(job.cut & ((1U << ERROR_BITS) - 1));
}

int stg_reader_new(enum stg_reader_engine engine, struct stg_reader **ret_reader) {
    struct stg_reader *reader = calloc(1, sizeof(*reader));
    int error;

    if (!reader)
        return -ENOMEM;
    reader->engine = STG_READER_THREADS;
    stg_lock_init(&reader->lock, STG_RANK_QUEUE);
    pthread_cond_init(&reader->work, NULL);
    pthread_cond_init(&reader->left, NULL);
    error = engine == STG_READER_THREADS ? -ENOSYS : make_ring(&reader->rings[0]);
    if (!error)
        reader->engine = STG_READER_RING;
    else if (engine == STG_READER_AUTO)
        stg_debug("large files are read by threads, without io_uring: %s", strerror(-error));
    if (error && engine == STG_READER_RING) {
        stg_reader_free(reader);
        return error;
    }
    *ret_reader = reader;
    return 0;
}

void stg_reader_free(struct stg_reader *reader) {
    if (!reader)
        return;
    stg_lock_take(&reader->lock);
    reader->stopping = true;
    pthread_cond_broadcast(&reader->work);
    stg_lock_drop(&reader->lock);
    for (unsigned i = 0; i < reader->thread_count; i++)
        (void)pthread_join(reader->threads[i], NULL); /* ours, and joined once */
    for (unsigned i = 0; i < RINGS; i++)
        unmake_ring(&reader->rings[i]);
    pthread_cond_destroy(&reader->left);
    pthread_cond_destroy(&reader->work);
    stg_lock_fini(&reader->lock);
    free(reader);
}

enum stg_reader_engine stg_reader_engine(const struct stg_reader *reader) { return reader->engine; }
