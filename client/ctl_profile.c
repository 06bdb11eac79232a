/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns `stagectl profile`: what a build touches is recorded to a file, and staged from one.
 *
 * The mount records; the file is this program's, with the rights of whoever runs it. A word without
 * a slash names one that is kept in the mount's stage_dir, where it has one and the caller is its
 * owner; else a file of the current folder. What a
 * recording had before is kept in it for a while, so that what a build asks for one time and not
 * the next is there the time after that.
 */
#include "client/ctl.h"

#include "client/protocol.h"
#include "util/cleanup.h"
#include "util/profile.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#define STAGE_MARKER "stagefs-stage" /* of each stage directory, as of cache/disk.c */
#define STATUS_SIGNAL 128            /* plus its number, as shells have it */
#define STATUS_NO_COMMAND 127
#define START_PAUSE_NS 5000000
#define START_MAX_NS INT64_C(30000000000)

extern char **environ;

/* ---- the file ---- */

static int told(const char *path, int error) {
    stg_ctl_error("%s: %s", path, strerror(-error));
    return STG_CTL_FAILED;
}

/* Adds what the file has. Returns 0, or -errno after saying what is wrong. */
static int read_profile(const char *path, struct stg_profile *profile) {
    size_t line = 0;
    int error = stg_profile_read(profile, path, &line);

    if (error == -EINVAL && line)
        stg_ctl_error("%s: line %zu is none of a profile: give a file that stagectl profile record "
                      "has written",
                      path, line);
    else if (error)
        (void)told(path, error);
    return error;
}

/* Adds what the file that is to be written has by now; one that is not there, or empty, nothing. */
static int read_before(const char *path, struct stg_profile *profile) {
    struct stat info;

    if (stat(path, &info) ? errno == ENOENT : S_ISREG(info.st_mode) && !info.st_size)
        return 0;
    return read_profile(path, profile);
}

/* Is the folder ours alone to write into? */
static bool is_ours(const char *path) {
    stg_auto_fd int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat info;

    return fd >= 0 && !fstat(fd, &info) && info.st_uid == geteuid() && !(info.st_mode & 022);
}

/* Does the mount say the truth of that? A daemon of anybody's can name any folder. */
static bool is_stage_dir(const char *path) {
    char marker[PATH_MAX];

    return *path == '/' &&
           snprintf(marker, sizeof(marker), "%s/" STAGE_MARKER, path) < (int)sizeof(marker) &&
           !access(marker, F_OK);
}

/*
 * The folder of the profiles in the stage_dir of the mount; it need not be there. False where there
 * is none that is ours: root does not write where another user may have put something.
 */
static bool find_kept(int fd, char path[PATH_MAX]) {
    char dir[PATH_MAX];
    ssize_t bytes = fgetxattr(fd, "user.stagefs.stage_dir", dir, sizeof(dir) - 1);

    if (bytes <= 0)
        return false;
    dir[bytes] = '\0';
    return is_ours(dir) && is_stage_dir(dir) &&
           snprintf(path, PATH_MAX, "%s/" STAGEFS_PROFILES, dir) < PATH_MAX &&
           (access(path, F_OK) || is_ours(path));
}

/* The same, told. 0, or STG_CTL_FAILED. */
static int need_kept(int fd, const char *mount, char path[PATH_MAX]) {
    if (find_kept(fd, path))
        return 0;
    stg_ctl_error("%s: no stage_dir that is yours: profiles are in files of their own", mount);
    return STG_CTL_FAILED;
}

static int join(const char *folder, const char *name, char path[PATH_MAX]) {
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX ? 0
                                                                      : told(name, -ENAMETOOLONG);
}

static int make_folder(const char *path) {
    return mkdir(path, 0700) && errno != EEXIST ? told(path, -errno) : 0;
}

/*
 * The file that the word means on the mount whose folder `fd` is: one of the profiles in its
 * stage_dir, whose folder is made, or a file. 0, or an error, told.
 */
static int locate(int fd, const char *word, char path[PATH_MAX]) {
    char folder[PATH_MAX];

    if (stg_profile_is_name(word) && find_kept(fd, folder))
        return make_folder(folder) || join(folder, word, path) ? STG_CTL_FAILED : 0;
    return snprintf(path, PATH_MAX, "%s", word) < PATH_MAX ? 0 : told(word, -ENAMETOOLONG);
}

