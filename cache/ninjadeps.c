/* SPDX-License-Identifier: GPL-2.0-only */
#include "cache/ninjadeps.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "# ninjadeps\n"
#define WORD sizeof(uint32_t)
#define IS_DEPS UINT32_C(0x80000000)
#define RECORDS_MAX (UINT32_C(1) << 20) /* of either kind; what comes after them is not read */
#define RECORD_MAX_BYTES ((UINT32_C(1) << 19) - 1)

struct node {
    const char *path; /* in the log, not terminated */
    uint32_t bytes;
    uint32_t deps; /* which record of dependencies is its last; 0: none */
    bool visited;
};

/* The words of a record after what it is of and when: the nodes on which that depends. */
struct deps {
    const char *nodes;
    uint32_t count;
    uint32_t of;
};

struct log {
    struct node *nodes;
    uint32_t node_count;
    uint32_t node_room;
    struct deps *deps; /* from 1 on */
    uint32_t deps_count;
    uint32_t deps_room;
    uint32_t words_before; /* in a record of dependencies, before the nodes */
};

static uint32_t word_at(const char *at) {
    uint32_t word;

    memcpy(&word, at, WORD); /* ninja writes its machine's own */
    return word;
}

/* Room for one more; false without memory. */
static bool grow(void **array, uint32_t count, uint32_t *room, size_t bytes) {
    uint32_t more = *room ? *room * 2 : 1024;
    void *grown;

    if (count < *room)
        return true;
    grown = reallocarray(*array, more, bytes);
    if (!grown)
        return false;
    *array = grown;
    *room = more;
    return true;
}

/* A path, padded with zeros, and its number's complement. -EBADMSG: the log ends before it. */
static int add_node(struct log *log, const char *record, uint32_t bytes) {
    uint32_t padded = bytes - (uint32_t)WORD;
    uint32_t length = padded;

    if (bytes <= WORD || word_at(record + padded) != ~log->node_count ||
        log->node_count == RECORDS_MAX)
        return -EBADMSG;
    while (length && padded - length < WORD - 1 && !record[length - 1])
        length--;
    if (!grow((void **)&log->nodes, log->node_count, &log->node_room, sizeof(*log->nodes)))
        return -ENOMEM;
    log->nodes[log->node_count++] = (struct node){.path = record, .bytes = length};
    return 0;
}

static int add_deps(struct log *log, const char *record, uint32_t bytes) {
    uint32_t words = bytes / (uint32_t)WORD;
    uint32_t of;

    if (bytes % WORD || words < log->words_before || log->deps_count == RECORDS_MAX)
        return -EBADMSG;
    of = word_at(record);
    if (of >= log->node_count)
        return -EBADMSG;
    if (!grow((void **)&log->deps, log->deps_count + 1, &log->deps_room, sizeof(*log->deps)))
        return -ENOMEM;
    log->deps[++log->deps_count] = (struct deps){
        .nodes = record + log->words_before * WORD, .count = words - log->words_before, .of = of};
    log->nodes[of].deps = log->deps_count;
    return 0;
}

static int read_records(struct log *log, const char *at, size_t left) {
    int error = 0;

    while (!error && left >= WORD) {
        uint32_t bytes = word_at(at) & ~IS_DEPS;
        bool is_deps = word_at(at) & IS_DEPS;

        if (bytes > RECORD_MAX_BYTES || bytes > left - WORD)
            break;
        error = is_deps ? add_deps(log, at + WORD, bytes) : add_node(log, at + WORD, bytes);
        at += WORD + bytes;
        left -= WORD + bytes;
    }
    return error == -EBADMSG ? 0 : error;
}

static void visit_node(struct node *node, void (*visit)(void *context, const char *path),
                       void *context) {
    char path[PATH_MAX];

    if (node->visited || !node->bytes || node->bytes >= sizeof(path))
        return;
    node->visited = true;
    memcpy(path, node->path, node->bytes);
    path[node->bytes] = '\0';
    visit(context, path);
}

static void visit_all(struct log *log, void (*visit)(void *context, const char *path),
                      void *context) {
    for (uint32_t i = 1; i <= log->deps_count; i++) {
        const struct deps *deps = &log->deps[i];

        if (log->nodes[deps->of].deps != i)
            continue; /* it was built anew after that */
        for (uint32_t k = 0; k < deps->count; k++) {
            uint32_t number = word_at(deps->nodes + k * WORD);

            if (number < log->node_count)
                visit_node(&log->nodes[number], visit, context);
        }
    }
}

int stg_ninjadeps_read(const char *log, size_t bytes,
                       void (*visit)(void *context, const char *path), void *context) {
    const size_t head = sizeof(MAGIC) - 1 + WORD;
    struct log read = {0};
    uint32_t version;
    int error;

    if (bytes < head || memcmp(log, MAGIC, sizeof(MAGIC) - 1))
        return -EBADMSG;
    version = word_at(log + sizeof(MAGIC) - 1);
    if (version != 3 && version != 4)
        return -EBADMSG;
    read.words_before = version == 3 ? 2 : 3; /* the time has one word, or two */
    error = read_records(&read, log + head, bytes - head);
    if (!error)
        visit_all(&read, visit, context);
    free(read.nodes);
    free(read.deps);
    return error;
}
