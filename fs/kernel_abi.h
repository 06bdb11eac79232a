/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel interfaces that are newer than the headers of the oldest system that stagefs builds on.
 * Numbers are from the kernel's uapi headers, which never change them.
 */
#ifndef STG_FS_KERNEL_ABI_H
#define STG_FS_KERNEL_ABI_H

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/fuse.h, since 6.9: register a backing file with the connection. */
struct stg_backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define STG_DEV_IOC_BACKING_OPEN _IOW(229, 1, struct stg_backing_map)
#define STG_DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

/*
 * include/uapi/linux/stat.h, Linux 6.8: an ID that is given to no other mount, ever, instead of
 * that of STATX_MNT_ID, which is given again. Where both are asked for, the kernel gives what it
 * has.
 */
#define STG_STATX_MNT_ID_UNIQUE 0x00004000U

#define STG_FUSE_SUPER_MAGIC 0x65735546UL

/* linux/mount.h, since 5.2 and 5.12. */
#define STG_MOUNT_ATTR_RDONLY 0x00000001ULL
#define STG_MOUNT_ATTR_NOATIME 0x00000010ULL
#define STG_MOUNT_ATTR_RELATIME 0x00000000ULL
#define STG_MOUNT_ATTR_STRICTATIME 0x00000020ULL
#define STG_MOUNT_ATTR_ATIME_MASK 0x00000070ULL
#define STG_MOUNT_ATTR_NODIRATIME 0x00000080ULL
#define STG_OPEN_TREE_CLONE 1U

struct stg_mount_attr {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

/*
 * A detached clone of the mount that holds `fd`, rooted there, with the flags `set` added after
 * `clear` were taken away. Returns a descriptor that the caller owns, or -1 with errno.
 */
static inline int stg_clone_mount(int fd, uint64_t set, uint64_t clear) {
    struct stg_mount_attr change = {.attr_set = set, .attr_clr = clear};
    long tree = syscall(SYS_open_tree, fd, "", STG_OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);

    if (tree < 0)
        return -1;
    if (syscall(SYS_mount_setattr, (int)tree, "", AT_EMPTY_PATH, &change, sizeof(change))) {
        (void)close((int)tree); /* nothing was written through it */
        return -1;
    }
    return (int)tree;
}

/* linux/fs.h, since 6.9: the UUID of the file system that a file is on. */
#define STG_UUID_BYTES 16
struct stg_fs_uuid {
    uint8_t length;
    uint8_t bytes[STG_UUID_BYTES];
};
#define STG_IOC_GET_FS_UUID _IOR(0x15, 0, struct stg_fs_uuid)

#define STG_HANDLE_MAX_BYTES 128 /* MAX_HANDLE_SZ */

/* struct file_handle with room for the largest handle. */
struct stg_file_handle {
    struct file_handle head;
    unsigned char bytes[STG_HANDLE_MAX_BYTES];
};

#endif
