/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of the randomised test share: random.c (options, threads, the three phases),
 * random_ops.c (one operation: drawn, done on both sides, compared) and random_tree.c (two trees
 * compared after the fact).
 *
 * Everything is done on two sides, the mount and a plain directory. The plain one says what is
 * right. What is drawn depends on the seed, the thread and the plain side's results alone, so a
 * thread's sequence can be repeated without the other threads.
 */
#ifndef STG_TESTS_RANDOM_H
#define STG_TESTS_RANDOM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

enum { RT_MOUNT = 0, RT_PLAIN = 1, RT_SIDES = 2 };

enum {
    RT_SLOTS = 14, /* descriptors that one thread holds on each side */
    RT_MAPS = 3,   /* mappings kept across steps */
    RT_PATHS = 48, /* paths remembered because something was made there */
    RT_PATH_BYTES = 320,
    RT_BUFFER_BYTES = 1 << 18,
    RT_TRACE = 16, /* last steps shown with a difference */
    RT_TRACE_BYTES = 360,
};

/* Times before this one (2011) were set by the test and must be the same on both sides; a later
 * one is some moment of the run. */
#define RT_SET_TIMES_END 1300000000

struct rt_map {
    void *address[RT_SIDES]; /* NULL when free */
    int fd[RT_SIDES];
    size_t bytes;
};

/* One thread's state. Nothing in it is seen by another thread while it runs. */
struct rt_runner {
    unsigned id;
    uint64_t rng;
    unsigned long steps;
    bool chaos; /* several threads in one directory of the mount, no plain side */
    bool trace_all;
    bool check_all;    /* compare the thread's trees after each step */
    int top[RT_SIDES]; /* the thread's directory */
    int slots[RT_SLOTS][RT_SIDES];
    struct rt_map maps[RT_MAPS];
    char paths[RT_PATHS][RT_PATH_BYTES];
    unsigned n_paths;
    char *buffer[RT_SIDES];
    char *data; /* what is written */
    char trace[RT_TRACE][RT_TRACE_BYTES];
    unsigned long done, succeeded;
    bool failed;
    char *report; /* grows; owned */
};

/* Random numbers: splitmix64. below() wants n > 0. */
uint64_t stg_rt_next(uint64_t *state);
uint64_t stg_rt_below(uint64_t *state, uint64_t n);
void stg_rt_fill(char *data, size_t bytes, uint64_t seed);

/* Adds a line to the runner's report and marks it as failed. */
void stg_rt_fail(struct rt_runner *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Does r->steps operations below r->top; stops at the first difference. */
void stg_rt_run(struct rt_runner *r);

/* How two trees are compared. */
struct rt_compare {
    bool exact; /* the two are one tree seen two ways: all times, inode numbers and blocks too */
    const char *skip_content; /* a file name whose content is left to the caller, or NULL */
};

/*
 * Compares everything below (and including) two directories; returns the number of differences and
 * prints each one, up to some, as a comment line that begins with `what`.
 */
unsigned long stg_rt_compare_trees(const char *what, int a, int b, const struct rt_compare *how,
                                   unsigned long *ret_objects);

#endif
