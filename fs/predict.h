/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What will be read next is guessed, and staged before it is asked for, on sources that answer over
 * a network:
 *
 * - includes: a C or C++ file that is being staged is searched for what it includes, which is
 *   staged in turn, breadth first (predict_include.c);
 * - siblings: who opens the files of a folder one after the other gets the next ones
 *   (predict_sibling.c);
 * - graphs: where a build begins, what ninja remembers of earlier ones, and a compilation database
 *   says (predict_graph.c); and what compilers have left for make (predict_depfile.c);
 * - profiles: what a build asked for that was recorded, which is no guess (predict_profile.c).
 *
 * A guess is never waited for, and never in the way: readers come first in the queue of fetches,
 * what nobody has read is evicted first, and nothing is guessed while the copies fill most of
 * `mem=`. A predictor whose guesses are not read stops until its record is better, or old.
 *
 * Thread-safe. Nothing here is called with a lock of the rank of places or above held.
 */
#ifndef STG_FS_PREDICT_H
#define STG_FS_PREDICT_H

#include "fs/inode.h"

enum stg_predictor {
    STG_PREDICT_INCLUDES,
    STG_PREDICT_SIBLINGS,
    STG_PREDICT_GRAPHS,
    STG_PREDICT_PROFILES
};
#define STG_PREDICTORS (STG_PREDICT_PROFILES + 1)

/* Ends the threads; what was guessed and not begun is given up. Before the engine stops. */
void stg_predict_stop(void);

/* The inode was found by that name in the folder; it is the caller's for the moment. */
void stg_predict_met(struct stg_inode *inode, struct stg_inode *folder, const char *name);

/* Somebody asked for that name in the folder, whether it is there or not. */
void stg_predict_probed(struct stg_inode *folder, const char *name);

/* Somebody is going to read the file; `missed`: there is no copy, nor is one being made. */
void stg_predict_wanted(struct stg_inode *inode, bool missed);

/* The beginning of the file was read from the source, by whoever stages it. */
void stg_predict_content(struct stg_inode *inode, const char *content, uint64_t bytes);

/* The copy of the file is gone, or a part of it. */
void stg_predict_evicted(struct stg_inode *inode);

/* The object's last name was removed through the mount: nothing is guessed from it any more. */
void stg_predict_removed(struct stg_inode *inode);

/*
 * Gives up what the inode keeps of all that. Returns the folder that it was found in first, whose
 * reference is the caller's; NULL: none is kept.
 */
struct stg_inode *stg_predict_free(struct stg_inode *inode);

/* What a predictor has done since the mount began. */
struct stg_predict_view {
    const char *name; /* as predict= has it; constant */
    bool enabled;
    bool throttled;
    uint64_t files; /* that it had staged */
    uint64_t bytes;
    uint64_t used_files; /* of them those that somebody opened afterwards */
    uint64_t used_bytes;
    uint64_t unread_bytes; /* that are there now, and nobody has read; whole KiB of each file */
    uint64_t lost_files;   /* that were evicted before somebody opened them */
    uint64_t opened_files; /* by anybody for the first time, guessed or not: for the recall */
    uint64_t skipped;      /* guesses that were not followed: throttled, or no room */
};
struct stg_predict_view stg_predict_view(enum stg_predictor which);

#endif
