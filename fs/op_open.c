/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns open, create, tmpfile and release of regular files.
 *
 * An open for reading that a staged copy is to serve, and which has to be fetched first, is
 * answered when that is there: the thread that has fetched it answers. Where there is no copy in
 * the end, the source serves it as it does any other.
 *
 * A passed-through open holds nothing here: no descriptor, no memory (`fh` is 0). For plain reading
 * it does not even open a local source, the kernel does. For writing, direct and non-blocking I/O,
 * and on a remote source, that is opened once, for its own answer (read-only mount, append-only,
 * being executed, no direct I/O, leased, gone since it was looked up), which the kernel's backing
 * open would either not ask for or turn into EIO. A file that is served by the daemon has its
 * descriptor, plus one, in `fh`.
 */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/creds.h"
#include "fs/folders.h"
#include "fs/held.h"
#include "fs/iomode.h"
#include "fs/live.h"
#include "fs/notify.h"
#include "fs/place.h"
#include "fs/ranges.h"
#include "fs/record.h"
#include "fs/reply.h"
#include "fs/staging.h"
#include "fs/waits.h"
#include "util/cleanup.h"

#include <semaphore.h>

static bool is_for_reading(int flags) {
    return (flags & O_ACCMODE) == O_RDONLY && !(flags & O_TRUNC);
}

/* The kernel turns each error of its own open of a backing file into EIO: these may well fail. */
static bool must_ask_source(int flags) {
    return !is_for_reading(flags) || (flags & (O_DIRECT | O_NONBLOCK));
}

/* A copy cannot tell what the source would; and making one moves the access time. */
static bool may_be_copied(int flags) { return !must_ask_source(flags) && !(flags & O_NOATIME); }

/* Opens the source for a handle that is being opened. Returns a descriptor or -errno. */
static int open_source(fuse_req_t req, struct stg_inode *inode, const struct fuse_file_info *fi) {
    stg_auto_fd int fd = stg_inode_open(inode, fi->flags);

    if (fd >= 0 && fi->kill_suidgid) {
        int error = stg_kill_privileges(req, fd);

        if (error)
            return error;
    }
    return stg_fd_steal(&fd);
}

struct opening {
    fuse_req_t req;
    struct stg_inode *inode;
    const struct fuse_file_info *fi;
    int fd; /* or -errno */
};

static int open_and_truncate(void *context) {
    struct opening *what = context;

    what->fd = open_source(what->req, what->inode, what->fi);
    return what->fd < 0 ? what->fd : 0;
}

static int change_nothing(void *context) {
    (void)context;
    return 0;
}

static bool may_map_writable(int flags) { return (flags & O_ACCMODE) == O_RDWR; }

/* What the daemon reads and writes for others is not aligned. */
static int allow_unaligned(int fd, int flags) {
    return (flags & O_DIRECT) && fcntl(fd, F_SETFL, flags & ~O_DIRECT) ? -errno : 0;
}

/*
 * Counts the open, decides how it is served and fills `fi`. `fd` is consumed: the open source file,
 * or -1 where it has not been opened yet. The open is counted first: what is counted has no lease
 * in its way (see iomode.c). Returns 0, or -errno with everything undone.
 */
