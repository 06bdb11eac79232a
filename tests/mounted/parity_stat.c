/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: lookup, stat, statx, statfs, access, and that identity and times are the source's own. */
#include "parity.h"

#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

static void of_file(struct pt *t) {
    pt_make(t, "f", "hello");
    pt_show(t, "f");
    pt_show(t, "./f");
    pt_show(t, "../../nothing-here");
}

static void of_types(struct pt *t) {
    pt_make(t, "file", "");
    pt_mkdir(t, "dir", 0751);
    T(symlink("some/where", "link"));
    T(mkfifo("fifo", 0640));
    pt_show(t, "file");
    pt_show(t, "dir");
    pt_show(t, "link");
    pt_show(t, "fifo");
    struct stat st;
    T(stat("link", &st));
}

static void of_empty_path(struct pt *t) {
    struct stat st;
    T(stat("", &st));
    T(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    pt_make(t, "f", "abc");
    int fd = OK(open("f", O_PATH));
    T(fstatat(fd, "", &st, AT_EMPTY_PATH));
    T(st.st_size);
    T(fstatat(fd, "x", &st, 0));
    close(fd);
}

static void missing(struct pt *t) {
    struct stat st;
    T(stat("no", &st));
    T(stat("no", &st)); /* negative dentry */
    T(stat("no/deeper", &st));
    pt_make(t, "no", "now");
    T(stat("no", &st));
    T(stat("no/", &st));
    T(stat("no/deeper", &st));
    T(unlink("no"));
    T(stat("no", &st));
    pt_mkdir(t, "no", 0755);
    T(stat("no/", &st));
    T(stat("no/.", &st));
    T(stat("no/x", &st));
}

static void through_links(struct pt *t) {
    struct stat st;
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "data");
    T(symlink("d", "to-d"));
    T(symlink("f", "d/to-f"));
    T(symlink("to-d/to-f", "twice"));
    T(stat("to-d/f", &st));
    T(stat("to-d/to-f", &st));
    T(stat("twice", &st));
    T(st.st_size);
    pt_show(t, "twice");
    T(stat("to-d/../d/f", &st));
    T(stat("to-d/to-f/", &st));
}

static void dir_links(struct pt *t) {
    struct stat st;
    T(stat(".", &st));
    T(st.st_nlink);
    pt_mkdir(t, "a", 0755);
    pt_mkdir(t, "b", 0755);
    pt_mkdir(t, "a/c", 0755);
    T(stat(".", &st));
    T(st.st_nlink);
    T(stat("a", &st));
    T(st.st_nlink);
    T(rename("a/c", "b/c"));
    T(stat("a", &st));
    T(st.st_nlink);
    T(stat("b", &st));
    T(st.st_nlink);
    T(rmdir("a"));
    T(stat(".", &st));
    T(st.st_nlink);
    T(st.st_size);
}

static void blocks(struct pt *t) {
    struct stat st;
    pt_fill(t, "f", 65536, 1);
    int fd = OK(open("f", O_RDWR));
    T(fsync(fd));
    T(fstat(fd, &st));
    T(st.st_blocks);
    T(st.st_blksize);
    T(ftruncate(fd, 1 << 20));
    T(fsync(fd));
    T(fstat(fd, &st));
    T(st.st_blocks);
    T(st.st_size);
    T(ftruncate(fd, 0));
    T(fsync(fd));
    T(stat("f", &st));
    T(st.st_blocks);
    close(fd);
}

static void size_follows(struct pt *t) {
    struct stat st;
    pt_make(t, "f", "");
    int fd = OK(open("f", O_RDWR));
    for (int i = 0; i < 5; i++) {
        T(write(fd, "0123456789", 10));
        T(stat("f", &st));
        T(st.st_size);
        T(fstat(fd, &st));
        T(st.st_size);
    }
    T(pwrite(fd, "x", 1, 99999));
    T(stat("f", &st));
    T(st.st_size);
    T(ftruncate(fd, 7));
    T(stat("f", &st));
    T(st.st_size);
    close(fd);
}

