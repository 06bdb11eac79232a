/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the checks before the mount. */
#include "fs/preflight.h"

#include "cache/codec.h"
#include "cache/memory.h"
#include "client/protocol.h"
#include "config.h"
#include "fs/coherence.h"
#include "fs/folders.h"
#include "fs/names.h"
#include "fs/predict.h"
#include "fs/predict_profile.h"
#include "fs/readahead.h"
#include "fs/serve.h"
#include "fs/tier.h"
#include "fs/volume.h"
#include "fs/watch.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DESCRIPTORS_MIN 64
#define INITIAL_USER_NAMESPACE 0xEFFFFFFDU /* PROC_USER_INIT_INO */
#define BANDWIDTH_MIN_BYTES 65536
/* Threads that answer requests: one that asks a remote source waits for it. */
#define THREADS_LOCAL 10
#define THREADS_REMOTE 64
#define URING_SWITCH "/sys/module/fuse/parameters/enable_uring"

static bool has_capabilities(void) {
    const uint32_t needed = 1U << CAP_DAC_READ_SEARCH | 1U << CAP_DAC_OVERRIDE | 1U << CAP_SETUID |
                            1U << CAP_SETGID | 1U << CAP_CHOWN | 1U << CAP_FOWNER |
                            1U << CAP_FSETID;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    return !geteuid() && !syscall(SYS_capget, &header, data) &&
           (data[0].effective & needed) == needed;
}

/* Backing files are the privilege of the initial user namespace (fs/fuse/backing.c). */
static bool in_initial_namespace(void) {
    struct stat info;

    return !stat("/proc/self/ns/user", &info) && info.st_ino == INITIAL_USER_NAMESPACE;
}

static int open_source(void) {
    struct stg_options *options = &stg_fs.options;
    char *path = realpath(options->source, NULL);
    int error;

    if (!path) {
        error = -errno;
        stg_error("source %s: %s; name an existing directory", options->source, strerror(-error));
        return error;
    }
    free(options->source);
    options->source = path;
    stg_fs.source_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (stg_fs.source_fd < 0) {
        error = -errno;
        stg_error("source %s: %s; name a directory", path, strerror(-error));
        return error;
    }
    if (access(path, R_OK | X_OK)) {
        error = -errno;
        stg_error("source %s: %s; mount as a user who may read it", path, strerror(-error));
        return error;
    }
    return 0;
}

static int check_empty(const char *path) {
    DIR *directory = opendir(path);
    const struct dirent *entry;
    int error = 0;

    if (!directory) {
        error = -errno;
        stg_error("mount point %s: %s", path, strerror(-error));
        return error;
    }
    while (!error && (entry = readdir(directory)))
        if (!stg_name_is_dots(entry->d_name))
            error = -ENOTEMPTY;
    (void)closedir(directory); /* read-only */
    if (error)
        stg_error("mount point %s is not empty; use an empty directory, or -o nonempty", path);
    return error;
}

static int check_mountpoint(void) {
    struct stg_options *options = &stg_fs.options;
    struct stat info;
    char *path = realpath(options->mountpoint, NULL);

    if (!path || stat(path, &info)) {
        int error = -errno;

        free(path);
        if (error == -ENOTCONN)
            stg_error("mount point %s holds a mount whose daemon is gone; run umount on it first",
                      options->mountpoint);
        else
            stg_error("mount point %s: %s; create the directory first", options->mountpoint,
                      strerror(-error));
        return error;
    }
    free(options->mountpoint);
    options->mountpoint = path;
    if (!S_ISDIR(info.st_mode)) {
        stg_error("mount point %s is not a directory", path);
        return -ENOTDIR;
    }
    return options->nonempty ? 0 : check_empty(path);
}

/* Is `path` the directory `above`, or below it? Both are absolute and without symbolic links. */
static bool is_within(const char *path, const char *above) {
    size_t length = strlen(above);

    if (!strcmp(above, "/"))
        return true;
    return !strncmp(path, above, length) && (!path[length] || path[length] == '/');
}

