/* SPDX-License-Identifier: GPL-2.0-only */
/* What is kept of a folder: it comes back as it was, and what is damaged is none. */
#include "tests/unit/unit.h"

#include "cache/folder.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 500

static struct statx stx_of(unsigned seed) {
    return (struct statx){
        .stx_mask = STATX_BASIC_STATS,
        .stx_ino = UINT64_C(1) << 40 | seed,
        .stx_size = (uint64_t)seed * 1000,
        .stx_blocks = seed * 2,
        .stx_atime = {.tv_sec = -1 - (int64_t)seed, .tv_nsec = seed},
        .stx_mtime = {.tv_sec = (INT64_C(1) << 33) + seed, .tv_nsec = 999999999 - seed},
        .stx_ctime = {.tv_sec = seed, .tv_nsec = 7},
        .stx_nlink = seed + 1,
        .stx_uid = UINT32_MAX - seed,
        .stx_gid = seed,
        .stx_rdev_major = 8,
        .stx_rdev_minor = seed,
        .stx_blksize = 4096,
        .stx_mode = (uint16_t)(S_IFREG | (seed & 0777)),
    };
}

static void name_of(unsigned seed, char name[32]) {
    (void)snprintf(name, 32, "name %u\n\xc3\xa4", seed * 7919 % ENTRIES);
}

static void add(struct stg_folder_writer *writer, unsigned seed) {
    char name[32];
    unsigned char handle[128];
    struct stg_folder_entry entry = {.name = name,
                                     .target = seed % 3 ? "" : "../some/where",
                                     .handle = handle,
                                     .handle_bytes = (uint8_t)(seed % 129),
                                     .handle_type = -(int32_t)seed,
                                     .is_known = seed % 5 != 0,
                                     .has_xattrs = seed % 2,
                                     .stx = stx_of(seed)};

    name_of(seed, name);
    memset(handle, (int)seed, sizeof(handle));
    stg_folder_add(writer, &entry);
}

static char *make(unsigned entries, bool tells_absent, uint64_t *ret_bytes) {
    struct stg_folder_writer writer;
    struct statx self = stx_of(12345);
    char *content;

    stg_folder_begin(&writer, &self);
    for (unsigned i = 0; i < entries; i++)
        add(&writer, i);
    writer.tells_absent = tells_absent;
    content = stg_folder_end(&writer, ret_bytes);
    assert_non_null(content);
    return content;
}

static void check_entry(const struct stg_folder_entry *entry, unsigned seed) {
    struct statx stx = stx_of(seed);
    unsigned char handle[128];
    char name[32];

    name_of(seed, name);
    memset(handle, (int)seed, sizeof(handle));
    assert_string_equal(entry->name, name);
    assert_string_equal(entry->target, seed % 3 ? "" : "../some/where");
    assert_int_equal(entry->handle_bytes, seed % 129);
    assert_memory_equal(entry->handle, handle, entry->handle_bytes);
    assert_int_equal(entry->handle_type, -(int32_t)seed);
    assert_int_equal(entry->is_known, seed % 5 != 0);
    assert_int_equal(entry->has_xattrs, seed % 2);
    assert_memory_equal(&entry->stx, &stx, sizeof(stx));
}

static void test_comes_back(void **state) {
    struct statx self = stx_of(12345);
    struct statx got;
    struct stg_folder_entry entry;
    struct stg_folder *folder;
    uint64_t bytes;
    char *content = make(ENTRIES, true, &bytes);
    char name[32];

    (void)state;
    assert_int_equal(stg_folder_parse(content, bytes, &folder), 0);
    assert_int_equal(stg_folder_count(folder), ENTRIES);
    assert_true(stg_folder_tells_absent(folder));
    stg_folder_self(folder, &got);
    assert_memory_equal(&got, &self, sizeof(self));
    for (unsigned i = 0; i < ENTRIES; i++) {
        stg_folder_at(folder, i, &entry); /* in the order in which they were added */
        check_entry(&entry, i);
        name_of(i, name);
        assert_true(stg_folder_find(folder, name, &entry));
        check_entry(&entry, i);
    }
    assert_false(stg_folder_find(folder, "name", &entry));
    assert_false(stg_folder_find(folder, "", &entry));
    assert_false(stg_folder_find(folder, "zzz", &entry));
    stg_folder_free(folder);
}

