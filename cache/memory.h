/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How much memory there is for us: the machine's, and what each cgroup on the way up leaves of it.
 * And what may be kept by default, from that. No state, no locks; each call reads anew.
 */
#ifndef STG_CACHE_MEMORY_H
#define STG_CACHE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct stg_memory {
    uint64_t total_bytes;     /* of the machine; 0: not known */
    uint64_t limit_bytes;     /* the least of the machine's and each cgroup's; UINT64_MAX: none */
    uint64_t available_bytes; /* without swapping, within each limit; UINT64_MAX: not known */
};

/*
 * Reads what there is now. `root` stands before each path, which is "" but in tests; paths are
 * cut from /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)), so that a cgroup is
 * found wherever its hierarchy is mounted, in a cgroup namespace, too.
 *
 * A file that is missing or not ours to read says nothing. Returns 0, -EBADMSG where a file has
 * another form than the kernel's, or -ENOMEM.
 */
int stg_memory_read(const char *root, struct stg_memory *ret);

/*
 * Writes the folder of this process's cgroup of version 2 into `path` (`room_bytes` with its NUL),
 * with `root` in front. Returns 0; -ENOENT where there is none, or it is outside of what is
 * mounted; -ENAMETOOLONG, -ENOMEM or -EBADMSG.
 */
int stg_memory_cgroup_path(const char *root, char *path, size_t room_bytes);

/*
 * What hot and cold copies may take where nobody says: a quarter and an eighth of the limit, and
 * of what is available at most a half and a quarter. Where nothing is known, 64 and 32 MiB.
 */
uint64_t stg_memory_default_hot_bytes(const struct stg_memory *memory);
uint64_t stg_memory_default_cold_bytes(const struct stg_memory *memory);

#endif
