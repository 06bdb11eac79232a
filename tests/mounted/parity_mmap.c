/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: mappings of every kind, beside reads and writes, and the times that stores move. */
#include "parity.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096, SIZE = 4 * PAGE };

static char *map_file(struct pt *t, const char *name, int open_flags, int prot, int flags) {
    int fd = pt_outcome(t, name, open(name, open_flags));
    char *map = mmap(NULL, SIZE, prot, flags, fd, 0);
    pt_outcome(t, "mmap", map == MAP_FAILED ? -1 : 0);
    if (fd >= 0)
        close(fd);
    return map == MAP_FAILED ? NULL : map;
}

static void refusals(struct pt *t) {
    static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR, O_PATH, O_RDWR | O_APPEND};
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_WRITE, PROT_READ | PROT_WRITE,
                                PROT_READ | PROT_EXEC};
    pt_fill(t, "f", SIZE, 1);
    for (size_t o = 0; o < 5; o++)
        for (size_t p = 0; p < 5; p++)
            for (int shared = 0; shared < 2; shared++) {
                SAY("open %o prot %d %s", opens[o], prots[p], shared ? "shared" : "private");
                char *map = map_file(t, "f", opens[o], prots[p], shared ? MAP_SHARED : MAP_PRIVATE);
                if (map) {
                    T(mprotect(map, SIZE, PROT_READ | PROT_WRITE));
                    munmap(map, SIZE);
                }
            }
    pt_mkdir(t, "d", 0755);
    map_file(t, "d", O_RDONLY, PROT_READ, MAP_PRIVATE);
    int fd = OK(open("f", O_RDWR));
    OK(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 100) == MAP_FAILED ? -1 : 0);
    OK(mmap(NULL, 0, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    OK(mmap(NULL, SIZE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0) == MAP_FAILED ? -1 : 0);
    close(fd);
}

static void private_copy(struct pt *t) {
    pt_fill(t, "f", SIZE, 1);
    char *map = map_file(t, "f", O_RDONLY, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    if (!map)
        return;
    map[5] = 'P';
    pt_bytes(t, "map", map, 16);
    pt_look(t, "f");
    int fd = OK(open("f", O_RDWR));
    T(pwrite(fd, "visible", 7, PAGE)); /* an untouched page follows the file */
    pt_bytes(t, "map", map + PAGE, 16);
    close(fd);
    munmap(map, SIZE);
}

static void shared_store(struct pt *t) {
    pt_fill(t, "f", SIZE, 2);
    int fd = OK(open("f", O_RDWR)), ro = OK(open("f", O_RDONLY));
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!map)
        return;
    memcpy(map + 100, "stored", 6);
    pt_lookfd(t, "read after store", ro);
    T(pwrite(fd, "written", 7, 200));
    pt_bytes(t, "map after write", map + 196, 16);
    T(msync(map, SIZE, MS_SYNC));
    T(msync(map, SIZE, MS_ASYNC));
    T(msync(map, SIZE, MS_INVALIDATE));
    T(msync(map + 1, SIZE, MS_SYNC));
    T(msync(map, SIZE, MS_SYNC | MS_ASYNC));
    T(munmap(map, SIZE));
    T(msync(map, SIZE, MS_SYNC));
    pt_lookfd(t, "at the end", fd);
    close(fd), close(ro);
}

static void after_close(struct pt *t) {
    pt_fill(t, "f", SIZE, 3);
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!map)
        return;
    map[0] = 'A';
    pt_look(t, "f");
    T(rename("f", "g"));
    map[PAGE] = 'B';
    pt_look(t, "g");
    T(unlink("g"));
    map[2 * PAGE] = 'C';
    pt_bytes(t, "unlinked", map, SIZE);
    pt_make(t, "g", "somebody else");
    T(munmap(map, SIZE));
    pt_look(t, "g");
}

static void two_mappings(struct pt *t) {
    pt_fill(t, "f", SIZE, 4);
    char *a = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *b = map_file(t, "f", O_RDONLY, PROT_READ, MAP_SHARED);
    char *p = map_file(t, "f", O_RDONLY, PROT_READ, MAP_PRIVATE);
    if (!a || !b || !p)
        return;
    memcpy(a + PAGE, "from the first", 14);
    pt_bytes(t, "second", b + PAGE, 14);
    pt_bytes(t, "private", p + PAGE, 14);
    CHILD() {
        memcpy(a + 2 * PAGE, "from the child", 14);
        pt_bytes(t, "child", b + PAGE, 14);
    }
    pt_bytes(t, "second", b + 2 * PAGE, 14);
    munmap(a, SIZE), munmap(b, SIZE), munmap(p, SIZE);
    pt_look(t, "f");
}

