/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the threads that tell, and what is to be told. */
#include "fs/lease_tell.h"

#include "fs/notify.h"
#include "util/clock.h"
#include "util/crew.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* As many folders may be waited for, and others be told of meanwhile. */
#define THREADS 8
/* The kernel has taken an answer that tells of an inode by then. */
#define TAKEN_MAX_NS INT64_C(1000000000)

struct telling {
    struct stg_crew_work work;
    struct stg_inode *folder; /* referenced, as the next */
    struct stg_inode *inode;  /* or NULL */
    char name[];
};

static void sleep_taken(void) {
    static const struct timespec taken = {.tv_nsec = STG_NOTIFY_TAKEN_NS};

    (void)nanosleep(&taken, NULL); /* no signal comes to these threads */
}

/* Where the kernel does not know the inode yet, an answer that tells of it may be on its way. */
static void tell_attributes(struct stg_inode *inode) {
    int64_t until_ns = stg_clock_monotonic_ns() + TAKEN_MAX_NS;

    while (!stg_notify_inode(inode, false) && stg_inode_is_known(inode) &&
           stg_clock_monotonic_ns() < until_ns)
        sleep_taken();
}

static void give_up(struct stg_crew_work *work) {
    struct telling *telling = (struct telling *)(void *)work;

    if (telling->inode)
        stg_inode_unref(telling->inode);
    stg_inode_unref(telling->folder);
    free(telling);
}

/* Attributes first: that waits for nobody. */
static void work(struct stg_crew_work *work) {
    struct telling *telling = (struct telling *)(void *)work;

    if (telling->inode)
        tell_attributes(telling->inode);
    stg_notify_name_again(telling->folder, telling->name);
    give_up(work);
}

static struct stg_crew crew = STG_CREW(STG_RANK_PLACES, .name = "telling of leases",
                                       .threads_max = THREADS, .work = work, .drop = give_up);

void stg_lease_tell(struct stg_inode *folder, const char *name, struct stg_inode *inode) {
    size_t name_bytes = strlen(name) + 1;
    struct telling *telling;

    if (!*name)
        return;
    telling = malloc(sizeof(*telling) + name_bytes);
    if (!telling) { /* nothing is left untold: at once, whoever waits */
        if (inode)
            (void)stg_notify_inode(inode, false);
        stg_notify_name_again(folder, name);
        return;
    }
    *telling = (struct telling){.folder = folder, .inode = inode};
    memcpy(telling->name, name, name_bytes);
    stg_inode_ref(folder);
    if (inode)
        stg_inode_ref(inode);
    if (!stg_crew_push(&crew, &telling->work))
        give_up(&telling->work); /* at the end alone */
}

void stg_lease_tell_stop(void) { stg_crew_stop(&crew); }
