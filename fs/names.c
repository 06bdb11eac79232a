/* SPDX-License-Identifier: GPL-2.0-only */
#include "fs/names.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

bool stg_name_is_dots(const char *name) {
    return !*name || !strcmp(name, ".") || !strcmp(name, "..");
}

bool stg_name_has_one_spelling(const char *name) {
    size_t length = strlen(name);

    for (const char *at = name; *at; at++)
        if ((unsigned char)*at >= 0x80)
            return false;
    return length && name[length - 1] != '.' && name[length - 1] != ' ';
}

bool stg_name_has_one_case(const char *name) {
    for (const char *at = name; *at; at++)
        if (isalpha((unsigned char)*at) || (unsigned char)*at >= 0x80)
            return false;
    return true;
}

/*
 * ZFS (snapdir=hidden), NetApp, CephFS (client_snapdir), OneFS, GlusterFS, mergerfs, Lustre,
 * JuiceFS, and what NFS leaves of files that are removed while open.
 */
bool stg_name_is_listed(const char *name) {
    static const char *const hidden[] = {
        ".zfs",       ".snapshot", ".snapshots", ".snap",   ".ckpt",      ".meta",  "~snapshot",
        ".glusterfs", ".mergerfs", ".lustre",    ".config", ".accesslog", ".stats", ".trash"};

    for (size_t i = 0; i < sizeof(hidden) / sizeof(*hidden); i++)
        if (!strcmp(name, hidden[i]))
            return false;
    return strncmp(name, ".nfs", 4) != 0;
}

bool stg_name_turn_case(const char *name, char turned[256]) {
    bool letters = false;
    size_t i;

    for (i = 0; name[i] && i < 255; i++) {
        letters = letters || isalpha((unsigned char)name[i]);
        turned[i] = (char)(isupper((unsigned char)name[i]) ? tolower(name[i]) : toupper(name[i]));
    }
    turned[i] = '\0';
    return letters && *name != '.' && stg_name_has_one_spelling(name);
}
