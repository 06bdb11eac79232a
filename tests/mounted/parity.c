/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs every parity case in a plain directory and in the mount and compares the transcripts.
 * Output is TAP. Owns: command line, transcripts, one process per run with a deadline, comparison,
 * cleaning up. The cases are in parity_*.c; what they are written with in parity_tools.c.
 */
#include "parity.h"

#include <fnmatch.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { LOG_BYTES = 1 << 20, DEADLINE_S = 60 };

/* A transcript, in memory shared with the processes of the case. */
struct pt_log {
    atomic_size_t used;
    char text[LOG_BYTES];
};

#define EXCEPT_MAX 16

struct options {
    const char *only;
    const char *except[EXCEPT_MAX];
    size_t except_count;
    const char *source;
    const char *native, *mount;
    uid_t uid;
    bool readonly, verbose, list;
};

static const struct {
    const char *name;
    const struct pt_case *cases;
} families[] = {
    {"stat", pt_stat_cases},       {"open", pt_open_cases},     {"openers", pt_openers_cases},
    {"io", pt_io_cases},           {"copy", pt_copy_cases},     {"space", pt_space_cases},
    {"mmap", pt_mmap_cases},       {"exec", pt_exec_cases},     {"name", pt_name_cases},
    {"rename", pt_rename_cases},   {"dir", pt_dir_cases},       {"attr", pt_attr_cases},
    {"time", pt_time_cases},       {"xattr", pt_xattr_cases},   {"acl", pt_acl_cases},
    {"lock", pt_lock_cases},       {"perm", pt_perm_cases},     {"setid", pt_setid_cases},
    {"special", pt_special_cases}, {"notify", pt_notify_cases}, {"error", pt_error_cases},
};

void pt_say(struct pt *t, const char *format, ...) {
    int saved = errno;
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    if (length < 0)
        return;
    if ((size_t)length > sizeof(line) - 2)
        length = sizeof(line) - 2;
    for (int i = 0; i < length; i++)
        if (line[i] == '\n')
            line[i] = '|';
    line[length++] = '\n';
    size_t at = atomic_fetch_add(&t->log->used, (size_t)length);
    if (at + (size_t)length < LOG_BYTES)
        memcpy(t->log->text + at, line, (size_t)length);
    errno = saved;
}

long long pt_value(struct pt *t, const char *what, long long value) {
    if (value == -1)
        pt_say(t, "%s = %s", what, errno ? strerrorname_np(errno) : "-1");
    else
        pt_say(t, "%s = %lld", what, value);
    return value;
}

int pt_outcome(struct pt *t, const char *what, long long value) {
    if (value == -1)
        pt_say(t, "%s = %s", what, errno ? strerrorname_np(errno) : "-1");
    else
        pt_say(t, "%s = ok", what);
    return (int)value;
}

/* By descriptors, since a case may make trees deeper than a path can be. */
static void remove_tree(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_tree(fd, e->d_name);
    if (dir)
        closedir(dir);
    (void)unlinkat(parent, name, AT_REMOVEDIR); /* what stays is seen at the top */
}

static int open_dirs(const char *path, mode_t mode, int *ret_fd) {
    if (mkdir(path, mode) < 0)
        return -errno;
    *ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

/* In the process of the run: never returns. */
static void run_in_child(struct pt *t, const struct pt_case *this, const struct options *o) {
    setpgid(0, 0);
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* only tidiness */
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGBUS, SIG_DFL); /* cases want it; a sanitizer would catch it */
    if (chdir(t->base) < 0) {
        pt_outcome(t, "chdir", -1);
        _exit(98);
    }
    if (o->uid && geteuid() == 0 && pt_become(o->uid, o->uid, PT_GROUP) < 0) {
        pt_say(t, "cannot become user %u", o->uid);
        _exit(97);
    }
    this->run(t);
    _exit(0);
}

