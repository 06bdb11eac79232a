/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Compares two trees after the randomised test: names, types, modes, owners, link counts, which
 * names are one file, sizes, times, targets, extended attributes and content. It changes neither.
 */
#include "random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SHOWN_AT_MOST = 25, BLOCK_BYTES = 1 << 16 };

/* A file with several names: its inode number in both trees. */
struct linked {
    ino_t ino[2];
};

struct walk {
    const char *what;
    const struct rt_compare *how;
    unsigned long differences, objects;
    struct linked *linked;
    size_t n_linked, room;
};

static void differ(struct walk *w, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void differ(struct walk *w, const char *path, const char *format, ...) {
    if (w->differences++ >= SHOWN_AT_MOST)
        return;
    va_list list;
    printf("# %s: %s: ", w->what, path);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names) {
    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        free(names[i]);
    free(names);
}

/* The sorted names in a directory, ended by NULL; NULL with errno when it cannot be read. */
static char **list(int at, const char *path) {
    size_t n = 0, room = 64;
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    char **names = calloc(room, sizeof(*names));
    if (dir == NULL || names == NULL) {
        free(names);
        return NULL;
    }
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (n + 2 > room) {
            char **more = realloc(names, (room *= 2) * sizeof(*names));
            if (more == NULL)
                break;
            names = more;
        }
        names[n++] = strdup(entry->d_name);
        names[n] = NULL;
        errno = 0;
    }
    int failed = errno;
    (void)closedir(dir);
    if (failed != 0) {
        free_names(names);
        errno = failed;
        return NULL;
    }
    qsort(names, n, sizeof(*names), compare_strings);
    return names;
}