static int check_nesting(void) {
    const char *source = stg_fs.options.source;
    const char *mountpoint = stg_fs.options.mountpoint;
    struct stat a;
    struct stat b;

    if (!fstat(stg_fs.source_fd, &a) && !stat(mountpoint, &b) && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino) {
        stg_error("source and mount point are the same directory; mount on another one");
        return -EINVAL;
    }
    if (is_within(mountpoint, source)) {
        stg_error("mount point %s is inside the source; mount outside of it", mountpoint);
        return -EINVAL;
    }
    if (is_within(source, mountpoint)) {
        stg_error("source %s is inside the mount point; mount on a directory that does not hold it",
                  source);
        return -EINVAL;
    }
    return 0;
}

/* Where the source can be watched; else, unless that was asked for, it is looked at. */
static int decide_coherence(void) {
    struct stg_options *options = &stg_fs.options;
    const char *why = "it is on another machine, or served by a program";
    int error;

    if (options->coherence != STG_COHERENCE_AUTO && options->coherence != STG_COHERENCE_WATCH)
        return 0;
    error = stg_volume_is_remote(stg_fs.source_fd) ? -EREMOTE
            : stg_fs.privileged                    ? stg_watch_open(stg_fs.source_fd)
                                                   : -EPERM;
    if (error && error != -EREMOTE) {
        stg_debug("the source's file system cannot be watched, its folders are: %s",
                  strerror(-error));
        error = stg_folders_open();
    }
    if (!error) {
        options->coherence = STG_COHERENCE_WATCH;
        return 0;
    }
    if (error != -EREMOTE)
        why = strerror(-error);
    if (options->coherence == STG_COHERENCE_WATCH) {
        stg_error("coherence=watch: the source cannot be watched: %s; write coherence=ttl", why);
        return error;
    }
    stg_debug("the source is not watched: %s", why);
    options->coherence = STG_COHERENCE_TTL;
    return 0;
}

static bool kernel_has_uring(void) {
    stg_auto_fd int fd = open(URING_SWITCH, O_RDONLY | O_CLOEXEC);
    char value = 'N';

    return fd >= 0 && read(fd, &value, 1) == 1 && (value == 'Y' || value == '1');
}

static int decide_uring(void) {
    struct stg_options *options = &stg_fs.options;
    bool possible = STG_HAVE_URING && kernel_has_uring();

    if (options->uring == STG_URING_ON && !possible) {
        stg_error("uring=on: %s; or leave the option out",
                  STG_HAVE_URING ? "the kernel has it off, run: echo Y > " URING_SWITCH
                                 : "this libfuse was built without io_uring");
        return -ENOTSUP;
    }
    /*
     * A request that waits for a slow source keeps its place in a queue that is short, of which
     * there is one for each CPU. And so does one that waits for the pages of a file to go, while
     * what brings them may be behind it in the same queue (stg_coherence_saw()).
     */
    if (options->uring == STG_URING_AUTO &&
        ((options->coherence != STG_COHERENCE_WATCH && options->coherence != STG_COHERENCE_FROZEN &&
          stg_serve_may_skip_opens()) ||
         stg_volume_is_remote(stg_fs.source_fd) || options->stage == STG_MODE_PREFETCH ||
         options->stage == STG_MODE_MMAP || options->source_timeout_s > 0)) {
        options->uring = STG_URING_OFF;
        stg_debug("requests may have to wait for the source, and go over /dev/fuse");
    }
    if (options->uring == STG_URING_AUTO) {
        options->uring = possible ? STG_URING_ON : STG_URING_OFF;
        if (!possible)
            stg_debug("fuse-over-io_uring is not enabled; requests go over /dev/fuse");
    }
    return 0;
}

static int check_privileges(void) {
    const struct stg_options *options = &stg_fs.options;

    stg_fs.privileged = has_capabilities();
    stg_fs.may_pass_through = stg_fs.privileged && in_initial_namespace();
    if (geteuid() && (options->suid || options->dev)) {
        stg_error("option %s needs root; leave it out", options->suid ? "suid" : "dev");
        return -EPERM;
    }
    if (!stg_fs.may_pass_through && options->serve == STG_SERVE_PASSTHROUGH) {
        stg_error("serve=passthrough needs root with its capabilities, outside of user namespaces; "
                  "write serve=auto");
        return -EPERM;
    }
    /* What others make would be root's, set-user-ID bits and all. */
    if (!geteuid() && !stg_fs.privileged && options->allow_other) {
        stg_error("allow_other needs the capabilities dac_read_search, dac_override, setuid, "
                  "setgid, chown, fowner and fsetid, to act as the callers; add them, or leave it "
                  "out");
        return -EPERM;
    }
    if (access("/dev/fuse", F_OK)) {
        stg_error("/dev/fuse is absent; load the kernel's fuse module (modprobe fuse)");
        return -ENODEV;
    }
    stg_fs.mount_suid = options->suid;
    stg_fs.mount_dev = options->dev;
    return 0;
}

