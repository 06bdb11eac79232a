/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the state machine of an inode's opens, under the inode's io lock.
 *
 * A passed-through mapping holds the backing file and not ours, so RELEASE comes at close(2) while
 * the mapping lives on, and stores through it move the source's times without any request. So the
 * attributes of a file that is, or was, open for reading and writing are not cached until a read
 * lease on it can be had: the kernel grants none while anybody has the file open for writing
 * (fcntl(2), F_SETLEASE).
 *
 * The same holds a copy back: what is stored through a mapping need not show in the file's times.
 *
 * A lease is in the way of other opens: one with O_NONBLOCK fails with EAGAIN, which the kernel's
 * own open of a backing file turns into EIO. So it is only tried while no open through the mount
 * exists, and the io lock keeps new ones from beginning; and not on remote sources, where it would
 * cost round trips.
 */
#include "fs/iomode.h"

#include "fs/backing.h"
#include "fs/inode.h"
#include "fs/keep.h"
#include "fs/linger.h"
#include "fs/ranges.h"
#include "fs/staging.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <stdatomic.h>
#include <string.h>

static const bool allowed_moves[STG_IO_MODES][STG_IO_MODES] = {
    [STG_IO_IDLE] = {[STG_IO_PASSTHROUGH] = true, [STG_IO_CACHED] = true, [STG_IO_COPY] = true},
    [STG_IO_PASSTHROUGH] = {[STG_IO_IDLE] = true},
    [STG_IO_CACHED] = {[STG_IO_IDLE] = true},
    [STG_IO_COPY] = {[STG_IO_IDLE] = true},
};

static void move_locked(struct stg_inode *inode, enum stg_iomode mode) {
    if (!allowed_moves[inode->io_mode][mode])
        stg_error("inode %ju: way of I/O moved from %d to %d", (uintmax_t)inode->ino,
                  inode->io_mode, mode);
    inode->io_mode = (uint8_t)mode;
}

static bool is_for_writing(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

static bool can_map_writable(int flags) { return (flags & O_ACCMODE) == O_RDWR; }

static void count_locked(struct stg_inode *inode, int flags) {
    inode->opens++;
    if (is_for_writing(flags))
        inode->writers++;
}

/* What the kernel shall open: on the volume's data mount where there is one. */
static int open_for_backing(struct stg_inode *inode, struct stg_lent_fd *ret_lent) {
    int fd;

    if (inode->volume->data_fd < 0)
        return stg_inode_fd(inode, ret_lent);
    fd = stg_inode_open(inode, O_PATH);
    if (fd < 0)
        return fd;
    *ret_lent = (struct stg_lent_fd){.fd = fd};
    return 0;
}

static void begin_locked(struct stg_inode *inode, int fd) {
    static atomic_bool told;
    int32_t id = stg_backing_open(fd);

    if (id > 0) {
        inode->backing_id = id;
        move_locked(inode, STG_IO_PASSTHROUGH);
        return;
    }
    move_locked(inode, STG_IO_CACHED);
    if (!atomic_exchange(&told, true))
        stg_warning("a file cannot be passed through and is served by the daemon: %s",
                    strerror(-id));
}

/* Gives up the id of an inode without opens. */
static void close_id_locked(struct stg_inode *inode) {
    stg_backing_close(inode->backing_id);
    inode->backing_id = 0;
    move_locked(inode, STG_IO_IDLE);
}

/* The source is to serve from now on, where no open or mapping is in the way of that. */
static void leave_copy_locked(struct stg_inode *inode) {
    if (inode->io_mode == STG_IO_COPY && !inode->opens && !stg_keep_is_mapped_locked(inode))
        close_id_locked(inode);
}

/* An open that has to share the copy that others read. */
static void join_copy_locked(struct stg_inode *inode, int flags, struct stg_io_answer *ret_answer) {
    bool current = stg_staged_join_locked(inode, is_for_writing(flags));

    count_locked(inode, flags);
    *ret_answer = (struct stg_io_answer){.backing_id = inode->backing_id,
                                         .direct = is_for_writing(flags) || !current,
                                         .outdated = !current};
}

int stg_io_open(struct stg_inode *inode, int flags, struct stg_io_answer *ret_answer) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;

    stg_lock_take(lock);
    leave_copy_locked(inode);
    if (inode->io_mode == STG_IO_IDLE && stg_fs.passthrough) {
        int error;

        stg_lock_drop(lock); /* the descriptor may have to be opened */
        error = open_for_backing(inode, &lent);
        if (error)
            return error;
        stg_lock_take(lock);
        leave_copy_locked(inode);
    }
    if (inode->io_mode == STG_IO_COPY) {
        join_copy_locked(inode, flags, ret_answer);
        stg_lock_drop(lock);
        return 0;
    }
    if (inode->io_mode == STG_IO_IDLE) {
        /* Without a descriptor: passthrough is off, or an open and its release came between. */
        if (lent.fd >= 0)
            begin_locked(inode, lent.fd);
        else
            move_locked(inode, STG_IO_CACHED);
    }
    count_locked(inode, flags);
    *ret_answer = (struct stg_io_answer){
        .backing_id = inode->io_mode == STG_IO_PASSTHROUGH ? inode->backing_id : 0,
        .of_source = inode->io_mode == STG_IO_PASSTHROUGH};
    stg_lock_drop(lock);
    return 0;
}

