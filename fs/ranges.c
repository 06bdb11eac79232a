/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the pieces of files that are staged by range, and the READs that wait for them.
 *
 * A READ wants all the pieces that it touches at once, and is answered by whoever brings the last
 * of them: with what was read just now, too, before the source has told that it did not change
 * meanwhile, for that is what the source itself would have given. Only what is kept must be of one
 * version. The pieces are protected by the inode's io lock, and each has a reference to the inode.
 */
#include "fs/ranges.h"

#include "fs/iomode.h"
#include "fs/reply.h"
#include "fs/waits.h"
#include "util/io.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#define PIECES_PER_READ 8
/* Pieces that are fetched before a sequential reader asks for them: as many as he has read. */
#define AHEAD_MAX 32

struct stg_ranges {
    struct stg_identity identity; /* all zero: not known; protected by the io lock, as all below */
    uint64_t piece_bytes;
    uint64_t count;
    uint64_t last;   /* the piece that was last read */
    unsigned streak; /* pieces that were read one after the other */
    int source_fd;   /* for fetches while the file is open; -1: none */
    struct stg_object *pieces[];
};

/* Of a READ's piece: the content is in its buffer already. */
#define PIECE_CAME 2

/* A READ and the pieces that it needs. */
struct range_read {
    struct stg_wait wait;
    fuse_req_t req;
    struct stg_inode *inode; /* referenced */
    size_t size;
    off_t offset;
    uint64_t piece_bytes;
    unsigned count;
    bool in_place;            /* the request's thread waits, see stg_staging_may_park() */
    char *buffer;             /* `size` bytes; owned */
    struct stg_identity seen; /* what the inode was seen to be when the READ came */
    sem_t over;
    atomic_uint open; /* pieces that are still to come, and one while they are being asked for */
    struct piece_wait {
        struct stg_waiter waiter;
        struct range_read *read;
        struct stg_object *object; /* referenced; NULL: none is to be had */
        int result;                /* STG_WANT_READY, PIECE_CAME or -errno */
        size_t got;                /* bytes that came */
    } pieces[PIECES_PER_READ];
};

static bool is_of(const struct stg_ranges *ranges, const struct stg_identity *now) {
    return stg_identity_equal(&ranges->identity, now);
}

/* ---- pieces ---- */

static uint64_t hash_of(const struct stg_inode *inode, uint64_t index) {
    uint64_t hash = stg_hash_u64(inode->ino ^ ((uintptr_t)inode->volume << 8) ^ (index + 1) << 32);

    return hash ? hash : 1;
}

/* The piece, referenced; NULL where there is none to be had. */
static struct stg_object *piece_locked(struct stg_inode *inode, struct stg_ranges *ranges,
                                       uint64_t index) {
    struct stg_range range = {.offset = index * ranges->piece_bytes, .bytes = ranges->piece_bytes};
    struct stg_object **piece = &ranges->pieces[index];

    if (index >= ranges->count)
        return NULL;
    if (!*piece) {
        *piece = stg_object_new(stg_staging_cache(), inode, range, hash_of(inode, index));
        if (!*piece)
            return NULL;
        stg_inode_ref(inode); /* until the engine releases the key */
    }
    stg_object_ref(stg_staging_cache(), *piece);
    return *piece;
}

void stg_ranges_absent_locked(struct stg_inode *inode, struct stg_object *object) {
    struct stg_ranges *ranges = inode->staged->ranges;
    uint64_t index = ranges ? stg_object_range(object).offset / ranges->piece_bytes : 0;

    if (ranges && index < ranges->count && ranges->pieces[index] == object &&
        stg_object_retire(stg_staging_cache(), object))
        ranges->pieces[index] = NULL;
}

/* Frees the pieces of ranges that are the inode's no more. */
static void free_pieces(struct stg_ranges *ranges) {
    if (!ranges)
        return;
    for (uint64_t i = 0; i < ranges->count; i++)
        stg_object_free(stg_staging_cache(), ranges->pieces[i]);
    stg_fd_close(ranges->source_fd);
    free(ranges);
}

void stg_ranges_drop(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_ranges *ranges = NULL;

    stg_lock_take(lock);
    if (inode->staged) {
        ranges = inode->staged->ranges;
        inode->staged->ranges = NULL;
    }
    stg_lock_drop(lock);
    free_pieces(ranges);
}

void stg_ranges_free(struct stg_staged *staged) {
    if (staged->ranges)
        stg_fd_close(staged->ranges->source_fd);
    free(staged->ranges);
}

