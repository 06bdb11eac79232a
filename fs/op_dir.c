/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns directories: opendir, readdir with and without attributes, releasedir, fsyncdir.
 *
 * Offsets are the source's own (d_off), so they stay good across seekdir and concurrent change
 * exactly as far as the source's do.
 *
 * Where folders are opened without telling, each READDIR opens the folder and goes to its offset:
 * nothing is kept that could be of the past. The kernel keeps the whole listing then, and comes
 * seldom.
 *
 * Of a folder that the catalog has the source is not opened, and an offset is the number of the
 * next entry: the folder itself, the one above it, and then in the order of the source. That is why
 * folders are not opened without telling then: a listing goes on as it was begun.
 *
 * Of a folder whose listing the kernel keeps, and may go on with (given.h), the source is opened
 * when something is asked for after all.
 */
#include "fs/ops.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/given.h"
#include "fs/lease.h"
#include "fs/listing.h"
#include "fs/names.h"
#include "fs/notify.h"
#include "fs/primer.h"
#include "fs/record.h"
#include "fs/reply.h"
#include "fs/waits.h"
#include "util/cleanup.h"
#include "util/lock.h"

#include <dirent.h>
#include <string.h>

#define DOTS 2
#define DIR_BUFFER_BYTES 32768
#define DIR_BUFFER_MIN_BYTES 2048

struct dir_handle {
    struct dir_handle *next_open; /* of the list of those that are open; protected by its lock */
    struct dir_handle **link;
    unsigned users; /* it is freed with the last: who has it open, and who is answering; the same */
    struct stg_lock lock;
    struct stg_inode *folder;      /* constant */
    int fd;                        /* -1: not open yet; protected by lock, as all below */
    const struct stg_folder *kept; /* the folder's own, which is listed instead of the source */
    struct stg_giving giving;
    off_t position; /* of the entry at `next` */
    size_t next;
    size_t filled;
    size_t room; /* constant: how much is read at once */
    _Alignas(struct dirent64) char buffer[DIR_BUFFER_BYTES];
};

/* For the end of the mount: the kernel releases nothing then. */
static struct stg_lock open_lock = STG_LOCK(STG_RANK_NOTIFY);
static struct dir_handle *open_handles; /* protected by open_lock */

static struct dir_handle *handle_of(const struct fuse_file_info *fi) {
    return (struct dir_handle *)(uintptr_t)fi->fh;
}

static void list_handle(struct dir_handle *handle) {
    stg_lock_take(&open_lock);
    handle->next_open = open_handles;
    handle->link = &open_handles;
    if (handle->next_open)
        handle->next_open->link = &handle->next_open;
    open_handles = handle;
    stg_lock_drop(&open_lock);
}

static void unlist_handle(struct dir_handle *handle) {
    stg_lock_take(&open_lock);
    *handle->link = handle->next_open;
    if (handle->next_open)
        handle->next_open->link = handle->link;
    stg_lock_drop(&open_lock);
}

static void free_handle(struct dir_handle *handle) {
    stg_given_end(handle->folder, &handle->giving, false);
    unlist_handle(handle);
    stg_fd_close(handle->fd);
    stg_lock_fini(&handle->lock);
    free(handle);
}

static void use_handle(struct dir_handle *handle) {
    stg_lock_take(&open_lock);
    handle->users++;
    stg_lock_drop(&open_lock);
}

/* One user less: the last frees it. */
static void drop_handle(struct dir_handle *handle) {
    bool last;

    stg_lock_take(&open_lock);
    last = !--handle->users;
    stg_lock_drop(&open_lock);
    if (last)
        free_handle(handle);
}

/*
 * Opens the folder, unless it is `known`: the kernel keeps its listing. `room` bytes of it are read
 * at once. 0 or -errno.
 */
static int new_handle(fuse_req_t req, struct stg_inode *inode, bool known, size_t room,
                      struct dir_handle **ret_handle) {
    struct dir_handle *handle = malloc(sizeof(*handle));
    const struct stg_folder *kept = stg_catalog_folder(inode);
    int fd = -1;

    if (!handle)
        return -ENOMEM;
    if (!kept && !known)
        fd = stg_primer_asks(req) == STG_PRIMER_KEPT
                 ? -EAGAIN
                 : stg_inode_open(inode, O_RDONLY | O_DIRECTORY);
    if (!kept && !known && fd < 0) {
        free(handle);
        return fd;
    }
    handle->fd = fd;
    handle->kept = kept;
    handle->folder = inode;
    handle->giving = (struct stg_giving){0};
    handle->position = 0;
    handle->next = handle->filled = 0;
    handle->room = room;
    handle->users = 1;
    stg_lock_init(&handle->lock, STG_RANK_DIRECTORY);
    list_handle(handle);
    *ret_handle = handle;
    return 0;
}