static int register_copy_locked(struct stg_inode *inode, const struct stg_copy *copy) {
    stg_auto_fd int fd = stg_staging_open_copy(copy);
    int32_t id = fd < 0 ? fd : stg_backing_open(fd);

    /* What it is never given, as that file system is stacked itself, or cannot be backing. */
    if (fd >= 0 && (id == -ELOOP || id == -EOPNOTSUPP || id == -EINVAL))
        stg_staging_refused(copy);
    if (id < 0)
        return id;
    inode->backing_id = id;
    inode->staged->copy_number = copy->number;
    move_locked(inode, STG_IO_COPY);
    return 0;
}

int stg_io_open_copy(struct stg_inode *inode, int flags, const struct stg_copy *copy,
                     struct stg_io_answer *ret_answer) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool same;
    int error = 0;

    stg_lock_take(lock);
    same = inode->io_mode == STG_IO_COPY && inode->staged->copy_number == copy->number;
    if (!same && (inode->opens || inode->mapped))
        error = -EBUSY;
    if (!same && !error) {
        if (inode->io_mode != STG_IO_IDLE)
            close_id_locked(inode); /* of the source, lingering, or of an earlier copy */
        error = register_copy_locked(inode, copy);
    }
    if (!error) {
        count_locked(inode, flags);
        *ret_answer = (struct stg_io_answer){.backing_id = inode->backing_id};
    }
    stg_lock_drop(lock);
    return error;
}

int stg_io_open_cached(struct stg_inode *inode, int flags) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    int error = 0;

    stg_lock_take(lock);
    leave_copy_locked(inode);
    if (inode->io_mode == STG_IO_PASSTHROUGH && !inode->opens)
        close_id_locked(inode);
    if (inode->io_mode == STG_IO_IDLE)
        move_locked(inode, STG_IO_CACHED);
    else if (inode->io_mode != STG_IO_CACHED)
        error = -EBUSY;
    if (!error)
        count_locked(inode, flags);
    stg_lock_drop(lock);
    return error;
}

void stg_io_withdraw_copy(struct stg_inode *inode, uint64_t number) {
    struct stg_lock *lock = stg_inode_io_lock(inode);

    stg_lock_take(lock);
    if (inode->io_mode == STG_IO_COPY && inode->staged->copy_number == number) {
        if (inode->opens)
            stg_error("inode %ju: its copy goes while it is open", (uintmax_t)inode->ino);
        else
            close_id_locked(inode);
    }
    stg_lock_drop(lock);
}

/* Has nobody, by descriptor or mapping, the file open for writing? There is no open here. */
static bool is_unwritten_locked(struct stg_inode *inode) {
    stg_auto_fd int fd = stg_inode_open(inode, O_RDONLY | O_NONBLOCK | O_NOATIME);

    if (fd < 0)
        return fd == -ESTALE;
    if (fcntl(fd, F_SETLEASE, F_RDLCK))
        return false;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* the close that follows would drop it, too */
    return true;
}

void stg_io_release(struct stg_inode *inode, int flags) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool of_copy;
    bool kept;

    /*
     * What was fetched while somebody wrote is not what he has written. Before he is counted out:
     * from then on a copy is made, or used, again.
     */
    if (is_for_writing(flags))
        stg_staging_withdraw(inode);
    stg_lock_take(lock);
    of_copy = inode->io_mode == STG_IO_COPY;
    if (is_for_writing(flags))
        inode->writers--;
    if (can_map_writable(flags) && inode->io_mode == STG_IO_PASSTHROUGH)
        inode->mapped = true; /* until it is known better */
    /* Readers may have it open for long: from now on it follows the source again. */
    if (of_copy && is_for_writing(flags) && !inode->writers)
        stg_staged_unshare_locked(inode);
    if (!--inode->opens) {
        if (inode->io_mode == STG_IO_CACHED) {
            stg_ranges_idle_locked(inode);
            move_locked(inode, STG_IO_IDLE);
        } else if (!of_copy && !stg_linger_add_locked(inode)) {
            close_id_locked(inode);
        }
    }
    kept = of_copy && !inode->opens && stg_keep_locked(inode);
    stg_lock_drop(lock);
    if (of_copy && !kept)
        stg_staged_put(inode);
}

bool stg_io_may_be_staged(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool may_be;

    stg_lock_take(lock);
    if (inode->mapped && !inode->opens && is_unwritten_locked(inode))
        inode->mapped = false;
    may_be = !inode->mapped && !inode->writers &&
             (!inode->opens || inode->io_mode == STG_IO_COPY || inode->io_mode == STG_IO_CACHED);
    stg_lock_drop(lock);
    return may_be;
}

bool stg_io_may_use_copy(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool may_use;

    stg_lock_take(lock);
    may_use = !inode->opens || inode->io_mode == STG_IO_COPY;
    stg_lock_drop(lock);
    return may_use;
}

bool stg_io_is_written(struct stg_inode *inode) {
    struct stg_lock *lock = stg_inode_io_lock(inode);
    bool written;

    stg_lock_take(lock);
    written = inode->writers > 0;
    stg_lock_drop(lock);
    return written;
}

bool stg_io_may_be_mapped(struct stg_inode *inode) {
    struct stg_lock *lock;
    bool may_be;

    if (!stg_inode_is_regular(inode))
        return false;
    lock = stg_inode_io_lock(inode);
    stg_lock_take(lock);
    if (inode->mapped && !inode->opens && !inode->volume->remote && is_unwritten_locked(inode))
        inode->mapped = false;
    may_be = inode->mapped || inode->writers;
    stg_lock_drop(lock);
    return may_be;
}
