/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parity: reading directories: types, inode numbers, offsets that stay good while names come and
 * go. The order of names is the filesystem's own and is not compared, only what must hold in any
 * order.
 */
#include "parity.h"

#include <sys/syscall.h>

static void types(struct pt *t) {
    pt_make(t, "file", "");
    pt_mkdir(t, "dir", 0755);
    T(symlink("x", "link"));
    T(mkfifo("fifo", 0600));
    T(mknod("sock", S_IFSOCK | 0600, 0));
    pt_list(t, ".");
    pt_list(t, "dir");
}

static void device_types(struct pt *t) {
    T(mknod("char", S_IFCHR | 0600, 0x103));
    T(mknod("block", S_IFBLK | 0600, 0x700));
    pt_list(t, ".");
}

static void dots(struct pt *t) {
    struct stat here, up;
    pt_mkdir(t, "d", 0755);
    T(stat("d", &here));
    T(stat(".", &up));
    DIR *dir = opendir("d");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0)
            SAY(". is the directory: %d", e->d_ino == here.st_ino);
        if (strcmp(e->d_name, "..") == 0)
            SAY(".. is its parent: %d", e->d_ino == up.st_ino);
    }
    if (dir)
        closedir(dir);
}

static void removed_while_open(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    DIR *dir = opendir("d");
    T(rmdir("d"));
    int count = 0;
    errno = 0;
    while (dir && readdir(dir))
        count++;
    SAY("%d entries, %s", count, strerrorname_np(errno) ? strerrorname_np(errno) : "?");
    if (dir)
        T(closedir(dir));
}

static void rewound(struct pt *t) {
    int found[3] = {0};
    pt_make(t, "a", "");
    DIR *dir = opendir(".");
    for (int round = 0; dir && round < 3; round++) {
        for (struct dirent *e; (e = readdir(dir));)
            if (e->d_name[0] != '.')
                found[round]++;
        pt_make(t, round ? "c" : "b", "");
        rewinddir(dir);
    }
    SAY("%d %d %d", found[0], found[1], found[2]);
    T(unlink("a"));
    T(unlink("b"));
    rewinddir(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.')
            SAY("%s", e->d_name);
    closedir(dir);
}

enum { MANY = 3000 };

/*
 * Every twentieth name is a new inode and the others are links to it: ext4 looks at every inode
 * that was freed within the last seconds when it makes a new one, which would take most of the
 * time.
 */
static void fill(struct pt *t, int count) {
    char name[64], first[64] = "";
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "a-rather-long-name-of-a-file-%05d", i);
        if (i % 20) {
            if (link(first, name) < 0)
                pt_outcome(t, name, -1);
            continue;
        }
        memcpy(first, name, sizeof(first));
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || close(fd) < 0)
            pt_outcome(t, name, -1);
    }
}

static int number_of(const char *name) {
    int number = -1;
    return sscanf(name, "a-rather-long-name-of-a-file-%d", &number) == 1 ? number : -1;
}

/* Writes how often each of the names first..first+count came. */
static void say_seen(struct pt *t, const char *what, const int *seen, int first, int count) {
    int missing = 0, twice = 0;
    for (int i = first; i < first + count; i++) {
        missing += seen[i] == 0;
        twice += seen[i] > 1;
    }
    SAY("%s: %d missing, %d twice", what, missing, twice);
}

static void big(struct pt *t) {
    static int seen[MANY];
    struct stat st;
    int wrong = 0, others = 0;
    pt_mkdir(t, "d", 0755);
    T(chdir("d"));
    fill(t, MANY);
    T(stat(".", &st));
    T(st.st_size);
    DIR *dir = opendir(".");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        int number = number_of(e->d_name);
        if (number < 0)
            others++;
        else
            seen[number]++;
        if (number % 10 == 0 && (lstat(e->d_name, &st) < 0 || st.st_ino != e->d_ino))
            wrong++;
    }
    say_seen(t, "all", seen, 0, MANY);
    SAY("%d wrong inodes, %d dots", wrong, others);
    /* Removing while reading must neither skip nor repeat. */
    memset(seen, 0, sizeof(seen));
    rewinddir(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        int number = number_of(e->d_name);
        if (number >= 0)
            seen[number]++;
        if (number >= 0 && unlink(e->d_name) < 0)
            pt_outcome(t, e->d_name, -1);
    }
    say_seen(t, "while removing", seen, 0, MANY);
    rewinddir(dir);
    others = 0;
    while (readdir(dir))
        others++;
    SAY("%d left", others);
    closedir(dir);
    T(chdir(".."));
    T(rmdir("d"));
}

