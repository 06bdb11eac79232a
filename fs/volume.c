/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the list of volumes and the probe that decides whether a volume has usable file handles.
 *
 * The list is only ever appended to, under `lock`; readers walk it without. Filesystems whose
 * handles decode only while the object happens to be in memory (FUSE without export support) count
 * as having none: a handle that goes stale would lose a file that is still there.
 */
#include "fs/volume.h"

#include "fs/inode.h"
#include "fs/kernel_abi.h"
#include "fs/watch.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/handle.h"
#include "util/lock.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

static _Atomic(struct stg_volume *) volumes;
static struct stg_lock lock = STG_LOCK(STG_RANK_VOLUMES);

static struct stg_volume *find_volume(dev_t device, uint64_t mount_id) {
    struct stg_volume *volume = atomic_load_explicit(&volumes, memory_order_acquire);

    while (volume && (volume->device != device || volume->mount_id != mount_id))
        volume = volume->next;
    return volume;
}

static dev_t device_of(const struct statx *stx) {
    return makedev(stx->stx_dev_major, stx->stx_dev_minor);
}

struct stg_volume *stg_volume_first(void) {
    return atomic_load_explicit(&volumes, memory_order_acquire);
}

bool stg_volume_is_same(const struct stg_volume *one, const struct stg_volume *other) {
    return one == other || (atomic_load(&one->own) && atomic_load(&other->own));
}

bool stg_volume_is_shared(const struct stg_volume *volume) {
    for (const struct stg_volume *other = stg_volume_first(); other; other = other->next)
        if (other != volume && other->device == volume->device)
            return true;
    return false;
}

