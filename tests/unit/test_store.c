/* SPDX-License-Identifier: GPL-2.0-only */
/* Hot copies, in a private tmpfs and in plain memory: what is kept comes back, and goes. */
#include "tests/unit/unit.h"

#include "cache/store.h"
#include "util/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define LIMIT (UINT64_C(8) << 20)

static struct stg_store *make_store(bool in_memory) {
    struct stg_store *store = NULL;

    assert_int_equal(stg_store_new(LIMIT, in_memory, &store), 0);
    return store;
}

static char *make_content(size_t bytes, unsigned seed) {
    char *content = malloc(bytes ? bytes : 1);

    assert_non_null(content);
    for (size_t i = 0; i < bytes; i++)
        content[i] = (char)(i * 31 + seed + i / 4096);
    return content;
}

static unsigned count_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count;
}

static void assert_comes_back(bool in_memory) {
    static const size_t sizes[] = {1, 4095, 4096, 4097, 100000, 1 << 20};
    struct stg_store *store = make_store(in_memory);
    struct stg_copy copies[STG_COUNT(sizes)];
    char *back = malloc(1 << 20);

    assert_non_null(back);
    for (size_t i = 0; i < STG_COUNT(sizes); i++) {
        char *content = make_content(sizes[i], (unsigned)i);

        assert_int_equal(stg_store_put(store, content, sizes[i], &copies[i]), 0);
        free(content);
    }
    for (size_t i = 0; i < STG_COUNT(sizes); i++) {
        char *content = make_content(sizes[i], (unsigned)i);

        assert_int_equal(stg_store_read(store, &copies[i], back, 1 << 20, 0), sizes[i]);
        assert_memory_equal(back, content, sizes[i]);
        assert_int_equal(stg_store_read(store, &copies[i], back, 10, sizes[i] - 1), 1);
        assert_int_equal(back[0], content[sizes[i] - 1]);
        assert_int_equal(stg_store_read(store, &copies[i], back, 10, sizes[i]), 0);
        assert_int_equal(stg_store_read(store, &copies[i], back, 10, UINT64_MAX), 0);
        stg_store_drop(store, &copies[i]);
        assert_int_equal(copies[i].number, 0);
        assert_null(copies[i].memory);
        free(content);
    }
    free(back);
    stg_store_free(store);
}

static void comes_back_from_memory(void **state) {
    (void)state;
    assert_comes_back(true);
}

/* The tmpfs wants privilege: without it, as in a build by an ordinary user, there is nothing to
 * test. */
static struct stg_store *store_with_files(void) {
    struct stg_store *store = make_store(false);

    if (!stg_store_has_files(store)) {
        stg_store_free(store);
        skip();
    }
    return store;
}

static void comes_back_from_the_tmpfs(void **state) {
    (void)state;
    stg_store_free(store_with_files());
    assert_comes_back(false);
}

static void a_copy_holds_no_descriptor(void **state) {
    enum { COPIES = 2000 };
    struct stg_store *store = store_with_files();
    unsigned before = count_descriptors();
    static struct stg_copy copies[COPIES];

    (void)state;
    for (unsigned i = 0; i < COPIES; i++)
        assert_int_equal(stg_store_put(store, &i, sizeof(i), &copies[i]), 0);
    assert_int_equal(count_descriptors(), before);
    for (unsigned i = 0; i < COPIES; i++) {
        unsigned back = 0;

        assert_int_equal(stg_store_read(store, &copies[i], &back, sizeof(back), 0), sizeof(back));
        assert_int_equal(back, i);
    }
    stg_store_free(store);
}

static void the_tmpfs_has_the_limit(void **state) {
    struct stg_store *store = store_with_files();
    char *content = make_content(LIMIT + 4096, 1);
    struct stg_copy copy = {.number = 77};

    (void)state;
    assert_int_equal(stg_store_put(store, content, LIMIT + 4096, &copy), -ENOSPC);
    assert_int_equal(copy.number, 77); /* untouched */
    /* What did not fit left nothing behind. */
    assert_int_equal(stg_store_put(store, content, LIMIT / 2, &copy), 0);
    stg_store_drop(store, &copy);
    assert_int_equal(stg_store_put(store, content, LIMIT / 2, &copy), 0);
    free(content);
    stg_store_free(store);
}

static void who_has_a_copy_open_keeps_it(void **state) {
    struct stg_store *store = store_with_files();
    struct stg_copy copy;
    char back[8] = "";
    struct stat info;
    char *mapped;
    int fd;

    (void)state;
    assert_int_equal(stg_store_put(store, "content", 8, &copy), 0);
    fd = stg_store_open(store, &copy, O_RDONLY);
    assert_true(fd >= 0);
    mapped = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(mapped != MAP_FAILED);
    stg_store_drop(store, &copy);
    stg_store_free(store);
    assert_int_equal(pread(fd, back, 8, 0), 8);
    assert_string_equal(back, "content");
    assert_string_equal(mapped, "content");
    assert_int_equal(fstat(fd, &info), 0);
    assert_int_equal(info.st_nlink, 0);
    assert_int_equal(munmap(mapped, 8), 0);
    stg_fd_close(fd);
}

static void a_copy_in_memory_cannot_be_opened(void **state) {
    struct stg_store *store = make_store(true);
    struct stg_copy copy;

    (void)state;
    assert_false(stg_store_has_files(store));
    assert_int_equal(stg_store_put(store, "content", 8, &copy), 0);
    assert_int_equal(stg_store_open(store, &copy, O_RDONLY), -EOPNOTSUPP);
    stg_store_drop(store, &copy);
    stg_store_free(store);
    stg_store_free(NULL);
}

static void costs_are_whole_pages_and_more(void **state) {
    (void)state;
    assert_true(stg_store_cost_bytes(1) > 4096);
    assert_true(stg_store_cost_bytes(4096) < 8192);
    assert_int_equal(stg_store_cost_bytes(4097) - stg_store_cost_bytes(4096), 4096);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_from_memory),
        cmocka_unit_test(comes_back_from_the_tmpfs),
        cmocka_unit_test(a_copy_holds_no_descriptor),
        cmocka_unit_test(the_tmpfs_has_the_limit),
        cmocka_unit_test(who_has_a_copy_open_keeps_it),
        cmocka_unit_test(a_copy_in_memory_cannot_be_opened),
        cmocka_unit_test(costs_are_whole_pages_and_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
