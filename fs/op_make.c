/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns what makes a name without opening it: mknod, mkdir, symlink. */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/creds.h"
#include "fs/folders.h"
#include "fs/reply.h"

#include <errno.h>
#include <unistd.h>

struct request {
    const char *name;
    mode_t mode; /* with the type */
    dev_t rdev;
    const char *target;
};

static int make(int parent_fd, const struct request *request) {
    int result;

    if (S_ISLNK(request->mode))
        result = symlinkat(request->target, parent_fd, request->name);
    else if (S_ISDIR(request->mode))
        result = mkdirat(parent_fd, request->name, request->mode & 07777);
    else
        result = mknodat(parent_fd, request->name, request->mode, request->rdev);
    return result ? -errno : 0;
}

static void make_and_reply(fuse_req_t req, fuse_ino_t nodeid, const struct request *request) {
    stg_auto_look look = stg_coherence_enter();
    struct stg_inode *parent = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    /* Groups decide only whether a set-group-ID bit that was asked for survives. */
    int need = STG_CREDS_UMASK | (request->mode & S_ISGID ? STG_CREDS_GROUPS : STG_CREDS_IDS);
    struct stg_inode *inode;
    struct stg_creds creds;
    struct statx stx;
    int error = stg_inode_fd(parent, &lent);

    stg_catalog_changing();
    if (!error)
        error = stg_creds_assume(req, need, &creds);
    if (!error) {
        stg_folders_expect(parent, request->name, STG_FOLDERS_MADE);
        error = make(lent.fd, request);
        if (error)
            stg_folders_unexpect(parent, request->name, STG_FOLDERS_MADE);
        stg_creds_restore(&creds);
    }
    if (!error) {
        stg_coherence_made_name(parent);
        error = stg_lookup(parent, request->name, &inode, &stx);
    }
    if (error)
        stg_reply_result(req, error);
    else
        stg_reply_entry(req, parent, request->name, inode, &stx);
}

void stg_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev) {
    make_and_reply(req, parent, &(struct request){.name = name, .mode = mode, .rdev = rdev});
}

void stg_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
    make_and_reply(req, parent, &(struct request){.name = name, .mode = (mode & 07777) | S_IFDIR});
}

void stg_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name) {
    make_and_reply(req, parent,
                   &(struct request){.name = name, .mode = S_IFLNK | 0777, .target = target});
}
