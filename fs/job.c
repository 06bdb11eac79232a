/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns jobs, sets and the threads that look files up.
 *
 * An item of work is one path below an inode, or a folder whose entries become items. A job counts
 * what is not finished of it (`open`): items, and files that are being fetched. One lock for all of
 * this, never held across I/O or a call of the engine.
 */
#include "fs/job.h"

#include "fs/entries.h"
#include "fs/names.h"
#include "fs/ops.h"
#include "fs/staging.h"
#include "util/clock.h"
#include "util/crew.h"
#include "util/cleanup.h"
#include "util/log.h"

#include <dirent.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#define JOBS_MAX 256
#define FORGET_NS INT64_C(60000000000)
#define DEPTH_MAX 256
/* Paths that wait to be looked up: with more than that nothing is taken in. */
#define ITEMS_MAX 200000

struct job {
    uint64_t id; /* 0: free; protected by lock, as all below */
    uid_t owner;
    uint64_t open; /* items and fetches that are not finished */
    int64_t finished_ns;
    uint64_t files;
    uint64_t done;
    uint64_t failed;
    uint64_t bytes;
    int first_error;
    char *first_failed;
};

struct set {
    struct set *next;
    uint32_t id;
    uid_t owner;
    char name[STAGEFS_SET_BYTES];
    struct stg_inode **inodes; /* each referenced */
    size_t count;
    size_t room;
};

/* What the items of one request have in common. */
struct request {
    unsigned refs; /* protected by lock */
    struct stg_caller caller;
    enum stg_job_kind kind;
    int mode;
    bool recursive;
    uint32_t set; /* 0: none */
    uint64_t job;
};

struct item {
    struct stg_crew_work work;
    struct request *request;
    struct stg_inode *from; /* referenced */
    unsigned depth;
    char path[]; /* "": `from` itself */
};

static struct stg_lock lock = STG_LOCK(STG_RANK_LINGER);
static struct job jobs[JOBS_MAX];
static uint64_t next_job = 1;
static struct set *sets;
static uint32_t next_set = 1;

static void work(struct stg_crew_work *work);
static void drop(struct stg_crew_work *work);
static struct stg_crew crew =
    STG_CREW(STG_RANK_LINGER, .name = "staging on request", .threads_max = STG_CREW_THREADS_MAX,
             .work = work, .drop = drop);

/* ---- jobs ---- */

static struct job *find_job_locked(uint64_t id) {
    struct job *job = &jobs[id % JOBS_MAX];

    return id && job->id == id ? job : NULL;
}

static bool is_over_locked(const struct job *job, int64_t now_ns) {
    return job->id && !job->open && now_ns - job->finished_ns > FORGET_NS;
}

/* A job of its own: in the next place, where no job is running. NULL where one is. */
static struct job *make_job_locked(uid_t owner) {
    uint64_t id = next_job;
    struct job *job = &jobs[id % JOBS_MAX];

    for (unsigned tried = 0; job->id && job->open && tried < JOBS_MAX; tried++)
        job = &jobs[++id % JOBS_MAX];
    if (job->id && job->open)
        return NULL;
    next_job = id + 1;
    free(job->first_failed);
    *job = (struct job){.id = id, .owner = owner};
    return job;
}

static void finish_locked(struct job *job, unsigned count) {
    job->open -= count;
    if (!job->open)
        job->finished_ns = stg_clock_monotonic_ns();
}

/* One file is done with: 0 and how large it is, or -errno. */
static void note(uint64_t id, int error, uint64_t bytes, const char *path) {
    struct job *job;

    stg_lock_take(&lock);
    job = find_job_locked(id);
    if (job && !error) {
        job->done++;
        job->bytes += bytes;
    } else if (job) {
        job->failed++;
        if (!job->first_error) {
            job->first_error = -error;
            job->first_failed = strdup(path); /* without memory: not named */
        }
    }
    stg_lock_drop(&lock);
}

static void count_file(uint64_t id) {
    struct job *job;

    stg_lock_take(&lock);
    job = find_job_locked(id);
    if (job)
        job->files++;
    stg_lock_drop(&lock);
}