/*
 * May the kernel keep the listing? Where nobody changes the folder; but not once the catalog is
 * over, whose offsets are others for whoever is in the middle of a listing.
 */
static bool may_be_kept(void) {
    return stg_fs.options.coherence == STG_COHERENCE_FROZEN && stg_fs.options.read_only &&
           !stg_catalog_is_over();
}

void stg_op_opendir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi) {
    struct stg_inode *inode = stg_inode_of(nodeid);
    bool is_current = stg_given_is_current(inode);
    struct stg_wait wait = {0};
    struct dir_handle *handle;
    int error;

    if (stg_fs.no_opendir) { /* and no other will come */
        stg_reply_result(req, -ENOSYS);
        return;
    }
    stg_inode_ref(inode); /* the kernel may forget it once it is answered */
    if (inode->volume->remote && !is_current)
        stg_wait_begin(&wait, req);
    error = new_handle(req, inode, is_current, DIR_BUFFER_BYTES, &handle);
    if (!stg_wait_end(&wait)) {
        if (!error)
            drop_handle(handle);
        stg_inode_unref(inode);
        return;
    }
    if (error) {
        stg_reply_result(req, error);
        stg_inode_unref(inode);
        return;
    }
    fi->fh = (uintptr_t)handle;
    fi->keep_cache = is_current || may_be_kept();
    fi->cache_readdir = fi->keep_cache || stg_given_may_be_kept(inode) ||
                        (stg_primer_asks(req) == STG_PRIMER_LOOKS && stg_lease_may(inode));
    if (fuse_reply_open(req, fi) == -ENOENT)
        drop_handle(handle);
    stg_inode_unref(inode);
}

/* The entry of that number of what is kept, as getdents(2) would give it. */
static int peek_kept(struct dir_handle *handle, struct dirent64 **ret_entry) {
    struct dirent64 *entry = (struct dirent64 *)(void *)handle->buffer;
    size_t number = (size_t)handle->position;
    struct stg_folder_entry kept = {.name = number ? ".." : ".",
                                    .stx = {.stx_ino = handle->folder->ino, .stx_mode = S_IFDIR}};

    if (handle->position < 0 || number >= stg_folder_count(handle->kept) + DOTS)
        return 0;
    if (number >= DOTS) {
        stg_folder_at(handle->kept, number - DOTS, &kept);
        kept.stx.stx_ino = stg_catalog_number(handle->folder, &kept);
    }
    *entry = (struct dirent64){.d_ino = kept.stx.stx_ino,
                               .d_off = handle->position + 1,
                               .d_reclen = sizeof(*entry),
                               .d_type = (unsigned char)(kept.stx.stx_mode >> 12)};
    memcpy(entry->d_name, kept.name, strlen(kept.name) + 1); /* NAME_MAX at most */
    *ret_entry = entry;
    return 1;
}

/* The entry at the handle's position: 1, 0 at the end, or -errno. The handle's lock is held. */
static int peek_locked(struct dir_handle *handle, struct dirent64 **ret_entry) {
    if (handle->kept)
        return peek_kept(handle, ret_entry);
    if (handle->next >= handle->filled) {
        ssize_t got = getdents64(handle->fd, handle->buffer, handle->room);

        handle->next = handle->filled = 0;
        if (got <= 0)
            return got ? -errno : 0;
        handle->filled = (size_t)got;
    }
    *ret_entry = (struct dirent64 *)(void *)(handle->buffer + handle->next);
    return 1;
}

static void advance_locked(struct dir_handle *handle, const struct dirent64 *entry) {
    handle->position = entry->d_off;
    handle->next += entry->d_reclen;
}

static int open_locked(struct dir_handle *handle) {
    int fd = stg_inode_open(handle->folder, O_RDONLY | O_DIRECTORY);

    if (fd < 0)
        return fd;
    handle->fd = fd;
    handle->kept = NULL;
    return 0;
}

/* From its beginning on a folder is listed as it is now. 0 or -errno. */
static int leave_kept_locked(struct dir_handle *handle) {
    return !handle->kept || handle->kept == stg_catalog_folder(handle->folder)
               ? 0
               : open_locked(handle);
}

