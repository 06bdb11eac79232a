/* SPDX-License-Identifier: GPL-2.0-only */
/* What slowfs answers the kernel. */
#ifndef SLOWFS_OPS_H
#define SLOWFS_OPS_H

#define FUSE_USE_VERSION 318
#include <fuse_lowlevel.h>

/* How it shows itself; set before the session begins and not changed after that. */
struct slow_view {
    double timeout_s; /* of names and attributes in the kernel */
    int keep;         /* content stays cached over an open */
    int noplus;       /* listings without attributes */
    int fold;         /* either case of a name is taken; names in the directory are in lower case */
    int coarse;       /* times are whole seconds, and the mtime is the ctime, too: as with sftp */
    int ready_fd;     /* gets one byte when the mount answers, and is closed; or -1 */
};
extern struct slow_view slow_view;

extern const struct fuse_lowlevel_ops slow_operations;

#endif
