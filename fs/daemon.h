/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Going to the background: the process that the user started waits until the mount answers, so a
 * script's next line can use it, and its exit status is the mount's success.
 */
#ifndef STG_FS_DAEMON_H
#define STG_FS_DAEMON_H

/*
 * Undoes what a careless parent may have left: closed standard streams, blocked signals, SIGCHLD
 * and SIGTERM ignored. An ignored SIGINT or SIGHUP stays: job control and nohup mean it. To be
 * called first. Returns 0 or -errno.
 */
int stg_daemon_clean_start(void);

/*
 * Forks. The child returns 0 and goes on to mount; the parent never returns: it exits with 0 once
 * the mount answers, or with 1 when the child gave up, which has said why. -errno where no child
 * could be made.
 */
int stg_daemon_start(void);

/* In the child, once the kernel has sent its first request: lets the terminal go. */
void stg_daemon_ready(void);

#endif