static void seeking(struct pt *t) {
    enum { COUNT = 400 };
    static long at[COUNT + 8];
    static char name[COUNT + 8][256];
    int count = 0, wrong = 0;
    fill(t, COUNT);
    DIR *dir = opendir(".");
    for (struct dirent *e; dir && count < COUNT + 2; count++) {
        at[count] = telldir(dir);
        if (!(e = readdir(dir)))
            break;
        snprintf(name[count], sizeof(name[count]), "%s", e->d_name);
    }
    SAY("%d entries", count);
    for (int i = 0; i < count; i++) {
        int target = (i * 37) % count;
        seekdir(dir, at[target]);
        struct dirent *e = readdir(dir);
        if (!e || strcmp(e->d_name, name[target]) != 0)
            wrong++;
    }
    SAY("%d wrong after seekdir", wrong);
    closedir(dir);
    /* The offsets are good in another open of the same directory too. */
    wrong = 0;
    dir = opendir(".");
    for (int i = 0; i < count; i += 7) {
        seekdir(dir, at[i]);
        struct dirent *e = readdir(dir);
        if (!e || strcmp(e->d_name, name[i]) != 0)
            wrong++;
    }
    SAY("%d wrong in another open", wrong);
    closedir(dir);
}

static void seeking_while_changed(struct pt *t) {
    enum { COUNT = 400 };
    static int seen[MANY];
    fill(t, COUNT);
    memset(seen, 0, sizeof(seen));
    DIR *dir = opendir(".");
    long middle = 0;
    int count = 0;
    for (struct dirent *e; dir && count < COUNT / 2 && (e = readdir(dir)); count++)
        if (number_of(e->d_name) >= 0)
            seen[number_of(e->d_name)]++;
    middle = telldir(dir);
    for (int i = 0; i < COUNT; i += 4) { /* a quarter vanishes, others come */
        char name[64];
        snprintf(name, sizeof(name), "a-rather-long-name-of-a-file-%05d", i);
        T(unlink(name) == 0);
        snprintf(name, sizeof(name), "new-%d", i);
        pt_make(t, name, "");
    }
    rewinddir(dir);
    seekdir(dir, middle);
    for (struct dirent *e; (e = readdir(dir));)
        if (number_of(e->d_name) >= 0)
            seen[number_of(e->d_name)]++;
    closedir(dir);
    int missing = 0, twice = 0;
    for (int i = 0; i < COUNT; i++)
        if (i % 4) { /* each of those that stayed exactly once */
            missing += seen[i] == 0;
            twice += seen[i] > 1;
        }
    SAY("%d missing, %d twice", missing, twice);
}

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    unsigned short d_reclen;
    unsigned char d_type;
    char d_name[];
};

static void raw(struct pt *t) {
    static int seen[MANY];
    _Alignas(8) char buffer[300];
    int calls = 0, wrong = 0;
    fill(t, 100);
    memset(seen, 0, sizeof(seen));
    int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
    for (long n; (n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) != 0; calls++) {
        if (n < 0) {
            pt_outcome(t, "getdents64", -1);
            break;
        }
        int64_t last = 0;
        for (long at = 0; at < n;) {
            struct linux_dirent64 *e = (struct linux_dirent64 *)(buffer + at);
            if (number_of(e->d_name) >= 0)
                seen[number_of(e->d_name)]++;
            last = e->d_off;
            at += e->d_reclen;
        }
        if (lseek(fd, last, SEEK_SET) != last) /* d_off is where the next call goes on */
            wrong++;
    }
    SAY("many calls: %d, %d wrong", calls > 10, wrong);
    say_seen(t, "small buffer", seen, 0, 100);
    T(lseek(fd, 0, SEEK_SET));
    T(syscall(SYS_getdents64, fd, buffer, 10));
    T(syscall(SYS_getdents64, fd, buffer, 0));
    T(syscall(SYS_getdents64, fd, (void *)8, 300));
    close(fd);
    int file = OK(open("a-rather-long-name-of-a-file-00001", O_RDONLY));
    T(syscall(SYS_getdents64, file, buffer, sizeof(buffer)));
    close(file);
}

