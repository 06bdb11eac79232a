/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The end by a signal, also while the source does not answer.
 *
 * At SIGTERM, SIGINT and SIGHUP the session ends, and its threads are waited for. One that reads
 * from a source that hangs (a network file system without its server) would be waited for as long:
 * so after a grace the mount is taken away, its connection aborted, and the process ends with what
 * it has.
 */
#ifndef STG_FS_ENDING_H
#define STG_FS_ENDING_H

/* Takes the three signals, in place of libfuse's handlers, and starts the thread that waits for the
 * end. 0 or -errno. */
int stg_ending_start(void);

/* All has ended; the thread does, too. */
void stg_ending_stop(void);

#endif
