/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The mount table of this process, for what no event of a file system tells: something is mounted,
 * or unmounted, below the source.
 */
#ifndef STG_FS_MOUNTS_H
#define STG_FS_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Begins to follow what is mounted below the source. 0 or -errno. */
int stg_mounts_open(void);
void stg_mounts_close(void);

/* For poll(2): POLLPRI where something was mounted or unmounted anywhere. -1: not open. */
int stg_mounts_fd(void);

/* Is something else mounted below the source than at the last call? By one thread at a time. */
bool stg_mounts_changed(void);

/* Is anything mounted below the source? True where that cannot be found out. Any thread. */
bool stg_mounts_has_below(void);

/*
 * Describes what `fd` and `path` name, the same whenever it is mounted: the kind of file system,
 * which it is, and the path in it. 0, or -errno after saying why it cannot be said.
 */
int stg_mounts_describe(int fd, const char *path, char *text, size_t room);

/*
 * Remembers what the source is mounted as, whose mount has that ID. 0 or -errno: not to be found.
 * This and the next are for one thread.
 */
int stg_mounts_note_source(uint64_t mount_id);

/*
 * The ID of the mount that has taken the source's place: that is not in the table any more, and
 * another is where it was, of the same kind, of the same thing, and the same user's. 0: none.
 */
uint64_t stg_mounts_successor(void);

/* That one is the source's now. */
void stg_mounts_succeed(uint64_t mount_id);
void stg_mounts_forget_source(void);

/* The minor number of the device that is mounted on `path`; -1 where none is. */
int stg_mounts_minor(const char *path);

#endif
