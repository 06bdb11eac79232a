/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the hand-over between the started process and the daemon. */
#include "fs/daemon.h"

#include "fs/fs.h"
#include "fs/primer.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>

/* A walk takes less, unless it has to wait for something. */
#define WALK_PATIENCE_MS ((int)((STG_PRIMER_LOOK_NS + STG_PRIMER_WALK_NS) / 1000000))
/* Who is killed while he waits for the source is given his answer within a tenth of that (waits.h).
 */
#define KILL_PATIENCE_MS 1000
/* Who listens reads what is in the pipe sooner. */
#define TELL_PATIENCE_MS 200

/* What the daemon says once the kernel has answered. */
enum { IS_READY, IS_TO_BE_PRIMED, IS_TO_BE_LOOKED_AT };
/* What became of waiting for it. */
enum { IS_MOUNTED, HAS_FAILED, DAEMON_IS_GONE };

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

/*
 * A walk that has to wait holds nothing of what the user has, nor of the daemon's: all is closed
 * but `fd`, which is closed at the end.
 */
static void keep_open(int fd) {
    (void)dup2(fd, 0); /* where something of this fails, more is held */
    (void)close_range(1, UINT_MAX, 0);
    (void)!chdir("/");
}

/* Who walks, shared by all three processes; NULL: nobody will. */
static struct stg_primer_walker *walker;

/*
 * Waits for the daemon, which says on `fd` that it is ready, and for the mount. `done_fd`: whom to
 * tell before the walk, or -1: none walks. One of the values above.
 */
static int wait_until_mounted(int fd, int done_fd) {
    stg_auto_free char *told = NULL;
    size_t told_bytes = 0;
    int64_t since_ns;
    struct statfs info;
    char byte;
    ssize_t got;

    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    if (got != 1)
        return DAEMON_IS_GONE;
    since_ns = stg_clock_monotonic_ns();
    if (byte != IS_READY)
        told = read_told(fd, &told_bytes);
    stg_fd_close(fd); /* the daemon is not to wait for who does not listen any more */
    /* The kernel holds this back until its first exchange with the daemon is complete. */
    if (statfs(stg_fs.options.mountpoint, &info)) {
        stg_error("the mount does not answer: %m");
        return HAS_FAILED;
    }
    if (done_fd < 0 || write(done_fd, "", 1) != 1)
        return IS_MOUNTED;
    keep_open(done_fd);
    if (byte != IS_READY)
        stg_primer_walk(stg_fs.options.mountpoint, walker, byte == IS_TO_BE_LOOKED_AT, told,
                        told_bytes, since_ns);
    return IS_MOUNTED;
}

/* What the command's exit status is, after saying what is to be said. */
static int status_of(int result, pid_t daemon) {
    int status = 0;

    if (result == DAEMON_IS_GONE) {
        (void)waitpid(daemon, &status, 0); /* ours, so it can be waited for */
        if (WIFSIGNALED(status))
            stg_error("the daemon was killed by signal %d before it mounted", WTERMSIG(status));
    }
    return result == IS_MOUNTED ? 0 : 1;
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

/* Ends it, and what it has open in the mount, so that this can be unmounted: but for a while only.
 */
static void end_walker(pid_t pid) {
    static const struct timespec pause = {.tv_nsec = 5000000};

    (void)kill(pid, SIGKILL); /* ours, and not waited for; who is in the kernel stays */
    for (int waited_ms = 0; waited_ms < KILL_PATIENCE_MS; waited_ms += 5) {
        if (waitpid(pid, NULL, WNOHANG))
            return;
        (void)nanosleep(&pause, NULL); /* an early end does not matter */
    }
}

/* Waits until the process that walks says that all but that is done, and for the rest not long. */
static int wait_for_walker(int fd, pid_t pid) {
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    int status = 0;
    char byte;
    ssize_t got;

    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    if (got == 1) {
        (void)poll(&ended, 1, WALK_PATIENCE_MS);
        end_walker(pid);
        return IS_MOUNTED;
    }
    (void)waitpid(pid, &status, 0);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    stg_error("the process that waits for the mount was killed by signal %d", WTERMSIG(status));
    return HAS_FAILED;
}

/*
 * Waits in a process of its own, which walks through the mount then: one that asks a mount cannot
 * be ended before it has its answer, and nobody is to wait for that. Made after the daemon, which
 * is the first process where there is a new space of their numbers, and must not end before others.
 */
static int wait_and_walk(int fd) {
    int ends[2];
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC))
        return wait_until_mounted(fd, -1);
    pid = fork();
    if (!pid) {
        stg_fd_close(ends[0]);
        atomic_store(&walker->process, getpid()); /* as it sees that itself */
        _exit(wait_until_mounted(fd, ends[1]));
    }
    stg_fd_close(ends[1]);
    if (pid < 0)
        return wait_until_mounted(fd, -1);
    stg_fd_close(fd);
    return wait_for_walker(ends[0], pid);
}

