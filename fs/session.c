/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the FUSE session: mount options, what is negotiated with the kernel, the loop, the end.
 */
#include "fs/session.h"

#include "fs/absent.h"
#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/creds.h"
#include "fs/daemon.h"
#include "fs/ending.h"
#include "fs/fdcache.h"
#include "fs/job.h"
#include "fs/lease.h"
#include "fs/linger.h"
#include "fs/listing.h"
#include "fs/live.h"
#include "fs/ops.h"
#include "fs/place.h"
#include "fs/predict.h"
#include "fs/predict_profile.h"
#include "fs/readahead.h"
#include "fs/reattach.h"
#include "fs/record.h"
#include "fs/serve.h"
#include "fs/staging.h"
#include "fs/sync.h"
#include "fs/tier.h"
#include "fs/waits.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define FD_CACHE_MAX 4096
#define EPOCH_MINOR 44 /* FUSE_NOTIFY_INC_EPOCH, Linux 6.16 */

/* The source's own volume and inode; the kernel never looks it up. */
static int make_root(void) {
    struct statx stx;
    int error;

    if (statx(stg_fs.source_fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx))
        return -errno;
    error = stg_inode_get(stg_fs.source_fd, &stx, NULL, NULL, STG_PLACE_CERTAIN, &stg_fs.root);
    if (!error)
        atomic_store(&stg_fs.root->volume->own, true);
    return error;
}

/* The cache takes a quarter of the limit on descriptors. */
static int start_fdcache(void) {
    struct rlimit limit;
    unsigned capacity = FD_CACHE_MAX;

    if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur / 4 < capacity)
        capacity = (unsigned)(limit.rlim_cur / 4);
    return stg_fdcache_init(capacity ? capacity : 1);
}

static void want(struct fuse_conn_info *conn, uint64_t flag) {
    (void)fuse_set_feature_flag(conn, flag); /* does nothing where the kernel has it not */
}

static void say_how_it_is_served(const struct fuse_conn_info *conn) {
    const char *way = stg_fs.no_open       ? "from the kernel's page cache"
                      : stg_fs.passthrough ? "through kernel passthrough"
                                           : "by the daemon";

    stg_info("serving %s: %s; coherence=%s", way, stg_fs.serve_why,
             stg_coherence_name(stg_fs.options.coherence));
    stg_debug("protocol %u.%u%s%s", conn->proto_major, conn->proto_minor,
              stg_fs.no_opendir ? ", folders are opened without telling" : "",
              stg_fs.has_epoch ? ", names can be dropped at once" : "");
}

/* The kernel's part in how files are served; 0, or -errno where what was insisted on is not there.
 */
static int choose_way(struct fuse_conn_info *conn) {
    bool can_pass = conn->capable_ext & FUSE_CAP_PASSTHROUGH;
    bool can_skip = conn->capable_ext & FUSE_CAP_NO_OPEN_SUPPORT;

    if (stg_fs.options.serve == STG_SERVE_PASSTHROUGH && !can_pass) {
        stg_error("serve=passthrough: the kernel does not offer it (Linux 6.9 does); write "
                  "serve=auto");
        return -EOPNOTSUPP;
    }
    if (stg_fs.options.serve == STG_SERVE_PAGECACHE && !can_skip) {
        stg_error("serve=pagecache: the kernel does not offer it; write serve=auto");
        return -EOPNOTSUPP;
    }
    stg_fs.no_open = stg_serve_without_opens(can_pass, can_skip, &stg_fs.serve_why);
    stg_fs.passthrough = !stg_fs.no_open && stg_fs.may_pass_through &&
                         fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
    return 0;
}

/*
 * The kernel keeps the listings of folders that it opens without telling, and compares the folder's
 * mtime before it uses one. That is enough where two changes never have one mtime, or each is heard
 * of: since Linux 6.13 a time that was asked for is not given again (multigrain timestamps), and
 * the kernels that have an epoch are later than that. Not of a remote source, which need not have
 * such times, nor go on in the middle of a folder that is opened anew (sshfs 3.7 ends itself then);
 * and not with a catalog, see op_dir.c.
 */
