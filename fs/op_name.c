/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns what changes names of existing objects: link, unlink, rmdir, rename.
 *
 * An object that the kernel knows may lose the name by which it could be found again, and yet be in
 * use: open, mapped, somebody's working directory. Then a descriptor of it is kept until the kernel
 * forgets it. The kernel has checked permissions and sticky bits.
 */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/creds.h"
#include "fs/folders.h"
#include "fs/lease.h"
#include "fs/linger.h"
#include "fs/listing.h"
#include "fs/notify.h"
#include "fs/place.h"
#include "fs/predict.h"
#include "fs/reply.h"
#include "fs/staging.h"
#include "fs/tier.h"
#include "util/cleanup.h"

#include <stdio.h>

/* A known object under a name that is about to change. */
struct known {
    struct stg_inode *inode; /* referenced, or NULL: not known, nothing to care for */
    int fd;                  /* O_PATH, or -1 */
    bool last_name;
    bool is_folder; /* or that could not be found out */
};

static void find_known(int parent_fd, const char *name, struct known *ret_known) {
    struct statx stx;

    *ret_known = (struct known){.fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    ret_known->is_folder = ret_known->fd >= 0 || errno != ENOENT;
    if (ret_known->fd < 0 || statx(ret_known->fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &stx))
        return;
    ret_known->inode = stg_inode_find(ret_known->fd, &stx);
    ret_known->is_folder = S_ISDIR(stx.stx_mode);
    ret_known->last_name = stx.stx_nlink <= 1 || S_ISDIR(stx.stx_mode);
}

static void release_known(struct known *known) {
    stg_fd_close(known->fd);
    if (known->inode)
        stg_inode_unref(known->inode);
    *known = (struct known){.fd = -1};
}

/* The name is gone. */
static void known_lost_name(struct known *known) {
    if (!known->inode)
        return;
    stg_linger_drop(known->inode);
    if (known->last_name) {
        stg_staging_withdraw(known->inode); /* nobody opens it any more: its copy may go */
        stg_predict_removed(known->inode);
        atomic_store(&known->inode->nameless, true);
    }
    if (known->last_name || !known->inode->volume->handles)
        stg_inode_pin_take(known->inode, stg_fd_steal(&known->fd));
}

/* The object has a new name. */
static void known_moved(struct known *known, struct stg_inode *parent, const char *name) {
    if (!known->inode || known->inode->volume->handles)
        return;
    if (stg_place_set(known->inode, parent, name, STG_PLACE_CERTAIN))
        stg_inode_pin_take(known->inode, stg_fd_steal(&known->fd)); /* no memory: keep it so */
}

static void remove_and_reply(fuse_req_t req, fuse_ino_t nodeid, const char *name, int flags) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct known known;
    int error = stg_inode_fd(stg_inode_of(nodeid), &lent);

    stg_catalog_changing();
    if (!error) {
        find_known(lent.fd, name, &known);
        stg_folders_expect(stg_inode_of(nodeid), name, STG_FOLDERS_REMOVED);
        if (unlinkat(lent.fd, name, flags)) {
            error = -errno;
            stg_folders_unexpect(stg_inode_of(nodeid), name, STG_FOLDERS_REMOVED);
        } else {
            known_lost_name(&known);
            stg_notify_touched(stg_inode_of(nodeid));
        }
        release_known(&known);
    }
    stg_reply_result(req, error);
}

void stg_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) {
    remove_and_reply(req, parent, name, 0);
}

void stg_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) {
    remove_and_reply(req, parent, name, AT_REMOVEDIR);
}

void stg_op_link(fuse_req_t req, fuse_ino_t nodeid, fuse_ino_t new_parent, const char *new_name) {
    stg_auto_look look = stg_coherence_enter();
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_lent struct stg_lent_fd parent_lent = STG_LENT_NONE;
    char path[STG_PROC_FD_BYTES];
    struct stg_inode *inode;
    struct statx stx;
    int error = stg_inode_fd(stg_inode_of(nodeid), &lent);

    stg_catalog_changing();
    if (!error)
        error = stg_inode_fd(stg_inode_of(new_parent), &parent_lent);
    if (!error) {
        stg_proc_fd(path, lent.fd);
        stg_folders_expect(stg_inode_of(new_parent), new_name, STG_FOLDERS_MADE);
        stg_tier_renamed(stg_inode_of(new_parent), new_name, false);
        if (linkat(AT_FDCWD, path, parent_lent.fd, new_name, AT_SYMLINK_FOLLOW)) {
            error = -errno;
            stg_folders_unexpect(stg_inode_of(new_parent), new_name, STG_FOLDERS_MADE);
        }
    }
    if (!error) {
        stg_coherence_made_name(stg_inode_of(new_parent));
        stg_tier_renamed(stg_inode_of(new_parent), new_name, false);
        error = stg_lookup(stg_inode_of(new_parent), new_name, &inode, &stx);
    }
    if (error)
        stg_reply_result(req, error);
    else
        stg_reply_linked(req, stg_inode_of(new_parent), inode, &stx);
}