static int begin(fuse_req_t req, struct stg_inode *inode, int fd, struct fuse_file_info *fi) {
    stg_auto_fd int own_fd = fd;
    struct stg_io_answer answer;
    bool by_daemon;
    int error;

    error = stg_io_open(inode, fi->flags, &answer);
    if (error)
        return error;
    if (!is_for_reading(fi->flags))
        stg_catalog_changing();
    if (!is_for_reading(fi->flags) && !answer.direct)
        stg_staging_withdraw(inode); /* counted as it is, it keeps new ones from being made */
    by_daemon = !answer.backing_id || answer.direct;
    if (own_fd < 0 &&
        (by_daemon || must_ask_source(fi->flags) || (answer.of_source && inode->volume->remote))) {
        struct opening what = {req, inode, fi, -1};

        error = fi->flags & O_TRUNC ? stg_live_change(inode, open_and_truncate, &what)
                                    : open_and_truncate(&what);
        own_fd = what.fd;
    }
    if (!error && by_daemon)
        error = allow_unaligned(own_fd, fi->flags);
    if (!error && answer.outdated && !is_for_reading(fi->flags))
        error =
            stg_live_change(inode, change_nothing, NULL); /* it is fetched before it is written */
    if (!error && answer.direct && may_map_writable(fi->flags))
        error = stg_live_begin(inode);
    if (error) {
        stg_live_release(inode, fi->flags);
        return error;
    }
    /*
     * From now on stores through a mapping may move the times, of which nobody tells: what the
     * kernel has of the attributes goes, and what it is given next is not for keeping. That takes
     * no lock of a page, and may be told from here.
     */
    if (may_map_writable(fi->flags))
        (void)stg_notify_inode(inode, false); /* or the kernel has none */
    fi->backing_id = answer.backing_id;
    fi->direct_io = answer.direct;
    /* Of what is passed through only remote sources have something to say at close(2). */
    fi->noflush = is_for_reading(fi->flags) || (!by_daemon && !inode->volume->remote);
    fi->fh = by_daemon ? (uint64_t)stg_fd_steal(&own_fd) + 1 : 0;
    return 0;
}

static void end(struct stg_inode *inode, const struct fuse_file_info *fi) {
    stg_live_release(inode, fi->flags);
    if (fi->fh)
        stg_fd_close((int)fi->fh - 1);
}

/*
 * What was opened is gone from the source, whose own client still has its name: that looks once
 * more then (retry_estale() in fs/stat.c of the kernel), as ours will when it is told.
 */
static void look_again(struct stg_inode *inode) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    stg_auto_free char *name = NULL;
    struct stg_inode *parent;
    struct statx stx;

    if (stg_place_get(inode, &parent, &name))
        return;
    if (!stg_inode_fd(parent, &lent))
        (void)statx(lent.fd, name, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_INO, &stx);
    stg_inode_unref(parent);
}

static void reply_error(fuse_req_t req, struct stg_inode *inode, int error) {
    if (error == -ESTALE && inode->volume->remote)
        look_again(inode);
    stg_reply_result(req, error);
}

static void open_from_source(fuse_req_t req, struct stg_inode *inode, struct fuse_file_info *fi) {
    int error = begin(req, inode, -1, fi);

    if (error)
        reply_error(req, inode, error);
    else if (fuse_reply_open(req, fi) == -ENOENT)
        end(inode, fi);
}

/* An open that waits for a copy, and may be answered before that comes. */
struct open_wait {
    struct stg_waiter waiter;
    struct stg_wait wait;
    struct stg_inode *inode;   /* referenced */
    struct stg_object *object; /* referenced */
    fuse_req_t req;
    struct fuse_file_info fi;
    bool in_place; /* the request's thread waits, see stg_staging_may_park() */
    int result;
    sem_t over;
};

/* What the source says to such an open, which the kernel's own would turn into EIO. */
static int ask_source(struct stg_inode *inode, int flags) {
    stg_auto_fd int fd = stg_inode_open(inode, flags);

    return fd < 0 ? fd : 0;
}

/* Opens a file that is staged by range. False where the source is to serve it. */
static bool open_by_range(fuse_req_t req, struct stg_inode *inode,
                          const struct fuse_file_info *fi) {
    struct fuse_file_info answer = *fi;
    bool keep;

    if (!stg_ranges_open(inode, &keep) || stg_io_open_cached(inode, fi->flags))
        return false;
    answer.noflush = true;
    answer.keep_cache = keep;
    if (fuse_reply_open(req, &answer) == -ENOENT)
        end(inode, &answer);
    return true;
}

