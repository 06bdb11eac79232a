/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The eviction order: against a plain model that does the same with arrays and linear searches, and
 * in the cases that matter to a build.
 */
#include "tests/unit/unit.h"

#include "cache/fifo.h"

#include <stdlib.h>
#include <string.h>

enum { THINGS = 200, GHOSTS = 60, STEPS = 200000 };

static bool all_may_go(const struct stg_fifo_entry *entry, void *context) {
    (void)entry;
    (void)context;
    return true;
}

/* ---- the model: keys in arrays, the oldest first ---- */

struct model {
    uint64_t queue[2][THINGS + 1]; /* small, main */
    size_t count[2];
    uint64_t ghosts[GHOSTS];
    size_t ghost_count;
    uint64_t bytes[THINGS + 1]; /* by key */
    unsigned uses[THINGS + 1];
    bool pinned[THINGS + 1];
};

static void model_append(struct model *m, int which, uint64_t key) {
    m->queue[which][m->count[which]++] = key;
    m->uses[key] = 0;
}

static void take_at(uint64_t *array, size_t *count, size_t index) {
    memmove(array + index, array + index + 1, (*count - index - 1) * sizeof(*array));
    (*count)--;
}

static int index_of(const uint64_t *array, size_t count, uint64_t key) {
    for (size_t i = 0; i < count; i++)
        if (array[i] == key)
            return (int)i;
    return -1;
}

static bool model_take_ghost(struct model *m, uint64_t key) {
    int i = index_of(m->ghosts, m->ghost_count, key);

    if (i < 0)
        return false;
    m->ghosts[i] = 0; /* its place stays taken until its turn comes */
    return true;
}

static void model_remember(struct model *m, uint64_t key) {
    (void)model_take_ghost(m, key);
    if (m->ghost_count == GHOSTS)
        take_at(m->ghosts, &m->ghost_count, 0);
    m->ghosts[m->ghost_count++] = key;
}

static uint64_t sum(const struct model *m, int which) {
    uint64_t total = 0;

    for (size_t i = 0; i < m->count[which]; i++)
        total += m->bytes[m->queue[which][i]];
    return total;
}

static uint64_t model_from_small(struct model *m) {
    for (size_t i = 0; i < m->count[0];) {
        uint64_t key = m->queue[0][i];

        if (m->uses[key] >= 2) {
            take_at(m->queue[0], &m->count[0], i);
            model_append(m, 1, key);
        } else if (!m->pinned[key]) {
            take_at(m->queue[0], &m->count[0], i);
            model_remember(m, key);
            return key;
        } else {
            i++;
        }
    }
    return 0;
}

static uint64_t model_from_main(struct model *m) {
    for (size_t steps = m->count[1] * 4; steps; steps--) {
        uint64_t key = m->queue[1][0];
        unsigned uses = m->uses[key];

        take_at(m->queue[1], &m->count[1], 0);
        if (!uses && !m->pinned[key]) {
            model_remember(m, key);
            return key;
        }
        model_append(m, 1, key);
        m->uses[key] = uses ? uses - 1 : 0;
    }
    return 0;
}

static uint64_t model_evict(struct model *m) {
    bool small_first = sum(m, 0) * 10 >= sum(m, 0) + sum(m, 1);
    uint64_t key = small_first ? model_from_small(m) : 0;

    if (!key)
        key = model_from_main(m);
    if (!key && !small_first)
        key = model_from_small(m);
    return key;
}

/* ---- both beside each other ---- */

static uint64_t random_below(uint64_t *seed, uint64_t n) {
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (*seed >> 33) % n;
}

static bool is_not_pinned(const struct stg_fifo_entry *entry, void *context) {
    const struct model *m = context;

    return !m->pinned[entry->key];
}

static void assert_same_bytes(const struct stg_fifo *fifo, const struct model *m) {
    assert_int_equal(fifo->small.bytes, sum(m, 0));
    assert_int_equal(fifo->main.bytes, sum(m, 1));
    assert_int_equal(fifo->small.entries, m->count[0]);
    assert_int_equal(fifo->main.entries, m->count[1]);
}