static int rename_as(fuse_req_t req, int old_fd, const char *old_name, int new_fd,
                     const char *new_name, unsigned flags) {
    struct stg_creds creds = {0};
    int error = 0;

    if (flags & RENAME_WHITEOUT) /* the whiteout that it leaves behind is the caller's */
        error = stg_creds_assume(req, STG_CREDS_IDS, &creds);
    if (!error && renameat2(old_fd, old_name, new_fd, new_name, flags))
        error = -errno;
    stg_creds_restore(&creds);
    return error;
}

/* The events of a rename, one of each kind for each name that goes and comes. */
static void expect_rename(struct stg_inode *from, const char *name, struct stg_inode *to,
                          const char *new_name, unsigned flags,
                          void (*expect)(struct stg_inode *folder, const char *name,
                                         enum stg_folders_kind kind)) {
    expect(from, name, STG_FOLDERS_REMOVED);
    expect(to, new_name, STG_FOLDERS_MADE);
    if (flags & RENAME_EXCHANGE) {
        expect(to, new_name, STG_FOLDERS_REMOVED);
        expect(from, name, STG_FOLDERS_MADE);
    }
}

/* What copies on disk are called that a rename gives to others. */
static void forget_names(struct stg_inode *from, const char *name, struct stg_inode *to,
                         const char *new_name, unsigned flags, bool is_folder) {
    stg_tier_renamed(to, new_name, is_folder);
    if (flags & RENAME_EXCHANGE)
        stg_tier_renamed(from, name, is_folder);
}

void stg_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                   const char *new_name, unsigned int flags) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_lent struct stg_lent_fd new_lent = STG_LENT_NONE;
    struct known moved;
    struct known target;
    int error = stg_inode_fd(stg_inode_of(parent), &lent);

    stg_catalog_changing();
    if (!error)
        error = stg_inode_fd(stg_inode_of(new_parent), &new_lent);
    if (error) {
        stg_reply_result(req, error);
        return;
    }
    find_known(lent.fd, name, &moved);
    find_known(new_lent.fd, new_name, &target);
    expect_rename(stg_inode_of(parent), name, stg_inode_of(new_parent), new_name, flags,
                  stg_folders_expect);
    forget_names(stg_inode_of(parent), name, stg_inode_of(new_parent), new_name, flags,
                 moved.is_folder || target.is_folder);
    error = rename_as(req, lent.fd, name, new_lent.fd, new_name, flags);
    if (!error)
        forget_names(stg_inode_of(parent), name, stg_inode_of(new_parent), new_name, flags,
                     moved.is_folder || target.is_folder);
    if (error || (moved.inode && moved.inode == target.inode)) {
        expect_rename(stg_inode_of(parent), name, stg_inode_of(new_parent), new_name, flags,
                      stg_folders_unexpect);
    }
    /* A remote source may say of one that was done that it failed. */
    stg_listing_outdate(stg_inode_of(new_parent));
    if (flags & RENAME_EXCHANGE)
        stg_listing_outdate(stg_inode_of(parent));
    /* A rename of one of two names of a file to the other does nothing, and both names stay. */
    if (!error && !(moved.inode && moved.inode == target.inode)) {
        stg_lease_renamed(stg_inode_of(parent), name, stg_inode_of(new_parent), new_name,
                          moved.inode);
        if (flags & RENAME_EXCHANGE)
            stg_lease_renamed(stg_inode_of(new_parent), new_name, stg_inode_of(parent), name,
                              target.inode);
        stg_place_moving(); /* before the places: who has looked by the old name is late */
        known_moved(&moved, stg_inode_of(new_parent), new_name);
        if (flags & RENAME_EXCHANGE)
            known_moved(&target, stg_inode_of(parent), name);
        else
            known_lost_name(&target);
        stg_notify_touched(stg_inode_of(new_parent));
        if (new_parent != parent)
            stg_notify_touched(stg_inode_of(parent));
        if (moved.inode)
            stg_notify_touched(moved.inode);
        if (target.inode)
            stg_notify_touched(target.inode);
    }
    release_known(&moved);
    release_known(&target);
    stg_reply_result(req, error);
}
