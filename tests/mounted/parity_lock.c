/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: flock, fcntl and open-file-description locks, within and between processes. */
#include "parity.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int lock_range(int fd, int command, short type, off_t start, off_t length) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, command, &lock);
}

/* What F_GETLK says about a wanted lock; holder is the process that is expected to hold it. */
static void ask(struct pt *t, int fd, int command, short type, off_t start, off_t length,
                pid_t holder) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    if (fcntl(fd, command, &lock) < 0)
        pt_outcome(t, "F_GETLK", -1);
    else if (lock.l_type == F_UNLCK)
        SAY("free");
    else
        SAY("held: type %d start %lld length %lld by %s", lock.l_type, (long long)lock.l_start,
            (long long)lock.l_len,
            lock.l_pid == holder ? "the holder"
            : lock.l_pid == -1   ? "-1"
                                 : "somebody");
}

static void flock_two(struct pt *t) {
    pt_make(t, "f", "");
    int a = OK(open("f", O_RDONLY)), b = OK(open("f", O_RDWR));
    T(flock(a, LOCK_SH | LOCK_NB));
    T(flock(b, LOCK_SH | LOCK_NB));
    T(flock(b, LOCK_EX | LOCK_NB));
    T(flock(a, LOCK_UN));
    T(flock(b, LOCK_EX | LOCK_NB));
    T(flock(a, LOCK_SH | LOCK_NB));
    T(close(b));
    T(flock(a, LOCK_EX | LOCK_NB));
    T(flock(a, 77));
    int c = dup(a);
    T(flock(c, LOCK_UN)); /* one description, one lock */
    b = OK(open("f", O_RDWR));
    T(flock(b, LOCK_EX | LOCK_NB));
    close(a), close(b), close(c);
}

static void flock_others(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    T(mkfifo("p", 0600));
    int a = OK(open("d", O_RDONLY)), b = OK(open("d", O_RDONLY)), p = OK(open("p", O_RDWR));
    T(flock(a, LOCK_EX | LOCK_NB));
    T(flock(b, LOCK_EX | LOCK_NB));
    T(flock(a, LOCK_UN));
    T(flock(b, LOCK_EX | LOCK_NB));
    T(flock(p, LOCK_EX | LOCK_NB));
    T(flock(OK(open("d", O_PATH)), LOCK_EX | LOCK_NB));
    close(a), close(b), close(p);
}

static void flock_inherited(struct pt *t) {
    pt_make(t, "f", "");
    int a = OK(open("f", O_RDWR));
    T(flock(a, LOCK_EX | LOCK_NB));
    CHILD() {
        T(flock(a, LOCK_EX | LOCK_NB)); /* the same description */
        T(flock(OK(open("f", O_RDWR)), LOCK_EX | LOCK_NB));
        close(a);
    }
    int b = OK(open("f", O_RDWR));
    T(flock(b, LOCK_EX | LOCK_NB)); /* the child's close did not release it */
    CHILD() { T(flock(a, LOCK_UN)); }
    T(flock(b, LOCK_EX | LOCK_NB));
    close(a), close(b);
}

/* A second process waits for a lock until the first one releases it. */
struct waiting {
    _Atomic int released;
};

static void wait_for_lock(struct pt *t, int (*acquire)(int), int (*release)(int)) {
    struct waiting *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct pt_gate ready;
    pt_gate_init(t, &ready);
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    T(acquire(fd));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        int mine = OK(open("f", O_RDWR));
        pt_gate_open(&ready);
        T(acquire(mine));
        SAY("acquired after the release: %d", atomic_load(&shared->released));
        T(release(mine));
        pt_end();
    }
    pt_gate_await(t, &ready);
    pt_await_sleep(pid);
    atomic_store(&shared->released, 1);
    if (release(fd) < 0)
        pt_outcome(t, "release", -1);
    pt_reap(t, pid);
    T(acquire(fd));
    munmap(shared, sizeof(*shared));
}

static int flock_acquire(int fd) { return flock(fd, LOCK_EX); }
static int flock_release(int fd) { return flock(fd, LOCK_UN); }
static int posix_acquire(int fd) { return lock_range(fd, F_SETLKW, F_WRLCK, 2, 5); }
static int posix_release(int fd) { return lock_range(fd, F_SETLK, F_UNLCK, 0, 0); }
static int ofd_acquire(int fd) { return lock_range(fd, F_OFD_SETLKW, F_WRLCK, 2, 5); }
static int ofd_release(int fd) { return lock_range(fd, F_OFD_SETLK, F_UNLCK, 0, 0); }
static int lockf_acquire(int fd) { return lockf(fd, F_LOCK, 0); }
static int lockf_release(int fd) { return lockf(fd, F_ULOCK, 0); }
static int release_by_close(int fd) {
    int other = open("f", O_RDONLY); /* any close of the file drops a process's locks */
    (void)fd;
    return close(other);
}

