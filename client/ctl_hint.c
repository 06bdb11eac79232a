/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl hint`: advice for whole files. They have to be opened for it, unlike for status.
 */
#include "client/ctl.h"

#include "util/cleanup.h"
#include "util/parse.h"

#include <fcntl.h>
#include <sys/stat.h>

static const char *const kinds[] = {"sequential", "random", "willneed", "dontneed", NULL};

static int (*const calls[])(int fd, off_t offset, off_t length) = {
    stagefs_advise_sequential,
    stagefs_advise_random,
    stagefs_advise_willneed,
    stagefs_advise_dontneed,
};

static int hint(const char *path, int kind) {
    stg_auto_fd int fd = -1;
    struct stat st;

    /* Looked at before it is opened: a device may do something at that. */
    if (stat(path, &st))
        return errno;
    if (!S_ISREG(st.st_mode))
        return EINVAL;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 || calls[kind](fd, 0, 0) ? errno : 0;
}

int stg_ctl_hint(const struct stg_ctl *ctl) {
    STG_CTL_AUTO_LIST struct stg_ctl_list list = {0};
    int kind = ctl->count ? stg_parse_word(ctl->words[0], kinds) : -EINVAL;
    int status = STG_CTL_OK;

    if (kind < 0)
        return stg_ctl_misused("hint: say sequential, random, willneed or dontneed first");
    if (ctl->count < 2 && !ctl->list)
        return stg_ctl_misused("hint: name files, or give --from-file");
    if (stg_ctl_list_init(ctl, 1, &list))
        return STG_CTL_FAILED;
    for (size_t i = 0; i < list.count; i++) {
        int error = hint(list.paths[i], kind);

        if (error == EINVAL) {
            stg_ctl_error("%s: is no regular file: hints are for files", list.paths[i]);
            status = STG_CTL_FAILED;
        } else if (error) {
            status = stg_ctl_failed(list.paths[i], error);
        }
    }
    return status;
}
