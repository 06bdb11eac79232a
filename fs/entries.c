/* SPDX-License-Identifier: GPL-2.0-only */
#include "fs/entries.h"

#include "fs/catalog.h"
#include "fs/names.h"
#include "util/cleanup.h"

#include <dirent.h>
#include <string.h>

static int each_kept(const struct stg_folder *kept, stg_entries_visit *visit, void *context) {
    struct stg_folder_entry entry;
    int result = 0;

    for (size_t i = 0; !result && i < stg_folder_count(kept); i++) {
        stg_folder_at(kept, i, &entry);
        result = visit(entry.name, (unsigned char)(entry.stx.stx_mode >> 12), context);
    }
    return result;
}

int stg_entries_each(struct stg_inode *folder, stg_entries_visit *visit, void *context) {
    const struct stg_folder *kept = stg_catalog_folder(folder);
    const struct dirent *entry;
    DIR *stream;
    int fd;
    int result = 0;

    if (kept)
        return each_kept(kept, visit, context);
    fd = stg_inode_open(folder, O_RDONLY | O_DIRECTORY);
    stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        stg_fd_close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    errno = 0;
    while (!result && (entry = readdir(stream))) {
        if (!stg_name_is_dots(entry->d_name))
            result = visit(entry->d_name, entry->d_type, context);
        errno = result ? errno : 0;
    }
    if (!result && errno)
        result = -errno;
    (void)closedir(stream); /* read-only */
    return result;
}
