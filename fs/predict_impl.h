/* SPDX-License-Identifier: GPL-2.0-only */
/* What predict.c (accounts, queue, threads) and the predictors share. For these alone. */
#ifndef STG_FS_PREDICT_IMPL_H
#define STG_FS_PREDICT_IMPL_H

#include "fs/predict.h"

/* The bits of inode->hints. */
#define STG_HINT_CODE 1U    /* a source that may include others */
#define STG_HINT_WANTED 2U  /* somebody has opened it */
#define STG_HINT_GUESSED 4U /* staged by a predictor, and not opened since */
#define STG_HINT_DEPENDS 8U /* a file in which a compiler has told what its source includes */
#define STG_HINT_BY_SHIFT 4 /* above: which one, one bit */

/* Work for the threads: about a name, as seen from a folder. */
enum stg_guess_kind {
    STG_GUESS_INCLUDE_QUOTED,
    STG_GUESS_INCLUDE_ANGLED,
    STG_GUESS_SIBLING,      /* the name is in the folder */
    STG_GUESS_FOLDER,       /* the folder is to be read, for its names; no name */
    STG_GUESS_GRAPH,        /* a build begins in the folder; no name */
    STG_GUESS_GRAPH_FILE,   /* a path from the folder, as the next */
    STG_GUESS_GRAPH_FOLDER, /* it is searched for what is included */
    STG_GUESS_DEPENDED,     /* a path that a file in the folder names */
};

bool stg_predict_is_on(enum stg_predictor which);

/* Queues work behind all other; false where that is full, or at the end. */
bool stg_predict_push(enum stg_guess_kind kind, struct stg_inode *folder, const char *name);

/* The mount ends: what is being followed is given up. */
bool stg_predict_is_ending(void);

/* Does the predictor hold back? Counts a guess that is not followed because of that. */
bool stg_predict_holds_back(enum stg_predictor which);

/*
 * Has the file staged, where it is small, regular and not staged yet. True where that begins. May
 * look at the source. Who calls has asked whether the predictor holds back.
 */
bool stg_predict_stage(struct stg_inode *inode, enum stg_predictor which);

/*
 * The object of that name in the folder, referenced; NULL where there is none, or it is a symbolic
 * link. Asks the source where the listing of the folder does not know.
 */
struct stg_inode *stg_predict_find(struct stg_inode *folder, const char *name);

/*
 * The object by that path below the folder, referenced; NULL where there is none. ".." leads to the
 * folder in which a folder was found first, and above the source nowhere.
 */
struct stg_inode *stg_predict_walk(struct stg_inode *folder, const char *path);

/* ---- of the predictors ---- */

void stg_include_scan(struct stg_inode *inode, const char *content, uint64_t bytes);
void stg_include_probed(struct stg_inode *folder, const char *name);
void stg_include_resolve(struct stg_inode *folder, const char *name, bool angled);
/* A compiler searches the folder: it was `asked_for` there, or that is known otherwise. */
void stg_include_searched(struct stg_inode *folder, bool asked_for);
void stg_include_removed(const struct stg_inode *folder);
void stg_include_fini(void);

void stg_sibling_opened(struct stg_inode *inode);
void stg_sibling_read_folder(struct stg_inode *folder);
void stg_sibling_removed(const struct stg_inode *folder);
void stg_sibling_fini(void);

bool stg_graph_is_begin(const char *name);
void stg_graph_read(struct stg_inode *folder);
void stg_graph_stage(const char *path);
void stg_graph_search(const char *path);
void stg_graph_used(void);
void stg_graph_fini(void);

void stg_dependence_scan(struct stg_inode *inode, const char *content, uint64_t bytes);
void stg_dependence_stage(struct stg_inode *folder, const char *path);
void stg_dependence_removed(const struct stg_inode *folder);
void stg_dependence_fini(void);

void stg_profiles_used(void);
void stg_profiles_removed(const struct stg_inode *folder);
void stg_profiles_fini(void);

#endif
