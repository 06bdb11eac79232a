/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whatever the engine, a large read returns what one pread would, of all the bytes at once. The
 * program is linked so that each pread can be made to fail or to be short.
 */
#include "tests/unit/unit.h"

#include "cache/parallel_read.h"
#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define FILE_BYTES (12 * MIB + 12345)
#define HOLE_START (3 * MIB + 17)
#define HOLE_BYTES (4 * MIB)

static char *content; /* of the file */
static char *buffer;  /* with room for more than that */
static int file = -1;
static struct stg_reader *reader;

/* ---- pread, as bad as it may be ---- */

static struct {
    _Atomic bool rough;          /* short, interrupted, not ready */
    _Atomic size_t fails_behind; /* this offset of the file, with EIO; 0: never */
    _Atomic unsigned calls;
} preads;

ssize_t __real_pread64(int fd, void *to, size_t bytes, off64_t offset);
ssize_t __wrap_pread64(int fd, void *to, size_t bytes, off64_t offset);

ssize_t __wrap_pread64(int fd, void *to, size_t bytes, off64_t offset) {
    unsigned call = atomic_fetch_add(&preads.calls, 1);
    size_t limit = preads.fails_behind;

    if (limit && (size_t)offset >= limit) {
        errno = EIO;
        return -1;
    }
    if (limit && (size_t)offset + bytes > limit)
        bytes = limit - (size_t)offset;
    if (preads.rough && call % 3 != 0) {
        errno = call % 16 == 1 ? EAGAIN : EINTR;
        return -1;
    }
    if (preads.rough && bytes > 100001)
        bytes = 100001;
    return __real_pread64(fd, to, bytes, offset);
}

/* ---- the file and the reader ---- */

