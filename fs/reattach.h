/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A remote source that went and is mounted again: who serves it (sshfs) died or was killed, its
 * mount was taken down with all that was open, and another was made in its place. What is looked up
 * from then on is that one's; without this the mount would answer ENOTCONN until it is made anew.
 *
 * What takes the place has to be the same by the mount table: where it is, the kind of file system,
 * what it is of ("host:/folder"), and whose. Its files are other inodes, as their numbers may be
 * given to others: what is open stays what it was, and staged copies are found again on disk
 * (stage_dir=), by path, where their times are the same.
 */
#ifndef STG_FS_REATTACH_H
#define STG_FS_REATTACH_H

/* Begins to follow what is mounted, where the source is remote. 0 or -errno. */
int stg_reattach_start(void);

/*
 * Ends that, before the inodes go, and after what lets go who waits for the kernel
 * (stg_coherence_stop()). Does nothing where it was not begun.
 */
void stg_reattach_stop(void);

#endif
