/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns what the process that walks is told, and how its requests are known. */
#include "fs/primer.h"

#include "fs/absent.h"
#include "fs/catalog.h"
#include "fs/lease.h"
#include "fs/predict_impl.h"
#include "fs/staging.h"
#include "fs/tier.h"
#include "util/cleanup.h"
#include "util/clock.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

/* The store's own list is gone through for so long, while nobody is answered. */
#define TELL_NS (STG_PRIMER_WALK_NS / 5)
/* Requests are known for longer than the walk may take, on a busy machine, too. */
#define KNOWN_NS (STG_PRIMER_WALK_NS * 10)
#define FILES_MAX 50000
#define WAIT_MS 100

/* ---- what is told ---- */

struct told {
    FILE *stream;
    enum stg_primer_kind kind;
    size_t left;
};

static void tell(struct told *told, const char *path) {
    (void)fputc(told->kind, told->stream); /* what went wrong the stream says in the end */
    (void)fputs(path, told->stream);
    (void)fputc('\0', told->stream);
}

static void tell_absent(const char *path, void *context) { tell(context, path); }

static bool tell_file(const char *path, void *context) {
    struct told *told = context;

    tell(told, path);
    return --told->left;
}

static void tell_folders(struct told *told, const struct stg_profile *kept) {
    told->kind = STG_PRIMER_FOLDER;
    for (size_t i = 0; i < kept->count; i++)
        tell(told, kept->entries[i].path);
}

/* False without memory; what there is is the caller's all the same. */
static bool tell_all(const struct stg_profile *kept, char **ret_told, size_t *ret_bytes) {
    struct told told = {.stream = open_memstream(ret_told, ret_bytes), .kind = STG_PRIMER_ABSENT};
    bool failed;

    if (!told.stream)
        return false;
    stg_absent_each(tell_absent, &told);
    tell_folders(&told, kept);
    told.kind = STG_PRIMER_FILE;
    told.left = FILES_MAX;
    /* Where opens are told, each asks for its copy; and copies are told by numbers with handles. */
    if (stg_fs.no_open && !stg_fs.root->volume->handles)
        stg_disk_each_recent(stg_tier_disk(), stg_clock_monotonic_ns() + TELL_NS, tell_file, &told);
    failed = ferror(told.stream);
    return !fclose(told.stream) && !failed;
}

/* ---- who walks ---- */

static struct stg_primer_walker *_Atomic walking; /* NULL: nobody does any more */
static struct stg_primer_walker *begun;           /* constant while there are requests */
static enum stg_primer_way way;
static int walker_fd; /* of the process: its number alone may be another's by now */
static int64_t known_until_ns;

/* What is kept by numbers tells of no folder, and what a look has seen nobody keeps for long. */
static bool may_look(void) {
    return stg_tier_disk() && !stg_fs.root->volume->handles && stg_lease_may(stg_fs.root) &&
           stg_fs.interrupts && stg_predict_is_on(STG_PREDICT_PROFILES);
}

bool stg_primer_is_possible(void) {
    return stg_tier_disk() && (stg_catalog_is_possible() || stg_lease_is_possible());
}

static enum stg_primer_way way_of(struct stg_profile *ret_kept) {
    if (stg_catalog_folder(stg_fs.root))
        return STG_PRIMER_KEPT;
    if (may_look())
        stg_tier_add_folders(ret_kept);
    return ret_kept->count ? STG_PRIMER_LOOKS : STG_PRIMER_NONE; /* a tree that nobody has used */
}

enum stg_primer_way stg_primer_begin(struct stg_primer_walker *walker, char **ret_told,
                                     size_t *ret_bytes) {
    struct stg_profile kept = STG_PROFILE_NONE;
    bool begins;

    if (!walker || !atomic_load(&walker->process))
        return STG_PRIMER_NONE;
    way = way_of(&kept);
    begins =
        way && (walker_fd = (int)syscall(SYS_pidfd_open, atomic_load(&walker->process), 0)) >= 0;
    if (begins && !tell_all(&kept, ret_told, ret_bytes)) {
        stg_fd_close(walker_fd);
        begins = false;
    }
    stg_profile_fini(&kept);
    if (!begins)
        return STG_PRIMER_NONE;
    known_until_ns = stg_clock_monotonic_ns() + KNOWN_NS;
    begun = walker;
    atomic_store(&walking, walker);
    return way;
}

/* Is it there, and may it still ask? */
static bool is_walking(void) {
    struct pollfd ended = {.fd = walker_fd, .events = POLLIN};

    return stg_clock_monotonic_ns() < known_until_ns && !poll(&ended, 1, 0);
}

static bool is_of(struct stg_primer_walker *walker, pid_t thread) {
    for (size_t i = 0; i < STG_PRIMER_THREADS; i++)
        if (atomic_load_explicit(&walker->threads[i], memory_order_relaxed) == thread)
            return thread;
    return false;
}

enum stg_primer_way stg_primer_asks(fuse_req_t req) {
    struct stg_primer_walker *walker = atomic_load_explicit(&walking, memory_order_acquire);

    if (!walker || !is_of(walker, fuse_req_ctx(req)->pid))
        return STG_PRIMER_NONE;
    if (is_walking())
        return way;
    atomic_store(&walking, NULL); /* its descriptor stays: others may be looking at it */
    return STG_PRIMER_NONE;
}

bool stg_primer_has_listed(bool *ret_ended) {
    struct pollfd ended = {.fd = walker_fd, .events = POLLIN};

    *ret_ended =
        !begun || stg_clock_monotonic_ns() >= known_until_ns || poll(&ended, 1, WAIT_MS) != 0;
    return begun && atomic_load(&begun->has_listed);
}

char *stg_primer_content(struct stg_inode *inode, uint64_t *ret_bytes, uint64_t *ret_file_bytes) {
    struct stg_identity now;
    struct statx stx;

    if (!stg_catalog_attributes(inode, &stx))
        return NULL;
    now = stg_staging_identity(&stx);
    *ret_file_bytes = stx.stx_size;
    return stg_tier_find(inode, &now, ret_bytes);
}