static void flock_waits(struct pt *t) { wait_for_lock(t, flock_acquire, flock_release); }
static void posix_waits(struct pt *t) { wait_for_lock(t, posix_acquire, posix_release); }
static void ofd_waits(struct pt *t) { wait_for_lock(t, ofd_acquire, ofd_release); }
static void lockf_waits(struct pt *t) { wait_for_lock(t, lockf_acquire, lockf_release); }
static void close_wakes(struct pt *t) { wait_for_lock(t, posix_acquire, release_by_close); }

static void on_signal(int number) { (void)number; }

/* A signal interrupts the waiter. Sent again until it has, since it may come before the wait. */
static void interrupted(struct pt *t, int (*acquire)(int)) {
    pt_make(t, "f", "");
    int fd = OK(open("f", O_RDWR));
    T(acquire(fd));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        struct sigaction action = {.sa_handler = on_signal};
        sigaction(SIGUSR1, &action, NULL);
        int mine = OK(open("f", O_RDWR));
        T(acquire(mine));
        pt_end();
    }
    int status;
    pt_await_sleep(pid);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        char path[64], line[64] = "";
        snprintf(path, sizeof(path), "/proc/%d/status", pid);
        FILE *file = fopen(path, "re"); /* no signal before the handler stands */
        while (file && fgets(line, sizeof(line), file))
            if (strncmp(line, "SigCgt:", 7) == 0 && (strtoull(line + 7, NULL, 16) & 512))
                kill(pid, SIGUSR1);
        if (file)
            fclose(file);
        usleep(2000);
    }
    SAY("waiter ended %x", status);
    close(fd);
}

static void flock_interrupted(struct pt *t) { interrupted(t, flock_acquire); }
static void posix_interrupted(struct pt *t) { interrupted(t, posix_acquire); }
static void ofd_interrupted(struct pt *t) { interrupted(t, ofd_acquire); }

static void posix_between(struct pt *t) {
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    T(lock_range(fd, F_SETLK, F_WRLCK, 0, 5));
    T(lock_range(fd, F_SETLK, F_RDLCK, 5, 5));
    pid_t holder = getpid();
    CHILD() {
        int mine = OK(open("f", O_RDWR));
        T(lock_range(mine, F_SETLK, F_WRLCK, 0, 1));
        T(lock_range(mine, F_SETLK, F_RDLCK, 4, 1));
        T(lock_range(mine, F_SETLK, F_RDLCK, 5, 1));
        T(lock_range(mine, F_SETLK, F_WRLCK, 5, 1));
        T(lock_range(mine, F_SETLK, F_WRLCK, 10, 0));
        ask(t, mine, F_GETLK, F_WRLCK, 0, 0, holder);
        ask(t, mine, F_GETLK, F_RDLCK, 4, 3, holder);
        ask(t, mine, F_GETLK, F_RDLCK, 6, 3, holder);
        ask(t, mine, F_GETLK, F_WRLCK, 6, 3, holder);
        ask(t, mine, F_GETLK, F_WRLCK, 20, 1, holder);
    }
    T(lock_range(fd, F_SETLK, F_WRLCK, 10, 0)); /* the child's went with it */
    T(lock_range(fd, F_SETLK, F_UNLCK, 2, 2));  /* splits */
    CHILD() {
        int mine = OK(open("f", O_RDWR));
        T(lock_range(mine, F_SETLK, F_WRLCK, 2, 2));
        T(lock_range(mine, F_SETLK, F_WRLCK, 1, 2));
        ask(t, mine, F_GETLK, F_WRLCK, 0, 4, holder);
        ask(t, mine, F_GETLK, F_WRLCK, 4, 1, holder);
    }
    close(fd);
}

