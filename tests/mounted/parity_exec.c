/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: programs and scripts executed from the tree, ETXTBSY, executable mappings. */
#include "parity.h"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sendfile.h>
#include <sys/wait.h>

static void copy_program(struct pt *t, const char *from, const char *to) {
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    if (in < 0 || out < 0)
        pt_outcome(t, from, -1);
    while (sendfile(out, in, NULL, 1 << 20) > 0)
        continue;
    if (close(out) < 0)
        pt_outcome(t, to, -1);
    close(in);
}

/* Status of the program, or the errno of execve. */
static void run(struct pt *t, const char *name, const char *arg) {
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        char *const argv[] = {(char *)name, (char *)arg, NULL};
        char *const env[] = {"PATH=/usr/bin:/bin", NULL};
        execve(name, argv, env);
        pt_outcome(t, "execve", -1);
        _exit(127);
    }
    int status = -1;
    if (waitpid(pid, &status, 0) == pid && WIFEXITED(status))
        SAY("%s: exit %d", name, WEXITSTATUS(status));
    else
        SAY("%s: status %x", name, status);
}

static void programs(struct pt *t) {
    copy_program(t, "/bin/true", "true");
    copy_program(t, "/bin/false", "false");
    run(t, "./true", NULL);
    run(t, "./false", NULL);
    T(rename("true", "renamed"));
    run(t, "./renamed", NULL);
    run(t, "./true", NULL);
    T(chmod("false", 0644));
    run(t, "./false", NULL);
    T(chmod("false", 0111));
    run(t, "./false", NULL);
    T(symlink("renamed", "link"));
    run(t, "./link", NULL);
    pt_mkdir(t, "d", 0755);
    run(t, "./d", NULL);
    run(t, "./d/none", NULL);
    pt_make(t, "junk", "not a program");
    T(chmod("junk", 0755));
    run(t, "./junk", NULL);
    pt_make(t, "empty", "");
    T(chmod("empty", 0755));
    run(t, "./empty", NULL);
}

static void scripts(struct pt *t) {
    pt_make(t, "s", "#!/bin/sh\necho \"$1\" >out\nexit 7\n");
    T(chmod("s", 0755));
    run(t, "./s", "argument");
    pt_look(t, "out");
    pt_make(t, "nested", "#!./s\n");
    T(chmod("nested", 0755));
    run(t, "./nested", "x");
    pt_look(t, "out");
    pt_make(t, "lost", "#!/no/such/interpreter\n");
    T(chmod("lost", 0755));
    run(t, "./lost", NULL);
}

static void by_descriptor(struct pt *t) {
    copy_program(t, "/bin/true", "true");
    int fd = OK(open("true", O_RDONLY | O_CLOEXEC)), path = OK(open("true", O_PATH | O_CLOEXEC));
    char *const argv[] = {(char *)"true", NULL};
    T(unlink("true"));
    CHILD() { T(syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH)); }
    CHILD() { T(syscall(SYS_execveat, path, "", argv, NULL, AT_EMPTY_PATH)); }
    CHILD() { T(syscall(SYS_execveat, AT_FDCWD, "true", argv, NULL, 0)); }
    close(fd), close(path);
}

/* A copy of sleep that runs until its gate (stdin is not needed: it is killed). */
static pid_t start_sleep(struct pt *t, const char *name) {
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC) < 0)
        pt_outcome(t, "pipe", -1);
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        char *const argv[] = {(char *)"sleep", (char *)"1000", NULL};
        execve(name, argv, NULL);
        pt_outcome(t, "execve", -1);
        _exit(127);
    }
    close(ready[1]);
    T(read(ready[0], &byte, 1)); /* 0: execve closed the other end */
    close(ready[0]);
    return pid;
}

static void stop(struct pt *t, pid_t pid) {
    T(kill(pid, SIGKILL));
    waitpid(pid, NULL, 0);
}

static void busy_text(struct pt *t) {
    copy_program(t, "/bin/sleep", "sleep");
    pid_t pid = start_sleep(t, "./sleep");
    OK(open("sleep", O_WRONLY));
    OK(open("sleep", O_RDWR));
    OK(open("sleep", O_WRONLY | O_TRUNC));
    T(truncate("sleep", 0));
    OK(open("sleep", O_RDONLY) < 0 ? -1 : 0);
    T(access("sleep", W_OK));
    T(chmod("sleep", 0700));
    T(rename("sleep", "nap"));
    OK(open("nap", O_WRONLY));
    T(unlink("nap"));
    stop(t, pid);
}

static void busy_writer(struct pt *t) {
    copy_program(t, "/bin/true", "true");
    int fd = OK(open("true", O_WRONLY));
    run(t, "./true", NULL);
    close(fd);
    run(t, "./true", NULL);
    fd = OK(open("true", O_RDWR | O_APPEND));
    run(t, "./true", NULL);
    int ro = OK(open("true", O_RDONLY));
    close(fd);
    run(t, "./true", NULL);
    close(ro);
}

