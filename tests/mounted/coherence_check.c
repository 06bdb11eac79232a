/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the judging. What was seen is right when it was so at some time of its span, from the edge
 * of what is promised to the end of the reading. State i of a log was current from when the change
 * to it began until the change to state i + 1 ended.
 *
 * The doubt is the mount's benefit, in these cases:
 *   - a size may be any between the smallest and the largest of the span: who reads to the end
 *     while others write may meet any;
 *   - a block may be torn between versions of the span, word by word: natively no lock is held
 *     that would keep a read from seeing half of a write;
 *   - where a folder was moved in the span, what a path leads to may be what it led to in another:
 *     the walk along a path is not atomic.
 */
#include "coherence.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

atomic_ulong stg_ch_violations, stg_ch_torn, stg_ch_gone;
_Atomic int64_t stg_ch_late_names_ns, stg_ch_late_bytes_ns;

enum { SHOWN_AT_MOST = 25, SHOWN_EDITS = 6, WHY_BYTES = 300 };

static _Thread_local char why[WHY_BYTES];

static void raise_to(_Atomic int64_t *most, int64_t value) {
    int64_t was = atomic_load(most);

    while (value > was && !atomic_compare_exchange_weak(most, &was, value))
        ;
}

/* ---- spans ---- */

static pthread_mutex_t synced_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t synced_since_ns, synced_at_ns;

void stg_ch_synced(int64_t begin_ns) {
    pthread_mutex_lock(&synced_lock);
    synced_since_ns = begin_ns;
    synced_at_ns = stg_ch_now_ns();
    pthread_mutex_unlock(&synced_lock);
}

static int64_t promised_ns(enum stg_ch_promise promise) {
    const struct stg_ch_settings *s = &stg_ch_settings;

    switch (s->mode) {
    case STG_CH_WATCH:
        return s->slack_ns;
    case STG_CH_TTL:
        return promise == STG_CH_HELD ? STG_CH_PENDING : s->ttl_ns + s->slack_ns;
    case STG_CH_STRICT:
        return promise == STG_CH_OPENED ? 0 : STG_CH_PENDING;
    default:
        return STG_CH_PENDING;
    }
}

struct stg_ch_span stg_ch_span(enum stg_ch_promise promise, int64_t begin_ns) {
    int64_t promised = promised_ns(promise);
    struct stg_ch_span span = {0, begin_ns, stg_ch_now_ns()};

    if (promised < begin_ns)
        span.edge_ns = begin_ns - promised;
    pthread_mutex_lock(&synced_lock);
    if (begin_ns >= synced_at_ns && synced_since_ns > span.edge_ns)
        span.edge_ns = synced_since_ns;
    pthread_mutex_unlock(&synced_lock);
    return span;
}

/* ---- bytes ---- */

/* What the versions of the span allow; object->lock is held. */
struct bounds {
    size_t oldest; /* the first version that was current in the span */
    size_t newest; /* the last that had begun */
    uint64_t smallest, largest;
};

static struct bounds bounds_locked(const struct stg_ch_object *object, struct stg_ch_span span) {
    struct bounds b = {.newest = object->n - 1, .smallest = UINT64_MAX};

    while (b.newest > 0 && object->versions[b.newest].begun_ns > span.end_ns)
        b.newest--;
    b.oldest = b.newest;
    while (b.oldest > 0 && object->versions[b.oldest].ended_ns >= span.edge_ns)
        b.oldest--;
    for (size_t i = b.oldest; i <= b.newest; i++) {
        uint64_t size = object->versions[i].size;

        b.smallest = size < b.smallest ? size : b.smallest;
        b.largest = size > b.largest ? size : b.largest;
    }
    return b;
}

static bool sets(const struct stg_ch_version *version, uint32_t block) {
    return block >= version->first &&
           (version->blocks == STG_CH_TO_END || block - version->first < version->blocks);
}

/* The first change after the version that set the block, and when: 0 where there is none. */
static int64_t overwritten_locked(const struct stg_ch_object *object, size_t version,
                                  uint32_t block) {
    for (size_t i = version + 1; i < object->n; i++)
        if (sets(&object->versions[i], block))
            return object->versions[i].ended_ns;
    return 0;
}

static bool is_zero(const char *data) {
    static const char zeros[STG_CH_BLOCK_BYTES];

    return memcmp(data, zeros, sizeof(zeros)) == 0;
}

