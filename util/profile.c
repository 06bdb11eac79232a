/* SPDX-License-Identifier: GPL-2.0-only */
#include "util/profile.h"

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/io.h"
#include "util/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD "stagefs-profile 1"
#define AGE_DIGITS 10

static const char *const kinds[] = {"folder", "search", "file", NULL};

bool stg_profile_is_name(const char *word) { return *word && *word != '.' && !strchr(word, '/'); }

void stg_profile_fini(struct stg_profile *profile) {
    for (size_t i = 0; i < profile->count; i++)
        free(profile->entries[i].path);
    free(profile->entries);
    *profile = STG_PROFILE_NONE;
}

static int make_room(struct stg_profile *profile) {
    size_t room = profile->room ? profile->room * 2 : 256;
    struct stg_profile_entry *more;

    if (profile->count < profile->room)
        return 0;
    more = reallocarray(profile->entries, room, sizeof(*more));
    if (!more)
        return -ENOMEM;
    profile->entries = more;
    profile->room = room;
    return 0;
}

int stg_profile_add(struct stg_profile *profile, enum stg_profile_kind kind, unsigned age,
                    const char *path) {
    size_t bytes = strlen(path) + 1;
    char *copy;

    if (profile->count == STG_PROFILE_ENTRIES_MAX ||
        profile->bytes + bytes > STG_PROFILE_TEXT_MAX_BYTES / 4) { /* escaped it is twice that */
        profile->left_out++;
        return 0;
    }
    copy = make_room(profile) ? NULL : strdup(path);
    if (!copy)
        return -ENOMEM;
    profile->entries[profile->count++] =
        (struct stg_profile_entry){.kind = kind, .age = age, .path = copy};
    profile->bytes += bytes;
    return 0;
}

/* ---- text ---- */

