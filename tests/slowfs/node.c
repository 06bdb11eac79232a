/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the table of nodes, under one lock that is held over no system call but close(2). */
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUCKETS 16384

struct handle {
    struct file_handle head;
    unsigned char bytes[MAX_HANDLE_SZ];
};

struct node {
    struct node *next; /* in its bucket */
    dev_t dev;
    ino_t ino;
    uint64_t lookups; /* that the kernel has not forgotten; protected by the lock */
    int fd;           /* O_PATH, or -1: by handle. Neither changes */
    struct file_handle *handle;
};

static struct {
    int fd; /* of the source; not O_PATH, which open_by_handle_at(2) refuses */
    dev_t dev;
    bool has_handles;
    pthread_mutex_t lock; /* protects the buckets */
    struct node *buckets[BUCKETS];
} source = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- handles ---- */

static bool get_handle(int fd, struct handle *ret_handle) {
    int mount;

    memset(ret_handle, 0, sizeof(*ret_handle));
    ret_handle->head.handle_bytes = MAX_HANDLE_SZ;
    return !name_to_handle_at(fd, "", &ret_handle->head, &mount, AT_EMPTY_PATH);
}

static int open_handle(struct file_handle *handle) {
    int fd = open_by_handle_at(source.fd, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static bool handles_work(void) {
    struct handle handle;
    int fd;

    if (!get_handle(source.fd, &handle))
        return false;
    fd = open_handle(&handle.head);
    if (fd < 0)
        return false;
    (void)close(fd); /* O_PATH: nothing can fail */
    return true;
}

int slow_node_init(const char *path) {
    struct stat info;

    source.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source.fd < 0 || fstat(source.fd, &info))
        return -errno;
    source.dev = info.st_dev;
    source.has_handles = handles_work();
    return 0;
}

/* ---- nodes ---- */

static struct node **bucket_of(ino_t ino) { return &source.buckets[ino % BUCKETS]; }

static size_t handle_size(const struct file_handle *handle) {
    return sizeof(*handle) + handle->handle_bytes;
}

/* The handle too: an inode's number is soon given to another file. */
static bool is_same(const struct node *node, const struct stat *info,
                    const struct file_handle *handle) {
    if (node->ino != info->st_ino || node->dev != info->st_dev || !node->handle != !handle)
        return false;
    return !handle || (handle_size(handle) == handle_size(node->handle) &&
                       !memcmp(handle, node->handle, handle_size(handle)));
}

static struct node *find_locked(const struct stat *info, const struct file_handle *handle) {
    for (struct node *node = *bucket_of(info->st_ino); node; node = node->next)
        if (is_same(node, info, handle))
            return node;
    return NULL;
}

static void free_node(struct node *node) {
    if (!node)
        return;
    if (node->fd >= 0)
        (void)close(node->fd); /* O_PATH */
    free(node->handle);
    free(node);
}

static struct node *new_node(int fd, const struct stat *info, const struct file_handle *handle) {
    struct node *node = calloc(1, sizeof(*node));

    if (!node)
        return NULL;
    node->dev = info->st_dev;
    node->ino = info->st_ino;
    node->fd = handle ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    node->handle = handle ? malloc(handle_size(handle)) : NULL;
    if (handle ? !node->handle : node->fd < 0) {
        free_node(node);
        return NULL;
    }
    if (handle)
        memcpy(node->handle, handle, handle_size(handle));
    return node;
}

/* The node of an open file, counted once more; NULL without memory or descriptors. */
static struct node *get_node(int fd, const struct stat *info) {
    struct handle handle;
    bool by_handle = source.has_handles && info->st_dev == source.dev && get_handle(fd, &handle);
    struct node *fresh = new_node(fd, info, by_handle ? &handle.head : NULL);
    struct node *node;

    pthread_mutex_lock(&source.lock);
    node = find_locked(info, by_handle ? &handle.head : NULL);
    if (!node && fresh) {
        node = fresh;
        fresh = NULL;
        node->next = *bucket_of(node->ino);
        *bucket_of(node->ino) = node;
    }
    if (node)
        node->lookups++;
    pthread_mutex_unlock(&source.lock);
    free_node(fresh);
    return node;
}

int slow_node_lookup(int parent_fd, const char *name, struct fuse_entry_param *ret_entry) {
    int fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct node *node = NULL;
    struct stat info;
    int error = 0;

    if (fd < 0 || fstat(fd, &info))
        error = -errno;
    else if (!(node = get_node(fd, &info)))
        error = -ENOMEM;
    if (fd >= 0)
        (void)close(fd); /* O_PATH */
    if (error)
        return error;
    ret_entry->ino = (fuse_ino_t)(uintptr_t)node;
    ret_entry->attr = info;
    return 0;
}

int slow_node_open(fuse_ino_t ino) {
    struct node *node = (struct node *)(uintptr_t)ino; /* until the kernel forgets it */
    int fd;

    if (ino != FUSE_ROOT_ID && node->handle)
        return open_handle(node->handle);
    fd = fcntl(ino == FUSE_ROOT_ID ? source.fd : node->fd, F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static void unlink_locked(struct node *node) {
    struct node **place = bucket_of(node->ino);

    while (*place != node)
        place = &(*place)->next;
    *place = node->next;
}

void slow_node_forget(fuse_ino_t ino, uint64_t times) {
    struct node *node = (struct node *)(uintptr_t)ino;
    bool gone;

    if (ino == FUSE_ROOT_ID)
        return;
    pthread_mutex_lock(&source.lock);
    node->lookups -= times;
    gone = !node->lookups;
    if (gone)
        unlink_locked(node);
    pthread_mutex_unlock(&source.lock);
    if (gone)
        free_node(node);
}
