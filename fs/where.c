/* SPDX-License-Identifier: GPL-2.0-only */
#include "fs/where.h"

#include "fs/catalog.h"
#include "fs/place.h"
#include "util/cleanup.h"

#include <string.h>
#include <unistd.h>

/* What the kernel writes behind the path of an object that has no name any more. (d_path) */
#define GONE " (deleted)"

const char *stg_where_below(const char *path, const char *prefix) {
    size_t bytes = strlen(prefix);

    if (strncmp(path, prefix, bytes) || (path[bytes] && path[bytes] != '/'))
        return NULL;
    return path[bytes] ? path + bytes + 1 : path + bytes;
}

/* False where there is no path, or it is too long. */
static bool path_of(int fd, char path[PATH_MAX]) {
    char link[STG_PROC_FD_BYTES];
    ssize_t bytes;

    stg_proc_fd(link, fd);
    bytes = readlink(link, path, PATH_MAX);
    if (bytes <= 0 || bytes == PATH_MAX)
        return false;
    path[bytes] = '\0';
    return *path == '/';
}

/* Puts the name, and a slash before what is there, in front of that. False: it is too long. */
static bool put_before(char place[PATH_MAX], const char *name) {
    size_t there = strlen(place);
    size_t bytes = strlen(name);

    if (bytes + 1 + there + 1 > PATH_MAX)
        return false;
    memmove(place + bytes + (there > 0), place, there + 1);
    if (there)
        place[bytes] = '/';
    memcpy(place, name, bytes);
    return true;
}

bool stg_where_found(struct stg_inode *inode, char place[PATH_MAX]) {
    struct stg_inode *at = inode; /* referenced but for `inode` itself */
    bool fits = true;

    *place = '\0';
    while (fits && at != stg_fs.root) {
        stg_auto_free char *name = NULL;
        struct stg_inode *parent = NULL;

        fits = !stg_place_get(at, &parent, &name) && put_before(place, name);
        if (at != inode)
            stg_inode_unref(at);
        at = parent;
        if (!at)
            return false;
    }
    if (at != inode)
        stg_inode_unref(at);
    return fits;
}

bool stg_where(struct stg_inode *inode, char place[PATH_MAX]) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    char top[PATH_MAX];
    char at[PATH_MAX];
    const char *rest;
    size_t bytes;

    if (stg_catalog_has_own_numbers() && stg_where_found(inode, place))
        return true;
    if (stg_inode_fd(inode, &lent) || !path_of(stg_fs.source_fd, top) || !path_of(lent.fd, at))
        return false;
    rest = stg_where_below(at, strcmp(top, "/") ? top : "");
    if (!rest)
        return false;
    bytes = strlen(rest);
    if (bytes >= strlen(GONE) && !strcmp(rest + bytes - strlen(GONE), GONE))
        return false;
    memcpy(place, rest, bytes + 1);
    return true;
}