static void posix_refused(struct pt *t) {
    pt_make(t, "f", "0123456789");
    int ro = OK(open("f", O_RDONLY)), wo = OK(open("f", O_WRONLY)), path = OK(open("f", O_PATH));
    T(lock_range(ro, F_SETLK, F_WRLCK, 0, 1));
    T(lock_range(wo, F_SETLK, F_RDLCK, 0, 1));
    T(lock_range(path, F_SETLK, F_RDLCK, 0, 1));
    T(lock_range(ro, F_SETLK, F_RDLCK, -1, 1));
    T(lock_range(ro, F_SETLK, F_RDLCK, 5, -3));
    T(lock_range(ro, F_SETLK, F_RDLCK, 5, -8));
    T(lock_range(ro, F_SETLK, 99, 0, 1));
    T(lock_range(ro, F_SETLK, F_RDLCK, INT64_MAX, 1));
    T(lock_range(ro, F_SETLK, F_RDLCK, INT64_MAX, 2));
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_END, .l_start = -2, .l_len = 2};
    T(fcntl(ro, F_SETLK, &lock));
    lock.l_type = F_WRLCK;
    CHILD() {
        T(fcntl(wo, F_GETLK, &lock));
        T(lock.l_start);
        T(lock.l_len);
        T(lock.l_whence);
    }
    close(ro), close(wo), close(path);
}

static void posix_own(struct pt *t) {
    /* One process does not conflict with itself, and any close drops everything. */
    pt_make(t, "f", "0123456789");
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
    T(lock_range(a, F_SETLK, F_WRLCK, 0, 0));
    T(lock_range(b, F_SETLK, F_WRLCK, 3, 1));
    ask(t, b, F_GETLK, F_WRLCK, 0, 0, getpid());
    pid_t holder = getpid();
    CHILD() { ask(t, a, F_GETLK, F_WRLCK, 0, 0, holder); }
    T(close(b));
    CHILD() { ask(t, a, F_GETLK, F_WRLCK, 0, 0, holder); }
    T(lock_range(a, F_SETLK, F_WRLCK, 0, 0));
    int c = dup(a);
    T(close(c));
    CHILD() { ask(t, a, F_GETLK, F_WRLCK, 0, 0, holder); }
    close(a);
}

static void posix_exit(struct pt *t) {
    struct pt_gate locked, go;
    pt_gate_init(t, &locked);
    pt_gate_init(t, &go);
    pt_make(t, "f", "");
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        int mine = open("f", O_RDWR);
        T(lock_range(mine, F_SETLK, F_WRLCK, 0, 0));
        T(flock(mine, LOCK_EX | LOCK_NB));
        pt_gate_open(&locked);
        pt_gate_await(t, &go);
        raise(SIGKILL);
    }
    pt_gate_await(t, &locked);
    int fd = OK(open("f", O_RDWR));
    T(lock_range(fd, F_SETLK, F_WRLCK, 0, 0));
    T(flock(fd, LOCK_EX | LOCK_NB));
    pt_gate_open(&go);
    pt_reap(t, pid); /* killed: its locks are gone when it is */
    T(lock_range(fd, F_SETLK, F_WRLCK, 0, 0));
    T(flock(fd, LOCK_EX));
    close(fd);
}

static void ofd(struct pt *t) {
    pt_make(t, "f", "0123456789");
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
    T(lock_range(a, F_OFD_SETLK, F_WRLCK, 0, 5));
    T(lock_range(b, F_OFD_SETLK, F_WRLCK, 0, 5));
    T(lock_range(b, F_OFD_SETLK, F_RDLCK, 4, 5));
    T(lock_range(b, F_OFD_SETLK, F_WRLCK, 5, 5));
    T(lock_range(b, F_SETLK, F_WRLCK, 0, 1)); /* conflicts with the process's own kind too */
    ask(t, b, F_OFD_GETLK, F_WRLCK, 0, 0, -1);
    ask(t, b, F_GETLK, F_WRLCK, 0, 0, -1);
    CHILD() {
        T(lock_range(a, F_OFD_SETLK, F_WRLCK, 1, 1)); /* inherited with the description */
        close(b);
    }
    ask(t, a, F_OFD_GETLK, F_WRLCK, 5, 5, -1);
    int other = OK(open("f", O_RDONLY));
    close(other); /* does not drop them */
    ask(t, b, F_OFD_GETLK, F_WRLCK, 0, 5, -1);
    T(close(a));
    ask(t, b, F_OFD_GETLK, F_WRLCK, 0, 5, -1);
    struct flock lock = {.l_type = F_WRLCK, .l_pid = 5};
    T(fcntl(b, F_OFD_SETLK, &lock));
    close(b);
}

static void kinds_apart(struct pt *t) {
    pt_make(t, "f", "");
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
    T(flock(a, LOCK_EX | LOCK_NB));
    T(lock_range(b, F_SETLK, F_WRLCK, 0, 0));
    CHILD() {
        int c = OK(open("f", O_RDWR));
        T(flock(c, LOCK_EX | LOCK_NB));
        T(lock_range(c, F_SETLK, F_WRLCK, 0, 0));
        T(write(c, "advisory", 8));
    }
    pt_look(t, "f");
    close(a), close(b);
}