static void identity_kept(struct pt *t) {
    struct stat a, b;
    pt_make(t, "f", "x");
    pt_mkdir(t, "d", 0755);
    T(stat("f", &a));
    int fd = OK(open("f", O_RDWR));
    T(fstat(fd, &b));
    T(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    T(rename("f", "d/g"));
    T(stat("d/g", &b));
    T(a.st_ino == b.st_ino);
    T(link("d/g", "h"));
    T(stat("h", &b));
    T(a.st_ino == b.st_ino);
    T(b.st_nlink);
    T(stat("d", &b));
    T(a.st_dev == b.st_dev);
    T(a.st_ino != b.st_ino);
    close(fd);
}

static void say_statx(struct pt *t, const char *what, int dir, const char *name, int flags,
                      unsigned mask) {
    struct statx x;
    memset(&x, 0, sizeof(x));
    if (pt_value(t, what, statx(dir, name, flags, mask, &x)) < 0)
        return;
    SAY("  mask %x mode %o links %u uid %u gid %u size %llu rdev %u:%u",
        x.stx_mask & mask & (STATX_BASIC_STATS | STATX_BTIME), x.stx_mode, x.stx_nlink, x.stx_uid,
        x.stx_gid, (unsigned long long)x.stx_size, x.stx_rdev_major, x.stx_rdev_minor);
}

static void statx_basic(struct pt *t) {
    pt_make(t, "f", "hello");
    pt_mkdir(t, "d", 0711);
    T(symlink("f", "l"));
    const unsigned all = STATX_BASIC_STATS | STATX_BTIME;
    say_statx(t, "file", AT_FDCWD, "f", 0, all);
    say_statx(t, "dir", AT_FDCWD, "d", 0, all);
    say_statx(t, "link", AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, all);
    say_statx(t, "through link", AT_FDCWD, "l", 0, all);
    say_statx(t, "dir forced", AT_FDCWD, "d", AT_STATX_FORCE_SYNC, all);
    say_statx(t, "file not synced", AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_BASIC_STATS);
    say_statx(t, "missing", AT_FDCWD, "m", 0, all);
    say_statx(t, "bad flags", AT_FDCWD, "f", 1 << 30, all);
    say_statx(t, "bad mask", AT_FDCWD, "f", 0, STATX__RESERVED);
}

static void statx_fd(struct pt *t) {
    pt_make(t, "f", "hello");
    int fd = OK(open("f", O_RDWR));
    say_statx(t, "open", fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME);
    T(unlink("f"));
    say_statx(t, "unlinked", fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME);
    T(write(fd, "longer than", 11));
    say_statx(t, "written", fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME);
    close(fd);
}

static bool same_time(struct statx_timestamp a, struct statx_timestamp b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void statx_btime(struct pt *t) {
    struct statx a = {0}, b = {0};
    pt_make(t, "f", "1");
    T(statx(AT_FDCWD, "f", 0, STATX_BTIME, &a));
    T((a.stx_mask & STATX_BTIME) != 0);
    pt_tick();
    pt_make(t, "f", "longer");
    T(chmod("f", 0600));
    T(rename("f", "g"));
    T(statx(AT_FDCWD, "g", 0, STATX_BTIME | STATX_MTIME, &b));
    T(same_time(a.stx_btime, b.stx_btime));
    T(same_time(b.stx_btime, b.stx_mtime));
    T(b.stx_btime.tv_sec != 0);
}

/* The mount's view of name beside the source's own. */
static void beside_source(struct pt *t, const char *name) {
    const unsigned all = STATX_BASIC_STATS | STATX_BTIME;
    struct statx m = {0}, s = {0};
    SAY("%s", name);
    T(statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, all, &m));
    T(statx(t->source, name, AT_SYMLINK_NOFOLLOW, all, &s));
    T(m.stx_ino == s.stx_ino);
    T(m.stx_mode == s.stx_mode);
    T(m.stx_nlink == s.stx_nlink);
    T(m.stx_uid == s.stx_uid && m.stx_gid == s.stx_gid);
    T(m.stx_size == s.stx_size);
    T(m.stx_blocks == s.stx_blocks);
    T(same_time(m.stx_atime, s.stx_atime));
    T(same_time(m.stx_mtime, s.stx_mtime));
    T(same_time(m.stx_ctime, s.stx_ctime));
    T(same_time(m.stx_btime, s.stx_btime));
    T(m.stx_rdev_major == s.stx_rdev_major && m.stx_rdev_minor == s.stx_rdev_minor);
}

static void source_file(struct pt *t) {
    pt_make(t, "f", "hello");
    beside_source(t, "f");
    pt_tick();
    T(chmod("f", 0600));
    beside_source(t, "f");
    pt_tick();
    T(link("f", "g"));
    beside_source(t, "f");
    pt_tick();
    T(rename("g", "h"));
    beside_source(t, "h");
    beside_source(t, "f");
    pt_tick();
    T(unlink("f"));
    beside_source(t, "h");
    T(truncate("h", 3));
    beside_source(t, "h");
}

static void source_written(struct pt *t) {
    pt_make(t, "f", "hello");
    int fd = OK(open("f", O_RDWR));
    for (int i = 0; i < 3; i++) {
        char byte;
        pt_tick();
        T(write(fd, "more", 4));
        beside_source(t, "f");
        pt_tick();
        T(pread(fd, &byte, 1, 0));
        beside_source(t, "f");
    }
    T(fsync(fd));
    T(close(fd));
    beside_source(t, "f");
}

static void source_dir(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    beside_source(t, "d");
    beside_source(t, ".");
    pt_tick();
    pt_make(t, "d/f", "x");
    beside_source(t, "d");
    pt_tick();
    pt_mkdir(t, "d/e", 0700);
    beside_source(t, "d");
    pt_tick();
    T(rename("d/f", "g"));
    beside_source(t, "d");
    beside_source(t, ".");
    pt_tick();
    T(unlink("g"));
    beside_source(t, ".");
    T(rmdir("d/e"));
    beside_source(t, "d");
}

static void source_others(struct pt *t) {
    T(symlink("target", "l"));
    T(mkfifo("p", 0600));
    beside_source(t, "l");
    beside_source(t, "p");
    T(mknod("s", S_IFSOCK | 0600, 0));
    beside_source(t, "s");
}

static void source_times(struct pt *t) {
    const struct timespec when[2] = {{1234567890, 123456789}, {987654321, 987654321}};
    struct stat st;
    pt_make(t, "f", "x");
    T(utimensat(AT_FDCWD, "f", when, 0));
    beside_source(t, "f");
    T(fstatat(t->source, "f", &st, 0));
    T(st.st_mtim.tv_nsec);
    T(st.st_atim.tv_nsec);
}

static void statfs_fields(struct pt *t) {
    struct statfs a, b;
    pt_make(t, "f", "x");
    T(statfs(".", &a));
    T(statfs("f", &b));
    T(a.f_bsize);
    T(a.f_frsize);
    T(a.f_namelen);
    T(a.f_blocks);
    T(a.f_files);
    T(a.f_bfree <= a.f_blocks && a.f_bavail <= a.f_bfree && a.f_ffree <= a.f_files);
    T(a.f_blocks == b.f_blocks && a.f_bsize == b.f_bsize);
    int fd = OK(open("f", O_RDONLY));
    T(fstatfs(fd, &b));
    T(a.f_files == b.f_files);
    close(fd);
    T(statfs("missing", &a));
    struct statvfs v;
    T(statvfs(".", &v));
    T(v.f_namemax);
    T(pathconf(".", _PC_NAME_MAX));
    T(pathconf(".", _PC_PATH_MAX));
}

static void say_access(struct pt *t, const char *name) {
    SAY("access to %s", name);
    T(access(name, F_OK));
    T(access(name, R_OK));
    T(access(name, W_OK));
    T(access(name, X_OK));
    T(access(name, R_OK | W_OK | X_OK));
    T(syscall(SYS_faccessat2, AT_FDCWD, name, R_OK | W_OK, AT_EACCESS));
    T(syscall(SYS_faccessat2, AT_FDCWD, name, X_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW));
}

static void access_modes(struct pt *t) {
    static const mode_t modes[] = {0, 0400, 0200, 0100, 0644, 0755, 0070, 0007};
    T(symlink("gone", "dangling"));
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_make(t, "f", "");
        pt_mkdir(t, "d", 0755);
        SAY("mode %o", modes[i]);
        T(chmod("f", modes[i]));
        T(chmod("d", modes[i]));
        say_access(t, "f");
        say_access(t, "d");
        T(chmod("d", 0700));
        T(rmdir("d"));
        T(unlink("f"));
    }
    say_access(t, "dangling");
    say_access(t, "missing");
    T(access("f", 8));
}

