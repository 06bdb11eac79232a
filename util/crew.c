/* SPDX-License-Identifier: GPL-2.0-only */
#include "util/crew.h"

#include "util/log.h"

#include <string.h>

static struct stg_crew_work *pop(struct stg_crew *crew) {
    struct stg_crew_work *work;

    stg_lock_take(&crew->lock);
    crew->idle++;
    while (!crew->first && !crew->stopping)
        stg_lock_wait(&crew->lock, &crew->filled);
    crew->idle--;
    work = crew->stopping ? NULL : crew->first;
    if (work) {
        crew->length--;
        crew->first = work->next;
        if (!crew->first)
            crew->last = NULL;
    }
    stg_lock_drop(&crew->lock);
    return work;
}

static void *work_forever(void *context) {
    struct stg_crew *crew = context;
    struct stg_crew_work *work;

    while ((work = pop(crew)))
        crew->work(work);
    return NULL;
}

/* One thread more, where all have work; fewer do, too. */
static void add_thread_locked(struct stg_crew *crew) {
    int error;

    if (crew->idle >= crew->length || crew->thread_count == crew->threads_max)
        return;
    error = pthread_create(&crew->threads[crew->thread_count], NULL, work_forever, crew);
    if (!error)
        crew->thread_count++;
    else if (!crew->thread_count)
        stg_error("no thread can be started for %s: %s", crew->name, strerror(error));
}

bool stg_crew_push(struct stg_crew *crew, struct stg_crew_work *work) {
    bool pushed;

    stg_lock_take(&crew->lock);
    pushed = !crew->stopping && (!crew->length_max || crew->length < crew->length_max);
    if (pushed) {
        work->next = NULL;
        if (crew->last)
            crew->last->next = work;
        else
            crew->first = work;
        crew->last = work;
        crew->length++;
        add_thread_locked(crew);
        pthread_cond_signal(&crew->filled);
    }
    stg_lock_drop(&crew->lock);
    return pushed;
}

uint64_t stg_crew_length(struct stg_crew *crew) {
    uint64_t length;

    stg_lock_take(&crew->lock);
    length = crew->length;
    stg_lock_drop(&crew->lock);
    return length;
}

void stg_crew_stop(struct stg_crew *crew) {
    struct stg_crew_work *left;
    unsigned count;

    stg_lock_take(&crew->lock);
    crew->stopping = true;
    count = crew->thread_count;
    pthread_cond_broadcast(&crew->filled);
    stg_lock_drop(&crew->lock);
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(crew->threads[i], NULL); /* ours, and joined once */
    stg_lock_take(&crew->lock);
    left = crew->first;
    crew->first = crew->last = NULL;
    crew->length = 0;
    stg_lock_drop(&crew->lock);
    while (left) {
        struct stg_crew_work *next = left->next;

        crew->drop(left);
        left = next;
    }
}
