/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Acting as the caller of a request: the owner, group and mode of what is made come out as if the
 * caller had worked on the source directly.
 *
 * The kernel has checked the caller's permissions on our mount (default_permissions), so
 * CAP_DAC_OVERRIDE is kept while acting: what a supplementary group or a capability of the caller
 * allowed there must not be refused by the source. Only the calling thread changes (raw system
 * calls; glibc's wrappers would change all threads).
 */
#ifndef STG_FS_CREDS_H
#define STG_FS_CREDS_H

#include "fs/fs.h"

/* Which of the caller's properties an operation needs besides user and group. */
enum stg_creds_need {
    STG_CREDS_IDS = 0,
    STG_CREDS_GROUPS = 1, /* supplementary groups: they decide whether set-group-ID survives */
    STG_CREDS_UMASK = 2,  /* the umask, for what is made where a default ACL may override it */
    STG_CREDS_STRICT = 4, /* no capability is kept: the source shall check permissions itself */
};

/* Who asked, for work that goes on when the request has been answered. */
struct stg_caller {
    uid_t uid;
    gid_t gid;
    int group_count;
    gid_t *groups; /* owned; NULL: none */
};

/* The caller of `req`, to be freed by stg_caller_fini(). Returns 0 or -errno. */
int stg_caller_of(fuse_req_t req, struct stg_caller *ret_caller);
int stg_caller_copy(const struct stg_caller *caller, struct stg_caller *ret_copy);
void stg_caller_fini(struct stg_caller *caller);

struct stg_creds {
    bool switched;
    bool groups;
};

/* Becomes the caller of `req`. Returns 0, or -errno with nothing changed. */
int stg_creds_assume(fuse_req_t req, int need, struct stg_creds *ret_creds);

/*
 * Becomes the caller with no capability kept: access is checked as for himself. Returns 0, or
 * -EPERM where the daemon cannot, being an ordinary user itself, and another than the caller.
 */
int stg_creds_become(const struct stg_caller *caller, struct stg_creds *ret_creds);

/* Becomes the daemon again. */
void stg_creds_restore(struct stg_creds *creds);

/* Is the caller in group `gid`? */
bool stg_creds_in_group(fuse_req_t req, gid_t gid);

/* Has the caller CAP_FSETID, which lets set-id bits survive a write? False where unknown. */
bool stg_creds_may_keep_setid(fuse_req_t req);

/*
 * Remembers the daemon's own credentials and drops what would lift quotas; once, before the first
 * request and before any other thread.
 */
void stg_creds_init(void);

#endif