/*
 * Goes to where another listing of the folder was, which the kernel has kept the beginning of: from
 * the front, as sshfs 3.7 ends itself where a folder is read from the middle that was just opened.
 */
static int skip_locked(struct dir_handle *handle, off_t offset) {
    struct dirent64 *entry;
    int result = 1;

    while (handle->position != offset && (result = peek_locked(handle, &entry)) == 1)
        advance_locked(handle, entry);
    return result < 0 ? result : 0;
}

static int seek_locked(struct dir_handle *handle, off_t offset) {
    int error = offset ? 0 : leave_kept_locked(handle);

    if (error)
        return error;
    /* 0 is always a rewind: it must show what has changed since. */
    if (offset == handle->position && offset)
        return 0;
    stg_given_end(handle->folder, &handle->giving, false);
    if (!handle->kept && handle->fd < 0) {
        error = open_locked(handle);
        if (error || offset)
            return error ? error : skip_locked(handle, offset);
    }
    if (!handle->kept && lseek(handle->fd, offset, SEEK_SET) < 0)
        return -errno;
    handle->position = offset;
    handle->next = handle->filled = 0;
    if (!offset && !handle->kept)
        stg_given_begin(handle->folder, &handle->giving);
    return 0;
}

struct listing {
    fuse_req_t req;
    struct stg_inode *inode;
    char *buffer;
    size_t size;
    size_t used;
    bool plus;
    bool names_alone; /* who primes the kernel looks them up one by one, as those are leased */
};

/* What getdents itself tells, in the form that the reply wants. */
static void fill_plain(const struct listing *listing, const struct dirent64 *entry,
                       struct fuse_entry_param *ret_param) {
    *ret_param = (struct fuse_entry_param){
        .attr.st_ino = stg_volume_ino(listing->inode->volume, entry->d_ino),
        .attr.st_mode = (mode_t)entry->d_type << 12,
    };
}

/* Adds one entry. False where it does not fit. */
static bool add_entry(struct listing *listing, const struct dirent64 *entry) {
    char *at = listing->buffer + listing->used;
    size_t room = listing->size - listing->used;
    struct stg_inode *inode = NULL;
    struct fuse_entry_param param;
    struct statx stx;
    size_t needed;
    bool is_dots = stg_name_is_dots(entry->d_name);

    fill_plain(listing, entry, &param);
    if (!listing->plus) {
        needed =
            fuse_add_direntry(listing->req, at, room, entry->d_name, &param.attr, entry->d_off);
    } else {
        /* One that cannot be looked up is listed all the same: the kernel asks when it must. */
        if (!is_dots && !listing->names_alone &&
            fuse_add_direntry_plus(listing->req, NULL, 0, entry->d_name, NULL, 0) <= room &&
            !stg_lookup_for(listing->req, listing->inode, entry->d_name, &inode, &stx))
            stg_reply_fill_entry(listing->inode, inode, &stx, &param);
        needed =
            fuse_add_direntry_plus(listing->req, at, room, entry->d_name, &param, entry->d_off);
    }
    if (needed > room) {
        if (inode)
            stg_inode_forget(inode, 1);
        return false;
    }
    listing->used += needed;
    stg_listing_saw(listing->inode, entry->d_name);
    return true;
}

/* Of entries that are read once more with the next request no more than this one can take. */
static size_t room_for(size_t size, bool plus) {
    size_t room = plus ? size / 3 : size; /* an entry with attributes is so much larger */

    return room < DIR_BUFFER_MIN_BYTES ? DIR_BUFFER_MIN_BYTES
           : room < DIR_BUFFER_BYTES   ? room
                                       : DIR_BUFFER_BYTES;
}

/* A folder that is gone is not there for who has it open, either: getdents(2) says ENOENT. */
static int of_removed(bool opened_late, int error) {
    return opened_late && (error == -ESTALE || error == -EINVAL) ? -ENOENT : error;
}

/*
 * Adds what comes from there on. In `*ret_opens`: was the folder to be opened for it? As
 * peek_locked().
 */
