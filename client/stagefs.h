/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libstagefs: what a program can ask of the stagefs mount that its files are on.
 *
 * A program may call all of this wherever its files are: where a file is not on a stagefs mount, or
 * the mount does not stage, each call does what the kernel offers instead, as said at the call.
 *
 * Unless said otherwise a call returns -1 on failure with errno set, keeps nothing of what it was
 * given, opens what it opens with O_CLOEXEC and closes it again. There is no global state: all
 * calls may be made by several threads at once. A signal does not end a call. Sizes are in bytes.
 *
 * Paths are relative to a folder's descriptor `dirfd`, to the working directory with AT_FDCWD, or
 * absolute. Descriptors are not of O_PATH, except a `dirfd`.
 */
#ifndef STAGEFS_H
#define STAGEFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STAGEFS_API __attribute__((visibility("default")))

#define STAGEFS_SET_NAME_BYTES 64 /* a set's name with its NUL */

/* How a file is staged. */
enum stagefs_mode {
    STAGEFS_NONE = 0,     /* not at all */
    STAGEFS_MMAP = 1,     /* the kernel reads ahead and keeps the pages */
    STAGEFS_PREFETCH = 2, /* a whole copy is kept in memory */
    STAGEFS_ADAPTIVE = 3, /* the one or the other, by the file's size and use */
    STAGEFS_DEFAULT = 4   /* as the mount was told to; in a call, never in an answer */
};

/* What there is of a file in the cache. */
enum stagefs_state {
    STAGEFS_ABSENT = 0,  /* nothing */
    STAGEFS_FILLING = 1, /* it is being fetched */
    STAGEFS_HOT = 2,     /* a copy */
    STAGEFS_COLD = 3,    /* a compressed copy */
    STAGEFS_STALE = 4    /* a copy of an older version, served to who has it open and nobody else */
};

/* ---- several files ---- */

/* What came of a call, or has so far. */
struct stagefs_result {
    uint64_t files;          /* found: those named, and with `recursive` those below */
    uint64_t staged;         /* of them staged, or in no need of it; for unstaging: unstaged */
    uint64_t failed;         /* of them neither */
    uint64_t bytes;          /* of the files that are done */
    int first_error;         /* an errno value; 0 where nothing failed */
    char first_failed[4096]; /* the path it was about, cut where it is longer */
    uint64_t reserved[4];
};

/*
 * Called in the caller's thread about 20 to 1000 times a second while a call waits, and once at its
 * end. Other than 0 ends the waiting, but not the work: the call then fails with ECANCELED.
 */
typedef int (*stagefs_progress)(const struct stagefs_result *so_far, void *data);

/* Begin with STAGEFS_OPTIONS_INIT, so that fields of later versions have their defaults. */
struct stagefs_options {
    size_t size; /* of this structure */
    enum stagefs_mode mode;
    int recursive;   /* other than 0: of folders all regular files below */
    int no_wait;     /* other than 0: return when the mount has the paths, with the work to come */
    const char *set; /* NULL, or the name of the set that the files join */
    stagefs_progress progress; /* or NULL */
    void *data;                /* for `progress` */
};

#define STAGEFS_OPTIONS_INIT                                                                       \
    { sizeof(struct stagefs_options), STAGEFS_DEFAULT, 0, 0, NULL, NULL, NULL }

/*
 * Stages the `n` files in one go, all in `mode`, and returns when they are staged.
 *
 * Returns how many are; less than `n` where some failed, with errno telling why the first of them
 * did; -1 where all did, or the call itself. A failure stops none of the others. Symbolic links are
 * followed. A folder fails with EISDIR, what is neither folder nor regular file with EINVAL.
 *
 * Where the mount serves from the kernel's page cache, the caller's thread then reads the files, up
 * to the mount's limit for copies in memory: who reads them after that asks nobody. This is part of
 * the waiting, and done by each call that waits for files to be staged.
 *
 * Outside a mount: the kernel is told that the files will be needed (POSIX_FADV_WILLNEED), and each
 * that it could be told of counts as staged.
 *
 * Errors of a file are those of open(2), and EAGAIN where its outcome was lost: ask again. Of the
 * call: EINVAL (a mode or a set's name that there is not, n too large), EBADF, ENOMEM.
 */
STAGEFS_API int stagefs_stage(int dirfd, enum stagefs_mode mode, const char *const *files,
                              size_t n);

/* The same, with the files one by one and (char *)NULL after the last. */
STAGEFS_API int stagefs_stage_files(int dirfd, enum stagefs_mode mode, const char *first, ...)
    __attribute__((sentinel));

/*
 * The same with options (NULL: the defaults). With `recursive` the result counts the files found,
 * and a folder without any is no failure; symbolic links below a folder are not followed, nor are
 * other mounts entered. With `no_wait` the result counts the paths that the mount has taken, and
 * what happens to them is not told.
 *
 * `result` may be NULL; it is filled in unless the call failed with EINVAL or ENOMEM. Returns as
 * stagefs_stage(), at most INT_MAX; and -1 with ECANCELED.
 */
STAGEFS_API int stagefs_stage_with(int dirfd, const char *const *files, size_t n,
                                   const struct stagefs_options *options,
                                   struct stagefs_result *result);

/*
 * Drops what is staged of the files, with the arguments and the answers of stagefs_stage_with();
 * mode and set are not looked at. Outside a mount the kernel is told that it may drop the pages
 * (POSIX_FADV_DONTNEED).
 */
