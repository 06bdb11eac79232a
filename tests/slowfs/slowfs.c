/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A slow source for tests and benchmarks: shows a directory, each operation delayed as if it went
 * over a network.
 *
 *   slowfs DIRECTORY MOUNTPOINT [-f] [-o OPTION,...]
 *
 *   -f              stay in the foreground; else return when the mount answers
 *   latency_us=N    each operation takes so much longer; any number of them at once
 *   serial          one after another instead
 *   bandwidth=N     bytes per second of all reads and writes together
 *   error_after=N   after N operations all fail with EIO
 *   timeout=S       for how long the kernel may keep names and attributes (1)
 *   keep            the kernel keeps a file's content over an open; else an open drops it, as with
 *                   a network client
 *   noplus          directories are listed without attributes
 *   fold            either case of a name is taken; the directory's own are in lower case
 *   coarse          times are whole seconds, and there is no ctime but the mtime, as with sftp
 *   threads=N       operations at once (256)
 *   stats=FILE      JSON with the number of each operation, written at SIGUSR1, after SIGHUP, and
 *                   at the end
 *   control=FILE    words that are read at the start and again at SIGHUP; what is not there any
 * more is over, but numbers stay: latency_us=N, bandwidth=N, error_after=N (counted from then on),
 * and fail=OPERATION:ERRNO[:TIMES]   as in fail=READ:EIO gate=OPERATION                 it waits
 * while this is there; "gate": READ short=BYTES                    no read answers more than that
 *
 * The operations: lookup getattr readlink open read write readdir create mkdir unlink rename
 * setattr other. There are no extended attributes and no locks but the kernel's own, as with most
 * network clients.
 *
 * delay.c waits, node.c knows the files, ops.c has the operations; here is the start.
 */
#include "delay.h"
#include "node.h"
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    struct slow_settings settings;
    struct slow_view view;
    int foreground;
    unsigned threads;
    char *paths[2];
    int n_paths;
} options = {.view = {.timeout_s = 1, .ready_fd = -1}, .threads = 256};

/* ---- the session ---- */

static int loop(struct fuse_session *session) {
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    int status;

    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_max_threads(config, options.threads);
    status = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return status;
}

static int mount_and_serve(struct fuse_session *session) {
    int error = fuse_session_mount(session, options.paths[1]) ? -EIO : 0;

    if (error)
        return error; /* libfuse has said why */
    error = slow_delay_start(&options.settings, session);
    if (!error)
        error = loop(session);
    fuse_session_unmount(session);
    slow_delay_report();
    return error < 0 ? error : 0; /* above 0: the signal that ended it */
}

static int serve(void) {
    char *argv[] = {(char *)"slowfs", (char *)"-o",
                    (char *)"allow_other,default_permissions,suid,dev,subtype=slowfs,fsname=slowfs",
                    NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct fuse_session *session =
        fuse_session_new(&args, &slow_operations, sizeof(slow_operations), NULL);
    int error;

    fuse_opt_free_args(&args);
    if (!session)
        return 1;
    error = fuse_set_signal_handlers(session) ? -EINVAL : mount_and_serve(session);
    if (error)
        fprintf(stderr, "slowfs: %s\n", strerror(-error));
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return error ? 1 : 0;
}

/* ---- the start ---- */

#define OPTION(text, field)                                                                        \
    { text, offsetof(__typeof__(options), field), 1 }
static const struct fuse_opt table[] = {
    OPTION("-f", foreground),
    OPTION("latency_us=%ld", settings.latency_us),
    OPTION("bandwidth=%ld", settings.bandwidth),
    OPTION("error_after=%ld", settings.error_after),
    OPTION("serial", settings.serial),
    OPTION("control=%s", settings.control),
    OPTION("stats=%s", settings.stats),
    OPTION("timeout=%lf", view.timeout_s),
    OPTION("keep", view.keep),
    OPTION("noplus", view.noplus),
    OPTION("fold", view.fold),
    OPTION("coarse", view.coarse),
    OPTION("threads=%u", threads),
    FUSE_OPT_END,
};

static int take_argument(void *data, const char *text, int key, struct fuse_args *args) {
    (void)data;
    (void)args;
    if (key == FUSE_OPT_KEY_NONOPT && options.n_paths < 2) {
        options.paths[options.n_paths++] = realpath(text, NULL);
        if (options.paths[options.n_paths - 1])
            return 0;
        fprintf(stderr, "slowfs: %s: %s\n", text, strerror(errno));
        return -1;
    }
    fprintf(stderr, "slowfs: \"%s\" is not understood\n", text);
    return -1;
}

/* Forks; the parent waits until the mount answers. In the child the status is -1: go on. */
static int go_to_background(void) {
    int ends[2];
    char byte;
    pid_t child;

    if (pipe2(ends, O_CLOEXEC))
        return 1;
    child = fork();
    if (child < 0)
        return 1;
    if (child) {
        (void)close(ends[1]);
        return read(ends[0], &byte, 1) == 1 ? 0 : 1;
    }
    (void)close(ends[0]);
    options.view.ready_fd = ends[1];
    (void)setsid();
    return chdir("/") ? 1 : -1;
}

/* Those that delay.c waits for; before any thread is there, so that all have them blocked. */
static void block_signals(void) {
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL); /* cannot fail with these */
}

/* File names are used after chdir. */
static void make_absolute(char **name) {
    char folder[4096];
    char *whole;

    if (!*name || **name == '/' || !getcwd(folder, sizeof(folder)))
        return;
    if (asprintf(&whole, "%s/%s", folder, *name) > 0)
        *name = whole;
}

int main(int argc, char **argv) {
    struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
    int status;

    status = fuse_opt_parse(&args, &options, table, take_argument);
    fuse_opt_free_args(&args);
    if (status || options.n_paths < 2)
        return fprintf(stderr, "usage: slowfs DIRECTORY MOUNTPOINT [-f] [-o OPTION,...]\n"), 2;
    make_absolute(&options.settings.control);
    make_absolute(&options.settings.stats);
    status = slow_node_init(options.paths[0]);
    if (status)
        return fprintf(stderr, "slowfs: %s: %s\n", options.paths[0], strerror(-status)), 1;
    umask(0);
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* a delay is as long as it was asked for */
    block_signals();
    status = options.foreground ? -1 : go_to_background();
    slow_view = options.view;
    return status < 0 ? serve() : status;
}