/* `result` is what became of the copy, as of stg_object_want(): the wait is over. */
static void finish_wait(struct open_wait *wait, int result) {
    struct stg_io_answer answer;
    struct stg_inode *inode = wait->inode;
    bool waits = stg_wait_end(&wait->wait);
    bool by_disk;
    int error = result < 0 ? result : waits ? 0 : -EINTR;
    int source_error;

    if (!waits && result >= 0)
        stg_object_put(stg_staging_cache(), wait->object);
    if (!error) {
        error = stg_io_open_copy(inode, wait->fi.flags, stg_object_copy(wait->object), &answer);
        if (error)
            stg_object_put(stg_staging_cache(), wait->object);
    }
    by_disk = stg_object_is_by_disk(wait->object);
    stg_staging_unref(wait->object);
    if (!error && by_disk)
        stg_ranges_drop(inode); /* the copy is all that is open, and has all of them */
    if (waits)
        stg_staging_served(inode, error);
    source_error = waits && stg_staging_is_of_source(error) ? ask_source(inode, wait->fi.flags) : 0;
    if (!waits) {
        ; /* nobody does any more */
    } else if (source_error) {
        reply_error(wait->req, inode, source_error);
    } else if (error) {
        if (!by_disk || (error != -ENODATA && error != -EBUSY) ||
            !open_by_range(wait->req, inode, &wait->fi))
            open_from_source(wait->req, inode, &wait->fi);
    } else {
        wait->fi.backing_id = answer.backing_id;
        wait->fi.noflush = true;
        if (fuse_reply_open(wait->req, &wait->fi) == -ENOENT)
            end(inode, &wait->fi);
    }
    stg_inode_unref(inode);
    free(wait);
}

static void wait_is_over(struct stg_waiter *waiter, int result) {
    struct open_wait *wait = (struct open_wait *)(void *)waiter;

    wait->result = result;
    if (wait->in_place)
        (void)sem_post(&wait->over); /* cannot overflow */
    else
        finish_wait(wait, result);
}

/* Opens from a staged copy, now or later. False where the source is to serve it. */
static bool open_from_copy(fuse_req_t req, struct stg_inode *inode,
                           const struct fuse_file_info *fi) {
    struct open_wait *wait = malloc(sizeof(*wait));
    bool in_place = !stg_staging_may_park();
    bool is_ours;
    int result;

    if (!wait)
        return false;
    *wait = (struct open_wait){
        .waiter.done = wait_is_over, .inode = inode, .req = req, .fi = *fi, .in_place = in_place};
    (void)sem_init(&wait->over, 0, 0); /* cannot fail with these */
    stg_inode_ref(inode);
    if (!in_place) /* else its own thread alone may answer it */
        stg_wait_begin(&wait->wait, req);
    result = stg_staging_want(inode, &wait->waiter, &wait->object);
    if (!result && in_place) {
        while (sem_wait(&wait->over))
            ; /* a signal came */
        finish_wait(wait, wait->result);
    }
    if (result == STG_WANT_READY)
        finish_wait(wait, result);
    if (result >= 0 && result != STG_STAGED_BY_RANGE)
        return true;
    is_ours = stg_wait_end(&wait->wait);
    stg_inode_unref(inode);
    free(wait);
    if (!is_ours)
        return true;
    if (result == STG_STAGED_BY_RANGE)
        return open_by_range(req, inode, fi);
    result = result == -EAGAIN ? ask_source(inode, fi->flags) : 0;
    if (result)
        reply_error(req, inode, result);
    return result != 0;
}

void stg_op_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi) {
    struct stg_inode *inode = stg_inode_of(nodeid);

    if (stg_fs.no_open) { /* and no other open will come, fs/fuse/file.c:fuse_file_open() */
        stg_reply_result(req, -ENOSYS);
        return;
    }
    if ((fi->flags & O_ACCMODE) != O_WRONLY)
        stg_record_read(inode);
    if (!stg_staging_is_left_to_kernel(inode) && may_be_copied(fi->flags) &&
        open_from_copy(req, inode, fi))
        return;
    open_from_source(req, inode, fi);
}

