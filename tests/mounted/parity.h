/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contract between the parity runner (parity.c) and the cases (parity_*.c).
 *
 * A case is a function that works in the current directory, a fresh one, and writes what it saw
 * into a transcript. The runner calls it once in a plain directory and once in the mount, each time
 * in a process of its own, and compares the two transcripts. A case therefore never says what is
 * right: the plain directory does. It must be deterministic there: no inode numbers, no clock
 * values, no process ids in the transcript, only relations between them.
 *
 * Cases run as root, or as an ordinary user with gid = uid and the one supplementary group
 * PT_GROUP; `who` in the table says which of the two a case is for.
 *
 * Not cases, because the kernel's FUSE part itself answers and no daemon can change it:
 * - fallocate's COLLAPSE_RANGE and INSERT_RANGE, FICLONE, FIEMAP, lseek's largest offset;
 * - stx_attributes of statx, and a birth time in its mask that was not asked for;
 * - f_type and f_fsid of statfs, access(W_OK) on immutable files, F_SETFL of O_NOATIME;
 * - O_APPEND and O_DIRECT given to open() stay in force for the passed-through file: clearing them
 * by F_SETFL, or for one write by RWF_NOAPPEND, has no effect;
 * - a file that is only mapped for writing, its descriptor closed, can be executed: the mapping
 * holds the source's file;
 * - epoll accepts regular files;
 * - root's passed-through write to a file whose set-id bits were set while it was open;
 * - root's chown(-1, -1) of a file with set-id bits and file capabilities: the request is the same
 *   as that of a write, which leaves root's set-id bits alone.
 */
#ifndef STG_TESTS_PARITY_H
#define STG_TESTS_PARITY_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum {
    PT_ANY = 0,    /* as root and as an ordinary user */
    PT_ROOT = 1,   /* as root only */
    PT_USER = 2,   /* as an ordinary user only */
    PT_SOURCE = 4, /* needs --source; combined with one of the above */
};

enum { PT_GROUP = 4242, PT_U1 = 12345, PT_U2 = 23456 };

/* One run of one case. */
struct pt {
    const char *base; /* absolute path of the case's directory, also the current directory */
    int source;       /* descriptor of the same directory in the source, -1 without --source */
    int other;        /* descriptor of an empty directory in NATIVE_DIR, outside of the mount */
    const void *arg;  /* of the table row */
    uid_t uid;        /* whom the case runs as; the gid is the same */
    struct pt_log *log;
};

struct pt_case {
    const char *name;
    void (*run)(struct pt *t);
    unsigned who;
    const void *arg;
};

/* The tables, each ends with a NULL name. */
extern const struct pt_case pt_stat_cases[], pt_open_cases[], pt_openers_cases[], pt_io_cases[],
    pt_copy_cases[], pt_space_cases[], pt_mmap_cases[], pt_exec_cases[], pt_name_cases[],
    pt_rename_cases[], pt_dir_cases[], pt_attr_cases[], pt_time_cases[], pt_xattr_cases[],
    pt_acl_cases[], pt_lock_cases[], pt_perm_cases[], pt_setid_cases[], pt_special_cases[],
    pt_notify_cases[], pt_error_cases[], pt_readonly_cases[];

/* Appends one line to the transcript; safe from several processes of one case. */
void pt_say(struct pt *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Append "what = value", or the errno's name when value is -1. Return value; keep errno. */
long long pt_value(struct pt *t, const char *what, long long value);
/* The same without the value: "what = ok". For descriptors, process ids. */
int pt_outcome(struct pt *t, const char *what, long long value);

/* These use the variable `t` of the function that they stand in. */
#define T(expr) pt_value(t, #expr, (errno = 0, (long long)(expr)))
#define OK(expr) pt_outcome(t, #expr, (errno = 0, (long long)(expr)))
#define SAY(...) pt_say(t, __VA_ARGS__)

/* Make things. Failures are written to the transcript, success is silent. */
void pt_make(struct pt *t, const char *name, const char *text); /* a file 0644 that holds text */
void pt_fill(struct pt *t, const char *name, size_t bytes, unsigned seed); /* reproducible bytes */
void pt_pattern(void *buffer, size_t bytes, unsigned seed);
void pt_mkdir(struct pt *t, const char *name, mode_t mode); /* exactly this mode */
/* make() by root for somebody else: owner, group and exact mode. */
void pt_own(struct pt *t, const char *name, uid_t uid, gid_t gid, mode_t mode);

/* Write what is there: type, mode, owner, links, size, device (lstat). */
void pt_show(struct pt *t, const char *name);
void pt_showfd(struct pt *t, const char *what, int fd);
/* Content: the text when short, else length and checksum. */
void pt_look(struct pt *t, const char *name);
void pt_lookfd(struct pt *t, const char *what, int fd);
void pt_bytes(struct pt *t, const char *what, const void *bytes, ssize_t count);
/* Names in a directory, sorted, with d_type, and whether each d_ino is the st_ino. */
void pt_list(struct pt *t, const char *name);
/* Extended attributes, sorted; of a symlink itself. system.* and security.* included. */
void pt_xattrs(struct pt *t, const char *name);

/* Times as relations: take a stamp, wait for the clock, act, and write what moved. */
struct pt_stamp {
    struct timespec atime, mtime, ctime;
};
struct pt_stamp pt_stamp(const char *name); /* lstat */
struct pt_stamp pt_stampfd(int fd);
void pt_moved(struct pt *t, const char *name, const struct pt_stamp *before);
void pt_movedfd(struct pt *t, const char *what, int fd, const struct pt_stamp *before);
/* Returns after the clock that stamps files has moved. */
void pt_tick(void);
/* Sets atime and mtime to 2001, so that everything that moves them shows. */
void pt_age(struct pt *t, const char *name);

/*
 * Processes. pt_spawn: 0 in the child, which ends with pt_end(). pt_reap waits and writes an
 * abnormal end. AS and CHILD run their block in a process of its own and wait for it; AS becomes
 * uid:gid with at most one supplementary group (0: none) and no capabilities, which takes root.
 */
pid_t pt_spawn(struct pt *t);
void pt_reap(struct pt *t, pid_t pid);
void pt_end(void) __attribute__((noreturn));
int pt_child(struct pt *t);
int pt_as(struct pt *t, uid_t uid, gid_t gid, gid_t group);
#define CHILD() for (int once_ = pt_child(t); once_; pt_end())
#define AS(uid, gid, group) for (int once_ = pt_as(t, uid, gid, group); once_; pt_end())
int pt_become(uid_t uid, gid_t gid, gid_t group);

/* One-way signals between processes of a case. An awaited signal comes or the case times out. */
struct pt_gate {
    int end[2];
};
void pt_gate_init(struct pt *t, struct pt_gate *gate);
void pt_gate_open(struct pt_gate *gate);
void pt_gate_await(struct pt *t, struct pt_gate *gate);
/* Waits until process pid sleeps (in a system call that blocks), at most some seconds. */
void pt_await_sleep(pid_t pid);

/* Builds the tree that pt_readonly_cases look at. 0 or -errno. */
int pt_readonly_prepare(const char *dir);

#endif
