/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the table of options. What a combination needs from the machine is checked in preflight. */
#include "fs/options.h"

#include "cache/codec.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/parse.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define TIMEOUT_MAX_S 31536000.0 /* a year; the kernel's own limit is far above */
#define COUNT_MAX 256
#define BYTES_MAX (UINT64_C(1) << 50) /* a petabyte */

enum kind {
    KIND_FLAG,    /* sets a bool to `value` */
    KIND_WORD,    /* one of `words` into an enum */
    KIND_WORDS,   /* some of `words`, with colons between, into the bits of an unsigned; or none */
    KIND_SECONDS, /* a double */
    KIND_COUNT,   /* an unsigned from `value` to `max` */
    KIND_BYTES,   /* a uint64_t, with K, M, G or T */
    KIND_TEXT,    /* a string */
    KIND_KERNEL,  /* handed to mount(2) by name */
    KIND_IGNORED, /* for mount(8) and systemd; nothing to do here */
    KIND_PREFIX,  /* as KIND_IGNORED, for every name that begins so */
};

struct option_row {
    const char *name;
    enum kind kind;
    size_t offset;
    int value;
    const char *const *words;
    const char *argument; /* how the help shows the value */
    const char *fallback; /* the default, for people */
    const char *opposite; /* the option that contradicts this one */
    const char *help;     /* NULL: an fstab word that the help lists in one line */
};

static const char *const serve_words[] = {"auto", "passthrough", "pagecache", NULL};
static const char *const coherence_words[] = {"auto", "watch", "ttl", "strict", "frozen", NULL};
static const char *const mode_words[] = {"none", "mmap", "prefetch", "adaptive", NULL};
static const char *const compress_words[] = {"lz4", "none", NULL};
/* In the order of enum stg_predictor. */
static const char *const predict_words[] = {"includes", "siblings", "graphs", "profiles", NULL};
static const char *const uring_words[] = {"auto", "on", "off", NULL};

#define FIELD(name) offsetof(struct stg_options, name)

