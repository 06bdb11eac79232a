/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: chmod and chown in all forms, and the inode flags behind ioctl. */
#include "parity.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static void chmod_all(struct pt *t) {
    static const mode_t modes[] = {0, 0644, 0777, 04755, 02755, 01755, 07777, 02644, 06000};
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDWR)), dir = OK(open("d", O_RDONLY));
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        T(chmod("f", modes[i]));
        pt_show(t, "f");
        T(chmod("d", modes[i]));
        pt_show(t, "d");
        T(fchmod(fd, modes[sizeof(modes) / sizeof(*modes) - 1 - i]));
        pt_showfd(t, "f", fd);
        T(fchmod(dir, modes[sizeof(modes) / sizeof(*modes) - 1 - i]));
        pt_showfd(t, "d", dir);
    }
    T(chmod("d", 0755));
    close(fd), close(dir);
}

static void chmod_names(struct pt *t) {
    pt_make(t, "f", "");
    T(symlink("f", "l"));
    T(symlink("none", "dangling"));
    T(mkfifo("p", 0644));
    T(chmod("l", 0600));
    pt_show(t, "f");
    pt_show(t, "l");
    T(chmod("dangling", 0600));
    T(chmod("none", 0600));
    T(chmod("f/x", 0600));
    T(chmod("p", 0604));
    pt_show(t, "p");
    T(fchmodat(AT_FDCWD, "f", 0604, 0));
    T(syscall(452, AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW)); /* fchmodat2 */
    T(syscall(452, AT_FDCWD, "f", 0640, AT_SYMLINK_NOFOLLOW));
    pt_show(t, "f");
    pt_show(t, "l");
    T(unlink("f"));
}

static void chmod_times(struct pt *t) {
    pt_make(t, "f", "x");
    int fd = OK(open("f", O_RDONLY));
    struct pt_stamp before = pt_stampfd(fd);
    pt_tick();
    T(chmod("f", 0600));
    pt_movedfd(t, "chmod", fd, &before);
    before = pt_stampfd(fd);
    pt_tick();
    T(chmod("f", 0600));
    pt_movedfd(t, "same chmod", fd, &before);
    before = pt_stampfd(fd);
    pt_tick();
    T(chown("f", (uid_t)-1, (gid_t)-1));
    pt_movedfd(t, "chown to nobody", fd, &before);
    before = pt_stampfd(fd);
    pt_tick();
    T(fchown(fd, getuid(), getgid()));
    pt_movedfd(t, "chown to the same", fd, &before);
    close(fd);
}

static void chown_all(struct pt *t) {
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    T(symlink("f", "l"));
    T(mkfifo("p", 0600));
    int fd = OK(open("f", O_RDWR));
    T(chown("f", PT_U1, PT_GROUP));
    pt_show(t, "f");
    T(chown("f", (uid_t)-1, PT_U2));
    pt_show(t, "f");
    T(chown("f", PT_U2, (gid_t)-1));
    pt_show(t, "f");
    T(chown("l", 1, 2));
    pt_show(t, "f");
    pt_show(t, "l");
    T(lchown("l", 3, 4));
    pt_show(t, "f");
    pt_show(t, "l");
    T(fchown(fd, 5, 6));
    pt_showfd(t, "f", fd);
    T(fchownat(fd, "", 7, 8, AT_EMPTY_PATH));
    pt_showfd(t, "f", fd);
    T(chown("d", PT_U1, PT_U1));
    pt_show(t, "d");
    T(chown("p", PT_U1, PT_U1));
    pt_show(t, "p");
    T(chown("f", 4294967294u, 4000000000u));
    pt_show(t, "f");
    T(chown("none", 1, 1));
    T(unlink("f"));
    T(fchown(fd, 9, 10));
    pt_showfd(t, "f", fd);
    close(fd);
}

/* chown of set-id files: by whom, of what, to what. */
static void chown_clears(struct pt *t) {
    static const mode_t modes[] = {06755, 04755, 02755, 02745, 06644, 06777};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        for (int form = 0; form < 3; form++) {
            pt_make(t, "f", "");
            pt_mkdir(t, "d", 0755);
            T(chmod("f", modes[i]));
            T(chmod("d", modes[i]));
            uid_t uid = form == 1 ? (uid_t)-1 : getuid();
            gid_t gid = form == 0 ? (gid_t)-1 : t->uid ? PT_GROUP : PT_U1;
            SAY("mode %o form %d", modes[i], form);
            T(chown("f", uid, gid));
            pt_show(t, "f");
            T(chown("d", uid, gid));
            pt_show(t, "d");
            T(unlink("f"));
            T(rmdir("d"));
        }
}

