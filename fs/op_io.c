/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns what is done with an open file and reaches the daemon: all data of files that are not passed
 * through, and of the others what the kernel has no passthrough for. Those have no descriptor here,
 * so the source is opened for the one call.
 */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/held.h"
#include "fs/live.h"
#include "fs/notify.h"
#include "fs/primer.h"
#include "fs/ranges.h"
#include "fs/record.h"
#include "fs/reply.h"
#include "fs/staging.h"
#include "util/io.h"
#include "util/cleanup.h"

#include <sys/stat.h>

#define COPY_AT_MOST_BYTES ((size_t)128 << 20)
/* From this size on a file is not kept in the page cache twice; smaller ones are few pages. */
#define ONCE_BYTES_MIN ((uint64_t)1 << 20)

/* The handle's descriptor, or one opened for this call and closed by it. */
struct call_fd {
    int fd; /* or -errno */
    bool own;
};

static int open_for_call(struct stg_inode *inode, int flags) {
    int fd = stg_inode_open(inode, flags);

    return fd == -EACCES ? stg_held_open(inode, flags) : fd;
}

static struct call_fd call_fd_get(fuse_ino_t nodeid, const struct fuse_file_info *fi, int flags) {
    /* Nobody is told of a close then: what a remote source says at its own, each write is told. */
    bool late = stg_fs.no_open && stg_inode_of(nodeid)->volume->remote;

    if ((flags & O_ACCMODE) != O_RDONLY)
        stg_catalog_changing();
    if (fi && fi->fh && !late)
        return (struct call_fd){.fd = (int)fi->fh - 1};
    return (struct call_fd){.fd = open_for_call(stg_inode_of(nodeid), flags | O_NONBLOCK),
                            .own = true};
}

static void call_fd_put(struct call_fd *call) {
    if (call->own && call->fd >= 0)
        stg_fd_close(call->fd);
}

#define auto_call_fd __attribute__((cleanup(call_fd_put))) struct call_fd

/*
 * What the kernel keeps in the mount's own pages it need not keep in the source's as well: those of
 * a large file go again, unless they were there before, because somebody reads it at the source.
 */
static ssize_t read_source(struct stg_inode *inode, int fd, char *buffer, size_t size,
                           off_t offset) {
    uint64_t bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    ssize_t got = -EOPNOTSUPP;

    if (stg_fs.no_open && bytes >= ONCE_BYTES_MIN && !inode->volume->keeps_pages) {
        got = stg_io_read_flags(fd, buffer, size, offset, STG_IO_DONT_CACHE);
        if (got == -EOPNOTSUPP || got == -EINVAL)
            atomic_store(&inode->volume->keeps_pages, true);
    }
    return got < 0 ? stg_io_read_whole(fd, buffer, size, offset) : got;
}

/* What is kept on disk of the file's beginning; nobody is asked, and nothing begun. */
static void read_for_primer(fuse_req_t req, struct stg_inode *inode, size_t size, off_t offset) {
    stg_auto_free char *content = NULL;
    uint64_t file_bytes = 0;
    uint64_t bytes = 0;
    uint64_t end;

    atomic_store(&inode->paged, true); /* first: see stg_coherence_saw() */
    content = stg_primer_content(inode, &bytes, &file_bytes);
    end = (uint64_t)offset + size < file_bytes ? (uint64_t)offset + size : file_bytes;
    if (!content || end > bytes || end < (uint64_t)offset)
        stg_reply_result(req, -EAGAIN);
    else
        (void)fuse_reply_buf(req, content + offset, end - (uint64_t)offset); /* nothing to undo */
}

