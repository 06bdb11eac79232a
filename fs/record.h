/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Recording: which files and folders are touched through the mount, in their order, as a profile.
 *
 * What the kernel answers alone is not heard of: so before a recording begins the kernel is told to
 * forget names, and, where it serves files without opens, their pages. One recording at a time; its
 * text stays to be fetched until it is dropped, or the next begins. Thread-safe.
 */
#ifndef STG_FS_RECORD_H
#define STG_FS_RECORD_H

#include "fs/inode.h"

#include <stdatomic.h>

enum stg_record_state { STG_RECORD_NONE, STG_RECORD_STARTING, STG_RECORD_RUNNING, STG_RECORD_OVER };

/* The number of the recording that is going on; 0: none. For the three below. */
extern _Atomic uint32_t stg_recording;

void stg_record_note_asked(struct stg_inode *folder, const char *name, bool found);
void stg_record_note_listed(struct stg_inode *folder);
void stg_record_note_read(struct stg_inode *inode);

static inline bool stg_record_is_on(void) {
    return atomic_load_explicit(&stg_recording, memory_order_relaxed);
}

/* A name was asked for in the folder. May look at the source, as those below. */
static inline void stg_record_asked(struct stg_inode *folder, const char *name, bool found) {
    if (stg_record_is_on())
        stg_record_note_asked(folder, name, found);
}

/* The folder was listed. */
static inline void stg_record_listed(struct stg_inode *folder) {
    if (stg_record_is_on())
        stg_record_note_listed(folder);
}

/* The file was opened, or read where nobody tells of opens. */
static inline void stg_record_read(struct stg_inode *inode) {
    if (stg_record_is_on())
        stg_record_note_read(inode);
}

/*
 * Begins a recording, which is running a moment later, in place of one that is over; its number is
 * in `*ret_number`. Returns 0; -EBUSY, one is going on; -ENOMEM.
 */
int stg_record_start(uint64_t *ret_number);

/* Each is about the recording of that number, or (0) about any: -ENOENT where there is none. */

/* Ends it, where it is not over. Returns 0, or -ENOMEM: it is lost. */
int stg_record_stop(uint64_t number);

/* Ends it and forgets what was recorded. */
int stg_record_drop(uint64_t number);

/* A part of the text, once it is over. Returns the bytes, 0 at its end. */
ssize_t stg_record_text(uint64_t number, uint64_t offset, char *buffer, size_t bytes);

struct stg_record_view {
    enum stg_record_state state;
    uint64_t number;
    uint64_t entries;
    uint64_t left_out;
    uint64_t text_bytes; /* once it is over */
};
struct stg_record_view stg_record_view(void);

/* Ends the thread and drops what was recorded. */
void stg_record_fini(void);

#endif
