/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Folders whose names are watched one by one, by inotify(7): for a daemon that may not watch whole
 * file systems. watch.h reads the queue.
 *
 * A folder is watched before the first name is looked up in it, so no change can fall between. It
 * tells of names only for good: a file may be changed through another of its names, in a folder
 * that is not watched, and a new link is told to the file alone. So attributes and content stay
 * good for a time (`ttl=`), and are dropped at once where the folder tells of them.
 *
 * The events do not say who made them. A name that the daemon itself makes or removes for a caller
 * is expected, and passed over: the kernel that asked for it must not be told to drop it, as there
 * may be a folder of that name by then that somebody works in.
 */
#ifndef STG_FS_FOLDERS_H
#define STG_FS_FOLDERS_H

#include "fs/inode.h"

#include <stdatomic.h>

/* Opens the queue; 0 or -errno. */
int stg_folders_open(void);
void stg_folders_close(void);

/* For poll(2); -1: not open. */
int stg_folders_fd(void);

/*
 * Names are about to be looked up in the folder, which `fd` (O_PATH is enough; borrowed) has open:
 * from now on it is watched, unless there is no room for that, which is counted.
 */
void stg_folders_watch(struct stg_inode *folder, int fd);

/* Is it? */
static inline bool stg_folders_is_watched(const struct stg_inode *folder) {
    return atomic_load(&folder->folder_watch) != NULL;
}

/* The inode goes. */
void stg_folders_drop(struct stg_inode *folder);

enum stg_folders_kind { STG_FOLDERS_MADE = 1, STG_FOLDERS_REMOVED };

/* The daemon makes or removes that name, for a caller; or, the second, has not done so after all.
 */
void stg_folders_expect(struct stg_inode *folder, const char *name, enum stg_folders_kind kind);
void stg_folders_unexpect(struct stg_inode *folder, const char *name, enum stg_folders_kind kind);

/* What is done with events. `folder` is referenced for the call. */
struct stg_folders_handler {
    void (*name)(struct stg_inode *folder, const char *name);  /* came or went */
    void (*child)(struct stg_inode *folder, const char *name); /* has other content or attributes */
    void (*lost)(void);                                        /* events were lost */
};

/* Handles what one read(2) brings. Returns its bytes, 0 where there was nothing. */
size_t stg_folders_read(const struct stg_folders_handler *handler);

/* How many bytes wait to be read. */
size_t stg_folders_queued(void);

/* How many folders could not be watched. */
uint64_t stg_folders_unwatched(void);

#endif
