/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One system call on one file, for shell tests that must know exactly which call was made.
 *
 *   io CALL FILE [OTHER]
 *   io each
 *
 * Prints nothing and exits with 0 when the call succeeds; otherwise prints the errno's name on
 * stdout and exits with 1.  See the table at the end for the calls.  With `each`, lines of CALL
 * FILE OTHER come on stdin, and each is answered with a line: what would have been printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Without what a sanitizer does at an exit, hundreds of times. */
static _Noreturn void leave(int status) {
    fflush(stdout);
    _exit(status);
}

static int open_or_fail(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd < 0) {
        printf("%s\n", strerrorname_np(errno));
        leave(1);
    }
    return fd;
}

static int writable(const char *path) { return open_or_fail(path, O_RDWR); }

static long call_write(const char *path, const char *other) {
    (void)other;
    return write(writable(path), "x", 1);
}

static long call_write_nothing(const char *path, const char *other) {
    (void)other;
    return write(writable(path), "", 0);
}

static long call_append(const char *path, const char *other) {
    (void)other;
    return write(open_or_fail(path, O_WRONLY | O_APPEND), "x", 1);
}

static long call_pwrite(const char *path, const char *other) {
    (void)other;
    return pwrite(writable(path), "x", 1, 5000);
}

static long call_pwritev2(const char *path, const char *other) {
    (void)other;
    struct iovec iov = {.iov_base = "xy", .iov_len = 2};
    return pwritev2(writable(path), &iov, 1, 1, RWF_DSYNC);
}

static long call_write_direct(const char *path, const char *other) {
    (void)other;
    static char buffer[4096] __attribute__((aligned(4096)));
    return write(open_or_fail(path, O_WRONLY | O_DIRECT), buffer, sizeof buffer);
}

static long call_truncate(const char *path, const char *other) {
    (void)other;
    return truncate(path, 3);
}

static long call_truncate_same(const char *path, const char *other) {
    (void)other;
    struct stat st;
    if (stat(path, &st) != 0)
        return -1;
    return truncate(path, st.st_size);
}

static long call_ftruncate(const char *path, const char *other) {
    (void)other;
    return ftruncate(writable(path), 7000);
}

static long call_open_trunc(const char *path, const char *other) {
    (void)other;
    return open_or_fail(path, O_WRONLY | O_TRUNC) < 0 ? -1 : 0;
}

static long call_open_write(const char *path, const char *other) {
    (void)other;
    return writable(path) < 0 ? -1 : 0;
}

static long call_fallocate(const char *path, const char *other) {
    (void)other;
    return fallocate(writable(path), 0, 0, 20000);
}

static long call_fallocate_keep(const char *path, const char *other) {
    (void)other;
    return fallocate(writable(path), FALLOC_FL_KEEP_SIZE, 0, 40000);
}

static long call_punch(const char *path, const char *other) {
    (void)other;
    return fallocate(writable(path), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
}

static long call_zero_range(const char *path, const char *other) {
    (void)other;
    return fallocate(writable(path), FALLOC_FL_ZERO_RANGE, 0, 4096);
}

static long call_mmap_store(const char *path, const char *other) {
    (void)other;
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writable(path), 0);
    if (mapped == MAP_FAILED)
        return -1;
    mapped[0] = 'm';
    return msync(mapped, 4096, MS_SYNC);
}

static long call_copy_file_range(const char *path, const char *other) {
    return copy_file_range(open_or_fail(other, O_RDONLY), NULL, writable(path), NULL, 4096, 0);
}

static long call_sendfile(const char *path, const char *other) {
    return sendfile(writable(path), open_or_fail(other, O_RDONLY), NULL, 4096);
}

static long call_splice(const char *path, const char *other) {
    (void)other;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0 || write(ends[1], "spliced", 7) != 7)
        return -1;
    return splice(ends[0], NULL, writable(path), NULL, 7, 0);
}

static long call_chown_same(const char *path, const char *other) {
    (void)other;
    return chown(path, (uid_t)-1, getegid());
}

static long call_read(const char *path, const char *other) {
    (void)other;
    char byte;
    return read(open_or_fail(path, O_RDONLY), &byte, 1);
}

static long call_create(const char *path, const char *other) {
    (void)other;
    return open_or_fail(path, O_WRONLY | O_CREAT | O_EXCL) < 0 ? -1 : 0;
}

