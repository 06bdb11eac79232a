/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: every open flag against every kind of object; creation, O_TMPFILE, descriptors' flags. */
#include "parity.h"

#include <sys/syscall.h>

struct flag_row {
    int flags;
    const char *name;
};

static void make_objects(struct pt *t) {
    pt_make(t, "file", "content of the file");
    pt_make(t, "empty", "");
    pt_mkdir(t, "dir", 0755);
    if (symlink("file", "to-file") < 0 || symlink("dir", "to-dir") < 0 ||
        symlink("created-through-link", "to-none") < 0 || symlink("loop", "loop") < 0 ||
        mkfifo("fifo", 0600) < 0)
        pt_outcome(t, "objects", -1);
    pt_make(t, "unreadable", "secret");
    T(chmod("unreadable", 0));
}

static void remove_objects(void) {
    static const char *const all[] = {
        "missing", "file", "empty", "to-file",    "to-dir",
        "to-none", "loop", "fifo",  "unreadable", "created-through-link"};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        (void)unlink(all[i]); /* most exist */
    (void)rmdir("dir");
}

/* Opens one kind of object with arg's flags, then shows object and descriptor. */
static void flags_on_objects(struct pt *t) {
    const struct flag_row *row = t->arg;
    static const char *const objects[] = {"missing", "file",    "empty", "dir",  "to-file",
                                          "to-dir",  "to-none", "loop",  "fifo", "unreadable",
                                          "file/x",  "none/x",  "dir/"};
    make_objects(t);
    for (size_t i = 0; i < sizeof(objects) / sizeof(*objects); i++) {
        int fd = pt_outcome(t, objects[i], open(objects[i], row->flags | O_NONBLOCK, 0640));
        if (fd < 0)
            continue;
        char buffer[8];
        struct stat st;
        SAY("flags %o", fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_DIRECT | O_NOATIME | O_SYNC |
                                              O_PATH | O_NOFOLLOW | O_DIRECTORY));
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(row->flags & O_DIRECT)) {
            pt_bytes(t, "read", buffer, read(fd, buffer, sizeof(buffer)));
            T(write(fd, "W", 1));
            T(lseek(fd, 0, SEEK_CUR));
        }
        pt_showfd(t, "open", fd);
        T(close(fd));
        pt_list(t, ".");
        pt_look(t, "file");
        remove_objects();
        make_objects(t);
    }
    pt_list(t, "."); /* also what a refused open left behind */
}

#define ROW(flags) (&(const struct flag_row){flags, #flags})
#define FLAGS(flags)                                                                               \
    { "flags " #flags, flags_on_objects, 0, ROW(flags) }

static void create_modes(struct pt *t) {
    static const mode_t masks[] = {0, 022, 027, 077, 0777, 0111};
    static const mode_t modes[] = {0, 0644, 0666, 0777, 04755, 02755, 01777, 07777};
    for (size_t m = 0; m < sizeof(masks) / sizeof(*masks); m++) {
        umask(masks[m]);
        for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
            SAY("umask %o mode %o", masks[m], modes[i]);
            int fd = OK(open("f", O_CREAT | O_EXCL | O_RDWR, modes[i]));
            pt_showfd(t, "f", fd);
            T(write(fd, "x", 1)); /* the descriptor works whatever the mode */
            close(fd);
            pt_show(t, "f");
            T(unlink("f"));
            T(mkdir("d", modes[i]));
            pt_show(t, "d");
            T(rmdir("d"));
            T(mkfifo("p", modes[i]));
            pt_show(t, "p");
            T(unlink("p"));
        }
    }
}

static void create_readonly_mode(struct pt *t) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0));
    T(write(fd, "abc", 3));
    int again = OK(open("f", O_RDONLY));
    close(again);
    pt_lookfd(t, "f", fd);
    close(fd);
    fd = OK(open("g", O_CREAT | O_WRONLY, 0400));
    T(write(fd, "abc", 3));
    close(fd);
    fd = OK(open("g", O_WRONLY));
    if (fd >= 0)
        close(fd);
    fd = OK(open("g", O_CREAT | O_WRONLY | O_TRUNC, 0600));
    if (fd >= 0)
        close(fd);
    pt_show(t, "g");
}

