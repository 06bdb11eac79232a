/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stagefs_copy_zero_at() with the system calls to be used; for tests. */
#ifndef STG_CLIENT_COPY_H
#define STG_CLIENT_COPY_H

#include "client/copy_data.h"

/* Returns the length or -errno. */
int64_t stg_copy_file(int src_dirfd, const char *src, int dst_dirfd, const char *dst,
                      const struct stg_copy_calls *calls);

#endif