static void chown_user(struct pt *t) {
    pt_make(t, "f", "");
    T(chown("f", 0, (gid_t)-1));
    T(chown("f", (uid_t)-1, 0));
    T(chown("f", t->uid, t->uid));
    T(chown("f", (uid_t)-1, PT_GROUP)); /* the supplementary group */
    pt_show(t, "f");
    T(chown("f", (uid_t)-1, t->uid));
    T(chown("f", (uid_t)-1, PT_GROUP + 1));
    T(chown("f", PT_U2, PT_U2));
    pt_show(t, "f");
    T(symlink("f", "l"));
    T(lchown("l", (uid_t)-1, PT_GROUP));
    pt_show(t, "l");
}

static void foreign(struct pt *t) {
    pt_make(t, "f", "");
    T(chmod("f", 0666));
    pt_mkdir(t, "d", 0777);
    T(chmod(".", 0777));
    AS(PT_U1, PT_U1, PT_GROUP) {
        T(chmod("f", 0644));
        T(chmod("d", 0755));
        T(chown("f", PT_U1, (gid_t)-1));
        T(chown("f", (uid_t)-1, PT_U1));
        T(chown("f", (uid_t)-1, (gid_t)-1));
        T(truncate("f", 10));
        int fd = OK(open("f", O_RDWR));
        T(fchmod(fd, 0600));
        T(fchown(fd, PT_U1, PT_U1));
        T(ftruncate(fd, 20));
    }
    pt_show(t, "f");
    pt_show(t, "d");
}

static void setgid_by_stranger(struct pt *t) {
    /* chmod by an owner who is not in the file's group loses the set-gid bit. */
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    pt_own(t, "f", PT_U1, PT_GROUP, 0755);
    pt_own(t, "d", PT_U1, PT_GROUP, 0755);
    T(chmod(".", 0777));
    static const gid_t groups[] = {0, PT_GROUP};
    for (int i = 0; i < 2; i++) {
        AS(PT_U1, PT_U1, groups[i]) {
            T(chmod("f", 06755));
            T(chmod("d", 02755));
            T(chmod("f", 06745));
        }
        pt_show(t, "f");
        pt_show(t, "d");
    }
}

/* ---- inode flags ---- */

static void get_flags(struct pt *t, const char *name) {
    int flags = 0, version[2] = {-1, -1}; /* the request says long, an int comes */
    struct fsxattr x = {0};
    int fd = open(name, O_RDONLY | O_NONBLOCK);
    SAY("%s:", name);
    T(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    SAY("  flags %x", flags & ~0x10000000 /* inline data depends on the history */);
    T(ioctl(fd, FS_IOC_FSGETXATTR, &x));
    SAY("  xflags %x extsize %u projid %u", x.fsx_xflags, x.fsx_extsize, x.fsx_projid);
    T(ioctl(fd, FS_IOC_GETVERSION, version));
    SAY("  behind the version: %d", version[1]);
    close(fd);
}

static void flags_read(struct pt *t) {
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    T(mkfifo("p", 0600));
    get_flags(t, "f");
    get_flags(t, "d");
    get_flags(t, "p");
    get_flags(t, ".");
}

static void flags_set(struct pt *t) {
    static const int wanted[] = {
        FS_NODUMP_FL,  FS_NOATIME_FL, FS_SYNC_FL,         FS_NODUMP_FL | FS_SYNC_FL,
        FS_DIRSYNC_FL, FS_TOPDIR_FL,  FS_JOURNAL_DATA_FL, 0,
        0x40000000};
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDONLY)), dir = OK(open("d", O_RDONLY));
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        int old = 0, flags, back;
        SAY("flags %x", wanted[i]);
        ioctl(fd, FS_IOC_GETFLAGS, &old);
        flags = (old & FS_EXTENT_FL) | wanted[i];
        T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
        get_flags(t, "f");
        flags = wanted[i];
        back = 0;
        ioctl(dir, FS_IOC_GETFLAGS, &back);
        flags |= back & FS_EXTENT_FL;
        T(ioctl(dir, FS_IOC_SETFLAGS, &flags));
        get_flags(t, "d");
    }
    close(fd), close(dir);
}