void stg_op_read(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                 struct fuse_file_info *fi) {
    auto_call_fd call = {.fd = -1};
    stg_auto_free char *buffer = NULL;
    ssize_t got;

    if (stg_primer_asks(req) == STG_PRIMER_KEPT) {
        read_for_primer(req, stg_inode_of(nodeid), size, offset);
        return;
    }
    if (stg_fs.no_open) {
        stg_record_read(stg_inode_of(nodeid));
        atomic_store(&stg_inode_of(nodeid)->paged, true); /* first: see stg_coherence_saw() */
        stg_staging_prepare_read(stg_inode_of(nodeid));
    }
    if (stg_ranges_read(req, stg_inode_of(nodeid), size, offset))
        return;
    call = call_fd_get(nodeid, fi, O_RDONLY);
    buffer = malloc(size);
    if (call.fd < 0 || !buffer) {
        stg_reply_result(req, call.fd < 0 ? call.fd : -ENOMEM);
        return;
    }
    got = stg_live_read(stg_inode_of(nodeid), buffer, size, offset);
    if (got < 0) /* not shared by a writer and readers of a copy, or that cannot be read */
        got = read_source(stg_inode_of(nodeid), call.fd, buffer, size, offset);
    if (got < 0)
        stg_reply_result(req, (int)got);
    else
        (void)fuse_reply_buf(req, buffer, (size_t)got); /* nothing to undo */
}

/* Goes the write to its offset, although the handle's descriptor was opened with O_APPEND? */
static bool is_at_offset(const struct fuse_file_info *fi) {
    int flags;

    if (fi->writepage || !fi->fh)
        return true;
    flags = fcntl((int)fi->fh - 1, F_GETFL);
    return flags >= 0 && (flags & O_APPEND) && !(fi->flags & O_APPEND);
}

/* What the caller's own descriptor would do, where none is kept for it here. */
static int flags_of_write(const struct fuse_file_info *fi) {
    return fi->writepage ? O_WRONLY : O_WRONLY | (fi->flags & (O_APPEND | O_DSYNC | O_SYNC));
}

/* A remote source may refuse as late as that. 0 or -errno. */
static int close_at_once(struct call_fd *call, const struct stg_inode *inode) {
    if (!call->own || call->fd < 0 || !inode->volume->remote)
        return 0;
    return close(stg_fd_steal(&call->fd)) ? -errno : 0;
}

static void write_and_reply(fuse_req_t req, fuse_ino_t nodeid, const char *buffer, size_t size,
                            off_t offset, struct fuse_file_info *fi) {
    /*
     * Pages of a mapping are written back through any handle, and O_APPEND may have been taken off
     * by fcntl(2): on a descriptor with it, pwrite(2) would go to the end of the file.
     */
    auto_call_fd call = call_fd_get(nodeid, is_at_offset(fi) ? NULL : fi, flags_of_write(fi));
    struct stg_inode *inode = stg_inode_of(nodeid);
    int error = call.fd < 0 ? call.fd : 0;
    ssize_t put;

    if (!error && fi->kill_suidgid)
        error = stg_kill_privileges(req, call.fd);
    if (stg_fs.no_open)
        atomic_store(&inode->paged, true);
    put = error ? error : stg_live_write(inode, call.fd, buffer, size, offset);
    if (stg_fs.no_open) {
        error = close_at_once(&call, inode);
        if (error && put > 0)
            put = error;
        stg_staging_changed(inode); /* no open has told that it would be written */
    }
    if (put < 0)
        stg_reply_result(req, (int)put);
    else
        (void)fuse_reply_write(req, (size_t)put); /* the data is written; nothing to undo */
}

static _Atomic uint64_t writes_begun;
static _Atomic uint64_t writes_ended;

uint64_t stg_op_writes(bool *ret_idle) {
    uint64_t ended = atomic_load(&writes_ended);
    uint64_t begun = atomic_load(&writes_begun);

    *ret_idle = begun == ended;
    return begun;
}

void stg_op_write(fuse_req_t req, fuse_ino_t nodeid, const char *buffer, size_t size, off_t offset,
                  struct fuse_file_info *fi) {
    atomic_fetch_add(&writes_begun, 1);
    write_and_reply(req, nodeid, buffer, size, offset, fi);
    atomic_fetch_add(&writes_ended, 1);
}

void stg_op_flush(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi) {
    int fd;
    int error;

    if (stg_fs.no_open) { /* no other will come */
        stg_reply_result(req, -ENOSYS);
        return;
    }
    /* The source's own flush, with its late errors, is that of a descriptor's last close. */
    fd = fi->fh ? fcntl((int)fi->fh - 1, F_DUPFD_CLOEXEC, 3)
                : stg_inode_open(stg_inode_of(nodeid), O_WRONLY);
    error = fd < 0 ? (fi->fh ? -errno : fd) : stg_live_sync(stg_inode_of(nodeid));

    if (fd >= 0 && close(fd) && !error)
        error = -errno;
    /* It was removed; or its source was replaced, with what that had not written yet. */
    if (error == -ESTALE)
        error = atomic_load(&stg_inode_of(nodeid)->volume->replaced) ? -EIO : 0;
    stg_reply_result(req, error);
}