static void by_links(struct pt *t) {
    pt_make(t, "f", "");
    T(link("f", "g"));
    int a = OK(open("f", O_RDWR)), b = OK(open("g", O_RDWR));
    T(flock(a, LOCK_EX | LOCK_NB));
    T(flock(b, LOCK_EX | LOCK_NB));
    T(rename("f", "h"));
    T(flock(OK(open("h", O_RDWR)), LOCK_EX | LOCK_NB));
    T(unlink("h"));
    T(unlink("g"));
    T(flock(b, LOCK_EX | LOCK_NB));
    T(lock_range(a, F_SETLK, F_WRLCK, 0, 0));
    CHILD() { T(lock_range(b, F_SETLK, F_WRLCK, 0, 0)); }
    pt_make(t, "f", "");
    T(flock(OK(open("f", O_RDWR)), LOCK_EX | LOCK_NB)); /* another inode */
    close(a), close(b);
}

static void deadlock(struct pt *t) {
    struct pt_gate ready;
    pt_gate_init(t, &ready);
    pt_make(t, "f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    T(lock_range(fd, F_SETLK, F_WRLCK, 0, 1));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        int mine = open("f", O_RDWR);
        if (lock_range(mine, F_SETLK, F_WRLCK, 1, 1) < 0)
            pt_outcome(t, "child", -1);
        pt_gate_open(&ready);
        int got = lock_range(mine, F_SETLKW, F_WRLCK, 0, 1);
        (void)got; /* which of the two is refused is open */
        lock_range(mine, F_SETLK, F_UNLCK, 0, 0);
        _exit(got < 0 ? 10 : 0);
    }
    pt_gate_await(t, &ready);
    pt_await_sleep(pid);
    int got = lock_range(fd, F_SETLKW, F_WRLCK, 1, 1);
    int error = got < 0 ? errno : 0, status = 0;
    lock_range(fd, F_SETLK, F_UNLCK, 0, 0);
    waitpid(pid, &status, 0);
    SAY("one of them was refused: %d", (error == EDEADLK) != (WEXITSTATUS(status) == 10));
}

static void contended(struct pt *t) {
    /* A counter in a file, under a lock: no update is lost. */
    pid_t pids[3];
    pt_make(t, "f", "0");
    for (int i = 0; i < 3; i++)
        if ((pids[i] = pt_spawn(t)) == 0) {
            for (int k = 0; k < 60; k++) {
                char text[16] = "";
                int fd = open("f", O_RDWR);
                if (fd < 0 || posix_acquire(fd) < 0 || pread(fd, text, 15, 0) < 1)
                    pt_outcome(t, "round", -1);
                int n = snprintf(text, sizeof(text), "%d", atoi(text) + 1);
                if (pwrite(fd, text, (size_t)n, 0) != n || close(fd) < 0)
                    pt_outcome(t, "round", -1);
            }
            pt_end();
        }
    for (int i = 0; i < 3; i++)
        pt_reap(t, pids[i]);
    pt_look(t, "f");
}

const struct pt_case pt_lock_cases[] = {
    {"flock of two descriptions", flock_two, 0, 0},
    {"flock of directories and fifos", flock_others, 0, 0},
    {"flock is inherited", flock_inherited, 0, 0},
    {"flock waits", flock_waits, 0, 0},
    {"F_SETLKW waits", posix_waits, 0, 0},
    {"F_OFD_SETLKW waits", ofd_waits, 0, 0},
    {"lockf waits", lockf_waits, 0, 0},
    {"closing wakes a waiter", close_wakes, 0, 0},
    {"a signal interrupts flock", flock_interrupted, 0, 0},
    {"a signal interrupts F_SETLKW", posix_interrupted, 0, 0},
    {"a signal interrupts F_OFD_SETLKW", ofd_interrupted, 0, 0},
    {"fcntl locks between processes", posix_between, 0, 0},
    {"fcntl locks refused", posix_refused, 0, 0},
    {"fcntl locks within a process", posix_own, 0, 0},
    {"locks of a killed process", posix_exit, 0, 0},
    {"open-file-description locks", ofd, 0, 0},
    {"flock and fcntl do not meet", kinds_apart, 0, 0},
    {"locks by links and unlinked", by_links, 0, 0},
    {"a deadlock is refused", deadlock, 0, 0},
    {"a counter under contention", contended, 0, 0},
    {NULL, NULL, 0, NULL},
};
