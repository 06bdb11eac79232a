/* SPDX-License-Identifier: GPL-2.0-only */
/* The least of all limits, read from trees as the kernel shows them in and out of containers. */
#include "tests/unit/unit.h"

#include "cache/memory.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MIB (UINT64_C(1) << 20)
#define V1_MOUNT "35 31 0:32 %s /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
#define V2_MOUNT                                                                                   \
    "41 31 0:38 %s /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"

static char root[128];

static void put(const char *name, const char *content) {
    char path[PATH_MAX];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    }
    file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(content, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void put_mounts(const char *form, const char *top) {
    char line[512];

    (void)snprintf(line, sizeof(line), form, top);
    put("/proc/self/mountinfo", line);
}

static int set_up(void **state) {
    const char *base = getenv("TMPDIR");

    (void)state;
    (void)snprintf(root, sizeof(root), "%s/stagefs-memory.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(root))
        return -1;
    put("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree:          100 kB\n"
                         "MemAvailable:    4194304 kB\nHugePages_Total:       0\n");
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int tear_down(void **state) {
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct stg_memory memory_now(void) {
    struct stg_memory memory;

    assert_int_equal(stg_memory_read(root, &memory), 0);
    return memory;
}

static void the_machine_alone(void **state) {
    struct stg_memory memory = memory_now();

    (void)state;
    assert_int_equal(memory.total_bytes, 8192 * MIB);
    assert_int_equal(memory.limit_bytes, 8192 * MIB);
    assert_int_equal(memory.available_bytes, 4096 * MIB);
}

static void each_level_of_version_2_counts(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put_mounts("22 1 0:5 / /proc rw - proc proc rw\n" V2_MOUNT, "/");
    put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/c/memory.high", "max\n");
    put("/sys/fs/cgroup/a/b/memory.max", "2147483648\n");
    put("/sys/fs/cgroup/a/memory.max", "4294967296\n");
    put("/sys/fs/cgroup/a/memory.high", "max\n");
    assert_int_equal(memory_now().limit_bytes, 2048 * MIB);
    assert_int_equal(memory_now().available_bytes, 2048 * MIB);
    put("/sys/fs/cgroup/a/memory.high", "1073741824\n");
    assert_int_equal(memory_now().limit_bytes, 1024 * MIB);
    put("/sys/fs/cgroup/memory.max", "536870912\n"); /* the root of a cgroup namespace has it */
    assert_int_equal(memory_now().limit_bytes, 512 * MIB);
}

static void what_is_used_is_not_available_but_page_cache_is(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put_mounts(V2_MOUNT, "/");
    put("/sys/fs/cgroup/a/memory.max", "1073741824\n");
    put("/sys/fs/cgroup/a/memory.current", "805306368\n");
    assert_int_equal(memory_now().available_bytes, 256 * MIB);
    put("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 268435456\nactive_file 1\n");
    assert_int_equal(memory_now().available_bytes, 512 * MIB);
    put("/sys/fs/cgroup/a/memory.current", "2147483648\n"); /* over the limit */
    put("/sys/fs/cgroup/a/memory.stat", "anon 1\n");
    assert_int_equal(memory_now().available_bytes, 0);
}

static void version_1_counts_levels_that_are_not_seen(void **state) {
    (void)state;
    put("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b\n0::/\n");
    put_mounts(V1_MOUNT, "/");
    put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(memory_now().limit_bytes, 2048 * MIB);
    put("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 536870912\n");
    assert_int_equal(memory_now().available_bytes, 1536 * MIB);
    put("/sys/fs/cgroup/memory/a/b/memory.stat", "hierarchical_memory_limit 1073741824\n"
                                                 "hierarchical_memsw_limit 5\n");
    assert_int_equal(memory_now().limit_bytes, 1024 * MIB);
}

/* A container without a cgroup namespace: its own part alone is mounted. */
static void a_part_of_the_hierarchy_may_be_mounted(void **state) {
    (void)state;
    put("/proc/self/cgroup", "4:memory:/docker/c1/inner\n");
    put_mounts(V1_MOUNT, "/docker/c1");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "2147483648\n");
    assert_int_equal(memory_now().limit_bytes, 1024 * MIB);
    put_mounts(V1_MOUNT, "/docker/c");
    assert_int_equal(memory_now().limit_bytes, 8192 * MIB);
    /* Moved out of the namespace: what is mounted is not ours. */
    put("/proc/self/cgroup", "4:memory:/../other\n");
    put_mounts(V1_MOUNT, "/");
    assert_int_equal(memory_now().limit_bytes, 8192 * MIB);
}

static void a_mount_point_may_have_any_name(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/with:colon\n");
    put("/proc/self/mountinfo", "41 31 0:38 / /my\\040groups rw - cgroup2 none rw\n");
    put("/my groups/with:colon/memory.max", "1073741824\n");
    assert_int_equal(memory_now().limit_bytes, 1024 * MIB);
}

static void what_is_malformed_is_refused(void **state) {
    static const char *const numbers[] = {"", "12x", "-1", " 1", "1 2", "18446744073709551616"};
    struct stg_memory memory = {.total_bytes = 7};

    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put_mounts(V2_MOUNT, "/");
    for (size_t i = 0; i < STG_COUNT(numbers); i++) {
        char line[64];

        (void)snprintf(line, sizeof(line), "%s\n", numbers[i]);
        put("/sys/fs/cgroup/a/memory.max", line);
        assert_int_equal(stg_memory_read(root, &memory), -EBADMSG);
    }
    put("/sys/fs/cgroup/a/memory.max", "1\n");
    put("/proc/self/cgroup", "nonsense\n");
    assert_int_equal(stg_memory_read(root, &memory), -EBADMSG);
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", "1 2 3\n");
    assert_int_equal(stg_memory_read(root, &memory), -EBADMSG);
    put_mounts(V2_MOUNT, "/");
    put("/proc/meminfo", "MemTotal: 12\n");
    assert_int_equal(stg_memory_read(root, &memory), -EBADMSG);
    put("/proc/meminfo", "MemTotal: 18014398509481985 kB\n");
    assert_int_equal(stg_memory_read(root, &memory), -EBADMSG);
    assert_int_equal(memory.total_bytes, 7);
}

static void where_nothing_is_known_little_is_taken(void **state) {
    struct stg_memory memory;

    (void)state;
    assert_int_equal(stg_memory_read("/nowhere", &memory), 0);
    assert_int_equal(memory.total_bytes, 0);
    assert_int_equal(memory.limit_bytes, UINT64_MAX);
    assert_int_equal(memory.available_bytes, UINT64_MAX);
    assert_int_equal(stg_memory_default_hot_bytes(&memory), 64 * MIB);
    assert_int_equal(stg_memory_default_cold_bytes(&memory), 32 * MIB);
}

static void the_path_of_version_2_is_told(void **state) {
    char path[PATH_MAX];
    char expected[PATH_MAX];

    (void)state;
    assert_int_equal(stg_memory_cgroup_path(root, path, sizeof(path)), -ENOENT);
    put("/proc/self/cgroup", "4:memory:/x\n0::/a/b\n");
    put_mounts("35 31 0:32 / /v1 rw - cgroup cgroup rw,memory\n" V2_MOUNT, "/");
    assert_int_equal(stg_memory_cgroup_path(root, path, sizeof(path)), 0);
    (void)snprintf(expected, sizeof(expected), "%s/sys/fs/cgroup/a/b", root);
    assert_string_equal(path, expected);
    assert_int_equal(stg_memory_cgroup_path(root, path, strlen(expected)), -ENAMETOOLONG);
    put("/proc/self/cgroup", "4:memory:/x\n");
    assert_int_equal(stg_memory_cgroup_path(root, path, sizeof(path)), -ENOENT);
}

static void defaults_leave_most_to_others(void **state) {
    static const struct {
        struct stg_memory memory;
        uint64_t hot_bytes;
    } rows[] = {
        {{8192 * MIB, 8192 * MIB, 8000 * MIB}, 2048 * MIB},
        {{8192 * MIB, 8192 * MIB, 1000 * MIB}, 500 * MIB},
        {{8192 * MIB, 512 * MIB, 512 * MIB}, 128 * MIB},
        {{8192 * MIB, 512 * MIB, 0}, 0},
        {{0, UINT64_MAX, 50 * MIB}, 25 * MIB},
    };

    (void)state;
    for (size_t i = 0; i < STG_COUNT(rows); i++) {
        assert_int_equal(stg_memory_default_hot_bytes(&rows[i].memory), rows[i].hot_bytes);
        assert_int_equal(stg_memory_default_cold_bytes(&rows[i].memory), rows[i].hot_bytes / 2);
    }
}

/* Whatever this machine is: its own files are understood. */
static void this_machine_is_understood(void **state) {
    struct stg_memory memory;

    (void)state;
    assert_int_equal(stg_memory_read("", &memory), 0);
    assert_true(memory.total_bytes > 0);
    assert_true(memory.limit_bytes <= memory.total_bytes);
    assert_true(memory.available_bytes <= memory.limit_bytes);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_TREE(the_machine_alone),
        IN_TREE(each_level_of_version_2_counts),
        IN_TREE(what_is_used_is_not_available_but_page_cache_is),
        IN_TREE(version_1_counts_levels_that_are_not_seen),
        IN_TREE(a_part_of_the_hierarchy_may_be_mounted),
        IN_TREE(a_mount_point_may_have_any_name),
        IN_TREE(what_is_malformed_is_refused),
        IN_TREE(where_nothing_is_known_little_is_taken),
        IN_TREE(the_path_of_version_2_is_told),
        cmocka_unit_test(defaults_leave_most_to_others),
        cmocka_unit_test(this_machine_is_understood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
