#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Changes made in the source behind the mount: at once with timeouts of 0, else after the timeouts; data is always
# current.
# variants: default uring-off staged pagecache
# sanitizers: address thread
# timeout: 150

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs

content() { [ "$(cat "$MNT/$1" 2>/dev/null)" = "$2" ]; }
absent() { [ ! -e "$MNT/$1" ]; }
there() { [ -e "$MNT/$1" ]; }
mode() { [ "$(stat -c %a "$MNT/$1")" = "$2" ]; }
size() { [ "$(stat -c %s "$MNT/$1")" = "$2" ]; }
attributes() { [ "$(stat -c '%i %h %a %u %g %s %y %z' "$MNT/$1")" = "$(stat -c '%i %h %a %u %g %s %y %z' "$SRC/$1")" ]; }
listing() { [ "$(ls "$MNT/$1")" = "$(ls "$SRC/$1")" ]; }

run_changes() { # NAME CHECK...: with "at once" or "wait_for 30"
    local when=$1
    shift
    find "$SRC" -mindepth 1 -delete
    mkdir "$SRC/dir"
    local name
    for name in kept replaced deleted appended truncated changed linked renamed; do echo old >"$SRC/$name"; done
    # Everything is known to the kernel: names, attributes, the absence of what will come.
    ls -lR "$MNT" >/dev/null
    cat "$MNT"/* >/dev/null 2>&1 || true
    stat "$MNT/new" "$MNT/dir/new" >/dev/null 2>&1 || true

    echo new >"$SRC/new"
    check "$when: a new file" "$@" content new new
    echo new >"$SRC/dir/new"
    check "$when: a new file in a folder" "$@" content dir/new new
    check "$when: the folder's list has it" "$@" listing dir
    rm "$SRC/deleted"
    check "$when: a deleted file" "$@" absent deleted
    echo changed >"$SRC/temporary" && mv "$SRC/temporary" "$SRC/replaced"
    check "$when: a file replaced by rename" "$@" content replaced changed
    check "$when: and its attributes" "$@" attributes replaced
    mv "$SRC/renamed" "$SRC/renamed-2"
    check "$when: the new name" "$@" content renamed-2 old
    check "$when: the old name" "$@" absent renamed
    echo more >>"$SRC/appended"
    check "$when: an appended file's content" "$@" content appended $'old\nmore'
    check "$when: an appended file's size" "$@" size appended 9
    : >"$SRC/truncated"
    check "$when: a truncated file's size" "$@" size truncated 0
    check "$when: a truncated file's content" "$@" content truncated ""
    chmod 601 "$SRC/changed"
    check "$when: a changed mode" "$@" mode changed 601
    touch -d 2001-02-03T04:05:06.789 "$SRC/changed"
    check "$when: times" "$@" attributes changed
    ln "$SRC/linked" "$SRC/second"
    check "$when: the number of links" "$@" attributes linked
    rm -r "$SRC/dir" && echo file >"$SRC/dir"
    check "$when: a folder replaced by a file" "$@" content dir file
    rm "$SRC/kept" && ln -s new "$SRC/kept"
    check "$when: a file replaced by a link" "$@" content kept new
    rm "$SRC/kept" && mkdir "$SRC/kept" && echo deep >"$SRC/kept/deep"
    check "$when: a link replaced by a folder" "$@" content kept/deep deep
    check "$when: the list of the top" "$@" listing .
}

mount_fs attr_timeout=0,entry_timeout=0,negative_timeout=0

run_changes "timeouts of 0"
unmount_fs

mount_fs
run_changes "timeouts of 1 s" wait_for 30
unmount_fs

# ---- data ----

# What is passed through is the source's own; of the rest the source's events tell, a moment later.
told() {
    case $VARIANT in
    pagecache | staged) "$BUILD_DIR/client/stagectl" sync "$MNT" ;;
    esac
}
mount_fs attr_timeout=3600,entry_timeout=3600
echo 0123456789 >"$SRC/data"
exec 8<"$MNT/data"
read -r line <&8
same "before" 0123456789 "$line"
printf 'ABC' | dd of="$SRC/data" conv=notrunc status=none
exec 8<&-
told
same "data changed behind the mount is seen by the next open" ABC3456789 "$(cat "$MNT/data")"
exec 8<"$MNT/data"
printf 'XYZ' | dd of="$SRC/data" conv=notrunc status=none
told
read -r line <&8
exec 8<&-
# Of a staged copy it is seen with the next look at the file, for which the timeout is long here.
[ "$VARIANT" = staged ] || same "and by one who had it open" XYZ3456789 "$line"
printf 'from the mount' | dd of="$MNT/data" conv=notrunc status=none
same "and the other way" "from the mount" "$(cat "$SRC/data")"
echo replaced >"$SRC/replacing"
exec 8<"$MNT/data"
mv "$SRC/replacing" "$SRC/data"
same "who had it open keeps the old file" "from the mount" "$(cat <&8)"
exec 8<&-
unmount_fs

# ---- creation over what somebody made behind the mount ----

# The kernel remembers that the name does not exist, and the daemon meets something else.
behind() { # KIND
    case $1 in
    file) echo old >"$SRC/$1" ;;
    closed) install -m 000 /dev/null "$SRC/$1" ;;
    folder) mkdir "$SRC/$1" ;;
    fifo) mkfifo "$SRC/$1" ;;
    link) ln -s data "$SRC/$1" ;;
    dangling) ln -s nowhere "$SRC/$1" ;;
    esac
}
open_to_create() { # PATH FLAGS: the errno, or the content
    timeout 20 python3 -c '
import errno, os, sys
try:
    fd = os.open(sys.argv[1], os.O_CREAT | os.O_NONBLOCK | eval(sys.argv[2]), 0o644)
    print("opened", os.read(fd, 100) if "O_RDWR" in sys.argv[2] else "")
except OSError as e:
    print(errno.errorcode[e.errno])' "$1" "$2"
}
mount_fs negative_timeout=3600,entry_timeout=3600
echo pointed >"$SRC/data"
for kind in file closed folder fifo link dangling; do
    for flags in "os.O_RDWR" "os.O_WRONLY" "os.O_RDWR | os.O_EXCL"; do
        rm -rf "${SRC:?}/$kind" "$SRC/nowhere"
        behind $kind
        expected=$(open_to_create "$SRC/$kind" "$flags")
        rm -rf "${SRC:?}/$kind" "$SRC/nowhere"
        stat "$MNT/$kind" >/dev/null 2>&1 || true
        behind $kind
        same "created over a $kind made behind, $flags" "$expected" "$(open_to_create "$MNT/$kind" "$flags")"
    done
done
held() { find "/proc/$DAEMON/fd" -mindepth 1 | wc -l; }
before=$(held)
for _ in $(seq 25); do
    rm -rf "$SRC/folder"
    stat "$MNT/folder" >/dev/null 2>&1 || true
    mkdir "$SRC/folder"
    open_to_create "$MNT/folder" "os.O_RDWR" >/dev/null
done
check "and no descriptor is left of it: $before, $(held)" test "$(held)" -le $((before + 12))
unmount_fs

# ---- a change in the middle of a listing, and a removed working directory ----

mount_fs attr_timeout=0,entry_timeout=0,negative_timeout=0
rm -rf "${SRC:?}"/*
mkdir "$SRC/gone"
echo x >"$SRC/gone/file"
removed_below() {
    cd "$MNT/gone" && ls >/dev/null && rm -r "$SRC/gone" || return 1
    ! ls file 2>/dev/null && ! touch new 2>/dev/null
}
check "a folder removed behind the back of who stands in it" removed_below
cd "$TOP"
check "the mount goes on" touch "$MNT/after"
unmount_fs

done_testing