static void change_open(uint64_t id, int by) {
    struct job *job;

    stg_lock_take(&lock);
    job = find_job_locked(id);
    if (job && by > 0)
        job->open += (unsigned)by;
    else if (job)
        finish_locked(job, (unsigned)-by);
    stg_lock_drop(&lock);
}

int stg_job_query(const struct stg_caller *caller, struct stagefs_job_request *request) {
    const struct job *job;
    int error = 0;

    stg_lock_take(&lock);
    job = find_job_locked(request->job);
    if (!job || (caller->uid && caller->uid != job->owner) ||
        is_over_locked(job, stg_clock_monotonic_ns()))
        error = -ENOENT;
    if (!error) {
        request->running = job->open > 0;
        request->files = job->files;
        request->done = job->done;
        request->failed = job->failed;
        request->bytes = job->bytes;
        request->first_error = (uint32_t)job->first_error;
        (void)snprintf(request->first_failed, sizeof(request->first_failed), "%s",
                       job->first_failed ? job->first_failed : ""); /* cut where it is longer */
    }
    stg_lock_drop(&lock);
    return error;
}

/* ---- sets ---- */

static struct set *find_set_locked(const char *name) {
    struct set *set = sets;

    while (set && strcmp(set->name, name))
        set = set->next;
    return set;
}

/* The set of that name, made where there is none; 0 without memory, or where it is another's. */
static uint32_t set_of(const char *name, uid_t owner) {
    struct set *set;
    uint32_t id;

    stg_lock_take(&lock);
    set = find_set_locked(name);
    if (!set && (set = calloc(1, sizeof(*set)))) {
        (void)snprintf(set->name, sizeof(set->name), "%s", name); /* was measured */
        set->id = next_set++;
        set->owner = owner;
        set->next = sets;
        sets = set;
    }
    id = set && (set->owner == owner || !owner) ? set->id : 0; /* another's is not joined */
    stg_lock_drop(&lock);
    return id;
}

static bool is_member_locked(const struct set *set, const struct stg_inode *inode) {
    for (size_t i = 0; i < set->count; i++)
        if (set->inodes[i] == inode)
            return true;
    return false;
}

static int join_set(uint32_t id, struct stg_inode *inode) {
    struct set *set = sets;
    int error = 0;

    if (!id || !stg_staging_join_set(inode, id))
        return 0;
    stg_lock_take(&lock);
    for (set = sets; set && set->id != id; set = set->next)
        ;
    if (set && is_member_locked(set, inode))
        set = NULL;
    if (set && set->count == set->room) {
        size_t room = set->room ? set->room * 2 : 64;
        struct stg_inode **more = reallocarray(set->inodes, room, sizeof(*more));

        if (more) {
            set->inodes = more;
            set->room = room;
        }
        error = more ? 0 : -ENOMEM;
    }
    if (set && !error) {
        stg_inode_ref(inode);
        set->inodes[set->count++] = inode;
    }
    stg_lock_drop(&lock);
    return error;
}

void stg_job_set_name(uint32_t id, char name[STAGEFS_SET_BYTES]) {
    const struct set *set;

    stg_lock_take(&lock);
    for (set = sets; set && set->id != id; set = set->next)
        ;
    (void)snprintf(name, STAGEFS_SET_BYTES, "%s", set ? set->name : ""); /* always fits */
    stg_lock_drop(&lock);
}

/* The members that are still in the set, each referenced; `*ret_inodes` is the caller's. */
static size_t copy_members_locked(const struct set *set, struct stg_inode ***ret_inodes) {
    *ret_inodes = calloc(set->count ? set->count : 1, sizeof(**ret_inodes));
    if (!*ret_inodes)
        return 0;
    for (size_t i = 0; i < set->count; i++) {
        (*ret_inodes)[i] = set->inodes[i];
        stg_inode_ref(set->inodes[i]);
    }
    return set->count;
}