static long call_tmpfile(const char *path, const char *other) {
    (void)other;
    return open_or_fail(path, O_RDWR | O_TMPFILE) < 0 ? -1 : 0;
}

static long call_link(const char *path, const char *other) { return link(path, other); }

static long call_rename(const char *path, const char *other) { return rename(path, other); }

static long call_unlink(const char *path, const char *other) {
    (void)other;
    return unlink(path);
}

static long call_stat(const char *path, const char *other) {
    (void)other;
    struct stat st;
    return stat(path, &st);
}

/* What is made is made with the umask OTHER. */
static const char *masked(const char *path, const char *mask) {
    (void)umask((mode_t)strtoul(mask, NULL, 8));
    return path;
}

static long call_make_file(const char *path, const char *other) {
    return open_or_fail(masked(path, other), O_WRONLY | O_CREAT | O_TRUNC) < 0 ? -1 : 0;
}

static long call_make_folder(const char *path, const char *other) {
    return mkdir(masked(path, other), 0777);
}

static long call_make_fifo(const char *path, const char *other) {
    return mkfifo(masked(path, other), 0666);
}

static long call_make_link(const char *path, const char *other) {
    return symlink("to", masked(path, other));
}

static long call_make_shared(const char *path, const char *other) {
    return mkdir(masked(path, other), 02770) != 0 ? -1 : chmod(path, 02770);
}

static long call_exec(const char *path, const char *other) {
    (void)other;
    char *argv[] = {(char *)path, NULL};
    return execv(path, argv);
}

static const struct {
    const char *name;
    long (*call)(const char *path, const char *other);
} calls[] = {
    {"write", call_write},
    {"write-nothing", call_write_nothing},
    {"append", call_append},
    {"pwrite", call_pwrite},
    {"pwritev2", call_pwritev2},
    {"write-direct", call_write_direct},
    {"truncate", call_truncate},
    {"truncate-same", call_truncate_same},
    {"ftruncate", call_ftruncate},
    {"open-trunc", call_open_trunc},
    {"open-write", call_open_write},
    {"fallocate", call_fallocate},
    {"fallocate-keep", call_fallocate_keep},
    {"punch", call_punch},
    {"zero-range", call_zero_range},
    {"mmap-store", call_mmap_store},
    {"copy-file-range", call_copy_file_range},
    {"sendfile", call_sendfile},
    {"splice", call_splice},
    {"chown-same", call_chown_same},
    {"read", call_read},
    {"create", call_create},
    {"tmpfile", call_tmpfile},
    {"make-file", call_make_file},
    {"make-folder", call_make_folder},
    {"make-fifo", call_make_fifo},
    {"make-link", call_make_link},
    {"make-shared", call_make_shared},
    {"link", call_link},
    {"rename", call_rename},
    {"unlink", call_unlink},
    {"stat", call_stat},
    {"exec", call_exec},
};

static int do_call(const char *name, const char *path, const char *other) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strcmp(name, calls[i].name) != 0)
            continue;
        if (calls[i].call(path, other) >= 0)
            return 0;
        printf("%s\n", strerrorname_np(errno));
        return 1;
    }
    fprintf(stderr, "io: no call is named %s\n", name);
    return 2;
}

/* Each call in a process of its own, so that what it opened is closed when it is answered. */
static int do_each(void) {
    char line[4096];
    char name[32];
    char path[1024];
    char other[1024];

    setvbuf(stdin, NULL, _IONBF, 0); /* a process that ends would set back what it shares */
    while (fgets(line, sizeof line, stdin) != NULL) {
        int status;
        if (sscanf(line, "%31s %1023s %1023s", name, path, other) != 3)
            return 2;
        pid_t child = fork();
        if (child == 0)
            leave(do_call(name, path, other));
        if (child < 0 || waitpid(child, &status, 0) != child)
            return 2;
        if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
            return 2;
        if (WEXITSTATUS(status) == 0) {
            printf("\n");
            fflush(stdout);
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "each") == 0)
        return do_each();
    if (argc >= 3)
        return do_call(argv[1], argv[2], argv[argc > 3 ? 3 : 2]);
    fprintf(stderr, "usage: io CALL FILE [OTHER], io each\n");
    return 2;
}
