/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns `inode->kept`: of a folder what was taken from the disk, once, and for as long as the inode
 * lives; so nobody needs a lock to read it.
 *
 * A source without file handles gives numbers anew with each mount, and an object that is answered
 * from here has none of this mount's. Its number is made of its path: so it is the same in each
 * mount that answers from here, and what compares numbers sees no change from one to the next.
 *
 * Who opens such an object goes by its path, see stg_catalog_fits().
 */
#include "fs/catalog.h"

#include "fs/coherence.h"
#include "fs/mounts.h"
#include "fs/names.h"
#include "fs/place.h"
#include "fs/sync.h"
#include "fs/tier.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/crew.h"
#include "util/log.h"

#include <dirent.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define THREADS 4
#define QUEUED_MAX 65536
/* Numbers that no source gives by itself, as far as is known: those count from 1. */
#define OWN_NUMBER (UINT64_C(1) << 63)

struct recording {
    struct stg_crew_work work;
    struct stg_inode *folder; /* referenced */
};

static bool has_one;     /* set before there are other threads, as the next */
static struct statx top; /* what the top of the source was at the start */
static atomic_bool is_used;
static atomic_bool is_forgotten; /* and what is not as it was is no reason to doubt it */
static atomic_bool is_changed;   /* through the mount */
static atomic_bool ending;
static _Atomic uint64_t taken;
static _Atomic uint64_t written;

/* Of a folder of which nothing is kept. */
static char none;
#define NONE ((struct stg_folder *)(void *)&none)

bool stg_catalog_is_there(void) { return has_one; }

bool stg_catalog_is_over(void) { return has_one && !atomic_load(&is_used); }

bool stg_catalog_has_own_numbers(void) { return has_one && !stg_fs.root->volume->handles; }

uint64_t stg_catalog_taken(void) { return atomic_load(&taken); }

uint64_t stg_catalog_written(void) { return atomic_load(&written); }

/* ---- the beginning and the end ---- */

/* Does the top that is kept fit that of the source? Without it nothing tells. */
static bool is_top_kept(void) { return stg_catalog_folder(stg_fs.root) != NULL; }

bool stg_catalog_is_possible(void) {
    return stg_fs.options.coherence == STG_COHERENCE_FROZEN && stg_fs.options.read_only &&
           stg_tier_disk();
}

void stg_catalog_start(void) {
    struct stg_disk *disk = stg_tier_disk();
    bool may = stg_catalog_is_possible();

    if (!disk || (may && stg_mounts_has_below()))
        return;
    has_one = may && !statx(stg_fs.source_fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC,
                            STG_STATX_MASK, &top);
    atomic_store(&is_used, has_one);
    if (stg_disk_has_below(disk, STG_TIER_FOLDERS) && !(has_one && is_top_kept()))
        stg_disk_forget(disk, STG_TIER_FOLDERS, true);
}

void stg_catalog_drop(void) {
    if (!has_one)
        return;
    atomic_store(&is_used, false);
    if (!atomic_exchange(&is_forgotten, true))
        stg_disk_forget(stg_tier_disk(), STG_TIER_FOLDERS, true);
}

/* It is not used from now on, and forgotten soon: by the thread that syncs, or at the end. */
static void doubt(const char *why) {
    uint64_t ticket;

    if (!atomic_exchange(&is_used, false))
        return;
    stg_warning("%s, although coherence=frozen: what is kept of its folders is forgotten", why);
    (void)stg_sync_begin(&ticket); /* or the kernel keeps what it has, as it was told it may */
}

static uint32_t what_of(const struct statx *stx) {
    bool regular = S_ISREG(stx->stx_mode);
    uint64_t words[] = {(uint64_t)stx->stx_mode << 32 | stx->stx_uid,
                        stx->stx_gid,
                        regular ? stx->stx_size : 0,
                        regular ? (uint64_t)stx->stx_mtime.tv_sec : 0,
                        regular ? stx->stx_mtime.tv_nsec : 0,
                        regular ? (uint64_t)stx->stx_ctime.tv_sec : 0,
                        regular ? stx->stx_ctime.tv_nsec : 0};
    uint32_t what = (uint32_t)stg_hash_bytes(words, sizeof(words), 0);

    return what ? what : 1;
}