static void two_readers(struct pt *t) {
    static int seen[2][MANY];
    fill(t, 300);
    memset(seen, 0, sizeof(seen));
    DIR *dirs[2] = {opendir("."), opendir(".")};
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < 3 + 4 * i; k++) {
                struct dirent *e = readdir(dirs[i]);
                if (e && number_of(e->d_name) >= 0)
                    seen[i][number_of(e->d_name)]++;
                more = more || e;
            }
    }
    say_seen(t, "one", seen[0], 0, 300);
    say_seen(t, "other", seen[1], 0, 300);
    closedir(dirs[0]), closedir(dirs[1]);
}

static void forked_reader(struct pt *t) {
    int total = 0;
    fill(t, 50);
    int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
    _Alignas(8) char buffer[512];
    CHILD() { T(syscall(SYS_getdents64, fd, buffer, sizeof(buffer)) > 0); }
    for (long n; (n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0;)
        for (long at = 0; at < n; total++)
            at += ((struct linux_dirent64 *)(buffer + at))->d_reclen;
    SAY("the rest: %d", total > 30 && total < 52);
    close(fd);
}

static void fresh_after_change(struct pt *t) {
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        pt_make(t, name, "");
        pt_list(t, ".");
        if (i == 2)
            T(unlink("n0"));
        if (i == 3)
            T(rename("n1", "moved"));
        pt_list(t, ".");
    }
}

static void unreadable(struct pt *t) {
    struct stat st;
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "x");
    static const mode_t modes[] = {0, 0400, 0100, 0500, 0300, 0700};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        T(chmod("d", modes[i]));
        SAY("mode %o", modes[i]);
        pt_list(t, "d");
        T(stat("d/f", &st));
        OK(open("d/f", O_RDONLY));
        OK(open("d/new", O_CREAT | O_WRONLY, 0644));
        T(unlink("d/new"));
        T(rename("d/f", "d/g"));
        T(rename("d/g", "d/f"));
        T(chdir("d"));
        T(chdir(t->base));
    }
    T(chmod("d", 0700));
}

static void reading_moves_atime(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "x");
    pt_age(t, "d");
    struct pt_stamp before = pt_stamp("d");
    pt_tick();
    pt_list(t, "d");
    pt_moved(t, "d", &before);
}

static void names_move_times(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    static const char *const steps[] = {"create", "mkdir", "symlink", "unlink", "rmdir", "chmod"};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        pt_age(t, "d");
        struct pt_stamp before = pt_stamp("d");
        pt_tick();
        SAY("%s", steps[i]);
        if (i == 0)
            pt_make(t, "d/f", "");
        else if (i == 1)
            T(mkdir("d/e", 0755));
        else if (i == 2)
            T(symlink("x", "d/l"));
        else if (i == 3)
            T(unlink("d/f"));
        else if (i == 4)
            T(rmdir("d/e"));
        else
            T(chmod("d/l", 0600)); /* dangling: nothing happens */
        pt_moved(t, "d", &before);
    }
}

const struct pt_case pt_dir_cases[] = {
    {"types of entries", types, 0, 0},
    {"types of devices", device_types, PT_ROOT, 0},
    {"inode numbers of dot and dot-dot", dots, 0, 0},
    {"a directory removed while it is read", removed_while_open, 0, 0},
    {"rewinddir sees what is new", rewound, 0, 0},
    {"three thousand names, read and removed", big, 0, 0},
    {"telldir and seekdir", seeking, 0, 0},
    {"seekdir while names come and go", seeking_while_changed, 0, 0},
    {"getdents64 with a small buffer", raw, 0, 0},
    {"two readers of one directory", two_readers, 0, 0},
    {"a forked reader shares the position", forked_reader, 0, 0},
    {"a listing is never old", fresh_after_change, 0, 0},
    {"directories without permissions", unreadable, 0, 0},
    {"reading moves the atime", reading_moves_atime, 0, 0},
    {"changes of names move the times", names_move_times, 0, 0},
    {NULL, NULL, 0, NULL},
};
