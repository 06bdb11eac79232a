/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What cases are written with: making files, writing down what is there, times as relations, and
 * processes. The transcript itself and the comparison are in parity.c.
 */
#include "parity.h"

#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

void pt_pattern(void *buffer, size_t bytes, unsigned seed) {
    unsigned char *out = buffer;
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < bytes; i++) {
        x = x * 1664525u + 1013904223u;
        out[i] = (unsigned char)(x >> 24);
    }
}

static void write_all(struct pt *t, const char *name, const void *bytes, size_t count) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        pt_outcome(t, name, -1);
        return;
    }
    for (size_t done = 0; done < count;) {
        ssize_t n = write(fd, (const char *)bytes + done, count - done);
        if (n <= 0) {
            pt_outcome(t, name, -1);
            break;
        }
        done += (size_t)n;
    }
    if (close(fd) < 0)
        pt_outcome(t, name, -1);
}

void pt_make(struct pt *t, const char *name, const char *text) {
    write_all(t, name, text, strlen(text));
}

void pt_fill(struct pt *t, const char *name, size_t bytes, unsigned seed) {
    char *buffer = malloc(bytes ? bytes : 1);
    if (!buffer)
        return;
    pt_pattern(buffer, bytes, seed);
    write_all(t, name, buffer, bytes);
    free(buffer);
}

void pt_mkdir(struct pt *t, const char *name, mode_t mode) {
    if (mkdir(name, 0700) < 0 || chmod(name, mode) < 0)
        pt_outcome(t, name, -1);
}

void pt_own(struct pt *t, const char *name, uid_t uid, gid_t gid, mode_t mode) {
    if (lchown(name, uid, gid) < 0 || chmod(name, mode) < 0)
        pt_outcome(t, name, -1);
}

static const char *type_name(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "dir";
    case S_IFLNK:
        return "symlink";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    case S_IFCHR:
        return "char";
    case S_IFBLK:
        return "block";
    default:
        return "?";
    }
}

static void say_stat(struct pt *t, const char *what, const struct stat *st) {
    pt_say(t, "%s: %s %04o %u:%u links %lu size %lld rdev %u:%u", what, type_name(st->st_mode),
           st->st_mode & 07777, st->st_uid, st->st_gid, (unsigned long)st->st_nlink,
           (long long)st->st_size, major(st->st_rdev), minor(st->st_rdev));
}

void pt_show(struct pt *t, const char *name) {
    struct stat st;
    if (lstat(name, &st) < 0)
        pt_outcome(t, name, -1);
    else
        say_stat(t, name, &st);
}

void pt_showfd(struct pt *t, const char *what, int fd) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        pt_outcome(t, what, -1);
    else
        say_stat(t, what, &st);
}

void pt_bytes(struct pt *t, const char *what, const void *bytes, ssize_t count) {
    if (count < 0) {
        pt_outcome(t, what, -1);
        return;
    }
    const unsigned char *in = bytes;
    char text[256];
    size_t used = 0;
    for (ssize_t i = 0; i < count && count <= 48; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 in[i] >= ' ' && in[i] < 127 && in[i] != '\\' ? "%c" : "\\x%02x",
                                 in[i]);
    uint64_t sum = 1469598103934665603u;
    for (ssize_t i = 0; i < count; i++)
        sum = (sum ^ in[i]) * 1099511628211u;
    if (count <= 48)
        pt_say(t, "%s: %zd bytes '%.*s'", what, count, (int)used, text);
    else
        pt_say(t, "%s: %zd bytes, sum %016llx", what, count, (unsigned long long)sum);
}

void pt_lookfd(struct pt *t, const char *what, int fd) {
    struct stat st;
    if (fstat(fd, &st) < 0) {
        pt_outcome(t, what, -1);
        return;
    }
    size_t room = 32u << 20;
    if (st.st_size >= 0 && (size_t)st.st_size + 4096 < room)
        room = (size_t)st.st_size + 4096; /* more than the size, to see a wrong size */
    char *buffer = malloc(room);
    if (!buffer)
        return;
    size_t got = 0;
    ssize_t n = 0;
    while (got < room && (n = pread(fd, buffer + got, room - got, (off_t)got)) > 0)
        got += (size_t)n;
    pt_bytes(t, what, buffer, n < 0 ? -1 : (ssize_t)got);
    free(buffer);
}

void pt_look(struct pt *t, const char *name) {
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        pt_outcome(t, name, -1);
        return;
    }
    pt_lookfd(t, name, fd);
    close(fd);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void pt_list(struct pt *t, const char *name) {
    DIR *dir = opendir(name);
    if (!dir) {
        pt_outcome(t, name, -1);
        return;
    }
    char **lines = NULL;
    size_t count = 0;
    errno = 0;
    for (struct dirent *e; (e = readdir(dir)); errno = 0) {
        struct stat st;
        bool there = fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        char **more = realloc(lines, (count + 1) * sizeof(*lines));
        if (!more ||
            asprintf(&more[count], "%s type %u%s%s", e->d_name, e->d_type, there ? "" : " gone",
                     there && st.st_ino != e->d_ino ? " other inode" : "") < 0)
            abort();
        lines = more;
        count++;
    }
    int err = errno;
    closedir(dir);
    if (count)
        qsort(lines, count, sizeof(*lines), by_text);
    pt_say(t, "%s: %zu entries%s%s", name, count, err ? ", then " : "",
           err ? strerrorname_np(err) : "");
    for (size_t i = 0; i < count; i++) {
        pt_say(t, "  %s", lines[i]);
        free(lines[i]);
    }
    free(lines);
}

