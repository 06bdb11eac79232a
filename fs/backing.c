/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the two ioctls. libfuse's wrappers need a request, which the sweeper of lingering ids does
 * not have, and log each failure, which here is an answer and no error.
 */
#include "fs/backing.h"

#include "fs/fs.h"
#include "fs/kernel_abi.h"

#include <errno.h>

int32_t stg_backing_open(int fd) {
    struct stg_backing_map map = {.fd = fd};
    int id = ioctl(fuse_session_fd(stg_fs.session), STG_DEV_IOC_BACKING_OPEN, &map);

    if (id < 0)
        return -errno;
    return id ? id : -EIO; /* the kernel's ids start at 1 */
}

void stg_backing_close(int32_t id) {
    uint32_t kernel_id = (uint32_t)id;

    /* Fails only where the connection is gone, and the id with it. */
    (void)ioctl(fuse_session_fd(stg_fs.session), STG_DEV_IOC_BACKING_CLOSE, &kernel_id);
}
