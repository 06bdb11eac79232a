/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Opening by handle, with a kernel that has no answer yet (-Wl,--wrap=open_by_handle_at), and with
 * the file system of the temporary folder, whose inode numbers are given to new files meanwhile.
 */
#include "tests/unit/unit.h"

#include "util/handle.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int __real_open_by_handle_at(int mount_fd, struct file_handle *handle, int flags);
int __wrap_open_by_handle_at(int mount_fd, struct file_handle *handle, int flags);

/* What the kernel says to the next calls, if anything; then `then`. */
static struct {
    bool answers;
    int early;
    int early_error;
    int then; /* a descriptor, or -errno */
    int calls;
} kernel;

int __wrap_open_by_handle_at(int mount_fd, struct file_handle *handle, int flags) {
    int answer;

    if (!kernel.answers)
        return __real_open_by_handle_at(mount_fd, handle, flags);
    answer = kernel.calls++ < kernel.early ? -kernel.early_error : kernel.then;
    if (answer >= 0)
        return answer;
    errno = -answer;
    return -1;
}

static int ask(int early, int early_error, int then) {
    struct file_handle none = {.handle_bytes = 0};
    int result;

    memset(&kernel, 0, sizeof(kernel));
    kernel.answers = true;
    kernel.early = early;
    kernel.early_error = early_error;
    kernel.then = then;
    result = stg_handle_open(3, &none, O_PATH);
    kernel.answers = false;
    return result;
}

static void no_answer_yet_is_asked_again(void **state) {
    (void)state;
    assert_int_equal(ask(1, ENOMEM, -ESTALE), -ESTALE);
    assert_int_equal(ask(5, ENOMEM, 77), 77);
    assert_int_equal(ask(80, ENOMEM, 77), 77); /* pauses, too */
    assert_int_equal(kernel.calls, 81);
}

static void other_answers_stand(void **state) {
    (void)state;
    assert_int_equal(ask(0, 0, 77), 77);
    assert_int_equal(ask(1, ESTALE, 77), -ESTALE);
    assert_int_equal(ask(1, EMFILE, 77), -EMFILE);
    assert_int_equal(kernel.calls, 1);
}

static void no_memory_is_said_in_the_end(void **state) {
    (void)state;
    assert_int_equal(ask(INT_MAX, ENOMEM, 77), -ENOMEM);
}

#define NAMES 64
union handle {
    struct file_handle head;
    char bytes[sizeof(struct file_handle) + 128];
};

struct folder {
    char path[PATH_MAX / 2];
    union handle handles[NAMES];
    _Atomic int made; /* handles that are there */
    atomic_bool over;
    pthread_mutex_t lock; /* for the handles */
};

static void name_of(const struct folder *folder, int i, char path[PATH_MAX]) {
    (void)snprintf(path, PATH_MAX, "%s/%d", folder->path, i);
}

static void *make_and_remove(void *of) {
    struct folder *folder = of;
    char path[PATH_MAX];
    unsigned seed = 1;

    for (int i = 0; !atomic_load(&folder->over); i = (i + 1) % NAMES) {
        union handle handle = {.head = {.handle_bytes = 128}};
        int mount_id;
        int fd;

        name_of(folder, i, path);
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0 || name_to_handle_at(fd, "", &handle.head, &mount_id, AT_EMPTY_PATH)) {
            atomic_store(&folder->made, -errno);
            return NULL;
        }
        close(fd);
        pthread_mutex_lock(&folder->lock);
        folder->handles[i] = handle;
        pthread_mutex_unlock(&folder->lock);
        if (i == NAMES - 1)
            atomic_store(&folder->made, NAMES);
        name_of(folder, rand_r(&seed) % NAMES, path);
        if (rand_r(&seed) % 2)
            (void)unlink(path); /* which may be gone */
    }
    return NULL;
}

/* Before, ext4 said ENOMEM hundreds of times in ten seconds. */
static void a_number_that_is_given_again_is_stale_or_new(void **state) {
    struct folder folder = {.lock = PTHREAD_MUTEX_INITIALIZER};
    const char *tmp = getenv("TMPDIR");
    time_t end = time(NULL) + 3;
    char path[PATH_MAX];
    pthread_t thread;
    int odd = 0;
    int mount_fd;

    (void)state;
    (void)snprintf(folder.path, sizeof(folder.path), "%s/handle.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder.path));
    mount_fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(mount_fd >= 0);
    assert_int_equal(pthread_create(&thread, NULL, make_and_remove, &folder), 0);
    while (!atomic_load(&folder.made) && time(NULL) < end)
        (void)sched_yield();
    for (int i = 0; atomic_load(&folder.made) > 0 && time(NULL) < end && !odd;
         i = (i + 1) % NAMES) {
        union handle handle;
        int fd;

        pthread_mutex_lock(&folder.lock);
        handle = folder.handles[i];
        pthread_mutex_unlock(&folder.lock);
        fd = stg_handle_open(mount_fd, &handle.head, O_PATH | O_CLOEXEC);
        if (fd >= 0)
            close(fd);
        else if (fd != -ESTALE)
            odd = fd;
    }
    atomic_store(&folder.over, true);
    pthread_join(thread, NULL);
    for (int i = 0; i < NAMES; i++) {
        name_of(&folder, i, path);
        (void)unlink(path);
    }
    close(mount_fd);
    (void)rmdir(folder.path);
    if (folder.made < 0 || odd == -EPERM)
        skip(); /* no handles there, or not for this user */
    assert_int_equal(odd, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_answer_yet_is_asked_again),
        cmocka_unit_test(other_answers_stand),
        cmocka_unit_test(no_memory_is_said_in_the_end),
        cmocka_unit_test(a_number_that_is_given_again_is_stale_or_new),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