static void two_processes(struct pt *t) {
    struct pt_gate mapped, stored;
    pt_gate_init(t, &mapped);
    pt_gate_init(t, &stored);
    pt_fill(t, "f", SIZE, 5);
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
        pt_gate_open(&mapped);
        pt_gate_await(t, &stored);
        if (map)
            pt_bytes(t, "the child sees", map + 10, 6);
        pt_end();
    }
    pt_gate_await(t, &mapped);
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (map)
        memcpy(map + 10, "stored", 6);
    pt_gate_open(&stored);
    pt_reap(t, pid);
}

static void beyond_end(struct pt *t) {
    pt_fill(t, "f", PAGE + 100, 6);
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!map)
        return;
    pt_bytes(t, "tail", map + PAGE + 96, 16);
    map[PAGE + 200] = 'x'; /* behind the end, in the last page */
    pt_show(t, "f");
    T(msync(map, SIZE, MS_SYNC));
    T(truncate("f", SIZE));
    pt_bytes(t, "grown", map + PAGE + 96, 16);
    pt_bytes(t, "next page", map + 2 * PAGE, 16);
    munmap(map, SIZE);
    CHILD() {
        T(truncate("f", PAGE));
        map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
        volatile char byte = map[PAGE - 1];
        SAY("last byte read");
        byte = map[PAGE]; /* SIGBUS */
        SAY("not reached %d", byte);
    }
}

static void truncated_under(struct pt *t) {
    pt_fill(t, "f", SIZE, 7);
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!map)
        return;
    pt_bytes(t, "whole", map, SIZE);
    T(truncate("f", 1000));
    pt_bytes(t, "cut", map + 992, 16);
    CHILD() {
        volatile char byte = map[2 * PAGE];
        SAY("not reached %d", byte);
    }
    T(truncate("f", SIZE));
    pt_bytes(t, "grown", map, SIZE);
    munmap(map, SIZE);
}

static void store_moves_times(struct pt *t) {
    static const int syncs[] = {MS_SYNC, MS_ASYNC};
    pt_fill(t, "f", SIZE, 8);
    int fd = OK(open("f", O_RDWR));
    for (int i = 0; i < 2; i++) {
        pt_age(t, "f");
        struct pt_stamp before = pt_stamp("f");
        pt_tick();
        char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!map)
            return;
        map[10] = 's';
        T(msync(map, SIZE, syncs[i]));
        pt_movedfd(t, "stored", fd, &before);
        pt_moved(t, "f", &before);
        before = pt_stampfd(fd);
        T(fsync(fd));
        pt_tick();
        map[10] = 'S'; /* the page is clean again: the next store moves them again */
        T(msync(map, SIZE, syncs[i]));
        pt_movedfd(t, "again", fd, &before);
        munmap(map, SIZE);
        pt_moved(t, "f", &before);
    }
    close(fd);
}

static void store_without_msync(struct pt *t) {
    pt_fill(t, "f", SIZE, 8);
    pt_age(t, "f");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!map)
        return;
    struct stat st;
    T(stat("f", &st)); /* fills every attribute cache */
    map[10] = 's';
    T(munmap(map, SIZE));
    int fd = OK(open("f", O_RDONLY));
    T(fsync(fd));
    pt_movedfd(t, "stored", fd, &before);
    close(fd);
    pt_moved(t, "f", &before);
}

static void loads_move_atime(struct pt *t) {
    pt_fill(t, "f", SIZE, 8);
    pt_age(t, "f");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    char *map = map_file(t, "f", O_RDONLY, PROT_READ, MAP_SHARED);
    if (!map)
        return;
    volatile char byte = map[0];
    (void)byte; /* only the load counts */
    munmap(map, SIZE);
    pt_moved(t, "f", &before);
}

