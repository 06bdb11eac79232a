/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One mounted filesystem at or below the source: how its objects are found again without keeping
 * a descriptor for each.
 *
 * A volume is a (st_dev, mount ID) pair, with an ID that is never given again where the kernel has
 * those: the same device bound a second time, say read-only, is a volume of its own, because access
 * through it obeys other flags. Volumes are made at the first
 * lookup that meets them and live until unmount; there are as many as the source has mounts.
 */
#ifndef STG_FS_VOLUME_H
#define STG_FS_VOLUME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct statx;

struct stg_volume {
    struct stg_volume *next; /* protected by the list's lock; never changes once published */
    dev_t device;
    uint64_t mount_id;
    uint64_t ino_salt; /* keeps inode numbers of other devices apart, see stg_volume_ino() */
    int mount_fd;      /* any object of this mount, for open_by_handle_at(2) */
    int data_fd;       /* the same for file data and directories: a clone of the mount whose
                          flags (ro, noatime) are ours; or -1: as mount_fd */
    _Atomic uint64_t fetch_ns; /* what fetching a small file takes, on average; 0: not known */
    _Atomic bool own;          /* the source's, not of something that is mounted below it */
    _Atomic bool replaced;     /* it was the source's, until that was mounted again */
    _Atomic bool keeps_pages;  /* STG_IO_DONT_CACHE is refused */
    bool handles;              /* objects can be reopened by file handle */
    bool watched;              /* every change made to it is heard of, see watch.h */
    bool remote;               /* errors of writes may come as late as close(2) */
    bool mask_suid;            /* nosuid in the source, but not on our mount: hide set-id bits */
    bool mask_dev;             /* the same for nodev */
};

/*
 * The volume of the object that `fd` (O_PATH is enough) refers to and `stx` describes. `stx` must
 * have been asked for STG_STATX_MASK. Returns 0, or -errno (-EMFILE, -ENOMEM): a volume that could
 * not be examined for want of descriptors is not remembered as one without handles.
 */
int stg_volume_get(int fd, const struct statx *stx, struct stg_volume **ret_volume);

/* The first of all volumes; each leads to the next. For readers without a lock. */
struct stg_volume *stg_volume_first(void);

/* Are both the same, or the source's own before and after it was mounted again? */
bool stg_volume_is_same(const struct stg_volume *one, const struct stg_volume *other);

/* Is the device mounted more than once at or below the source? */
bool stg_volume_is_shared(const struct stg_volume *volume);

/*
 * The inode number shown for `ino` of this volume. On the device of the source itself it is the
 * number as it is. FUSE shows one st_dev for the whole mount, so numbers of other devices are
 * salted: else two files of two devices could look like hard links of one file to tar or cp.
 */
static inline uint64_t stg_volume_ino(const struct stg_volume *volume, uint64_t ino) {
    return ino ^ volume->ino_salt;
}

/* Is what `fd` refers to on a file system that answers over a network, or from user space? */
bool stg_volume_is_remote(int fd);

/* Frees all volumes; no inode may be left. */
void stg_volume_fini(void);

#endif