static bool is_exhausted(int error) {
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* What our mount asks for of access times and writing, in flags of a mount. False: nothing. */
static bool wanted_flags(uint64_t *ret_set, uint64_t *ret_clear) {
    const struct stg_options *options = &stg_fs.options;
    bool never = options->read_only || strstr(options->mount_flags, ",noatime");

    *ret_set = options->read_only ? STG_MOUNT_ATTR_RDONLY : 0;
    *ret_clear = 0;
    if (options->nodiratime)
        *ret_set |= STG_MOUNT_ATTR_NODIRATIME;
    if (never || options->relatime || options->strictatime) {
        *ret_set |= never               ? STG_MOUNT_ATTR_NOATIME
                    : options->relatime ? STG_MOUNT_ATTR_RELATIME
                                        : STG_MOUNT_ATTR_STRICTATIME;
        *ret_clear = STG_MOUNT_ATTR_ATIME_MASK;
    }
    return *ret_set || *ret_clear;
}

/* Is the source's own mount what is wanted already? Of relatime, which is what most mounts have. */
static bool has_flags(int fd, uint64_t set) {
    struct statvfs info;

    return set == STG_MOUNT_ATTR_RELATIME && !fstatvfs(fd, &info) && (info.f_flag & ST_RELATIME);
}

/*
 * Where our mount asks for other flags than the source's own has, a private clone of that with
 * them, so that what is opened through it obeys them whatever the source's own mount allows.
 * Lookups stay on the source's own mount: only there are its submounts. -1 where none is needed or
 * to be had.
 */
static int open_data_mount(int fd) {
    uint64_t set;
    uint64_t clear;
    int clone;
    int anchor;

    if (!wanted_flags(&set, &clear) || has_flags(fd, set))
        return -1;
    clone = stg_clone_mount(fd, set, clear);
    if (clone < 0) {
        stg_debug("no private clone of the source's mount: %m");
        return -1;
    }
    anchor = stg_reopen(clone, O_RDONLY | O_NONBLOCK); /* a real descriptor, see open_anchor() */
    stg_fd_close(clone);
    return anchor < 0 ? -1 : anchor;
}

/* 1: handles work, 0: they do not, or -errno where that could not be found out. */
static int probe_handles(int mount_fd, int fd, const struct statx *stx) {
    struct stg_file_handle handle = {.head.handle_bytes = STG_HANDLE_MAX_BYTES};
    stg_auto_fd int reopened = -1;
    struct statx again;
    struct statfs fsinfo;
    int mount_id;

    if (mount_fd < 0) /* not to be read, or no descriptor left */
        return is_exhausted(-mount_fd) ? mount_fd : 0;
    if (!stg_fs.privileged || fstatfs(fd, &fsinfo) || fsinfo.f_type == STG_FUSE_SUPER_MAGIC)
        return 0;
    if (name_to_handle_at(fd, "", &handle.head, &mount_id, AT_EMPTY_PATH))
        return is_exhausted(errno) ? -errno : 0;
    reopened = stg_handle_open(mount_fd, &handle.head, O_PATH | O_CLOEXEC);
    if (reopened < 0)
        return is_exhausted(-reopened) ? reopened : 0;
    return !statx(reopened, "", AT_EMPTY_PATH, STATX_INO, &again) && again.stx_ino == stx->stx_ino;
}

bool stg_volume_is_remote(int fd) {
    struct statfs fsinfo;

    if (fstatfs(fd, &fsinfo))
        return true;
    switch ((unsigned long)fsinfo.f_type) {
    case STG_FUSE_SUPER_MAGIC:
    case 0x6969:     /* NFS */
    case 0xff534d42: /* CIFS */
    case 0xfe534d42: /* SMB2 */
    case 0x01021997: /* 9p */
    case 0x00c36400: /* Ceph */
    case 0x5346414f: /* AFS */
        return true;
    default:
        return false;
    }
}

static void inherit_flags(struct stg_volume *volume, int fd) {
    struct statvfs info;

    if (fstatvfs(fd, &info))
        return;
    volume->mask_suid = stg_fs.mount_suid && (info.f_flag & ST_NOSUID);
    volume->mask_dev = stg_fs.mount_dev && (info.f_flag & ST_NODEV);
}

/*
 * A descriptor for open_by_handle_at(2), which wants a real one: EBADF for O_PATH (fs/fhandle.c).
 * Of what is neither folder nor file (a device or FIFO mounted over another) none is opened.
 */
static int open_anchor(int fd, const struct statx *stx) {
    if (!S_ISDIR(stx->stx_mode) && !S_ISREG(stx->stx_mode))
        return fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return stg_reopen(fd, O_RDONLY | O_NONBLOCK);
}

static int make_volume(int fd, const struct statx *stx, dev_t device,
                       struct stg_volume **ret_volume) {
    struct stg_volume *first = atomic_load(&volumes);
    struct stg_volume *volume = calloc(1, sizeof(*volume));
    stg_auto_fd int mount_fd = -1;
    int handles;

    if (!volume)
        return -ENOMEM;
    mount_fd = open_anchor(fd, stx);
    handles = probe_handles(mount_fd, fd, stx);
    if (handles < 0) {
        free(volume);
        return handles;
    }
    volume->device = device;
    volume->mount_id = stx->stx_mnt_id;
    volume->handles = handles;
    volume->remote = stg_volume_is_remote(fd);
    volume->watched = stg_watch_add(handles && !volume->remote ? fd : -1);
    inherit_flags(volume, fd);
    /* The list's tail is the source's own volume: numbers of its device stay as they are. */
    for (const struct stg_volume *last = first; last; last = last->next)
        if (!last->next && last->device != device)
            volume->ino_salt = stg_hash_u64(device) << 40;
    volume->data_fd = -1;
    if (handles) {
        volume->mount_fd = stg_fd_steal(&mount_fd);
        volume->data_fd = open_data_mount(fd);
    } else {
        volume->mount_fd = -1; /* nothing is opened through it: do not pin the mount */
        stg_debug("device %u:%u has no usable file handles", major(device), minor(device));
    }
    volume->next = first;
    atomic_store_explicit(&volumes, volume, memory_order_release);
    *ret_volume = volume;
    return 0;
}

int stg_volume_get(int fd, const struct statx *stx, struct stg_volume **ret_volume) {
    dev_t device = device_of(stx);
    struct stg_volume *volume = find_volume(device, stx->stx_mnt_id);
    int error = 0;

    if (!volume) {
        stg_lock_take(&lock);
        volume = find_volume(device, stx->stx_mnt_id);
        if (!volume)
            error = make_volume(fd, stx, device, &volume);
        stg_lock_drop(&lock);
    }
    if (!error)
        *ret_volume = volume;
    return error;
}

void stg_volume_fini(void) {
    struct stg_volume *volume = atomic_exchange(&volumes, NULL);

    while (volume) {
        struct stg_volume *next = volume->next;

        stg_fd_close(volume->mount_fd);
        stg_fd_close(volume->data_fd);
        free(volume);
        volume = next;
    }
}