static int make_file(void **state) {
    const char *base = getenv("TMPDIR");
    uint64_t seed = 1;

    (void)state;
    content = malloc(FILE_BYTES);
    buffer = malloc(FILE_BYTES + 8 * MIB);
    file = open(base ? base : "/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (!content || !buffer || file < 0)
        return -1;
    for (size_t i = 0; i < FILE_BYTES; i += sizeof(seed)) {
        size_t bytes = FILE_BYTES - i < sizeof(seed) ? FILE_BYTES - i : sizeof(seed);

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        memcpy(content + i, &seed, bytes);
    }
    memset(content + HOLE_START, 0, HOLE_BYTES);
    if (pwrite(file, content, HOLE_START, 0) != (ssize_t)HOLE_START ||
        pwrite(file, content + HOLE_START + HOLE_BYTES, FILE_BYTES - HOLE_START - HOLE_BYTES,
               HOLE_START + HOLE_BYTES) != (ssize_t)(FILE_BYTES - HOLE_START - HOLE_BYTES))
        return -1;
    return 0;
}

static int drop_file(void **state) {
    (void)state;
    free(content);
    free(buffer);
    return close(file);
}

static bool begin(enum stg_reader_engine engine) {
    int error = stg_reader_new(engine, &reader);

    if (engine == STG_READER_RING && (error == -ENOSYS || error == -EPERM)) {
        print_message("# no io_uring here: %s\n", strerror(-error));
        return false;
    }
    assert_int_equal(error, 0);
    assert_int_equal(stg_reader_engine(reader), engine);
    return true;
}

static void end(void) {
    stg_reader_free(reader);
    reader = NULL;
}

#define EACH_ENGINE(engine)                                                                        \
    for (enum stg_reader_engine engine = STG_READER_RING; (engine) <= STG_READER_THREADS;          \
         (engine)++)

static void assert_reads(size_t bytes, size_t offset) {
    size_t there = offset < FILE_BYTES ? FILE_BYTES - offset : 0;
    size_t expected = bytes < there ? bytes : there;

    memset(buffer, 0x5a, bytes);
    assert_int_equal(stg_reader_read(reader, file, buffer, bytes, offset), expected);
    if (expected)
        assert_memory_equal(buffer, content + offset, expected);
}

/* ---- the tests ---- */

/* From a byte to more than the file has, holes and ends included. */
static void all_of_a_range_is_read(void **state) {
    static const size_t sizes[] = {0,
                                   1,
                                   4096,
                                   MIB,
                                   MIB + 1,
                                   2 * MIB,
                                   7 * MIB + 7,
                                   FILE_BYTES,
                                   FILE_BYTES + 1,
                                   FILE_BYTES + 8 * MIB};
    static const size_t offsets[] = {
        0, 1, MIB, HOLE_START, FILE_BYTES - 1, FILE_BYTES, FILE_BYTES + 5 * MIB};

    (void)state;
    EACH_ENGINE(engine) {
        if (!begin(engine))
            continue;
        for (size_t i = 0; i < STG_COUNT(sizes); i++)
            for (size_t j = 0; j < STG_COUNT(offsets); j++)
                assert_reads(sizes[i], offsets[j]);
        end();
    }
}

static void what_is_small_is_one_pread(void **state) {
    (void)state;
    EACH_ENGINE(engine) {
        unsigned before = preads.calls;

        if (!begin(engine))
            continue;
        assert_reads(STG_READER_PIECE_BYTES, 0);
        assert_int_equal(preads.calls, before + 1);
        end();
    }
}

static void the_position_of_the_file_stays(void **state) {
    (void)state;
    EACH_ENGINE(engine) {
        if (!begin(engine))
            continue;
        assert_int_equal(lseek(file, 4711, SEEK_SET), 4711);
        assert_reads(5 * MIB, 3);
        assert_int_equal(lseek(file, 0, SEEK_CUR), 4711);
        end();
    }
}

static void errors_are_those_of_pread(void **state) {
    (void)state;
    EACH_ENGINE(engine) {
        int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        static const size_t sizes[] = {10, 5 * MIB};

        if (!begin(engine))
            continue;
        for (size_t i = 0; i < STG_COUNT(sizes); i++) {
            assert_int_equal(stg_reader_read(reader, folder, buffer, sizes[i], 0), -EISDIR);
            assert_int_equal(stg_reader_read(reader, null, buffer, sizes[i], 0), -EBADF);
            assert_int_equal(stg_reader_read(reader, -1, buffer, sizes[i], 0), -EBADF);
            assert_int_equal(stg_reader_read(reader, file, buffer, sizes[i], UINT64_MAX), -EINVAL);
            assert_int_equal(stg_reader_read(reader, file, NULL, sizes[i], 0), -EFAULT);
        }
        assert_int_equal(stg_reader_read(reader, file, buffer, SIZE_MAX, 0), -EINVAL);
        assert_reads(5 * MIB, 0); /* and the next one works */
        assert_int_equal(close(folder) + close(null), 0);
        end();
    }
}

/* Our own memory as a file: it has an error where nothing is mapped. */
static void what_comes_before_an_error_is_returned(void **state) {
    const size_t mapped = 3 * MIB + 4096;
    char *memory = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int self = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_true(memory != MAP_FAILED && self >= 0);
    memcpy(memory, content, mapped);
    assert_int_equal(munmap(memory + mapped, 8 * MIB - mapped), 0);
    EACH_ENGINE(engine) {
        ssize_t got;

        if (!begin(engine))
            continue;
        got = stg_reader_read(reader, self, buffer, 8 * MIB, (uintptr_t)memory);
        assert_int_equal(got, mapped);
        assert_memory_equal(buffer, content, mapped);
        got = stg_reader_read(reader, self, buffer, 4 * MIB, (uintptr_t)memory + mapped);
        assert_int_equal(got, -EIO);
        end();
    }
    assert_int_equal(munmap(memory, mapped) + close(self), 0);
}

static void short_and_interrupted_reads_go_on(void **state) {
    (void)state;
    assert_true(begin(STG_READER_THREADS));
    preads.rough = true;
    assert_reads(4 * MIB, 5);
    assert_reads(1000, 5);
    assert_reads(FILE_BYTES, FILE_BYTES - 5 * MIB);
    preads.rough = false;
    end();
}

static void of_several_errors_the_first_in_the_file_counts(void **state) {
    static const size_t limits[] = {1, 5, MIB, 2 * MIB + 1, 9 * MIB, FILE_BYTES - 1};

    (void)state;
    assert_true(begin(STG_READER_THREADS));
    for (size_t i = 0; i < STG_COUNT(limits); i++) {
        preads.fails_behind = limits[i];
        assert_int_equal(stg_reader_read(reader, file, buffer, FILE_BYTES, 0), limits[i]);
        assert_memory_equal(buffer, content, limits[i]);
        assert_int_equal(stg_reader_read(reader, file, buffer, 3 * MIB, limits[i]), -EIO);
    }
    preads.fails_behind = 0;
    end();
}

/* ---- at once ---- */

enum { READERS = 16, ROUNDS = 12 };

static void *read_at_random(void *argument) {
    uint64_t seed = (uintptr_t)argument;
    char *own = malloc(FILE_BYTES);

    for (int i = 0; own && i < ROUNDS; i++) {
        size_t offset;
        size_t bytes;
        ssize_t got;

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        offset = (seed >> 20) % FILE_BYTES;
        bytes = (seed >> 40) % FILE_BYTES;
        got = stg_reader_read(reader, file, own, bytes, offset);
        bytes = bytes < FILE_BYTES - offset ? bytes : FILE_BYTES - offset;
        if (got != (ssize_t)bytes || memcmp(own, content + offset, bytes) != 0) {
            free(own);
            return (void *)1;
        }
    }
    free(own);
    return own ? NULL : (void *)1;
}

static void many_read_at_once(void **state) {
    (void)state;
    EACH_ENGINE(engine) {
        pthread_t threads[READERS];

        if (!begin(engine))
            continue;
        for (uintptr_t i = 0; i < READERS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, (void *)(i + 1)), 0);
        for (size_t i = 0; i < READERS; i++) {
            void *wrong;

            assert_int_equal(pthread_join(threads[i], &wrong), 0);
            assert_null(wrong);
        }
        end();
    }
}

