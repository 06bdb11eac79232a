#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Mounts below the source are crossed: other devices with their own inode numbers, space, flags and errors.
# variants: default uring-off staged pagecache
# sanitizers: address thread
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
io=$BUILD_DIR/tests/io
mkdir "$SRC/plain" "$SRC/ram" "$SRC/later" "$SRC/bound" "$SRC/locked"
echo top >"$SRC/file"
mount -t tmpfs -o size=16m tmpfs "$SRC/ram"
echo ram >"$SRC/ram/file"
mkdir "$SRC/ram/folder"
mount -t tmpfs -o size=1m tmpfs "$SRC/locked"
echo locked >"$SRC/locked/file"
mount -o remount,ro "$SRC/locked"

have_loop=
if mkdir "$SRC/disk" && mount_loop_ext4 "$SRC/disk" 16M 2>"$TMPDIR/loop-error"; then
    have_loop=1
    echo disk >"$SRC/disk/file"
    mkdir "$SRC/disk/folder"
fi

mount_fs allow_other

same "tmpfs is crossed" ram "$(cat "$MNT/ram/file" 2>&1)"
same "a read-only mount is crossed" locked "$(cat "$MNT/locked/file" 2>&1)"

# The kernel shows one device for a whole FUSE mount, so numbers of other file systems must not meet those of the
# source's own (which are its own) nor each other's: tar and cp would take two files for one.
for name in . file plain; do
    same "inode number of $name" "$(stat -c %i "$SRC/$name")" "$(stat -c %i "$MNT/$name")"
done
identities() { (cd "$1" && find . -printf '%D:%i\n' | sort); }
same "no two files are one" "" "$(identities "$MNT" | uniq -d)"
same "the same numbers again" "$(identities "$MNT")" "$(identities "$MNT")"
ln "$SRC/ram/file" "$SRC/ram/hard"
same "hard links in a mount are one" "$(stat -c %D:%i "$MNT/ram/file")" "$(stat -c %D:%i "$MNT/ram/hard")"
rm "$SRC/ram/hard"
listed() { (cd "$1" && ls -Ai); }
by_stat() { (cd "$1" && stat -c '%i %n' -- *); }
same "the same number from readdir and stat" "$(by_stat "$MNT/ram")" "$(listed "$MNT/ram")"
same "find goes everywhere" "$(cd "$SRC" && find . | sort)" "$(cd "$MNT" && find . | sort)"

space() { stat -f -c '%s %b %c' "$1"; }
for name in . plain ram ram/file ram/folder locked; do
    same "statfs of $name" "$(space "$SRC/$name")" "$(space "$MNT/$name")"
done

# ---- across ----

across() { # CALL FROM TO
    "$io" "$1" "$2" "$3" 2>&1 || true
}
echo move >"$SRC/moving"
same "rename into a mount" EXDEV "$(across rename "$MNT/moving" "$MNT/ram/moving")"
same "rename out of a mount" EXDEV "$(across rename "$MNT/ram/file" "$MNT/moved")"
same "rename between mounts" EXDEV "$(across rename "$MNT/ram/file" "$MNT/locked/moved")"
same "link into a mount" EXDEV "$(across link "$MNT/moving" "$MNT/ram/linked")"
same "link out of a mount" EXDEV "$(across link "$MNT/ram/file" "$MNT/linked")"
same "rename within" "" "$(across rename "$MNT/ram/file" "$MNT/ram/folder/renamed")"
same "link within" "" "$(across link "$MNT/ram/folder/renamed" "$MNT/ram/file")"
check "mv copies across" mv "$MNT/moving" "$MNT/ram/moving"
same "mv copied across" move "$(cat "$SRC/ram/moving" 2>&1)"
check "cp across" cp "$MNT/ram/moving" "$MNT/plain/"
check "cp was right" cmp "$SRC/plain/moving" "$SRC/ram/moving"

native_errno() { "$io" "$1" "$SRC/$2" || true; }
for pair in "unlink ram" "write locked/file" "create locked/new" "unlink locked/file" "truncate locked/file"; do
    read -r call name <<<"$pair"
    same "$pair" "$(native_errno "$call" "$name")" "$("$io" "$call" "$MNT/$name" || true)"
done
check_fails "rmdir of a mount point" rmdir "$MNT/ram"
check_fails "chmod on a read-only mount" chmod 600 "$MNT/locked/file"
same "EROFS was not a lie" locked "$(cat "$SRC/locked/file")"

# ---- ENOSPC ----

fill() { # DIR
    local status=0
    dd if=/dev/zero of="$1/filler" bs=64k 2>"$TMPDIR/dd" || status=$?
    grep -o 'No space left on device' "$TMPDIR/dd" || echo "status $status: $(cat "$TMPDIR/dd")"
    stat -c %s "$1/filler"
    rm "$1/filler"
}
if [ -n "$have_loop" ]; then
    same "ext4 is crossed" disk "$(cat "$MNT/disk/file" 2>&1)"
    same "ext4: find" "$(cd "$SRC/disk" && find . | sort)" "$(cd "$MNT/disk" && find . | sort)"
    expected=$(fill "$SRC/disk")
    same "ENOSPC, at the same size" "$expected" "$(fill "$MNT/disk")"
    cp "$SRC/disk/file" "$MNT/disk/after"
    same "and goes on afterwards" disk "$(cat "$MNT/disk/after")"
    check_fails "fallocate of more than there is" fallocate -l 100M "$MNT/disk/large"
    rm -f "$MNT/disk/large"
else
    skip "ENOSPC, at the same size" "no loop device: $(head -n 1 "$TMPDIR/loop-error")"
fi
expected=$(fill "$SRC/ram")
same "ENOSPC on tmpfs, at the same size" "$expected" "$(fill "$MNT/ram")"

# ---- while mounted ----

ls "$MNT/later" >/dev/null
mount -t tmpfs -o size=1m tmpfs "$SRC/later"
echo later >"$SRC/later/file"
reads() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
check "a mount made later is crossed" wait_for 20 reads "$MNT/later/file" later
check "a mount made later is written" sh -c 'echo x >"$1/new"' - "$MNT/later"
same "what was written is there" x "$(cat "$SRC/later/new")"

mkdir "$WORK/elsewhere"
echo elsewhere >"$WORK/elsewhere/file"
mount --bind "$WORK/elsewhere" "$SRC/bound"
check "a bind mount made later is crossed" wait_for 20 reads "$MNT/bound/file" elsewhere
check "a bind mount is written" sh -c 'echo x >"$1/new"' - "$MNT/bound"
same "what was written through the bind mount is there" x "$(cat "$WORK/elsewhere/new")"

check "a mount below the source can be detached" umount -l "$SRC/later"
gone() { [ ! -e "$MNT/later/file" ]; }
check "its content is gone" wait_for 20 gone
check "the folder below is seen" ls "$MNT/later"
check "the rest goes on" reads "$MNT/ram/moving" move

unmount_fs
done_testing
