/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the switch of a thread's credentials and umask. */
#include "fs/creds.h"

#include "util/cleanup.h"
#include "util/log.h"

#include <linux/capability.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define GROUPS_FIRST_TRY 64

static gid_t *own_groups;
static int own_group_count;

/*
 * What passes through is written with the daemon's credentials, and CAP_SYS_RESOURCE lets a writer
 * exceed quotas (fs/quota/dquot.c:ignore_hardlimit): nobody's write shall do that.
 */
static void drop_resource_capability(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data))
        return;
    data[0].effective &= ~(1U << CAP_SYS_RESOURCE);
    data[0].permitted &= ~(1U << CAP_SYS_RESOURCE);
    data[0].inheritable &= ~(1U << CAP_SYS_RESOURCE);
    if (syscall(SYS_capset, &header, data))
        stg_debug("cannot drop CAP_SYS_RESOURCE: %m");
}

void stg_creds_init(void) {
    stg_fs.daemon_uid = geteuid();
    stg_fs.daemon_gid = getegid();
    drop_resource_capability();
    own_group_count = getgroups(0, NULL);
    if (own_group_count > 0) {
        own_groups = calloc((size_t)own_group_count, sizeof(*own_groups));
        if (own_groups)
            own_group_count = getgroups(own_group_count, own_groups);
        else
            own_group_count = 0; /* then the daemon ends up with fewer rights, never more */
    }
}

/*
 * The caller's supplementary groups, from /proc: the protocol does not carry them. `*ret_groups` is
 * owned by the caller. Returns their number, or -errno.
 */
static int read_groups(fuse_req_t req, gid_t **ret_groups) {
    int room = GROUPS_FIRST_TRY;

    for (;;) {
        gid_t *groups = calloc((size_t)room, sizeof(*groups));
        int count;

        if (!groups)
            return -ENOMEM;
        count = fuse_req_getgroups(req, room, groups);
        if (count >= 0 && count <= room) {
            *ret_groups = groups;
            return count;
        }
        free(groups);
        if (count < 0)
            return count;
        room = count;
    }
}

static int take_groups(fuse_req_t req) {
    stg_auto_free gid_t *groups = NULL;
    int count = read_groups(req, &groups);

    if (count < 0)
        return count;
    return syscall(SYS_setgroups, (size_t)count, groups) ? -errno : 0;
}

static void restore_groups(void) {
    if (syscall(SYS_setgroups, (size_t)(own_group_count > 0 ? own_group_count : 0), own_groups))
        stg_error("cannot take the daemon's groups back: %m");
}

/* Setting fsuid to a user takes the filesystem capabilities away; these two are taken back. */
static void raise_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data))
        return;
    data[0].effective |= (1U << CAP_DAC_OVERRIDE | 1U << CAP_MKNOD) & data[0].permitted;
    (void)syscall(SYS_capset, &header, data); /* without them the source just checks once more */
}

static void take_umask(mode_t mask) {
    static __thread bool private_umask;

    if (!private_umask) {
        if (unshare(CLONE_FS)) { /* the umask belongs to all threads otherwise */
            stg_error("cannot give a thread its own umask: %m");
            return;
        }
        private_umask = true;
    }
    (void)umask(mask);
}

int stg_creds_assume(fuse_req_t req, int need, struct stg_creds *ret_creds) {
    const struct fuse_ctx *context = fuse_req_ctx(req);

    *ret_creds = (struct stg_creds){0};
    if (need & STG_CREDS_UMASK)
        take_umask(context->umask);
    if (!stg_fs.privileged ||
        (context->uid == stg_fs.daemon_uid && context->gid == stg_fs.daemon_gid))
        return 0;
    if (need & STG_CREDS_GROUPS) {
        int error = take_groups(req);

        if (error)
            return error;
        ret_creds->groups = true;
    }
    /* fsgid first: changing it needs a capability that leaves with fsuid. Neither call reports
       errors; for a privileged daemon they cannot fail with valid IDs. */
    (void)syscall(SYS_setfsgid, context->gid);
    (void)syscall(SYS_setfsuid, context->uid);
    if (context->uid && !(need & STG_CREDS_STRICT))
        raise_capabilities();
    ret_creds->switched = true;
    return 0;
}

int stg_caller_of(fuse_req_t req, struct stg_caller *ret_caller) {
    struct stg_caller caller = {.uid = fuse_req_ctx(req)->uid, .gid = fuse_req_ctx(req)->gid};

    if (stg_fs.privileged && caller.uid) {
        caller.group_count = read_groups(req, &caller.groups);
        if (caller.group_count < 0)
            return caller.group_count;
    }
    *ret_caller = caller;
    return 0;
}

int stg_caller_copy(const struct stg_caller *caller, struct stg_caller *ret_copy) {
    size_t bytes = (size_t)caller->group_count * sizeof(*caller->groups);
    struct stg_caller copy = *caller;

    copy.groups = malloc(bytes ? bytes : 1);
    if (!copy.groups)
        return -ENOMEM;
    if (bytes)
        memcpy(copy.groups, caller->groups, bytes);
    *ret_copy = copy;
    return 0;
}

void stg_caller_fini(struct stg_caller *caller) {
    free(caller->groups);
    caller->groups = NULL;
}

int stg_creds_become(const struct stg_caller *caller, struct stg_creds *ret_creds) {
    *ret_creds = (struct stg_creds){0};
    if (caller->uid == stg_fs.daemon_uid)
        return 0;
    if (!stg_fs.privileged)
        return -EPERM;
    if (syscall(SYS_setgroups, (size_t)caller->group_count, caller->groups))
        return -errno;
    ret_creds->groups = true;
    (void)syscall(SYS_setfsgid, caller->gid); /* as in stg_creds_assume() */
    (void)syscall(SYS_setfsuid, caller->uid);
    ret_creds->switched = true;
    return 0;
}

void stg_creds_restore(struct stg_creds *creds) {
    int saved = errno;

    if (creds->switched) {
        (void)syscall(SYS_setfsuid, stg_fs.daemon_uid); /* as above; the capabilities come back */
        (void)syscall(SYS_setfsgid, stg_fs.daemon_gid);
    }
    if (creds->groups)
        restore_groups();
    *creds = (struct stg_creds){0};
    errno = saved;
}

bool stg_creds_in_group(fuse_req_t req, gid_t gid) {
    stg_auto_free gid_t *groups = NULL;
    int count;

    if (fuse_req_ctx(req)->gid == gid)
        return true;
    count = read_groups(req, &groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

/* Elsewhere CapEff says nothing: anybody has all capabilities in a namespace of his own. */
static bool in_own_namespace(int pid) {
    char path[64];
    struct stat own;
    struct stat other;

    (void)snprintf(path, sizeof(path), "/proc/%d/ns/user", pid); /* always fits */
    return !stat("/proc/self/ns/user", &own) && !stat(path, &other) && own.st_ino == other.st_ino;
}

bool stg_creds_may_keep_setid(fuse_req_t req) {
    char path[64];
    char line[256];
    unsigned long long capabilities = 0;
    FILE *status;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)fuse_req_ctx(req)->pid);
    status = fopen(path, "re");
    if (!status)
        return false;
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "CapEff: %llx", &capabilities) == 1)
            break;
    (void)fclose(status); /* read-only */
    return (capabilities & (1ULL << CAP_FSETID)) && in_own_namespace((int)fuse_req_ctx(req)->pid);
}
