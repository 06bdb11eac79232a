/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the advice for a range of one open file. */
#include "client/stagefs.h"

#include "client/protocol.h"
#include "client/request.h"

#include <errno.h>
#include <fcntl.h>

/*
 * What concerns the open file alone (how it is read ahead) the kernel is told in any case. What
 * concerns pages it is told only where no mount answers: on a mount the pages are the source's.
 */
static int advise(int fd, off_t offset, off_t length, uint32_t advice, int posix_advice) {
    struct stagefs_advise_request request = {.version = STAGEFS_PROTOCOL_VERSION,
                                             .advice = advice,
                                             .offset = (uint64_t)offset,
                                             .length = (uint64_t)length};
    bool own = advice == STAGEFS_ADVICE_SEQUENTIAL || advice == STAGEFS_ADVICE_RANDOM;
    int error = offset < 0 || length < 0 ? -EINVAL : 0;

    if (!error && own)
        error = -posix_fadvise(fd, offset, length, posix_advice);
    if (!error)
        error = stg_request_send(fd, STAGEFS_IOC_ADVISE, &request);
    if (error == -ENOTTY)
        error = own ? 0 : -posix_fadvise(fd, offset, length, posix_advice);
    return stg_request_answer(error);
}

int stagefs_advise_sequential(int fd, off_t offset, off_t length) {
    return advise(fd, offset, length, STAGEFS_ADVICE_SEQUENTIAL, POSIX_FADV_SEQUENTIAL);
}

int stagefs_advise_random(int fd, off_t offset, off_t length) {
    return advise(fd, offset, length, STAGEFS_ADVICE_RANDOM, POSIX_FADV_RANDOM);
}

int stagefs_advise_willneed(int fd, off_t offset, off_t length) {
    return advise(fd, offset, length, STAGEFS_ADVICE_WILLNEED, POSIX_FADV_WILLNEED);
}

int stagefs_advise_dontneed(int fd, off_t offset, off_t length) {
    return advise(fd, offset, length, STAGEFS_ADVICE_DONTNEED, POSIX_FADV_DONTNEED);
}