static void busy_mapping(struct pt *t) {
    copy_program(t, "/bin/true", "true");
    int fd = OK(open("true", O_RDWR));
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    OK(map == MAP_FAILED ? -1 : 0);
    run(t, "./true", NULL);
    munmap(map, 4096);
    run(t, "./true", NULL);
    close(fd);
    run(t, "./true", NULL);
}

static void busy_ends(struct pt *t) {
    copy_program(t, "/bin/sleep", "sleep");
    pid_t pid = start_sleep(t, "./sleep");
    OK(open("sleep", O_WRONLY));
    stop(t, pid);
    int fd = OK(open("sleep", O_WRONLY));
    close(fd);
    T(truncate("sleep", 10));
    pt_show(t, "sleep");
}

static void replaced_while_running(struct pt *t) {
    char target[4200], link[64];
    copy_program(t, "/bin/sleep", "sleep");
    pid_t pid = start_sleep(t, "./sleep");
    copy_program(t, "/bin/true", "new");
    T(rename("new", "sleep"));
    run(t, "./sleep", NULL);
    snprintf(link, sizeof(link), "/proc/%d/exe", pid);
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    target[n > 0 ? n : 0] = 0;
    SAY("exe is '%s'", strrchr(target, '/') ? strrchr(target, '/') : "");
    stop(t, pid);
}

static void program_own_path(struct pt *t) {
    copy_program(t, "/usr/bin/readlink", "readlink");
    pt_make(t, "s", "#!/bin/sh\nx=$(./readlink /proc/self/exe); test \"${x##*/}\" = readlink\n");
    T(chmod("s", 0755));
    run(t, "./s", NULL);
}

static int forty_two_marker(void) { return 42; }

static void executable_mapping(struct pt *t) {
#if defined(__x86_64__)
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax,42; ret */
#elif defined(__aarch64__)
    static const unsigned char code[] = {0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6};
#else
    SAY("no code for this machine, %d", forty_two_marker());
    return;
    static const unsigned char code[] = {0};
#endif
    int (*call)(void) = forty_two_marker;
    SAY("compiled: %d", call());
    int fd = OK(open("code", O_RDWR | O_CREAT, 0755));
    T(write(fd, code, sizeof(code)));
    close(fd);
    fd = OK(open("code", O_RDONLY));
    for (int shared = 0; shared < 2; shared++) {
        void *map =
            mmap(NULL, 4096, PROT_READ | PROT_EXEC, shared ? MAP_SHARED : MAP_PRIVATE, fd, 0);
        OK(map == MAP_FAILED ? -1 : 0);
        if (map != MAP_FAILED) {
            memcpy(&call, &map, sizeof(call));
            SAY("mapped: %d", call());
            munmap(map, 4096);
        }
    }
    close(fd);
}

static void as_ordinary(struct pt *t) {
    copy_program(t, "/bin/true", "true");
    static const mode_t modes[] = {0755, 0700, 0711, 0744, 0644, 0001, 0100, 0010};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        T(chmod("true", modes[i]));
        SAY("mode %o", modes[i]);
        run(t, "./true", NULL);
        AS(PT_U1, PT_U1, 0) run(t, "./true", NULL);
        AS(PT_U1, 0, 0) run(t, "./true", NULL);
        AS(PT_U1, PT_U1, PT_GROUP) run(t, "./true", NULL);
    }
}

static void set_id(struct pt *t) {
    copy_program(t, "/usr/bin/id", "id");
    pt_make(t, "s", "#!/bin/sh\n./id -u >out-u; ./id -g >out-g\n");
    T(chmod("s", 0755));
    T(chmod(".", 0777));
    static const mode_t modes[] = {0755, 04755, 02755, 06755, 02745};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_own(t, "id", PT_U2, PT_GROUP, modes[i]);
        pt_show(t, "id");
        AS(PT_U1, PT_U1, 0) run(t, "./s", NULL);
        pt_look(t, "out-u");
        pt_look(t, "out-g");
        T(unlink("out-u"));
        T(unlink("out-g"));
    }
}

const struct pt_case pt_exec_cases[] = {
    {"programs", programs, 0, 0},
    {"scripts", scripts, 0, 0},
    {"a program by its descriptor, unlinked", by_descriptor, 0, 0},
    {"a running program cannot be written", busy_text, 0, 0},
    {"a program open for writing cannot run", busy_writer, 0, 0},
    {"a program mapped for writing cannot run", busy_mapping, 0, 0},
    {"a program that ended can be written", busy_ends, 0, 0},
    {"a running program is replaced", replaced_while_running, 0, 0},
    {"a program finds its own path", program_own_path, 0, 0},
    {"executable mappings", executable_mapping, 0, 0},
    {"who may execute", as_ordinary, PT_ROOT, 0},
    {"set-user-id and set-group-id programs", set_id, PT_ROOT, 0},
    {NULL, NULL, 0, NULL},
};