/* The same of one that is there: a file where there is no profile of that name. */
static int find(int fd, const char *word, char path[PATH_MAX]) {
    char folder[PATH_MAX];

    if (stg_profile_is_name(word) && find_kept(fd, folder) && !join(folder, word, path) &&
        (!access(path, F_OK) || access(word, F_OK)))
        return 0;
    return snprintf(path, PATH_MAX, "%s", word) < PATH_MAX ? 0 : told(word, -ENAMETOOLONG);
}

/* The file that is to be written, without symbolic links: one is not replaced by a file. */
static int make_absolute(const char *path, char whole[PATH_MAX]) {
    stg_auto_free char *found = realpath(path, NULL);
    stg_auto_free char *folder = NULL;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    stg_auto_free char *above = strndup(path, (size_t)(name - path));
    int bytes;

    if (!found) {
        folder = above ? realpath(*above ? above : ".", NULL) : NULL;
        if (!folder || !*name)
            return folder ? -EISDIR : -errno;
    }
    bytes = found ? snprintf(whole, PATH_MAX, "%s", found)
                  : snprintf(whole, PATH_MAX, "%s/%s", folder, name);
    return bytes < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Can it be written, at the end? Returns 0, or an error, told. */
static int check_place(const char *path, char whole[PATH_MAX]) {
    stg_auto_free char *folder = NULL;
    int error = make_absolute(path, whole);

    if (!error && !(folder = strndup(whole, (size_t)(strrchr(whole, '/') - whole) + 1)))
        error = -ENOMEM;
    if (!error && access(folder, W_OK | X_OK))
        error = -errno;
    return error ? told(path, error) : 0;
}

/* The same; and what it has must be a profile. */
static int check_file(const char *path, char whole[PATH_MAX]) {
    struct stg_profile before = STG_PROFILE_NONE;
    int error = check_place(path, whole);

    if (!error)
        error = read_before(whole, &before);
    stg_profile_fini(&before);
    return error ? STG_CTL_FAILED : 0;
}

/* The new file is whose the old one was, as far as that is allowed, and may do what that might. */
static int take_after(int fd, const char *path) {
    struct stat info;
    mode_t mask = umask(0);

    (void)umask(mask);
    if (stat(path, &info))
        return fchmod(fd, 0666 & ~mask);
    (void)!fchown(fd, info.st_uid, info.st_gid); /* or it is ours */
    return fchmod(fd, info.st_mode & 0777);
}

/* Beside the file, and then in its place: whoever reads it sees the one or the other. */
static int replace(const char *path, const struct stg_profile *profile) {
    char name[PATH_MAX + sizeof(".XXXXXX")];
    FILE *stream;
    int error;
    int fd;

    (void)snprintf(name, sizeof(name), "%s.XXXXXX", path); /* fits */
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    stream = fdopen(fd, "w");
    if (!stream) {
        stg_fd_close(fd);
        (void)unlink(name);
        return -ENOMEM;
    }
    stg_profile_write(profile, stream);
    error = ferror(stream) || fflush(stream) || take_after(fd, path) || fsync(fd) ? -errno : 0;
    if (fclose(stream) && !error)
        error = -errno;
    if (!error && rename(name, path))
        error = -errno;
    if (error)
        (void)unlink(name);
    return error;
}

/* ---- the mount ---- */

/* `recording`: its number, 0 for whichever there is; see protocol.h. The answer is in `request`. */
static int ask_record(int fd, uint64_t recording, uint32_t what, uint64_t offset,
                      struct stagefs_record_request *request) {
    *request = (struct stagefs_record_request){.version = STAGEFS_PROTOCOL_VERSION,
                                               .what = what,
                                               .recording = recording,
                                               .offset = offset};
    return stg_ctl_ask(fd, STAGEFS_IOC_RECORD, request);
}

static int fetch(int fd, uint64_t recording, struct stg_profile *profile) {
    struct stagefs_record_request request;
    stg_auto_free char *text = NULL;
    size_t used = 0;
    size_t line;
    int error = ask_record(fd, recording, STAGEFS_RECORD_READ, 0, &request);
    size_t whole = request.text_bytes;

    if (!error && whole > STG_PROFILE_TEXT_MAX_BYTES)
        error = -EFBIG;
    if (!error && !(text = malloc(whole + 1)))
        error = -ENOMEM;
    while (!error && used < whole) {
        /* Whoever answers is not to be trusted with our memory. */
        if (!request.text_used || request.text_used > sizeof(request.text) ||
            request.text_used > whole - used)
            return -EPROTO;
        memcpy(text + used, request.text, request.text_used);
        used += request.text_used;
        if (used < whole)
            error = ask_record(fd, recording, STAGEFS_RECORD_READ, used, &request);
    }
    if (!error && request.left_out)
        stg_ctl_error("%ju files and folders were left out: a profile holds %d",
                      (uintmax_t)request.left_out, STG_PROFILE_ENTRIES_MAX);
    return error ? error : stg_profile_parse(profile, text, whole, false, &line);
}

/*
 * Stops the recording and writes what came of it; `whole` as of stg_profile_merge(). It is kept in
 * the mount until it is written. Returns an enum stg_ctl_status.
 */
static int finish(int fd, const char *mount, uint64_t recording, const char *path, bool whole) {
    struct stagefs_record_request request;
    struct stg_profile before = STG_PROFILE_NONE;
    struct stg_profile recorded = STG_PROFILE_NONE;
    struct stg_profile merged = STG_PROFILE_NONE;
    int error = ask_record(fd, recording, STAGEFS_RECORD_STOP, 0, &request);
    int status = STG_CTL_FAILED;

    recording = request.recording;
    if (!error)
        error = fetch(fd, recording, &recorded);
    if (error) {
        if (error == -ENOENT)
            stg_ctl_error("%s: nothing is being recorded: begin with stagectl profile record",
                          mount);
        else
            (void)stg_ctl_failed(mount, -error);
    } else if (!read_before(path, &before)) {
        error = stg_profile_merge(&before, &recorded, whole, &merged);
        if (!error)
            error = replace(path, &merged);
        status = error ? told(path, error) : STG_CTL_OK;
    }
    if (status == STG_CTL_OK) {
        /* On stderr: what is on stdout is the command's. */
        stg_ctl_error("%zu files and folders recorded, %zu in %s", recorded.count, merged.count,
                      path);
        (void)ask_record(fd, recording, STAGEFS_RECORD_DROP, 0, &request); /* or the next does */
    } else if (recorded.count) {
        stg_ctl_error("the recording is kept: stagectl profile stop FILE writes it elsewhere");
    }
    stg_profile_fini(&before);
    stg_profile_fini(&recorded);
    stg_profile_fini(&merged);
    return status;
}

/* Begins a recording, and waits until it runs. Returns 0, or an enum stg_ctl_status, told. */
static int start(int fd, const char *mount, uint64_t *ret_recording) {
    const struct timespec pause = {.tv_nsec = START_PAUSE_NS};
    struct stagefs_record_request request;
    int error = ask_record(fd, 0, STAGEFS_RECORD_START, 0, &request);

    *ret_recording = request.recording;
    for (int64_t waited_ns = 0; !error && request.state == STAGEFS_RECORD_STARTING;
         waited_ns += START_PAUSE_NS) {
        if (waited_ns > START_MAX_NS) {
            (void)ask_record(fd, *ret_recording, STAGEFS_RECORD_DROP, 0, &request);
            error = -ETIMEDOUT;
            break;
        }
        (void)nanosleep(&pause, NULL); /* shorter where a signal comes */
        error = ask_record(fd, *ret_recording, STAGEFS_RECORD_ASK, 0, &request);
    }
    if (error == -EBUSY)
        stg_ctl_error("%s: a recording is going on: end it with stagectl profile stop FILE", mount);
    else if (error)
        (void)stg_ctl_failed(mount, -error);
    return error ? STG_CTL_FAILED : 0;
}

/* ---- the commands ---- */

/* Waits for the child. Returns its exit status, as a shell has it. */
static int wait_for(pid_t child) {
    int status;
    pid_t waited;

    do {
        waited = waitpid(child, &status, 0);
    } while (waited < 0 && errno == EINTR);
    if (waited < 0)
        return STG_CTL_FAILED;
    return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
}

/*
 * Runs the command; its exit status is in `*ret_status`. Returns 0, or an error where it could not
 * be started. What the terminal sends is for the command: we have work to do after it.
 */
static int run(char **command, int *ret_status) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction interrupt, quit;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    pid_t child;
    int error;

    (void)signal(SIGCHLD, SIG_DFL); /* where it was ignored there would be nothing to wait for */
    (void)sigaction(SIGINT, &ignore, &interrupt); /* these cannot fail with valid arguments */
    (void)sigaction(SIGQUIT, &ignore, &quit);
    (void)sigemptyset(&defaults);
    if (interrupt.sa_handler != SIG_IGN)
        (void)sigaddset(&defaults, SIGINT);
    if (quit.sa_handler != SIG_IGN)
        (void)sigaddset(&defaults, SIGQUIT);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setsigdefault(&attributes, &defaults);
    error = posix_spawnp(&child, *command, NULL, &attributes, command, environ);
    (void)posix_spawnattr_destroy(&attributes);
    *ret_status = error ? STATUS_NO_COMMAND : wait_for(child);
    (void)sigaction(SIGINT, &interrupt, NULL);
    (void)sigaction(SIGQUIT, &quit, NULL);
    if (error)
        stg_ctl_error("%s: %s", *command, strerror(error));
    return error;
}

