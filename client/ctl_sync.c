/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl sync`: waiting until what was changed on the source shows on the mount. */
#include "client/ctl.h"

#include "util/cleanup.h"

int stg_ctl_sync(const struct stg_ctl *ctl) {
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;

    if (ctl->count > 1)
        return stg_ctl_misused("sync: give one mount");
    fd = stg_ctl_open_mount(ctl->count ? ctl->words[0] : NULL, &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    if (!stagefs_sync(fd, ctl->timeout_s))
        return STG_CTL_OK;
    if (errno == EOPNOTSUPP) {
        stg_ctl_error("%s: the tree is frozen, and this kernel cannot drop names (Linux 6.16 can): "
                      "mount it anew",
                      name);
        return STG_CTL_FAILED;
    }
    if (errno != ETIMEDOUT)
        return stg_ctl_failed(name, errno);
    stg_ctl_error("%s: after %g s changes of the source may still not show: wait longer with -t",
                  name, ctl->timeout_s);
    return STG_CTL_LATE;
}