static bool may_skip_opendir(const struct fuse_conn_info *conn) {
    return stg_coherence_is_kept(stg_fs.root) && stg_fs.has_epoch &&
           (conn->capable_ext & FUSE_CAP_NO_OPENDIR_SUPPORT) && !stg_fs.root->volume->remote &&
           !stg_catalog_is_there();
}

static void op_init(void *userdata, struct fuse_conn_info *conn) {
    (void)userdata;
    if (choose_way(conn)) {
        stg_fs.refused = true;
        fuse_session_exit(stg_fs.session);
        return;
    }
    if (stg_fs.passthrough)
        conn->max_backing_stack_depth = 1; /* our mount can be the lower layer of an overlayfs */
    if (stg_fs.no_open) /* the truncation is a request of its own where no open is */
        fuse_unset_feature_flag(conn, FUSE_CAP_ATOMIC_O_TRUNC);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
    stg_fs.has_epoch = conn->proto_minor >= EPOCH_MINOR;
#endif
    stg_fs.no_opendir = may_skip_opendir(conn);
    want(conn, FUSE_CAP_PARALLEL_DIROPS);
    want(conn, FUSE_CAP_DONT_MASK);
    want(conn, FUSE_CAP_CACHE_SYMLINKS);
    want(conn, FUSE_CAP_NO_EXPORT_SUPPORT);
    /* Without V2 each passed-through write asks for security.capability first. */
    want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
    /* Always: a file system below the source may have ACLs where the source's own has none. */
    want(conn, FUSE_CAP_POSIX_ACL);
    /* A file's data goes past the daemon; for the rest pipes cost more than they save. */
    fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_READ);
    fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_WRITE);
    fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_MOVE);
    stg_readahead_init(conn);
    /*
     * See waits.h. From a local source nobody waits for long; what is mounted below one is not told
     * of, as each signal would be, of every request.
     */
    stg_fs.interrupts = stg_fs.root->volume->remote && stg_staging_may_park();
    conn->no_interrupt = !stg_fs.interrupts;
    conn->time_gran = 1;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    say_how_it_is_served(conn);
    stg_profiles_start(); /* now that it is known how copies will be served */
    stg_daemon_ready();
    stg_profiles_follow_kept();
}

const struct fuse_lowlevel_ops stg_ops = {
    .init = op_init,
    .lookup = stg_op_lookup,
    .forget = stg_op_forget,
    .forget_multi = stg_op_forget_multi,
    .getattr = stg_op_getattr,
    .setattr = stg_op_setattr,
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
    .statx = stg_op_statx,
#endif
    .readlink = stg_op_readlink,
    .mknod = stg_op_mknod,
    .mkdir = stg_op_mkdir,
    .symlink = stg_op_symlink,
    .unlink = stg_op_unlink,
    .rmdir = stg_op_rmdir,
    .rename = stg_op_rename,
    .link = stg_op_link,
    .open = stg_op_open,
    .create = stg_op_create,
    .tmpfile = stg_op_tmpfile,
    .release = stg_op_release,
    .read = stg_op_read,
    .write = stg_op_write,
    .flush = stg_op_flush,
    .fsync = stg_op_fsync,
    .fallocate = stg_op_fallocate,
    .lseek = stg_op_lseek,
    .copy_file_range = stg_op_copy_file_range,
    .opendir = stg_op_opendir,
    .readdir = stg_op_readdir,
    .readdirplus = stg_op_readdirplus,
    .releasedir = stg_op_releasedir,
    .fsyncdir = stg_op_fsyncdir,
    .statfs = stg_op_statfs,
    .getxattr = stg_op_getxattr,
    .listxattr = stg_op_listxattr,
    .setxattr = stg_op_setxattr,
    .removexattr = stg_op_removexattr,
    .ioctl = stg_op_ioctl,
};

/* Appends `text` with the characters escaped that separate options. */
static void append_escaped(char *list, size_t size, const char *text) {
    size_t used = strlen(list);

    for (; *text && used + 3 < size; text++) {
        if (*text == ',' || *text == '\\')
            list[used++] = '\\';
        list[used++] = *text;
    }
    list[used] = '\0';
}