static int record(const struct stg_ctl *ctl) {
    struct stagefs_record_request request;
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    char word[PATH_MAX];
    char path[PATH_MAX];
    uint64_t recording;
    int status;

    if (ctl->count < 4)
        return stg_ctl_misused("profile record: give the file to write, or a name, the mount, and "
                               "after -- what to run");
    fd = stg_ctl_open_mount(ctl->words[2], &name);
    if (fd < 0 || locate(fd, ctl->words[1], word) || check_file(word, path) ||
        start(fd, name, &recording))
        return STG_CTL_FAILED;
    if (run(ctl->words + 3, &status)) {
        (void)ask_record(fd, recording, STAGEFS_RECORD_DROP, 0, &request); /* it is empty */
        return status;
    }
    if (finish(fd, name, recording, path, !status) && !status)
        status = STG_CTL_FAILED;
    return status;
}

static int start_alone(const struct stg_ctl *ctl) {
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    uint64_t recording;

    if (ctl->count > 2)
        return stg_ctl_misused("profile start: give one mount");
    fd = stg_ctl_open_mount(ctl->count > 1 ? ctl->words[1] : NULL, &name);
    return fd < 0 || start(fd, name, &recording) ? STG_CTL_FAILED : STG_CTL_OK;
}

static int stop(const struct stg_ctl *ctl) {
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    char word[PATH_MAX];
    char path[PATH_MAX];

    if (ctl->count < 2 || ctl->count > 3)
        return stg_ctl_misused("profile stop: give the file to write, or a name, and the mount");
    fd = stg_ctl_open_mount(ctl->count > 2 ? ctl->words[2] : NULL, &name);
    if (fd < 0 || locate(fd, ctl->words[1], word) || check_file(word, path))
        return STG_CTL_FAILED;
    return finish(fd, name, 0, path, true);
}

