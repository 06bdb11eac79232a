/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the three signals and the thread that ends what does not end by itself. */
#include "fs/ending.h"

#include "fs/fs.h"
#include "fs/notify.h"
#include "fs/ops.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#define WRITE_BACK_S 10
#define GRACE_MS 10000
#define IDLE_NS 50000000L

static int told_fd = -1; /* a signal came */
static int over_fd = -1; /* all has ended */
static sem_t written;    /* what the kernel has was written */
static pthread_t thread;
static bool running;
static _Atomic int64_t until_ns; /* monotonic: the end of the step that the end is in */

static void handle(int signal_number) {
    int saved = errno;

    (void)signal_number;
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

/* The kernel does not wait for what it writes back (Linux 6.18): until no write has come for a
 * while. */
static void wait_for_writes(void) {
    const struct timespec pause = {.tv_nsec = IDLE_NS};
    uint64_t before;
    bool idle;

    do {
        before = stg_op_writes(&idle);
        (void)nanosleep(&pause, NULL); /* at worst it looks sooner */
    } while (before != stg_op_writes(&idle) || !idle);
}

/*
 * Has the kernel write what it has. By another program, and not by a call from here, which is
 * answered from here: where the source hangs, and this process is killed meanwhile, a thread that
 * waits for such an answer cannot die, and keeps the connection that everybody else waits on.
 * Another program has no part of that: not its descriptors, nor a ring that is mapped.
 */
static void sync_by_program(void) {
    const char *const argv[] = {"sync", "-f", stg_fs.options.mountpoint, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid = -1;

    if (posix_spawn_file_actions_init(&actions))
        return;
    /* Errors are told to who syncs the file; it says nothing here. */
    if (!posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0) &&
        !posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO) &&
        !posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDERR_FILENO) &&
        posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ))
        pid = -1;
    (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ; /* a signal came */
}

/* By a thread of its own, as nobody knows how long that takes. */
static void *write_back(void *unused) {
    (void)unused;
    sync_by_program();
    wait_for_writes();
    (void)sem_post(&written); /* cannot overflow */
    return NULL;
}

static void write_back_first(void) {
    struct timespec until;
    pthread_t writer;

    if (pthread_create(&writer, NULL, write_back, NULL))
        return;
    (void)pthread_detach(writer); /* these cannot fail for what is ours */
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WRITE_BACK_S;
    while (sem_timedwait(&written, &until) && errno == EINTR)
        ; /* a signal came */
}

static bool wait_for_end(void) {
    for (;;) {
        int64_t left_ms = (atomic_load(&until_ns) - stg_clock_monotonic_ns()) / 1000000;

        if (left_ms <= 0)
            return false;
        if (wait_for(over_fd, (int)left_ms))
            return true;
    }
}

/* True where a signal came; false where the connection is gone, or all has ended. */
static bool wait_for_signal(void) {
    /* A connection that is gone is an error of its descriptor, which poll(2) tells unasked. */
    struct pollfd fds[] = {{.fd = told_fd, .events = POLLIN},
                           {.fd = fuse_session_fd(stg_fs.session)}};

    while (poll(fds, 2, -1) < 0)
        ; /* a signal came */
    return fds[0].revents & POLLIN;
}

static void *watch(void *unused) {
    bool signalled = wait_for_signal();

    (void)unused;
    if (wait_for(over_fd, 0)) /* it was unmounted, and nothing was in the way */
        return NULL;
    if (signalled)
        write_back_first();
    stg_ending_step(GRACE_MS / 1000);
    fuse_session_exit(stg_fs.session);
    if (wait_for_end())
        return NULL;
    stg_error("the source does not answer: the mount on %s ends without it",
              stg_fs.options.mountpoint);
    if (signalled)
        stg_notify_abort();
    _exit(1);
}

void stg_ending_step(unsigned seconds) {
    atomic_store(&until_ns, stg_clock_monotonic_ns() + (int64_t)seconds * 1000000000);
}

int stg_ending_start(void) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = handle};
    int error;

    told_fd = eventfd(0, EFD_CLOEXEC);
    over_fd = eventfd(0, EFD_CLOEXEC);
    if (told_fd < 0 || over_fd < 0)
        return -errno;
    (void)sem_init(&written, 0, 0); /* cannot fail with these */
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
