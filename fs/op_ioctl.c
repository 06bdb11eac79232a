/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns ioctl: inode flags and version, which mean the same here, and the mount's own protocol. */
#include "fs/ops.h"

#include "fs/control.h"
#include "fs/creds.h"
#include "fs/notify.h"
#include "fs/reply.h"
#include "util/cleanup.h"

#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

/* Whose the file is decides; of the flags, the kernel has checked that already. */
static int ioctl_as_caller(fuse_req_t req, int fd, unsigned int command, void *value) {
    struct stg_creds creds;
    int result;

    if (stg_creds_assume(req, STG_CREDS_IDS | STG_CREDS_STRICT, &creds)) {
        errno = EPERM;
        return -1;
    }
    result = ioctl(fd, command, value);
    stg_creds_restore(&creds);
    return result;
}

static bool changes(unsigned int command) {
    return command == FS_IOC_SETFLAGS || command == FS_IOC_FSSETXATTR ||
           command == FS_IOC_SETVERSION;
}

void stg_op_ioctl(fuse_req_t req, fuse_ino_t nodeid, unsigned int command, void *argument,
                  struct fuse_file_info *fi, unsigned flags, const void *in_buffer, size_t in_size,
                  size_t out_size) {
    union {
        long number;
        struct fsxattr attributes;
    } value = {0};
    stg_auto_fd int fd = -1;
    int result;

    (void)argument;
    (void)fi;
    (void)flags;
    if (stg_control_is_ours(command)) {
        stg_control_ioctl(req, stg_inode_of(nodeid), command, in_buffer, in_size, out_size);
        return;
    }
    switch (command) {
    case FS_IOC_GETFLAGS:
    case FS_IOC_SETFLAGS:
    case FS_IOC_GETVERSION:
    case FS_IOC_SETVERSION:
    case FS_IOC_FSGETXATTR:
    case FS_IOC_FSSETXATTR:
        break;
    default:
        stg_reply_result(req, -ENOTTY);
        return;
    }
    if (in_size > sizeof(value) || out_size > sizeof(value)) {
        stg_reply_result(req, -EINVAL);
        return;
    }
    if (in_size)
        memcpy(&value, in_buffer, in_size);
    fd = stg_inode_open(stg_inode_of(nodeid), O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        stg_reply_result(req, fd);
        return;
    }
    result = command == FS_IOC_SETVERSION ? ioctl_as_caller(req, fd, command, &value)
                                          : ioctl(fd, command, &value);
    if (result < 0) {
        stg_reply_result(req, -errno);
        return;
    }
    if (changes(command)) /* its ctime; the kernel forgets nothing by itself (Linux 6.18) */
        stg_notify_touched(stg_inode_of(nodeid));
    /* The number says long, and every file system gives an int. */
    (void)fuse_reply_ioctl(req, result, &value,
                           command == FS_IOC_GETVERSION ? sizeof(int) : out_size);
}
