/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl set`: the sets of a mount, and how much of them is staged. */
#include "client/ctl.h"

#include "client/protocol.h"
#include "util/cleanup.h"

#include <inttypes.h>
#include <string.h>

static void write_json(struct stg_json *json, const struct stagefs_set_request *set) {
    stg_json_begin(json, NULL, '{');
    stg_json_text(json, "name", set->name);
    stg_json_number(json, "files", set->files);
    stg_json_number(json, "staged_files", set->staged_files);
    stg_json_number(json, "size_bytes", set->size_bytes);
    stg_json_number(json, "staged_bytes", set->staged_bytes);
    stg_json_end(json, '}');
}

static void write_head(void) {
    printf("%8s %8s %10s %10s  %s\n", "FILES", "STAGED", "SIZE", "IN MEMORY", "SET");
}

static void write_line(const struct stagefs_set_request *set) {
    char size[STG_CTL_NUMBER_BYTES];
    char staged[STG_CTL_NUMBER_BYTES];

    printf("%8" PRIu64 " %8" PRIu64 " %10s %10s  ", set->files, set->staged_files,
           stg_ctl_bytes(set->size_bytes, size), stg_ctl_bytes(set->staged_bytes, staged));
    stg_ctl_print(set->name);
    putchar('\n');
}

static int ask(int fd, const char *name, uint32_t index, struct stagefs_set_request *set) {
    *set = (struct stagefs_set_request){.version = STAGEFS_PROTOCOL_VERSION, .index = index};
    if (name)
        strcpy(set->name, name); /* its length is checked */
    return stg_ctl_ask(fd, STAGEFS_IOC_SET, set);
}

static int list(int fd, const char *name, struct stg_json *json) {
    struct stagefs_set_request set;
    int error = 0;

    for (uint32_t index = 0; !error && !(name && index); index++) {
        error = ask(fd, name, index, &set);
        if (error)
            break;
        if (json)
            write_json(json, &set);
        else
            write_line(&set);
    }
    return error == -ENOENT && !name ? 0 : error; /* past the last */
}

int stg_ctl_set(const struct stg_ctl *ctl) {
    const char *name = ctl->count ? ctl->words[0] : NULL;
    struct stg_json json = {.stream = stdout};
    stg_auto_free char *mount = NULL;
    stg_auto_fd int fd = -1;
    int error;

    if (ctl->count > 1)
        return stg_ctl_misused("set: give one set's name, or none for all");
    if (name && (!*name || strlen(name) >= STAGEFS_SET_BYTES))
        return stg_ctl_misused("set: a name has 1 to %d bytes", STAGEFS_SET_BYTES - 1);
    fd = stg_ctl_open_mount(ctl->mount, &mount);
    if (fd < 0)
        return STG_CTL_FAILED;
    if (ctl->json)
        stg_json_begin(&json, NULL, '[');
    else
        write_head();
    error = list(fd, name, ctl->json ? &json : NULL);
    if (ctl->json) {
        stg_json_end(&json, ']');
        putchar('\n');
    }
    if (error == -ENOENT) {
        stg_ctl_error("%s: no such set: `stagectl set` lists those that there are", name);
        return STG_CTL_FAILED;
    }
    return error ? stg_ctl_failed(mount, -error) : STG_CTL_OK;
}