void stg_ranges_compare(struct stg_inode *inode, const struct stg_identity *now) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool other;

    stg_lock_take(lock);
    other = inode->staged && inode->staged->ranges && !is_of(inode->staged->ranges, now);
    if (inode->staged)
        inode->staged->seen = *now;
    stg_lock_drop(lock);
    if (other)
        stg_ranges_drop(inode);
}

void stg_ranges_unsee(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    if (inode->staged)
        inode->staged->seen = (struct stg_identity){0};
    stg_lock_drop(lock);
}

/* ---- opening ---- */

static struct stg_ranges *new_ranges(const struct stg_identity *identity) {
    uint64_t size_bytes = (uint64_t)identity->size_bytes;
    uint64_t piece_bytes = stg_fill_piece_bytes(size_bytes);
    uint64_t count = (size_bytes + piece_bytes - 1) / piece_bytes;
    struct stg_ranges *ranges = calloc(1, sizeof(*ranges) + count * sizeof(ranges->pieces[0]));

    if (ranges) {
        ranges->identity = *identity;
        ranges->piece_bytes = piece_bytes;
        ranges->count = count;
        ranges->source_fd = -1;
    }
    return ranges;
}

bool stg_ranges_open(struct stg_inode *inode, bool *ret_keep) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_staged *staged;
    bool ready;

    stg_lock_take(lock);
    staged = inode->staged;
    if (!staged->ranges && staged->seen.ino) /* else somebody changes it just now */
        staged->ranges = new_ranges(&staged->seen);
    ready = staged->ranges != NULL;
    if (ret_keep) {
        *ret_keep = ready && stg_identity_equal(&staged->cached, &staged->seen);
        staged->cached = staged->seen;
    }
    stg_lock_drop(lock);
    return ready;
}

int stg_ranges_source_fd(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    int fd = -1;

    stg_lock_take(lock);
    if (inode->staged->ranges && inode->staged->ranges->source_fd >= 0)
        fd = fcntl(inode->staged->ranges->source_fd, F_DUPFD_CLOEXEC, 3);
    stg_lock_drop(lock);
    return fd;
}

void stg_ranges_lend(struct stg_inode *inode, int fd) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    if (inode->staged->ranges && inode->staged->ranges->source_fd < 0 && inode->opens)
        inode->staged->ranges->source_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    stg_lock_drop(lock);
}

void stg_ranges_idle_locked(struct stg_inode *inode) {
    if (!inode->staged || !inode->staged->ranges)
        return;
    stg_fd_close(inode->staged->ranges->source_fd);
    inode->staged->ranges->source_fd = -1;
}

/* ---- reading ---- */

/* Reads what the pieces did not bring, from the source. Returns bytes or -errno. */
static ssize_t read_source(const struct range_read *read) {
    stg_auto_fd int fd = stg_inode_open(read->inode, O_RDONLY | O_NONBLOCK);

    return fd < 0 ? fd : stg_io_read_whole(fd, read->buffer, read->size, read->offset);
}

/* The part of the READ that the piece is to fill: where it begins in the buffer. */
static size_t start_of(const struct range_read *read, unsigned index) {
    return index ? (size_t)(read->piece_bytes - (uint64_t)read->offset % read->piece_bytes +
                            (index - 1) * read->piece_bytes)
                 : 0;
}

static ssize_t read_piece(const struct range_read *read, unsigned index) {
    struct stg_store *store = stg_cache_store(stg_staging_cache());
    const struct piece_wait *piece = &read->pieces[index];
    size_t start = start_of(read, index);

    if (piece->result == PIECE_CAME)
        return (ssize_t)piece->got;
    if (piece->result != STG_WANT_READY)
        return -EIO;
    return stg_store_read(store, stg_object_copy(piece->object), read->buffer + start,
                          read->size - start, ((uint64_t)read->offset + start) % read->piece_bytes);
}

/* Puts the pieces together. Returns bytes, or -errno where one is missing. */
static ssize_t read_pieces(const struct range_read *read) {
    size_t done = 0;

    for (unsigned i = 0; i < read->count && done < read->size; i++) {
        uint64_t at = (uint64_t)read->offset + done;
        ssize_t got = read_piece(read, i);

        if (got < 0)
            return got;
        done += (size_t)got;
        if ((at + (uint64_t)got) % read->piece_bytes)
            break; /* the file ends here, or the READ does */
    }
    return (ssize_t)done;
}

/* The version that the piece is of; NULL where it is not there. */
static const struct stg_identity *version_of(const struct range_read *read,
                                             const struct piece_wait *piece) {
    if (piece->result == PIECE_CAME)
        return &read->seen;
    return piece->result == STG_WANT_READY ? stg_object_identity(piece->object) : NULL;
}

