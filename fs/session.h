/* SPDX-License-Identifier: GPL-2.0-only */
/* The connection with the kernel: from mount to unmount. */
#ifndef STG_FS_SESSION_H
#define STG_FS_SESSION_H

/*
 * Mounts what stg_preflight() has accepted and serves until the mount ends, by umount or a signal.
 * Returns 0, or -errno after saying why.
 */
int stg_session_run(void);

#endif
