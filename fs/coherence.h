/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long the kernel may keep what it was told, and what makes it forget.
 *
 *   watch   for ever: the source's events say what to forget (watch.h). What cannot be watched,
 *           a remote file system mounted below the source, is kept for `ttl`.
 *   ttl     for that time.
 *   strict  not at all: each lookup is the daemon's.
 *   frozen  for ever, and nothing is looked at again.
 *
 * An object's `version` stands for the size and the times of the content that the kernel has pages
 * of. Where they are seen to be others, those pages are dropped before that is answered.
 *
 * docs/coherence.md has the promises in words for users.
 */
#ifndef STG_FS_COHERENCE_H
#define STG_FS_COHERENCE_H

#include "fs/inode.h"

/* Starts watching and telling, once the session is there. 0 or -errno. */
int stg_coherence_start(void);

/* Ends both; in two steps around the unmount, which lets go who waits in the kernel. */
void stg_coherence_stop(void);
void stg_coherence_fini(void);

/* How long the kernel may keep names in the folder, names that are not there, and attributes. */
double stg_coherence_entry_timeout_s(const struct stg_inode *folder);
double stg_coherence_negative_timeout_s(const struct stg_inode *folder);
double stg_coherence_attr_timeout_s(const struct stg_inode *inode);

/* The longest that any name may be kept where they cannot be dropped at once. */
double stg_coherence_longest_name_s(void);

/* How long a staged copy is good without a look at the source; INT64_MAX: for ever. */
int64_t stg_coherence_recheck_ns(const struct stg_inode *inode);

/* Will every change of the object be heard of? */
static inline bool stg_coherence_is_watched(const struct stg_inode *inode) {
    return inode->volume->watched;
}

/*
 * Does the kernel keep attributes of the object until it is told otherwise? Where not, a listing
 * that it keeps of a folder may be another without its mtime's being one.
 */
static inline bool stg_coherence_is_kept(const struct stg_inode *inode) {
    return inode->volume->watched || stg_fs.options.coherence == STG_COHERENCE_FROZEN;
}

/*
 * The source's attributes were seen, and are going to be answered: has pages of another version
 * dropped, and waits for that, a second at most. Not from a READ, which such a drop may wait for.
 */
void stg_coherence_saw(struct stg_inode *inode, const struct statx *stx);

/*
 * The attributes were changed through the mount, and are going to be answered: the kernel takes
 * them without a look at its pages, which may have been of the past before that.
 */
void stg_coherence_changed(struct stg_inode *inode);

/* May the file change once more without another time? */
bool stg_coherence_is_young(const struct stg_inode *inode, const struct statx *stx);

/* A name was made in the folder through the mount; before the answer. */
void stg_coherence_made_name(struct stg_inode *folder);

/* ---- requests that answer what they have seen ---- */

/*
 * A sync waits for those that began before it, as they may answer what is past. Begins one; ended
 * with stg_coherence_leave(), after the answer.
 */
unsigned stg_coherence_enter(void);
void stg_coherence_leave(unsigned *turn);
#define stg_auto_look __attribute__((cleanup(stg_coherence_leave))) unsigned

/* Waits for all requests that began before the call; at the end no longer. */
void stg_coherence_await_requests(void);

/* A folder was listed with attributes; before the answer. */
void stg_coherence_listed(struct stg_inode *folder);

/* ---- when something changed that no event or attribute tells ---- */

/* Everything that the kernel knows is to be looked at again. */
void stg_coherence_doubt_all(void);

/*
 * The same, exactly, for what is not watched: when it returns, nothing that was seen before it was
 * called is answered or kept any more. Waits for requests under way, and looks at each file whose
 * pages the kernel may have.
 */
void stg_coherence_revalidate(void);

/* Names are dropped by one notification, FUSE_NOTIFY_INC_EPOCH (Linux 6.16). */
bool stg_coherence_has_epoch(void);

/* The words of the options, for people. */
const char *stg_coherence_name(enum stg_coherence coherence);

#endif
