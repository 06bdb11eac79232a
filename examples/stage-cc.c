/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stage-cc: runs a compiler whose input files are staged first, all of a kind in one request.
 *
 * To build it where stagefs is installed, and to use it:
 *
 *     cc stage-cc.c -o stage-cc $(pkg-config --cflags --libs stagefs)
 *     make CC="./stage-cc gcc"
 *
 * Sources are waited for, as the compiler reads them first. The folders of -I, -iquote and -isystem
 * are staged with all that is below while the compiler already works: it needs only some of them.
 * Staging that fails stops nothing: the compiler reads the files as ever, and says what is missing.
 * Away from a stagefs mount the kernel is asked to read the files ahead instead.
 */
#include <stagefs.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct inputs {
    const char **sources;
    size_t source_count;
    const char **folders;
    size_t folder_count;
};

static int is_source(const char *word) {
    static const char *const endings[] = {".c", ".cc", ".cpp", ".cxx", ".C", ".i", ".ii",
                                          ".s", ".S",  ".m",   ".o",   ".a", ".so"};
    const char *dot = strrchr(word, '.');

    if (*word == '-' || !dot)
        return 0;
    for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++)
        if (!strcmp(dot, endings[i]))
            return 1;
    return 0;
}

/* The folder that an option names, in its own word or in the next; NULL for other options. */
static const char *folder_of(const char *word, const char *next) {
    static const char *const options[] = {"-I", "-iquote", "-isystem"};

    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
        size_t bytes = strlen(options[i]);

        if (!strncmp(word, options[i], bytes))
            return word[bytes] ? word + bytes : next;
    }
    return NULL;
}

static void find_inputs(char **words, struct inputs *inputs) {
    for (size_t i = 1; words[i]; i++) {
        const char *folder = folder_of(words[i], words[i + 1]);

        if (folder)
            inputs->folders[inputs->folder_count++] = folder;
        else if (!strcmp(words[i], "-o") && words[i + 1])
            i++; /* what is written is not read */
        else if (is_source(words[i]))
            inputs->sources[inputs->source_count++] = words[i];
    }
}

static void stage(const struct inputs *inputs) {
    struct stagefs_options below = STAGEFS_OPTIONS_INIT;

    below.recursive = 1;
    below.no_wait = 1;
    (void)stagefs_stage_with(AT_FDCWD, inputs->folders, inputs->folder_count, &below, NULL);
    (void)stagefs_stage(AT_FDCWD, STAGEFS_PREFETCH, inputs->sources, inputs->source_count);
}

int main(int argc, char **argv) {
    struct inputs inputs = {0};

    if (argc < 2) {
        fprintf(stderr, "usage: stage-cc COMPILER [ARGUMENT...]\n");
        return 2;
    }
    inputs.sources = calloc((size_t)argc, sizeof(*inputs.sources));
    inputs.folders = calloc((size_t)argc, sizeof(*inputs.folders));
    if (inputs.sources && inputs.folders) {
        find_inputs(argv + 1, &inputs);
        stage(&inputs);
    }
    execvp(argv[1], argv + 1);
    fprintf(stderr, "stage-cc: %s: %s\n", argv[1], strerror(errno));
    return 127;
}