static int make_session(void) {
    const struct stg_options *options = &stg_fs.options;
    char list[8192] = "subtype=stagefs,default_permissions,fsname=";
    char *argv[] = {(char *)"stagefs", (char *)"-o", list, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    size_t used;

    append_escaped(list, sizeof(list) - 512, options->fsname ? options->fsname : options->source);
    used = strlen(list);
    (void)snprintf(list + used, sizeof(list) - used, "%s%s%s%s%s%s", /* the room was kept above */
                   options->mount_flags, options->read_only ? ",ro" : "",
                   options->allow_other ? ",allow_other" : "", options->suid ? ",suid" : "",
                   options->dev ? ",dev" : "", options->uring == STG_URING_ON ? ",io_uring" : "");
    stg_fs.session = fuse_session_new(&args, &stg_ops, sizeof(stg_ops), &stg_fs);
    fuse_opt_free_args(&args);
    return stg_fs.session ? 0 : -EINVAL; /* libfuse has said why */
}

static int loop(void) {
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    int result;

    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_max_threads(config, stg_fs.options.threads);
    result = fuse_session_loop_mt(stg_fs.session, config);
    fuse_loop_cfg_destroy(config);
    if (stg_fs.refused)
        return -EOPNOTSUPP;
    return result < 0 ? result : 0; /* above 0: the signal that ended it */
}

static int mount_and_loop(void) {
    int error;

    if (fuse_set_signal_handlers(stg_fs.session))
        return -EINVAL;
    /* A lease that tells whether a file is mapped for writing may be broken by an open. */
    (void)signal(SIGIO, SIG_IGN);
    if (fuse_session_mount(stg_fs.session, stg_fs.options.mountpoint)) {
        fuse_remove_signal_handlers(stg_fs.session);
        stg_error("cannot mount on %s; see the message above", stg_fs.options.mountpoint);
        return -EIO;
    }
    error = stg_ending_start();
    if (!error)
        error = stg_linger_start();
    if (!error)
        error = stg_staging_start();
    if (!error)
        error = stg_readahead_start();
    if (!error)
        error = stg_coherence_start();
    if (!error)
        error = stg_lease_start();
    if (!error)
        error = stg_waits_start();
    if (!error)
        error = stg_reattach_start();
    if (!error)
        error = stg_sync_start();
    if (!error)
        error = loop();
    stg_tier_ending();
    if (error)
        stg_error("the mount on %s ends: %s", stg_fs.options.mountpoint, strerror(-error));
    stg_ending_step(10);
    stg_coherence_stop(); /* first: nobody answers what it may be waiting for any more */
    stg_lease_stop();
    stg_waits_stop();
    stg_reattach_stop();
    stg_sync_stop();
    stg_catalog_stop();
    stg_absent_stop();
    stg_listing_stop(); /* before those that wait for a folder to be read */
    stg_job_stop();
    stg_predict_stop();
    stg_record_fini();
    stg_ending_step(60); /* what was stored through mappings of copies is carried to the source */
    stg_live_stop();
    stg_ending_step(10);
    stg_staging_stop();
    stg_job_fini();
    stg_linger_stop(); /* before the connection that the ids belong to */
    fuse_session_unmount(stg_fs.session);
    stg_readahead_stop();
    stg_coherence_fini();
    stg_ending_stop();
    fuse_remove_signal_handlers(stg_fs.session);
    return error;
}

int stg_session_run(void) {
    int error;

    stg_creds_init();
    (void)umask(0);
    stg_tier_start();
    error = stg_inode_init();
    if (!error)
        error = start_fdcache();
    if (!error)
        error = make_root();
    if (error)
        stg_error("cannot start: %s", strerror(-error));
    if (!error) {
        stg_catalog_start();
        stg_absent_start();
    }
    if (!error)
        error = make_session();
    if (!error) {
        error = mount_and_loop();
        fuse_session_destroy(stg_fs.session);
    }
    stg_catalog_fini();
    stg_tier_stop();
    stg_op_dir_fini();
    stg_inode_fini();
    stg_fdcache_fini();
    stg_volume_fini();
    return error;
}
