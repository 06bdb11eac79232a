/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which of the two ways to serve a mount gets. It is for the whole connection and for good: the
 * kernel that was once answered ENOSYS to an OPEN sends no other, and without opens there is
 * nothing to answer a backing file to.
 */
#ifndef STG_FS_SERVE_H
#define STG_FS_SERVE_H

#include <stdbool.h>

/* Is it likely that they are, before the kernel has said what it offers? */
bool stg_serve_may_skip_opens(void);

/*
 * Are files opened without telling the daemon, and served from the kernel's page cache? By the
 * options, the privileges, and what the kernel offers. `*ret_why` is a constant text.
 */
bool stg_serve_without_opens(bool can_pass, bool can_skip, const char **ret_why);

#endif