/* As many whole lines as one request takes, from `*at` on. */
static uint32_t fill(const struct stg_profile *profile, size_t *at, char text[STAGEFS_TEXT_BYTES]) {
    uint32_t used = 0;

    while (*at < profile->count) {
        stg_auto_free char *line = NULL;
        size_t bytes = 0;
        FILE *stream = open_memstream(&line, &bytes);

        if (stream)
            stg_profile_write_entry(&profile->entries[*at], stream);
        if (!stream || fclose(stream) || used + bytes > STAGEFS_TEXT_BYTES)
            break;
        memcpy(text + used, line, bytes);
        used += (uint32_t)bytes;
        (*at)++;
    }
    return used;
}

static int send_profile(int fd, const struct stg_profile *profile) {
    size_t at = 0;
    bool is_first = true;
    int error = 0;

    while (!error && (is_first || at < profile->count)) {
        struct stagefs_replay_request request = {.version = STAGEFS_PROTOCOL_VERSION,
                                                 .flags = is_first ? STAGEFS_REPLAY_ANEW : 0};

        request.text_used = fill(profile, &at, request.text);
        if (!request.text_used && profile->count)
            return -ENOMEM;
        error = stg_ctl_ask(fd, STAGEFS_IOC_REPLAY, &request);
        is_first = false;
    }
    return error;
}

