/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Makes and verifies large trees, for tests that need more files than a shell can handle in time.
 *
 *   tree make DIR COUNT           COUNT files in folders of 500; the content of a file is a
 * function of its number tree read DIR COUNT           opens, reads and compares each tree map DIR
 * COUNT            maps COUNT files, closes each, then verifies every mapping tree hold DIR COUNT
 * READY GO  the same, but makes the file READY when all are mapped and verifies when GO exists
 *
 * Prints what differs on stderr and exits with 1.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_PER_FOLDER = 500, CONTENT_MAX_BYTES = 256 };

static void file_path(char *path, size_t size, const char *top, long number) {
    snprintf(path, size, "%s/d%04ld/f%06ld", top, number / FILES_PER_FOLDER, number);
}

/* Never empty, so that each file can be mapped. */
static size_t content(char *buffer, long number) {
    int length = snprintf(buffer, CONTENT_MAX_BYTES, "file %ld\n", number);
    for (long i = number % 97; i > 0; i--)
        buffer[length++] = (char)('a' + (number + i) % 26);
    return (size_t)length;
}

static void make(const char *top, long count) {
    char path[4096];
    char buffer[CONTENT_MAX_BYTES];
    for (long number = 0; number < count; number++) {
        if (number % FILES_PER_FOLDER == 0) {
            snprintf(path, sizeof path, "%s/d%04ld", top, number / FILES_PER_FOLDER);
            if (mkdir(path, 0755) != 0)
                err(1, "mkdir %s", path);
        }
        file_path(path, sizeof path, top, number);
        size_t length = content(buffer, number);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
            err(1, "create %s", path);
        if (write(fd, buffer, length) != (ssize_t)length)
            err(1, "write %s", path);
        close(fd);
    }
}

static void compare(const char *path, long number, const char *got, size_t length) {
    char expected[CONTENT_MAX_BYTES];
    if (content(expected, number) != length || memcmp(expected, got, length) != 0)
        errx(1, "%s: wrong content", path);
}

static void read_all(const char *top, long count) {
    char path[4096];
    char buffer[CONTENT_MAX_BYTES];
    for (long number = 0; number < count; number++) {
        file_path(path, sizeof path, top, number);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            err(1, "open %s", path);
        ssize_t length = read(fd, buffer, sizeof buffer);
        if (length < 0)
            err(1, "read %s", path);
        compare(path, number, buffer, (size_t)length);
        close(fd);
    }
}

static void touch_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        err(1, "create %s", path);
    close(fd);
}

static void map_all(const char *top, long count, const char *ready, const char *go) {
    char path[4096];
    char **mapped = calloc((size_t)count, sizeof *mapped);
    if (mapped == NULL)
        err(1, "calloc");
    for (long number = 0; number < count; number++) {
        file_path(path, sizeof path, top, number);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            err(1, "open %s", path);
        mapped[number] = mmap(NULL, CONTENT_MAX_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
        if (mapped[number] == MAP_FAILED)
            err(1, "mmap %s", path);
        close(fd);
    }
    if (ready != NULL) {
        touch_file(ready);
        while (access(go, F_OK) != 0)
            usleep(20000);
    }
    for (long number = 0; number < count; number++) {
        char expected[CONTENT_MAX_BYTES];
        file_path(path, sizeof path, top, number);
        compare(path, number, mapped[number], content(expected, number));
    }
}

int main(int argc, char **argv) {
    if (argc < 4)
        errx(2, "usage: tree make|read|map DIR COUNT, tree hold DIR COUNT READY GO");
    const char *what = argv[1];
    const char *top = argv[2];
    long count = strtol(argv[3], NULL, 10);
    if (strcmp(what, "make") == 0)
        make(top, count);
    else if (strcmp(what, "read") == 0)
        read_all(top, count);
    else if (strcmp(what, "map") == 0)
        map_all(top, count, NULL, NULL);
    else if (strcmp(what, "hold") == 0 && argc == 6)
        map_all(top, count, argv[4], argv[5]);
    else
        errx(2, "unknown: %s", what);
    return 0;
}
