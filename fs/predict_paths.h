/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the paths in files that tell of a build are in the tree. Relative ones are from the folder
 * of the build; absolute ones are those of whoever configured it: on the mount, in the source, or
 * on another machine. They are the tree's where the folder of such a file, or one of the first
 * files that it names, is found in the tree at the end of such a path.
 */
#ifndef STG_FS_PREDICT_PATHS_H
#define STG_FS_PREDICT_PATHS_H

#include <limits.h>
#include <stdbool.h>

struct stg_build_paths {
    char place[PATH_MAX];  /* of the folder of the build, from the source */
    char prefix[PATH_MAX]; /* what comes before the tree's in absolute paths */
    bool is_known;         /* the prefix */
    unsigned tried;
};

/*
 * The path, named in `directory` ("": in the folder of the build), from the source, in `whole`.
 * NULL where it is not below that, or not known to be. May look a few names up, to find the prefix.
 */
const char *stg_build_path(struct stg_build_paths *paths, const char *directory, const char *path,
                           char whole[PATH_MAX]);

#endif