static const char *block_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *block_wrong(const char *format, ...) {
    va_list list;

    va_start(list, format);
    vsnprintf(why, sizeof(why), format, list);
    va_end(list);
    return why;
}

static const char *judge_zero_locked(const struct stg_ch_object *object, uint32_t block,
                                     const struct bounds *b, struct stg_ch_span span) {
    for (size_t i = b->newest + 1; i-- > 0;) {
        const struct stg_ch_version *version = &object->versions[i];
        int64_t gone;

        if (!version->zero || !sets(version, block))
            continue;
        gone = overwritten_locked(object, i, block);
        if (gone == 0 || gone >= span.edge_ns)
            return NULL;
        return block_wrong("block %u is a hole, written %.3f s before the edge", block,
                           (double)(span.edge_ns - gone) / 1e9);
    }
    return block_wrong("block %u is of zeros, and never was", block);
}

/* Which of the block's words are as the version has them: a bit each. */
static unsigned words_of(const struct stg_ch_object *object, size_t version, uint32_t block,
                         const char *data) {
    char right[STG_CH_BLOCK_BYTES] = {0};
    unsigned same = 0;

    if (!object->versions[version].zero)
        stg_ch_fill(right, object->id, (uint32_t)version, block, 1);
    for (unsigned word = 0; word < 8; word++)
        same |= (unsigned)(memcmp(right + word * 8, data + word * 8, 8) == 0) << word;
    return same;
}

/* Each word must be of a version that was current in the span. */
static const char *judge_torn_locked(const struct stg_ch_object *object, const char *data,
                                     uint32_t block, const struct bounds *b) {
    unsigned good = 0;

    for (size_t i = b->newest + 1; i-- > 0;) {
        if (!sets(&object->versions[i], block))
            continue;
        good |= words_of(object, i, block, data);
        if (i <= b->oldest)
            break;
    }
    if (good != 0xff)
        return block_wrong("block %u is damaged", block);
    atomic_fetch_add(&stg_ch_torn, 1);
    return NULL;
}

static const char *judge_version_locked(const struct stg_ch_object *object, uint32_t version,
                                        uint32_t block, const struct bounds *b,
                                        struct stg_ch_span span) {
    int64_t gone;

    if (version >= object->n || version > b->newest || !sets(&object->versions[version], block) ||
        object->versions[version].zero)
        return block_wrong("block %u is of version %u, which never was there", block, version);
    gone = overwritten_locked(object, version, block);
    if (gone != 0 && gone < span.edge_ns)
        return block_wrong("block %u is of version %u, overwritten %.3f s before the edge", block,
                           version, (double)(span.edge_ns - gone) / 1e9);
    if (gone != 0 && gone != STG_CH_PENDING)
        raise_to(&stg_ch_late_bytes_ns, span.begin_ns - gone);
    return NULL;
}

static const char *judge_block_locked(const struct stg_ch_object *object, const char *data,
                                      uint32_t block, const struct bounds *b,
                                      struct stg_ch_span span) {
    uint32_t version, index, id = stg_ch_block_of(data, &version, &index);

    if (id == 0 && is_zero(data))
        return judge_zero_locked(object, block, b, span);
    if (id == 0)
        return judge_torn_locked(object, data, block, b);
    if (id != object->id)
        return block_wrong("block %u is of object %u, and not %u", block, id, object->id);
    if (index != block)
        return block_wrong("block %u is block %u", block, index);
    return judge_version_locked(object, version, block, b, span);
}

static const char *judge_size_locked(const struct bounds *b, const struct stg_ch_bytes *bytes) {
    uint64_t end = bytes->at + bytes->got;

    if (bytes->mapped)
        return NULL;
    if (bytes->got == 0 ? b->smallest > bytes->at : bytes->got < bytes->asked && b->smallest > end)
        return block_wrong("%llu bytes from %llu on, of %llu at least",
                           (unsigned long long)bytes->got, (unsigned long long)bytes->at,
                           (unsigned long long)b->smallest);
    if (bytes->got > 0 && end > b->largest)
        return block_wrong("%llu bytes from %llu on, of %llu at most",
                           (unsigned long long)bytes->got, (unsigned long long)bytes->at,
                           (unsigned long long)b->largest);
    return NULL;
}

