/* SPDX-License-Identifier: GPL-2.0-only */
#include "fs/recheck.h"

#include "fs/coherence.h"
#include "fs/inode.h"
#include "fs/staging.h"

#include <pthread.h>
#include <stdlib.h>

#define THREADS_MAX 16
#define FILES_PER_THREAD 4

struct all {
    struct stg_inode **inodes; /* referenced */
    size_t count;
    size_t room;
    bool failed;
    const atomic_bool *stopping;
    _Atomic size_t next;
};

static void collect(struct stg_inode *inode, void *context) {
    struct all *all = context;

    if (!inode->staged || stg_coherence_is_watched(inode))
        return;
    if (all->count == all->room) {
        size_t room = all->room ? all->room * 2 : 256;
        struct stg_inode **more = reallocarray(all->inodes, room, sizeof(struct stg_inode *));

        if (!more) {
            all->failed = true;
            return;
        }
        all->inodes = more;
        all->room = room;
    }
    stg_inode_ref(inode);
    all->inodes[all->count++] = inode;
}

static void *work(void *context) {
    struct all *all = context;
    size_t at;

    while ((at = atomic_fetch_add(&all->next, 1)) < all->count) {
        if (!atomic_load(all->stopping))
            stg_staging_recheck(all->inodes[at]);
        stg_inode_unref(all->inodes[at]);
    }
    return NULL;
}

bool stg_recheck_all(const atomic_bool *stopping) {
    struct all all = {.stopping = stopping};
    pthread_t threads[THREADS_MAX];
    unsigned begun = 0;
    size_t useful;

    if (!stg_inode_each(collect, &all))
        all.failed = true;
    useful = stg_fs.root->volume->remote ? all.count / FILES_PER_THREAD : 0;
    while (begun < THREADS_MAX && begun < useful &&
           !pthread_create(&threads[begun], NULL, work, &all))
        begun++; /* fewer do, too */
    (void)work(&all);
    for (unsigned i = 0; i < begun; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail for a thread of ours */
    free(all.inodes);
    return !all.failed;
}
