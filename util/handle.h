/* SPDX-License-Identifier: GPL-2.0-only */
/* Opens what a file handle stands for. */
#ifndef STG_UTIL_HANDLE_H
#define STG_UTIL_HANDLE_H

/* Needs _GNU_SOURCE, which meson.build sets. */
#include <fcntl.h>

/*
 * open_by_handle_at(2): returns a descriptor that the caller owns, or -errno. -ESTALE: it is gone.
 *
 * Where the handle's inode number is being given to a new file at that moment, the kernel has no
 * answer yet, and ext4 says ENOMEM (iget_locked() in fs/inode.c, I_CREATING): that is asked again,
 * for up to a second, until the kernel knows. -ENOMEM after that is meant.
 */
int stg_handle_open(int mount_fd, struct file_handle *handle, int flags);

#endif
