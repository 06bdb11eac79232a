/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the comparison of the whole mount with the source, while nobody changes either. What is done
 * first could hide what is wrong with the rest, as a look at a file's attributes makes the kernel
 * drop its pages: the order is drawn.
 */
#include "coherence.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIFFERENCE_BYTES = 400, PIECE_BYTES = 256 << 10 };

static _Thread_local char difference[DIFFERENCE_BYTES];

/* ---- attributes ---- */

static void add(const char *name, long long source, long long mount) {
    size_t used = strlen(difference);

    if (source != mount)
        snprintf(difference + used, sizeof(difference) - used, "%s%s %lld, in the source %lld",
                 used ? "; " : "", name, mount, source);
}

static long long ns(struct timespec time) { return time.tv_sec * 1000000000LL + time.tv_nsec; }

const char *stg_ch_differ_stat(const struct stat *source, const struct stat *mount) {
    difference[0] = '\0';
    add("mode", source->st_mode, mount->st_mode);
    add("links", (long long)source->st_nlink, (long long)mount->st_nlink);
    add("size", source->st_size, mount->st_size);
    add("mtime", ns(source->st_mtim), ns(mount->st_mtim));
    add("ctime", ns(source->st_ctim), ns(mount->st_ctim));
    add("inode", (long long)source->st_ino, (long long)mount->st_ino);
    add("owner", source->st_uid, mount->st_uid);
    return difference[0] ? difference : NULL;
}

/* ---- contents ---- */

const char *stg_ch_differ_bytes(int source, int mount) {
    static _Thread_local char data[2][PIECE_BYTES];
    ssize_t got[2];
    off_t at = 0;

    do {
        size_t i = 0;

        got[0] = pread(source, data[0], PIECE_BYTES, at);
        got[1] = pread(mount, data[1], PIECE_BYTES, at);
        while (got[0] > 0 && got[1] > 0 && (ssize_t)i < got[0] && (ssize_t)i < got[1] &&
               data[0][i] == data[1][i])
            i++;
        if (got[0] != got[1] || (ssize_t)i < got[0]) {
            snprintf(difference, sizeof(difference),
                     "bytes from %lld on (reads of %zd, in the source %zd; %s)",
                     (long long)at + (long long)i, got[1], got[0],
                     strerror(got[1] < 0 ? errno : 0));
            return difference;
        }
        at += got[0];
    } while (got[0] > 0);
    return NULL;
}

/* ---- one name ---- */

struct look {
    const char *when, *path;
    int name; /* of the model, or -1 */
    uint32_t id;
};

static void differ(const struct look *look, const char *what, const char *how) {
    stg_ch_violation(look->name, look->id, "%s: %s: %s differs: %s", look->when, look->path, what,
                     how);
}

static void compare_attributes(const struct look *look) {
    struct stat source, mount;
    int there =
        fstatat(stg_ch_settings.source, look->path, &source, AT_SYMLINK_NOFOLLOW) ? errno : 0;
    int seen = fstatat(stg_ch_settings.mount, look->path, &mount, AT_SYMLINK_NOFOLLOW) ? errno : 0;
    const char *how;

    if (there != seen) {
        stg_ch_violation(look->name, look->id, "%s: %s: lstat: %s; in the source: %s", look->when,
                         look->path, strerror(seen), strerror(there));
        return;
    }
    how = there == 0 ? stg_ch_differ_stat(&source, &mount) : NULL;
    if (how != NULL)
        differ(look, "lstat", how);
}

static void compare_content(const struct look *look) {
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int source = openat(stg_ch_settings.source, look->path, flags), there = errno;
    int mount = openat(stg_ch_settings.mount, look->path, flags), seen = errno;
    const char *how;

    if ((source < 0) != (mount < 0) || (source < 0 && there != seen)) {
        stg_ch_violation(look->name, look->id, "%s: %s: open: %s; in the source: %s", look->when,
                         look->path, mount < 0 ? strerror(seen) : "opened",
                         source < 0 ? strerror(there) : "opened");
    } else if (source >= 0) {
        how = stg_ch_differ_bytes(source, mount);
        if (how != NULL)
            differ(look, "content", how);
    }
    if (source >= 0)
        (void)close(source);
    if (mount >= 0)
        (void)close(mount);
}

