/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the reading of the kernel's files about memory. What is done about it is pressure.c's.
 *
 * A limit of any cgroup between ours and the root binds us, so all levels are read, up to the one
 * that is mounted. Above that version 1 helps with "hierarchical_memory_limit", which includes
 * levels that a container does not see (Documentation/admin-guide/cgroup-v1/memory.rst). Version 2
 * has no such thing (Documentation/admin-guide/cgroup-v2.rst).
 */
#include "cache/memory.h"

#include "util/cleanup.h"
#include "util/parse.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define UNKNOWN_HOT_BYTES ((uint64_t)64 << 20)

/* What the two versions call the same. */
struct version {
    const char *type;      /* of the mount */
    const char *limits[2]; /* memory.high is where a cgroup is slowed down until it shrinks */
    const char *usage;
    const char *inactive;     /* in memory.stat: page cache that goes first */
    const char *hierarchical; /* in memory.stat */
};

static const struct version versions[] = {
    {.type = "cgroup",
     .limits = {"memory.limit_in_bytes"},
     .usage = "memory.usage_in_bytes",
     .inactive = "total_inactive_file ",
     .hierarchical = "hierarchical_memory_limit "},
    {.type = "cgroup2",
     .limits = {"memory.max", "memory.high"},
     .usage = "memory.current",
     .inactive = "inactive_file "},
};
enum { V1, V2, VERSIONS };

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- lines ---- */

/*
 * Calls `take` with each line, without its newline, until that returns something but 0, which is
 * returned. 0 where the file cannot be read.
 */
static int each_line(const char *path, int (*take)(char *line, void *context), void *context) {
    stg_auto_free char *line = NULL;
    size_t room = 0;
    ssize_t length;
    int result = 0;
    FILE *file = fopen(path, "re");

    if (!file)
        return errno == ENOMEM ? -ENOMEM : 0;
    while (!result && (length = getline(&line, &room, file)) >= 0) {
        if (length && line[length - 1] == '\n')
            line[length - 1] = '\0';
        result = take(line, context);
    }
    (void)fclose(file); /* only read */
    return result;
}

static int each_line_of(const char *root, const char *name, int (*take)(char *line, void *context),
                        void *context) {
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s%s", root, name) >= (int)sizeof(path))
        return 0;
    return each_line(path, take, context);
}

/* `text` is a number, or "max". */
static int parse_limit(const char *text, uint64_t *ret_value) {
    if (!strcmp(text, "max")) {
        *ret_value = UINT64_MAX;
        return 0;
    }
    return stg_parse_uint(text, 0, UINT64_MAX, ret_value) ? -EBADMSG : 0;
}

static int take_number(char *line, void *context) { return parse_limit(line, context); }

/* ---- the machine ---- */

/* "MemTotal:       24683656 kB" */
static int parse_kib(char *text, uint64_t *ret_bytes) {
    static const char unit[] = " kB";
    size_t length = strlen(text);
    uint64_t kib;

    if (length < sizeof(unit) || strcmp(text + length - (sizeof(unit) - 1), unit) != 0)
        return -EBADMSG;
    text[length - (sizeof(unit) - 1)] = '\0';
    if (stg_parse_uint(text + strspn(text, " "), 0, UINT64_MAX / 1024, &kib))
        return -EBADMSG;
    *ret_bytes = kib * 1024;
    return 0;
}

static int take_meminfo(char *line, void *context) {
    static const char total[] = "MemTotal:";
    static const char available[] = "MemAvailable:"; /* since Linux 3.14 */
    struct stg_memory *memory = context;

    if (!strncmp(line, total, sizeof(total) - 1))
        return parse_kib(line + sizeof(total) - 1, &memory->total_bytes);
    if (!strncmp(line, available, sizeof(available) - 1))
        return parse_kib(line + sizeof(available) - 1, &memory->available_bytes);
    return 0;
}

/* ---- where our cgroups are ---- */

struct cgroups {
    const char *root;
    char *paths[VERSIONS]; /* as /proc/self/cgroup has them, or NULL */
    /* Called for the folder of each; `mount_bytes` of its path are the mount point. */
    int (*visit)(const struct version *version, char *path, size_t mount_bytes, void *context);
    void *context;
};

