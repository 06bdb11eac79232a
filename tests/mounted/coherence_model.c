/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the logs: which name and which object was what, and when; and what a block looks like. */
#include "coherence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stg_ch_log stg_ch_names[STG_CH_NAMES], stg_ch_dirs[STG_CH_DIRS];
pthread_mutex_t stg_ch_dir_locks[STG_CH_DIRS];

static struct stg_ch_object *_Atomic *objects;
static size_t objects_room;
static atomic_uint objects_n, targets_n;

static pthread_mutex_t temporaries_lock = PTHREAD_MUTEX_INITIALIZER;
static char temporaries[STG_CH_TEMPORARIES][STG_CH_PATH_BYTES];
static unsigned temporaries_n;

static void *grown(void *array, size_t n, size_t *room, size_t item_bytes) {
    if (n < *room)
        return array;
    *room = *room ? *room * 2 : 4;
    array = realloc(array, *room * item_bytes);
    if (array == NULL)
        stg_ch_die("memory");
    return array;
}

/* ---- names ---- */

static void log_init(struct stg_ch_log *log) {
    pthread_mutex_init(&log->lock, NULL);
    log->entries = grown(NULL, 0, &log->room, sizeof(*log->entries));
    log->entries[0] = (struct stg_ch_entry){.what = "nothing yet"};
    log->n = 1;
}

void stg_ch_model_init(unsigned long edits) {
    for (unsigned i = 0; i < STG_CH_NAMES; i++)
        log_init(&stg_ch_names[i]);
    for (unsigned i = 0; i < STG_CH_DIRS; i++) {
        log_init(&stg_ch_dirs[i]);
        pthread_mutex_init(&stg_ch_dir_locks[i], NULL);
    }
    objects_room = edits * 12 + 10000; /* no edit makes more than that */
    objects = calloc(objects_room, sizeof(*objects));
    if (objects == NULL)
        stg_ch_die("memory");
}

void stg_ch_dir_path(unsigned dir, char path[STG_CH_PATH_BYTES]) {
    snprintf(path, STG_CH_PATH_BYTES, "d%u%s", dir % STG_CH_TOPS, dir < STG_CH_TOPS ? "" : "/sub");
}

void stg_ch_name_path(unsigned name, char path[STG_CH_PATH_BYTES]) {
    unsigned dir = name / STG_CH_LEAVES;

    snprintf(path, STG_CH_PATH_BYTES, "d%u%s/f%02u", dir % STG_CH_TOPS,
             dir < STG_CH_TOPS ? "" : "/sub", name % STG_CH_LEAVES);
}

struct stg_ch_entry stg_ch_state(struct stg_ch_log *log) {
    struct stg_ch_entry entry;

    pthread_mutex_lock(&log->lock);
    entry = log->entries[log->n - 1];
    pthread_mutex_unlock(&log->lock);
    return entry;
}

void stg_ch_begin(struct stg_ch_log *log, enum stg_ch_kind kind, uint32_t id, const char *what) {
    pthread_mutex_lock(&log->lock);
    log->entries = grown(log->entries, log->n, &log->room, sizeof(*log->entries));
    log->entries[log->n++] = (struct stg_ch_entry){stg_ch_now_ns(), STG_CH_PENDING, kind, id, what};
    pthread_mutex_unlock(&log->lock);
}

void stg_ch_end(struct stg_ch_log *log) {
    pthread_mutex_lock(&log->lock);
    for (size_t i = log->n; i-- > 0 && log->entries[i].ended_ns == STG_CH_PENDING;)
        log->entries[i].ended_ns = stg_ch_now_ns();
    pthread_mutex_unlock(&log->lock);
}

/* ---- objects ---- */

struct stg_ch_object *stg_ch_object_new(void) {
    struct stg_ch_object *object = calloc(1, sizeof(*object));

    if (object == NULL)
        stg_ch_die("memory");
    object->id = atomic_fetch_add(&objects_n, 1) + 1;
    if (object->id >= objects_room)
        stg_ch_die("more objects than were planned");
    pthread_mutex_init(&object->edit, NULL);
    pthread_mutex_init(&object->lock, NULL);
    objects[object->id] = object;
    stg_ch_version_begin(object, (struct stg_ch_version){.mode = 0644, .what = "new"});
    stg_ch_version_end(object);
    return object;
}

struct stg_ch_object *stg_ch_object(uint32_t id) {
    return id > 0 && id < objects_room ? objects[id] : NULL;
}

