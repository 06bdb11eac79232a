/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: extended attributes: every namespace, every object, sizes, flags, permissions. */
#include "parity.h"

#include <sys/xattr.h>

static void objects(struct pt *t) {
    static const char *const names[] = {"file", "dir", "link", "fifo", "sock", "none"};
    pt_make(t, "file", "");
    pt_mkdir(t, "dir", 0755);
    T(symlink("file", "link"));
    T(mkfifo("fifo", 0600));
    T(mknod("sock", S_IFSOCK | 0600, 0));
    static const char *const keys[] = {"user.a",   "trusted.a", "security.a",
                                       "system.a", "other.a",   "a",
                                       "user.",    "user",      "security.capability"};
    char buffer[64];
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
            SAY("%s %s", names[i], keys[k]);
            T(lsetxattr(names[i], keys[k], "value", 5, 0));
            T(lgetxattr(names[i], keys[k], buffer, sizeof(buffer)));
            T(llistxattr(names[i], buffer, sizeof(buffer)));
            T(lremovexattr(names[i], keys[k]));
        }
}

static void followed(struct pt *t) {
    char buffer[64];
    pt_make(t, "f", "");
    T(symlink("f", "l"));
    T(setxattr("l", "user.a", "through", 7, 0));
    T(getxattr("f", "user.a", buffer, sizeof(buffer)));
    T(lgetxattr("l", "user.a", buffer, sizeof(buffer)));
    T(lsetxattr("l", "user.a", "x", 1, 0));
    T(listxattr("l", buffer, sizeof(buffer)));
    T(llistxattr("l", buffer, sizeof(buffer)));
    pt_xattrs(t, "f");
    T(removexattr("l", "user.a"));
    pt_xattrs(t, "f");
}

static void create_replace(struct pt *t) {
    pt_make(t, "f", "");
    T(setxattr("f", "user.a", "1", 1, XATTR_REPLACE));
    T(setxattr("f", "user.a", "2", 1, XATTR_CREATE));
    T(setxattr("f", "user.a", "3", 1, XATTR_CREATE));
    T(setxattr("f", "user.a", "4", 1, XATTR_REPLACE));
    T(setxattr("f", "user.a", "5", 1, XATTR_CREATE | XATTR_REPLACE));
    T(setxattr("f", "user.a", "6", 1, 8));
    T(setxattr("f", "user.a", "", 0, 0));
    pt_xattrs(t, "f");
    T(removexattr("f", "user.a"));
    T(removexattr("f", "user.a"));
    pt_xattrs(t, "f");
}

static void sizes(struct pt *t) {
    static char value[70000];
    static char out[4096];
    static const size_t lengths[] = {0, 1, 100, 1000, 3000, 5000, 65535, 65536, 65537};
    memset(value, 'v', sizeof(value));
    pt_make(t, "f", "");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        SAY("%zu bytes", lengths[i]);
        T(setxattr("f", "user.size", value, lengths[i], 0));
        T(getxattr("f", "user.size", NULL, 0));
        T(getxattr("f", "user.size", out, 1));
        T(getxattr("f", "user.size", out, 99));
        T(getxattr("f", "user.size", out, sizeof(out)));
    }
    T(listxattr("f", NULL, 0));
    T(listxattr("f", out, 3));
    T(listxattr("f", out, sizeof(out)));
}

static void names(struct pt *t) {
    char name[300] = "user.", out[1000];
    static const size_t lengths[] = {6, 100, 254, 255, 256, 290};
    pt_make(t, "f", "");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        memset(name + 5, 'n', sizeof(name) - 5);
        name[lengths[i]] = 0;
        SAY("name of %zu", lengths[i]);
        T(setxattr("f", name, "x", 1, 0));
        T(getxattr("f", name, out, sizeof(out)));
        T(removexattr("f", name));
    }
    T(setxattr("f", "", "x", 1, 0));
    T(setxattr("f", "user.\xc3\xa4 \n\"", "bytes\0in it", 11, 0));
    T(getxattr("f", "user.\xc3\xa4 \n\"", out, sizeof(out)));
    T(getxattr("f", "user.none", out, sizeof(out)));
    T(getxattr("f", "user.none", NULL, 0));
    pt_xattrs(t, "f");
}

static void many(struct pt *t) {
    char name[32], value[32];
    pt_make(t, "f", "");
    int stored = 0;
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "user.key-%02d", i);
        snprintf(value, sizeof(value), "value %d", i * i);
        if (setxattr("f", name, value, strlen(value), 0) == 0)
            stored++;
    }
    T(stored);
    pt_xattrs(t, "f");
    T(removexattr("f", "user.key-07"));
    T(setxattr("f", "user.key-08", "replaced by a longer value", 26, 0));
    pt_xattrs(t, "f");
}

static void full(struct pt *t) {
    static char value[1000];
    char name[32];
    pt_make(t, "f", "");
    int i = 0;
    memset(value, 'v', sizeof(value));
    for (; i < 200; i++) {
        snprintf(name, sizeof(name), "user.key-%02d", i);
        if (setxattr("f", name, value, sizeof(value), 0) < 0)
            break;
    }
    pt_outcome(t, "setxattr", i < 200 ? -1 : 0);
    T(i);
}