const char *stg_ch_judge_bytes(struct stg_ch_object *object, const struct stg_ch_bytes *bytes,
                               struct stg_ch_span span) {
    const char *wrong;
    struct bounds b;

    pthread_mutex_lock(&object->lock);
    b = bounds_locked(object, span);
    wrong = judge_size_locked(&b, bytes);
    for (uint64_t at = 0; wrong == NULL && at + STG_CH_BLOCK_BYTES <= bytes->got;
         at += STG_CH_BLOCK_BYTES) {
        uint32_t block = (uint32_t)((bytes->at + at) / STG_CH_BLOCK_BYTES);

        /* Beyond the end of a file the rest of a page is of zeros. */
        if (bytes->mapped && bytes->at + at >= b.smallest && is_zero(bytes->data + at))
            continue;
        wrong = judge_block_locked(object, bytes->data + at, block, &b, span);
    }
    pthread_mutex_unlock(&object->lock);
    return wrong;
}

uint32_t stg_ch_bytes_of(const struct stg_ch_bytes *bytes) {
    uint32_t version, index, id = 0;

    for (uint64_t at = 0; id == 0 && at + STG_CH_BLOCK_BYTES <= bytes->got;
         at += STG_CH_BLOCK_BYTES)
        id = stg_ch_block_of(bytes->data + at, &version, &index);
    return id;
}

/* ---- names ---- */

static bool stat_fits(struct stg_ch_object *object, const struct stat *st,
                      struct stg_ch_span span) {
    bool ino, mode = false;
    struct bounds b;

    pthread_mutex_lock(&object->lock);
    b = bounds_locked(object, span);
    ino = object->ino == 0 || object->ino == st->st_ino;
    for (size_t i = b.oldest; i <= b.newest; i++)
        mode |= object->versions[i].mode == (st->st_mode & 07777);
    pthread_mutex_unlock(&object->lock);
    return ino && mode && (uint64_t)st->st_size >= b.smallest && (uint64_t)st->st_size <= b.largest;
}

static bool fits(const struct stg_ch_entry *entry, const struct stg_ch_seen *seen,
                 struct stg_ch_span span) {
    if (seen->kind == STG_CH_THERE)
        return entry->kind != STG_CH_ABSENT;
    if (entry->kind != seen->kind || (seen->id != 0 && entry->id != seen->id))
        return false;
    if (entry->kind != STG_CH_FILE)
        return true;
    if (seen->st != NULL)
        return stat_fits(stg_ch_object(entry->id), seen->st, span);
    if (seen->id == 0 && seen->bytes != NULL)
        return stg_ch_judge_bytes(stg_ch_object(entry->id), seen->bytes, span) == NULL;
    return true;
}

/* Was the log in a state that fits at some time of the span? Then `*late_ns` is for how long. */
static bool allows(struct stg_ch_log *log, const struct stg_ch_seen *seen, struct stg_ch_span span,
                   int64_t *late_ns) {
    int64_t gone = STG_CH_PENDING; /* when the change to the next state ended */
    bool found = false;

    pthread_mutex_lock(&log->lock);
    for (size_t i = log->n; !found && i-- > 0 && gone >= span.edge_ns;) {
        found = log->entries[i].begun_ns <= span.end_ns && fits(&log->entries[i], seen, span);
        if (!found)
            gone = log->entries[i].ended_ns;
    }
    pthread_mutex_unlock(&log->lock);
    *late_ns = gone != STG_CH_PENDING ? span.begin_ns - gone : 0;
    return found;
}

static bool changed(struct stg_ch_log *log, struct stg_ch_span span) {
    bool is = false;

    pthread_mutex_lock(&log->lock);
    for (size_t i = log->n; !is && i-- > 1 && log->entries[i].ended_ns >= span.edge_ns;)
        is = log->entries[i].begun_ns <= span.end_ns;
    pthread_mutex_unlock(&log->lock);
    return is;
}

bool stg_ch_dir_moved(unsigned dir, struct stg_ch_span span) {
    return changed(&stg_ch_dirs[dir], span) ||
           (dir >= STG_CH_TOPS && changed(&stg_ch_dirs[dir - STG_CH_TOPS], span));
}

bool stg_ch_judge_name(unsigned name, const struct stg_ch_seen *seen, struct stg_ch_span span) {
    int64_t late_ns;

    if (allows(&stg_ch_names[name], seen, span, &late_ns)) {
        raise_to(&stg_ch_late_names_ns, late_ns);
        return true;
    }
    if (!stg_ch_dir_moved(name / STG_CH_LEAVES, span))
        return false;
    for (unsigned dir = 0; dir < STG_CH_DIRS; dir++)
        if (allows(&stg_ch_names[dir * STG_CH_LEAVES + name % STG_CH_LEAVES], seen, span, &late_ns))
            return true;
    return false;
}

