/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests of client/protocol.h, and what the answers mean. No state. */
#ifndef STG_CLIENT_REQUEST_H
#define STG_CLIENT_REQUEST_H

#include <stdbool.h>

/*
 * Sends one request of STAGEFS_IOC_*; the answer is in `request`. Returns 0; -ENOTTY where `fd` is
 * not on a stagefs mount, or on one that does not stage or speaks another version: the caller does
 * what the kernel offers; or -errno of the request.
 */
int stg_request_send(int fd, unsigned long command, void *request);

/* A call's answer from 0, a positive count or -errno: as it is, or -1 with errno. */
int stg_request_answer(int result);

/* Can there be a set of this name? "" is none. */
bool stg_request_is_set(const char *name);

#endif