static bool same_time(const struct timespec *a, const struct timespec *b) {
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static void compare_times(struct walk *w, const char *path, const struct stat *a,
                          const struct stat *b) {
    if (S_ISFIFO(a->st_mode) && !w->how->exact)
        return; /* the kernel's pipe moves them, and on FUSE does not */
    bool set_by_test = a->st_mtim.tv_sec < RT_SET_TIMES_END || b->st_mtim.tv_sec < RT_SET_TIMES_END;
    if ((w->how->exact || set_by_test) && !same_time(&a->st_mtim, &b->st_mtim))
        differ(w, path, "mtime %lld.%09ld and %lld.%09ld", (long long)a->st_mtim.tv_sec,
               a->st_mtim.tv_nsec, (long long)b->st_mtim.tv_sec, b->st_mtim.tv_nsec);
    if (w->how->exact && !same_time(&a->st_ctim, &b->st_ctim))
        differ(w, path, "ctime %lld.%09ld and %lld.%09ld", (long long)a->st_ctim.tv_sec,
               a->st_ctim.tv_nsec, (long long)b->st_ctim.tv_sec, b->st_ctim.tv_nsec);
}

/* One file in one tree must be one file in the other. */
static void compare_links(struct walk *w, const char *path, const struct stat *a,
                          const struct stat *b) {
    if (S_ISDIR(a->st_mode) || a->st_nlink < 2)
        return;
    for (size_t i = 0; i < w->n_linked; i++) {
        bool is_a = w->linked[i].ino[0] == a->st_ino, is_b = w->linked[i].ino[1] == b->st_ino;
        if (is_a != is_b)
            differ(w, path, "is linked with different files");
        if (is_a || is_b)
            return;
    }
    if (w->n_linked == w->room) {
        size_t room = w->room ? w->room * 2 : 256;
        struct linked *more = realloc(w->linked, room * sizeof(*more));
        if (more == NULL) {
            differ(w, path, "no memory");
            return;
        }
        w->linked = more;
        w->room = room;
    }
    w->linked[w->n_linked++] = (struct linked){{a->st_ino, b->st_ino}};
}

static void compare_stat(struct walk *w, const char *path, const struct stat *a,
                         const struct stat *b) {
    if (a->st_mode != b->st_mode)
        differ(w, path, "mode %o and %o", a->st_mode, b->st_mode);
    if (a->st_uid != b->st_uid || a->st_gid != b->st_gid)
        differ(w, path, "owner %u:%u and %u:%u", a->st_uid, a->st_gid, b->st_uid, b->st_gid);
    if (a->st_nlink != b->st_nlink)
        differ(w, path, "link count %lu and %lu", (unsigned long)a->st_nlink,
               (unsigned long)b->st_nlink);
    if (a->st_rdev != b->st_rdev)
        differ(w, path, "device %lx and %lx", (unsigned long)a->st_rdev, (unsigned long)b->st_rdev);
    if ((!S_ISDIR(a->st_mode) || w->how->exact) && a->st_size != b->st_size)
        differ(w, path, "size %lld and %lld", (long long)a->st_size, (long long)b->st_size);
    if (w->how->exact && a->st_ino != b->st_ino)
        differ(w, path, "inode %lu and %lu", (unsigned long)a->st_ino, (unsigned long)b->st_ino);
    compare_times(w, path, a, b);
    compare_links(w, path, a, b);
}

static void compare_content(struct walk *w, const char *path, int a, int b) {
    static char block[2][BLOCK_BYTES];
    ssize_t n[2];
    off_t at = 0;
    do {
        n[0] = pread(a, block[0], BLOCK_BYTES, at);
        n[1] = pread(b, block[1], BLOCK_BYTES, at);
        if (n[0] != n[1] || (n[0] > 0 && memcmp(block[0], block[1], (size_t)n[0]) != 0)) {
            ssize_t i = 0;
            while (i < n[0] && i < n[1] && block[0][i] == block[1][i])
                i++;
            differ(w, path, "content at %lld (reads of %zd and %zd bytes)", (long long)(at + i),
                   n[0], n[1]);
            return;
        }
        at += n[0];
    } while (n[0] > 0);
}

/* The names and values of all extended attributes but the system's own, as sorted text. */
static char *xattrs(const char *path) {
    char names[8192], value[8192], *sorted[512], *text = strdup("");
    size_t n = 0;
    ssize_t bytes = llistxattr(path, names, sizeof(names));
    for (char *p = names; bytes > 0 && p < names + bytes && n < 512; p += strlen(p) + 1)
        if (strncmp(p, "system.", 7) != 0 && strncmp(p, "trusted.overlay.", 16) != 0)
            sorted[n++] = p;
    qsort(sorted, n, sizeof(sorted[0]), compare_strings);
    for (size_t i = 0; i < n && text != NULL; i++) {
        ssize_t length = lgetxattr(path, sorted[i], value, sizeof(value));
        uint64_t hash = 14695981039346656037u;
        for (ssize_t k = 0; k < length; k++)
            hash = (hash ^ (unsigned char)value[k]) * 1099511628211u;
        char *more = NULL;
        if (asprintf(&more, "%s %s=%zd:%llx", text, sorted[i], length, (unsigned long long)hash) <
            0)
            more = NULL;
        free(text);
        text = more;
    }
    return text;
}

static void compare_xattrs(struct walk *w, const char *path, int a, int b, const char *name) {
    char at[2][512];
    snprintf(at[0], sizeof(at[0]), "/proc/self/fd/%d/%s", a, name);
    snprintf(at[1], sizeof(at[1]), "/proc/self/fd/%d/%s", b, name);
    char *text_a = xattrs(at[0]), *text_b = xattrs(at[1]);
    if (text_a == NULL || text_b == NULL || strcmp(text_a, text_b) != 0)
        differ(w, path, "attributes%s and%s", text_a ? text_a : " ?", text_b ? text_b : " ?");
    free(text_a);
    free(text_b);
}

static void compare_one(struct walk *w, const char *path, int a, int b, const char *name);

static void compare_directory(struct walk *w, const char *path, int a, int b) {
    char **names_a = list(a, "."), **names_b = list(b, ".");
    if (names_a == NULL || names_b == NULL) {
        differ(w, path, "cannot be read: %s", strerror(errno));
        free_names(names_a);
        free_names(names_b);
        return;
    }
    for (size_t i = 0, k = 0; names_a[i] != NULL || names_b[k] != NULL;) {
        int order = names_a[i] == NULL   ? 1
                    : names_b[k] == NULL ? -1
                                         : strcmp(names_a[i], names_b[k]);
        const char *name = order <= 0 ? names_a[i] : names_b[k];
        char *below = NULL;
        if (asprintf(&below, "%s/%s", path, name) < 0)
            below = NULL;
        if (below != NULL && order != 0)
            differ(w, below, "is only in the %s tree", order < 0 ? "first" : "second");
        else if (below != NULL)
            compare_one(w, below, a, b, name);
        free(below);
        i += order <= 0;
        k += order >= 0;
    }
    free_names(names_a);
    free_names(names_b);
}

static void compare_one(struct walk *w, const char *path, int a, int b, const char *name) {
    struct stat st_a, st_b;
    w->objects++;
    if (fstatat(a, name, &st_a, AT_SYMLINK_NOFOLLOW) != 0 ||
        fstatat(b, name, &st_b, AT_SYMLINK_NOFOLLOW) != 0) {
        differ(w, path, "stat: %s", strerror(errno));
        return;
    }
    compare_stat(w, path, &st_a, &st_b);
    compare_xattrs(w, path, a, b, name);
    if ((st_a.st_mode & S_IFMT) != (st_b.st_mode & S_IFMT))
        return;
    if (S_ISLNK(st_a.st_mode)) {
        char target[2][4097] = {{0}};
        ssize_t bytes = readlinkat(a, name, target[0], 4096);
        if (readlinkat(b, name, target[1], 4096) != bytes || strcmp(target[0], target[1]) != 0)
            differ(w, path, "target '%s' and '%s'", target[0], target[1]);
    }
    if (!S_ISDIR(st_a.st_mode) && !S_ISREG(st_a.st_mode))
        return;
    int fd_a = openat(a, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int fd_b = openat(b, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd_a < 0 || fd_b < 0)
        differ(w, path, "open: %s", strerror(errno));
    else if (S_ISDIR(st_a.st_mode))
        compare_directory(w, path, fd_a, fd_b);
    else if (w->how->skip_content == NULL || strcmp(name, w->how->skip_content) != 0)
        compare_content(w, path, fd_a, fd_b);
    if (fd_a >= 0)
        (void)close(fd_a);
    if (fd_b >= 0)
        (void)close(fd_b);
}

unsigned long stg_rt_compare_trees(const char *what, int a, int b, const struct rt_compare *how,
                                   unsigned long *ret_objects) {
    struct walk w = {.what = what, .how = how};
    compare_one(&w, "", a, b, ".");
    if (w.differences > SHOWN_AT_MOST)
        printf("# %s: %lu more differences\n", what, w.differences - SHOWN_AT_MOST);
    free(w.linked);
    *ret_objects = w.objects;
    return w.differences;
}