static void by_descriptor(struct pt *t) {
    char out[64];
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    int ro = OK(open("f", O_RDONLY)), wo = OK(open("f", O_WRONLY)), path = OK(open("f", O_PATH));
    int dir = OK(open("d", O_RDONLY));
    T(fsetxattr(ro, "user.a", "1", 1, 0));
    T(fsetxattr(wo, "user.b", "22", 2, 0));
    T(fsetxattr(path, "user.c", "333", 3, 0));
    T(fsetxattr(dir, "user.d", "4444", 4, 0));
    T(fgetxattr(wo, "user.a", out, sizeof(out)));
    T(fgetxattr(path, "user.a", out, sizeof(out)));
    T(flistxattr(ro, out, sizeof(out)));
    pt_xattrs(t, "d");
    T(unlink("f"));
    T(fgetxattr(ro, "user.b", out, sizeof(out)));
    T(fsetxattr(ro, "user.e", "after unlink", 12, 0));
    T(fremovexattr(wo, "user.a"));
    T(flistxattr(ro, out, sizeof(out)));
    T(fgetxattr(ro, "user.e", out, sizeof(out)));
    close(ro), close(wo), close(path), close(dir);
}

static void times(struct pt *t) {
    pt_make(t, "f", "");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    T(setxattr("f", "user.a", "1", 1, 0));
    pt_moved(t, "f", &before);
    before = pt_stamp("f");
    pt_tick();
    char out[8];
    T(getxattr("f", "user.a", out, 8));
    pt_moved(t, "f", &before);
    T(removexattr("f", "user.a"));
    pt_moved(t, "f", &before);
}

static void travels(struct pt *t) {
    pt_make(t, "f", "");
    T(setxattr("f", "user.a", "stays", 5, 0));
    T(rename("f", "g"));
    pt_xattrs(t, "g");
    T(link("g", "h"));
    T(unlink("g"));
    pt_xattrs(t, "h");
    int fd = OK(open("h", O_WRONLY | O_TRUNC));
    T(write(fd, "x", 1));
    close(fd);
    T(chmod("h", 0600));
    pt_xattrs(t, "h");
}

static void permissions(struct pt *t) {
    char out[256];
    static const mode_t modes[] = {0600, 0644, 0666};
    T(chmod(".", 0777));
    pt_mkdir(t, "sticky", 01777);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_make(t, "f", "");
        T(setxattr("f", "user.a", "user", 4, 0));
        T(setxattr("f", "trusted.a", "trusted", 7, 0));
        T(setxattr("f", "security.a", "security", 8, 0));
        T(chmod("f", modes[i]));
        AS(PT_U1, PT_U1, 0) {
            SAY("mode %o", modes[i]);
            T(getxattr("f", "user.a", out, sizeof(out)));
            T(setxattr("f", "user.a", "new", 3, 0));
            T(removexattr("f", "user.a"));
            T(getxattr("f", "trusted.a", out, sizeof(out)));
            T(setxattr("f", "trusted.a", "new", 3, 0));
            T(getxattr("f", "security.a", out, sizeof(out)));
            T(setxattr("f", "security.b", "new", 3, 0));
            T(removexattr("f", "security.a"));
            pt_xattrs(t, "f"); /* trusted.* is not even listed */
            T(listxattr("f", NULL, 0));
            T(setxattr("sticky", "user.a", "x", 1, 0));
        }
        pt_xattrs(t, "f");
        T(unlink("f"));
    }
}

static void own_permissions(struct pt *t) {
    char out[64];
    static const mode_t modes[] = {0, 0400, 0200, 0600};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        pt_make(t, "f", "");
        T(setxattr("f", "user.a", "1", 1, 0));
        T(chmod("f", modes[i]));
        SAY("mode %o", modes[i]);
        T(getxattr("f", "user.a", out, sizeof(out)));
        T(setxattr("f", "user.a", "22", 2, 0));
        T(setxattr("f", "user.b", "22", 2, 0));
        T(removexattr("f", "user.a"));
        T(listxattr("f", out, sizeof(out)));
        T(unlink("f"));
    }
}

/* A v2 capability value: cap_net_raw+ep. */
static const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};

static void capabilities(struct pt *t) {
    char out[64];
    pt_make(t, "f", "program");
    T(setxattr("f", "security.capability", capability, sizeof(capability), 0));
    pt_xattrs(t, "f");
    T(getxattr("f", "security.capability", out, sizeof(out)));
    T(chmod("f", 0755));
    pt_xattrs(t, "f");
    T(setxattr("f", "security.capability", "bad", 3, 0));
    T(setxattr("f", "security.capability", capability, sizeof(capability), XATTR_CREATE));
    T(removexattr("f", "security.capability"));
    pt_xattrs(t, "f");
}

const struct pt_case pt_xattr_cases[] = {
    {"every namespace on every object", objects, 0, 0},
    {"through symbolic links", followed, 0, 0},
    {"XATTR_CREATE and XATTR_REPLACE", create_replace, 0, 0},
    {"sizes of values", sizes, 0, 0},
    {"names", names, 0, 0},
    {"forty attributes", many, 0, 0},
    {"until there is no room", full, 0, 0},
    {"by descriptor, unlinked", by_descriptor, 0, 0},
    {"times", times, 0, 0},
    {"attributes stay with the inode", travels, 0, 0},
    {"somebody else's attributes", permissions, PT_ROOT, 0},
    {"own attributes by mode", own_permissions, 0, 0},
    {"file capabilities", capabilities, 0, 0},
    {NULL, NULL, 0, NULL},
};
