/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns lookup and forget: names to inodes. */
#include "fs/ops.h"

#include "fs/absent.h"
#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/fdcache.h"
#include "fs/folders.h"
#include "fs/lease.h"
#include "fs/linger.h"
#include "fs/listing.h"
#include "fs/place.h"
#include "fs/predict.h"
#include "fs/primer.h"
#include "fs/record.h"
#include "fs/reply.h"
#include "fs/staging.h"
#include "fs/waits.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#include <limits.h>

static int look(int fd, struct statx *ret_stx) {
    return statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, ret_stx) ? -errno : 0;
}

/*
 * Without handles a number that the source gave to another file makes no other inode. Where it is
 * not what it was when it was found last, what is kept open of it may be of the file before.
 */
static void doubt_descriptors(struct stg_inode *inode, const struct statx *stx) {
    uint32_t now = (uint32_t)stg_hash_u64((uint64_t)stx->stx_ctime.tv_sec ^
                                          (uint64_t)stx->stx_ctime.tv_nsec << 32 ^ stx->stx_size);

    if (atomic_exchange(&inode->looked, now) == now)
        return;
    stg_fdcache_drop(inode);
    stg_linger_drop(inode);
}

/* From the catalog, where that tells; -EAGAIN: the source is to be asked. */
static int find_kept(struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
                     struct statx *ret_stx) {
    int error = stg_catalog_lookup(parent, name, ret_inode, ret_stx);

    if (!error) {
        stg_predict_met(*ret_inode, parent, name);
        stg_staging_saw(*ret_inode, ret_stx);
    }
    return error;
}

static int find(int fd, struct stg_inode *parent, const char *name, uint64_t seen_moves,
                struct stg_inode **ret_inode, struct statx *ret_stx) {
    int error = look(fd, ret_stx);

    if (!error)
        error = stg_inode_get(fd, ret_stx, parent, name, seen_moves, ret_inode);
    if (error)
        return error;
    if (stg_coherence_is_watched(*ret_inode)) {
        /* An event before it was in the table, or its volume was met, has found nobody. */
        error = look(fd, ret_stx);
        if (error) {
            stg_inode_forget(*ret_inode, 1);
            return error;
        }
    }
    if (!(*ret_inode)->volume->handles)
        doubt_descriptors(*ret_inode, ret_stx);
    if (name)
        stg_predict_met(*ret_inode, parent, name);
    stg_inode_saw(*ret_inode, ret_stx);
    stg_staging_saw(*ret_inode, ret_stx);
    return 0;
}

int stg_lookup_fd(int fd, struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
                  struct statx *ret_stx) {
    int error = find(fd, parent, name, STG_PLACE_CERTAIN, ret_inode, ret_stx);

    if (!error)
        stg_coherence_saw(*ret_inode, ret_stx);
    return error;
}

/*
 * Nobody tells of an open, which would hold the file: so it is held for a while from when its name
 * was looked up, in the cache of descriptors, and can be read when the name is gone by then.
 */
static void keep_for_reading(struct stg_inode *inode, int fd) {
    uint16_t slot;

    fd = stg_fdcache_add(inode, fd, &slot);
    if (slot)
        stg_fdcache_put(slot);
    else
        stg_fd_close(fd);
}