static void advice(struct pt *t) {
    pt_fill(t, "f", SIZE, 9);
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!map)
        return;
    T(madvise(map, SIZE, MADV_WILLNEED));
    T(madvise(map, SIZE, MADV_SEQUENTIAL));
    map[1] = 'k';
    T(madvise(map, SIZE, MADV_DONTNEED));
    pt_bytes(t, "kept", map, 8);
    T(madvise(map, SIZE, 22)); /* MADV_POPULATE_READ */
    T(madvise(map, SIZE, 23)); /* MADV_POPULATE_WRITE */
    T(madvise(map, SIZE, MADV_REMOVE));
    pt_bytes(t, "removed", map, 8);
    T(mlock(map, PAGE));
    T(munlock(map, PAGE));
    char *moved = mremap(map, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
    OK(moved == MAP_FAILED ? -1 : 0);
    munmap(moved, 2 * SIZE);
    pt_look(t, "f");
}

static void direct_beside(struct pt *t) {
    char *page = NULL;
    pt_fill(t, "f", SIZE, 10);
    char *map = map_file(t, "f", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    int fd = OK(open("f", O_RDWR | O_DIRECT));
    if (!map || posix_memalign((void **)&page, PAGE, PAGE) != 0)
        return;
    map[PAGE] = 'm';
    T(pread(fd, page, PAGE, PAGE));
    pt_bytes(t, "direct read", page, 16);
    memset(page, 'd', PAGE);
    T(pwrite(fd, page, PAGE, PAGE));
    pt_bytes(t, "map", map + PAGE, 16);
    munmap(map, SIZE);
    close(fd);
    free(page);
}

static void map_as_buffer(struct pt *t) {
    pt_fill(t, "a", SIZE, 11);
    pt_make(t, "b", "");
    char *a = map_file(t, "a", O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
    int fd = OK(open("b", O_RDWR)), self = OK(open("a", O_RDWR));
    if (!a)
        return;
    T(write(fd, a, SIZE)); /* the source of a write lies in the mount itself */
    T(pread(fd, a + PAGE, 100, 0));
    T(pwrite(self, a, PAGE, 2 * PAGE)); /* even in the same file */
    T(pread(self, a, PAGE, 3 * PAGE));
    pt_bytes(t, "a", a, SIZE);
    munmap(a, SIZE);
    pt_lookfd(t, "b", fd);
    close(fd), close(self);
}

static void many(struct pt *t) {
    pt_fill(t, "f", SIZE, 12);
    volatile int sum = 0;
    for (int i = 0; i < 300; i++) {
        int fd = open("f", i % 2 ? O_RDWR : O_RDONLY);
        char *map = mmap(NULL, SIZE, PROT_READ, i % 3 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
        close(fd);
        if (map == MAP_FAILED)
            pt_outcome(t, "mmap", -1);
        else
            sum += (unsigned char)map[i % SIZE];
    }
    T(sum);
}

static void name_in_maps(struct pt *t) {
    char line[4200];
    bool found = false;
    pt_fill(t, "mapped-name", SIZE, 12);
    char *map = map_file(t, "mapped-name", O_RDONLY, PROT_READ, MAP_SHARED);
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof(line), maps)) {
        unsigned long start, end, inode;
        struct stat st;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &inode) == 3 &&
            start == (unsigned long)map) {
            found = true;
            T(stat("mapped-name", &st));
            T(inode == st.st_ino);
            T(strstr(line, "/mapped-name\n") != NULL);
        }
    }
    T(found);
    if (maps)
        fclose(maps);
}

const struct pt_case pt_mmap_cases[] = {
    {"which opens allow which mappings", refusals, 0, 0},
    {"private mappings", private_copy, 0, 0},
    {"stores, reads and writes of one page", shared_store, 0, 0},
    {"a mapping outlives close, rename and unlink", after_close, 0, 0},
    {"mappings of one file agree", two_mappings, 0, 0},
    {"mappings of two processes agree", two_processes, 0, 0},
    {"the end of a file inside a mapping", beyond_end, 0, 0},
    {"truncation under a mapping", truncated_under, 0, 0},
    {"stores move mtime", store_moves_times, 0, 0},
    {"stores move mtime without msync", store_without_msync, 0, 0},
    {"loads move atime", loads_move_atime, 0, 0},
    {"madvise, mlock, mremap", advice, 0, 0},
    {"O_DIRECT beside a mapping", direct_beside, 0, 0},
    {"a mapping as buffer of read and write", map_as_buffer, 0, 0},
    {"three hundred mappings after close", many, 0, 0},
    {"/proc/self/maps names file and inode", name_in_maps, 0, 0},
    {NULL, NULL, 0, NULL},
};