/* Raises the limit on descriptors as far as allowed, and refuses one that serves nobody. */
static int check_descriptors(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 0;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* the old limit may do, too */
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= DESCRIPTORS_MIN)
        return 0;
    stg_error("the limit on open files is %ju; raise it to %d or more (ulimit -n)",
              (uintmax_t)limit.rlim_cur, DESCRIPTORS_MIN);
    return -EMFILE;
}

/* What the options leave open of staging: the memory that it may take. */
static int check_staging(void) {
    struct stg_options *options = &stg_fs.options;
    struct stg_memory memory = {.limit_bytes = UINT64_MAX, .available_bytes = UINT64_MAX};

    if (options->compress_level > STG_CODEC_LEVEL_MAX) {
        stg_error("option compress_level: %u is not a number from 1 to %d", options->compress_level,
                  STG_CODEC_LEVEL_MAX);
        return -EINVAL;
    }
    if (geteuid() && stg_readahead_is_raised()) {
        stg_error("option readahead: more than the kernel's own 128K needs root; give less, or "
                  "leave it out");
        return -EPERM;
    }
    if (options->stage == STG_MODE_NONE &&
        (options->bandwidth_bytes || options->source_timeout_s > 0)) {
        stg_error("%s= is of what staging fetches; leave it out, or leave out stage=none",
                  options->bandwidth_bytes ? "bandwidth" : "source_timeout");
        return -EINVAL;
    }
    if (options->uring == STG_URING_ON && options->source_timeout_s > 0) {
        stg_error("source_timeout= needs requests that can wait, which those over io_uring cannot; "
                  "leave out one of the two, or uring=off");
        return -EINVAL;
    }
    if (options->bandwidth_bytes && options->bandwidth_bytes < BANDWIDTH_MIN_BYTES) {
        stg_error("option bandwidth: %ju bytes a second fetch nothing; give 64K or more, as in "
                  "bandwidth=10M",
                  (uintmax_t)options->bandwidth_bytes);
        return -EINVAL;
    }
    (void)stg_memory_read("", &memory); /* where that fails, little is known, and little taken */
    if (!options->threads)
        options->threads = stg_volume_is_remote(stg_fs.source_fd) ? THREADS_REMOTE : THREADS_LOCAL;
    if (options->mem_bytes == STG_BYTES_DEFAULT)
        options->mem_bytes = stg_memory_default_hot_bytes(&memory);
    if (options->cold_bytes == STG_BYTES_DEFAULT)
        options->cold_bytes = stg_memory_default_cold_bytes(&memory);
    return 0;
}

/* Read now: a bad one is told before anything is mounted, and the path is the caller's. */
static int check_profile(void) {
    const struct stg_options *options = &stg_fs.options;
    char kept[PATH_MAX]; /* one of that name, by stagectl profile */

    if (!options->profile)
        return 0;
    if (options->stage == STG_MODE_NONE) {
        stg_error("profile=%s needs staging; leave out stage=none", options->profile);
        return -EINVAL;
    }
    if (!(options->predict & 1U << STG_PREDICT_PROFILES)) {
        stg_error("profile=%s needs predict=profiles; add that to predict=", options->profile);
        return -EINVAL;
    }
    if (options->stage_dir && stg_profile_is_name(options->profile) &&
        snprintf(kept, sizeof(kept), "%s/" STAGEFS_PROFILES "/%s", options->stage_dir,
                 options->profile) < (int)sizeof(kept) &&
        !access(kept, F_OK))
        return stg_profiles_load(kept);
    return stg_profiles_load(options->profile);
}

int stg_preflight(void) {
    int error = check_descriptors();

    if (!error)
        error = open_source();
    if (!error)
        error = check_mountpoint();
    if (!error)
        error = check_nesting();
    if (!error)
        error = check_privileges();
    if (!error)
        error = decide_coherence();
    if (!error)
        error = decide_uring();
    if (!error)
        error = check_staging();
    if (!error)
        error = check_profile();
    if (!error) /* last: it may make a folder */
        error = stg_tier_check();
    return error;
}