/* A path from the top: no "..", nothing empty, and no way out. */
static bool is_path(const char *path) {
    if (!strcmp(path, "."))
        return true;
    if (strlen(path) >= PATH_MAX)
        return false;
    for (const char *at = path;; at++) {
        size_t bytes = strcspn(at, "/");

        if (!bytes || (bytes == 1 && *at == '.') || (bytes == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at += bytes;
        if (!*at)
            return true;
    }
}

/* In place. False where an escape is none. */
static bool unescape(char *path) {
    char *end = path;

    for (char *at = path; *at; at++) {
        char c = *at;

        if (c == '\\') {
            c = *++at;
            if (c != '\\' && c != 'n' && c != 'r')
                return false;
            c = c == 'n' ? '\n' : c == 'r' ? '\r' : c;
        }
        *end++ = c;
    }
    *end = '\0';
    return true;
}

static int parse_line(struct stg_profile *profile, char *line) {
    char *cursor = line;
    const char *word = strsep(&cursor, " ");
    const char *digits = strsep(&cursor, " ");
    int kind = stg_parse_word(word, kinds);
    uint64_t age;

    if (kind < 0 || !digits || !cursor || stg_parse_uint(digits, 0, STG_PROFILE_AGE_MAX, &age) ||
        !unescape(cursor) || !is_path(cursor))
        return -EINVAL;
    return stg_profile_add(profile, (enum stg_profile_kind)kind, (unsigned)age, cursor);
}

int stg_profile_parse(struct stg_profile *profile, const char *text, size_t bytes, bool headless,
                      size_t *ret_line) {
    /* The longest path, each byte of it escaped, and what comes before. */
    const size_t longest = 2 * (size_t)PATH_MAX + sizeof("search ") + AGE_DIGITS;
    char line[2 * (size_t)PATH_MAX + sizeof("search ") + AGE_DIGITS + 1];
    size_t number = 0;
    int error = 0;

    for (size_t at = 0; at < bytes && !error;) {
        const char *newline = memchr(text + at, '\n', bytes - at);
        size_t length = newline ? (size_t)(newline - text) - at : bytes - at;

        *ret_line = ++number;
        if (length > longest || memchr(text + at, '\0', length))
            return -EINVAL;
        memcpy(line, text + at, length);
        if (length && line[length - 1] == '\r') /* it went through an editor, or a checkout */
            length--;
        line[length] = '\0';
        if (number == 1 && !headless)
            error = strcmp(line, HEAD) ? -EINVAL : 0;
        else if (*line && *line != '#')
            error = parse_line(profile, line);
        at = newline ? (size_t)(newline - text) + 1 : bytes;
    }
    if (!number && !headless) {
        *ret_line = 1;
        return -EINVAL;
    }
    return error;
}

int stg_profile_read(struct stg_profile *profile, const char *path, size_t *ret_line) {
    /* Not waiting: a FIFO is no profile. */
    stg_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    stg_auto_free char *text = NULL;
    struct stat info;
    ssize_t got;

    *ret_line = 0;
    if (fd < 0 || fstat(fd, &info))
        return -errno;
    if (!S_ISREG(info.st_mode))
        return -EINVAL;
    if ((uint64_t)info.st_size > STG_PROFILE_TEXT_MAX_BYTES)
        return -EFBIG;
    text = malloc((size_t)info.st_size + 1);
    if (!text)
        return -ENOMEM;
    got = stg_io_read_whole(fd, text, (size_t)info.st_size, 0);
    return got < 0 ? (int)got : stg_profile_parse(profile, text, (size_t)got, false, ret_line);
}

void stg_profile_write_entry(const struct stg_profile_entry *entry, FILE *stream) {
    (void)fprintf(stream, "%s %u ", kinds[entry->kind], entry->age);
    for (const char *at = entry->path; *at; at++) {
        if (*at == '\\' || *at == '\n' || *at == '\r')
            (void)fputc('\\', stream);
        (void)fputc(*at == '\n' ? 'n' : *at == '\r' ? 'r' : *at, stream);
    }
    (void)fputc('\n', stream);
}

void stg_profile_write(const struct stg_profile *profile, FILE *stream) {
    (void)fputs(HEAD "\n", stream);
    for (size_t i = 0; i < profile->count; i++)
        stg_profile_write_entry(&profile->entries[i], stream);
}

/* ---- merging ---- */

struct place {
    uint64_t hash; /* of the path */
    size_t index;
};

/* What only the old one has, and after which entry of the fresh one (from 1; 0: none) it goes. */
struct left {
    size_t after;
    size_t index;
};

static int compare_places(const void *a, const void *b) {
    const struct place *one = a;
    const struct place *other = b;

    return one->hash < other->hash ? -1 : one->hash > other->hash;
}

static int compare_left(const void *a, const void *b) {
    const struct left *one = a;
    const struct left *other = b;

    if (one->after != other->after)
        return one->after < other->after ? -1 : 1;
    return one->index < other->index ? -1 : one->index > other->index;
}

static uint64_t hash_of(const char *path) { return stg_hash_bytes(path, strlen(path), 0); }

static int add_entry(struct stg_profile *profile, const struct stg_profile_entry *entry,
                     unsigned older) {
    if (entry->age + older > STG_PROFILE_AGE_MAX)
        return 0;
    return stg_profile_add(profile, entry->kind, entry->age + older, entry->path);
}

/* Which entries of `old` are left, in the order in which they go between those of `fresh`. */
static size_t find_left(const struct stg_profile *old, const struct stg_profile *fresh,
                        struct place *places, struct left *left) {
    size_t after = 0;
    size_t count = 0;

    for (size_t i = 0; i < fresh->count; i++)
        places[i] = (struct place){.hash = hash_of(fresh->entries[i].path), .index = i};
    qsort(places, fresh->count, sizeof(*places), compare_places);
    for (size_t i = 0; i < old->count; i++) {
        struct place wanted = {.hash = hash_of(old->entries[i].path)};
        const struct place *found =
            bsearch(&wanted, places, fresh->count, sizeof(*places), compare_places);

        if (found)
            after = found->index + 1;
        else
            left[count++] = (struct left){.after = after, .index = i};
    }
    qsort(left, count, sizeof(*left), compare_left);
    return count;
}

int stg_profile_merge(const struct stg_profile *old, const struct stg_profile *fresh, bool whole,
                      struct stg_profile *ret_merged) {
    struct place *places = calloc(fresh->count + 1, sizeof(*places));
    struct left *left = calloc(old->count + 1, sizeof(*left));
    struct stg_profile merged = STG_PROFILE_NONE;
    size_t count = 0;
    size_t next = 0;
    int error = places && left ? 0 : -ENOMEM;

    if (!error)
        count = find_left(old, fresh, places, left);
    for (size_t i = 0; i <= fresh->count && !error; i++) {
        if (i)
            error = add_entry(&merged, &fresh->entries[i - 1], 0);
        for (; next < count && left[next].after == i && !error; next++)
            error = add_entry(&merged, &old->entries[left[next].index], whole);
    }
    free(places);
    free(left);
    if (error)
        stg_profile_fini(&merged);
    else
        *ret_merged = merged;
    return error;
}
