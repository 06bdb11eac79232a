/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the hand-over between the started process and the daemon. */
#include "fs/daemon.h"

#include "fs/fs.h"
#include "fs/primer.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/wait.h>

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

static int wait_until_mounted(int fd, pid_t child) {
    stg_auto_free char *told = NULL;
    size_t told_bytes = 0;
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
    if (byte == IS_TO_BE_PRIMED)
        told = read_told(fd, &told_bytes);
    /* The kernel holds this back until its first exchange with the daemon is complete. */
    if (statfs(stg_fs.options.mountpoint, &info)) {
        stg_error("the mount does not answer: %m");
        return 1;
    }
    if (byte == IS_TO_BE_PRIMED)
        stg_primer_walk(stg_fs.options.mountpoint, told, told_bytes);
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

int stg_daemon_start(void) {
    int ends[2];
    pid_t child;

    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    (void)fflush(NULL); /* nothing is pending that matters */
    stg_fs.starter = getpid();
    child = fork();
    if (child < 0) {
        int error = -errno;

        stg_fd_close(ends[0]);
        stg_fd_close(ends[1]);
        return error;
    }
    if (child) {
        stg_fd_close(ends[1]);
        _exit(wait_until_mounted(ends[0], child));
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