void stg_op_fsync(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *fi) {
    auto_call_fd call = call_fd_get(nodeid, fi, O_RDONLY);
    int error = call.fd < 0 ? call.fd : stg_live_sync(stg_inode_of(nodeid));

    if (!error && (datasync ? fdatasync(call.fd) : fsync(call.fd)))
        error = -errno;
    stg_reply_result(req, error);
}

struct allocation {
    int fd;
    int mode;
    off_t offset;
    off_t length;
};

static int allocate(void *context) {
    const struct allocation *what = context;

    /* Some sources let a signal end this, and work for this thread's io_uring looks like one. */
    return TEMP_FAILURE_RETRY(fallocate(what->fd, what->mode, what->offset, what->length)) ? -errno
                                                                                           : 0;
}

void stg_op_fallocate(fuse_req_t req, fuse_ino_t nodeid, int mode, off_t offset, off_t length,
                      struct fuse_file_info *fi) {
    auto_call_fd call = call_fd_get(nodeid, fi, O_WRONLY);
    struct allocation what = {call.fd, mode, offset, length};
    int error = call.fd < 0 ? call.fd : stg_live_change(stg_inode_of(nodeid), allocate, &what);

    if (!error)
        stg_notify_touched(stg_inode_of(nodeid));
    stg_reply_result(req, error);
}

void stg_op_lseek(fuse_req_t req, fuse_ino_t nodeid, off_t offset, int whence,
                  struct fuse_file_info *fi) {
    auto_call_fd call = call_fd_get(nodeid, fi, O_RDONLY);
    off_t found = call.fd < 0 ? -1 : lseek(call.fd, offset, whence);

    if (call.fd < 0)
        stg_reply_result(req, call.fd);
    else if (found < 0)
        stg_reply_result(req, -errno);
    else
        (void)fuse_reply_lseek(req, found); /* nothing to undo */
}

struct copying {
    int in;
    int out;
    off_t offset_in;
    off_t offset_out;
    size_t length;
    unsigned flags;
    size_t done;
};

/*
 * The copy stops short, as at a signal, where the kernel has work for this thread's io_uring; the
 * caller, who has no such ring, is given what a copy of its own would have given.
 */
static int copy_range(void *context) {
    struct copying *what = context;
    ssize_t copied = 0;

    while (what->done < what->length &&
           (copied = TEMP_FAILURE_RETRY(
                copy_file_range(what->in, &what->offset_in, what->out, &what->offset_out,
                                what->length - what->done, what->flags))) > 0)
        what->done += (size_t)copied;
    return copied < 0 && !what->done ? -errno : 0;
}

void stg_op_copy_file_range(fuse_req_t req, fuse_ino_t nodeid_in, off_t offset_in,
                            struct fuse_file_info *fi_in, fuse_ino_t nodeid_out, off_t offset_out,
                            struct fuse_file_info *fi_out, size_t length, int flags) {
    auto_call_fd in = call_fd_get(nodeid_in, fi_in, O_RDONLY);
    auto_call_fd out = call_fd_get(nodeid_out, fi_out, O_WRONLY);
    struct copying what = {in.fd, out.fd, offset_in, offset_out, length, (unsigned)flags, 0};
    int error;

    /* The caller cannot be interrupted meanwhile, and a short copy is allowed. */
    if (length > COPY_AT_MOST_BYTES)
        what.length = COPY_AT_MOST_BYTES;
    if (in.fd < 0 || out.fd < 0) {
        stg_reply_result(req, in.fd < 0 ? in.fd : out.fd);
        return;
    }
    error = stg_live_sync(stg_inode_of(nodeid_in));
    if (!error)
        error = stg_live_change(stg_inode_of(nodeid_out), copy_range, &what);
    if (error)
        stg_reply_result(req, error); /* on EXDEV and EOPNOTSUPP the kernel copies by itself */
    else
        (void)fuse_reply_write(req, what.done); /* nothing to undo */
}
