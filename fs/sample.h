/* SPDX-License-Identifier: GPL-2.0-only */
/* A quick look at what sort of files a source has. */
#ifndef STG_FS_SAMPLE_H
#define STG_FS_SAMPLE_H

/* Of the files that were looked at. */
struct stg_sample {
    unsigned files;
    unsigned small; /* of at most STG_SAMPLE_SMALL_BYTES */
};

/* Files that the kernel reads in one go. */
#define STG_SAMPLE_SMALL_BYTES (128 << 10)

/*
 * Looks at some hundred regular files of the folder `fd` (O_PATH is enough; borrowed) and the
 * folders below it, on its own mount, for some milliseconds. Moves no access time where that can be
 * had. What cannot be read is passed over.
 */
struct stg_sample stg_sample_take(int fd);

#endif