/*
 * Makes and opens the file. Where somebody else has made something of that name in the meantime,
 * -ESTALE makes the kernel look the name up once more (LOOKUP_REVAL) and open what is there as what
 * it is: a FIFO, a folder, a link, a file with permissions of its own.
 */
static int open_new(fuse_req_t req, int parent_fd, const char *name, mode_t mode, int flags) {
    int need = STG_CREDS_UMASK | (mode & S_ISGID ? STG_CREDS_GROUPS : STG_CREDS_IDS);
    struct stg_creds creds;
    int clean = (flags & ~O_DIRECT) | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;
    int error = stg_creds_assume(req, need, &creds);
    int fd;

    if (error)
        return error;
    fd = openat(parent_fd, name, clean | O_CREAT | O_EXCL, mode & 07777);
    fd = fd < 0 ? -errno : fd;
    stg_creds_restore(&creds);
    return fd == -EEXIST && !(flags & O_EXCL) ? -ESTALE : fd;
}

/* `fd` is consumed; `parent` and `name` are NULL for an unnamed file. */
static void reply_created(fuse_req_t req, int fd, struct stg_inode *parent, const char *name,
                          struct fuse_file_info *fi) {
    stg_auto_look look = stg_coherence_enter();
    struct fuse_entry_param entry;
    struct stg_inode *inode;
    struct statx stx;
    int error = stg_lookup_fd(fd, parent, name, &inode, &stx);

    if (error) {
        stg_fd_close(fd);
        stg_reply_result(req, error);
        return;
    }
    if (!name)
        error = stg_inode_pin_to(inode, fd);
    if (error)
        stg_fd_close(fd);
    else if (stg_fs.no_open)
        stg_held_created(inode, fd, fi->flags, stx.stx_mode); /* nobody tells of its release */
    else
        error = begin(req, inode, fd, fi);
    if (error) {
        stg_inode_forget(inode, 1);
        stg_reply_result(req, error);
        return;
    }
    stg_reply_fill_entry(parent ? parent : inode, inode, &stx, &entry);
    if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
        if (!stg_fs.no_open)
            end(inode, fi);
        stg_inode_forget(inode, 1);
    }
}

void stg_op_create(fuse_req_t req, fuse_ino_t nodeid, const char *name, mode_t mode,
                   struct fuse_file_info *fi) {
    struct stg_inode *parent = stg_inode_of(nodeid);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    int error = stg_inode_fd(parent, &lent);
    int fd = error;

    stg_catalog_changing();
    if (!error) {
        stg_folders_expect(parent, name, STG_FOLDERS_MADE);
        fd = open_new(req, lent.fd, name, mode, fi->flags);
        if (fd < 0) {
            stg_folders_unexpect(parent, name, STG_FOLDERS_MADE);
        } else {
            stg_coherence_made_name(parent);
        }
    }
    if (fd < 0)
        stg_reply_result(req, fd);
    else
        reply_created(req, fd, parent, name, fi);
}

void stg_op_tmpfile(fuse_req_t req, fuse_ino_t nodeid, mode_t mode, struct fuse_file_info *fi) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct stg_creds creds;
    int need = STG_CREDS_UMASK | (mode & S_ISGID ? STG_CREDS_GROUPS : STG_CREDS_IDS);
    int error = stg_inode_fd(stg_inode_of(nodeid), &lent);
    int fd = -1;

    if (!error)
        error = stg_creds_assume(req, need, &creds);
    if (!error) {
        fd = openat(lent.fd, ".", (fi->flags & ~(O_CREAT | O_DIRECT)) | O_TMPFILE | O_CLOEXEC,
                    mode & 07777);
        error = fd < 0 ? -errno : 0;
        stg_creds_restore(&creds);
    }
    if (error)
        stg_reply_result(req, error);
    else
        reply_created(req, fd, NULL, NULL, fi);
}

void stg_op_release(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi) {
    if (!stg_fs.no_open) /* what was created before the kernel knew comes here all the same */
        end(stg_inode_of(nodeid), fi);
    stg_reply_result(req, 0);
}