/* Are the pieces of the version that the inode is seen to have? */
static bool are_current(const struct range_read *read) {
    struct stg_lock *lock = stg_inode_io_lock(read->inode);
    struct stg_identity seen;

    stg_lock_take(lock);
    seen = read->inode->staged->seen;
    stg_lock_drop(lock);
    for (unsigned i = 0; i < read->count; i++) {
        const struct stg_identity *version = version_of(read, &read->pieces[i]);

        if (version && !stg_identity_equal(version, &seen))
            return false;
    }
    return true;
}

static void finish_read(struct range_read *read) {
    /* Beyond what was known of the file the source knows whether it ends there. */
    bool waits = stg_wait_end(&read->wait);
    ssize_t got = read->count && are_current(read) ? read_pieces(read) : -ESTALE;

    if (got < 0 && waits)
        got = read_source(read);
    else if (waits && stg_fs.no_open)
        stg_staging_served(read->inode, 0); /* elsewhere its open was counted */
    for (unsigned i = 0; i < read->count; i++) {
        if (read->pieces[i].result == STG_WANT_READY)
            stg_object_put(stg_staging_cache(), read->pieces[i].object);
        if (read->pieces[i].object)
            stg_staging_unref(read->pieces[i].object);
    }
    if (waits && got < 0)
        stg_reply_result(read->req, (int)got);
    else if (waits)
        (void)fuse_reply_buf(read->req, read->buffer, (size_t)got); /* nothing to undo */
    stg_inode_unref(read->inode);
    free(read->buffer);
    free(read);
}

static void one_less(struct range_read *read) {
    bool in_place = read->in_place; /* it may be gone afterwards */

    if (atomic_fetch_sub(&read->open, 1) != 1)
        return;
    if (in_place)
        (void)sem_post(&read->over); /* cannot overflow */
    else
        finish_read(read);
}

static void piece_is_there(struct stg_waiter *waiter, int result) {
    struct piece_wait *piece = (struct piece_wait *)(void *)waiter;

    piece->result = result;
    one_less(piece->read);
}

static void content_came(struct stg_waiter *waiter, const struct stg_filled *filled) {
    struct piece_wait *piece = (struct piece_wait *)(void *)waiter;
    struct range_read *read = piece->read;
    size_t start = start_of(read, (unsigned)(piece - read->pieces));
    uint64_t at = ((uint64_t)read->offset + start) % read->piece_bytes;
    size_t room = read->size - start;

    if (stg_identity_equal(&filled->identity, &read->seen)) {
        piece->got = at < filled->bytes ? (size_t)(filled->bytes - at) : 0;
        if (piece->got > room)
            piece->got = room;
        memcpy(read->buffer + start, filled->content + at, piece->got);
        piece->result = PIECE_CAME;
    } else {
        piece->result = -ESTALE;
    }
    one_less(read);
}

static void want_pieces(struct range_read *read) {
    for (unsigned i = 0; i < read->count; i++) {
        struct piece_wait *piece = &read->pieces[i];
        int result;

        if (!piece->object)
            continue;
        atomic_fetch_add(&read->open, 1);
        piece->waiter.done = piece_is_there;
        piece->waiter.came = content_came;
        piece->waiter.goes_on =
            ((uint64_t)read->offset + start_of(read, i)) % read->piece_bytes != 0;
        result = stg_object_want(stg_staging_cache(), piece->object, STG_PRIORITY_WAITING,
                                 &piece->waiter);
        if (result) {
            piece->result = result;
            (void)atomic_fetch_sub(&read->open, 1); /* not the last one: that is ours */
        }
    }
    one_less(read);
}

/* Has the next pieces fetched before they are asked for. True where one of them comes now. */
static bool read_ahead(struct stg_inode *inode, uint64_t from, unsigned count) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_object *ahead[AHEAD_MAX] = {NULL};
    bool begun = false;

    stg_lock_take(lock);
    for (unsigned i = 0; i < count && inode->staged->ranges; i++)
        ahead[i] = piece_locked(inode, inode->staged->ranges, from + i);
    stg_lock_drop(lock);
    for (unsigned i = 0; i < count; i++) {
        if (!ahead[i])
            continue;
        if (!stg_object_want(stg_staging_cache(), ahead[i], STG_PRIORITY_PREDICTED, NULL))
            begun = true;
        stg_staging_unref(ahead[i]);
    }
    return begun;
}

