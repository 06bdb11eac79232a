/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the reading of /proc/self/mountinfo; see proc(5) for its fields. */
#include "fs/mounts.h"

#include "fs/fs.h"
#include "fs/kernel_abi.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TABLE "/proc/self/mountinfo"

static int table_fd = -1;
static uint64_t seen; /* a hash of what was below the source */

/* `path` as the table writes it: blanks and backslashes in octal. */
static void escape(const char *path, char line[PATH_MAX * 4]) {
    char *at = line;

    for (; *path && at < line + PATH_MAX * 4 - 5; path++) {
        if (strchr(" \t\n\\", *path))
            at += sprintf(at, "\\%03o", (unsigned char)*path);
        else
            *at++ = *path;
    }
    *at = '\0';
}

struct entry {
    int id;
    unsigned major;
    unsigned minor;
    const char *root;
    const char *point;
    const char *type;
    const char *device; /* or what else it is made of: "host:/folder" */
    const char *owner;  /* of one by FUSE: "user_id=…"; "": root alone can make it */
};

/* The fields of a line, which is cut up for it. */
static bool parse(char *line, struct entry *ret_entry) {
    char *save = NULL;
    const char *field[5];
    int numbers;

    for (int i = 0; i < 5; i++) {
        field[i] = strtok_r(i ? NULL : line, " ", &save);
        if (!field[i])
            return false;
    }
    numbers = sscanf(field[2], "%u:%u", &ret_entry->major, &ret_entry->minor);
    ret_entry->id = atoi(field[0]); /* the kernel's own number */
    ret_entry->root = field[3];
    ret_entry->point = field[4];
    ret_entry->type = ret_entry->device = ret_entry->owner = "";
    do { /* optional ones, and a hyphen after them */
        field[0] = strtok_r(NULL, " ", &save);
    } while (field[0] && strcmp(field[0], "-"));
    field[1] = field[0] ? strtok_r(NULL, " ", &save) : NULL;
    field[2] = field[1] ? strtok_r(NULL, " \n", &save) : NULL;
    if (field[2]) {
        ret_entry->type = field[1];
        ret_entry->device = field[2];
    }
    while ((field[0] = strtok_r(NULL, ",\n", &save)))
        if (!strncmp(field[0], "user_id=", strlen("user_id=")))
            ret_entry->owner = field[0];
    return numbers == 2;
}

/* Calls `visit` with each mount. False where the table cannot be read. */
static bool each(void (*visit)(const struct entry *entry, void *context), void *context) {
    FILE *table = fopen(TABLE, "re");
    stg_auto_free char *line = NULL;
    size_t room = 0;

    if (!table)
        return false;
    while (getline(&line, &room, table) > 0) {
        struct entry entry;

        if (parse(line, &entry))
            visit(&entry, context);
    }
    (void)fclose(table); /* read-only */
    return true;
}

struct below {
    char source[PATH_MAX * 4];
    size_t length;
    uint64_t hash;
};

static void add_below(const struct entry *entry, void *context) {
    struct below *below = context;

    if (strncmp(entry->point, below->source, below->length) ||
        (below->length > 1 && entry->point[below->length] != '/'))
        return;
    below->hash = stg_hash_bytes(entry->point, strlen(entry->point), below->hash);
    below->hash = stg_hash_bytes(entry->root, strlen(entry->root), below->hash);
    below->hash = stg_hash_u64(below->hash ^ (uint64_t)entry->id << 32 ^
                               (uint64_t)entry->major << 20 ^ entry->minor);
}

/* A hash of what is mounted below the source now; 0: nothing. False: it cannot be found out. */
static bool hash_below(uint64_t *ret_hash) {
    stg_auto_free struct below *below = calloc(1, sizeof(*below));

    if (!below)
        return false;
    escape(stg_fs.options.source, below->source);
    below->length = strlen(below->source);
    if (!each(add_below, below))
        return false;
    *ret_hash = below->hash;
    return true;
}

bool stg_mounts_changed(void) {
    uint64_t hash;
    bool changed;

    if (!hash_below(&hash))
        return true; /* at worst too much is looked at */
    changed = hash != seen;
    seen = hash;
    return changed;
}

bool stg_mounts_has_below(void) {
    uint64_t hash;

    return !hash_below(&hash) || hash;
}

int stg_mounts_open(void) {
    table_fd = open(TABLE, O_RDONLY | O_CLOEXEC);
    if (table_fd < 0)
        return -errno;
    (void)stg_mounts_changed(); /* from now on */
    return 0;
}

void stg_mounts_close(void) { stg_fd_close(stg_fd_steal(&table_fd)); }

int stg_mounts_fd(void) { return table_fd; }