/* Opens what has that name in the folder: a descriptor that the caller owns, or -errno. */
static int open_name(struct stg_inode *parent, const char *name) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    int error = stg_inode_fd(parent, &lent);
    int fd;

    if (error)
        return error;
    stg_folders_watch(parent, lent.fd);
    fd = openat(lent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int stg_lookup_unanswered(struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
                          struct statx *ret_stx) {
    uint64_t seen_moves = stg_place_moves();
    int error = find_kept(parent, name, ret_inode, ret_stx);
    stg_auto_fd int fd = error == -EAGAIN ? open_name(parent, name) : -1;

    if (error != -EAGAIN)
        return error;
    return fd < 0 ? fd : find(fd, parent, name, seen_moves, ret_inode, ret_stx);
}

int stg_lookup(struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
               struct statx *ret_stx) {
    int error = find_kept(parent, name, ret_inode, ret_stx);
    stg_auto_fd int fd = error == -EAGAIN ? open_name(parent, name) : -1;

    if (!error)
        stg_coherence_saw(*ret_inode, ret_stx);
    if (error != -EAGAIN)
        return error;
    stg_catalog_asked(parent);
    if (fd < 0)
        return fd;
    error = stg_lookup_fd(fd, parent, name, ret_inode, ret_stx);
    if (!error && stg_fs.no_open && stg_inode_is_regular(*ret_inode))
        keep_for_reading(*ret_inode, stg_fd_steal(&fd));
    return error;
}

int stg_lookup_for(fuse_req_t req, struct stg_inode *parent, const char *name,
                   struct stg_inode **ret_inode, struct statx *ret_stx) {
    int error;

    if (stg_primer_asks(req) != STG_PRIMER_KEPT)
        return stg_lookup(parent, name, ret_inode, ret_stx);
    error = find_kept(parent, name, ret_inode, ret_stx);
    if (!error)
        stg_coherence_saw(*ret_inode, ret_stx);
    return error;
}

static void reply_absent(fuse_req_t req, double keep_s) {
    struct fuse_entry_param absent = {.entry_timeout = keep_s};

    (void)fuse_reply_entry(req, &absent); /* nothing to undo */
}

/* For who primes the kernel: what is kept, and nobody is asked. */
static void answer_primer(fuse_req_t req, struct stg_inode *folder, const char *name,
                          double absent_s) {
    struct stg_inode *inode;
    struct statx stx;
    int error = stg_lookup_for(req, folder, name, &inode, &stx);

    if (!error)
        stg_reply_entry(req, folder, name, inode, &stx);
    else if (error == -ENOENT && absent_s > 0)
        reply_absent(req, absent_s);
    else
        stg_reply_result(req, error);
}

/* The answer, unless others have given it. */
static void answer(fuse_req_t req, struct stg_wait *wait, struct stg_inode *folder,
                   const char *name, int error, double absent_s, struct stg_inode *inode,
                   const struct statx *stx) {
    bool ours = stg_wait_end(wait);

    if (!ours && !error)
        stg_inode_forget(inode, 1);
    else if (ours && !error)
        stg_reply_entry(req, folder, name, inode, stx);
    else if (ours && error == -ENOENT && absent_s > 0)
        reply_absent(req, stg_lease_absent_s(folder, name, absent_s));
    else if (ours)
        stg_reply_result(req, error);
}

/* For predictions and recordings, of those who build; not of who primes the kernel. */
static void note_asked(struct stg_inode *folder, const char *name, int error) {
    if (error == -ENOENT)
        stg_absent_asked(folder, name);
    if (folder->volume->remote)
        stg_predict_probed(folder, name);
    stg_record_asked(folder, name, !error);
}

void stg_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
    stg_auto_look looking = stg_coherence_enter();
    enum stg_primer_way primer = stg_primer_asks(req);
    struct stg_inode *folder = stg_inode_of(parent);
    double absent_s = stg_coherence_negative_timeout_s(folder);
    struct stg_wait wait = {0};
    struct stg_inode *inode = NULL;
    struct statx stx;
    bool lacks;
    bool slow;
    int error;

    if (primer == STG_PRIMER_KEPT) {
        answer_primer(req, folder, name, absent_s);
        return;
    }
    lacks = stg_listing_lacks(folder, name, &absent_s);
    slow = !lacks && folder->volume->remote;
    if (slow) {
        stg_inode_ref(folder); /* the kernel may forget it once it is answered */
        stg_wait_begin(&wait, req);
    }
    error = lacks ? -ENOENT : stg_lookup(folder, name, &inode, &stx);
    if (primer == STG_PRIMER_NONE)
        note_asked(folder, name, error);
    else if (error == -ENOENT)
        stg_absent_asked(folder, name); /* it is asked for next time, too */
    answer(req, &wait, folder, name, error, absent_s, inode, &stx);
    if (slow) {
        /* Who primes has listed the folder, and asks for all that it has. */
        if (primer == STG_PRIMER_NONE || error == -ENOENT)
            stg_listing_asked(folder);
        stg_inode_unref(folder);
    }
}

static void forget(fuse_ino_t nodeid, uint64_t nlookup) {
    if (nodeid != FUSE_ROOT_ID)
        stg_inode_forget(stg_inode_of(nodeid), nlookup);
}

void stg_op_forget(fuse_req_t req, fuse_ino_t nodeid, uint64_t nlookup) {
    forget(nodeid, nlookup);
    fuse_reply_none(req);
}

void stg_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets) {
    for (size_t i = 0; i < count; i++)
        forget(forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

void stg_op_readlink(fuse_req_t req, fuse_ino_t nodeid) {
    struct stg_inode *inode = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_fd int own_fd = -1;
    char target[PATH_MAX + 1];
    ssize_t length;
    int error = 0;

    if (stg_catalog_target(inode, target)) {
        (void)fuse_reply_readlink(req, target); /* nothing to undo, here and below */
        return;
    }
    if (inode->volume->data_fd >= 0) /* whose mount moves no access time */
        error = (own_fd = stg_inode_open(inode, O_PATH | O_NOFOLLOW)) < 0 ? own_fd : 0;
    else
        error = stg_inode_fd(inode, &lent);
    length = error ? error : readlinkat(own_fd >= 0 ? own_fd : lent.fd, "", target, PATH_MAX);

    if (length < 0) {
        stg_reply_result(req, error ? error : -errno);
        return;
    }
    target[length] = '\0';
    (void)fuse_reply_readlink(req, target);
}