static _Atomic bool cutting;

static void *cut_and_grow(void *argument) {
    int fd = *(int *)argument;

    for (size_t i = 0; cutting; i++) {
        (void)!ftruncate(fd, (off_t)(MIB + i * 77777 % (8 * MIB)));
        (void)!ftruncate(fd, (off_t)(9 * MIB));
    }
    return NULL;
}

/* What was cut off comes back as zeros: a byte is what it was, or zero, and none is missing. */
static void a_file_may_be_cut_meanwhile(void **state) {
    int fd = open("/dev/shm", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

    (void)state;
    if (fd < 0)
        skip();
    EACH_ENGINE(engine) {
        pthread_t cutter;

        if (!begin(engine))
            continue;
        cutting = true;
        memset(buffer, 1, 9 * MIB);
        assert_int_equal(pwrite(fd, buffer, 9 * MIB, 0), 9 * MIB);
        assert_int_equal(pthread_create(&cutter, NULL, cut_and_grow, &fd), 0);
        for (int i = 0; i < 50; i++) {
            ssize_t got;

            memset(buffer, 2, 10 * MIB);
            got = stg_reader_read(reader, fd, buffer, 10 * MIB, 0);
            assert_true(got >= (ssize_t)MIB && got <= (ssize_t)(9 * MIB));
            assert_null(memchr(buffer, 2, (size_t)got));
        }
        cutting = false;
        assert_int_equal(pthread_join(cutter, NULL), 0);
        end();
    }
    assert_int_equal(close(fd), 0);
}

/* ---- without io_uring ---- */

/* From now on `number` fails with EPERM in this process: as containers have it. */
static bool forbid(unsigned number) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = STG_COUNT(filter), .filter = filter};

    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static bool reads_right(void) {
    memset(buffer, 0x5a, FILE_BYTES);
    return stg_reader_read(reader, file, buffer, FILE_BYTES + MIB, 0) == (ssize_t)FILE_BYTES &&
           !memcmp(buffer, content, FILE_BYTES);
}

enum { CANNOT_FORBID = 77 };

/* 0 where all is well. */
static int live_without_setup(void) {
    if (!forbid(SYS_io_uring_setup))
        return CANNOT_FORBID;
    if (stg_reader_new(STG_READER_RING, &reader) != -EPERM)
        return 1;
    if (stg_reader_new(STG_READER_AUTO, &reader) ||
        stg_reader_engine(reader) != STG_READER_THREADS || !reads_right())
        return 2;
    stg_reader_free(reader);
    return 0;
}

/* It was allowed to begin with, and then is not. */
static int live_without_enter(void) {
    if (stg_reader_new(STG_READER_AUTO, &reader))
        return 1;
    if (!reads_right())
        return 2;
    if (!forbid(SYS_io_uring_enter))
        return CANNOT_FORBID;
    for (int i = 0; i < 6; i++) /* more than there are rings */
        if (!reads_right())
            return 3;
    stg_reader_free(reader);
    return 0;
}

static void without_io_uring_threads_read(void **state) {
    int (*const lives[])(void) = {live_without_setup, live_without_enter};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(lives); i++) {
        pid_t child = fork();
        int status;

        assert_true(child >= 0);
        if (!child)
            _exit(lives[i]());
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == CANNOT_FORBID)
            print_message("# seccomp cannot be used here\n");
        else
            assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_a_range_is_read),
        cmocka_unit_test(what_is_small_is_one_pread),
        cmocka_unit_test(the_position_of_the_file_stays),
        cmocka_unit_test(errors_are_those_of_pread),
        cmocka_unit_test(what_comes_before_an_error_is_returned),
        cmocka_unit_test(short_and_interrupted_reads_go_on),
        cmocka_unit_test(of_several_errors_the_first_in_the_file_counts),
        cmocka_unit_test(many_read_at_once),
        cmocka_unit_test(a_file_may_be_cut_meanwhile),
        cmocka_unit_test(without_io_uring_threads_read),
    };

    return cmocka_run_group_tests(tests, make_file, drop_file);
}