static const struct option_row rows[] = {
    {"ro", KIND_FLAG, FIELD(read_only), 1, NULL, NULL, NULL, "rw", "mount read-only"},
    {"rw", KIND_FLAG, FIELD(read_only), 0, NULL, NULL, "rw", "ro", "mount read-write"},
    {"serve", KIND_WORD, FIELD(serve), 0, serve_words, "auto|passthrough|pagecache", "auto", NULL,
     "how files are served: through kernel passthrough, from the kernel's page cache without opens "
     "being told, or as suits the mount"},
    {"coherence", KIND_WORD, FIELD(coherence), 0, coherence_words, "auto|watch|ttl|strict|frozen",
     "auto: watch where the source can be watched, else ttl", NULL,
     "how changes behind the mount are noticed: by the source's events, by looking again after "
     "ttl= seconds, at each lookup, or not"},
    {"ttl", KIND_SECONDS, FIELD(ttl_s), 0, NULL, "SECONDS", "1", NULL,
     "how long what is not watched may be kept without another look"},
    {"uring", KIND_WORD, FIELD(uring), 0, uring_words, "auto|on|off", "auto", NULL,
     "talk to the kernel over io_uring: where it is enabled and the source is local, always, or "
     "never"},
    {"lease", KIND_SECONDS, FIELD(lease_s), 0, NULL, "SECONDS", "30", NULL,
     "how long the kernel keeps names and attributes of a remote source that are looked at again "
     "within ttl meanwhile; 0: no longer than ttl"},
    {"entry_timeout", KIND_SECONDS, FIELD(entry_timeout_s), 0, NULL, "SECONDS", "as coherence says",
     NULL, "how long the kernel may keep a name"},
    {"attr_timeout", KIND_SECONDS, FIELD(attr_timeout_s), 0, NULL, "SECONDS", "as coherence says",
     NULL, "how long the kernel may keep a file's attributes"},
    {"negative_timeout", KIND_SECONDS, FIELD(negative_timeout_s), 0, NULL, "SECONDS",
     "as coherence says", NULL, "how long the kernel may keep that a name does not exist"},
    {"stage", KIND_WORD, FIELD(stage), 0, mode_words, "none|mmap|prefetch|adaptive", "adaptive",
     NULL,
     "what is staged when it is opened: nothing, by range, whole files, or what pays by size and "
     "source"},
    {"threshold", KIND_BYTES, FIELD(threshold_bytes), 0, NULL, "BYTES", "1M", NULL,
     "the largest file that stage=adaptive stages whole"},
    {"mem", KIND_BYTES, FIELD(mem_bytes), 0, NULL, "BYTES", "a quarter of what there is", NULL,
     "the most that staged copies may take"},
    {"cold", KIND_BYTES, FIELD(cold_bytes), 0, NULL, "BYTES", "an eighth of it", NULL,
     "the most that compressed copies may take besides"},
    {"settle", KIND_SECONDS, FIELD(settle_s), 0, NULL, "SECONDS", "0.02", NULL,
     "how long ago a file's last change must be for it to be staged: more than one tick of the "
     "source's clock"},
    {"readahead", KIND_BYTES, FIELD(readahead_bytes), 0, NULL, "BYTES", "the kernel's, 128K", NULL,
     "how much the kernel reads ahead in files that the daemon serves, staged by range or not"},
    {"compress", KIND_WORD, FIELD(compress), 0, compress_words, "lz4|none", "lz4", NULL,
     "what becomes of copies that are not used when room is needed: compressed, or dropped"},
    {"compress_level", KIND_COUNT, FIELD(compress_level), 1, NULL, "N", "3", NULL,
     "how hard to compress, from 1, the fastest, to 12"},
    {"predict", KIND_WORDS, FIELD(predict), 0, predict_words,
     "includes:siblings:graphs:profiles|none", "includes:siblings:graphs:profiles", NULL,
     "what is staged ahead on a remote source: what C and C++ files include, the next files of a "
     "folder that is gone through, what a compilation database names, and what a recorded build "
     "asked for"},
    {"profile", KIND_TEXT, FIELD(profile), 0, NULL, "FILE|NAME", NULL, NULL,
     "stage what that file has of a build that stagectl profile recorded, or the profile of that "
     "name in stage_dir"},
    {"stage_dir", KIND_TEXT, FIELD(stage_dir), 0, NULL, "DIR", NULL, NULL,
     "keep staged copies there, a directory of this mount's own on a local disk, for the next time "
     "that the source is mounted"},
    {"stage_size", KIND_BYTES, FIELD(stage_bytes), 0, NULL, "BYTES",
     "8G, at most half of what is free", NULL, "the most that stage_dir may take"},
    {"workers", KIND_COUNT, FIELD(workers), 1, NULL, "N", "64", NULL,
     "how many threads may fetch files at once, at most; of what nobody waits for as many as pay"},
    {"source_timeout", KIND_SECONDS, FIELD(source_timeout_s), 0, NULL, "SECONDS", "0, for ever",
     NULL,
     "how long a program waits for content, a name or attributes that the source does not send, "
     "before it is told so"},
    {"bandwidth", KIND_BYTES, FIELD(bandwidth_bytes), 0, NULL, "BYTES", "0, no limit", NULL,
     "how much staging may fetch from the source in a second; what somebody waits for comes at "
     "once, and counts"},
    {"threads", KIND_COUNT, FIELD(threads), 1, NULL, "N", "10, or 64 for a remote source", NULL,
     "how many threads may answer requests"},
    {"allow_other", KIND_FLAG, FIELD(allow_other), 1, NULL, NULL, NULL, NULL,
     "let other users than the mount's owner in; permissions are checked as ever"},
    {"fsname", KIND_TEXT, FIELD(fsname), 0, NULL, "NAME", "SOURCE", NULL,
     "the name that mount tables show as the source"},
    {"nonempty", KIND_FLAG, FIELD(nonempty), 1, NULL, NULL, NULL, NULL,
     "mount over a directory that is not empty"},
    {"suid", KIND_FLAG, FIELD(suid), 1, NULL, NULL, NULL, "nosuid",
     "honour set-user-ID, set-group-ID and file capabilities (root only)"},
    {"nosuid", KIND_FLAG, FIELD(suid), 0, NULL, NULL, "nosuid", "suid", "do not honour them"},
    {"dev", KIND_FLAG, FIELD(dev), 1, NULL, NULL, NULL, "nodev",
     "let device nodes be opened (root only)"},
    {"nodev", KIND_FLAG, FIELD(dev), 0, NULL, NULL, "nodev", "dev", "do not"},
    {"noatime", KIND_KERNEL, 0, 0, NULL, NULL, NULL, "atime", "never move access times"},
    {"relatime", KIND_FLAG, FIELD(relatime), 1, NULL, NULL, NULL, "strictatime",
     "move access times after a change, and once a day"},
    {"strictatime", KIND_FLAG, FIELD(strictatime), 1, NULL, NULL, NULL, "relatime",
     "move access times with every read"},
    {"nodiratime", KIND_FLAG, FIELD(nodiratime), 1, NULL, NULL, NULL, NULL,
     "never move access times of directories"},
    {"noexec", KIND_KERNEL, 0, 0, NULL, NULL, NULL, "exec", "do not execute programs"},
    {"sync", KIND_KERNEL, 0, 0, NULL, NULL, NULL, "async", "write synchronously"},
    {"dirsync", KIND_KERNEL, 0, 0, NULL, NULL, NULL, NULL, "change directories synchronously"},
    {"nosymfollow", KIND_KERNEL, 0, 0, NULL, NULL, NULL, NULL, "do not follow symbolic links"},
    {"atime", KIND_IGNORED, 0, 0, NULL, NULL, NULL, "noatime", NULL},
    {"norelatime", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"lazytime", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"exec", KIND_IGNORED, 0, 0, NULL, NULL, NULL, "noexec", NULL},
    {"async", KIND_IGNORED, 0, 0, NULL, NULL, NULL, "sync", NULL},
    {"defaults", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"auto", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"noauto", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"user", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"users", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"nouser", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"owner", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"group", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"nofail", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"_netdev", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"default_permissions", KIND_IGNORED, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"user=", KIND_PREFIX, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"comment=", KIND_PREFIX, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"subtype=", KIND_PREFIX, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"x-", KIND_PREFIX, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {"X-", KIND_PREFIX, 0, 0, NULL, NULL, NULL, NULL, NULL},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static const struct option_row *find_row(const char *name, size_t name_bytes) {
    for (size_t i = 0; i < ROWS; i++) {
        size_t length = strlen(rows[i].name);

        if (rows[i].kind == KIND_PREFIX
                ? !strncmp(name, rows[i].name, length)
                : length == name_bytes && !memcmp(name, rows[i].name, length))
            return &rows[i];
    }
    return NULL;
}

static int bad_value(const struct option_row *row, const char *value) {
    stg_error("option %s: \"%s\" is not a valid value; write %s=%s", row->name, value, row->name,
              row->argument);
    return -EINVAL;
}

static int set_words(unsigned *bits, const struct option_row *row, char *value) {
    char *cursor = value;
    char *word;
    unsigned chosen = 0;

    while (strcmp(value, "none") && (word = strsep(&cursor, ":"))) {
        int bit = stg_parse_word(word, row->words);

        if (bit < 0)
            return bad_value(row, word);
        chosen |= 1U << bit;
    }
    *bits = chosen;
    return 0;
}

static int set_value(struct stg_options *options, const struct option_row *row, char *value) {
    void *field = (char *)options + row->offset;
    uint64_t count;
    int word;

    switch (row->kind) {
    case KIND_WORD:
        word = stg_parse_word(value, row->words);
        if (word < 0)
            return bad_value(row, value);
        *(int *)field = word;
        return 0;
    case KIND_WORDS:
        return set_words(field, row, value);
    case KIND_SECONDS:
        return stg_parse_seconds(value, TIMEOUT_MAX_S, field) ? bad_value(row, value) : 0;
    case KIND_COUNT:
        if (stg_parse_uint(value, (uint64_t)row->value, COUNT_MAX, &count)) {
            stg_error("option %s: \"%s\" is not a number from %d to %d", row->name, value,
                      row->value, COUNT_MAX);
            return -EINVAL;
        }
        *(unsigned *)field = (unsigned)count;
        return 0;
    case KIND_BYTES:
        return stg_parse_bytes(value, BYTES_MAX, field) ? bad_value(row, value) : 0;
    case KIND_TEXT:
        if (!*value)
            return bad_value(row, value);
        free(*(char **)field);
        *(char **)field = strdup(value);
        return *(char **)field ? 0 : -ENOMEM;
    default:
        return -EINVAL;
    }
}

static int set_flag(struct stg_options *options, const struct option_row *row) {
    size_t used = strlen(options->mount_flags);

    if (row->kind == KIND_FLAG)
        *(bool *)((char *)options + row->offset) = row->value;
    if (row->kind == KIND_KERNEL &&
        (size_t)snprintf(options->mount_flags + used, STG_MOUNT_FLAGS_BYTES - used, ",%s",
                         row->name) >= STG_MOUNT_FLAGS_BYTES - used) {
        stg_error("too many mount options; leave out the repeated ones");
        return -EINVAL;
    }
    return 0;
}

static int contradicts(const struct option_row *row, const bool *seen) {
    if (!row->opposite)
        return 0;
    for (size_t i = 0; i < ROWS; i++) {
        if (seen[i] && !strcmp(rows[i].name, row->opposite)) {
            stg_error("options %s and %s contradict each other; leave one out", row->opposite,
                      row->name);
            return -EINVAL;
        }
    }
    return 0;
}

static int apply_option(struct stg_options *options, bool *seen, char *text) {
    char *equals = strchr(text, '=');
    size_t name_bytes = equals ? (size_t)(equals - text) : strlen(text);
    const struct option_row *row = find_row(text, name_bytes);

    if (!row) {
        stg_error("unknown option \"%s\"; stagefs -h lists what there is", text);
        return -EINVAL;
    }
    if (contradicts(row, seen))
        return -EINVAL;
    seen[row - rows] = true;
    if (row->kind == KIND_PREFIX)
        return 0;
    if (row->kind == KIND_FLAG || row->kind == KIND_KERNEL || row->kind == KIND_IGNORED) {
        if (equals) {
            stg_error("option %.*s takes no value", (int)name_bytes, text);
            return -EINVAL;
        }
        return set_flag(options, row);
    }
    if (!equals) {
        stg_error("option %s needs a value: %s=%s", row->name, row->name, row->argument);
        return -EINVAL;
    }
    return set_value(options, row, equals + 1);
}

static int apply_list(struct stg_options *options, bool *seen, const char *list) {
    stg_auto_free char *copy = strdup(list);
    char *cursor = copy;
    char *text;

    if (!copy)
        return -ENOMEM;
    while ((text = stg_parse_next_option(&cursor))) {
        int error = *text ? apply_option(options, seen, text) : 0;

        if (error)
            return error;
    }
    return 0;
}

static int take_path(struct stg_options *options, const char *path) {
    char **field = options->source ? &options->mountpoint : &options->source;

    if (*field) {
        stg_error("too many arguments at \"%s\"; write stagefs SOURCE MOUNTPOINT [-o OPTION,...]",
                  path);
        return -EINVAL;
    }
    *field = strdup(path);
    return *field ? 0 : -ENOMEM;
}

/* One short option; `*i` moves on when it took the next word. */
static int take_switch(struct stg_options *options, bool *seen, int argc, char **argv, int *i) {
    const char *word = argv[*i];

    if (!strncmp(word, "-o", 2)) {
        if (word[2])
            return apply_list(options, seen, word + 2);
        if (*i + 1 < argc)
            return apply_list(options, seen, argv[++*i]);
        stg_error("-o needs a list of options after it");
        return -EINVAL;
    }
    if (!strcmp(word, "-h") || !strcmp(word, "--help"))
        options->show_help = true;
    else if (!strcmp(word, "-V") || !strcmp(word, "--version"))
        options->show_version = true;
    else if (!strcmp(word, "-f"))
        options->foreground = true;
    else if (!strcmp(word, "-d"))
        options->debug = options->foreground = true;
    else if (!strcmp(word, "--man"))
        options->show_manual = true;
    else {
        stg_error("unknown option \"%s\"; stagefs -h lists what there is", word);
        return -EINVAL;
    }
    return 0;
}

int stg_options_parse(int argc, char **argv, struct stg_options *ret_options) {
    struct stg_options *options = ret_options;
    bool seen[ROWS] = {false};
    bool only_paths = false;

    *options = (struct stg_options){
        .ttl_s = 1,
        .lease_s = 30,
        .entry_timeout_s = -1,
        .attr_timeout_s = -1,
        .negative_timeout_s = -1,
        .stage = STG_MODE_ADAPTIVE,
        .settle_s = 0.02,
        .threshold_bytes = 1 << 20,
        .mem_bytes = STG_BYTES_DEFAULT,
        .cold_bytes = STG_BYTES_DEFAULT,
        .readahead_bytes = STG_BYTES_DEFAULT,
        .stage_bytes = STG_BYTES_DEFAULT,
        .compress_level = STG_CODEC_LEVEL_DEFAULT,
        .predict = ~0U,
        .workers = 64,
    };
    for (int i = 1; i < argc; i++) {
        int error;

        if (!only_paths && !strcmp(argv[i], "--")) {
            only_paths = true;
            continue;
        }
        error = !only_paths && argv[i][0] == '-' && argv[i][1]
                    ? take_switch(options, seen, argc, argv, &i)
                    : take_path(options, argv[i]);
        if (error)
            return error;
    }
    if (options->show_help || options->show_version || options->show_manual)
        return 0;
    if (!options->source || !options->mountpoint) {
        stg_error("%s is missing; write stagefs SOURCE MOUNTPOINT [-o OPTION,...]",
                  options->source ? "the mount point" : "the source");
        return -EINVAL;
    }
    return 0;
}

void stg_options_fini(struct stg_options *options) {
    free(options->source);
    free(options->mountpoint);
    free(options->fsname);
    free(options->profile);
    free(options->stage_dir);
    options->source = options->mountpoint = options->fsname = options->profile = NULL;
    options->stage_dir = NULL;
}

static void print_words(FILE *stream, const char *separator) {
    const char *between = "";

    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].help)
            continue;
        fprintf(stream, "%s%s%s", between, rows[i].name, rows[i].kind == KIND_PREFIX ? "*" : "");
        between = separator;
    }
}

