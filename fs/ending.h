/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The end, by unmounting or by a signal: SIGTERM, SIGINT or SIGHUP.
 *
 * At a signal, what programs have stored through mappings, and the kernel has in its page cache, is
 * written first, while requests are still answered. Then the session ends, and its threads are
 * waited for. One that reads from a source that hangs (a network file system without its server)
 * would be waited for as long as that: so each step of the end has a limit, and after that the
 * mount is taken away, its connection aborted, and the process ends with what it has.
 */
#ifndef STG_FS_ENDING_H
#define STG_FS_ENDING_H

/*
 * Takes the three signals, in place of libfuse's handlers, and starts the thread that waits for
 * them. 0 or -errno.
 */
int stg_ending_start(void);

/* The end has come to a step that may take so long. */
void stg_ending_step(unsigned seconds);

/* All has ended; the thread does, too. */
void stg_ending_stop(void);

#endif
