/* SPDX-License-Identifier: GPL-2.0-only */
#include "fs/tier.h"

#include "fs/mounts.h"
#include "fs/where.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

/* Where nobody says: so much, and not more than that part of what is free. */
#define DEFAULT_BYTES (UINT64_C(8) << 30)
#define DEFAULT_PART 2
#define SOURCE_BYTES (PATH_MAX * 2 + 256)

static struct stg_disk *disk; /* set before the threads are there, and cleared after them */

struct stg_disk *stg_tier_disk(void) {
    return disk;
}

const char *stg_tier_path(void) { return disk ? stg_disk_path(disk) : NULL; }

/* ---- the folder ---- */

/* The path with its last part, which need not be there, below a real folder. NULL with errno. */
static char *resolve(const char *path, char **ret_above) {
    stg_auto_free char *for_dir = strdup(path);
    stg_auto_free char *for_base = strdup(path);
    stg_auto_free char *above = NULL;
    const char *base;
    char *whole = realpath(path, NULL);

    if (!for_dir || !for_base) {
        free(whole);
        errno = ENOMEM;
        return NULL;
    }
    above = realpath(whole ? whole : dirname(for_dir), NULL);
    base = basename(for_base);
    if (!whole && above && asprintf(&whole, "%s/%s", strcmp(above, "/") ? above : "", base) < 0)
        whole = NULL;
    *ret_above = above;
    if (whole)
        above = NULL; /* the caller's */
    else
        *ret_above = NULL;
    return whole;
}

static bool overlap(const char *a, const char *b) {
    return stg_where_below(a, strcmp(b, "/") ? b : "") ||
           stg_where_below(b, strcmp(a, "/") ? a : "");
}

static int check_place(const char *path, const char *above) {
    const struct stg_options *options = &stg_fs.options;
    stg_auto_fd int fd = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (overlap(path, options->source) || overlap(path, options->mountpoint)) {
        stg_error("stage_dir=%s: it is in the source or the mount point, or holds them; give a "
                  "directory elsewhere",
                  path);
        return -EINVAL;
    }
    if (fd < 0) {
        int error = -errno;

        stg_error("stage_dir=%s: %s: %s", path, above, strerror(-error));
        return error;
    }
    if (stg_volume_is_remote(fd)) {
        stg_error("stage_dir=%s: it is on another machine, or served by a program; give a "
                  "directory on a local disk",
                  path);
        return -EREMOTE;
    }
    return 0;
}

static int decide_size(const char *path, const char *above) {
    struct stg_options *options = &stg_fs.options;
    uint64_t there_bytes = stg_disk_bytes_in(path);
    struct statvfs info;
    uint64_t free_bytes;

    if (options->stage_bytes != STG_BYTES_DEFAULT) {
        if (options->stage_bytes >= STG_DISK_MIN_BYTES)
            return 0;
        stg_error("stage_size= is less than %ju; give more, or leave it out",
                  (uintmax_t)STG_DISK_MIN_BYTES);
        return -EINVAL;
    }
    options->stage_bytes = DEFAULT_BYTES;
    if (statvfs(above, &info))
        return 0;
    free_bytes = ((uint64_t)info.f_bavail * info.f_frsize + there_bytes) / DEFAULT_PART;
    if (options->stage_bytes > free_bytes)
        options->stage_bytes = free_bytes > STG_DISK_MIN_BYTES ? free_bytes : STG_DISK_MIN_BYTES;
    /* Others may have filled the disk since then: what is there stays. */
    if (options->stage_bytes < there_bytes)
        options->stage_bytes = there_bytes;
    return 0;
}

int stg_tier_check(void) {
    const struct stg_options *options = &stg_fs.options;
    stg_auto_free char *source = malloc(SOURCE_BYTES);
    stg_auto_free char *above = NULL;
    stg_auto_free char *path = NULL;
    int error;

    if (!options->stage_dir && options->stage_bytes != STG_BYTES_DEFAULT) {
        stg_error("stage_size= is the size of what stage_dir= names; add that, or leave it out");
        return -EINVAL;
    }
    if (!options->stage_dir)
        return 0;
    if (options->stage == STG_MODE_NONE) {
        stg_error("stage_dir= needs staging; leave out stage=none");
        return -EINVAL;
    }
    path = resolve(options->stage_dir, &above);
    if (!path || !source) {
        error = -errno;
        stg_error("stage_dir=%s: %s; name a directory in one that exists", options->stage_dir,
                  strerror(-error));
        return error;
    }
    error = check_place(path, above);
    if (!error)
        error = decide_size(path, above);
    if (!error)
        error = stg_mounts_describe(stg_fs.source_fd, stg_fs.options.source, source, SOURCE_BYTES);
    if (!error)
        error = stg_disk_claim(path, source, &disk);
    return error;
}