static void exclusive(struct pt *t) {
    int fd = OK(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644));
    close(fd);
    OK(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644));
    OK(open("f", O_CREAT | O_EXCL | O_RDONLY, 0644));
    T(symlink("nowhere", "l"));
    OK(open("l", O_CREAT | O_EXCL | O_WRONLY, 0644));
    pt_mkdir(t, "d", 0755);
    OK(open("d", O_CREAT | O_EXCL | O_WRONLY, 0644));
    OK(open("d", O_CREAT | O_WRONLY, 0644));
    OK(open("n/", O_CREAT | O_WRONLY, 0644));
    OK(open("n", O_CREAT | O_DIRECTORY | O_RDONLY, 0644));
    pt_list(t, ".");
}

static void truncating(struct pt *t) {
    struct stat st;
    pt_fill(t, "f", 100000, 3);
    int keep = OK(open("f", O_RDWR));
    int fd = OK(open("f", O_WRONLY | O_TRUNC));
    T(fstat(keep, &st));
    T(st.st_size);
    T(write(fd, "new", 3));
    pt_lookfd(t, "other descriptor", keep);
    close(fd);
    fd = OK(open("f", O_RDONLY | O_TRUNC));
    T(fstat(keep, &st));
    T(st.st_size);
    close(fd);
    close(keep);
    pt_look(t, "f");
}

static void truncating_times(struct pt *t) {
    for (int filled = 0; filled < 2; filled++) {
        pt_make(t, "f", filled ? "text" : "");
        pt_age(t, "f");
        struct pt_stamp before = pt_stamp("f");
        pt_tick();
        int fd = OK(open("f", O_WRONLY | O_TRUNC));
        close(fd);
        pt_moved(t, "f", &before);
    }
}

static void tmpfile_plain(struct pt *t) {
    int fd = OK(open(".", O_TMPFILE | O_RDWR, 0640));
    if (fd < 0)
        return;
    pt_showfd(t, "tmpfile", fd);
    T(write(fd, "temporary", 9));
    pt_lookfd(t, "tmpfile", fd);
    T(fchmod(fd, 0600));
    T(ftruncate(fd, 4));
    pt_showfd(t, "tmpfile", fd);
    pt_list(t, ".");
    T(close(fd));
}

static void tmpfile_linked(struct pt *t) {
    char path[64];
    int fd = OK(open(".", O_TMPFILE | O_RDWR, 0640));
    if (fd < 0)
        return;
    T(write(fd, "was temporary", 13));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "kept", AT_SYMLINK_FOLLOW));
    T(linkat(AT_FDCWD, path, AT_FDCWD, "kept", AT_SYMLINK_FOLLOW));
    T(linkat(AT_FDCWD, path, AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
    pt_showfd(t, "fd", fd);
    pt_show(t, "kept");
    T(write(fd, "!", 1));
    close(fd);
    pt_look(t, "kept");
    T(unlink("kept"));
    pt_look(t, "again");
    pt_show(t, "again");
}

static void tmpfile_exclusive(struct pt *t) {
    char path[64];
    int fd = OK(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0640));
    if (fd < 0)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "kept", AT_SYMLINK_FOLLOW));
    close(fd);
    OK(open(".", O_TMPFILE | O_RDONLY, 0600));
    OK(open("none", O_TMPFILE | O_RDWR, 0600));
    pt_make(t, "f", "");
    OK(open("f", O_TMPFILE | O_RDWR, 0600));
    pt_list(t, ".");
}

static void tmpfile_many(struct pt *t) {
    int fds[64];
    for (int i = 0; i < 64; i++) {
        fds[i] = open(".", O_TMPFILE | O_RDWR, 0600);
        if (fds[i] < 0 || write(fds[i], &i, sizeof(i)) != sizeof(i))
            pt_outcome(t, "tmpfile", -1);
    }
    for (int i = 0; i < 64; i++) {
        int back = -1;
        if (pread(fds[i], &back, sizeof(back), 0) != sizeof(back) || back != i)
            SAY("tmpfile %d holds %d", i, back);
        close(fds[i]);
    }
    SAY("done");
}

