/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inodes that the kernel knows: the table from what an object is to its node ID, and the way
 * back from a node ID to a descriptor.
 *
 * Lifetime: the kernel's lookup count and the daemon's own references are counted apart; the
 * inode is freed when both are zero. During a request the kernel holds its inodes, so operations
 * use them without taking references of their own.
 */
#ifndef STG_FS_INODE_H
#define STG_FS_INODE_H

#include "fs/kernel_abi.h"
#include "fs/volume.h"
#include "util/lock.h"

#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "fs/fs.h"

struct file_handle;
struct stg_folder;
struct stg_folder_watch;
struct stg_given;
struct stg_listing;
struct stg_place;
struct stg_staged;

/* How the inode's opens are served; see iomode.h. */
enum stg_iomode { STG_IO_IDLE, STG_IO_PASSTHROUGH, STG_IO_CACHED, STG_IO_COPY };
#define STG_IO_MODES (STG_IO_COPY + 1)

struct stg_inode {
    struct stg_inode *next;    /* hash chain; protected by the shard's lock */
    struct stg_volume *volume; /* constant */
    struct stg_place *place;   /* on volumes without handles, and of what is known from the catalog;
                                  protected by the place lock */
    _Atomic(struct stg_staged *) staged; /* set once, under the io lock; NULL: never staged */
    uint64_t ino;                        /* constant: the source's inode number */
    _Atomic uint64_t size_bytes;         /* when it was last looked at; a guess */
    _Atomic(struct stg_folder_watch *) folder_watch; /* of a folder, see folders.h */
    _Atomic(struct stg_listing *) listing; /* of a folder; the rest under listing.c's lock */
    _Atomic(struct stg_given *) given;     /* of a folder; the rest under given.c's lock */
    _Atomic(struct stg_folder *) kept;     /* of a folder, set once; see catalog.h */
    _Atomic(struct stg_inode *) folder;    /* set once: where it was found first, referenced;
                                              on remote volumes, see predict.h */
    _Atomic int64_t leased_until_ns; /* monotonic: attributes may be kept so long, see lease.h */
    _Atomic uint64_t leased_what;    /* a hash of those; 0: several answers had others */
    _Atomic uint64_t version;        /* of the content that the kernel may have, see coherence.h */
    int64_t version_ctime_ns; /* protected by the lock of versions in coherence.c, as the next */
    int64_t version_at_ns;    /* monotonic: when it was noted */
    uint64_t nlookup;         /* the kernel's lookup count; protected by the shard's lock */
    uint32_t refs;            /* the daemon's references; protected by the shard's lock */
    int32_t pinned_fd;        /* O_PATH of an object that has no name any more, or -1;
                                 protected by the place lock */
    int32_t backing_id;       /* protected by the inode's io lock */
    uint32_t opens;           /* the same */
    uint32_t writers;         /* of them those for writing; the same */
    uint16_t cache_slot;      /* protected by the descriptor cache's lock; 0: none */
    uint8_t io_mode;          /* enum stg_iomode; protected by the io lock */
    bool queued;              /* is on the linger queue; protected by the io lock */
    bool mapped;              /* may be changed through a mapping that outlived its handle;
                                 protected by the io lock */
    bool capability_lost;     /* by removexattr; protected by the io lock */
    bool hashed;              /* still found by lookups; protected by the shard's lock */
    bool dropping;            /* of pages of another version; protected by the lock of versions */
    _Atomic bool
        nameless; /* its last name was removed through the mount: who has a name is not it */
    _Atomic uint32_t looked; /* on volumes without handles: a hash of what it was when found last */
    _Atomic uint32_t content; /* the same of its mtime and size, when it was last looked at; 0: not
                                 yet, or a folder's */
    _Atomic bool listed;      /* a folder was listed with attributes, see coherence.c */
    _Atomic bool paged;       /* the kernel may have pages of it that were read from the daemon */
    _Atomic uint8_t on_disk;  /* copies of it, see tier.c */
    _Atomic uint8_t hints;    /* STG_HINT_*, see predict_impl.h */
    _Atomic uint32_t name_hash;   /* of its name in `folder` */
    _Atomic uint32_t guessed_kib; /* what a predictor counted for it, see predict.c */
    _Atomic uint32_t recorded;    /* what a recording noted of it, see record.c */
    _Atomic bool is_kept_anew;    /* a folder: it is being read to be kept, or was */
    _Atomic uint64_t kept_as; /* of one that is known from the catalog: the number that it has at
                                 the source; 0: nobody has looked yet, see catalog.c */
    uint32_t kept_what;       /* constant: what the catalog says that it is; 0: it was seen at the
                                 source */
    uint32_t birth;           /* constant: a hash of the birth time, on volumes without handles */
    uint8_t handle_bytes;     /* constant */
    int8_t type;              /* constant: the file type of st_mode >> 12 */
    int32_t handle_type;      /* constant */
    unsigned char handle[];   /* constant */
};

/* What statx must be asked for wherever an inode is looked up. */
#define STG_STATX_MASK (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID | STG_STATX_MNT_ID_UNIQUE)

