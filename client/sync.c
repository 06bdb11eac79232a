/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the waiting until changes of the source show. The mount holds no request back, so it is
 * asked again and again, with pauses that grow from 1 to 20 milliseconds.
 */
#include "client/stagefs.h"

#include "client/protocol.h"
#include "client/request.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <time.h>

#define PAUSE_MIN_S 0.001
#define PAUSE_MAX_S 0.020

static double now_s(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* it has this clock */
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* fmin(3) would need libm. */
static double smaller(double one, double other) { return one < other ? one : other; }

/* `seconds` is less than one. Ends early where a signal comes: the mount is then asked sooner. */
static void pause_for(double seconds) {
    struct timespec delay = {.tv_nsec = (long)(seconds * 1e9)};

    (void)nanosleep(&delay, NULL);
}

/* Returns 1 when it is done, 0 or -errno. `*ticket`, 0 at first, is begun or asked about. */
static int ask(int fd, uint64_t *ticket) {
    struct stagefs_sync_request request = {.version = STAGEFS_PROTOCOL_VERSION, .ticket = *ticket};
    int error = stg_request_send(fd, STAGEFS_IOC_SYNC, &request);

    if (error)
        return error == -ENOTTY ? 1 : error;
    *ticket = request.ticket;
    return request.done ? 1 : 0;
}

int stagefs_sync(int fd, double timeout_s) {
    double pause_s = PAUSE_MIN_S;
    double start_s = now_s();
    uint64_t ticket = 0;

    if (isnan(timeout_s))
        return stg_request_answer(-EINVAL);
    for (;;) {
        int done = ask(fd, &ticket);
        double left_s = timeout_s - (now_s() - start_s);

        if (done)
            return stg_request_answer(done < 0 ? done : 0);
        if (timeout_s < 0)
            left_s = PAUSE_MAX_S;
        if (left_s <= 0)
            return stg_request_answer(-ETIMEDOUT);
        pause_for(smaller(pause_s, left_s));
        pause_s = smaller(2 * pause_s, PAUSE_MAX_S);
    }
}
