#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Changes made in the source behind the mount: at once with timeouts of 0, else after the timeouts; data is always
# current.
# variants: default uring-off
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

mount_fs attr_timeout=3600,entry_timeout=3600
echo 0123456789 >"$SRC/data"
exec 8<"$MNT/data"
read -r line <&8
same "before" 0123456789 "$line"
printf 'ABC' | dd of="$SRC/data" conv=notrunc status=none
exec 8<&-
same "data changed behind the mount is seen by the next open" ABC3456789 "$(cat "$MNT/data")"
exec 8<"$MNT/data"
printf 'XYZ' | dd of="$SRC/data" conv=notrunc status=none
read -r line <&8
exec 8<&-
same "and by one who had it open" XYZ3456789 "$line"
printf 'from the mount' | dd of="$MNT/data" conv=notrunc status=none
same "and the other way" "from the mount" "$(cat "$SRC/data")"
echo replaced >"$SRC/replacing"
exec 8<"$MNT/data"
mv "$SRC/replacing" "$SRC/data"
same "who had it open keeps the old file" "from the mount" "$(cat <&8)"
exec 8<&-
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
