/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Priming the kernel with what an earlier mount has kept the names of, before anybody asks for
 * them.
 *
 * The kernel takes names and attributes only in answer to a request. So the process that was
 * started to make the mount, and has nothing to do but wait until that answers, walks through it
 * before it says that it is ready. Who walks through the tree then finds it in the kernel.
 *
 * With a catalog (coherence=frozen) it is answered from that, and from the copies on disk, or with
 * an error; the source is not asked for it. In a mount that looks at a remote source, and leases to
 * the kernel what it has seen (lease.h), it lists the folders that copies are kept of, several at a
 * time, and the source is asked for each name, as for anybody.
 *
 * Where it has to wait for too long nobody waits for it: it is killed, and what it asks for is
 * answered then, whatever the source does (waits.h).
 */
#ifndef STG_FS_PRIMER_H
#define STG_FS_PRIMER_H

#include "fs/inode.h"

#include <sys/types.h>

/*
 * How long the walk takes at most, where nothing has to be waited for: who waits for a mount would
 * rather have it than know all of its names. Twice as long where the source is asked: sshfs opens
 * its connections while everybody waits, a quarter of a second each. Builds with sanitizers are
 * that much slower.
 */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STG_PRIMER_WALK_NS INT64_C(5000000000)
#else
#define STG_PRIMER_WALK_NS INT64_C(1000000000)
#endif
#define STG_PRIMER_LOOK_NS (2 * STG_PRIMER_WALK_NS)

/* How many ask at once, where the source is asked. */
#define STG_PRIMER_THREADS 16

/* Who walks, by the numbers that the kernel gives to those that ask; shared by all processes. */
struct stg_primer_walker {
    _Atomic pid_t process; /* 0: nobody does */
    _Atomic pid_t threads[STG_PRIMER_THREADS];
    _Atomic bool has_listed; /* all that it was told, and what leads to that */
};

/* What the daemon tells: each of these with a path from the top ("." is the top), and a NUL. */
enum stg_primer_kind { STG_PRIMER_ABSENT = '-', STG_PRIMER_FILE = 'r', STG_PRIMER_FOLDER = 'd' };

/* ---- in the process that waits for the mount ---- */

/*
 * Lists what is kept of the tree, asks for what is known not to be there, and has the kernel read
 * what is kept of files, for STG_PRIMER_WALK_NS at most. `looks`: the source is asked, for
 * STG_PRIMER_LOOK_NS. `told` is
 * what stg_primer_begin() gave, at `since_ns` (monotonic).
 */
void stg_primer_walk(const char *mountpoint, struct stg_primer_walker *walker, bool looks,
                     const char *told, size_t told_bytes, int64_t since_ns);

/* ---- in the daemon ---- */

/* Will there be something to walk through, as far as the options tell? */
bool stg_primer_is_possible(void);

enum stg_primer_way { STG_PRIMER_NONE, STG_PRIMER_KEPT, STG_PRIMER_LOOKS };

/*
 * How that process (NULL: there is none) is to walk. What it is to know of that is in `*ret_told`,
 * and its requests are known for as long as it may take. The caller frees `*ret_told` in any case.
 * Before there are requests.
 */
enum stg_primer_way stg_primer_begin(struct stg_primer_walker *walker, char **ret_told,
                                     size_t *ret_bytes);

/* Does that process ask, and how? With STG_PRIMER_KEPT it is told what is kept and nothing else. */
enum stg_primer_way stg_primer_asks(fuse_req_t req);

/*
 * Is the tree listed by that process? Waits until it ends, 100 ms at most: then it may be going on
 * (*ret_ended).
 */
bool stg_primer_has_listed(bool *ret_ended);

/*
 * What is kept on disk of the beginning of the file, which the caller frees, and how large the file
 * is; NULL: nothing. Asks nobody.
 */
char *stg_primer_content(struct stg_inode *inode, uint64_t *ret_bytes, uint64_t *ret_file_bytes);

#endif
