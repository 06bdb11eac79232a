/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A copy is whole or absent, whichever way its bytes go and wherever that way ends. */
#include "tests/unit/unit.h"

#include "client/copy.h"
#include "client/stagefs.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024 * 1024)

static char folder[] = "/tmp/stg-copy-XXXXXX";
static int folder_fd;

/* ---- files ---- */

static int make_folder(void **state) {
    const char *where = getenv("TMPDIR");

    (void)state;
    umask(022);
    if (where && chdir(where))
        return -1;
    if (!mkdtemp(where ? strcpy(folder, "stg-copy-XXXXXX") : folder))
        return -1;
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder_fd < 0 ? -1 : 0;
}

/* Removes all that is in the folder, and tells how many there were. */
static int empty_folder(void) {
    DIR *stream = opendir(folder);
    struct dirent *entry;
    int count = 0;

    while ((entry = readdir(stream))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        count++;
        if (unlinkat(folder_fd, entry->d_name, 0))
            assert_int_equal(unlinkat(folder_fd, entry->d_name, AT_REMOVEDIR), 0);
    }
    closedir(stream);
    return count;
}

static int clean_up(void **state) {
    (void)state;
    (void)empty_folder();
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    close(folder_fd);
    return rmdir(folder);
}

static int count_files(void) {
    DIR *stream = opendir(folder);
    int count = -2; /* "." and ".." */

    while (readdir(stream))
        count++;
    closedir(stream);
    return count;
}

static void put(const char *name, mode_t mode, off_t offset, const char *data, size_t bytes) {
    int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, bytes, offset), (ssize_t)bytes);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static char *get(const char *name, size_t *ret_bytes) {
    int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *data;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    data = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, data, (size_t)st.st_size + 1), st.st_size);
    close(fd);
    *ret_bytes = (size_t)st.st_size;
    return data;
}

static void assert_same_content(const char *one, const char *other) {
    size_t one_bytes, other_bytes;
    char *one_data = get(one, &one_bytes);
    char *other_data = get(other, &other_bytes);

    assert_int_equal(one_bytes, other_bytes);
    assert_memory_equal(one_data, other_data, one_bytes);
    free(one_data);
    free(other_data);
}

static struct stat stat_of(const char *name) {
    struct stat st;

    assert_int_equal(fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st;
}

static int64_t copy(const char *src, const char *dst) {
    return stagefs_copy_zero_at(folder_fd, src, folder_fd, dst);
}

static void assert_refused(const char *src, const char *dst, int error) {
    int before = count_files();

    errno = 0;
    assert_int_equal(copy(src, dst), -1);
    assert_int_equal(errno, error);
    assert_int_equal(count_files(), before);
}

/* 5 MiB: data at 0, at 2 MiB and at 3 MiB and a bit, and a hole at the end. */
static void make_sparse(const char *name) {
    char *block = malloc(MIB);

    for (size_t i = 0; i < MIB; i++)
        block[i] = (char)(i * 31 + i / 4096);
    put(name, 0644, 0, block, 4096);
    put(name, 0644, 2 * MIB, block, 300000);
    put(name, 0644, 3 * MIB + 5, block, 1000000);
    free(block);
    int fd = openat(folder_fd, name, O_WRONLY | O_CLOEXEC);

    assert_int_equal(ftruncate(fd, 5 * MIB), 0);
    close(fd);
}

/* ---- what is copied ---- */

static void content_is_copied(void **state) {
    (void)state;
    put("src", 0644, 0, "content", 7);
    assert_int_equal(copy("src", "dst"), 7);
    assert_same_content("src", "dst");
    put("empty", 0644, 0, "", 0);
    assert_int_equal(copy("empty", "dst"), 0);
    assert_same_content("empty", "dst");
    assert_int_equal(count_files(), 3);
}

static void holes_stay_holes(void **state) {
    (void)state;
    make_sparse("src");
    assert_int_equal(copy("src", "dst"), 5 * MIB);
    assert_same_content("src", "dst");
    assert_true(stat_of("dst").st_blocks <= stat_of("src").st_blocks + 64);
    put("hole", 0644, 0, "", 0);
    int fd = openat(folder_fd, "hole", O_WRONLY | O_CLOEXEC);

    assert_int_equal(ftruncate(fd, 3 * MIB), 0);
    close(fd);
    assert_int_equal(copy("hole", "hole2"), 3 * MIB);
    assert_same_content("hole", "hole2");
    assert_true(stat_of("hole2").st_blocks <= 16);
}

static void a_new_file_has_the_permissions(void **state) {
    static const mode_t modes[][2] = {{0644, 0644}, {0755, 0755}, {0666, 0644},
                                      {0777, 0755}, {0400, 0400}, {04755, 0755}};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(modes); i++) {
        put("src", modes[i][0], 0, "x", 1);
        assert_int_equal(copy("src", "dst"), 1);
        assert_int_equal(stat_of("dst").st_mode & 07777, modes[i][1]);
        (void)empty_folder();
    }
}