void stg_catalog_is_gone(const struct stg_inode *inode) {
    if (inode->kept_what && !atomic_load(&inode->volume->replaced))
        doubt("something was removed from the source since an earlier mount");
}

void stg_catalog_changing(void) {
    if (!has_one || atomic_load_explicit(&is_changed, memory_order_relaxed))
        return;
    atomic_store(&is_changed, true);
    doubt("the source is changed through the mount");
}

/*
 * While the catalog is used, what is there has to be what that says, whatever number the source's
 * own client has given it by now. After that it is told by its number; one that nobody had looked
 * at is what has its place, unless something may have been moved there through the mount.
 */
bool stg_catalog_fits(struct stg_inode *inode, const struct statx *stx) {
    bool is_type = (int8_t)(stx->stx_mode >> 12) == inode->type;
    uint64_t known = atomic_load(&inode->kept_as);

    if (atomic_load(&is_forgotten)) {
        if (!known && is_type && !atomic_load(&is_changed))
            (void)atomic_compare_exchange_strong(&inode->kept_as, &known, stx->stx_ino);
        return is_type && atomic_load(&inode->kept_as) == stx->stx_ino;
    }
    if (is_type && what_of(stx) == inode->kept_what) {
        atomic_store(&inode->kept_as, stx->stx_ino);
        return true;
    }
    doubt("the source has changed since an earlier mount");
    return false;
}

/* ---- taking ---- */

/* What is kept has that form, and is of nothing but itself. */
static const struct stg_identity form = {.size_bytes = STG_FOLDER_FORMAT};
/* Parts of files begin elsewhere. */
#define OFFSET UINT64_MAX

static struct stg_folder *read_kept(struct stg_inode *folder) {
    char path[STG_TIER_NAME_BYTES];
    struct stg_disk_name name = {.path = path, .now = form, .offset = OFFSET};
    struct stg_folder *kept = NULL;
    char *content;

    if (!atomic_load(&folder->volume->own) || !stg_tier_folder_name(folder, path))
        return NULL;
    content = stg_disk_find(stg_tier_disk(), &name);
    if (content && stg_folder_parse(content, name.bytes, &kept) == -EBADMSG)
        stg_disk_forget(stg_tier_disk(), path, false); /* or it would be found again and again */
    return kept;
}

