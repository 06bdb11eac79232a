/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The operations, by family; each answers its request exactly once. Signatures and meanings are
 * those of struct fuse_lowlevel_ops. Errors are the source's own, passed on.
 */
#ifndef STG_FS_OPS_H
#define STG_FS_OPS_H

#include "fs/inode.h"

/* op_lookup.c */
void stg_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void stg_op_forget(fuse_req_t req, fuse_ino_t nodeid, uint64_t nlookup);
void stg_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void stg_op_readlink(fuse_req_t req, fuse_ino_t nodeid);

/*
 * Looks `name` up below `parent`. Returns 0 and the inode, its lookup count raised, with its
 * attributes; or -errno.
 */
int stg_lookup(struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
               struct statx *ret_stx);

/* The same for the answer to `req`: for the one of primer.h from the catalog alone, or -EAGAIN. */
int stg_lookup_for(fuse_req_t req, struct stg_inode *parent, const char *name,
                   struct stg_inode **ret_inode, struct statx *ret_stx);

/* The same where the caller has the object open (any descriptor; borrowed). */
int stg_lookup_fd(int fd, struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
                  struct statx *ret_stx);

/*
 * As stg_lookup() for who answers the kernel nothing: it is told to drop nothing, and nothing is
 * held for a reader who may come.
 */
int stg_lookup_unanswered(struct stg_inode *parent, const char *name, struct stg_inode **ret_inode,
                          struct statx *ret_stx);

/* op_attr.c */
void stg_op_getattr(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi);
void stg_op_setattr(fuse_req_t req, fuse_ino_t nodeid, struct stat *attr, int to_set,
                    struct fuse_file_info *fi);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void stg_op_statx(fuse_req_t req, fuse_ino_t nodeid, int flags, int mask,
                  struct fuse_file_info *fi);
#endif
void stg_op_statfs(fuse_req_t req, fuse_ino_t nodeid);

/*
 * Clears set-user-ID, set-group-ID and file capabilities of the object behind `fd` as a write by
 * the caller of `req` does (fs/attr.c:setattr_should_drop_suidgid). Returns 0 or -errno.
 */
int stg_kill_privileges(fuse_req_t req, int fd);

/* op_make.c */
void stg_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void stg_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void stg_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);

/* op_name.c */
void stg_op_link(fuse_req_t req, fuse_ino_t nodeid, fuse_ino_t new_parent, const char *new_name);
void stg_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void stg_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void stg_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                   const char *new_name, unsigned int flags);

/* op_open.c */
void stg_op_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi);
void stg_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                   struct fuse_file_info *fi);
void stg_op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
void stg_op_release(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi);

/* op_io.c */
void stg_op_read(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                 struct fuse_file_info *fi);
void stg_op_write(fuse_req_t req, fuse_ino_t nodeid, const char *buffer, size_t size, off_t offset,
                  struct fuse_file_info *fi);

/* How many writes have come, and whether none of them is under way. */
uint64_t stg_op_writes(bool *ret_idle);

void stg_op_flush(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi);
void stg_op_fsync(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *fi);
void stg_op_fallocate(fuse_req_t req, fuse_ino_t nodeid, int mode, off_t offset, off_t length,
                      struct fuse_file_info *fi);
void stg_op_lseek(fuse_req_t req, fuse_ino_t nodeid, off_t offset, int whence,
                  struct fuse_file_info *fi);
void stg_op_copy_file_range(fuse_req_t req, fuse_ino_t nodeid_in, off_t offset_in,
                            struct fuse_file_info *fi_in, fuse_ino_t nodeid_out, off_t offset_out,
                            struct fuse_file_info *fi_out, size_t length, int flags);

/* op_dir.c */
void stg_op_opendir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi);
void stg_op_readdir(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                    struct fuse_file_info *fi);
void stg_op_readdirplus(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                        struct fuse_file_info *fi);
void stg_op_releasedir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi);
void stg_op_fsyncdir(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *fi);

/* Frees the handles that were not released; after the last request. */
void stg_op_dir_fini(void);

/* op_xattr.c */
void stg_op_getxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, size_t size);
void stg_op_listxattr(fuse_req_t req, fuse_ino_t nodeid, size_t size);
void stg_op_setxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, const char *value,
                     size_t size, int flags);
void stg_op_removexattr(fuse_req_t req, fuse_ino_t nodeid, const char *name);

/* op_ioctl.c */
void stg_op_ioctl(fuse_req_t req, fuse_ino_t nodeid, unsigned int command, void *argument,
                  struct fuse_file_info *fi, unsigned flags, const void *in_buffer, size_t in_size,
                  size_t out_size);

/* The table that libfuse is given. */
extern const struct fuse_lowlevel_ops stg_ops;

#endif
