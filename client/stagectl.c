/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stagectl: what stagefs mounts are asked and told from the command line.
 *
 * The sources:
 *   stagectl    the command line, one table of commands
 *   ctl_*       the commands, one file each; stage has unstage as well
 *   ctl_list    operands and lists of files
 *   ctl_mount   which mount a command is about
 *   ctl_json    output for programs
 *   ctl_text    output for people
 */
#include "client/ctl.h"

#include "util/parse.h"

#include <getopt.h>
#include <string.h>

struct command {
    const char *name;
    const char *options; /* that it takes, by their letters */
    const char *synopsis;
    const char *what;
    int (*run)(const struct stg_ctl *ctl);
};

static const struct command commands[] = {
    {"stage", "rmsf0jn", "[-rjn] [-m MODE] [-s SET] [-f LIST [-0]] [FILE...]",
     "stage files, and wait until they are", stg_ctl_stage},
    {"unstage", "rsf0jn", "[-rjn] [-f LIST [-0]] [FILE...] | -s SET [MOUNT]",
     "drop what is staged of files, or of a set", stg_ctl_unstage},
    {"status", "rf0j", "[-rj] [-f LIST [-0]] [FILE...]", "what is staged of files, and why",
     stg_ctl_status},
    {"stats", "j", "[-j] [MOUNT]", "the counters of a mount", stg_ctl_stats},
    {"sync", "t", "[-t SECONDS] [MOUNT]", "wait until changes of the source show on a mount",
     stg_ctl_sync},
    {"set", "jM", "[-j] [-M MOUNT] [SET]", "the sets of a mount, or one", stg_ctl_set},
    {"config", "j", "[-j] MOUNT [mode=|threshold=|mem=|cold=VALUE]...",
     "see or change the settings of a mount", stg_ctl_config},
    {"copy", "j", "[-j] FILE... DESTINATION", "copy files inside the kernel", stg_ctl_copy},
    {"hint", "f0", "[-f LIST [-0]] sequential|random|willneed|dontneed [FILE...]",
     "say how files will be read", stg_ctl_hint},
    {"profile", "",
     "record FILE MOUNT -- COMMAND... | start [MOUNT] | stop FILE [MOUNT] | replay FILE [MOUNT]",
     "record what a build touches, and stage it another time", stg_ctl_profile},
    {"doctor", "jR", "[-j] [--repair] STAGE_DIRECTORY",
     "check what is kept on disk, by a mount that is gone", stg_ctl_doctor},
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))
#define TIMEOUT_MAX_S 1000000000