static struct stg_primer_walker *make_walker(void) {
    void *shared = stg_primer_is_possible() ? mmap(NULL, sizeof(*walker), PROT_READ | PROT_WRITE,
                                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0)
                                            : MAP_FAILED;

    return shared == MAP_FAILED ? NULL : shared; /* filled with 0 */
}

int stg_daemon_start(void) {
    int ends[2];
    pid_t child;

    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    walker = make_walker();
    (void)fflush(NULL); /* nothing is pending that matters */
    child = fork();
    if (child < 0) {
        int error = -errno;

        stg_fd_close(ends[0]);
        stg_fd_close(ends[1]);
        return error;
    }
    if (child) {
        int result;

        stg_fd_close(ends[1]);
        result = walker ? wait_and_walk(ends[0]) : wait_until_mounted(ends[0], -1);
        _exit(status_of(result, child));
    }
    stg_fd_close(ends[0]);
    stg_fs.ready_fd = ends[1];
    (void)setsid(); /* fails only for a group leader, which a new child is not */
    return chdir("/") ? -errno : 0;
}

/*
 * What could not be told is not needed, and nobody who asks the mount is to wait for one who does
 * not listen.
 */
static void tell(int fd, const char *told, size_t bytes) {
    struct pollfd listening = {.fd = fd, .events = POLLOUT};
    ssize_t put = 0;

    if (fcntl(fd, F_SETFL, O_NONBLOCK))
        return;
    for (size_t done = 0; done < bytes && put >= 0; done += put > 0 ? (size_t)put : 0) {
        put = write(fd, told + done, bytes - done);
        if (put < 0 && errno == EAGAIN && poll(&listening, 1, TELL_PATIENCE_MS) == 1)
            put = 0;
    }
}

void stg_daemon_ready(void) {
    stg_auto_free char *told = NULL;
    size_t bytes = 0;
    enum stg_primer_way way;
    char byte;
    int null_fd;

    if (stg_fs.ready_fd < 0)
        return;
    way = stg_primer_begin(walker, &told, &bytes);
    byte = way == STG_PRIMER_NONE   ? IS_READY
           : way == STG_PRIMER_KEPT ? IS_TO_BE_PRIMED
                                    : IS_TO_BE_LOOKED_AT;
    stg_log_to_syslog("stagefs");
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null_fd >= 0 && fd <= 2; fd++)
        (void)dup2(null_fd, fd); /* at worst the terminal stays open */
    if (null_fd > 2)
        stg_fd_close(null_fd);
    if (write(stg_fs.ready_fd, &byte, 1) != 1)
        stg_warning("the process that started the mount is gone");
    else if (byte != IS_READY)
        tell(stg_fs.ready_fd, told, bytes);
    stg_fd_close(stg_fd_steal(&stg_fs.ready_fd));
}