STAGEFS_API int stagefs_unstage_files(int dirfd, const char *const *files, size_t n,
                                      const struct stagefs_options *options,
                                      struct stagefs_result *result);

/* ---- one open file ---- */

/*
 * Stage the file that `fd` is open on, and return 0 when it is staged; as the mount finds best, or
 * in the one mode. Errors and outside a mount: as stagefs_stage().
 */
STAGEFS_API int stagefs_stage_auto(int fd);
STAGEFS_API int stagefs_stage_mmap(int fd);
STAGEFS_API int stagefs_stage_prefetch(int fd);

/* Drops what is staged of the file; `fd` stays good. Outside a mount: POSIX_FADV_DONTNEED. */
STAGEFS_API int stagefs_unstage(int fd);

/*
 * Drops what is staged of the files of a set. `fd` is any folder or file of the mount. Outside a
 * mount there are no sets: 0. Errors: EINVAL (no such name can be), ENOENT (no such set), and EXDEV
 * where the mount's root folder cannot be reached from here.
 */
STAGEFS_API int stagefs_unstage_set(int fd, const char *set);

/* 1 where a copy of the file is kept (hot or cold), else 0; outside a mount 0. */
STAGEFS_API int stagefs_is_staged(int fd);

/* The mode (an enum stagefs_mode) in which the file is or would be staged; outside: STAGEFS_NONE.
 */
STAGEFS_API int stagefs_stage_mode(int fd);

struct stagefs_status {
    int on_mount; /* 0: not on a stagefs mount, or it does not stage; the rest is then empty but
                     for the size */
    enum stagefs_mode mode;
    enum stagefs_state state;
    uint32_t opens;                   /* through the mount, now */
    int copied;                       /* 1: a copy is what is served to who opens it now */
    uint64_t hits;                    /* opens that a copy served */
    uint64_t size;                    /* of the file */
    uint64_t staged;                  /* in memory, compressed or not */
    char set[STAGEFS_SET_NAME_BYTES]; /* or "" */
    char why[96];                     /* the reason, for people */
    uint64_t reserved[8];
};

/*
 * What is known of a file, which is not opened for this (to open it might stage it). Symbolic links
 * are followed. Returns 0, and `*status` untouched on failure.
 */
STAGEFS_API int stagefs_status(int dirfd, const char *path, struct stagefs_status *status);

/* ---- advice ---- */

/*
 * Advice on a range of the file, as posix_fadvise(2), which is also what is done outside a mount;
 * `length` 0: to the end. Return 0. Errors: EINVAL (a negative number), EBADF, ESPIPE.
 */
STAGEFS_API int stagefs_advise_sequential(int fd, off_t offset, off_t length);
STAGEFS_API int stagefs_advise_random(int fd, off_t offset, off_t length);
STAGEFS_API int stagefs_advise_willneed(int fd, off_t offset, off_t length);
STAGEFS_API int stagefs_advise_dontneed(int fd, off_t offset, off_t length);

/* ---- what others change ---- */

/*
 * Waits until every change that was made on the source of the mount before the call, and not
 * through the mount, shows there: to be called between what changes the source and what reads it
 * through the mount. `fd` is open on anything of the mount. Returns 0 then; -1 with ETIMEDOUT where
 * that took longer than `timeout_s` seconds (negative: no limit; 0: it is asked once).
 *
 * Outside a mount, changes show when they are made: 0. A mount that does not stage is asked as
 * well.
 *
 * Errors: EINVAL (no number), EBADF, and ENOTCONN where the mount's daemon is gone.
 */
STAGEFS_API int stagefs_sync(int fd, double timeout_s);

/* ---- copying ---- */

/*
 * Copies a regular file without its bytes passing through the program where that can be: shared
 * with the source (FICLONE), else by copy_file_range(2), else by sendfile(2), else by reading and
 * writing; what breaks off half-way is gone on with by the next. Holes stay holes. On a mount or
 * not makes no difference. Returns the length of the copy.
 *
 * `dst` is complete or as it was: the copy is written under another name in its folder and renamed,
 * and that name is removed on failure (but not if the program is killed). It is not forced to disk.
 * A new file has the source's permissions less the umask and no set-ID bits; an existing one keeps
 * its permissions, and its owner where the caller may give it, but is a new file: other hard links
 * keep the old contents, ACLs and attributes are not taken over. A `dst` that is a symbolic link is
 * followed; its target must exist.
 *
 * Errors: those of open(2), write(2) and rename(2); EISDIR (either is a folder), EINVAL (either is
 * no regular file, or both are the same), EACCES (also where an existing `dst` is not writable).
 */
STAGEFS_API int64_t stagefs_copy_zero(const char *src, const char *dst);
STAGEFS_API int64_t stagefs_copy_zero_at(int src_dirfd, const char *src, int dst_dirfd,
                                         const char *dst);

/*
 * The same between open files, from the beginning of the one to the beginning of the other, which
 * is cut or grown to the source's length and is incomplete after a failure. `dst_fd` is writable
 * and not of O_APPEND (EINVAL). The file offsets are undefined afterwards.
 */
STAGEFS_API int64_t stagefs_copy_zero_fd(int src_fd, int dst_fd);

#ifdef __cplusplus
}
#endif

#endif
