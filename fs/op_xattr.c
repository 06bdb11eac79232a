/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns extended attributes, POSIX ACLs among them (the kernel keeps those as attributes). */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/control.h"
#include "fs/creds.h"
#include "fs/notify.h"
#include "fs/primer.h"
#include "fs/reply.h"
#include "util/cleanup.h"

#include <limits.h>
#include <string.h>
#include <linux/limits.h>
#include <sys/xattr.h>

#define TRUSTED "trusted."

static void reply_value(fuse_req_t req, size_t size, const char *value, ssize_t length) {
    if (length < 0)
        stg_reply_result(req, (int)length);
    else if (!size)
        (void)fuse_reply_xattr(req, (size_t)length); /* nothing to undo, here and below */
    else if ((size_t)length > size)
        stg_reply_result(req, -ERANGE);
    else
        (void)fuse_reply_buf(req, value, (size_t)length);
}

void stg_op_getxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, size_t size) {
    struct stg_inode *inode = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_free char *value = size ? malloc(size) : NULL;
    char path[STG_PROC_FD_BYTES];
    char made_up[STG_CONTROL_VALUE_BYTES];
    ssize_t length;

    if (stg_control_is_attribute(name)) {
        reply_value(req, size, made_up, stg_control_get(req, inode, name, made_up));
        return;
    }
    length = stg_catalog_xattr_error(inode, name);
    if (!length && stg_primer_asks(req))
        length = -EAGAIN;
    if (!length)
        length = stg_inode_fd(inode, &lent);
    if (!length && size && !value)
        length = -ENOMEM;
    if (!length && inode->volume->mask_suid && !strcmp(name, "security.capability"))
        length = -ENODATA; /* the source's mount would not honour it either */
    if (!length) {
        stg_proc_fd(path, lent.fd);
        length = getxattr(path, name, value, size);
        length = length < 0 ? -errno : length;
    }
    reply_value(req, size, value, length);
}

/* Takes out what listxattr(2) does not show to this caller. Returns the new length. */
static ssize_t hide_names(const struct stg_inode *inode, uid_t uid, char *names, ssize_t length) {
    char *in = names;
    char *out = names;

    while (in < names + length) {
        size_t bytes = strlen(in) + 1;
        bool hidden = (uid && !strncmp(in, TRUSTED, strlen(TRUSTED))) ||
                      (inode->volume->mask_suid && !strcmp(in, "security.capability")) ||
                      stg_control_is_attribute(in);

        if (!hidden) {
            memmove(out, in, bytes);
            out += bytes;
        }
        in += bytes;
    }
    return out - names;
}

void stg_op_listxattr(fuse_req_t req, fuse_ino_t nodeid, size_t size) {
    struct stg_inode *inode = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_free char *names = malloc(XATTR_LIST_MAX);
    char path[STG_PROC_FD_BYTES];
    ssize_t length = stg_inode_fd(inode, &lent);

    if (!length && !names)
        length = -ENOMEM;
    if (!length) {
        stg_proc_fd(path, lent.fd);
        length = listxattr(path, names, XATTR_LIST_MAX);
        length = length < 0 ? -errno : hide_names(inode, fuse_req_ctx(req)->uid, names, length);
    }
    reply_value(req, size, names, length);
}

void stg_op_setxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, const char *value,
                     size_t size, int flags) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    char path[STG_PROC_FD_BYTES];
    struct stg_creds creds = {0};
    int error;

    stg_catalog_changing();
    if (stg_control_is_attribute(name)) {
        stg_reply_result(req, stg_control_set(req, stg_inode_of(nodeid), name, value, size));
        return;
    }
    error = stg_inode_fd(stg_inode_of(nodeid), &lent);
    /* An ACL set by somebody outside the file's group takes set-group-ID away. */
    if (!error && !strncmp(name, "system.posix_acl_", 17) && fuse_req_ctx(req)->uid)
        error = stg_creds_assume(req, STG_CREDS_GROUPS, &creds);
    if (!error) {
        bool switched = creds.switched;

        stg_proc_fd(path, lent.fd);
        error = setxattr(path, name, value, size, flags) ? -errno : 0;
        stg_creds_restore(&creds);
        if (error == -EPERM && switched) /* the caller had a capability of its own */
            error = setxattr(path, name, value, size, flags) ? -errno : 0;
    }
    if (!error)
        stg_notify_touched(stg_inode_of(nodeid));
    stg_reply_result(req, error);
}

void stg_op_removexattr(fuse_req_t req, fuse_ino_t nodeid, const char *name) {
    struct stg_inode *inode = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    char path[STG_PROC_FD_BYTES];
    int error;

    stg_catalog_changing();
    if (stg_control_is_attribute(name)) {
        stg_reply_result(req, stg_control_remove(inode, name));
        return;
    }
    error = stg_inode_fd(inode, &lent);
    if (!error) {
        stg_proc_fd(path, lent.fd);
        error = removexattr(path, name) ? -errno : 0;
    }
    if (!error && !strcmp(name, "security.capability"))
        stg_inode_note_capability_lost(inode);
    if (!error)
        stg_notify_touched(inode);
    stg_reply_result(req, error);
}
