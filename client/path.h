/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paths by their letters, and the folder from which many of them can be named to the mount. No
 * state. "dir" is here a path's part before its last name: "" in "a", "/" in "/a", "b" in "b//a".
 */
#ifndef STG_CLIENT_PATH_H
#define STG_CLIENT_PATH_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* How many bytes of `path` are its dir. */
size_t stg_path_dir_bytes(const char *path);

/* The last name in `path`, with what stands behind it. */
const char *stg_path_name(const char *path);

/* True for a last name that does not stand in its folder: "", ".", "..", or "a/". */
bool stg_path_is_special(const char *name);

/* The length of the longest dir that both dirs are, or are below; 0 where there is none. */
size_t stg_path_common(const char *one, size_t one_bytes, const char *other, size_t other_bytes);

/* What is left of `dir` below its part of `base_bytes`, or NULL where that is not a part. */
const char *stg_path_below(const char *base, size_t base_bytes, const char *dir);

/*
 * Takes "//", "." and "x/.." out of a relative path. The latter is right only where x is known not
 * to be a symbolic link.
 */
void stg_path_normalise(char *path);

/* Does `below` lead from the folder `fd` to a folder of the same mount without symbolic links? */
bool stg_path_is_plain(int fd, const char *below);

/*
 * Opens the folder `dir` for reading, or one above it on the same mount from which it can be named
 * without symbolic links: the highest that is not above its first `limit_bytes`, or higher up where
 * those may not be read. `*ret_bytes` is how much of `dir` it is. Returns a descriptor or -errno.
 */
int stg_path_open_base(int dirfd, const char *dir, size_t limit_bytes, size_t *ret_bytes);

/*
 * Writes where `path` leads in the end, symbolic links followed, without opening it. Returns 0 or
 * -errno; -ENOSYS without /proc.
 */
int stg_path_resolve(int dirfd, const char *path, char target[PATH_MAX]);

#endif