static int fill(struct listing *listing, struct dir_handle *handle, off_t offset, bool *ret_opens) {
    struct dirent64 *entry = NULL;
    int result;

    stg_lock_take(&handle->lock);
    *ret_opens = *ret_opens || (handle->fd < 0 && !handle->kept);
    result = seek_locked(handle, offset);
    if (!result) {
        while ((result = peek_locked(handle, &entry)) == 1 && add_entry(listing, entry)) {
            stg_given_entry(&handle->giving, entry);
            advance_locked(handle, entry);
        }
        if (result <= 0)
            stg_given_end(handle->folder, &handle->giving, !result);
    }
    stg_lock_drop(&handle->lock);
    return result;
}

/* For who primes the kernel by what the source has, which is not waited for (waits.h). */
static void list_for_primer(struct listing *listing, struct dir_handle *handle, off_t offset) {
    struct stg_inode *folder = listing->inode;
    struct stg_wait wait = {0};
    bool opens = false;
    int result;

    listing->names_alone = true;
    use_handle(handle); /* the kernel may let go of both once it is answered */
    stg_inode_ref(folder);
    stg_wait_begin(&wait, listing->req);
    result = fill(listing, handle, offset, &opens);
    if (!result)
        (void)stg_lease_listing(folder);
    if (!stg_wait_end(&wait))
        ; /* somebody else has answered it */
    else if (result < 0 && !listing->used)
        stg_reply_result(listing->req, of_removed(opens, result));
    else
        (void)fuse_reply_buf(listing->req, listing->buffer, listing->used); /* nothing to undo */
    drop_handle(handle);
    stg_inode_unref(folder);
}

static void list(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                 struct fuse_file_info *fi, bool plus) {
    stg_auto_look look = stg_coherence_enter();
    enum stg_primer_way primer = stg_primer_asks(req);
    struct dir_handle *handle = handle_of(fi);
    stg_auto_free char *buffer = malloc(size);
    struct listing listing = {
        .req = req, .inode = stg_inode_of(nodeid), .buffer = buffer, .size = size, .plus = plus};
    int result = buffer ? 0 : -ENOMEM;
    bool opens = !handle; /* the folder, only now */
    bool doubted;

    /* What is not kept any more is left to who needs it. */
    if (!result && primer == STG_PRIMER_KEPT && !stg_catalog_folder(listing.inode))
        result = -EAGAIN;
    if (!result && !handle)
        result = new_handle(req, listing.inode, false, room_for(size, plus), &handle);
    if (result) {
        stg_reply_result(req, of_removed(opens, result));
        return;
    }
    if (primer == STG_PRIMER_LOOKS) {
        list_for_primer(&listing, handle, offset);
        return;
    }
    result = fill(&listing, handle, offset, &opens);
    if (!fi->fh)
        drop_handle(handle);
    stg_catalog_asked(listing.inode);
    if (plus)
        stg_coherence_listed(listing.inode);
    stg_record_listed(listing.inode);
    doubted = !fi->fh && !stg_coherence_is_kept(listing.inode);
    if (doubted)
        stg_inode_ref(listing.inode); /* the kernel may forget it once it is answered */
    if (result < 0 && !listing.used)
        stg_reply_result(req, of_removed(opens, result));
    else
        (void)fuse_reply_buf(req, buffer, listing.used); /* nothing to undo where it is gone */
    if (doubted) {
        stg_notify_listing_later(listing.inode);
        stg_inode_unref(listing.inode);
    }
}

void stg_op_readdir(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                    struct fuse_file_info *fi) {
    list(req, nodeid, size, offset, fi, false);
}

void stg_op_readdirplus(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
                        struct fuse_file_info *fi) {
    list(req, nodeid, size, offset, fi, true);
}

void stg_op_releasedir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi) {
    (void)nodeid;
    if (fi->fh)
        drop_handle(handle_of(fi));
    stg_reply_result(req, 0);
}

void stg_op_fsyncdir(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *fi) {
    stg_auto_fd int own_fd = -1;
    int fd = -1;

    if (fi->fh) {
        stg_lock_take(&handle_of(fi)->lock);
        fd = handle_of(fi)->fd; /* once there, it stays */
        stg_lock_drop(&handle_of(fi)->lock);
    }
    if (fd < 0)
        fd = own_fd = stg_inode_open(stg_inode_of(nodeid), O_RDONLY | O_DIRECTORY);
    stg_reply_result(req, fd < 0 ? fd : (datasync ? fdatasync(fd) : fsync(fd)) ? -errno : 0);
}

void stg_op_dir_fini(void) {
    while (open_handles) /* no request is under way any more: no lock is needed to look */
        free_handle(open_handles);
}
