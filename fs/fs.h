/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The mount's shared state: what every operation needs, set up once before the first request and
 * read-only afterwards, except where a field names its lock.
 */
#ifndef STG_FS_FS_H
#define STG_FS_FS_H

#define FUSE_USE_VERSION 318
#include <fuse_lowlevel.h>

#include "fs/options.h"

#include <stdbool.h>
#include <sys/types.h>

struct stg_inode;
struct stg_volume;

struct stg_fs {
    struct stg_options options;
    struct fuse_session *session;
    struct stg_inode *root;
    int source_fd;          /* O_PATH, the directory that is mounted */
    bool privileged;        /* root with the capabilities that file handles and credentials need */
    bool may_pass_through;  /* privileged, and in the initial user namespace */
    bool passthrough;       /* negotiated with the kernel; set in init, before other requests */
    bool no_open;           /* files are opened without telling (serve=pagecache); the same */
    bool no_opendir;        /* folders are; the same */
    bool interrupts;        /* the kernel tells of signals to who waits, see waits.h; the same */
    _Atomic bool has_epoch; /* the kernel can drop all names at once; the same */
    const char *serve_why;  /* constant text: the reason for the way to serve */
    bool mount_suid;        /* set-id bits count on this mount */
    bool mount_dev;         /* devices count on this mount */
    uid_t daemon_uid;       /* the credentials to go back to after acting as a caller */
    gid_t daemon_gid;
    bool refused; /* the kernel has not what was insisted on; set in init */
    int ready_fd; /* told once the kernel has answered; -1 in the foreground */
};

/* The one mount of this process. libfuse hands out its own pointer too; both are the same. */
extern struct stg_fs stg_fs;

#endif