bool stg_ch_judge_gone(unsigned name, struct stg_ch_span span) {
    struct stg_ch_seen file = {.kind = STG_CH_FILE};

    if (!stg_ch_settings.pagecache || !stg_ch_judge_name(name, &file, span) ||
        !(changed(&stg_ch_names[name], span) || stg_ch_dir_moved(name / STG_CH_LEAVES, span)))
        return false;
    atomic_fetch_add(&stg_ch_gone, 1);
    return true;
}

bool stg_ch_judge_dir(unsigned dir, enum stg_ch_kind kind, struct stg_ch_span span) {
    struct stg_ch_seen seen = {.kind = kind};
    int64_t late_ns;

    return allows(&stg_ch_dirs[dir], &seen, span, &late_ns) ||
           (dir >= STG_CH_TOPS && stg_ch_dir_moved(dir, span));
}

bool stg_ch_always(unsigned name, struct stg_ch_span span) {
    struct stg_ch_log *log = &stg_ch_names[name];
    bool there = true;
    int64_t gone = STG_CH_PENDING;

    pthread_mutex_lock(&log->lock);
    for (size_t i = log->n; there && i-- > 0 && gone >= span.edge_ns;) {
        there = log->entries[i].kind != STG_CH_ABSENT || log->entries[i].begun_ns > span.end_ns;
        gone = log->entries[i].ended_ns;
    }
    pthread_mutex_unlock(&log->lock);
    return there;
}

/* ---- saying so ---- */

static double ago_s(int64_t now, int64_t then) {
    return then == STG_CH_PENDING ? 0 : (double)(now - then) / 1e9;
}

static void show_log(struct stg_ch_log *log, int64_t now) {
    static const char *const kinds[] = {"absent", "file", "link", "folder"};

    pthread_mutex_lock(&log->lock);
    for (size_t i = log->n > SHOWN_EDITS ? log->n - SHOWN_EDITS : 0; i < log->n; i++)
        printf("#     %.4f to %.4f s ago: %s: %s %u\n", ago_s(now, log->entries[i].begun_ns),
               ago_s(now, log->entries[i].ended_ns), log->entries[i].what,
               kinds[log->entries[i].kind], log->entries[i].id);
    pthread_mutex_unlock(&log->lock);
}

static void show_object(struct stg_ch_object *object, int64_t now) {
    pthread_mutex_lock(&object->lock);
    printf("#     object %u, inode %lu:\n", object->id, (unsigned long)object->ino);
    for (size_t i = object->n > SHOWN_EDITS ? object->n - SHOWN_EDITS : 0; i < object->n; i++) {
        const struct stg_ch_version *v = &object->versions[i];

        printf("#     %.4f to %.4f s ago: version %zu: %s: blocks from %u, %u, size %llu\n",
               ago_s(now, v->begun_ns), ago_s(now, v->ended_ns), i, v->what, v->first,
               v->blocks == STG_CH_TO_END ? 0 : v->blocks, (unsigned long long)v->size);
    }
    pthread_mutex_unlock(&object->lock);
}

void stg_ch_violation(int name, uint32_t id, const char *format, ...) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    unsigned long before = atomic_fetch_add(&stg_ch_violations, 1);
    char path[STG_CH_PATH_BYTES] = "";
    va_list list;

    if (before >= SHOWN_AT_MOST)
        return;
    if (name >= 0)
        stg_ch_name_path((unsigned)name, path);
    else if (name <= STG_CH_OF_DIR(0))
        stg_ch_dir_path((unsigned)(STG_CH_OF_DIR(0) - name), path);
    pthread_mutex_lock(&lock);
    printf("# VIOLATION after %lu edits: %s: ", atomic_load(&stg_ch_edits), path);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    if (name >= 0)
        show_log(&stg_ch_names[name], stg_ch_now_ns());
    else if (name <= STG_CH_OF_DIR(0))
        show_log(&stg_ch_dirs[STG_CH_OF_DIR(0) - name], stg_ch_now_ns());
    if (stg_ch_object(id) != NULL)
        show_object(stg_ch_object(id), stg_ch_now_ns());
    (void)fflush(stdout);
    pthread_mutex_unlock(&lock);
}
