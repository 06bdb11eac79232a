/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the comparison of a copy with its shadow, and what follows from it. */
#include "fs/shadow.h"

#include "fs/inode.h"
#include "fs/staging.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* As much is compared at a time: between the look at a piece and its writing nothing waits. */
#define PIECE_BYTES ((size_t)64 << 10)
#define PAGE_BYTES 4096U
/* As much is read of the source at a time. */
#define PART_BYTES ((size_t)1 << 20)

static ssize_t read_copy(struct stg_object *object, void *buffer, size_t bytes, uint64_t offset) {
    return stg_store_read(stg_cache_store(stg_staging_cache()), stg_object_copy(object), buffer,
                          bytes, offset);
}

/* Pages that nobody has written cost nothing. NULL without memory. */
static char *map(uint64_t bytes) {
    void *content = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return content == MAP_FAILED ? NULL : content;
}

void stg_shadow_drop(struct stg_shadow *shadow) {
    if (shadow->content)
        (void)munmap(shadow->content, shadow->bytes); /* ours */
    *shadow = (struct stg_shadow){0};
}

int stg_shadow_take(struct stg_shadow *shadow, struct stg_object *object) {
    uint64_t bytes = stg_object_copy(object)->bytes;
    struct stg_shadow taken = {.content = bytes ? map(bytes) : NULL, .bytes = bytes};
    ssize_t got = taken.content ? read_copy(object, taken.content, bytes, 0) : 0;

    if (got != (ssize_t)bytes) {
        int error = got < 0 ? (int)got : taken.content ? -EIO : -ENOMEM;

        stg_shadow_drop(&taken);
        return error;
    }
    stg_shadow_drop(shadow);
    *shadow = taken;
    return 0;
}

/* False without memory. */
static bool lengthen(struct stg_shadow *shadow, uint64_t bytes) {
    void *longer = shadow->content ? mremap(shadow->content, shadow->bytes, bytes, MREMAP_MAYMOVE)
                                   : map(bytes);

    if (!longer || longer == MAP_FAILED)
        return false;
    *shadow = (struct stg_shadow){.content = longer, .bytes = bytes};
    return true;
}

/* What is beyond the end is zero, as in the copy: it may become a part of it again. */
static void shorten(struct stg_shadow *shadow, uint64_t bytes) {
    uint64_t page_end = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;

    if (bytes >= shadow->bytes)
        return;
    if (!bytes) {
        stg_shadow_drop(shadow);
        return;
    }
    memset(shadow->content + bytes, 0, page_end - bytes); /* within what is mapped */
    (void)lengthen(shadow, bytes); /* it needs nothing, and stays where it is */
}

void stg_shadow_write(struct stg_shadow *shadow, const void *buffer, size_t bytes,
                      uint64_t offset) {
    /* Else it is carried once more, which changes nothing. */
    if (bytes && (offset + bytes <= shadow->bytes || lengthen(shadow, offset + bytes)))
        memcpy(shadow->content + offset, buffer, bytes);
}

/* ---- differences ---- */

/* The next bytes from `*at` on in which the two differ; 0 where there is no more. */
static size_t next_difference(const char *one, const char *other, size_t bytes, size_t *at) {
    size_t end;

    while (*at < bytes && one[*at] == other[*at])
        (*at)++;
    end = *at;
    while (end < bytes && one[end] != other[end])
        end++;
    return end - *at;
}

/* Where stores go; the source is opened with the first. */
struct source {
    struct stg_inode *inode;
    int fd; /* for writing, or -1 */
};

/* Puts what differs between a piece of the copy and the shadow to the source. 0 or -errno. */
static int carry_piece(struct stg_shadow *shadow, struct source *source, const char *piece,
                       size_t bytes, uint64_t offset) {
    size_t count;
    ssize_t put;

    for (size_t at = 0; (count = next_difference(piece, shadow->content + offset, bytes, &at));
         at += (size_t)put) {
        if (source->fd < 0)
            source->fd = stg_inode_open(source->inode, O_WRONLY | O_NONBLOCK);
        if (source->fd < 0)
            return source->fd;
        put = stg_io_write_whole(source->fd, piece + at, count, (off_t)(offset + at));
        if (put < 0)
            return (int)put;
        memcpy(shadow->content + offset + at, piece + at, (size_t)put);
    }
    return 0;
}

int stg_shadow_carry(struct stg_shadow *shadow, struct stg_inode *inode,
                     struct stg_object *object) {
    struct source source = {.inode = inode, .fd = -1};
    stg_auto_free char *piece = malloc(PIECE_BYTES);
    int error = piece ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < shadow->bytes && !error; at += PIECE_BYTES) {
        uint64_t left = shadow->bytes - at;
        ssize_t got = read_copy(object, piece, left < PIECE_BYTES ? left : PIECE_BYTES, at);

        error = got < 0 ? (int)got : carry_piece(shadow, &source, piece, (size_t)got, at);
    }
    stg_fd_close(source.fd);
    return error;
}

