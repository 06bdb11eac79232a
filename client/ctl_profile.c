/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns `stagectl profile`: what a build touches is recorded to a file, and staged from one.
 *
 * The mount records; the file is this program's, with the rights of whoever runs it. What a
 * recording had before is kept in it for a while, so that what a build asks for one time and not
 * the next is there the time after that.
 */
#include "client/ctl.h"

#include "client/protocol.h"
#include "util/cleanup.h"
#include "util/profile.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define STATUS_SIGNAL 128 /* plus its number, as shells have it */
#define STATUS_NO_COMMAND 127

extern char **environ;

/* ---- the file ---- */

/* Adds what the file has. Returns 0, or -errno after saying what is wrong. */
static int read_profile(const char *path, struct stg_profile *profile) {
    size_t line = 0;
    int error = stg_profile_read(profile, path, &line);

    if (error == -EINVAL && line)
        stg_ctl_error("%s: line %zu is none of a profile: give a file that stagectl profile record "
                      "has written",
                      path, line);
    else if (error)
        (void)stg_ctl_failed(path, -error);
    return error;
}

/* The file that is to be written, wherever this program or the next one stands. */
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

/* What new files may be, and what this one is where it is there. */
static mode_t mode_for(const char *path) {
    struct stat info;
    mode_t mask;

    if (!stat(path, &info))
        return info.st_mode & 0777;
    mask = umask(0);
    (void)umask(mask);
    return 0666 & ~mask;
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
    error =
        ferror(stream) || fflush(stream) || fchmod(fd, mode_for(path)) || fsync(fd) ? -errno : 0;
    if (fclose(stream) && !error)
        error = -errno;
    if (!error && rename(name, path))
        error = -errno;
    if (error)
        (void)unlink(name);
    return error;
}

/* ---- the mount ---- */

static int ask_record(int fd, struct stagefs_record_request *request, uint32_t what) {
    request->version = STAGEFS_PROTOCOL_VERSION;
    request->what = what;
    return stg_ctl_ask(fd, STAGEFS_IOC_RECORD, request);
}

static int fetch(int fd, struct stg_profile *profile) {
    struct stagefs_record_request request = {0};
    stg_auto_free char *text = NULL;
    size_t used = 0;
    size_t line;
    int error = ask_record(fd, &request, STAGEFS_RECORD_ASK);
    size_t whole = request.text_bytes;

    if (!error && (whole > STG_PROFILE_TEXT_MAX_BYTES || !(text = malloc(whole + 1))))
        error = -ENOMEM;
    while (!error && used < whole) {
        request = (struct stagefs_record_request){.offset = used};
        error = ask_record(fd, &request, STAGEFS_RECORD_READ);
        if (!error && (!request.text_used || request.text_used > whole - used))
            error = -EIO; /* another recording has begun */
        if (!error)
            memcpy(text + used, request.text, request.text_used);
        used += error ? 0 : request.text_used;
    }
    if (!error && request.left_out)
        stg_ctl_error("%ju files and folders were left out: a profile holds %d",
                      (uintmax_t)request.left_out, STG_PROFILE_ENTRIES_MAX);
    return error ? error : stg_profile_parse(profile, text, whole, false, &line);
}

/* Stops the recording and writes what came of it; `whole` as of stg_profile_merge(). */
static int finish(int fd, const char *mount, const char *path, bool whole) {
    struct stagefs_record_request request = {0};
    struct stg_profile before = STG_PROFILE_NONE;
    struct stg_profile recorded = STG_PROFILE_NONE;
    struct stg_profile merged = STG_PROFILE_NONE;
    const char *about = mount;
    int error = ask_record(fd, &request, STAGEFS_RECORD_STOP);
    int status = STG_CTL_FAILED;

    if (!error)
        error = fetch(fd, &recorded);
    if (!error && !access(path, F_OK)) {
        if (read_profile(path, &before))
            goto done;
    }
    if (!error)
        error = stg_profile_merge(&before, &recorded, whole, &merged);
    if (!error) {
        about = path;
        error = replace(path, &merged);
    }
    if (error)
        (void)stg_ctl_failed(about, -error);
    else
        status = STG_CTL_OK;
    if (!error)
        printf("%zu files and folders recorded, %zu in %s\n", recorded.count, merged.count, path);
done:
    stg_profile_fini(&before);
    stg_profile_fini(&recorded);
    stg_profile_fini(&merged);
    return status;
}

