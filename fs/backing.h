/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Backing files registered with the kernel for passthrough (fs/fuse/backing.c, kernel 6.9).
 *
 * The kernel keeps of the registered descriptor only its path, and opens that anew, with the
 * opener's flags, for each open that names the id: an O_PATH descriptor is enough, and it may be
 * closed at once.
 */
#ifndef STG_FS_BACKING_H
#define STG_FS_BACKING_H

#include <stdint.h>

/* Registers the file behind `fd`. Returns an id above 0, or -errno (-EPERM without privilege or
 * negotiation, -ELOOP for a filesystem that is itself stacked). */
int32_t stg_backing_open(int fd);

/* Takes the id back. Opens that use it are not affected. */
void stg_backing_close(int32_t id);

#endif