/* ---- making the copy what the source is ---- */

/* The copy of a file that is renewed. */
struct target {
    struct stg_object *object;
    int fd; /* of the copy, for writing */
};

/*
 * What the source has otherwise than the shadow goes to the copy, but for what was stored into that
 * (`piece` is what it has). The shadow, and `piece`, have it then. 0 or -errno.
 */
static int bring_piece(struct stg_shadow *shadow, const struct target *target, const char *fresh,
                       char *piece, size_t bytes, uint64_t offset) {
    char *old = shadow->content + offset;
    size_t at = 0;

    while (at < bytes) {
        size_t end = at;
        ssize_t put;

        while (end < bytes && fresh[end] != old[end] && piece[end] == old[end])
            end++;
        if (end == at) {
            at++;
            continue;
        }
        put = stg_io_write_whole(target->fd, fresh + at, end - at, (off_t)(offset + at));
        if (put < 0)
            return (int)put;
        memcpy(old + at, fresh + at, (size_t)put);
        memcpy(piece + at, fresh + at, (size_t)put);
        at += (size_t)put;
    }
    return 0;
}

/* What the copy did not have yet. */
static int append_piece(struct stg_shadow *shadow, const struct target *target, const char *fresh,
                        size_t bytes, uint64_t offset) {
    int error =
        bytes ? stg_object_write(stg_staging_cache(), target->object, fresh, bytes, offset) : 0;

    if (!error)
        stg_shadow_write(shadow, fresh, bytes, offset);
    return error;
}

/*
 * Makes a piece of the copy what the source has, which is `fresh`; then what was stored into it
 * goes to the source. `piece` is room for as much.
 */
static int renew_piece(struct stg_shadow *shadow, struct source *source,
                       const struct target *target, const char *fresh, char *piece, size_t bytes,
                       uint64_t offset) {
    uint64_t known = shadow->bytes > offset ? shadow->bytes - offset : 0;
    ssize_t got =
        known ? read_copy(target->object, piece, known < bytes ? known : bytes, offset) : 0;
    int error;

    if (got < 0)
        return (int)got;
    error = bring_piece(shadow, target, fresh, piece, (size_t)got, offset);
    if (!error)
        error =
            append_piece(shadow, target, fresh + got, bytes - (size_t)got, offset + (uint64_t)got);
    return error ? error : carry_piece(shadow, source, piece, (size_t)got, offset);
}

/* Of a file that is longer than may be staged nothing is fetched. */
static int check_size(const struct target *target, int from) {
    uint64_t hot_bytes = stg_cache_usage(stg_staging_cache()).hot_limit_bytes;
    uint64_t copy_bytes = stg_object_copy(target->object)->bytes;
    struct stat info;

    if (fstat(from, &info))
        return -errno;
    return (uint64_t)info.st_size > (copy_bytes > hot_bytes ? copy_bytes : hot_bytes) ? -EFBIG : 0;
}

/* All that the source has. 0 or -errno, and where it ends. */
static int renew_content(struct stg_shadow *shadow, struct source *source,
                         const struct target *target, int from, uint64_t *ret_bytes) {
    stg_auto_free char *fresh = malloc(PART_BYTES);
    stg_auto_free char *piece = malloc(PIECE_BYTES);
    int error = fresh && piece ? check_size(target, from) : -ENOMEM;
    ssize_t got = 1;
    uint64_t at = 0;

    while (!error && got > 0) {
        got = stg_io_read_whole(from, fresh, PART_BYTES, (off_t)at);
        for (ssize_t done = 0; done < got && !error; done += (ssize_t)PIECE_BYTES) {
            size_t left = (size_t)(got - done);

            error = renew_piece(shadow, source, target, fresh + done, piece,
                                left < PIECE_BYTES ? left : PIECE_BYTES, at + (uint64_t)done);
        }
        at += got > 0 ? (uint64_t)got : 0;
    }
    *ret_bytes = at;
    return error ? error : (int)got;
}

int stg_shadow_renew(struct stg_shadow *shadow, struct stg_inode *inode,
                     struct stg_object *object) {
    struct source source = {.inode = inode, .fd = -1};
    struct target target = {.object = object};
    stg_auto_fd int from = stg_inode_open(inode, O_RDONLY | O_NONBLOCK);
    stg_auto_fd int to =
        stg_store_open(stg_cache_store(stg_staging_cache()), stg_object_copy(object), O_WRONLY);
    uint64_t bytes = 0;
    int error = from < 0 ? from : to < 0 ? to : 0;

    target.fd = to;
    if (!error)
        error = renew_content(shadow, &source, &target, from, &bytes);
    stg_fd_close(source.fd);
    if (!error && bytes < stg_object_copy(object)->bytes)
        error = stg_object_shorten(stg_staging_cache(), object, bytes);
    if (!error)
        shorten(shadow, bytes);
    return error;
}