static void step(struct stg_fifo *fifo, struct stg_fifo_entry *entries, struct model *m,
                 uint64_t *seed) {
    /* Some keys come more often than others, as files do. */
    uint64_t key = 1 + random_below(seed, random_below(seed, 2) ? THINGS : THINGS / 8);
    struct stg_fifo_entry *entry = &entries[key];
    uint64_t choice = random_below(seed, 100);
    struct stg_fifo_entry *gone;
    int in_queue;

    if (choice < 60 && entry->queue == STG_FIFO_NONE) {
        m->bytes[key] = 1 + random_below(seed, 1000);
        stg_fifo_add(fifo, entry, key, m->bytes[key]);
        model_append(m, model_take_ghost(m, key) ? 1 : 0, key);
    } else if (choice < 60) {
        stg_fifo_use(entry);
        m->uses[key] += m->uses[key] < 3;
    } else if (choice < 90) {
        gone = stg_fifo_evict(fifo, is_not_pinned, m);
        assert_int_equal(gone ? gone->key : 0, model_evict(m));
    } else if (choice < 95) {
        m->pinned[key] = !m->pinned[key];
    } else {
        in_queue = entry->queue == STG_FIFO_MAIN;
        if (entry->queue != STG_FIFO_NONE)
            take_at(m->queue[in_queue], &m->count[in_queue],
                    (size_t)index_of(m->queue[in_queue], m->count[in_queue], key));
        stg_fifo_remove(fifo, entry);
    }
}

static void does_what_the_model_does(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        static struct model m;
        static struct stg_fifo_entry entries[THINGS + 1];
        struct stg_fifo fifo;
        uint64_t random = seed;

        memset(&m, 0, sizeof(m));
        memset(entries, 0, sizeof(entries));
        assert_int_equal(stg_fifo_init(&fifo, GHOSTS), 0);
        for (int i = 0; i < STEPS; i++) {
            step(&fifo, entries, &m, &random);
            if (i % 16 == 0)
                assert_same_bytes(&fifo, &m);
        }
        stg_fifo_fini(&fifo);
    }
}

/* ---- a build and a scan ---- */

static void a_scan_leaves_what_a_build_uses(void **state) {
    enum { HEADERS = 100, SCANNED = 5000, ROOM = 200 };
    static struct stg_fifo_entry entries[HEADERS + SCANNED + 1];
    struct stg_fifo fifo;
    unsigned left = 0;

    (void)state;
    memset(entries, 0, sizeof(entries));
    assert_int_equal(stg_fifo_init(&fifo, ROOM), 0);
    for (int round = 0; round < 4; round++)
        for (unsigned i = 1; i <= HEADERS; i++) {
            if (entries[i].queue == STG_FIFO_NONE)
                stg_fifo_add(&fifo, &entries[i], i, 1);
            else
                stg_fifo_use(&entries[i]);
        }
    for (unsigned i = HEADERS + 1; i <= HEADERS + SCANNED; i++) {
        stg_fifo_add(&fifo, &entries[i], i, 1);
        stg_fifo_use(&entries[i]); /* the reader for whom it was made */
        while (stg_fifo_bytes(&fifo) > ROOM)
            assert_non_null(stg_fifo_evict(&fifo, all_may_go, NULL));
    }
    for (unsigned i = 1; i <= HEADERS; i++)
        left += entries[i].queue != STG_FIFO_NONE;
    assert_int_equal(left, HEADERS);
    stg_fifo_fini(&fifo);
}

static void nothing_goes_that_is_in_use(void **state) {
    static struct model m;
    struct stg_fifo_entry entries[4] = {{0}};
    struct stg_fifo fifo;

    (void)state;
    memset(&m, 0, sizeof(m));
    assert_int_equal(stg_fifo_init(&fifo, 1), 0);
    assert_null(stg_fifo_evict(&fifo, all_may_go, NULL));
    for (unsigned i = 1; i < 4; i++) {
        stg_fifo_add(&fifo, &entries[i], i, 10);
        m.pinned[i] = true;
    }
    assert_null(stg_fifo_evict(&fifo, is_not_pinned, &m));
    assert_int_equal(stg_fifo_bytes(&fifo), 30);
    m.pinned[2] = false;
    assert_ptr_equal(stg_fifo_evict(&fifo, is_not_pinned, &m), &entries[2]);
    assert_null(stg_fifo_evict(&fifo, is_not_pinned, &m));
    stg_fifo_remove(&fifo, &entries[1]);
    stg_fifo_remove(&fifo, &entries[1]);
    assert_int_equal(stg_fifo_bytes(&fifo), 10);
    stg_fifo_fini(&fifo);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_what_the_model_does),
        cmocka_unit_test(a_scan_leaves_what_a_build_uses),
        cmocka_unit_test(nothing_goes_that_is_in_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