static void a_file_that_is_there_keeps_its_permissions(void **state) {
    struct stat before;
    int reader;
    char old[4];

    (void)state;
    put("src", 0644, 0, "new", 3);
    put("dst", 0666, 0, "old content", 11);
    assert_int_equal(linkat(folder_fd, "dst", folder_fd, "other", 0), 0);
    before = stat_of("dst");
    reader = openat(folder_fd, "dst", O_RDONLY | O_CLOEXEC);
    assert_int_equal(copy("src", "dst"), 3);
    assert_same_content("src", "dst");
    assert_int_equal(stat_of("dst").st_mode & 07777, 0666);
    assert_int_not_equal(stat_of("dst").st_ino, before.st_ino);
    /* Replaced in one step: who has the old file open, or a link to it, has all of it. */
    assert_int_equal(pread(reader, old, 3, 0), 3);
    assert_memory_equal(old, "old", 3);
    assert_int_equal(stat_of("other").st_size, 11);
    close(reader);
}

static void links_are_followed(void **state) {
    (void)state;
    put("src", 0644, 0, "new", 3);
    put("target", 0644, 0, "old", 3);
    assert_int_equal(mkdirat(folder_fd, "sub", 0755), 0);
    assert_int_equal(symlinkat("target", folder_fd, "link"), 0);
    assert_int_equal(symlinkat("sub/../link", folder_fd, "link2"), 0);
    assert_int_equal(symlinkat("src", folder_fd, "source-link"), 0);
    assert_int_equal(copy("source-link", "link2"), 3);
    assert_same_content("src", "target");
    assert_true(S_ISLNK(stat_of("link").st_mode));
    assert_true(S_ISLNK(stat_of("link2").st_mode));
    assert_int_equal(symlinkat("nowhere", folder_fd, "dangling"), 0);
    assert_refused("src", "dangling", ENOENT);
    assert_int_equal(symlinkat("loop", folder_fd, "loop"), 0);
    assert_refused("src", "loop", ELOOP);
}

static void what_cannot_be_copied_is_refused(void **state) {
    (void)state;
    put("src", 0644, 0, "x", 1);
    assert_int_equal(mkdirat(folder_fd, "sub", 0755), 0);
    assert_int_equal(mkfifoat(folder_fd, "pipe", 0644), 0);
    assert_int_equal(linkat(folder_fd, "src", folder_fd, "hard", 0), 0);
    assert_int_equal(symlinkat("src", folder_fd, "soft"), 0);
    assert_refused("missing", "dst", ENOENT);
    assert_refused("sub", "dst", EISDIR);
    assert_refused("pipe", "dst", EINVAL);
    assert_refused("src", "sub", EISDIR);
    assert_refused("src", "sub/", EISDIR);
    assert_refused("src", "new/", EISDIR);
    assert_refused("src", "pipe", EINVAL);
    assert_refused("src", "/dev/null", EINVAL);
    assert_refused("src", "src", EINVAL);
    assert_refused("src", "./src", EINVAL);
    assert_refused("src", "hard", EINVAL);
    assert_refused("src", "soft", EINVAL);
    assert_refused("src", "missing/dst", ENOENT);
    assert_refused("src", "src/dst", ENOTDIR);
    assert_refused("src", "", ENOENT);
    assert_refused("", "dst", ENOENT);
    assert_int_equal(stat_of("src").st_size, 1);
}

