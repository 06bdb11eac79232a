/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the walk: breadth first, so that no single deep folder speaks for the tree, and at most so
 * many entries of each folder.
 */
#include "fs/sample.h"

#include "fs/inode.h"
#include "fs/names.h"
#include "util/cleanup.h"
#include "util/clock.h"

#include <dirent.h>
#include <string.h>

#define FILES_MAX 1000
#define FOLDERS_MAX 256
#define ENTRIES_PER_FOLDER 100
#define TIME_NS INT64_C(20000000)

struct walk {
    struct stg_sample sample;
    int folders[FOLDERS_MAX]; /* O_PATH; a queue */
    unsigned first;
    unsigned count; /* that were ever queued */
    dev_t device;
    int64_t until_ns;
};

static bool is_over(const struct walk *walk) {
    return walk->sample.files >= FILES_MAX || stg_clock_monotonic_ns() >= walk->until_ns;
}

static void look_at(struct walk *walk, int folder, const char *name) {
    struct stat st;

    if (stg_name_is_dots(name) ||
        fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) ||
        st.st_dev != walk->device)
        return;
    if (S_ISREG(st.st_mode)) {
        walk->sample.files++;
        walk->sample.small += st.st_size <= STG_SAMPLE_SMALL_BYTES;
    } else if (S_ISDIR(st.st_mode) && walk->count < FOLDERS_MAX) {
        int fd = openat(folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd >= 0)
            walk->folders[walk->count++] = fd;
    }
}

static void read_folder(struct walk *walk, int folder) {
    int fd = stg_reopen(folder, O_RDONLY | O_DIRECTORY | O_NOATIME);
    const struct dirent *entry;
    DIR *stream;

    if (fd == -EPERM)
        fd = stg_reopen(folder, O_RDONLY | O_DIRECTORY);
    stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        stg_fd_close(fd);
        return;
    }
    for (int i = 0; i < ENTRIES_PER_FOLDER && !is_over(walk) && (entry = readdir(stream)); i++)
        look_at(walk, fd, entry->d_name);
    (void)closedir(stream); /* read-only */
}

struct stg_sample stg_sample_take(int fd) {
    struct walk walk = {.until_ns = stg_clock_monotonic_ns() + TIME_NS};
    struct stat st;

    if (fstat(fd, &st))
        return walk.sample;
    walk.device = st.st_dev;
    walk.folders[walk.count] = stg_reopen(fd, O_PATH | O_DIRECTORY);
    walk.count += walk.folders[0] >= 0;
    while (walk.first < walk.count) {
        int folder = walk.folders[walk.first++];

        if (!is_over(&walk))
            read_folder(&walk, folder);
        stg_fd_close(folder);
    }
    return walk.sample;
}