static void test_empty(void **state) {
    struct stg_folder_entry entry;
    struct stg_folder *folder;
    uint64_t bytes;
    char *content = make(0, false, &bytes);

    (void)state;
    assert_int_equal(stg_folder_parse(content, bytes, &folder), 0);
    assert_int_equal(stg_folder_count(folder), 0);
    assert_false(stg_folder_tells_absent(folder));
    assert_false(stg_folder_find(folder, "a", &entry));
    stg_folder_free(folder);
}

/* At its exact length in memory of its own, so that a sanitizer sees what is read beyond. */
static int parse_copy(const char *content, uint64_t bytes, struct stg_folder **ret_folder) {
    char *copy = malloc(bytes ? bytes : 1);

    assert_non_null(copy);
    memcpy(copy, content, bytes);
    return stg_folder_parse(copy, bytes, ret_folder);
}

static void test_cut(void **state) {
    struct stg_folder *folder;
    uint64_t bytes;
    char *content = make(5, true, &bytes);

    (void)state;
    for (uint64_t cut = 0; cut < bytes; cut++)
        assert_int_equal(parse_copy(content, cut, &folder), -EBADMSG);
    free(content);
}

/* Whatever one byte is changed to, nothing beyond the content is read, nor a name that is none. */
static void test_damaged(void **state) {
    uint64_t bytes;
    char *content = make(4, true, &bytes);
    unsigned parsed = 0;

    (void)state;
    for (uint64_t at = 0; at < bytes; at++) {
        for (unsigned flip = 1; flip < 256; flip += flip < 8 ? 1 : 31) {
            struct stg_folder_entry entry;
            struct stg_folder *folder;
            int error;

            content[at] ^= (char)flip;
            error = parse_copy(content, bytes, &folder);
            content[at] ^= (char)flip;
            assert_true(!error || error == -EBADMSG);
            if (error)
                continue;
            parsed++;
            for (size_t i = 0; i < stg_folder_count(folder); i++) {
                stg_folder_at(folder, i, &entry);
                assert_true(*entry.name && !strchr(entry.name, '/'));
                assert_true(strlen(entry.target) <= PATH_MAX);
            }
            stg_folder_free(folder);
        }
    }
    assert_true(parsed > 0); /* of attributes nothing tells */
    free(content);
}

static void test_no_names(void **state) {
    static const char *const names[] = {"", ".", "..", "a/b", "/"};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(names); i++) {
        struct stg_folder_entry entry = {.name = names[i], .target = "", .is_known = true};
        struct stg_folder_writer writer;
        struct statx self = stx_of(1);
        struct stg_folder *folder;
        uint64_t bytes;
        char *content;

        stg_folder_begin(&writer, &self);
        stg_folder_add(&writer, &entry);
        content = stg_folder_end(&writer, &bytes);
        assert_non_null(content);
        assert_int_equal(stg_folder_parse(content, bytes, &folder), -EBADMSG);
    }
}

static void test_twice(void **state) {
    struct stg_folder_writer writer;
    struct statx self = stx_of(1);
    struct stg_folder *folder;
    uint64_t bytes;
    char *content;

    (void)state;
    stg_folder_begin(&writer, &self);
    add(&writer, 3);
    add(&writer, 3);
    content = stg_folder_end(&writer, &bytes);
    assert_int_equal(stg_folder_parse(content, bytes, &folder), -EBADMSG);
}

static void test_too_long(void **state) {
    char name[NAME_MAX + 2];
    struct stg_folder_entry entry = {.name = name, .target = ""};
    struct stg_folder_writer writer;
    struct statx self = stx_of(1);
    uint64_t bytes;

    (void)state;
    memset(name, 'n', NAME_MAX + 1);
    name[NAME_MAX + 1] = '\0';
    stg_folder_begin(&writer, &self);
    stg_folder_add(&writer, &entry);
    add(&writer, 1);
    assert_null(stg_folder_end(&writer, &bytes));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_cut),        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_no_names),   cmocka_unit_test(test_twice),
        cmocka_unit_test(test_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
