/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: POSIX ACLs through their raw attributes: storing, inheritance, the mask, and effect. */
#include "parity.h"

#include <sys/xattr.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct entry {
    uint16_t tag, perm;
    uint32_t id;
};

struct acl {
    uint32_t version;
    struct entry entries[12];
};

static int set_acl(const char *name, const char *key, const struct entry *entries, size_t count) {
    struct acl acl = {.version = 2};
    memcpy(acl.entries, entries, count * sizeof(*entries));
    return setxattr(name, key, &acl, 4 + count * sizeof(*entries), 0);
}

#define SET(name, key, ...)                                                                        \
    pt_outcome(t, "set " name " " key,                                                             \
               set_acl(name, key, (const struct entry[]){__VA_ARGS__},                             \
                       sizeof((const struct entry[]){__VA_ARGS__}) / sizeof(struct entry)))

#define NOBODY ((uint32_t)-1)
#define BASE(u, g, o)                                                                              \
    {USER_OBJ, u, NOBODY}, {GROUP_OBJ, g, NOBODY}, { OTHER, o, NOBODY }

static void show_acl(struct pt *t, const char *name) {
    static const char *const keys[] = {ACCESS, DEFAULT};
    pt_show(t, name);
    for (int k = 0; k < 2; k++) {
        struct acl acl;
        ssize_t size = getxattr(name, keys[k], &acl, sizeof(acl));
        if (size < 0) {
            pt_outcome(t, keys[k], -1);
            continue;
        }
        SAY("%s: %zd bytes, version %u", keys[k], size, acl.version);
        for (size_t i = 0; i < ((size_t)size - 4) / sizeof(struct entry); i++)
            SAY("  tag %u perm %u id %d", acl.entries[i].tag, acl.entries[i].perm,
                (int)acl.entries[i].id);
    }
}

static void stored(struct pt *t) {
    char list[256];
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    show_acl(t, "f");
    SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 4, PT_U1}, {GROUP_OBJ, 4, NOBODY},
        {GROUP, 6, PT_GROUP}, {MASK, 6, NOBODY}, {OTHER, 0, NOBODY});
    show_acl(t, "f");
    T(listxattr("f", list, sizeof(list)));
    SET("d", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 5, PT_U1}, {GROUP_OBJ, 5, NOBODY},
        {MASK, 5, NOBODY}, {OTHER, 0, NOBODY});
    SET("d", DEFAULT, {USER_OBJ, 7, NOBODY}, {USER, 7, PT_U2}, {GROUP_OBJ, 5, NOBODY},
        {MASK, 7, NOBODY}, {OTHER, 1, NOBODY});
    show_acl(t, "d");
    T(listxattr("d", list, sizeof(list)));
    T(getxattr("d", DEFAULT, list, 4));
    T(getxattr("d", DEFAULT, NULL, 0));
    T(removexattr("d", DEFAULT));
    T(removexattr("d", DEFAULT));
    T(removexattr("f", ACCESS));
    T(removexattr("f", ACCESS));
    show_acl(t, "f");
    show_acl(t, "d");
    SET("f", ACCESS, BASE(6, 2, 1)); /* only a mode */
    show_acl(t, "f");
}

static void refused(struct pt *t) {
    pt_make(t, "f", "");
    T(symlink("f", "l"));
    SET("f", DEFAULT, BASE(7, 5, 5));
    SET("f", ACCESS, {USER_OBJ, 6, NOBODY});
    SET("f", ACCESS, {USER, 6, PT_U1}, BASE(6, 4, 4));
    SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, PT_U1}, {GROUP_OBJ, 6, NOBODY},
        {OTHER, 6, NOBODY}); /* no mask */
    SET("f", ACCESS, BASE(15, 4, 4));
    SET("f", ACCESS, BASE(6, 4, 4), {64, 6, NOBODY});
    T(setxattr("f", ACCESS, "", 0, 0));
    T(setxattr("f", ACCESS, "xyz", 3, 0));
    T(setxattr("f", ACCESS, "\1\0\0\0", 4, 0));
    T(setxattr("f", ACCESS, "\2\0\0\0", 4, 0));
    T(lsetxattr("l", ACCESS, "\2\0\0\0", 4, 0));
    SET("none", ACCESS, BASE(6, 4, 4));
    show_acl(t, "f");
}

static void mask_and_chmod(struct pt *t) {
    static const mode_t modes[] = {0600, 0640, 0660, 0777, 0707, 0000, 02770};
    pt_make(t, "f", "");
    SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, PT_U1}, {GROUP_OBJ, 4, NOBODY},
        {MASK, 6, NOBODY}, {OTHER, 4, NOBODY});
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        T(chmod("f", modes[i]));
        show_acl(t, "f");
    }
    int fd = OK(open("f", O_RDWR));
    if (fd >= 0) {
        T(fchmod(fd, 0651));
        close(fd);
    }
    show_acl(t, "f");
}