static int replay(const struct stg_ctl *ctl) {
    struct stg_profile profile = STG_PROFILE_NONE;
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    char path[PATH_MAX];
    int error;

    if (ctl->count < 2 || ctl->count > 3)
        return stg_ctl_misused("profile replay: give the file or name, and the mount");
    fd = stg_ctl_open_mount(ctl->count > 2 ? ctl->words[2] : NULL, &name);
    if (fd < 0 || find(fd, ctl->words[1], path))
        return STG_CTL_FAILED;
    error = read_profile(path, &profile) ? -ECANCELED : send_profile(fd, &profile);
    if (error == -EOPNOTSUPP)
        stg_ctl_error("%s: the mount follows no profiles: mount with staging, and with profiles in "
                      "predict=",
                      name);
    else if (error && error != -ECANCELED)
        (void)stg_ctl_failed(name, -error);
    stg_profile_fini(&profile);
    return error ? STG_CTL_FAILED : STG_CTL_OK;
}

/* From a name to a file, or from a file to a name, replacing what is there. */
static int copy(const struct stg_ctl *ctl, bool exports) {
    const char *name = ctl->count > 2 ? ctl->words[exports ? 1 : 2] : "";
    const char *file = ctl->count > 2 ? ctl->words[exports ? 2 : 1] : "";
    struct stg_profile profile = STG_PROFILE_NONE;
    stg_auto_free char *mount = NULL;
    stg_auto_fd int fd = -1;
    char folder[PATH_MAX];
    char kept[PATH_MAX];
    char path[PATH_MAX];
    int error;

    if (ctl->count < 3 || ctl->count > 4 || !stg_profile_is_name(name))
        return exports ? stg_ctl_misused("profile export: give the name, the file, and the mount")
                       : stg_ctl_misused("profile import: give the file, the name, and the mount");
    fd = stg_ctl_open_mount(ctl->count > 3 ? ctl->words[3] : NULL, &mount);
    if (fd < 0 || need_kept(fd, mount, folder) || join(folder, name, kept) ||
        (!exports && make_folder(folder)) ||
        (exports ? check_file(file, path) : check_place(kept, path)) ||
        read_profile(exports ? kept : file, &profile))
        return STG_CTL_FAILED;
    error = replace(path, &profile);
    stg_profile_fini(&profile);
    return error ? told(path, error) : STG_CTL_OK;
}

/* The names, one a line, in order. */
static int list(const struct stg_ctl *ctl) {
    stg_auto_free char *mount = NULL;
    stg_auto_fd int fd = -1;
    struct dirent **entries;
    char path[PATH_MAX];
    int count;

    if (ctl->count > 2)
        return stg_ctl_misused("profile list: give one mount");
    fd = stg_ctl_open_mount(ctl->count > 1 ? ctl->words[1] : NULL, &mount);
    if (fd < 0 || need_kept(fd, mount, path))
        return STG_CTL_FAILED;
    count = scandir(path, &entries, NULL, alphasort);
    if (count < 0)
        return errno == ENOENT ? STG_CTL_OK : told(path, -errno);
    for (int i = 0; i < count; i++) {
        if (stg_profile_is_name(entries[i]->d_name))
            (void)printf("%s\n", entries[i]->d_name); /* an error shows at the end */
        free(entries[i]);
    }
    free(entries);
    return STG_CTL_OK;
}

int stg_ctl_profile(const struct stg_ctl *ctl) {
    const char *word = ctl->count ? ctl->words[0] : "";

    if (!strcmp(word, "record"))
        return record(ctl);
    if (!strcmp(word, "start"))
        return start_alone(ctl);
    if (!strcmp(word, "stop"))
        return stop(ctl);
    if (!strcmp(word, "replay"))
        return replay(ctl);
    if (!strcmp(word, "export") || !strcmp(word, "import"))
        return copy(ctl, *word == 'e');
    if (!strcmp(word, "list"))
        return list(ctl);
    return stg_ctl_misused("profile: write record, start, stop, replay, export, import or list");
}