/* READs of a sequential reader may come a little out of order. */
static void note_progress_locked(struct stg_ranges *ranges, uint64_t piece) {
    if (piece == ranges->last + 1)
        ranges->streak++;
    else if (piece > ranges->last + 1 || piece + 2 < ranges->last)
        ranges->streak = 0;
    if (piece > ranges->last || !ranges->streak)
        ranges->last = piece;
}

bool stg_ranges_prefetch(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    uint64_t room = stg_cache_usage(stg_staging_cache()).hot_limit_bytes;
    uint64_t count = 0;
    bool begun = false;

    if (!stg_ranges_open(inode, NULL))
        return false;
    stg_lock_take(lock);
    if (inode->staged->ranges) {
        count = room / (inode->staged->ranges->piece_bytes * 2);
        count = count < inode->staged->ranges->count ? count : inode->staged->ranges->count;
    }
    stg_lock_drop(lock);
    for (uint64_t at = 0; at < count; at += AHEAD_MAX)
        begun |= read_ahead(inode, at, count - at < AHEAD_MAX ? (unsigned)(count - at) : AHEAD_MAX);
    return begun;
}

/* Takes the pieces for the READ. False where the inode is not staged by range now. */
static bool take_pieces(struct range_read *read, uint64_t *ret_from, unsigned *ret_ahead) {
    struct stg_inode *inode = read->inode;
    struct stg_lock *lock = stg_inode_io_lock(inode);
    struct stg_ranges *ranges;
    bool taken = false;

    stg_lock_take(lock);
    ranges = inode->staged ? inode->staged->ranges : NULL;
    if (ranges && !inode->writers && !inode->mapped) {
        uint64_t first = (uint64_t)read->offset / ranges->piece_bytes;
        uint64_t last = ((uint64_t)read->offset + read->size - 1) / ranges->piece_bytes;

        taken = last - first < PIECES_PER_READ;
        read->seen = inode->staged->seen;
        read->piece_bytes = ranges->piece_bytes;
        for (uint64_t i = first; taken && i <= last && i < ranges->count; i++)
            read->pieces[read->count++] = (struct piece_wait){
                .read = read, .object = piece_locked(inode, ranges, i), .result = -ENOMEM};
        note_progress_locked(ranges, last);
        *ret_from = last + 1;
        *ret_ahead = ranges->streak < AHEAD_MAX ? ranges->streak : AHEAD_MAX;
    }
    stg_lock_drop(lock);
    return taken;
}

bool stg_ranges_read(fuse_req_t req, struct stg_inode *inode, size_t size, off_t offset) {
    struct range_read *read;
    uint64_t from = 0;
    unsigned ahead = 0;

    if (!stg_staging_cache() || !inode->staged || !size)
        return false;
    read = calloc(1, sizeof(*read));
    if (!read)
        return false;
    *read = (struct range_read){
        .req = req, .inode = inode, .size = size, .offset = offset, .buffer = malloc(size)};
    read->in_place = !stg_staging_may_park();
    (void)sem_init(&read->over, 0, 0); /* cannot fail with these */
    atomic_init(&read->open, 1);
    if (!read->buffer || !take_pieces(read, &from, &ahead)) {
        free(read->buffer);
        free(read);
        return false;
    }
    stg_inode_ref(inode); /* for the READ */
    stg_inode_ref(inode); /* for what follows its answer */
    if (!read->in_place)  /* else its own thread alone may answer it */
        stg_wait_begin(&read->wait, req);
    want_pieces(read);
    if (!stg_staging_may_park()) {
        while (sem_wait(&read->over))
            ; /* a signal came */
        finish_read(read);
    }
    if (ahead)
        (void)read_ahead(inode, from, ahead); /* or it is there */
    stg_inode_unref(inode);
    return true;
}

/* ---- for people ---- */

void stg_ranges_view(struct stg_inode *inode, struct stg_staging_view *view) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    for (uint64_t i = 0; inode->staged && inode->staged->ranges && i < inode->staged->ranges->count;
         i++) {
        struct stg_object *piece = inode->staged->ranges->pieces[i];
        struct stg_object_view of_piece = {0};

        if (piece)
            of_piece = stg_object_view(stg_staging_cache(), piece);
        view->staged_bytes += of_piece.staged_bytes;
        if (of_piece.state == STG_HOT || (of_piece.state == STG_COLD && view->state != STG_HOT) ||
            (of_piece.state == STG_FILLING && view->state == STG_ABSENT))
            view->state = of_piece.state;
    }
    stg_lock_drop(lock);
}
