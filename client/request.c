/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the ioctl and the reading of its errors. */
#include "client/request.h"

#include "client/protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* The kernel passes a signal on and waits for the answer; EINTR means that nothing was sent yet. */
static int send_once(int fd, unsigned long command, void *request) {
    int result;

    do
        result = ioctl(fd, command, request);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/*
 * EINVAL is a mount's answer to a payload that it does not know, and some file systems' answer to
 * any ioctl that they do not know. A mount of this protocol's version can always count, also where
 * it does not stage.
 */
static bool speaks_protocol(int fd) {
    struct stagefs_stats_request stats = {.version = STAGEFS_PROTOCOL_VERSION};

    return !send_once(fd, STAGEFS_IOC_STATS, &stats);
}

int stg_request_send(int fd, unsigned long command, void *request) {
    int error = send_once(fd, command, request);

    switch (error) {
    case -EOPNOTSUPP:
    case -ENOSYS:
        return -ENOTTY;
    case -EINVAL:
        return speaks_protocol(fd) ? -EINVAL : -ENOTTY;
    default:
        return error;
    }
}

int stg_request_answer(int result) {
    if (result >= 0)
        return result;
    errno = -result;
    return -1;
}

bool stg_request_is_set(const char *name) { return strlen(name) < STAGEFS_SET_BYTES; }