static void path_descriptor(struct pt *t) {
    char buffer[8], path[64];
    pt_make(t, "f", "content");
    int fd = OK(open("f", O_PATH));
    T(read(fd, buffer, 8));
    T(write(fd, "x", 1));
    T(fchmod(fd, 0600));
    T(fchown(fd, getuid(), getgid()));
    T(ftruncate(fd, 0));
    T(fsync(fd));
    T(lseek(fd, 0, SEEK_SET));
    pt_showfd(t, "f", fd);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    T(chmod(path, 0604));
    pt_show(t, "f");
    T(unlink("f"));
    int again = OK(open(path, O_RDWR));
    pt_lookfd(t, "reopened after unlink", again);
    T(write(again, "NEW", 3));
    close(again);
    again = OK(open(path, O_RDONLY));
    pt_lookfd(t, "again", again);
    close(again);
    close(fd);
    T(symlink("x", "l"));
    fd = OK(open("l", O_PATH | O_NOFOLLOW));
    pt_showfd(t, "l", fd);
    T(readlinkat(fd, "", buffer, 8));
    close(fd);
}

static void reopen_unlinked(struct pt *t) {
    char path[64];
    pt_make(t, "f", "still there");
    int fd = OK(open("f", O_RDWR));
    T(unlink("f"));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int ro = OK(open(path, O_RDONLY));
    int wo = OK(open(path, O_WRONLY | O_APPEND));
    T(write(wo, "+", 1));
    pt_lookfd(t, "reopened", ro);
    int trunc = OK(open(path, O_WRONLY | O_TRUNC));
    pt_lookfd(t, "truncated", ro);
    close(trunc);
    T(truncate(path, 3));
    T(chmod(path, 0600));
    pt_showfd(t, "fd", fd);
    close(fd);
    pt_showfd(t, "ro", ro);
    close(ro);
    close(wo);
}

static void no_access_mode_after_chmod(struct pt *t) {
    char buffer[16];
    pt_make(t, "f", "content");
    int fd = OK(open("f", O_RDWR));
    T(fchmod(fd, 0));
    T(pread(fd, buffer, 7, 0));
    T(pwrite(fd, "C", 1, 0));
    T(ftruncate(fd, 5));
    T(fchmod(fd, 0600));
    int again = OK(open("f", O_RDONLY));
    pt_lookfd(t, "f", again);
    close(again);
    close(fd);
}

static void toggled_append(struct pt *t) {
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    T(write(fd, "A", 1));
    T(fcntl(fd, F_SETFL, O_APPEND));
    T(write(fd, "B", 1));
    T(pwrite(fd, "C", 1, 2));
    T(lseek(fd, 0, SEEK_CUR));
    T(fcntl(fd, F_SETFL, O_NONBLOCK)); /* no longer appending */
    T(write(fd, "D", 1));
    T(lseek(fd, 5, SEEK_SET));
    T(write(fd, "E", 1));
    pt_lookfd(t, "f", fd);
    close(fd);
}

static void wrong_direction(struct pt *t) {
    char buffer[4];
    pt_make(t, "f", "abcd");
    int ro = OK(open("f", O_RDONLY)), wo = OK(open("f", O_WRONLY));
    T(write(ro, "x", 1));
    T(read(wo, buffer, 4));
    T(ftruncate(ro, 0));
    T(posix_fallocate(ro, 0, 10));
    T(fsync(ro));
    T(fchmod(ro, 0600));
    T(close(ro));
    T(read(ro, buffer, 4));
    T(close(wo));
    T(close(wo));
}