static void set_changes_mode(struct pt *t) {
    pt_make(t, "f", "");
    T(chmod("f", 06755));
    SET("f", ACCESS, BASE(7, 7, 0));
    show_acl(t, "f");
    SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {GROUP_OBJ, 7, NOBODY}, {GROUP, 7, PT_GROUP},
        {MASK, 1, NOBODY}, {OTHER, 2, NOBODY});
    show_acl(t, "f");
    struct pt_stamp before = pt_stamp("f");
    pt_tick();
    SET("f", ACCESS, BASE(6, 4, 4));
    pt_moved(t, "f", &before);
}

/* New objects below a default ACL, under arg's umask. */
static void inherited(struct pt *t) {
    umask((mode_t)(uintptr_t)t->arg);
    pt_mkdir(t, "d", 0755);
    SET("d", DEFAULT, {USER_OBJ, 7, NOBODY}, {USER, 7, PT_U1}, {USER, 4, PT_U2},
        {GROUP_OBJ, 5, NOBODY}, {GROUP, 6, PT_GROUP}, {MASK, 7, NOBODY}, {OTHER, 5, NOBODY});
    static const mode_t modes[] = {0666, 0777, 0600, 0640, 0};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        SAY("mode %o", modes[i]);
        int fd = OK(open("d/file", O_CREAT | O_EXCL | O_RDWR, modes[i]));
        close(fd);
        show_acl(t, "d/file");
        T(unlink("d/file"));
        T(mkdir("d/dir", modes[i]));
        show_acl(t, "d/dir");
        T(rmdir("d/dir"));
        T(mkfifo("d/fifo", modes[i]));
        show_acl(t, "d/fifo");
        T(unlink("d/fifo"));
        T(mknod("d/node", S_IFREG | modes[i], 0));
        show_acl(t, "d/node");
        T(unlink("d/node"));
        fd = OK(open("d", O_TMPFILE | O_RDWR, modes[i]));
        pt_showfd(t, "tmpfile", fd);
        struct acl acl;
        T(fgetxattr(fd, ACCESS, &acl, sizeof(acl)));
        close(fd);
    }
    T(symlink("x", "d/link"));
    pt_show(t, "d/link");
}

static void inherited_plain(struct pt *t) {
    /* A default ACL that is only a mode: no ACL on the object, but no umask either. */
    umask(077);
    pt_mkdir(t, "d", 0755);
    SET("d", DEFAULT, BASE(7, 5, 1));
    int fd = OK(open("d/file", O_CREAT | O_RDWR, 0666));
    close(fd);
    T(mkdir("d/dir", 0777));
    show_acl(t, "d/file");
    show_acl(t, "d/dir");
    T(mkdir("d/dir/deeper", 0777));
    show_acl(t, "d/dir/deeper");
    T(removexattr("d/dir", DEFAULT));
    T(mkdir("d/dir/after", 0777));
    show_acl(t, "d/dir/after");
}

static void inherited_by_users(struct pt *t) {
    pt_mkdir(t, "d", 0777);
    T(chown("d", 0, PT_GROUP));
    T(chmod("d", 02777));
    SET("d", DEFAULT, {USER_OBJ, 7, NOBODY}, {USER, 7, PT_U2}, {GROUP_OBJ, 7, NOBODY},
        {MASK, 7, NOBODY}, {OTHER, 5, NOBODY});
    static const gid_t groups[] = {0, PT_GROUP};
    for (int i = 0; i < 2; i++) {
        AS(PT_U1, PT_U1, groups[i]) {
            umask(027);
            int fd = OK(open("d/f", O_CREAT | O_RDWR, 02775));
            close(fd);
            T(mkdir("d/e", 0755));
        }
        show_acl(t, "d/f");
        show_acl(t, "d/e");
        T(unlink("d/f"));
        T(rmdir("d/e"));
    }
}

static void try(struct pt *t, uid_t uid, gid_t gid, gid_t group) {
    AS(uid, gid, group) {
        SAY("uid %u gid %u group %u", uid, gid, group);
        OK(open("d/f", O_RDONLY));
        OK(open("d/f", O_WRONLY));
        T(access("d/f", X_OK));
        T(access("d", R_OK));
        OK(open("d/new", O_CREAT | O_WRONLY, 0644));
        T(unlink("d/new"));
        T(truncate("d/f", 3));
        T(setxattr("d/f", "user.a", "x", 1, 0));
        SET("d/f", ACCESS, BASE(7, 7, 7));
        T(removexattr("d/f", ACCESS));
    }
}

static void try_all(struct pt *t) {
    try(t, PT_U1, PT_U1, 0);
    try(t, PT_U2, PT_U2, 0);
    try(t, PT_U2, PT_U2, PT_GROUP);
    try(t, PT_U2, PT_GROUP, 0);
    try(t, 34567, 34567, 0);
}