static void access_ids(struct pt *t) {
    pt_make(t, "f", "");
    pt_own(t, "f", PT_U1, PT_GROUP, 0640);
    CHILD() {
        T(setresuid(PT_U1, 0, 0)); /* access() asks for the real user, opens for the effective */
        T(access("f", W_OK));
        T(syscall(SYS_faccessat2, AT_FDCWD, "f", W_OK | X_OK, AT_EACCESS));
        T(access("f", X_OK));
    }
    CHILD() {
        T(setresgid(PT_U2, PT_U2, 0));
        T(setresuid(PT_U2, PT_U2, 0));
        T(access("f", R_OK));
        T(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
    }
    AS(PT_U2, PT_U2, PT_GROUP) say_access(t, "f");
    AS(PT_U1, PT_U1, 0) say_access(t, "f");
}

static void dot_names(struct pt *t) {
    struct stat a, b;
    pt_mkdir(t, "d", 0755);
    T(stat(".", &a));
    T(stat("d/..", &b));
    T(a.st_ino == b.st_ino);
    T(stat("d/.", &a));
    T(stat("d", &b));
    T(a.st_ino == b.st_ino);
    T(stat("d/./../d/.", &b));
    T(a.st_ino == b.st_ino);
}

static void fd_relative(struct pt *t) {
    struct stat st;
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "xyz");
    int dir = OK(open("d", O_RDONLY | O_DIRECTORY));
    T(fstatat(dir, "f", &st, 0));
    T(rename("d", "e"));
    T(fstatat(dir, "f", &st, 0));
    T(fstatat(dir, "../e/f", &st, 0));
    T(fstatat(dir, "../d/f", &st, 0));
    int fd = OK(openat(dir, "new", O_CREAT | O_WRONLY, 0600));
    close(fd);
    pt_list(t, "e");
    T(fstatat(9999, "f", &st, 0));
    T(fchdir(dir));
    pt_show(t, "new");
    close(dir);
}

