/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Priming the kernel with the folders that the catalog has, before anybody asks for them.
 *
 * The kernel takes names and attributes only in answer to a request. So the process that was
 * started to make the mount, and has nothing to do but wait until that answers, lists what is kept
 * of the tree through the mount before it says that it is ready. Who walks through the tree then
 * finds it in the kernel.
 *
 * It never makes anybody wait for the source: it is answered from the catalog, or with an error.
 */
#ifndef STG_FS_PRIMER_H
#define STG_FS_PRIMER_H

#include "fs/fs.h"

#include <sys/types.h>

/* ---- in the process that waits for the mount ---- */

/*
 * Lists what is kept of the tree, from above, asks for what is known not to be there, and has the
 * kernel read what is kept of files, for a second at most. `told` is what stg_primer_begin() gave.
 */
void stg_primer_walk(const char *mountpoint, const char *told, size_t told_bytes);

/* ---- in the daemon ---- */

/*
 * Is there something for the process `walker` to walk through? Then what it is to know of that is
 * in `*ret_told`, which the caller frees, and its requests are known for as long as it may take.
 * Before there are requests.
 */
bool stg_primer_begin(pid_t walker, char **ret_told, size_t *ret_bytes);

/* Is it that process that asks, which is told what is kept and nothing else? */
bool stg_primer_asks(fuse_req_t req);

/* Is the request that process's, and for a file of which the beginning is not at hand? */
bool stg_primer_asks_too_much(fuse_req_t req, struct stg_inode *inode);

#endif