int stg_job_query_set(struct stagefs_set_request *request) {
    stg_auto_free struct stg_inode **inodes = NULL;
    struct set *set;
    size_t count = 0;
    uint32_t id = 0;

    stg_lock_take(&lock);
    if (*request->name)
        set = find_set_locked(request->name);
    else
        for (set = sets; set && request->index; request->index--)
            set = set->next;
    if (set) {
        id = set->id;
        memcpy(request->name, set->name, sizeof(request->name));
        count = copy_members_locked(set, &inodes);
    }
    stg_lock_drop(&lock);
    if (!set)
        return -ENOENT;
    request->files = request->staged_files = request->size_bytes = request->staged_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        struct stg_staging_view view = stg_staging_view(inodes[i]);

        if (view.set == id) {
            request->files++;
            request->staged_files += view.state == STG_HOT || view.state == STG_COLD;
            request->size_bytes += view.size_bytes;
            request->staged_bytes += view.staged_bytes;
        }
        stg_inode_unref(inodes[i]);
    }
    return 0;
}

/* Takes the set, or any for NULL, out of the list. 0, -ENOENT, or -EPERM for another's. */
static int take_set(const char *name, const struct stg_caller *caller, struct set **ret_set) {
    struct set **link = &sets;
    int error = 0;

    stg_lock_take(&lock);
    while (*link && name && strcmp((*link)->name, name))
        link = &(*link)->next;
    *ret_set = *link;
    if (!*link)
        error = -ENOENT;
    else if (caller && caller->uid && caller->uid != stg_fs.daemon_uid &&
             caller->uid != (*link)->owner)
        error = -EPERM;
    else
        *link = (*link)->next;
    stg_lock_drop(&lock);
    return error;
}

int64_t stg_job_unstage_set(const char *name, const struct stg_caller *caller) {
    struct set *set;
    int64_t files = 0;
    int error = take_set(name, caller, &set);

    if (error)
        return error;
    for (size_t i = 0; i < set->count; i++) {
        if (stg_staging_view(set->inodes[i]).set == set->id) {
            stg_staging_unstage(set->inodes[i]);
            files++;
        }
        stg_inode_unref(set->inodes[i]);
    }
    free(set->inodes);
    free(set);
    return files;
}

/* ---- finding files ---- */

/* May the caller do that with the object? As access(2) would say, with his own identity. */
static int check_access(struct stg_inode *inode, const struct stg_caller *caller, int mode) {
    stg_auto_lent struct stg_lent_fd lent = STG_LENT_NONE;
    struct stg_creds creds;
    int error = stg_inode_fd(inode, &lent);

    if (!error)
        error = stg_creds_become(caller, &creds);
    if (error)
        return error;
    error = syscall(SYS_faccessat2, lent.fd, "", mode, AT_EMPTY_PATH | AT_EACCESS) ? -errno : 0;
    stg_creds_restore(&creds);
    return error;
}

static bool is_folder(const struct stg_inode *inode) { return inode->type == (S_IFDIR >> 12); }

static int step(struct stg_inode *from, const char *name, const struct stg_caller *caller,
                struct stg_inode **ret_inode) {
    struct statx stx;
    int error = !is_folder(from) ? -ENOTDIR : check_access(from, caller, X_OK);

    if (!error && (stg_name_is_dots(name)))
        error = -EINVAL;
    if (!error)
        error = stg_lookup_unanswered(from, name, ret_inode, &stx);
    if (!error && S_ISLNK(stx.stx_mode)) {
        stg_inode_forget(*ret_inode, 1);
        error = -ELOOP;
    }
    return error;
}

int stg_job_find(struct stg_inode *from, const char *path, const struct stg_caller *caller,
                 struct stg_inode **ret_inode) {
    stg_auto_free char *copy = strdup(path);
    struct stg_inode *at = NULL; /* with a lookup of ours; NULL: still at `from` */
    char *cursor = copy;
    char *name;
    int error = !copy ? -ENOMEM : *path == '/' ? -EINVAL : 0;

    while (!error && *path && (name = strsep(&cursor, "/"))) {
        struct stg_inode *next;

        error = step(at ? at : from, name, caller, &next);
        if (at)
            stg_inode_forget(at, 1);
        at = error ? NULL : next;
    }
    if (!error)
        error = check_access(at ? at : from, caller, R_OK);
    if (error && at)
        stg_inode_forget(at, 1);
    if (!error && !at) {
        at = from;
        stg_inode_raise(at);
    }
    if (!error)
        *ret_inode = at;
    return error;
}

