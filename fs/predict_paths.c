/* SPDX-License-Identifier: GPL-2.0-only */
#include "fs/predict_paths.h"

#include "fs/predict_impl.h"
#include "fs/where.h"

#include <string.h>

#define TRIED_MAX 4 /* files that are looked for to find out what the paths mean */

/* Joins and cleans up, by the text alone. False where it is too long, or not absolute. */
static bool make_absolute(const char *directory, const char *path, char whole[PATH_MAX]) {
    const char *parts[] = {*path == '/' ? "" : directory, path};
    size_t used = 0;

    if (*path != '/' && *directory != '/')
        return false;
    for (int i = 0; i < 2; i++) {
        const char *at = parts[i];

        while (*at) {
            size_t bytes = strcspn(at, "/");

            if (bytes == 2 && at[0] == '.' && at[1] == '.') {
                while (used && whole[--used] != '/')
                    ;
            } else if (bytes && !(bytes == 1 && *at == '.')) {
                if (used + 1 + bytes >= PATH_MAX)
                    return false;
                whole[used++] = '/';
                memcpy(whole + used, at, bytes);
                used += bytes;
            }
            at += bytes + (at[bytes] == '/');
        }
    }
    whole[used] = '\0';
    return true;
}

/* Are paths below `prefix` the tree's? So it is where the tree has the file there. */
static bool try_prefix(struct stg_build_paths *paths, const char *prefix, const char *file) {
    const char *rest = stg_where_below(file, prefix);
    struct stg_inode *inode = rest && *rest ? stg_predict_walk(stg_fs.root, rest) : NULL;

    if (!inode)
        return false;
    if (stg_inode_is_regular(inode))
        memcpy(paths->prefix, prefix, strlen(prefix) + 1);
    paths->is_known = stg_inode_is_regular(inode);
    stg_inode_unref(inode);
    return paths->is_known;
}

/*
 * Can the path of the file tell where the tree is? A header that is not the tree's may be found in
 * it all the same, by an end such as include/stdio.h: none that comes with the system or a compiler
 * tells, but where the source is there itself.
 */
static bool may_tell(const char *file) {
    static const char *const foreign[] = {"/usr", "/opt", "/nix", "/Library", "/Applications"};

    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        if (stg_where_below(file, foreign[i]))
            return stg_where_below(stg_fs.options.source, foreign[i]) != NULL;
    return true;
}

/*
 * The folder of the build is, as a rule, that of the file that names it: then what comes before its
 * place is the tree's. Else the longest end of the file's own path that is in the tree tells.
 */
static void find_prefix(struct stg_build_paths *paths, const char *directory, const char *file) {
    size_t directory_bytes = strlen(directory);
    size_t place_bytes = strlen(paths->place);
    size_t bytes = directory_bytes - (place_bytes ? place_bytes + 1 : 0);
    char prefix[PATH_MAX];

    paths->tried++;
    memcpy(prefix, directory, directory_bytes + 1);
    if (*directory && (!place_bytes || (directory_bytes > place_bytes && prefix[bytes] == '/' &&
                                        !strcmp(prefix + bytes + 1, paths->place)))) {
        prefix[bytes] = '\0';
        (void)try_prefix(paths, prefix, file);
    }
    for (bytes = 0; !paths->is_known && file[bytes]; bytes++) {
        if (file[bytes] != '/')
            continue;
        memcpy(prefix, file, bytes);
        prefix[bytes] = '\0';
        (void)try_prefix(paths, prefix, file);
    }
}

/* What is named from the folder of the build itself needs no prefix. */
static const char *from_place(const struct stg_build_paths *paths, const char *path,
                              char whole[PATH_MAX]) {
    char place[PATH_MAX];

    if (strlen(paths->place) + 2 > sizeof(place))
        return NULL;
    *place = '/';
    memcpy(place + 1, paths->place, strlen(paths->place) + 1);
    return make_absolute(place, path, whole) && *whole ? whole + 1 : NULL;
}

const char *stg_build_path(struct stg_build_paths *paths, const char *directory, const char *path,
                           char whole[PATH_MAX]) {
    char at[PATH_MAX] = "";

    if (!*directory && *path != '/')
        return from_place(paths, path, whole);
    if ((*directory && !make_absolute("/", directory, at)) || !make_absolute(at, path, whole))
        return NULL;
    if (!paths->is_known && paths->tried < TRIED_MAX && (*directory || may_tell(whole)))
        find_prefix(paths, at, whole);
    return paths->is_known ? stg_where_below(whole, paths->prefix) : NULL;
}
