/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the numbers of syncs and the thread that does them. */
#include "fs/sync.h"

#include "fs/catalog.h"
#include "fs/coherence.h"
#include "fs/watch.h"
#include "util/clock.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

static struct stg_lock lock = STG_LOCK(STG_RANK_NOTIFY);
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_t thread;
static bool running;
static bool stopping;    /* protected by lock, as all below */
static uint64_t wanted;  /* the last number that was given */
static uint64_t reached; /* the last that is over */
static uint64_t done;

/* Names that nothing can drop go when their time is over. */
static void wait_for_names(void) {
    double keep_s = stg_coherence_longest_name_s();
    int64_t until_ns = stg_clock_monotonic_ns() + (int64_t)(keep_s * 1e9);

    if (stg_coherence_has_epoch())
        return;
    stg_lock_take(&lock);
    while (!stopping && stg_lock_wait_until(&lock, &wake, until_ns))
        ; /* another sync was begun */
    stg_lock_drop(&lock);
}

static bool sync_once(void) {
    bool watching = stg_fs.options.coherence == STG_COHERENCE_WATCH;
    bool all = !watching || stg_watch_drain();

    stg_catalog_drop();
    if (!watching || !stg_watch_is_whole() || !stg_coherence_has_epoch()) {
        stg_coherence_revalidate();
        wait_for_names();
    }
    return all;
}

static void *work(void *unused) {
    (void)unused;
    stg_lock_take(&lock);
    while (!stopping) {
        uint64_t number = wanted;
        bool all;

        if (number == reached) {
            stg_lock_wait(&lock, &wake);
            continue;
        }
        stg_lock_drop(&lock);
        all = sync_once();
        stg_lock_take(&lock);
        if (!all)
            break; /* the mount ends */
        reached = number;
        done++;
    }
    stg_lock_drop(&lock);
    return NULL;
}

int stg_sync_begin(uint64_t *ret_ticket) {
    if (stg_fs.options.coherence == STG_COHERENCE_FROZEN && !stg_coherence_has_epoch())
        return -EOPNOTSUPP;
    stg_lock_take(&lock);
    *ret_ticket = ++wanted;
    (void)pthread_cond_signal(&wake); /* cannot fail */
    stg_lock_drop(&lock);
    return 0;
}

bool stg_sync_is_given(uint64_t ticket) {
    bool given;

    stg_lock_take(&lock);
    given = ticket <= wanted;
    stg_lock_drop(&lock);
    return given;
}

bool stg_sync_is_over(uint64_t ticket) {
    bool over;

    stg_lock_take(&lock);
    over = ticket <= reached;
    stg_lock_drop(&lock);
    return over;
}

uint64_t stg_sync_count(void) {
    uint64_t count;

    stg_lock_take(&lock);
    count = done;
    stg_lock_drop(&lock);
    return count;
}

int stg_sync_start(void) {
    int error = -pthread_create(&thread, NULL, work, NULL);

    running = !error;
    return error;
}

void stg_sync_stop(void) {
    if (!running)
        return;
    stg_lock_take(&lock);
    stopping = true;
    (void)pthread_cond_signal(&wake); /* cannot fail */
    stg_lock_drop(&lock);
    (void)pthread_join(thread, NULL); /* cannot fail for a thread of ours */
    running = false;
}
