/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A slow source for tests and benchmarks: shows a directory, each operation delayed as if it went
 * over a network.
 *
 *   slowfs DIRECTORY MOUNTPOINT [-o OPTION,...]    (stays in the foreground)
 *
 *   latency_us=N   each operation takes so much longer; any number of them at once
 *   bandwidth=N    bytes per second of all reads and writes together; 0: no limit
 *   timeout=S      for how long the kernel may keep names and attributes (1)
 *   control=FILE   read at the start and at SIGHUP: lines of latency_us=N, fail=OPERATION:ERRNO,
 *                  gate=OPERATION (it waits while that line is there)
 *   stats=FILE     JSON with the number of each operation, written at SIGUSR1 and at the end
 *
 * Content is cached by the kernel until a file is opened again, as a network client does.
 */
#define FUSE_USE_VERSION 318
#include <fuse.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum operation {
    GETATTR,
    READLINK,
    OPEN,
    READ,
    WRITE,
    READDIR,
    CREATE,
    MKDIR,
    UNLINK,
    RENAME,
    SETATTR,
    OTHER,
    OPERATIONS
};
static const char *const names[] = {"getattr", "readlink", "open",   "read",   "write",   "readdir",
                                    "create",  "mkdir",    "unlink", "rename", "setattr", "other"};