void stg_tier_start(void) {
    if (disk)
        (void)stg_disk_start(disk, stg_fs.options.stage_bytes); /* it has said what is wrong */
}

void stg_tier_ending(void) { stg_disk_ending(disk); }

void stg_tier_stop(void) {
    stg_disk_stop(disk);
    stg_disk_free(disk);
    disk = NULL;
}

/* ---- names ---- */

/* Whether there may be copies of an inode on disk. */
enum { UNKNOWN, NONE, SOME };

static bool name_of(struct stg_inode *inode, char *path, bool *ret_numbers_last) {
    *ret_numbers_last = inode->volume->handles;
    if (!inode->volume->handles)
        return stg_where(inode, path);
    (void)snprintf(path, PATH_MAX, "/%jx", (uintmax_t)inode->ino); /* fits; no path begins so */
    return true;
}

bool stg_tier_lasting(struct stg_inode *inode, char *path, bool *ret_numbers_last) {
    if (!atomic_load(&inode->volume->own))
        return false;
    atomic_store(&inode->on_disk, SOME);
    return name_of(inode, path, ret_numbers_last);
}

/* What the file is called on disk; `path` is of PATH_MAX bytes. False where it is not. */
static bool describe(struct stg_inode *inode, const struct stg_identity *now, char *path,
                     struct stg_disk_name *ret_name) {
    bool numbers_last;

    if (!disk || !stg_tier_lasting(inode, path, &numbers_last))
        return false;
    *ret_name = (struct stg_disk_name){.path = path, .now = *now};
    ret_name->now.device = 0;
    if (!numbers_last)
        ret_name->now.ino = 0;
    return true;
}

char *stg_tier_find(struct stg_inode *inode, const struct stg_identity *now, uint64_t *ret_bytes) {
    char path[PATH_MAX];
    struct stg_disk_name name;
    char *content = NULL;

    if (describe(inode, now, path, &name))
        content = stg_disk_find(disk, &name);
    *ret_bytes = content ? name.bytes : 0;
    return content;
}

bool stg_tier_has_whole(struct stg_inode *inode, const struct stg_identity *now) {
    char path[PATH_MAX];
    struct stg_disk_name name;

    return describe(inode, now, path, &name) && stg_disk_has_whole(disk, &name);
}

bool stg_tier_folder_name(struct stg_inode *folder, char name[STG_TIER_NAME_BYTES]) {
    const size_t before = strlen(STG_TIER_FOLDERS);
    bool unused;

    memcpy(name, STG_TIER_FOLDERS, before + 1);
    if (!name_of(folder, name + before + 1, &unused))
        return false;
    if (name[before + 1])
        name[before] = '/';
    return true;
}

static void add_folder(const char *folder, void *context) {
    if (stg_profile_add(context, STG_PROFILE_FOLDER, 0, *folder ? folder : "."))
        ((struct stg_profile *)context)->left_out++; /* without memory it is looked at later */
}

void stg_tier_add_folders(struct stg_profile *profile) {
    if (disk && !stg_fs.root->volume->handles)
        stg_disk_each_folder(disk, add_folder, profile);
}

/* ---- changes ---- */

static bool is_kept(const struct stg_inode *inode) {
    return disk && atomic_load(&inode->volume->own);
}

static bool is_kept_by_path(const struct stg_inode *inode) {
    return is_kept(inode) && !inode->volume->handles;
}

void stg_tier_changed(struct stg_inode *inode) {
    char path[PATH_MAX];
    bool unused;

    if (!is_kept(inode) || !stg_inode_is_regular(inode) ||
        atomic_exchange(&inode->on_disk, NONE) == NONE)
        return;
    /* One without a name is not asked for by that any more, and what has its name is another. */
    if (name_of(inode, path, &unused))
        stg_disk_forget(disk, path, false);
}

/* One that was never named, or is not any more, is not found by a path. */
static bool has_name(struct stg_inode *inode) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct stat info;

    return stg_inode_fd(inode, &lent) || fstat(lent.fd, &info) || info.st_nlink;
}

void stg_tier_retimed(struct stg_inode *inode) {
    char path[PATH_MAX];

    if (!is_kept_by_path(inode) || !stg_inode_is_regular(inode))
        return;
    if (stg_where(inode, path))
        stg_disk_forget(disk, path, false);
    else if (has_name(inode))
        stg_disk_give_up(disk);
}

void stg_tier_renamed(struct stg_inode *folder, const char *name, bool is_folder) {
    stg_auto_free char *whole = NULL;
    char path[PATH_MAX];

    if (!is_kept_by_path(folder))
        return;
    if (stg_where(folder, path) && asprintf(&whole, "%s%s%s", path, *path ? "/" : "", name) > 0)
        stg_disk_forget(disk, whole, is_folder);
    else
        stg_disk_give_up(disk);
}
