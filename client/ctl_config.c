/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns `stagectl config`: settings of a mount while it is in use. */
#include "client/ctl.h"

#include "client/protocol.h"
#include "util/cleanup.h"
#include "util/parse.h"

#include <inttypes.h>
#include <string.h>

static int set_mode(struct stagefs_config_request *config, const char *value) {
    int mode = stg_parse_word(value, stg_ctl_modes);

    if (mode < 0 || mode == STAGEFS_DEFAULT)
        return stg_ctl_misused("mode=%s: write none, mmap, prefetch or adaptive", value);
    config->mode = (uint32_t)mode;
    return STG_CTL_OK;
}

/* UINT64_MAX would say that nothing is to change. */
static int set_bytes(uint64_t *field, const char *name, const char *value) {
    if (stg_parse_bytes(value, INT64_MAX, field))
        return stg_ctl_misused("%s=%s: write a size in bytes, such as 512M", name, value);
    return STG_CTL_OK;
}

static int set_word(struct stagefs_config_request *config, char *word) {
    char *value = strchr(word, '=');

    if (!value)
        return stg_ctl_misused("config: %s is no setting: write it as key=value", word);
    *value++ = '\0';
    if (!strcmp(word, "mode"))
        return set_mode(config, value);
    if (!strcmp(word, "threshold"))
        return set_bytes(&config->threshold_bytes, word, value);
    if (!strcmp(word, "mem"))
        return set_bytes(&config->hot_bytes, word, value);
    if (!strcmp(word, "cold"))
        return set_bytes(&config->cold_bytes, word, value);
    return stg_ctl_misused("config: no setting is called %s: there are mode, threshold, mem and "
                           "cold",
                           word);
}

static const char *mode_of(const struct stagefs_config_request *config) {
    return config->mode < STAGEFS_DEFAULT ? stg_ctl_modes[config->mode] : "?";
}

static void write_json(const struct stagefs_config_request *config) {
    struct stg_json json = {.stream = stdout};

    stg_json_begin(&json, NULL, '{');
    stg_json_text(&json, "mode", mode_of(config));
    stg_json_number(&json, "threshold_bytes", config->threshold_bytes);
    stg_json_number(&json, "mem_bytes", config->hot_bytes);
    stg_json_number(&json, "cold_bytes", config->cold_bytes);
    stg_json_end(&json, '}');
    putchar('\n');
}

static void write_bytes(const char *name, uint64_t bytes) {
    char text[STG_CTL_NUMBER_BYTES];

    printf("%s=%" PRIu64 " (%s)\n", name, bytes, stg_ctl_bytes(bytes, text));
}

static void write_text(const struct stagefs_config_request *config) {
    printf("mode=%s\n", mode_of(config));
    write_bytes("threshold", config->threshold_bytes);
    write_bytes("mem", config->hot_bytes);
    write_bytes("cold", config->cold_bytes);
}

int stg_ctl_config(const struct stg_ctl *ctl) {
    struct stagefs_config_request config = {.version = STAGEFS_PROTOCOL_VERSION,
                                            .mode = STAGEFS_MODE_DEFAULT,
                                            .threshold_bytes = UINT64_MAX,
                                            .hot_bytes = UINT64_MAX,
                                            .cold_bytes = UINT64_MAX};
    stg_auto_free char *name = NULL;
    stg_auto_fd int fd = -1;
    int error;

    if (!ctl->count)
        return stg_ctl_misused("config: name the mount");
    for (size_t i = 1; i < ctl->count; i++)
        if (set_word(&config, ctl->words[i]))
            return STG_CTL_USAGE;
    fd = stg_ctl_open_mount(ctl->words[0], &name);
    if (fd < 0)
        return STG_CTL_FAILED;
    error = stg_ctl_ask(fd, STAGEFS_IOC_CONFIG, &config);
    if (error)
        return stg_ctl_failed(name, -error);
    if (ctl->json)
        write_json(&config);
    else
        write_text(&config);
    return STG_CTL_OK;
}