/* ---- items ---- */

static void drop_request(struct request *request) {
    bool gone;

    stg_lock_take(&lock);
    gone = !--request->refs;
    stg_lock_drop(&lock);
    if (!gone)
        return;
    free(request->caller.groups);
    free(request);
}

static void drop_item(struct item *item) {
    change_open(item->request->job, -1);
    stg_inode_unref(item->from);
    drop_request(item->request);
    free(item);
}

static void drop(struct stg_crew_work *work) { drop_item((struct item *)(void *)work); }

static int push(struct request *request, struct stg_inode *from, const char *path, unsigned depth) {
    size_t bytes = strlen(path) + 1;
    struct item *item = malloc(sizeof(*item) + bytes);
    struct job *job;

    if (!item)
        return -ENOMEM;
    *item = (struct item){.request = request, .from = from, .depth = depth};
    memcpy(item->path, path, bytes);
    stg_inode_ref(from);
    stg_lock_take(&lock);
    request->refs++;
    job = find_job_locked(request->job);
    if (job)
        job->open++;
    stg_lock_drop(&lock);
    if (stg_crew_push(&crew, &item->work))
        return 0;
    drop_item(item);
    return -ECANCELED; /* the mount ends */
}

/* A file that is being fetched for a job. */
struct fetching {
    struct stg_waiter waiter;
    struct stg_object *object;
    struct request *request;
    uint64_t bytes;
    char path[];
};

static void fetched(struct stg_waiter *waiter, int result) {
    struct fetching *fetching = (struct fetching *)(void *)waiter;

    if (result == STG_WANT_READY)
        stg_object_put(stg_staging_cache(), fetching->object);
    stg_staging_unref(fetching->object);
    note(fetching->request->job, result < 0 ? result : 0, fetching->bytes, fetching->path);
    change_open(fetching->request->job, -1);
    drop_request(fetching->request);
    free(fetching);
}

static void stage_file(struct item *item, struct stg_inode *inode) {
    struct request *request = item->request;
    size_t path_bytes = strlen(item->path) + 1;
    struct fetching *fetching = malloc(sizeof(*fetching) + path_bytes);
    uint64_t bytes = atomic_load_explicit(&inode->size_bytes, memory_order_relaxed);
    int result = fetching ? join_set(request->set, inode) : -ENOMEM;

    if (result) {
        note(request->job, result, 0, item->path);
        free(fetching);
        return;
    }
    *fetching = (struct fetching){.waiter.done = fetched, .request = request, .bytes = bytes};
    memcpy(fetching->path, item->path, path_bytes);
    stg_lock_take(&lock);
    request->refs++;
    stg_lock_drop(&lock);
    change_open(request->job, 1);
    result = stg_staging_stage(inode, request->mode, &fetching->waiter, &fetching->object);
    if (result == STG_WANT_READY) {
        fetched(&fetching->waiter, result);
    } else if (result < 0) {
        /* That there is nothing to copy is not a failure. */
        note(request->job, result == -EOPNOTSUPP ? 0 : result, bytes, item->path);
        change_open(request->job, -1);
        drop_request(request);
        free(fetching);
    }
}

struct pushing {
    struct item *item;
    struct stg_inode *folder;
};

static int push_entry(const char *name, unsigned char type, void *context) {
    const struct pushing *pushing = context;
    struct item *item = pushing->item;

    if (type != DT_REG && type != DT_DIR && type != DT_UNKNOWN)
        return 0;
    return push(item->request, pushing->folder, name, item->depth + 1);
}

