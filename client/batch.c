/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the bases and the requests that are being filled. */
#include "client/batch.h"

#include "client/cleanup.h"
#include "client/outside.h"
#include "client/path.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct stg_batch *stg_batch_new(int dirfd, const struct stg_plan *plan) {
    struct stg_batch *batch = calloc(1, sizeof(*batch));

    if (batch) {
        batch->plan = plan;
        batch->dirfd = dirfd;
        batch->common = "";
    }
    return batch;
}

/* ---- sending ---- */

static void fill_head(const struct stg_plan *plan, struct stagefs_stage_request *request) {
    request->version = STAGEFS_PROTOCOL_VERSION;
    request->flags = 0;
    request->mode = plan->mode;
    (void)snprintf(request->set, sizeof(request->set), "%s", plan->set); /* its length is checked */
}

static void advise_names(struct stg_batch *batch, const struct stg_base *base) {
    const char *names = base->request.names;

    for (size_t at = 0; at < base->request.names_bytes; at += strlen(names + at) + 1)
        stg_outside_advise_at(base->fd, names + at, batch->plan->outside_advice, &batch->result);
}

static void fail_names(struct stg_batch *batch, const struct stg_base *base, int error) {
    const char *names = base->request.names;

    for (size_t at = 0; at < base->request.names_bytes; at += strlen(names + at) + 1)
        stg_result_fail(&batch->result, names + at, error);
}

static void send_names(struct stg_batch *batch, struct stg_base *base) {
    int error;

    if (!base->names)
        return;
    fill_head(batch->plan, &base->request);
    error =
        stg_jobs_send(&batch->jobs, base->fd, batch->plan->command, &base->request, base->names);
    if (!error)
        batch->taken += base->names;
    else if (error == -ENOTTY)
        advise_names(batch, base);
    else
        fail_names(batch, base, error);
    base->request.names_bytes = 0;
    base->names = 0;
}

void stg_batch_flush(struct stg_batch *batch) {
    for (size_t i = 0; i < STG_BASES_MAX; i++)
        if (batch->bases[i].dir)
            send_names(batch, &batch->bases[i]);
}

void stg_batch_add_open(struct stg_batch *batch, int fd, const char *path) {
    stg_client_auto_free struct stagefs_stage_request *request = calloc(1, sizeof(*request));
    const struct stg_plan *plan = batch->plan;
    int error = -ENOMEM;

    if (request) {
        fill_head(plan, request);
        request->flags = plan->recursive ? STAGEFS_RECURSIVE : 0;
        error = stg_jobs_send(&batch->jobs, fd, plan->command, request, 1);
    }
    if (!error)
        batch->taken++;
    else if (error == -ENOTTY)
        stg_outside_advise(fd, path, plan->outside_advice, plan->recursive, &batch->result);
    else
        stg_result_fail(&batch->result, path, error);
}

void stg_batch_add_alone(struct stg_batch *batch, const char *path) {
    stg_client_auto_fd int fd = -1;
    struct stat st;
    int error = fstatat(batch->dirfd, path, &st, 0) ? -errno : 0;

    /* A device is not to be opened for this: that may do something. */
    if (!error && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        error = -EINVAL;
    if (!error) {
        fd = openat(batch->dirfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        error = fd < 0 ? -errno : 0;
    }
    if (error)
        stg_result_fail(&batch->result, path, error);
    else
        stg_batch_add_open(batch, fd, path);
}

/* ---- bases ---- */

static void close_base(struct stg_base *base) {
    if (!base->dir)
        return;
    stg_client_close(&base->fd);
    free(base->dir);
    *base = (struct stg_base){0};
}

void stg_batch_free(struct stg_batch *batch) {
    if (!batch)
        return;
    for (size_t i = 0; i < STG_BASES_MAX; i++)
        close_base(&batch->bases[i]);
    stg_jobs_fini(&batch->jobs);
    free(batch);
}

void stg_batch_limit(struct stg_batch *batch, const char *const *files, size_t count) {
    if (!count)
        return;
    batch->common = files[0];
    batch->common_bytes = stg_path_dir_bytes(files[0]);
    for (size_t i = 1; i < count; i++)
        batch->common_bytes =
            stg_path_common(files[0], batch->common_bytes, files[i], stg_path_dir_bytes(files[i]));
}

static struct stg_base *find_base(struct stg_batch *batch, const char *dir) {
    for (size_t i = 0; i < STG_BASES_MAX; i++) {
        struct stg_base *base = &batch->bases[i];
        const char *below = base->dir ? stg_path_below(base->dir, strlen(base->dir), dir) : NULL;

        if (below && stg_path_is_plain(base->fd, below))
            return base;
    }
    return NULL;
}

static int make_base(struct stg_batch *batch, const char *dir, struct stg_base **ret_base) {
    struct stg_base *base = &batch->bases[batch->next];
    bool limited = stg_path_below(batch->common, batch->common_bytes, dir) != NULL;
    size_t bytes;
    int fd = stg_path_open_base(batch->dirfd, dir, limited ? batch->common_bytes : 0, &bytes);
    char *own;

    if (fd < 0)
        return fd;
    own = strndup(dir, bytes);
    if (!own) {
        stg_client_close(&fd);
        return -ENOMEM;
    }
    if (base->dir)
        send_names(batch, base);
    close_base(base);
    base->dir = own;
    base->fd = fd;
    batch->next = (batch->next + 1) % STG_BASES_MAX;
    *ret_base = base;
    return 0;
}

/* Makes the base of the folder `dir` the last one. Returns 0 or -errno. */
static int choose_base(struct stg_batch *batch, const char *dir) {
    struct stg_base *base;
    int error = 0;

    if (batch->last_base && !strcmp(batch->last_dir, dir))
        return 0;
    batch->last_base = NULL;
    base = find_base(batch, dir);
    if (!base)
        error = make_base(batch, dir, &base);
    if (error)
        return error;
    strcpy(batch->last_dir, dir);
    strcpy(batch->last_below, stg_path_below(base->dir, strlen(base->dir), dir));
    /* There is no symbolic link in it. */
    stg_path_normalise(batch->last_below);
    batch->last_base = base;
    return 0;
}

/* ---- paths ---- */

static void append(struct stg_batch *batch, const char *name) {
    struct stg_base *base = batch->last_base;
    const char *below = batch->last_below;
    size_t bytes = strlen(below) + (*below ? 1 : 0) + strlen(name) + 1;

    if (base->request.names_bytes + bytes > sizeof(base->request.names))
        send_names(batch, base);
    (void)snprintf(base->request.names + base->request.names_bytes, bytes, "%s%s%s", below,
                   *below ? "/" : "", name); /* it was measured */
    base->request.names_bytes += (uint32_t)bytes;
    base->names++;
}

void stg_batch_add(struct stg_batch *batch, const char *path) {
    const char *name = stg_path_name(path);
    size_t bytes = stg_path_dir_bytes(path);
    char dir[PATH_MAX];
    int error = 0;

    if (!*path || strlen(path) >= STAGEFS_NAME_BYTES) {
        stg_result_fail(&batch->result, path, *path ? -ENAMETOOLONG : -ENOENT);
        return;
    }
    if (!stg_path_is_special(name)) {
        memcpy(dir, path, bytes);
        dir[bytes] = '\0';
        error = choose_base(batch, dir);
    }
    /* A folder that may be searched and not read gives no base; its files can still be opened. */
    if (stg_path_is_special(name) || error == -EACCES)
        stg_batch_add_alone(batch, path);
    else if (error)
        stg_result_fail(&batch->result, path, error);
    else
        append(batch, name);
}