static void compare_target(const struct look *look) {
    char source[STG_CH_PATH_BYTES] = "", mount[STG_CH_PATH_BYTES] = "";
    ssize_t there = readlinkat(stg_ch_settings.source, look->path, source, sizeof(source) - 1);
    ssize_t seen = readlinkat(stg_ch_settings.mount, look->path, mount, sizeof(mount) - 1);

    if (there != seen || strcmp(source, mount) != 0)
        differ(look, "readlink", mount);
}

static void compare_path(uint64_t *rng, const char *when, int name, const char *path) {
    struct look look = {.when = when, .path = path, .name = name};
    unsigned first = (unsigned)stg_ch_below(rng, 3);

    if (name >= 0)
        look.id = stg_ch_state(&stg_ch_names[name]).id;
    for (unsigned i = 0; i < 3; i++) {
        if ((first + i) % 3 == 0)
            compare_attributes(&look);
        else if ((first + i) % 3 == 1)
            compare_content(&look);
        else
            compare_target(&look);
    }
}

/* ---- lists ---- */

static int by_name(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* "inode type name" of each, sorted, in one text; NULL where the folder is not there. */
static char *list(int top, const char *path) {
    int fd = openat(top, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    char *lines[512], *text = NULL;
    size_t n = 0, bytes = 1;

    if (dir == NULL)
        return NULL;
    for (struct dirent *entry; n < 512 && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (asprintf(&lines[n], "%s %lu %u", entry->d_name,
                     stg_ch_settings.by_names ? 0UL : (unsigned long)entry->d_ino,
                     entry->d_type) < 0)
            stg_ch_die("memory");
        bytes += strlen(lines[n++]) + 1;
    }
    (void)closedir(dir);
    qsort(lines, n, sizeof(*lines), by_name);
    text = calloc(1, bytes);
    if (text == NULL)
        stg_ch_die("memory");
    for (size_t i = 0, at = 0; i < n; i++) {
        at += (size_t)sprintf(text + at, "%s\n", lines[i]);
        free(lines[i]);
    }
    return text;
}

/* The line in which two lists differ. */
static const char *line_at(const char *text, size_t at) {
    while (at > 0 && text[at - 1] != '\n')
        at--;
    return text + at;
}

static void compare_list(const char *when, const char *path) {
    char *source = list(stg_ch_settings.source, path), *mount = list(stg_ch_settings.mount, path);
    size_t at = 0;

    if ((source == NULL) != (mount == NULL)) {
        stg_ch_violation(-1, 0, "%s: the folder %s is %s", when, path,
                         mount ? "still listed" : "not listed");
    } else if (source != NULL && strcmp(source, mount) != 0) {
        while (source[at] == mount[at])
            at++;
        stg_ch_violation(-1, 0, "%s: the list of %s differs: '%.*s', in the source '%.*s'", when,
                         path, (int)strcspn(line_at(mount, at), "\n"), line_at(mount, at),
                         (int)strcspn(line_at(source, at), "\n"), line_at(source, at));
    }
    free(source);
    free(mount);
}

/* ---- everything ---- */

static void compare_lists(const char *when) {
    char path[STG_CH_PATH_BYTES];

    compare_list(when, ".");
    compare_list(when, "through");
    for (unsigned dir = 0; dir < STG_CH_DIRS; dir++) {
        stg_ch_dir_path(dir, path);
        compare_list(when, path);
    }
}

static void compare_names(uint64_t *rng, const char *when) {
    unsigned first = (unsigned)stg_ch_below(rng, STG_CH_NAMES);
    char path[STG_CH_PATH_BYTES];

    for (unsigned i = 0; i < STG_CH_NAMES; i++) {
        unsigned name = (first + i) % STG_CH_NAMES;

        stg_ch_name_path(name, path);
        compare_path(rng, when, (int)name, path);
    }
    for (unsigned dir = 0; dir < STG_CH_DIRS; dir++) {
        struct look look = {.when = when, .path = path, .name = -1};

        stg_ch_dir_path(dir, path);
        compare_attributes(&look);
    }
    for (unsigned i = 0; stg_ch_temporary_at(i, path); i++)
        compare_path(rng, when, -1, path);
}

void stg_ch_compare(uint64_t *rng, const char *when) {
    unsigned first = (unsigned)stg_ch_below(rng, 2);

    for (unsigned i = 0; i < 2; i++)
        if ((first + i) % 2 == 0)
            compare_names(rng, when);
        else
            compare_lists(when);
}