static bool is_same_time(const struct statx_timestamp *one, const struct statx_timestamp *other) {
    return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

/* The one folder that is looked at in any case. */
static bool is_top_still(const struct stg_folder *kept) {
    struct statx then;

    stg_folder_self(kept, &then);
    return is_same_time(&then.stx_mtime, &top.stx_mtime) &&
           is_same_time(&then.stx_ctime, &top.stx_ctime);
}

static struct stg_folder *take(struct stg_inode *folder) {
    struct stg_folder *expected = NULL;
    struct stg_folder *kept = read_kept(folder);

    if (kept && folder == stg_fs.root && !is_top_still(kept)) {
        stg_folder_free(kept); /* and the start sees to the others */
        kept = NULL;
    }
    if (atomic_compare_exchange_strong(&folder->kept, &expected, kept ? kept : NONE)) {
        if (kept)
            atomic_fetch_add(&taken, 1);
        return kept;
    }
    stg_folder_free(kept); /* another thread was first */
    return expected == NONE ? NULL : expected;
}

const struct stg_folder *stg_catalog_folder(struct stg_inode *folder) {
    struct stg_folder *kept;

    if (!atomic_load_explicit(&is_used, memory_order_relaxed) || folder->type != (S_IFDIR >> 12))
        return NULL;
    kept = atomic_load_explicit(&folder->kept, memory_order_acquire);
    if (!kept)
        return take(folder);
    return kept == NONE ? NULL : kept;
}

void stg_catalog_free(struct stg_inode *inode) {
    struct stg_folder *kept = atomic_load(&inode->kept);

    if (kept != NONE)
        stg_folder_free(kept);
    inode->kept = NULL;
}

/* ---- answering ---- */

uint64_t stg_catalog_number(const struct stg_inode *folder, const struct stg_folder_entry *entry) {
    uint64_t above = folder == stg_fs.root ? 0 : folder->ino;

    if (folder->volume->handles)
        return entry->stx.stx_ino;
    return stg_hash_bytes(entry->name, strlen(entry->name), above) | OWN_NUMBER;
}

/* The source's own volume, which for its top is another after that was mounted again. */
static struct stg_volume *volume_of(const struct stg_inode *folder) {
    if (atomic_load(&folder->volume->replaced))
        for (struct stg_volume *volume = stg_volume_first(); volume; volume = volume->next)
            if (atomic_load(&volume->own) && !atomic_load(&volume->replaced))
                return volume;
    return folder->volume;
}

static void complete(const struct stg_inode *folder, const struct stg_folder_entry *entry,
                     struct statx *ret_stx) {
    *ret_stx = entry->stx;
    ret_stx->stx_ino = stg_catalog_number(folder, entry);
    ret_stx->stx_dev_major = major(folder->volume->device);
    ret_stx->stx_dev_minor = minor(folder->volume->device);
}

/* Is the name not there where what is kept has it not? */
static bool has_last_word(const struct stg_folder *kept, const char *name) {
    return stg_folder_tells_absent(kept) && stg_name_has_one_spelling(name) &&
           stg_name_is_listed(name) && strlen(name) <= NAME_MAX;
}

bool stg_catalog_lacks(struct stg_inode *folder, const char *name) {
    const struct stg_folder *kept = stg_catalog_folder(folder);
    struct stg_folder_entry entry;

    return kept && has_last_word(kept, name) && !stg_folder_find(kept, name, &entry);
}

int stg_catalog_lookup(struct stg_inode *folder, const char *name, struct stg_inode **ret_inode,
                       struct statx *ret_stx) {
    const struct stg_folder *kept = stg_catalog_folder(folder);
    struct stg_folder_entry entry;

    /* What is below a folder of before the source was mounted again is not found there any more. */
    if (!kept || (folder != stg_fs.root && atomic_load(&folder->volume->replaced)))
        return -EAGAIN;
    if (!stg_folder_find(kept, name, &entry))
        return has_last_word(kept, name) ? -ENOENT : -EAGAIN;
    if (!entry.is_known || (folder->volume->handles && !entry.handle_bytes))
        return -EAGAIN;
    complete(folder, &entry, ret_stx);
    return stg_inode_get_kept(&(const struct stg_kept_object){.volume = volume_of(folder),
                                                              .stx = ret_stx,
                                                              .handle = entry.handle,
                                                              .handle_bytes = entry.handle_bytes,
                                                              .handle_type = entry.handle_type,
                                                              .what = what_of(ret_stx)},
                              folder, name, ret_inode);
}

/* Finds what is kept of the object by where it is: `*ret_folder` is referenced then. */
static bool find(struct stg_inode *inode, struct stg_inode **ret_folder,
                 struct stg_folder_entry *ret_entry) {
    stg_auto_free char *name = NULL;
    const struct stg_folder *kept;

    if (!inode->kept_what || !atomic_load_explicit(&is_used, memory_order_relaxed) ||
        stg_place_get(inode, ret_folder, &name))
        return false;
    kept = stg_catalog_folder(*ret_folder);
    if (kept && stg_folder_find(kept, name, ret_entry) && ret_entry->is_known &&
        stg_catalog_number(*ret_folder, ret_entry) == inode->ino)
        return true;
    stg_inode_unref(*ret_folder);
    return false;
}

bool stg_catalog_attributes(struct stg_inode *inode, struct statx *ret_stx) {
    struct stg_folder_entry entry;
    struct stg_inode *folder;

    if (inode == stg_fs.root && stg_catalog_folder(inode)) {
        *ret_stx = top;
        return true;
    }
    if (!find(inode, &folder, &entry))
        return false;
    complete(folder, &entry, ret_stx);
    stg_inode_unref(folder);
    return true;
}

bool stg_catalog_target(struct stg_inode *inode, char *target) {
    struct stg_folder_entry entry;
    struct stg_inode *folder;
    bool found = find(inode, &folder, &entry);

    if (!found)
        return false;
    found = S_ISLNK(entry.stx.stx_mode) && *entry.target && strlen(entry.target) <= PATH_MAX;
    if (found)
        memcpy(target, entry.target, strlen(entry.target) + 1);
    stg_inode_unref(folder);
    return found;
}

/* What the kernel itself asks for, and where ENODATA is as good as that there can be none. */
static bool is_acl(const char *name) { return !strncmp(name, "system.posix_acl_", 17); }

int stg_catalog_xattr_error(struct stg_inode *inode, const char *name) {
    struct stg_folder_entry entry;
    struct stg_inode *folder;

    if ((!is_acl(name) && strcmp(name, "security.capability") != 0) ||
        !find(inode, &folder, &entry))
        return 0;
    stg_inode_unref(folder);
    return entry.has_xattrs ? 0 : -ENODATA;
}

/* ---- recording ---- */

/* May it have extended attributes that are listed, as ACLs and capabilities are? */
static bool may_have_xattrs(int fd) {
    char path[STG_PROC_FD_BYTES];
    ssize_t length;

    stg_proc_fd(path, fd);
    length = listxattr(path, NULL, 0);
    return length > 0 || (length < 0 && errno != EOPNOTSUPP);
}

/* The handle of what `fd` refers to; false: it has none. */
static bool handle_of(int fd, struct stg_file_handle *ret_handle) {
    int mount_id;

    ret_handle->head.handle_bytes = STG_HANDLE_MAX_BYTES;
    return !name_to_handle_at(fd, "", &ret_handle->head, &mount_id, AT_EMPTY_PATH);
}

/* Is it of the folder's own file system, and can be told from others without looking? */
static bool is_fit(const struct stg_inode *folder, const struct statx *self,
                   const struct statx *stx) {
    return stx->stx_mnt_id == self->stx_mnt_id &&
           makedev(stx->stx_dev_major, stx->stx_dev_minor) == folder->volume->device &&
           (folder->volume->handles || stx->stx_nlink == 1 || S_ISDIR(stx->stx_mode));
}

/* Without what cannot be had, it is looked up at the source. */
static void add_entry(struct stg_folder_writer *writer, const struct stg_inode *folder, int fd,
                      const struct statx *self, const struct dirent *listed) {
    stg_auto_fd int entry_fd = openat(fd, listed->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stg_folder_entry entry = {.name = listed->d_name, .target = ""};
    struct stg_file_handle handle;
    char target[PATH_MAX + 1];
    ssize_t length = 0;

    entry.is_known = entry_fd >= 0 &&
                     !statx(entry_fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &entry.stx) &&
                     is_fit(folder, self, &entry.stx) &&
                     (!folder->volume->handles || handle_of(entry_fd, &handle));
    if (entry.is_known && S_ISLNK(entry.stx.stx_mode)) {
        length = readlinkat(entry_fd, "", target, PATH_MAX);
        entry.is_known = length > 0 && length < PATH_MAX;
    }
    if (!entry.is_known) {
        entry.stx =
            (struct statx){.stx_mode = (uint16_t)(listed->d_type << 12), .stx_ino = listed->d_ino};
    } else {
        target[length] = '\0';
        entry.target = target;
        entry.has_xattrs = may_have_xattrs(entry_fd);
        if (folder->volume->handles) {
            entry.handle = handle.head.f_handle;
            entry.handle_bytes = (uint8_t)handle.head.handle_bytes;
            entry.handle_type = handle.head.handle_type;
        }
    }
    stg_folder_add(writer, &entry);
}

/* Reads the folder behind `stream`. False where that is not all of it. */
static bool read_all(struct stg_folder_writer *writer, const struct stg_inode *folder, DIR *stream,
                     const struct statx *self) {
    const struct dirent *listed;
    bool is_there = false; /* one that lists not even itself is gone */
    bool has_letters = false;
    char probe[256] = "";
    struct stat info;

    errno = 0;
    while (!atomic_load(&ending) && !writer->failed && (listed = readdir(stream))) {
        is_there = true;
        if (!stg_name_is_dots(listed->d_name)) {
            add_entry(writer, folder, dirfd(stream), self, listed);
            has_letters = has_letters || !stg_name_has_one_case(listed->d_name);
            if (!*probe && !stg_name_turn_case(listed->d_name, probe))
                *probe = '\0';
        }
        errno = 0;
    }
    if (errno || atomic_load(&ending) || !is_there)
        return false;
    /* One that has both spellings of the name seems to take either: it is asked, then. */
    writer->tells_absent =
        *probe ? fstatat(dirfd(stream), probe, &info, AT_SYMLINK_NOFOLLOW) && errno == ENOENT
               : !has_letters;
    return true;
}

/* What is to be kept of the folder, which the caller frees; NULL: nothing. */
static char *read_folder(struct stg_inode *folder, uint64_t *ret_bytes) {
    int fd = stg_inode_open(folder, O_RDONLY | O_DIRECTORY);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    struct stg_folder_writer writer;
    struct statx before;
    struct statx after;
    bool is_whole;

    if (!stream) {
        stg_fd_close(fd);
        return NULL;
    }
    is_whole = !statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &before);
    stg_folder_begin(&writer, is_whole ? &before : &(const struct statx){0});
    is_whole = is_whole && read_all(&writer, folder, stream, &before) &&
               !statx(fd, "", AT_EMPTY_PATH, STG_STATX_MASK, &after) &&
               is_same_time(&before.stx_mtime, &after.stx_mtime) &&
               is_same_time(&before.stx_ctime, &after.stx_ctime);
    (void)closedir(stream); /* read-only */
    writer.failed = writer.failed || !is_whole;
    return stg_folder_end(&writer, ret_bytes);
}

static void end(struct recording *recording) {
    stg_inode_unref(recording->folder);
    free(recording);
}

static void work(struct stg_crew_work *work) {
    struct recording *recording = (struct recording *)(void *)work;
    char path[STG_TIER_NAME_BYTES];
    struct stg_disk_name name = {.path = path, .now = form, .offset = OFFSET};
    uint64_t forgotten = stg_disk_forgotten(stg_tier_disk());
    char *content = NULL;

    if (atomic_load(&is_used) && stg_tier_folder_name(recording->folder, path))
        content = read_folder(recording->folder, &name.bytes);
    if (content && stg_disk_put(stg_tier_disk(), &name, content, forgotten))
        atomic_fetch_add(&written, 1);
    end(recording);
}

static void drop(struct stg_crew_work *work) { end((struct recording *)(void *)work); }

static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "what is kept of folders", .threads_max = THREADS,
             .length_max = QUEUED_MAX, .work = work, .drop = drop);

void stg_catalog_asked(struct stg_inode *folder) {
    struct recording *recording;

    if (!atomic_load_explicit(&is_used, memory_order_relaxed) ||
        atomic_load(&folder->kept) != NONE || !atomic_load(&folder->volume->own) ||
        atomic_exchange(&folder->is_kept_anew, true))
        return;
    recording = malloc(sizeof(*recording));
    if (!recording)
        return;
    *recording = (struct recording){.folder = folder};
    stg_inode_ref(folder);
    if (!stg_crew_push(&crew, &recording->work))
        end(recording);
}

void stg_catalog_stop(void) {
    atomic_store(&ending, true);
    stg_crew_stop(&crew);
}

void stg_catalog_fini(void) {
    if (!atomic_load(&is_used))
        stg_catalog_drop(); /* what was doubted, and no sync came */
}