/* Is `word` one of the comma-separated `list`? */
static bool has_word(const char *list, const char *word) {
    size_t length = strlen(word);

    for (; list; list = strchr(list, ',')) {
        list += *list == ',';
        if (!strncmp(list, word, length) && (!list[length] || list[length] == ','))
            return true;
    }
    return false;
}

/* "4:memory:/a/b", or "0::/a/b" for version 2; the path may have colons. */
static int take_cgroup(char *line, void *context) {
    struct cgroups *cgroups = context;
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    int version;

    if (!path || path[1] != '/')
        return -EBADMSG;
    *controllers++ = '\0';
    *path++ = '\0';
    if (!*controllers && !strcmp(line, "0"))
        version = V2;
    else if (has_word(controllers, "memory"))
        version = V1;
    else
        return 0;
    free(cgroups->paths[version]);
    cgroups->paths[version] = strdup(path);
    return cgroups->paths[version] ? 0 : -ENOMEM;
}

/* Undoes the octal escapes of mountinfo ("\040" is a space) in place. */
static void unescape(char *text) {
    char *out = text;

    for (; *text; text++) {
        if (text[0] == '\\' && strspn(text + 1, "01234567") >= 3) {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

/* The part of `path` below `top`: "" or "/…"; NULL where it is not below. */
static const char *below(const char *path, const char *top) {
    size_t length = strcmp(top, "/") != 0 ? strlen(top) : 0;
    const char *rest = path + length;

    if (strncmp(path, top, length) != 0 || (*rest && *rest != '/'))
        return NULL;
    /* Outside of our cgroup namespace: the names on the way are not known (cgroup_namespaces(7)).
     */
    if (strstr(rest, "/.."))
        return NULL;
    return strcmp(rest, "/") != 0 ? rest : "";
}

static int visit_mount(const struct cgroups *cgroups, int version, const char *top,
                       const char *mount_point) {
    const char *rest = cgroups->paths[version] ? below(cgroups->paths[version], top) : NULL;
    char path[PATH_MAX];
    int length;

    if (!rest)
        return 0;
    length = snprintf(path, sizeof(path), "%s%s%s", cgroups->root, mount_point, rest);
    if (length >= (int)sizeof(path))
        return 0;
    return cgroups->visit(&versions[version], path, strlen(cgroups->root) + strlen(mount_point),
                          cgroups->context);
}

/* "36 35 98:0 /top /mount/point rw,noatime shared:1 … - type source options" */
static int take_mount(char *line, void *context) {
    char *separator = strstr(line, " - ");
    char *fields[5];
    char *rest = line;
    char *type;
    char *options;

    for (size_t i = 0; i < 5; i++)
        if (!(fields[i] = strsep(&rest, " ")))
            return -EBADMSG;
    if (!rest || !separator || separator < rest - 1)
        return -EBADMSG;
    separator += strlen(" - ");
    type = strsep(&separator, " ");
    (void)strsep(&separator, " "); /* the source */
    options = separator ? separator : "";
    unescape(fields[3]);
    unescape(fields[4]);
    if (!strcmp(type, versions[V2].type))
        return visit_mount(context, V2, fields[3], fields[4]);
    if (!strcmp(type, versions[V1].type) && has_word(options, "memory"))
        return visit_mount(context, V1, fields[3], fields[4]);
    return 0;
}

static int visit_cgroups(struct cgroups *cgroups) {
    int error = each_line_of(cgroups->root, "/proc/self/cgroup", take_cgroup, cgroups);

    if (!error)
        error = each_line_of(cgroups->root, "/proc/self/mountinfo", take_mount, cgroups);
    for (int i = 0; i < VERSIONS; i++)
        free(cgroups->paths[i]);
    return error;
}

/* ---- what they allow ---- */

/* Reads a file with one number; UINT64_MAX where there is none. */
static int read_number(const char *folder, const char *name, uint64_t *ret_value) {
    char path[PATH_MAX];

    *ret_value = UINT64_MAX;
    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        return 0;
    return each_line(path, take_number, ret_value);
}

struct statistics {
    const struct version *version;
    uint64_t inactive_bytes;
    uint64_t hierarchical_bytes;
};

static int take_statistic(char *line, void *context) {
    struct statistics *statistics = context;
    const char *inactive = statistics->version->inactive;
    const char *hierarchical = statistics->version->hierarchical;

    if (!strncmp(line, inactive, strlen(inactive)))
        return parse_limit(line + strlen(inactive), &statistics->inactive_bytes);
    if (hierarchical && !strncmp(line, hierarchical, strlen(hierarchical)))
        return parse_limit(line + strlen(hierarchical), &statistics->hierarchical_bytes);
    return 0;
}

/* Reads the limits of one level; UINT64_MAX where there is none. */
static int read_limit(const struct version *version, const char *folder, uint64_t *ret_bytes) {
    uint64_t limit_bytes = UINT64_MAX;

    for (size_t i = 0; i < 2 && version->limits[i]; i++) {
        uint64_t bytes;
        int error = read_number(folder, version->limits[i], &bytes);

        if (error)
            return error;
        limit_bytes = least(limit_bytes, bytes);
    }
    *ret_bytes = limit_bytes;
    return 0;
}

static int read_level(const struct version *version, const char *folder,
                      struct stg_memory *memory) {
    struct statistics statistics = {.version = version, .hierarchical_bytes = UINT64_MAX};
    char path[PATH_MAX];
    uint64_t limit_bytes;
    uint64_t usage_bytes;
    int error = read_limit(version, folder, &limit_bytes);

    if (!error)
        error = read_number(folder, version->usage, &usage_bytes);
    if (!error && snprintf(path, sizeof(path), "%s/memory.stat", folder) < (int)sizeof(path))
        error = each_line(path, take_statistic, &statistics);
    if (error)
        return error;
    memory->limit_bytes = least(memory->limit_bytes, limit_bytes);
    memory->limit_bytes = least(memory->limit_bytes, statistics.hierarchical_bytes);
    if (limit_bytes == UINT64_MAX || usage_bytes == UINT64_MAX)
        return 0;
    usage_bytes -= least(usage_bytes, statistics.inactive_bytes);
    memory->available_bytes =
        least(memory->available_bytes, limit_bytes - least(limit_bytes, usage_bytes));
    return 0;
}

static int read_levels(const struct version *version, char *path, size_t mount_bytes,
                       void *context) {
    for (;;) {
        int error = read_level(version, path, context);

        if (error || strlen(path) <= mount_bytes)
            return error;
        *strrchr(path, '/') = '\0';
    }
}

int stg_memory_read(const char *root, struct stg_memory *ret) {
    struct stg_memory memory = {.limit_bytes = UINT64_MAX, .available_bytes = UINT64_MAX};
    struct cgroups cgroups = {.root = root, .visit = read_levels, .context = &memory};
    int error = each_line_of(root, "/proc/meminfo", take_meminfo, &memory);

    if (!error)
        error = visit_cgroups(&cgroups);
    if (error)
        return error;
    if (memory.total_bytes)
        memory.limit_bytes = least(memory.limit_bytes, memory.total_bytes);
    memory.available_bytes = least(memory.available_bytes, memory.limit_bytes);
    *ret = memory;
    return 0;
}

struct destination {
    char *path;
    size_t room_bytes;
};

/* Ends the visit with 1 at the first that is of version 2. */
static int copy_path(const struct version *version, char *path, size_t mount_bytes, void *context) {
    const struct destination *destination = context;
    size_t bytes = strlen(path) + 1;

    (void)mount_bytes;
    if (version != &versions[V2])
        return 0;
    if (bytes > destination->room_bytes)
        return -ENAMETOOLONG;
    memcpy(destination->path, path, bytes);
    return 1;
}

int stg_memory_cgroup_path(const char *root, char *path, size_t room_bytes) {
    struct destination destination = {path, room_bytes};
    struct cgroups cgroups = {.root = root, .visit = copy_path, .context = &destination};
    int result = visit_cgroups(&cgroups);

    if (result < 0)
        return result;
    return result ? 0 : -ENOENT;
}

/* ---- defaults ---- */

uint64_t stg_memory_default_hot_bytes(const struct stg_memory *memory) {
    if (memory->limit_bytes == UINT64_MAX)
        return least(UNKNOWN_HOT_BYTES, memory->available_bytes / 2);
    return least(memory->limit_bytes / 4, memory->available_bytes / 2);
}

uint64_t stg_memory_default_cold_bytes(const struct stg_memory *memory) {
    return stg_memory_default_hot_bytes(memory) / 2;
}
