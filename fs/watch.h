/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changes in the source behind the mount, by its events: fanotify(7) on whole file systems.
 *
 * One mark hears of everything that happens to a file system, by whatever path: also through a
 * hard link outside the source, and to folders that were never looked at. So nothing is to be added
 * when a folder is read, there is no moment between reading and watching, and no limit to reach;
 * what concerns nobody here costs a look into the table of inodes. It needs CAP_SYS_ADMIN, and file
 * handles, by which the events name their objects.
 *
 * Without that privilege single folders are watched instead (folders.h).
 *
 * Stores through a mapping give no event of their own: they are heard of when the mapping goes.
 */
#ifndef STG_FS_WATCH_H
#define STG_FS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Can the file system of the folder `fd` (O_PATH is enough) be watched? Opens the queue. Returns 0,
 * or -errno with nothing open: -EPERM without the privilege, -ENODEV or -EOPNOTSUPP for a file
 * system that gives no such events.
 */
int stg_watch_open(int fd);

/*
 * Watches the file system of `fd` from now on; -1 for one that is met and cannot be watched. True
 * where it is watched.
 */
bool stg_watch_add(int fd);

/* Starts the thread that reads the queue; 0 or -errno. Nothing where it is not open. */
int stg_watch_start(void);

/* Tells it to end; waits for that; and closes the queue. */
void stg_watch_stop(void);
void stg_watch_join(void);
void stg_watch_fini(void);

/*
 * Waits until what was in the queue has been told to the kernel. False where the thread ends
 * meanwhile. Not from the thread itself, or from one that has to answer requests.
 */
bool stg_watch_drain(void);

/* Is everything that was met of the source watched, content and all? */
bool stg_watch_is_whole(void);

/* Counted since the start. */
struct stg_watch_stats {
    uint64_t events;
    uint64_t overflows;
    uint64_t unwatched; /* volumes that could not be */
};
struct stg_watch_stats stg_watch_stats(void);

#endif
