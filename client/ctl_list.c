/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the list of paths: operands, and what --from-file names. */
#include "client/ctl.h"

#include "util/cleanup.h"

#include <string.h>

static int add(struct stg_ctl_list *list, const char *path) {
    /* Grown at powers of two. */
    if (!(list->count & (list->count - 1))) {
        size_t room = list->count ? 2 * list->count : 1;
        char **grown = reallocarray(list->paths, room, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        list->paths = grown;
    }
    list->paths[list->count] = strdup(path);
    if (!list->paths[list->count])
        return -ENOMEM;
    list->count++;
    return 0;
}

void stg_ctl_list_fini(struct stg_ctl_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->paths[i]);
    free(list->paths);
    *list = (struct stg_ctl_list){0};
}

static int read_lines(struct stg_ctl_list *list, FILE *stream, int delimiter) {
    stg_auto_free char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    int error = 0;

    errno = 0;
    while (!error && (bytes = getdelim(&line, &room, delimiter, stream)) >= 0) {
        if (bytes && line[bytes - 1] == delimiter)
            line[--bytes] = '\0';
        if (bytes)
            error = add(list, line);
    }
    return error ? error : ferror(stream) ? -errno : 0;
}

static int read_list(struct stg_ctl_list *list, const char *path, bool nul) {
    bool standard = !strcmp(path, "-");
    FILE *stream = standard ? stdin : fopen(path, "re");
    int error = stream ? read_lines(list, stream, nul ? '\0' : '\n') : -errno;

    if (stream && !standard)
        (void)fclose(stream); /* it was only read */
    if (error)
        (void)stg_ctl_failed(path, -error);
    return error;
}

int stg_ctl_list_init(const struct stg_ctl *ctl, size_t first, struct stg_ctl_list *ret_list) {
    struct stg_ctl_list list = {0};
    int error = 0;

    for (size_t i = first; i < ctl->count && !error; i++)
        error = add(&list, ctl->words[i]);
    if (error)
        (void)stg_ctl_failed("the list of paths", -error);
    if (!error && ctl->list)
        error = read_list(&list, ctl->list, ctl->nul);
    if (error)
        stg_ctl_list_fini(&list);
    else
        *ret_list = list;
    return error;
}