struct search {
    char point[PATH_MAX * 4];
    int minor;
};

static void match(const struct entry *entry, void *context) {
    struct search *search = context;

    if (!strcmp(entry->point, search->point))
        search->minor = (int)entry->minor; /* the last one is the uppermost */
}

int stg_mounts_minor(const char *path) {
    stg_auto_free struct search *search = calloc(1, sizeof(*search));

    if (!search)
        return -1;
    search->minor = -1;
    escape(path, search->point);
    return each(match, search) ? search->minor : -1;
}

/* ---- what takes the source's place ---- */

static uint64_t source_id;
static char *source_mount; /* what it is and where, as name_mount() writes it; NULL: not known */

static bool name_mount(const struct entry *entry, char **ret_text) {
    int length = asprintf(ret_text, "%s %s %s %s %s", entry->point, entry->root, entry->type,
                          entry->device, entry->owner);

    if (length < 0)
        *ret_text = NULL;
    return length >= 0;
}

static void note_source(const struct entry *entry, void *context) {
    const uint64_t *id = context;

    if ((uint64_t)entry->id != *id || !name_mount(entry, &source_mount))
        return;
    source_id = *id;
}

int stg_mounts_note_source(uint64_t mount_id) {
    if (!each(note_source, &mount_id))
        return -errno;
    return source_mount ? 0 : -ENOENT;
}

struct succession {
    bool is_there; /* the source's own mount */
    uint64_t id;   /* of the uppermost of those that are like it; 0: there is none */
};

static void compare(const struct entry *entry, void *context) {
    struct succession *succession = context;
    stg_auto_free char *text = NULL;

    if ((uint64_t)entry->id == source_id)
        succession->is_there = true;
    else if (name_mount(entry, &text) && !strcmp(text, source_mount))
        succession->id = (uint64_t)entry->id;
}

uint64_t stg_mounts_successor(void) {
    struct succession succession = {0};

    if (!source_mount || !each(compare, &succession) || succession.is_there)
        return 0;
    return succession.id;
}

void stg_mounts_succeed(uint64_t mount_id) { source_id = mount_id; }

void stg_mounts_forget_source(void) {
    free(source_mount);
    source_mount = NULL;
}

/* ---- what the source is ---- */

struct description {
    uint64_t mount_id;
    const char *path; /* escaped */
    const char *uuid; /* of the file system; "": not known */
    char *text;
    size_t room;
    bool found;
};

static void describe(const struct entry *entry, void *context) {
    struct description *description = context;
    const char *rest = description->path;
    const char *which = *description->uuid ? description->uuid : entry->device;
    size_t length = strlen(entry->point);
    /* A name that several file systems may have says too little: where it is has to do. */
    bool named = *description->uuid ||
                 (strpbrk(which, "/:") && strncmp(entry->type, "fuse", strlen("fuse")) != 0);

    if ((uint64_t)entry->id != description->mount_id || description->found)
        return;
    if (strcmp(entry->point, "/") && !strncmp(rest, entry->point, length))
        rest += length;
    description->found =
        snprintf(description->text, description->room, "%s %s %s%s%s%s", entry->type, which,
                 strcmp(entry->root, "/") ? entry->root : "", *rest ? rest : "/",
                 named ? "" : " on ", named ? "" : entry->point) < (int)description->room;
}

/* The file system's own name for itself, since Linux 6.9; "" where it has none. */
static void read_uuid(int fd, char text[2 * STG_UUID_BYTES + 1]) {
    stg_auto_fd int real = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stg_fs_uuid uuid = {0};

    *text = '\0';
    if (real < 0 || ioctl(real, STG_IOC_GET_FS_UUID, &uuid) ||
        !memcmp(uuid.bytes, (unsigned char[STG_UUID_BYTES]){0}, STG_UUID_BYTES))
        return;
    for (unsigned i = 0; i < uuid.length && i < STG_UUID_BYTES; i++)
        (void)sprintf(text + 2 * i, "%02x", uuid.bytes[i]); /* fits */
}

int stg_mounts_describe(int fd, const char *path, char *text, size_t room) {
    stg_auto_free char *line = malloc(PATH_MAX * 4);
    char uuid[2 * STG_UUID_BYTES + 1];
    struct description description = {.path = line, .uuid = uuid, .text = text, .room = room};
    struct statx stx;

    if (!line)
        return -ENOMEM;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx))
        return -errno;
    escape(path, line);
    read_uuid(fd, uuid);
    description.mount_id = stx.stx_mnt_id;
    if (each(describe, &description) && description.found)
        return 0;
    stg_error("source %s is not in the table of mounts, so what is kept of it on disk could not be "
              "found again; leave out stage_dir=",
              path);
    return -ENOENT;
}