const struct pt_case pt_stat_cases[] = {
    {"stat of a file", of_file, 0, 0},
    {"stat of each type", of_types, 0, 0},
    {"stat with an empty path", of_empty_path, 0, 0},
    {"names that are missing, appear and vanish", missing, 0, 0},
    {"lookup through symbolic links", through_links, 0, 0},
    {"links and size of directories", dir_links, 0, 0},
    {"blocks of full, sparse and empty files", blocks, 0, 0},
    {"the size follows writes", size_follows, 0, 0},
    {"an inode keeps its identity", identity_kept, 0, 0},
    {"statx of files, directories, links", statx_basic, 0, 0},
    {"statx of a descriptor", statx_fd, 0, 0},
    {"statx: the birth time stays", statx_btime, 0, 0},
    {"a file is the source's in every field", source_file, PT_SOURCE, 0},
    {"a written and read file is the source's", source_written, PT_SOURCE, 0},
    {"a directory is the source's in every field", source_dir, PT_SOURCE, 0},
    {"symlink, fifo and socket are the source's", source_others, PT_SOURCE, 0},
    {"times arrive in the source to the nanosecond", source_times, PT_SOURCE, 0},
    {"statfs", statfs_fields, 0, 0},
    {"access by mode", access_modes, 0, 0},
    {"access by real and effective ids", access_ids, PT_ROOT, 0},
    {"dot and dot-dot", dot_names, 0, 0},
    {"names relative to a directory's descriptor", fd_relative, 0, 0},
    {NULL, NULL, 0, NULL},
};