void stg_ch_object_is(struct stg_ch_object *object, int fd) {
    struct stat st;

    if (fstat(fd, &st) != 0)
        stg_ch_die("fstat of a new file");
    pthread_mutex_lock(&object->lock);
    object->ino = st.st_ino;
    pthread_mutex_unlock(&object->lock);
}

uint32_t stg_ch_version_begin(struct stg_ch_object *object, struct stg_ch_version template) {
    uint32_t number;

    pthread_mutex_lock(&object->lock);
    object->versions = grown(object->versions, object->n, &object->room, sizeof(*object->versions));
    number = (uint32_t)object->n++;
    template.begun_ns = stg_ch_now_ns();
    template.ended_ns = STG_CH_PENDING;
    object->versions[number] = template;
    pthread_mutex_unlock(&object->lock);
    return number;
}

void stg_ch_version_end(struct stg_ch_object *object) {
    pthread_mutex_lock(&object->lock);
    for (size_t i = object->n; i-- > 0 && object->versions[i].ended_ns == STG_CH_PENDING;)
        object->versions[i].ended_ns = stg_ch_now_ns();
    pthread_mutex_unlock(&object->lock);
}

struct stg_ch_version stg_ch_version_now(struct stg_ch_object *object) {
    struct stg_ch_version version;

    pthread_mutex_lock(&object->lock);
    version = object->versions[object->n - 1];
    pthread_mutex_unlock(&object->lock);
    return version;
}

/* ---- blocks ---- */

#define MAGIC UINT32_C(0x73746763)

struct block {
    uint32_t magic, object, version, index;
    uint64_t filler[5];
    uint64_t sum;
};
_Static_assert(sizeof(struct block) == STG_CH_BLOCK_BYTES, "a block has its size");

static void make_block(struct block *block, uint32_t object, uint32_t version, uint32_t index) {
    uint64_t hash = ((uint64_t)object << 40) ^ ((uint64_t)version << 20) ^ index;

    *block = (struct block){.magic = MAGIC, .object = object, .version = version, .index = index};
    for (unsigned i = 0; i < 5; i++)
        block->filler[i] = stg_ch_next(&hash);
    block->sum = stg_ch_next(&hash);
}

void stg_ch_fill(char *data, uint32_t id, uint32_t version, uint32_t first, uint32_t n) {
    struct block block;

    for (uint32_t i = 0; i < n; i++) {
        make_block(&block, id, version, first + i);
        memcpy(data + (size_t)i * sizeof(block), &block, sizeof(block));
    }
}

uint32_t stg_ch_block_of(const char *data, uint32_t *ret_version, uint32_t *ret_index) {
    struct block block, right;

    memcpy(&block, data, sizeof(block));
    if (block.magic != MAGIC)
        return 0;
    make_block(&right, block.object, block.version, block.index);
    if (memcmp(&block, &right, sizeof(block)) != 0)
        return 0;
    *ret_version = block.version;
    *ret_index = block.index;
    return block.object;
}

/* ---- targets and temporary names ---- */

uint32_t stg_ch_target_new(void) { return atomic_fetch_add(&targets_n, 1) + 1; }

void stg_ch_target(uint32_t id, char text[STG_CH_PATH_BYTES]) {
    snprintf(text, STG_CH_PATH_BYTES, "target-%u", id);
}

uint32_t stg_ch_target_of(const char *text) {
    unsigned id;
    int length = 0;

    return sscanf(text, "target-%u%n", &id, &length) == 1 && text[length] == '\0' ? id : 0;
}

void stg_ch_temporary(unsigned dir, char path[STG_CH_PATH_BYTES]) {
    pthread_mutex_lock(&temporaries_lock);
    snprintf(path, STG_CH_PATH_BYTES, "d%u%s/tmp-%u", dir % STG_CH_TOPS,
             dir < STG_CH_TOPS ? "" : "/sub", temporaries_n);
    strcpy(temporaries[temporaries_n++ % STG_CH_TEMPORARIES], path);
    pthread_mutex_unlock(&temporaries_lock);
}

bool stg_ch_temporary_at(unsigned index, char path[STG_CH_PATH_BYTES]) {
    bool there;

    pthread_mutex_lock(&temporaries_lock);
    there = index < STG_CH_TEMPORARIES && index < temporaries_n;
    if (there)
        strcpy(path, temporaries[index]);
    pthread_mutex_unlock(&temporaries_lock);
    return there;
}
