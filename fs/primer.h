/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Priming the kernel with the folders that the catalog has, before anybody asks for them.
 *
 * The kernel takes names and attributes only in answer to a request. So the process that was
 * started to make the mount, and has nothing to do but wait until that answers, lists what is kept
 * of the tree through the mount before it says that it is ready. Who walks through the tree then
 * finds it in the kernel.
 *
 * It is answered from the catalog, and from the copies on disk, or with an error; the source is not
 * asked for it. Where it has to wait all the same, nobody waits for it.
 */
#ifndef STG_FS_PRIMER_H
#define STG_FS_PRIMER_H

#include "fs/inode.h"

#include <sys/types.h>

/*
 * How long the walk takes at most, where nothing has to be waited for: who waits for a mount would
 * rather have it than know all of its names. Builds with sanitizers are that much slower.
 */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STG_PRIMER_WALK_NS INT64_C(5000000000)
#else
#define STG_PRIMER_WALK_NS INT64_C(1000000000)
#endif

/* ---- in the process that waits for the mount ---- */

/*
 * Lists what is kept of the tree, from above, asks for what is known not to be there, and has the
 * kernel read what is kept of files, for STG_PRIMER_WALK_NS at most. `told` is what
 * stg_primer_begin() gave, at `since_ns` (monotonic).
 */
void stg_primer_walk(const char *mountpoint, const char *told, size_t told_bytes, int64_t since_ns);

/* ---- in the daemon ---- */

/*
 * Is there something for the process `walker` (0: there is none) to walk through? Then what it is
 * to know of that is in `*ret_told`, and its requests are known for as long as it may take. The
 * caller frees `*ret_told` in any case. Before there are requests.
 */
bool stg_primer_begin(pid_t walker, char **ret_told, size_t *ret_bytes);

/* Is it that process that asks, which is told what is kept and nothing else? */
bool stg_primer_asks(fuse_req_t req);

/*
 * What is kept on disk of the beginning of the file, which the caller frees, and how large the file
 * is; NULL: nothing. Asks nobody.
 */
char *stg_primer_content(struct stg_inode *inode, uint64_t *ret_bytes, uint64_t *ret_file_bytes);

#endif
