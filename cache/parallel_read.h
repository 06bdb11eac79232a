/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads a large part of a file faster than one pread(2) does: several pieces of it at once, through
 * io_uring, or by a few threads where the kernel has it not or forbids it. What is small goes
 * straight to pread.
 */
#ifndef STG_CACHE_PARALLEL_READ_H
#define STG_CACHE_PARALLEL_READ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct stg_reader;

enum stg_reader_engine {
    STG_READER_AUTO,    /* io_uring where it can be had, else threads */
    STG_READER_RING,    /* io_uring or nothing */
    STG_READER_THREADS, /* without io_uring */
};

/* What is read with one call where no more than this is asked for. */
#define STG_READER_PIECE_BYTES ((size_t)1 << 20)

/*
 * Makes a reader. Threads are started when they are first needed; a process that goes to the
 * background by forking does that before. Returns 0; -ENOMEM; or, for STG_READER_RING, the kernel's
 * refusal: -EPERM (kernel.io_uring_disabled, seccomp), -ENOSYS, -EMFILE and others.
 */
int stg_reader_new(enum stg_reader_engine engine, struct stg_reader **ret_reader);

/* Ends its threads. Nobody may be in a call. NULL is fine. */
void stg_reader_free(struct stg_reader *reader);

/* STG_READER_RING or STG_READER_THREADS. Constant. */
enum stg_reader_engine stg_reader_engine(const struct stg_reader *reader);

/*
 * Reads `bytes` at `offset` of the regular file `fd`, all of them unless the file ends before or an
 * error comes. The file's own position stays. Short reads, EINTR and, for up to a second, EAGAIN
 * are gone over.
 *
 * Returns the bytes before the end or the first error; where an error comes first of all, -errno
 * as of pread(2). Of a file that is changed or cut meanwhile each piece is what it was at some time
 * of the call, and what is returned has no gap. `buffer` may have been written to behind that.
 *
 * Any number of threads may read at once, and no lock is held while the file is read: who finds all
 * rings taken has the helpers, and who finds these at work reads by himself.
 */
ssize_t stg_reader_read(struct stg_reader *reader, int fd, void *buffer, size_t bytes,
                        uint64_t offset);

#endif
