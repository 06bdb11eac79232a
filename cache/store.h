/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where hot copies are kept: files of a private tmpfs that is mounted nowhere, so no process can
 * reach them but through us, and the kernel can pass them through. A copy costs no descriptor: it
 * has a name in that tmpfs and is opened when it is needed. It all goes with the last descriptor of
 * the tmpfs, however the daemon ends.
 *
 * A copy may also be a file that is elsewhere, on the stage directory's disk: that is opened
 * through a descriptor, and takes no memory.
 *
 * Where the privilege to make a tmpfs is missing (there is no passthrough then, either), copies are
 * plain memory.
 *
 * Thread-safe for different copies; one copy has one user at a time, but for any number of readers.
 */
#ifndef STG_CACHE_STORE_H
#define STG_CACHE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct stg_store;

/* A copy; all zero: none. */
struct stg_copy {
    uint64_t number; /* its name in the tmpfs; 0: in memory */
    void *memory;
    uint64_t bytes;
    int file;        /* a descriptor of a file that is elsewhere, plus one; 0: none */
    uint64_t beside; /* which file that is, as of disk.h */
};

/*
 * Makes a store that never holds more than `limit_bytes` (the tmpfs itself refuses more, as a
 * second net below the budget). With `in_memory` no tmpfs is tried. Returns 0 or -ENOMEM.
 */
int stg_store_new(uint64_t limit_bytes, bool in_memory, struct stg_store **ret_store);

/* Frees the store; its copies, too, where they are in a tmpfs. NULL is fine. */
void stg_store_free(struct stg_store *store);

/* Can copies be opened, and so be passed through? */
bool stg_store_has_files(const struct stg_store *store);

/*
 * Replaces the content of a copy in place, so that whoever has its file open or mapped sees the new
 * one. Not for copies in memory. Returns 0 or -errno, with the content in between then.
 */
int stg_store_rewrite(struct stg_store *store, struct stg_copy *copy, const void *content,
                      uint64_t bytes);

/* Writes a part of a copy in place, and grows it where need be. As stg_store_rewrite(). */
int stg_store_write(struct stg_store *store, struct stg_copy *copy, const void *content,
                    uint64_t bytes, uint64_t offset);

/* Makes a copy shorter in place. Returns 0 or -errno. Not for copies in memory. */
int stg_store_shorten(struct stg_store *store, struct stg_copy *copy, uint64_t bytes);

/* The same as stg_store_rewrite() with what is in the file `from`; for a copy that is elsewhere. */
int stg_store_rewrite_from(struct stg_store *store, struct stg_copy *copy, int from,
                           uint64_t bytes);

/* What a copy of `bytes` takes of the budget: whole pages and what the kernel keeps besides. */
uint64_t stg_store_cost_bytes(uint64_t bytes);

/* What this copy takes, or would if it had `bytes`. */
uint64_t stg_store_copy_cost_bytes(const struct stg_copy *copy, uint64_t bytes);

/*
 * Keeps `bytes` of `content`. Returns 0, -ENOSPC, -ENOMEM or another -errno of the tmpfs; then
 * nothing is kept.
 */
int stg_store_put(struct stg_store *store, const void *content, uint64_t bytes,
                  struct stg_copy *ret_copy);

/* Makes a copy of a file that is elsewhere; `fd`, which may be O_PATH, is taken over. */
struct stg_copy stg_store_adopt(struct stg_store *store, int fd, uint64_t beside, uint64_t bytes);

/* Opens the copy with `flags` (O_PATH for a backing id): a descriptor of the caller's, or -errno.
 */
int stg_store_open(const struct stg_store *store, const struct stg_copy *copy, int flags);

/* Reads up to `bytes` at `offset`. Returns what was read, 0 behind the end, or -errno. */
ssize_t stg_store_read(const struct stg_store *store, const struct stg_copy *copy, void *buffer,
                       size_t bytes, uint64_t offset);

/* Gives the copy up; `*copy` becomes none. Who has it open or mapped keeps what he has. */
void stg_store_drop(struct stg_store *store, struct stg_copy *copy);

#endif