void pt_xattrs(struct pt *t, const char *name) {
    char names[8192], value[8192], *sorted[256];
    ssize_t size = llistxattr(name, names, sizeof(names));
    if (size < 0) {
        pt_outcome(t, name, -1);
        return;
    }
    size_t count = 0;
    for (char *at = names; at < names + size && count < 256; at += strlen(at) + 1)
        sorted[count++] = at;
    qsort(sorted, count, sizeof(*sorted), by_text);
    pt_say(t, "%s: %zu xattrs, list of %zd bytes", name, count, size);
    for (size_t i = 0; i < count; i++)
        pt_bytes(t, sorted[i], value, lgetxattr(name, sorted[i], value, sizeof(value)));
}

static struct pt_stamp of_stat(const struct stat *st) {
    return (struct pt_stamp){st->st_atim, st->st_mtim, st->st_ctim};
}

struct pt_stamp pt_stamp(const char *name) {
    struct stat st = {0};
    (void)lstat(name, &st); /* a failure leaves 1970, and pt_moved writes the error */
    return of_stat(&st);
}

struct pt_stamp pt_stampfd(int fd) {
    struct stat st = {0};
    (void)fstat(fd, &st); /* as above */
    return of_stat(&st);
}

static const char *relation(struct timespec before, struct timespec after) {
    if (before.tv_sec == after.tv_sec && before.tv_nsec == after.tv_nsec)
        return "same";
    if (before.tv_sec != after.tv_sec)
        return before.tv_sec < after.tv_sec ? "later" : "earlier";
    return before.tv_nsec < after.tv_nsec ? "later" : "earlier";
}

static void say_moved(struct pt *t, const char *what, const struct pt_stamp *a,
                      const struct pt_stamp *b) {
    /* Making a staged copy reads the file, whatever becomes of the open. */
    pt_say(t, "%s: atime %s mtime %s ctime %s", what,
           getenv("PARITY_ANY_ATIME") ? "any" : relation(a->atime, b->atime),
           relation(a->mtime, b->mtime), relation(a->ctime, b->ctime));
}

void pt_moved(struct pt *t, const char *name, const struct pt_stamp *before) {
    struct stat st;
    if (lstat(name, &st) < 0) {
        pt_outcome(t, name, -1);
        return;
    }
    struct pt_stamp now = of_stat(&st);
    say_moved(t, name, before, &now);
}

void pt_movedfd(struct pt *t, const char *what, int fd, const struct pt_stamp *before) {
    struct stat st;
    if (fstat(fd, &st) < 0) {
        pt_outcome(t, what, -1);
        return;
    }
    struct pt_stamp now = of_stat(&st);
    say_moved(t, what, before, &now);
}

/*
 * Files are stamped with the coarse clock, or with a finer time taken since its last step, and that
 * clock may lag behind by more than a step: it has to pass what the fine clock says now.
 */
void pt_tick(void) {
    struct timespec start, now;
    clock_gettime(CLOCK_REALTIME, &start);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    } while (now.tv_sec < start.tv_sec ||
             (now.tv_sec == start.tv_sec && now.tv_nsec <= start.tv_nsec));
}

void pt_age(struct pt *t, const char *name) {
    const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000001}};
    if (utimensat(AT_FDCWD, name, old, AT_SYMLINK_NOFOLLOW) < 0)
        pt_outcome(t, name, -1);
}

pid_t pt_spawn(struct pt *t) {
    pid_t pid = fork();
    if (pid < 0)
        pt_outcome(t, "fork", -1);
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

void pt_reap(struct pt *t, pid_t pid) {
    int status;
    if (pid <= 0 || waitpid(pid, &status, 0) != pid)
        pt_outcome(t, "waitpid", -1);
    else if (WIFSIGNALED(status))
        pt_say(t, "child: killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
    else if (WEXITSTATUS(status))
        pt_say(t, "child: exit %d", WEXITSTATUS(status));
}

void pt_end(void) { _exit(0); }

int pt_child(struct pt *t) {
    pid_t pid = pt_spawn(t);
    if (pid != 0)
        pt_reap(t, pid);
    return pid == 0;
}

int pt_become(uid_t uid, gid_t gid, gid_t group) {
    if (setgroups(group ? 1 : 0, &group) < 0 || setresgid(gid, gid, gid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        return -errno;
    prctl(PR_SET_DUMPABLE, 1); /* /proc/self stays ours */
    return 0;
}

int pt_as(struct pt *t, uid_t uid, gid_t gid, gid_t group) {
    pid_t pid = pt_spawn(t);
    if (pid != 0) {
        pt_reap(t, pid);
        return 0;
    }
    if (pt_become(uid, gid, group) < 0) {
        pt_say(t, "cannot become %u", uid);
        _exit(99);
    }
    return 1;
}

void pt_gate_init(struct pt *t, struct pt_gate *gate) {
    if (pipe2(gate->end, O_CLOEXEC) < 0)
        pt_outcome(t, "gate", -1);
}

void pt_gate_open(struct pt_gate *gate) {
    (void)!write(gate->end[1], "x", 1); /* a lost signal shows as the case's timeout */
}

void pt_gate_await(struct pt *t, struct pt_gate *gate) {
    char byte;
    if (read(gate->end[0], &byte, 1) != 1)
        pt_outcome(t, "gate", -1);
}

void pt_await_sleep(pid_t pid) {
    char path[64], line[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    for (int i = 0; i < 5000; i++) {
        FILE *file = fopen(path, "re");
        const char *state = NULL;
        if (file && fgets(line, sizeof(line), file))
            state = strrchr(line, ')');
        if (file)
            fclose(file);
        if (!state || state[2] == 'S' || state[2] == 'D')
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}
