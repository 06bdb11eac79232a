/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the mount is asked by ioctl(2) and by extended attributes: the server's side of
 * client/protocol.h.
 */
#ifndef STG_FS_CONTROL_H
#define STG_FS_CONTROL_H

#include "fs/inode.h"

#include <limits.h>

/* Is the command one of the protocol? */
bool stg_control_is_ours(unsigned int command);

/* Answers a request of the protocol. */
void stg_control_ioctl(fuse_req_t req, struct stg_inode *inode, unsigned int command,
                       const void *in_buffer, size_t in_size, size_t out_size);

/* Is the attribute one that the mount makes up? */
bool stg_control_is_attribute(const char *name);

/*
 * The value of such an attribute in `value`, without a NUL. Returns its length, or -ENODATA where
 * the inode has none of that name, or none for the caller of the request.
 */
#define STG_CONTROL_VALUE_BYTES PATH_MAX
ssize_t stg_control_get(fuse_req_t req, struct stg_inode *inode, const char *name,
                        char value[STG_CONTROL_VALUE_BYTES]);

/*
 * Setting user.stagefs.mode stages the file in that mode, without waiting. Returns 0, -EINVAL for
 * another value, -EPERM for another attribute, or -errno.
 */
int stg_control_set(fuse_req_t req, struct stg_inode *inode, const char *name, const char *value,
                    size_t bytes);

/* Removing user.stagefs.mode unstages the file. Returns 0, -EPERM for another attribute. */
int stg_control_remove(struct stg_inode *inode, const char *name);

#endif
