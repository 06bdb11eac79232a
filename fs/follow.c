/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the threads that fetch anew what programs have open. */
#include "fs/follow.h"

#include "fs/staging.h"
#include "util/clock.h"
#include "util/crew.h"

#include <stdlib.h>

#define THREADS 16
#define LENGTH_MAX 256
#define PATIENCE_NS INT64_C(1000000000)

struct follow {
    struct stg_crew_work work;
    struct follow *next;       /* of those that are not over; protected by the lock */
    struct stg_object *object; /* referenced */
    bool over;                 /* protected by the lock, as the next */
    bool left;                 /* by who waited: it is freed when it is over */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);
static pthread_cond_t any_over = PTHREAD_COND_INITIALIZER;
static struct follow *begun; /* protected by the lock */

static void remove_locked(const struct follow *follow) {
    struct follow **link = &begun;

    while (*link != follow)
        link = &(*link)->next;
    *link = follow->next;
}

/* False where somebody has begun that already. */
static bool add(struct follow *follow) {
    const struct follow *other;

    stg_lock_take(&lock);
    other = begun;
    while (other && other->object != follow->object)
        other = other->next;
    if (!other) {
        follow->next = begun;
        begun = follow;
    }
    stg_lock_drop(&lock);
    return !other;
}

static void end(struct stg_crew_work *work) {
    struct follow *follow = (struct follow *)(void *)work;
    struct stg_object *object = follow->object;
    bool left;

    stg_lock_take(&lock);
    remove_locked(follow);
    follow->over = true;
    left = follow->left;
    (void)pthread_cond_broadcast(&any_over); /* cannot fail */
    stg_lock_drop(&lock);
    stg_staging_unref(object);
    if (left) /* else it is freed by whoever waits */
        free(follow);
}

static void fetch_anew(struct stg_crew_work *work) {
    struct stg_cache *cache = stg_staging_cache();
    struct stg_object *object = ((struct follow *)(void *)work)->object;

    /* Another has done it where it is stale no more; of what cannot be read, what is there stays.
     */
    if (stg_object_needs_refresh(cache, object))
        (void)stg_object_refresh(cache, object, false);
    end(work);
}

static struct stg_crew crew =
    STG_CREW(STG_RANK_PLACES, .name = "changed files", .threads_max = THREADS,
             .length_max = LENGTH_MAX, .work = fetch_anew, .drop = end);

/* False where that took too long: then it is freed by whoever ends it. */
static bool wait_for(struct follow *follow) {
    int64_t until_ns = stg_clock_monotonic_ns() + PATIENCE_NS;
    bool in_time = true;

    stg_lock_take(&lock);
    while (!follow->over && in_time)
        in_time = stg_lock_wait_until(&lock, &any_over, until_ns);
    follow->left = !follow->over;
    in_time = follow->over;
    stg_lock_drop(&lock);
    return in_time;
}

void stg_follow(struct stg_object *object) {
    struct follow *follow =
        stg_object_needs_refresh(stg_staging_cache(), object) ? malloc(sizeof(*follow)) : NULL;

    if (!follow) /* or with the next look */
        return;
    *follow = (struct follow){.object = object};
    if (!add(follow)) {
        free(follow);
        return;
    }
    stg_object_ref(stg_staging_cache(), object);
    if (!stg_crew_push(&crew, &follow->work))
        end(&follow->work);
    if (wait_for(follow))
        free(follow);
}

void stg_follow_stop(void) { stg_crew_stop(&crew); }