static void effect(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "content");
    T(chmod("d/f", 0600));
    try_all(t);
    SET("d/f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, PT_U1}, {GROUP_OBJ, 0, NOBODY},
        {GROUP, 5, PT_GROUP}, {MASK, 7, NOBODY}, {OTHER, 0, NOBODY});
    SET("d", ACCESS, {USER_OBJ, 7, NOBODY}, {USER, 7, PT_U1}, {GROUP_OBJ, 0, NOBODY},
        {GROUP, 1, PT_GROUP}, {MASK, 7, NOBODY}, {OTHER, 5, NOBODY});
    try_all(t);
    T(chmod("d/f", 0640)); /* the mask takes writing away */
    try_all(t);
    T(removexattr("d", ACCESS));
    show_acl(t, "d");
    try_all(t);
}

static void denied_user(struct pt *t) {
    /* A named user without permissions is refused although others are not. */
    pt_mkdir(t, "d", 0755);
    pt_make(t, "d/f", "content");
    SET("d/f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 0, PT_U1}, {GROUP_OBJ, 4, NOBODY},
        {GROUP, 0, PT_GROUP}, {MASK, 7, NOBODY}, {OTHER, 6, NOBODY});
    try_all(t);
    SET("d/f", ACCESS, BASE(6, 4, 4));
    try_all(t);
}

static void by_owner(struct pt *t) {
    pt_make(t, "f", "");
    pt_mkdir(t, "d", 0755);
    SET("f", ACCESS, {USER_OBJ, 0, NOBODY}, {USER, 7, t->uid ? t->uid : PT_U1},
        {GROUP_OBJ, 7, NOBODY}, {MASK, 7, NOBODY}, {OTHER, 7, NOBODY});
    show_acl(t, "f");
    OK(open("f", O_RDONLY)); /* the owner's entry decides, not the named one */
    T(chmod("f", 0600));
    OK(open("f", O_RDONLY));
    int dir = OK(open("d", O_RDONLY));
    struct acl acl = {.version = 2, .entries = {BASE(7, 0, 0)}};
    T(fsetxattr(dir, DEFAULT, &acl, 4 + 3 * sizeof(struct entry), 0));
    pt_make(t, "d/f", "");
    show_acl(t, "d/f");
    T(setxattr("f", ACCESS, &acl, 4 + 3 * sizeof(struct entry), XATTR_CREATE));
    T(setxattr("f", ACCESS, &acl, 4 + 3 * sizeof(struct entry), XATTR_REPLACE));
    show_acl(t, "f");
    close(dir);
}

static void of_foreign(struct pt *t) {
    pt_make(t, "f", "");
    T(chmod("f", 0666));
    pt_mkdir(t, "d", 0777);
    AS(PT_U1, PT_U1, 0) {
        SET("f", ACCESS, BASE(7, 7, 7));
        SET("d", DEFAULT, BASE(7, 7, 7));
        T(removexattr("f", ACCESS));
        show_acl(t, "f");
    }
    show_acl(t, "d");
}

static void travels(struct pt *t) {
    pt_mkdir(t, "d", 0755);
    SET("d", DEFAULT, BASE(7, 7, 7));
    pt_make(t, "f", "");
    SET("f", ACCESS, {USER_OBJ, 6, NOBODY}, {USER, 6, PT_U1}, {GROUP_OBJ, 4, NOBODY},
        {MASK, 6, NOBODY}, {OTHER, 4, NOBODY});
    T(rename("f", "d/f")); /* inherits nothing */
    show_acl(t, "d/f");
    T(link("d/f", "g"));
    show_acl(t, "g");
    int fd = OK(open("g", O_WRONLY | O_TRUNC));
    T(write(fd, "x", 1));
    close(fd);
    show_acl(t, "g");
}

const struct pt_case pt_acl_cases[] = {
    {"set, get, remove", stored, 0, 0},
    {"refused", refused, 0, 0},
    {"the mask and chmod", mask_and_chmod, 0, 0},
    {"an ACL changes the mode", set_changes_mode, 0, 0},
    {"inheritance under umask 0", inherited, 0, (void *)0},
    {"inheritance under umask 022", inherited, 0, (void *)022},
    {"inheritance under umask 077", inherited, 0, (void *)077},
    {"inheritance of a plain mode", inherited_plain, 0, 0},
    {"inheritance by ordinary users", inherited_by_users, PT_ROOT, 0},
    {"effect on other users", effect, PT_ROOT, 0},
    {"a named user is refused", denied_user, PT_ROOT, 0},
    {"the owner's entry, descriptors, flags", by_owner, 0, 0},
    {"somebody else's ACL", of_foreign, PT_ROOT, 0},
    {"ACLs stay with the inode", travels, 0, 0},
    {NULL, NULL, 0, NULL},
};
