/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the hand-over between the started process and the daemon. */
#include "fs/daemon.h"

#include "fs/catalog.h"
#include "fs/fs.h"
#include "fs/primer.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/wait.h>

/* The walk takes a second at most, unless it has to wait for something. */
#define WALK_PATIENCE_MS 2000
/* Behind the standard streams. */
#define FIRST_FD 3

/* What the daemon says once the kernel has answered. */
enum { IS_READY, IS_TO_BE_PRIMED };

/* Reads what the daemon tells besides. What could not be read is not needed. */
static char *read_told(int fd, size_t *ret_bytes) {
    char *told = NULL;
    size_t room = 0;
    ssize_t got;

    *ret_bytes = 0;
    do {
        char *more = *ret_bytes < room ? told : realloc(told, room = room ? room * 2 : 65536);

        if (!more)
            break;
        told = more;
        got = read(fd, told + *ret_bytes, room - *ret_bytes);
        *ret_bytes += got > 0 ? (size_t)got : 0;
    } while (got > 0 || (got < 0 && errno == EINTR));
    return told;
}

/* Closes all but that, which is closed at the end: a walk that has to wait holds nothing else. */
static void keep_open(int fd) {
    (void)dup2(fd, FIRST_FD); /* where they fail more is held */
    (void)close_range(FIRST_FD + 1, UINT_MAX, 0);
}

/* Waits for the daemon, `child`. `done_fd`: whom to tell before anything else is done, or -1. */
static int wait_until_mounted(int fd, pid_t child, int done_fd) {
    stg_auto_free char *told = NULL;
    size_t told_bytes = 0;
    int64_t since_ns;
    struct statfs info;
    char byte;
    ssize_t got;

    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    if (got != 1) {
        int status = 0;

        (void)waitpid(child, &status, 0); /* ours, so it can be waited for */
        if (WIFSIGNALED(status))
            stg_error("the daemon was killed by signal %d before it mounted", WTERMSIG(status));
        return 1;
    }
    since_ns = stg_clock_monotonic_ns();
    if (byte == IS_TO_BE_PRIMED)
        told = read_told(fd, &told_bytes);
    stg_fd_close(fd); /* the daemon is not to wait for who does not listen any more */
    /* The kernel holds this back until its first exchange with the daemon is complete. */
    if (statfs(stg_fs.options.mountpoint, &info)) {
        stg_error("the mount does not answer: %m");
        return 1;
    }
    if (done_fd < 0 || write(done_fd, "", 1) != 1)
        return 0;
    keep_open(done_fd);
    if (byte == IS_TO_BE_PRIMED)
        stg_primer_walk(stg_fs.options.mountpoint, told, told_bytes, since_ns);
    return 0;
}

int stg_daemon_clean_start(void) {
    sigset_t none;
    int fd;

    /* Whatever is opened next would become a standard stream, and take what is printed there. */
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= 2);
    if (fd < 0)
        return -errno;
    stg_fd_close(fd);
    (void)sigemptyset(&none); /* these cannot fail with valid arguments */
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGCHLD, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    return 0;
}

/* Waits until the other process says that all is done but the walk, and for that not for long. */
static int wait_for_walker(int fd, pid_t walker) {
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    int status = 0;
    char byte;
    ssize_t got;

    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    if (got == 1) {
        (void)poll(&ended, 1, WALK_PATIENCE_MS);
        (void)kill(walker, SIGKILL); /* ours, and not waited for; who is in the kernel stays */
        return 0;
    }
    (void)waitpid(walker, &status, 0); /* it has said why */
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/*
 * Where the mount may be walked through before it is ready, another process does that, and goes on:
 * one that asks a mount cannot be ended before it has its answer. 0 in that one, with whom it tells
 * in `*ret_done_fd`; or -errno.
 */
static int part_from_walker(int *ret_done_fd) {
    int ends[2];
    pid_t walker;

    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    walker = fork();
    if (walker < 0) {
        int error = -errno;

        stg_fd_close(ends[0]);
        stg_fd_close(ends[1]);
        return error;
    }
    if (walker) {
        stg_fd_close(ends[1]);
        _exit(wait_for_walker(ends[0], walker));
    }
    stg_fd_close(ends[0]);
    *ret_done_fd = ends[1];
    return 0;
}

int stg_daemon_start(void) {
    stg_auto_fd int done_fd = -1;
    int ends[2];
    pid_t child;

    (void)fflush(NULL); /* nothing is pending that matters */
    if (stg_catalog_is_possible()) {
        int error = part_from_walker(&done_fd);

        if (error)
            return error;
        stg_fs.starter = getpid();
    }
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    child = fork();
    if (child < 0) {
        int error = -errno;

        stg_fd_close(ends[0]);
        stg_fd_close(ends[1]);
        return error;
    }
    if (child) {
        stg_fd_close(ends[1]);
        _exit(wait_until_mounted(ends[0], child, done_fd));
    }
    stg_fd_close(ends[0]);
    stg_fs.ready_fd = ends[1];
    (void)setsid(); /* fails only for a group leader, which a new child is not */
    return chdir("/") ? -errno : 0;
}

/* What could not be told is not needed. */
static void tell(int fd, const char *told, size_t bytes) {
    ssize_t put = 0;

    for (size_t done = 0; done < bytes && put >= 0; done += put > 0 ? (size_t)put : 0)
        put = write(fd, told + done, bytes - done);
}

void stg_daemon_ready(void) {
    stg_auto_free char *told = NULL;
    size_t bytes = 0;
    char byte;
    int null_fd;

    if (stg_fs.ready_fd < 0)
        return;
    byte = stg_primer_begin(stg_fs.starter, &told, &bytes) ? IS_TO_BE_PRIMED : IS_READY;
    stg_log_to_syslog("stagefs");
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null_fd >= 0 && fd <= 2; fd++)
        (void)dup2(null_fd, fd); /* at worst the terminal stays open */
    if (null_fd > 2)
        stg_fd_close(null_fd);
    if (write(stg_fs.ready_fd, &byte, 1) != 1)
        stg_warning("the process that started the mount is gone");
    else
        tell(stg_fs.ready_fd, told, bytes);
    stg_fd_close(stg_fd_steal(&stg_fs.ready_fd));
}
