/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the three signals and the thread that ends what does not end by itself. */
#include "fs/ending.h"

#include "fs/fs.h"
#include "fs/notify.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#define GRACE_MS 10000

static int told_fd = -1; /* a signal came */
static int over_fd = -1; /* all has ended */
static pthread_t thread;
static bool running;

static void handle(int signal_number) {
    int saved = errno;

    (void)signal_number;
    fuse_session_exit(stg_fs.session);
    (void)eventfd_write(told_fd, 1); /* a write(2), which a handler may do */
    errno = saved;
}

/* False where nothing came in that time. */
static bool wait_for(int fd, int timeout_ms) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int result;

    do
        result = poll(&poll_fd, 1, timeout_ms);
    while (result < 0 && errno == EINTR);
    return result > 0;
}

static void *watch(void *unused) {
    (void)unused;
    if (!wait_for(told_fd, -1) || wait_for(over_fd, GRACE_MS))
        return NULL;
    stg_error("the source has not answered for %d s: the mount on %s ends without it",
              GRACE_MS / 1000, stg_fs.options.mountpoint);
    stg_notify_abort();
    _exit(1);
}

int stg_ending_start(void) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = handle};
    int error;

    told_fd = eventfd(0, EFD_CLOEXEC);
    over_fd = eventfd(0, EFD_CLOEXEC);
    if (told_fd < 0 || over_fd < 0)
        return -errno;
    error = -pthread_create(&thread, NULL, watch, NULL);
    running = !error;
    (void)sigemptyset(&action.sa_mask); /* these cannot fail with valid arguments */
    for (int i = 0; i < 3 && !error; i++)
        (void)sigaction(signals[i], &action, NULL);
    return error;
}

void stg_ending_stop(void) {
    if (running) {
        (void)eventfd_write(over_fd, 1); /* these cannot fail */
        (void)eventfd_write(told_fd, 1);
        (void)pthread_join(thread, NULL);
    }
    running = false;
}