/* ---- the commands ---- */

static void pause_a_little(void) {
    const struct timespec pause = {.tv_nsec = 5000000};

    (void)nanosleep(&pause, NULL); /* shorter where a signal comes */
}

static int start(int fd, const char *path) {
    struct stagefs_record_request request = {0};
    int error;

    (void)snprintf(request.text, sizeof(request.text), "%s", path); /* fits: PATH_MAX is less */
    error = ask_record(fd, &request, STAGEFS_RECORD_START);
    while (!error && request.state == STAGEFS_RECORD_STARTING) {
        pause_a_little();
        request = (struct stagefs_record_request){0};
        error = ask_record(fd, &request, STAGEFS_RECORD_ASK);
    }
    return error;
}

/* The command's exit status. What the terminal sends is for the command: we have work to do. */
static int run(char **command) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction interrupt, quit;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    pid_t child;
    int status = 0;
    int error;

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
    if (error) {
        stg_ctl_error("%s: %s", *command, strerror(error));
        status = STATUS_NO_COMMAND;
    } else {
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        status = WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
    }
    (void)sigaction(SIGINT, &interrupt, NULL);
    (void)sigaction(SIGQUIT, &quit, NULL);
    return status;
}

static int record(const struct stg_ctl *ctl) {
    struct stg_profile before = STG_PROFILE_NONE;
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    char path[PATH_MAX];
    int status = STG_CTL_OK;
    int error;

    if (ctl->count < 2)
        return stg_ctl_misused("profile record: give the file to write, the mount, and after -- "
                               "what to run");
    error = make_absolute(ctl->words[1], path);
    if (error)
        return stg_ctl_failed(ctl->words[1], -error);
    if (!access(path, F_OK)) { /* a file that is none is not to be found out at the end */
        error = read_profile(path, &before);
        stg_profile_fini(&before);
        if (error)
            return STG_CTL_FAILED;
    }
    fd = stg_ctl_open_mount(ctl->count > 2 ? ctl->words[2] : NULL, &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    error = start(fd, path);
    if (error == -EBUSY) {
        stg_ctl_error("%s: a recording is going on: end it with stagectl profile stop", name);
        return STG_CTL_FAILED;
    }
    if (error)
        return stg_ctl_failed(name, -error);
    if (ctl->count < 4) {
        printf("recording; stagectl profile stop ends it, and writes %s\n", path);
        return STG_CTL_OK;
    }
    status = run(ctl->words + 3);
    if (finish(fd, name, path, !status) && !status)
        status = STG_CTL_FAILED;
    return status;
}

static int stop(const struct stg_ctl *ctl) {
    struct stagefs_record_request request = {0};
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    int error;

    if (ctl->count > 2)
        return stg_ctl_misused("profile stop: give one mount");
    fd = stg_ctl_open_mount(ctl->count > 1 ? ctl->words[1] : NULL, &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    error = ask_record(fd, &request, STAGEFS_RECORD_ASK);
    if (!error && request.state != STAGEFS_RECORD_RUNNING &&
        request.state != STAGEFS_RECORD_STARTING) {
        stg_ctl_error("%s: nothing is being recorded: begin with stagectl profile record", name);
        return STG_CTL_FAILED;
    }
    return error ? stg_ctl_failed(name, -error) : finish(fd, name, request.text, true);
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
    int error;

    if (ctl->count < 2 || ctl->count > 3)
        return stg_ctl_misused("profile replay: give the file, and the mount");
    fd = stg_ctl_open_mount(ctl->count > 2 ? ctl->words[2] : NULL, &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    error = read_profile(ctl->words[1], &profile) ? -ECANCELED : send_profile(fd, &profile);
    if (error == -EOPNOTSUPP)
        stg_ctl_error("%s: the mount follows no profiles: mount with staging, and with profiles in "
                      "predict=",
                      name);
    else if (error && error != -ECANCELED)
        (void)stg_ctl_failed(name, -error);
    stg_profile_fini(&profile);
    return error ? STG_CTL_FAILED : STG_CTL_OK;
}

int stg_ctl_profile(const struct stg_ctl *ctl) {
    const char *word = ctl->count ? ctl->words[0] : "";

    if (!strcmp(word, "record"))
        return record(ctl);
    if (!strcmp(word, "stop"))
        return stop(ctl);
    if (!strcmp(word, "replay"))
        return replay(ctl);
    return stg_ctl_misused("profile: write record, stop or replay");
}