static const struct option options[] = {
    {"recursive", no_argument, NULL, 'r'},
    {"mode", required_argument, NULL, 'm'},
    {"set", required_argument, NULL, 's'},
    {"mount", required_argument, NULL, 'M'},
    {"from-file", required_argument, NULL, 'f'},
    {"null", no_argument, NULL, '0'},
    {"json", no_argument, NULL, 'j'},
    {"no-wait", no_argument, NULL, 'n'},
    {"timeout", required_argument, NULL, 't'},
    {"repair", no_argument, NULL, 'R'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void usage(FILE *stream) {
    (void)fputs("usage: stagectl COMMAND ...\n", stream);
    for (size_t i = 0; i < COMMANDS; i++)
        (void)fprintf(stream, "\n  stagectl %s %s\n        %s\n", commands[i].name,
                      commands[i].synopsis, commands[i].what);
    (void)fputs("\n"
                "  -r, --recursive       of folders all files below\n"
                "  -m, --mode MODE       none, mmap, prefetch, adaptive or default\n"
                "  -s, --set SET         the set that the files join\n"
                "  -M, --mount MOUNT     any path on the mount\n"
                "  -f, --from-file LIST  files named in LIST, one a line; - is standard input\n"
                "  -0, --null            a NUL after each name in LIST, not a newline\n"
                "  -n, --no-wait         do not wait until it is done\n"
                "  -t, --timeout SECONDS how long to wait at most; 60 without it\n"
                "  -R, --repair          remove what is damaged\n"
                "  -j, --json            output for programs\n",
                stream);
}

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static int take_mode(struct stg_ctl *ctl, const char *word) {
    int mode = stg_parse_word(word, stg_ctl_modes);

    if (mode < 0)
        return stg_ctl_misused("--mode %s: write none, mmap, prefetch, adaptive or default", word);
    ctl->mode = (enum stagefs_mode)mode;
    return STG_CTL_OK;
}

static int take_set(struct stg_ctl *ctl, const char *name) {
    if (!*name || strlen(name) >= STAGEFS_SET_NAME_BYTES)
        return stg_ctl_misused("--set: a name has 1 to %d bytes", STAGEFS_SET_NAME_BYTES - 1);
    ctl->set = name;
    return STG_CTL_OK;
}

static int take_timeout(struct stg_ctl *ctl, const char *text) {
    if (stg_parse_seconds(text, TIMEOUT_MAX_S, &ctl->timeout_s))
        return stg_ctl_misused("--timeout %s: write seconds, such as 2.5, up to %d", text,
                               TIMEOUT_MAX_S);
    return STG_CTL_OK;
}

static int take_option(struct stg_ctl *ctl, int letter, const char *argument) {
    switch (letter) {
    case 'r':
        ctl->recursive = true;
        break;
    case 'm':
        return take_mode(ctl, argument);
    case 's':
        return take_set(ctl, argument);
    case 'M':
        ctl->mount = argument;
        break;
    case 'f':
        ctl->list = argument;
        break;
    case '0':
        ctl->nul = true;
        break;
    case 'j':
        ctl->json = true;
        break;
    case 'n':
        ctl->no_wait = true;
        break;
    case 'R':
        ctl->repair = true;
        break;
    case 't':
        return take_timeout(ctl, argument);
    default:
        break;
    }
    return STG_CTL_OK;
}

/* Returns an enum stg_ctl_status, or -1 where the help was asked for. */
static int read_options(const struct command *command, int argc, char **argv, struct stg_ctl *ctl) {
    int letter;

    while ((letter = getopt_long(argc, argv, "rm:s:M:f:0jnRt:h", options, NULL)) >= 0) {
        if (letter == 'h')
            return -1;
        if (letter == '?') /* said by getopt */
            return stg_ctl_misused("`stagectl --help` lists what there is");
        if (!strchr(command->options, letter))
            return stg_ctl_misused("%s does not take -%c: write stagectl %s %s", command->name,
                                   letter, command->name, command->synopsis);
        if (take_option(ctl, letter, optarg))
            return STG_CTL_USAGE;
    }
    ctl->words = argv + optind;
    ctl->count = (size_t)(argc - optind);
    return STG_CTL_OK;
}

/* What could not be written was not told: a full disk must not look like success. */
static int finish(int status) {
    if (fflush(stdout) || ferror(stdout)) {
        stg_ctl_error("the output could not be written: %m");
        return status ? status : STG_CTL_FAILED;
    }
    return status;
}

int main(int argc, char **argv) {
    struct stg_ctl ctl = {.mode = STAGEFS_DEFAULT, .timeout_s = STG_CTL_SYNC_S};
    const struct command *command;
    int status;

    if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
        usage(stdout);
        return finish(STG_CTL_OK);
    }
    if (argc < 2) {
        usage(stderr);
        return STG_CTL_USAGE;
    }
    command = find_command(argv[1]);
    if (!command)
        return stg_ctl_misused("no command is called %s: `stagectl --help` lists them", argv[1]);
    argv[1] = argv[0]; /* what getopt begins its messages with */
    status = read_options(command, argc - 1, argv + 1, &ctl);
    if (status < 0) {
        usage(stdout);
        return finish(STG_CTL_OK);
    }
    return status ? status : finish(command->run(&ctl));
}
