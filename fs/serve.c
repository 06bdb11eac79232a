/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the choice of the way to serve. docs/benchmarks.md has the measurements that it rests on:
 * from the page cache a small file is opened, read and closed at the speed of the source; what is
 * passed through costs two requests, and in return is written and mapped as the source's own file.
 */
#include "fs/serve.h"

#include "fs/fs.h"
#include "fs/inode.h"
#include "fs/sample.h"

#define FILES_MIN 200
#define SMALL_PERCENT 95

/* A source tree, to all appearance. What is slow to look at is not looked at for that. */
static bool has_small_files(void) {
    static bool known;
    static bool has;
    struct stg_sample sample;

    if (!known && !stg_volume_is_remote(stg_fs.source_fd)) {
        sample = stg_sample_take(stg_fs.source_fd);
        has = sample.files >= FILES_MIN &&
              (uint64_t)sample.small * 100 >= (uint64_t)sample.files * SMALL_PERCENT;
    }
    known = true;
    return has;
}

bool stg_serve_may_skip_opens(void) {
    const char *why;

    return stg_serve_without_opens(true, true, &why);
}

bool stg_serve_without_opens(bool can_pass, bool can_skip, const char **ret_why) {
    if (stg_fs.options.serve == STG_SERVE_PAGECACHE) {
        *ret_why = "serve=pagecache was asked for";
        return true;
    }
    if (stg_fs.options.serve == STG_SERVE_PASSTHROUGH) {
        *ret_why = "serve=passthrough was asked for";
        return false;
    }
    if (stg_fs.options.read_only && can_skip) {
        *ret_why = "nothing is written, so no open needs to be told";
        return true;
    }
    if (can_skip && has_small_files()) {
        *ret_why = "most of its files are small, and opened without asking";
        return true;
    }
    if (stg_fs.may_pass_through && can_pass) {
        *ret_why = "it can be written, which passes through at the source's own speed";
        return false;
    }
    *ret_why = stg_fs.may_pass_through ? "the kernel has no passthrough (Linux 6.9 does)"
                                       : "passthrough needs root";
    return can_skip;
}
