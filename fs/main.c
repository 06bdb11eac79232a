/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stagefs: mounts a source tree and serves it through kernel passthrough.
 *
 * The sources, from the outside in:
 *   options    the command line, one table
 *   preflight  what is refused before anything is changed
 *   daemon     into the background once the mount answers
 *   session    the connection with the kernel: mount, negotiation, loop; ending: by a signal
 *   op_*       the operations, one file a family
 *   reply      what is answered about an inode
 *   creds      acting as the caller
 *   serve      through passthrough, or from the page cache without opens
 *              sample: what sort of files there are; held: what its mode would not let be opened
 *   iomode     how an inode's opens are served; backing and linger: the ids for that
 *   staging    which inode has which copy; keep: held for mappings; live: shared with writers;
 *              ranges: in pieces; waits: who is killed, or waits for too long
 *   tier       copies on disk, for the next mount; catalog: folders of a tree that does not change;
 *              primer: those are told to the kernel before the mount is ready
 *   predict    what is staged before it is asked for; predict_include, predict_sibling and
 *              predict_graph: how that is guessed
 *   coherence  how long the kernel may keep what; watch: the source's events; folders: the same by
 *              folder; mounts: the mount table; notify: what the kernel is told to forget; sync:
 *              waiting for all of that; listing: what slow folders do not have; lease: what
 *              the kernel keeps of a remote source while the daemon looks at it
 *   control    requests by ioctl and attribute; job: many files at once, and sets
 *   inode      node IDs; inode_fd, fdcache, place: from an inode to a descriptor
 *   volume     the source's mounts and their file handles
 *   kernel_abi kernel interfaces newer than the headers
 */
#include "fs/fs.h"

#include "config.h"
#include "fs/daemon.h"
#include "fs/preflight.h"
#include "fs/session.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <stdio.h>
#include <string.h>

struct stg_fs stg_fs = {.source_fd = -1, .ready_fd = -1};

/* The calls that only print. Returns an exit status, or -1 where there is a mount to make. */
static int print_only(const struct stg_options *options) {
    if (options->show_help) {
        stg_options_help(stdout);
    } else if (options->show_version) {
        printf("stagefs %s, libfuse %s\n", STG_VERSION, fuse_pkgversion());
    } else if (options->show_manual) {
        int error = stg_options_manual(options->source ? options->source : "", stdout);

        if (error)
            stg_error("cannot make the manual page: %s", strerror(-error));
        return error ? 1 : 0;
    } else {
        return -1;
    }
    return fflush(stdout) ? 1 : 0;
}

int main(int argc, char **argv) {
    int error = stg_daemon_clean_start();
    int status;

    if (error)
        stg_error("cannot open /dev/null: %s", strerror(-error));
    else
        error = stg_options_parse(argc, argv, &stg_fs.options);
    status = error ? 1 : print_only(&stg_fs.options);
    if (status < 0) {
        if (stg_fs.options.debug)
            stg_log_set_level(STG_LOG_DEBUG);
        error = stg_preflight();
        if (!error && !stg_fs.options.foreground)
            error = stg_daemon_start();
        if (!error)
            error = stg_session_run();
        status = error ? 1 : 0;
    }
    stg_fd_close(stg_fs.source_fd);
    stg_options_fini(&stg_fs.options);
    return status;
}