static void flags_protect(struct pt *t) {
    static const int kinds[] = {FS_IMMUTABLE_FL, FS_APPEND_FL};
    pt_make(t, "f", "content");
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/x", "");
    for (int i = 0; i < 2; i++) {
        int fd = OK(open("f", O_RDONLY)), dir = OK(open("d", O_RDONLY));
        int old = 0, old_dir = 0, flags;
        T(ioctl(fd, FS_IOC_GETFLAGS, &old));
        T(ioctl(dir, FS_IOC_GETFLAGS, &old_dir));
        flags = old | kinds[i];
        T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
        flags = old_dir | kinds[i];
        T(ioctl(dir, FS_IOC_SETFLAGS, &flags));
        get_flags(t, "f");
        OK(mkdir("d/new", 0755));
        T(unlink("d/x"));
        T(unlink("f"));
        T(rename("f", "g"));
        T(link("f", "h"));
        T(chmod("f", 0600));
        T(chown("f", 1, 1));
        T(truncate("f", 0));
        T(ioctl(fd, FS_IOC_SETFLAGS, &old));
        T(ioctl(dir, FS_IOC_SETFLAGS, &old_dir));
        pt_list(t, ".");
        pt_list(t, "d");
        pt_show(t, "f");
        close(fd), close(dir);
    }
}

static void flags_user(struct pt *t) {
    int flags = 0, old = 0;
    pt_make(t, "f", "");
    int fd = OK(open("f", O_RDONLY));
    T(ioctl(fd, FS_IOC_GETFLAGS, &old));
    flags = old | FS_IMMUTABLE_FL;
    T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    flags = old | FS_APPEND_FL;
    T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    flags = old | FS_NODUMP_FL;
    T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    get_flags(t, "f");
    close(fd);
}

static void flags_foreign(struct pt *t) {
    int flags = 0;
    pt_make(t, "f", "");
    T(chmod("f", 0666));
    AS(PT_U1, PT_U1, 0) {
        int fd = OK(open("f", O_RDWR));
        T(ioctl(fd, FS_IOC_GETFLAGS, &flags));
        flags |= FS_NODUMP_FL;
        T(ioctl(fd, FS_IOC_SETFLAGS, &flags));
        flags = 7;
        T(ioctl(fd, FS_IOC_SETVERSION, &flags));
    }
    get_flags(t, "f");
}

static void fsxattr_set(struct pt *t) {
    struct fsxattr x = {0};
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDWR)), dir = OK(open("d", O_RDONLY));
    T(ioctl(fd, FS_IOC_FSGETXATTR, &x));
    x.fsx_xflags |= FS_XFLAG_NODUMP;
    T(ioctl(fd, FS_IOC_FSSETXATTR, &x));
    get_flags(t, "f");
    T(ioctl(dir, FS_IOC_FSGETXATTR, &x));
    x.fsx_xflags |= FS_XFLAG_NOATIME;
    T(ioctl(dir, FS_IOC_FSSETXATTR, &x));
    get_flags(t, "d");
    x.fsx_xflags = 0x40000000;
    T(ioctl(fd, FS_IOC_FSSETXATTR, &x));
    close(fd), close(dir);
}

const struct pt_case pt_attr_cases[] = {
    {"chmod and fchmod", chmod_all, 0, 0},
    {"chmod of links and other names", chmod_names, 0, 0},
    {"chmod and chown move the ctime", chmod_times, 0, 0},
    {"chown, lchown, fchown", chown_all, PT_ROOT, 0},
    {"chown clears set-id bits", chown_clears, 0, 0},
    {"chown by an ordinary user", chown_user, PT_USER, 0},
    {"chmod and chown of somebody else's", foreign, PT_ROOT, 0},
    {"set-gid by an owner outside of the group", setgid_by_stranger, PT_ROOT, 0},
    {"inode flags are read", flags_read, 0, 0},
    {"inode flags are set", flags_set, PT_ROOT, 0},
    {"immutable and append-only", flags_protect, PT_ROOT, 0},
    {"inode flags by an ordinary user", flags_user, PT_USER, 0},
    {"inode flags of somebody else's", flags_foreign, PT_ROOT, 0},
    {"extended inode flags", fsxattr_set, 0, 0},
    {NULL, NULL, 0, NULL},
};