static void direct(struct pt *t) {
    void *buffer = NULL;
    pt_fill(t, "f", 20000, 9);
    int fd = OK(open("f", O_RDWR | O_DIRECT));
    if (fd < 0 || posix_memalign(&buffer, 4096, 65536) != 0)
        return;
    T(pread(fd, buffer, 8192, 0));
    pt_bytes(t, "8192 at 0", buffer, 8192);
    T(pread(fd, buffer, 65536, 16384));
    T(pread(fd, buffer, 4096, 20480));
    T(pread(fd, (char *)buffer + 1, 4096, 0));
    T(pread(fd, buffer, 100, 0));
    T(pread(fd, buffer, 4096, 100));
    pt_pattern(buffer, 65536, 77);
    T(pwrite(fd, buffer, 65536, 4096));
    T(pwrite(fd, buffer, 100, 0));
    T(pwrite(fd, (char *)buffer + 3, 4096, 0));
    close(fd);
    pt_look(t, "f");
    free(buffer);
}

static void direct_beside_cached(struct pt *t) {
    char *buffer = aligned_alloc(4096, 4096);
    pt_fill(t, "f", 16384, 9);
    int cached = OK(open("f", O_RDWR)), fd = OK(open("f", O_RDWR | O_DIRECT));
    if (fd < 0 || !buffer)
        return;
    pt_lookfd(t, "cached", cached);
    memset(buffer, 'd', 4096);
    T(pwrite(fd, buffer, 4096, 4096));
    pt_lookfd(t, "cached after direct write", cached);
    memset(buffer, 'c', 4096);
    T(pwrite(cached, buffer, 4096, 8192));
    T(pread(fd, buffer, 4096, 8192));
    pt_bytes(t, "direct after cached write", buffer, 4096);
    T(fcntl(cached, F_SETFL, O_DIRECT));
    T(pread(cached, buffer, 4096, 4096));
    pt_bytes(t, "became direct", buffer, 4096);
    close(cached);
    close(fd);
    free(buffer);
}

static void noatime(struct pt *t) {
    char buffer[8];
    pt_make(t, "f", "content");
    pt_age(t, "f");
    T(utimensat(AT_FDCWD, "f", (struct timespec[2]){{.tv_sec = 999999999}, {.tv_nsec = UTIME_OMIT}},
                0));
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    int fd = OK(open("f", O_RDONLY | O_NOATIME));
    T(read(fd, buffer, 7));
    close(fd);
    pt_moved(t, "f", &before);
    fd = OK(open("f", O_RDONLY));
    T(read(fd, buffer, 7));
    close(fd);
    pt_moved(t, "f", &before);
}

static void noatime_foreign(struct pt *t) {
    pt_make(t, "f", "content");
    T(chmod("f", 0666));
    AS(PT_U1, PT_U1, 0) {
        OK(open("f", O_RDONLY | O_NOATIME));
        OK(open("f", O_RDONLY));
        OK(open("f", O_RDWR | O_NOATIME));
    }
}

static void many_descriptors(struct pt *t) {
    int fds[200];
    pt_make(t, "f", "content");
    for (int i = 0; i < 200; i++)
        if ((fds[i] = open("f", i % 3 == 0 ? O_RDONLY : i % 3 == 1 ? O_RDWR : O_WRONLY)) < 0)
            pt_outcome(t, "open", -1);
    T(pwrite(fds[1], "C", 1, 0));
    pt_lookfd(t, "first", fds[0]);
    pt_lookfd(t, "last", fds[198]);
    for (int i = 0; i < 200; i++)
        if (close(fds[i]) < 0)
            pt_outcome(t, "close", -1);
}

static void resolve_flags(struct pt *t) {
    /* struct open_how without its header: flags, mode, resolve. */
    struct {
        uint64_t flags, mode, resolve;
    } how = {.flags = O_RDONLY};
    enum { NO_XDEV = 1, NO_MAGICLINKS = 2, NO_SYMLINKS = 4, BENEATH = 8, IN_ROOT = 16 };
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "x");
    T(symlink("f", "d/l"));
    T(symlink("/etc/passwd", "d/abs"));
    int dir = OK(open("d", O_PATH));
    for (unsigned resolve = 0; resolve <= IN_ROOT; resolve = resolve ? resolve * 2 : 1) {
        how.resolve = resolve;
        SAY("resolve %u", resolve);
        OK(syscall(SYS_openat2, dir, "f", &how, sizeof(how)));
        OK(syscall(SYS_openat2, dir, "l", &how, sizeof(how)));
        OK(syscall(SYS_openat2, dir, "abs", &how, sizeof(how)));
        OK(syscall(SYS_openat2, dir, "../d/f", &how, sizeof(how)));
    }
}