static inline bool stg_inode_is_regular(const struct stg_inode *inode) {
    return inode->type == (S_IFREG >> 12);
}

/* Node ID to inode; valid during the request that named it. */
static inline struct stg_inode *stg_inode_of(fuse_ino_t nodeid) {
    return nodeid == FUSE_ROOT_ID ? stg_fs.root : (struct stg_inode *)(uintptr_t)nodeid;
}

static inline fuse_ino_t stg_inode_id(const struct stg_inode *inode) {
    return inode == stg_fs.root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)inode;
}

/* Prepares the table; 0 or -errno. */
int stg_inode_init(void);

/* Frees every inode, whatever its counts: for the end of the mount. */
void stg_inode_fini(void);

/*
 * Calls `visit` with each inode that is known, which stays known meanwhile. False where memory was
 * short, and some were not visited.
 */
bool stg_inode_each(void (*visit)(struct stg_inode *inode, void *context), void *context);

/* How many inodes are known. */
uint64_t stg_inode_count(void);

/* The object was seen to be that, so that another of the same number can be told from it. */
void stg_inode_saw(struct stg_inode *inode, const struct statx *stx);

/*
 * The inode of the object behind `fd` (O_PATH is enough; borrowed) that `stx` describes, its
 * lookup count raised by one. `parent` and `name` say where it was found: the way back to it on a
 * volume without file handles; NULL for an object that has no name. `seen_moves` as of place.h.
 * Returns 0 or -errno.
 */
int stg_inode_get(int fd, const struct statx *stx, struct stg_inode *parent, const char *name,
                  uint64_t seen_moves, struct stg_inode **ret_inode);

/* An object as it is kept in the catalog. */
struct stg_kept_object {
    struct stg_volume *volume;
    const struct statx *stx; /* borrowed, as the next */
    const void *handle;      /* on volumes with handles */
    uint8_t handle_bytes;
    int32_t handle_type;
    uint32_t what; /* as of `kept_what` */
};

/* The same of an object that nobody has looked at in this mount. 0, -EBADMSG or -ENOMEM. */
int stg_inode_get_kept(const struct stg_kept_object *object, struct stg_inode *parent,
                       const char *name, struct stg_inode **ret_inode);

/* Raises the lookup count of an inode that is known to be there. */
void stg_inode_raise(struct stg_inode *inode);

/* Lowers the kernel's lookup count by `count`; frees the inode with the last. */
void stg_inode_forget(struct stg_inode *inode, uint64_t count);

/* Takes and drops one of the daemon's own references. */
void stg_inode_ref(struct stg_inode *inode);
void stg_inode_unref(struct stg_inode *inode);

/* The inode's own of the io locks: of one rank, never two at once. */
struct stg_lock *stg_inode_io_lock(const struct stg_inode *inode);

/* Remembers that the file capabilities were removed, until asked. Both take the io lock. */
void stg_inode_note_capability_lost(struct stg_inode *inode);
bool stg_inode_take_capability_lost(struct stg_inode *inode);

/* A descriptor lent by stg_inode_fd(). */
struct stg_lent_fd {
    int fd;        /* O_PATH; -1: nothing is lent */
    uint16_t slot; /* of the descriptor cache; 0: to be closed */
    bool borrowed; /* pinned or global: neither */
};

/*
 * Lends an O_PATH descriptor of the inode, from the cache or opened anew. Returns 0, -ESTALE where
 * the object is gone from the source, or -errno. To be given back with stg_inode_fd_put().
 */
int stg_inode_fd(struct stg_inode *inode, struct stg_lent_fd *ret_lent);
void stg_inode_fd_put(struct stg_lent_fd *lent);
#define stg_auto_lent __attribute__((cleanup(stg_inode_fd_put)))
#define STG_LENT_NONE                                                                              \
    { .fd = -1 }

/*
 * Opens the object itself with `flags` (O_CLOEXEC is added; O_CREAT, O_EXCL and O_NOFOLLOW are
 * taken away). Returns a descriptor that the caller owns, or -errno.
 */
int stg_inode_open(struct stg_inode *inode, int flags);

/* The same for an O_PATH descriptor that the caller has. */
int stg_reopen(int fd, int flags);

/* Room for "/proc/self/fd/N". */
#define STG_PROC_FD_BYTES 32

/* Writes the path by which the kernel follows `fd` to its object. */
void stg_proc_fd(char path[STG_PROC_FD_BYTES], int fd);

/* A known inode by the object behind `fd`, referenced; NULL where it is not known. */
struct stg_inode *stg_inode_find(int fd, const struct statx *stx);

/* The same by file handle, on a volume that has such. `handle` is borrowed. */
struct stg_inode *stg_inode_find_handle(const struct stg_volume *volume,
                                        const struct file_handle *handle);

/* Refers to the inode unless it is about to be freed, which whoever calls keeps from happening. */
bool stg_inode_try_ref(struct stg_inode *inode);

/* Has the kernel been given the inode, and not forgotten it? */
bool stg_inode_is_known(struct stg_inode *inode);

#endif