/* A copy as an ordinary user, in a process of its own: root may write everywhere. */
static int error_as_user(const char *src, const char *dst) {
    pid_t child = fork();
    int status;

    if (!child) {
        if (!geteuid() && setresuid(65534, 65534, 65534))
            _exit(255);
        _exit(copy(src, dst) < 0 ? errno : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void what_may_not_be_written_stays(void **state) {
    (void)state;
    put("src", 0644, 0, "new", 3);
    assert_int_equal(fchmod(folder_fd, 0555), 0);
    assert_int_equal(error_as_user("src", "dst"), EACCES);
    assert_int_equal(fchmod(folder_fd, 0777), 0);
    put("kept", 0444, 0, "old", 3);
    assert_int_equal(error_as_user("src", "kept"), EACCES);
    put("secret", 0200, 0, "old", 3);
    if (!geteuid())
        assert_int_equal(error_as_user("secret", "dst"), EACCES);
    assert_int_equal(error_as_user("src", "dst"), 0);
    assert_int_equal(fchmod(folder_fd, 0755), 0);
    assert_int_equal(count_files(), 4);
}

static void open_files_are_copied(void **state) {
    int from, to, append;

    (void)state;
    make_sparse("src");
    put("dst", 0644, 0, "something longer than nothing", 29);
    from = openat(folder_fd, "src", O_RDONLY | O_CLOEXEC);
    to = openat(folder_fd, "dst", O_RDWR | O_CLOEXEC);
    append = openat(folder_fd, "dst", O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(stagefs_copy_zero_fd(from, append), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(stagefs_copy_zero_fd(from, from), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(stagefs_copy_zero_fd(from, to), 5 * MIB);
    assert_same_content("src", "dst");
    assert_int_equal(stagefs_copy_zero_fd(-1, to), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(stagefs_copy_zero_fd(to, from), -1); /* not open for writing */
    close(append);
    close(to);
    close(from);
}

static void a_file_without_a_length_is_read(void **state) {
    size_t bytes;
    char *data;

    (void)state;
    assert_true(copy("/proc/self/status", "dst") > 100);
    data = get("dst", &bytes);
    assert_memory_equal(data, "Name:", 5);
    free(data);
}

/* ---- ways that fail ---- */

/* The ways that work, how often each does before it fails, and with what. */
static struct {
    int clone_error; /* 0: it works */
    int range_left;  /* calls before it fails */
    int range_error; /* 0: it says that the file is at its end */
    int send_left;
    int send_error;
    int write_left;
    int write_error;
    bool interrupt; /* each second call ends with EINTR */
    bool no_seek;   /* SEEK_DATA is not known */
    size_t piece_bytes;
    unsigned calls;
    unsigned range_calls, send_calls, read_calls;
} fake;

static bool is_interrupted(void) {
    if (!fake.interrupt || fake.calls++ % 2)
        return false;
    errno = EINTR;
    return true;
}

static size_t piece(size_t bytes) { return bytes < fake.piece_bytes ? bytes : fake.piece_bytes; }

static int fake_clone(int from, int to) {
    if (!fake.clone_error)
        return stg_copy_system.clone(from, to);
    errno = fake.clone_error;
    return -1;
}

static ssize_t fake_range(int from, off_t *at, int to, off_t *to_at, size_t bytes, unsigned flags) {
    if (is_interrupted())
        return -1;
    fake.range_calls++;
    if (fake.range_left-- > 0)
        return copy_file_range(from, at, to, to_at, piece(bytes), flags);
    errno = fake.range_error;
    return fake.range_error ? -1 : 0;
}

static ssize_t fake_sendfile(int to, int from, off_t *at, size_t bytes) {
    if (is_interrupted())
        return -1;
    fake.send_calls++;
    if (fake.send_left-- > 0)
        return sendfile(to, from, at, piece(bytes));
    errno = fake.send_error;
    return fake.send_error ? -1 : 0;
}

static ssize_t fake_pread(int from, void *buffer, size_t bytes, off_t at) {
    if (is_interrupted())
        return -1;
    fake.read_calls++;
    return pread(from, buffer, piece(bytes), at);
}

static ssize_t fake_pwrite(int to, const void *buffer, size_t bytes, off_t at) {
    if (is_interrupted())
        return -1;
    if (fake.write_left-- > 0)
        return pwrite(to, buffer, bytes < 1000 ? bytes : bytes / 2 + 1, at);
    errno = fake.write_error;
    return fake.write_error ? -1 : 0;
}

static off_t fake_lseek(int from, off_t offset, int whence) {
    if (!fake.no_seek)
        return lseek(from, offset, whence);
    errno = EINVAL;
    return -1;
}

static const struct stg_copy_calls fakes = {
    .clone = fake_clone,
    .copy_file_range = fake_range,
    .sendfile = fake_sendfile,
    .pread = fake_pread,
    .pwrite = fake_pwrite,
    .lseek = fake_lseek,
};

static void reset(void) {
    memset(&fake, 0, sizeof(fake));
    fake.clone_error = EOPNOTSUPP;
    fake.range_error = EXDEV;
    fake.send_error = EINVAL;
    fake.write_left = 1000000;
    fake.piece_bytes = 100000;
}

static int64_t copy_faked(void) {
    int64_t bytes = stg_copy_file(folder_fd, "src", folder_fd, "dst", &fakes);

    if (bytes >= 0)
        assert_same_content("src", "dst");
    return bytes;
}

static void each_way_works(void **state) {
    (void)state;
    make_sparse("src");
    reset();
    fake.range_left = 1000000;
    assert_int_equal(copy_faked(), 5 * MIB);
    assert_true(fake.range_calls > 10 && !fake.send_calls);
    reset();
    fake.send_left = 1000000;
    assert_int_equal(copy_faked(), 5 * MIB);
    assert_true(fake.range_calls == 1 && fake.send_calls > 10 && fake.read_calls == 1);
    reset();
    assert_int_equal(copy_faked(), 5 * MIB);
    assert_true(fake.range_calls == 1 && fake.send_calls == 1 && fake.read_calls > 10);
    /* All that without knowing where the holes are, and interrupted all the time. */
    reset();
    fake.no_seek = true;
    fake.interrupt = true;
    fake.range_left = 3;
    fake.send_left = 3;
    assert_int_equal(copy_faked(), 5 * MIB);
    assert_true(fake.range_calls == 4 && fake.send_calls == 4);
}

static void the_next_way_goes_on(void **state) {
    static const int errors[] = {EIO, ENOSPC, EINVAL, 0};

    (void)state;
    make_sparse("src");
    for (size_t i = 0; i < STG_COUNT(errors); i++) {
        for (int left = 0; left < 8; left++) {
            reset();
            fake.range_left = left;
            fake.range_error = errors[i];
            fake.send_left = left;
            fake.send_error = errors[i];
            assert_int_equal(copy_faked(), 5 * MIB);
        }
    }
}

static void what_fails_leaves_nothing(void **state) {
    static const int errors[] = {ENOSPC, EDQUOT, EIO, 0};

    (void)state;
    make_sparse("src");
    for (size_t i = 0; i < STG_COUNT(errors); i++) {
        reset();
        fake.write_left = 5;
        fake.write_error = errors[i];
        assert_int_equal(copy_faked(), errors[i] ? -errors[i] : -EIO);
        assert_int_equal(count_files(), 1);
    }
    put("dst", 0644, 0, "old", 3);
    reset();
    fake.write_left = 5;
    fake.write_error = ENOSPC;
    assert_int_equal(copy_faked(), -ENOSPC);
    assert_int_equal(stat_of("dst").st_size, 3);
    assert_int_equal(count_files(), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(content_is_copied, clean_up),
        cmocka_unit_test_teardown(holes_stay_holes, clean_up),
        cmocka_unit_test_teardown(a_new_file_has_the_permissions, clean_up),
        cmocka_unit_test_teardown(a_file_that_is_there_keeps_its_permissions, clean_up),
        cmocka_unit_test_teardown(links_are_followed, clean_up),
        cmocka_unit_test_teardown(what_cannot_be_copied_is_refused, clean_up),
        cmocka_unit_test_teardown(what_may_not_be_written_stays, clean_up),
        cmocka_unit_test_teardown(open_files_are_copied, clean_up),
        cmocka_unit_test_teardown(a_file_without_a_length_is_read, clean_up),
        cmocka_unit_test_teardown(each_way_works, clean_up),
        cmocka_unit_test_teardown(the_next_way_goes_on, clean_up),
        cmocka_unit_test_teardown(what_fails_leaves_nothing, clean_up),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