static void take_file(struct item *item, struct stg_inode *inode) {
    count_file(item->request->job);
    if (item->request->kind == STG_JOB_STAGE) {
        stage_file(item, inode);
        return;
    }
    stg_staging_unstage(inode);
    note(item->request->job, 0, 0, item->path);
}

static void fail_item(const struct item *item, int error) {
    count_file(item->request->job);
    note(item->request->job, error, 0, item->path);
}

static void look_up(struct item *item) {
    struct stg_inode *inode;
    int error = stg_job_find(item->from, item->path, &item->request->caller, &inode);

    if (error) {
        fail_item(item, error);
        return;
    }
    if (stg_inode_is_regular(inode)) {
        take_file(item, inode);
    } else if (!is_folder(inode)) {
        if (!item->depth) /* below a folder only files count */
            fail_item(item, -EINVAL);
    } else if (!item->request->recursive) {
        fail_item(item, -EISDIR);
    } else if (item->depth < DEPTH_MAX && stg_volume_is_same(inode->volume, item->from->volume)) {
        error = stg_entries_each(inode, push_entry, &(struct pushing){item, inode});
        if (error)
            fail_item(item, error);
    }
    stg_inode_forget(inode, 1);
}

static void work(struct stg_crew_work *work) {
    struct item *item = (struct item *)(void *)work;

    look_up(item);
    drop_item(item);
}

/* ---- requests ---- */

static struct request *make_request(const struct stg_caller *caller,
                                    const struct stg_job_order *order) {
    struct request *request = calloc(1, sizeof(*request));

    if (!request)
        return NULL;
    *request = (struct request){
        .refs = 1, .kind = order->kind, .mode = order->mode, .recursive = order->recursive};
    if (stg_caller_copy(caller, &request->caller)) {
        free(request);
        return NULL;
    }
    return request;
}

/* How many jobs of the user are running. */
static unsigned running_locked(uid_t uid) {
    unsigned running = 0;

    for (unsigned i = 0; i < JOBS_MAX; i++)
        running += jobs[i].id && jobs[i].open && jobs[i].owner == uid;
    return running;
}

static int choose_job(struct request *request, uint64_t wanted) {
    struct job *job;
    int error = 0;

    if (stg_crew_length(&crew) > ITEMS_MAX)
        return -EAGAIN;
    stg_lock_take(&lock);
    if (!wanted && running_locked(request->caller.uid) >= JOBS_MAX / 4) {
        stg_lock_drop(&lock);
        return -EAGAIN;
    }
    job = wanted ? find_job_locked(wanted) : make_job_locked(request->caller.uid);
    if (!job || job->owner != request->caller.uid)
        error = wanted ? -ENOENT : -EAGAIN;
    if (!error) {
        request->job = job->id;
        job->open++; /* until all of this request is queued */
    }
    stg_lock_drop(&lock);
    return error;
}

int stg_job_add(struct stg_inode *inode, const struct stg_caller *caller,
                const struct stg_job_order *order, const char *names, size_t bytes, uint64_t *job) {
    struct request *request = make_request(caller, order);
    int error;

    if (!request)
        return -ENOMEM;
    error = choose_job(request, *job);
    if (!error && *order->set && order->kind == STG_JOB_STAGE &&
        !(request->set = set_of(order->set, request->caller.uid))) {
        change_open(request->job, -1);
        error = -EPERM;
    }
    if (error) {
        drop_request(request);
        return error;
    }
    if (!bytes)
        error = push(request, inode, "", 0);
    for (size_t at = 0; at < bytes && !error; at += strlen(names + at) + 1)
        error = push(request, inode, names + at, 0);
    *job = request->job;
    change_open(request->job, -1);
    drop_request(request);
    return error;
}

/* ---- the end ---- */

void stg_job_stop(void) { stg_crew_stop(&crew); }

void stg_job_fini(void) {
    struct set *set;

    while (!take_set(NULL, NULL, &set)) {
        for (size_t i = 0; i < set->count; i++)
            stg_inode_unref(set->inodes[i]);
        free(set->inodes);
        free(set);
    }
    for (unsigned i = 0; i < JOBS_MAX; i++)
        free(jobs[i].first_failed);
}