/* Waits for the run's end, kills it after the deadline. Returns false when it does not even die. */
static bool await_run(struct pt *t, pid_t pid) {
    for (long waited_us = 0, pause_us = 100;; waited_us += pause_us) {
        int status;
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid || got < 0) {
            if (got == pid && WIFSIGNALED(status))
                pt_say(t, "the case was killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
            else if (got == pid && WEXITSTATUS(status))
                pt_say(t, "the case ended with status %d", WEXITSTATUS(status));
            return true;
        }
        if (waited_us > DEADLINE_S * 1000000L) {
            if (waited_us <= DEADLINE_S * 1000000L + pause_us)
                pt_say(t, "the case did not end within %d s", DEADLINE_S);
            kill(-pid, SIGKILL);
            if (waited_us > (DEADLINE_S + 20) * 1000000L)
                return false;
        }
        usleep((useconds_t)pause_us);
        if (pause_us < 2000)
            pause_us += pause_us / 4;
    }
}

static bool run_once(const struct pt_case *this, const struct options *o, bool mount, int number,
                     struct pt_log *log) {
    char base[PATH_MAX], source[PATH_MAX], other[PATH_MAX];
    const char *root = mount ? o->mount : o->native;
    struct pt t = {
        .base = o->readonly ? root : base, .source = -1, .other = -1, .arg = this->arg, .log = log};
    t.uid = geteuid() == 0 ? o->uid : geteuid();
    atomic_store(&log->used, 0);
    memset(log->text, 0, 65536);
    snprintf(base, sizeof(base), "%s/case-%d", root, number);
    snprintf(other, sizeof(other), "%s/other-%d", o->native, number);
    snprintf(source, sizeof(source), "%s/case-%d", mount && o->source ? o->source : root, number);

    if (!o->readonly) {
        int fd, error = open_dirs(base, 0755, &fd);
        if (!error)
            close(fd), error = open_dirs(other, 0755, &t.other);
        if (!error && o->uid &&
            (chown(base, o->uid, o->uid) < 0 || fchown(t.other, o->uid, o->uid)))
            error = -errno;
        if (!error && (o->source || !mount))
            t.source = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (error)
            pt_say(&t, "cannot prepare %s: %s", mount ? "the mount" : "the native directory",
                   strerrorname_np(-error));
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_in_child(&t, this, o);
    bool ended = pid > 0 && await_run(&t, pid);
    if (t.other >= 0)
        close(t.other);
    if (t.source >= 0)
        close(t.source);
    if (!o->readonly) {
        remove_tree(AT_FDCWD, base);
        remove_tree(AT_FDCWD, other);
        if (access(base, F_OK) == 0)
            pt_say(&t, "the case's directory cannot be removed");
    }
    size_t used = atomic_load(&log->used);
    log->text[used < LOG_BYTES ? used : LOG_BYTES - 1] = 0;
    return ended;
}

static void print_line(const char *mark, const char *text) {
    const char *shown = *text ? text : "(nothing more)";

    printf("#   %s ", mark);
    fwrite(shown, 1, strcspn(shown, "\n"), stdout);
    putchar('\n');
}

static const char *next_line(const char *text) {
    text += strcspn(text, "\n");
    return *text ? text + 1 : text;
}

/* Two lines of context, then the lines that differ, at most eight of each. */
static void print_difference(const char *native, const char *mount) {
    const char *context[2] = {NULL, NULL};
    while (*native && *mount) {
        size_t length = strcspn(native, "\n");
        if (length != strcspn(mount, "\n") || memcmp(native, mount, length) != 0)
            break;
        context[0] = context[1];
        context[1] = native;
        native = next_line(native);
        mount = next_line(mount);
    }
    for (int i = 0; i < 2; i++)
        if (context[i])
            print_line("both  ", context[i]);
    for (int shown = 0; shown < 8 && (*native || *mount); shown++) {
        size_t length = strcspn(native, "\n");
        if (length == strcspn(mount, "\n") && memcmp(native, mount, length) == 0) {
            print_line("both  ", native);
        } else {
            print_line("native", native);
            print_line("mount ", mount);
        }
        native = next_line(native);
        mount = next_line(mount);
    }
}

static bool is_left_out(const char *name, const struct options *o) {
    for (size_t i = 0; i < o->except_count; i++)
        if (!fnmatch(o->except[i], name, 0))
            return true;
    return o->only && fnmatch(o->only, name, 0) != 0;
}

static bool applies(const struct pt_case *this, const struct options *o) {
    bool root = geteuid() == 0 && o->uid == 0;
    if ((this->who & PT_ROOT) && !root)
        return false;
    if ((this->who & PT_USER) && root)
        return false;
    return !(this->who & PT_SOURCE) || o->source;
}

static int run_family(const char *family, const struct pt_case *cases, const struct options *o,
                      struct pt_log *logs[2], int *number) {
    int failed = 0;
    for (const struct pt_case *this = cases; this->name; this ++) {
        char name[256];
        snprintf(name, sizeof(name), "%s: %s", family, this->name);
        if (!applies(this, o) || is_left_out(name, o))
            continue;
        ++*number;
        if (o->list) {
            printf("%s\n", name);
            continue;
        }
        bool ended = run_once(this, o, false, *number, logs[0]);
        ended = run_once(this, o, true, *number, logs[1]) && ended;
        bool same =
            ended && strcmp(logs[0]->text, logs[1]->text) == 0 && atomic_load(&logs[0]->used) > 0;
        printf("%s %d - %s\n", same ? "ok" : "not ok", *number, name);
        if (!same)
            print_difference(logs[0]->text, logs[1]->text);
        if (o->verbose)
            for (const char *line = logs[0]->text; *line; line = next_line(line))
                print_line("native", line);
        fflush(stdout);
        failed += !same;
    }
    return failed;
}

static void usage(FILE *to) {
    fprintf(to, "usage: parity [--user UID] [--source DIR] [--only PATTERN] [--except PATTERN]... "
                "[--list] [--verbose]\n"
                "              NATIVE_DIR MOUNT_DIR\n"
                "       parity --readonly NATIVE_RO MOUNT_RO\n"
                "       parity --prepare-readonly DIR\n");
}

static int parse(int argc, char **argv, struct options *o) {
    static const struct option long_options[] = {
        {"user", required_argument, NULL, 'u'}, {"source", required_argument, NULL, 's'},
        {"only", required_argument, NULL, 'o'}, {"except", required_argument, NULL, 'e'},
        {"readonly", no_argument, NULL, 'r'},   {"verbose", no_argument, NULL, 'v'},
        {"list", no_argument, NULL, 'l'},       {"prepare-readonly", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    bool prepare = false;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (option == 'u')
            o->uid = (uid_t)strtoul(optarg, NULL, 10);
        else if (option == 's')
            o->source = optarg;
        else if (option == 'o')
            o->only = optarg;
        else if (option == 'e' && o->except_count < EXCEPT_MAX)
            o->except[o->except_count++] = optarg;
        else if (option == 'r')
            o->readonly = true;
        else if (option == 'v')
            o->verbose = true;
        else if (option == 'l')
            o->list = true;
        else if (option == 'p')
            prepare = true;
        else
            return usage(option == 'h' ? stdout : stderr), option == 'h' ? 1 : 2;
    }
    if (optind + (prepare ? 1 : 2) != argc)
        return usage(stderr), 2;
    if (prepare) {
        int error = pt_readonly_prepare(argv[optind]);
        if (error)
            fprintf(stderr, "parity: %s: %s\n", argv[optind], strerror(-error));
        return error ? 2 : 1;
    }
    o->native = argv[optind];
    o->mount = argv[optind + 1];
    return 0;
}

int main(int argc, char **argv) {
    struct options o = {0};
    int stop = parse(argc, argv, &o);
    if (stop)
        return stop - 1;
    char native[PATH_MAX], mount[PATH_MAX], source[PATH_MAX];
    if (!realpath(o.native, native) || !realpath(o.mount, mount) ||
        (o.source && !realpath(o.source, source))) {
        fprintf(stderr, "parity: no such directory: %s\n", strerror(errno));
        return 2;
    }
    o.native = native;
    o.mount = mount;
    o.source = o.source ? source : NULL;

    struct pt_log *logs[2];
    for (int i = 0; i < 2; i++) {
        logs[i] = mmap(NULL, sizeof(struct pt_log), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (logs[i] == MAP_FAILED)
            return 2;
    }
    umask(022);
    int number = 0, failed = 0;
    if (o.readonly)
        failed = run_family("readonly", pt_readonly_cases, &o, logs, &number);
    for (size_t i = 0; !o.readonly && i < sizeof(families) / sizeof(*families); i++)
        failed += run_family(families[i].name, families[i].cases, &o, logs, &number);
    if (!o.list)
        printf("1..%d\n", number);
    return failed || number == 0;
}
