/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a compilation database says of a build: compile_commands.json, as CMake, Meson, Bazel's and
 * make's helpers write it (https://clang.llvm.org/docs/JSONCompilationDatabase.html).
 *
 * The text need not be well-formed; what is not understood is passed over. It is read one entry at
 * a time, as what a text becomes takes up to 80 times its size. Thread-safe: there is no state.
 */
#ifndef STG_CACHE_COMPDB_H
#define STG_CACHE_COMPDB_H

#include <stddef.h>

struct stg_compdb_visitor {
    /*
     * A file that is compiled, or that an option includes (-include), and the folder in which that
     * is done; both as they are written, owned by the reader. NULL-free.
     */
    void (*file)(void *context, const char *directory, const char *file);
    /* A folder that is searched for what it includes: -I, -iquote, -isystem, -idirafter. */
    void (*searched)(void *context, const char *directory, const char *path);
    /* A file with more options: @file. NULL: nobody reads it. */
    void (*response)(void *context, const char *directory, const char *path);
    void *context;
};

/* What is longer is passed over. */
#define STG_COMPDB_ENTRY_MAX_BYTES ((size_t)256 << 10)

/*
 * Visits what the entries name, in their order: of each the file that is compiled comes first.
 * Returns 0; -EBADMSG where the text is not a JSON array, or, when what comes before was visited,
 * no more; or -ENOMEM.
 */
int stg_compdb_read(const char *text, size_t bytes, const struct stg_compdb_visitor *visitor);

/*
 * Visits what the options of a response file name, for a command that is run in `directory`.
 * Returns 0 or -ENOMEM.
 */
int stg_compdb_read_response(const char *directory, const char *text, size_t bytes,
                             const struct stg_compdb_visitor *visitor);

#endif