void stg_options_help(FILE *stream) {
    fputs(
        "usage: stagefs SOURCE MOUNTPOINT [-o OPTION,...] [-f] [-d]\n\n"
        "Mounts the directory tree SOURCE on MOUNTPOINT. Unmount with umount or fusermount3 -u.\n\n"
        "  -f   stay in the foreground\n"
        "  -d   the same, with debug messages\n"
        "  -h   this help\n"
        "  -V   the version\n\n"
        "options for -o:\n",
        stream);
    for (size_t i = 0; i < ROWS; i++) {
        char name[64];

        if (!rows[i].help)
            continue;
        (void)snprintf(name, sizeof(name), "%s%s%s", rows[i].name, rows[i].argument ? "=" : "",
                       rows[i].argument ? rows[i].argument : "");
        fprintf(stream, "  %-24s %s%s%s%s\n", name, rows[i].help,
                rows[i].fallback ? " (default: " : "", rows[i].fallback ? rows[i].fallback : "",
                rows[i].fallback ? ")" : "");
    }
    fputs("\naccepted for fstab, with no effect here:\n  ", stream);
    print_words(stream, " ");
    fputs("\n", stream);
}

static void print_manual_rows(FILE *stream) {
    for (size_t i = 0; i < ROWS; i++) {
        if (!rows[i].help)
            continue;
        fprintf(stream, ".It Cm %s%s%s\n%c%s.\n", rows[i].name, rows[i].argument ? "=" : "",
                rows[i].argument ? rows[i].argument : "", rows[i].help[0] & ~0x20,
                rows[i].help + 1);
        if (rows[i].fallback)
            fprintf(stream, "This is the default%s%s.\n", rows[i].argument ? ": " : "",
                    rows[i].argument ? rows[i].fallback : "");
    }
    fputs(".It Cm ", stream);
    print_words(stream, " , ");
    fputs("\nAccepted for\n.Xr fstab 5 ;\nno effect here.\n", stream);
}

int stg_options_manual(const char *path, FILE *stream) {
    FILE *template = fopen(path, "re");
    char line[512];

    if (!template)
        return -errno;
    while (fgets(line, sizeof(line), template)) {
        if (!strcmp(line, "@OPTIONS@\n"))
            print_manual_rows(stream);
        else
            fputs(line, stream);
    }
    (void)fclose(template); /* read-only */
    return ferror(stream) ? -EIO : 0;
}