static void error_closing_dirs(struct pt *t) {
    char buffer[8];
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("d", O_RDONLY));
    T(read(fd, buffer, 8));
    T(pread(fd, buffer, 8, 0));
    T(write(fd, "x", 1));
    T(ftruncate(fd, 0));
    T(fsync(fd));
    T(fdatasync(fd));
    T(lseek(fd, 0, SEEK_SET));
    T(fchmod(fd, 0700));
    pt_showfd(t, "d", fd);
    T(close(fd));
}

const struct pt_case pt_open_cases[] = {
    FLAGS(O_RDONLY),
    FLAGS(O_WRONLY),
    FLAGS(O_RDWR),
    FLAGS(O_RDONLY | O_CREAT),
    FLAGS(O_WRONLY | O_CREAT),
    FLAGS(O_RDWR | O_CREAT),
    FLAGS(O_RDWR | O_CREAT | O_EXCL),
    FLAGS(O_RDWR | O_CREAT | O_NOFOLLOW),
    FLAGS(O_WRONLY | O_TRUNC),
    FLAGS(O_RDONLY | O_TRUNC),
    FLAGS(O_RDWR | O_CREAT | O_TRUNC),
    FLAGS(O_RDWR | O_TRUNC | O_APPEND),
    FLAGS(O_WRONLY | O_APPEND),
    FLAGS(O_RDWR | O_APPEND | O_CREAT),
    FLAGS(O_RDONLY | O_DIRECT),
    FLAGS(O_RDWR | O_DIRECT | O_CREAT),
    FLAGS(O_RDONLY | O_NOATIME),
    FLAGS(O_RDONLY | O_NOFOLLOW),
    FLAGS(O_RDWR | O_NOFOLLOW),
    FLAGS(O_RDONLY | O_DIRECTORY),
    FLAGS(O_RDWR | O_DIRECTORY),
    FLAGS(O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
    FLAGS(O_PATH),
    FLAGS(O_PATH | O_NOFOLLOW),
    FLAGS(O_PATH | O_DIRECTORY),
    FLAGS(O_RDWR | O_SYNC | O_CREAT),
    FLAGS(O_WRONLY | O_DSYNC),
    FLAGS(O_ACCMODE),
    {"modes of new objects under umasks", create_modes, 0, 0},
    {"a descriptor outlives its own mode", create_readonly_mode, 0, 0},
    {"exclusive creation", exclusive, 0, 0},
    {"O_TRUNC beside another descriptor", truncating, 0, 0},
    {"O_TRUNC moves times", truncating_times, 0, 0},
    {"O_TMPFILE", tmpfile_plain, 0, 0},
    {"O_TMPFILE gets a name", tmpfile_linked, 0, 0},
    {"O_TMPFILE with O_EXCL, and refusals", tmpfile_exclusive, 0, 0},
    {"O_TMPFILE, many at once", tmpfile_many, 0, 0},
    {"O_PATH descriptors", path_descriptor, 0, 0},
    {"an unlinked file opened again through its descriptor", reopen_unlinked, 0, 0},
    {"an open file after chmod 0", no_access_mode_after_chmod, 0, 0},
    {"O_APPEND set and cleared by fcntl", toggled_append, 0, 0},
    {"a descriptor used in the wrong direction", wrong_direction, 0, 0},
    {"O_DIRECT sizes and alignment", direct, 0, 0},
    {"O_DIRECT beside cached access", direct_beside_cached, 0, 0},
    {"O_NOATIME", noatime, 0, 0},
    {"O_NOATIME on somebody else's file", noatime_foreign, PT_ROOT, 0},
    {"two hundred descriptors of one file", many_descriptors, 0, 0},
    {"openat2 resolve flags", resolve_flags, 0, 0},
    {"a directory used as a file", error_closing_dirs, 0, 0},
    {NULL, NULL, 0, NULL},
};