static struct {
    int root;
    long latency_us;
    long bandwidth;
    double timeout_s;
    const char *control;
    const char *stats;
    atomic_ulong counts[OPERATIONS];
    atomic_ulong read_bytes;
    atomic_ulong written_bytes;
    atomic_ulong at_gate;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fail[OPERATIONS]; /* an errno; protected by lock, as all below */
    bool gated[OPERATIONS];
    struct timespec line_free; /* when the next byte may go */
} slow = {.timeout_s = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* ---- control ---- */

static int operation_of(const char *name) {
    for (int i = 0; i < OPERATIONS; i++)
        if (!strcmp(names[i], name))
            return i;
    fprintf(stderr, "slowfs: no operation is called \"%s\"\n", name);
    return OTHER;
}

static void apply_line(const char *line) {
    char name[32];
    int number;

    if (sscanf(line, "latency_us=%ld", &slow.latency_us) == 1)
        return;
    if (sscanf(line, "fail=%31[a-z]:%d", name, &number) == 2)
        slow.fail[operation_of(name)] = number;
    else if (sscanf(line, "gate=%31[a-z]", name) == 1)
        slow.gated[operation_of(name)] = true;
}

static void read_control(void) {
    FILE *file = slow.control ? fopen(slow.control, "re") : NULL;
    char line[128];

    pthread_mutex_lock(&slow.lock);
    memset(slow.fail, 0, sizeof(slow.fail));
    memset(slow.gated, 0, sizeof(slow.gated));
    while (file && fgets(line, sizeof(line), file))
        apply_line(line);
    pthread_cond_broadcast(&slow.changed);
    pthread_mutex_unlock(&slow.lock);
    if (file)
        (void)fclose(file); /* read-only */
}

static void write_stats(void) {
    char temporary[4096];
    FILE *file;

    if (!slow.stats)
        return;
    (void)snprintf(temporary, sizeof(temporary), "%s.new", slow.stats);
    file = fopen(temporary, "we");
    if (!file)
        return;
    fprintf(file, "{");
    for (int i = 0; i < OPERATIONS; i++)
        fprintf(file, "\"%s\": %lu, ", names[i], atomic_load(&slow.counts[i]));
    fprintf(file, "\"read_bytes\": %lu, \"written_bytes\": %lu, \"at_gate\": %lu}\n",
            atomic_load(&slow.read_bytes), atomic_load(&slow.written_bytes),
            atomic_load(&slow.at_gate));
    if (!fclose(file))
        (void)rename(temporary, slow.stats); /* the reader polls for it */
}

static void *take_signals(void *argument) {
    sigset_t *set = argument;
    int number;

    while (!sigwait(set, &number)) {
        if (number == SIGHUP)
            read_control();
        write_stats();
    }
    return NULL;
}

/* ---- delay ---- */

static void wait_for_line(size_t bytes) {
    struct timespec until;
    long ns;

    if (!slow.bandwidth || !bytes)
        return;
    ns = (long)((double)bytes / (double)slow.bandwidth * 1e9);
    pthread_mutex_lock(&slow.lock);
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    if (until.tv_sec > slow.line_free.tv_sec ||
        (until.tv_sec == slow.line_free.tv_sec && until.tv_nsec > slow.line_free.tv_nsec))
        slow.line_free = until;
    slow.line_free.tv_nsec += ns;
    slow.line_free.tv_sec += slow.line_free.tv_nsec / 1000000000;
    slow.line_free.tv_nsec %= 1000000000;
    until = slow.line_free;
    pthread_mutex_unlock(&slow.lock);
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* What each operation begins with: 0, or the error that it is to give. */
static int begin(enum operation operation) {
    struct timespec pause = {slow.latency_us / 1000000, slow.latency_us % 1000000 * 1000};
    int error;

    atomic_fetch_add(&slow.counts[operation], 1);
    if (slow.latency_us)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    pthread_mutex_lock(&slow.lock);
    atomic_fetch_add(&slow.at_gate, 1);
    while (slow.gated[operation])
        pthread_cond_wait(&slow.changed, &slow.lock);
    atomic_fetch_sub(&slow.at_gate, 1);
    error = slow.fail[operation];
    pthread_mutex_unlock(&slow.lock);
    return -error;
}

static const char *below(const char *path) { return path[1] ? path + 1 : "."; }

static int result(int value) { return value < 0 ? -errno : 0; }

#define BEGIN(operation)                                                                           \
    do {                                                                                           \
        int begun = begin(operation);                                                              \
        if (begun)                                                                                 \
            return begun;                                                                          \
    } while (0)

/* ---- operations ---- */

static int slow_getattr(const char *path, struct stat *info, struct fuse_file_info *fi) {
    BEGIN(GETATTR);
    return result(fi ? fstat((int)fi->fh, info)
                     : fstatat(slow.root, below(path), info, AT_SYMLINK_NOFOLLOW));
}

static int slow_readlink(const char *path, char *target, size_t size) {
    ssize_t length;

    BEGIN(READLINK);
    length = readlinkat(slow.root, below(path), target, size - 1);
    if (length < 0)
        return -errno;
    target[length] = '\0';
    return 0;
}

static int slow_open(const char *path, struct fuse_file_info *fi) {
    int fd;

    BEGIN(OPEN);
    fd = openat(slow.root, below(path), (fi->flags & ~O_NOFOLLOW) | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    return 0;
}

static int slow_create(const char *path, mode_t mode, struct fuse_file_info *fi) {
    int fd;

    BEGIN(CREATE);
    fd = openat(slow.root, below(path), fi->flags | O_CREAT | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    return 0;
}

static int slow_read(const char *path, char *buffer, size_t size, off_t offset,
                     struct fuse_file_info *fi) {
    ssize_t got;

    (void)path;
    BEGIN(READ);
    got = pread((int)fi->fh, buffer, size, offset);
    if (got < 0)
        return -errno;
    wait_for_line((size_t)got);
    atomic_fetch_add(&slow.read_bytes, (unsigned long)got);
    return (int)got;
}

static int slow_write(const char *path, const char *buffer, size_t size, off_t offset,
                      struct fuse_file_info *fi) {
    ssize_t put;

    (void)path;
    BEGIN(WRITE);
    put = pwrite((int)fi->fh, buffer, size, offset);
    if (put < 0)
        return -errno;
    wait_for_line((size_t)put);
    atomic_fetch_add(&slow.written_bytes, (unsigned long)put);
    return (int)put;
}

static int slow_release(const char *path, struct fuse_file_info *fi) {
    (void)path;
    (void)close((int)fi->fh);
    return 0;
}

static int slow_fsync(const char *path, int datasync, struct fuse_file_info *fi) {
    (void)path;
    BEGIN(OTHER);
    return result(datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

static int slow_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                        struct fuse_file_info *fi, enum fuse_readdir_flags flags) {
    int fd;
    DIR *directory;
    struct dirent *entry;

    (void)offset;
    (void)fi;
    (void)flags;
    BEGIN(READDIR);
    fd = openat(slow.root, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return -errno;
    while ((entry = readdir(directory))) {
        struct stat info = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};

        if (fill(buffer, entry->d_name, &info, 0, 0))
            break;
    }
    (void)closedir(directory);
    return 0;
}

static int slow_mkdir(const char *path, mode_t mode) {
    BEGIN(MKDIR);
    return result(mkdirat(slow.root, below(path), mode));
}

static int slow_unlink(const char *path) {
    BEGIN(UNLINK);
    return result(unlinkat(slow.root, below(path), 0));
}

static int slow_rmdir(const char *path) {
    BEGIN(UNLINK);
    return result(unlinkat(slow.root, below(path), AT_REMOVEDIR));
}

static int slow_rename(const char *from, const char *to, unsigned flags) {
    BEGIN(RENAME);
    return result(renameat2(slow.root, below(from), slow.root, below(to), flags));
}

static int slow_symlink(const char *target, const char *path) {
    BEGIN(CREATE);
    return result(symlinkat(target, slow.root, below(path)));
}

static int slow_link(const char *from, const char *to) {
    BEGIN(CREATE);
    return result(linkat(slow.root, below(from), slow.root, below(to), 0));
}

static int slow_chmod(const char *path, mode_t mode, struct fuse_file_info *fi) {
    (void)fi;
    BEGIN(SETATTR);
    return result(fchmodat(slow.root, below(path), mode, 0));
}

static int slow_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi) {
    (void)fi;
    BEGIN(SETATTR);
    return result(fchownat(slow.root, below(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int slow_truncate(const char *path, off_t size, struct fuse_file_info *fi) {
    int fd;
    int error;

    BEGIN(SETATTR);
    if (fi)
        return result(ftruncate((int)fi->fh, size));
    fd = openat(slow.root, below(path), O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    error = result(ftruncate(fd, size));
    (void)close(fd);
    return error;
}

static int slow_utimens(const char *path, const struct timespec times[2],
                        struct fuse_file_info *fi) {
    (void)fi;
    BEGIN(SETATTR);
    return result(utimensat(slow.root, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int slow_statfs(const char *path, struct statvfs *info) {
    (void)path;
    BEGIN(OTHER);
    return result(fstatvfs(slow.root, info));
}

static void *slow_init(struct fuse_conn_info *conn, struct fuse_config *config) {
    (void)conn;
    config->use_ino = 1;
    config->nullpath_ok = 0;
    config->entry_timeout = config->attr_timeout = slow.timeout_s;
    config->negative_timeout = slow.timeout_s;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = slow_init,
    .getattr = slow_getattr,
    .readlink = slow_readlink,
    .open = slow_open,
    .create = slow_create,
    .read = slow_read,
    .write = slow_write,
    .release = slow_release,
    .fsync = slow_fsync,
    .readdir = slow_readdir,
    .mkdir = slow_mkdir,
    .unlink = slow_unlink,
    .rmdir = slow_rmdir,
    .rename = slow_rename,
    .symlink = slow_symlink,
    .link = slow_link,
    .chmod = slow_chmod,
    .chown = slow_chown,
    .truncate = slow_truncate,
    .utimens = slow_utimens,
    .statfs = slow_statfs,
};

/* ---- the start ---- */

static int apply_option(const char *option) {
    if (sscanf(option, "latency_us=%ld", &slow.latency_us) == 1 ||
        sscanf(option, "bandwidth=%ld", &slow.bandwidth) == 1 ||
        sscanf(option, "timeout=%lf", &slow.timeout_s) == 1)
        return 0;
    if (!strncmp(option, "control=", 8))
        slow.control = option + 8;
    else if (!strncmp(option, "stats=", 6))
        slow.stats = option + 6;
    else
        return fprintf(stderr, "slowfs: unknown option \"%s\"\n", option), -1;
    return 0;
}

int main(int argc, char **argv) {
    static sigset_t set;
    char *arguments[] = {argv[0],
                         NULL,
                         (char *)"-f",
                         (char *)"-omax_threads=256",
                         (char *)"-oallow_other,default_permissions,subtype=slowfs,fsname=slowfs",
                         NULL};
    pthread_t thread;
    int status;

    if (argc < 3)
        return fprintf(stderr, "usage: slowfs DIRECTORY MOUNTPOINT [-o OPTION,...]\n"), 2;
    slow.root = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (slow.root < 0)
        return perror(argv[1]), 1;
    arguments[1] = argv[2];
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "-o") && i + 1 < argc)
            for (char *option = strtok(argv[++i], ","); option; option = strtok(NULL, ","))
                if (apply_option(option))
                    return 2;
    }
    umask(0);
    read_control();
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, take_signals, &set))
        return 1;
    status = fuse_main(5, arguments, &operations, NULL);
    write_stats();
    return status;
}
