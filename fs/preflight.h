/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What can be refused is refused here, before anything is changed and while a person still reads
 * stderr: each refusal says what is wrong and what to do.
 */
#ifndef STG_FS_PREFLIGHT_H
#define STG_FS_PREFLIGHT_H

#include "fs/fs.h"

/*
 * Checks stg_fs.options against the machine. Fills in what follows from it: the source's
 * descriptor, absolute paths, privileges, whether io_uring is to be used (`uring` ends as on or
 * off). Returns 0, or -errno after saying why.
 */
int stg_preflight(void);

#endif
