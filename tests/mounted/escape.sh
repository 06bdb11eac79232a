#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Nothing outside the source is ever reached through the daemon: by symlinks, by dots, by names that change while they
# are looked up, by a mount of a mount.
# variants: default
# sanitizers: address thread
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
io=$BUILD_DIR/tests/io
mkdir "$SRC/folder" "$SRC/folder/deep" "$WORK/outside"
echo inside >"$SRC/folder/file"
echo secret >"$WORK/outside/file"
ln -s "$WORK/outside" "$SRC/absolute"
ln -s ../outside "$SRC/relative"
ln -s ../../../../../../../../../../etc "$SRC/far"
ln -s loop "$SRC/loop"
ln -s "$WORK/outside/file" "$SRC/to-file"
ln -s /proc/self/root "$SRC/magic"
ln -s folder "$SRC/within"

mount_fs allow_other,entry_timeout=0,attr_timeout=0,negative_timeout=0

# ---- symlinks are the caller's business ----

for name in absolute relative far loop to-file magic within; do
    same "readlink $name" "$(readlink "$SRC/$name")" "$(readlink "$MNT/$name")"
    same "lstat $name" "symbolic link $(stat -c '%i %s %a' "$SRC/$name")" "$(stat -c '%F %i %s %a' "$MNT/$name")"
done
same "a link within" inside "$(cat "$MNT/within/file")"
same "a loop" ELOOP "$("$io" read "$MNT/loop" || true)"
# The caller's kernel follows these in the caller's own tree, where ../outside is what lies beside the mount point.
same "an absolute link leads where it would natively" secret "$(cat "$MNT/absolute/file")"

# In a root of the caller's own there is nothing outside: what the daemon could reach must not show.
if have "${CC:-cc}" && printf '%s\n' '#include <fcntl.h>' '#include <stdio.h>' '#include <unistd.h>' \
    'int main(int c, char **v) { char b[99]; int f; for (int i = 1; i < c; i++) { f = open(v[i], O_RDONLY);' \
    'if (f >= 0) { ssize_t n = read(f, b, 98); printf("%s: %.*s\n", v[i], n > 0 ? (int)n : 0, b); close(f); } } return 0; }' |
    "${CC:-cc}" -static -x c -o "$SRC/reader" - 2>/dev/null; then
    same "inside a chroot the links lead nowhere" "" \
        "$(chroot "$MNT" /reader /absolute/file /relative/file /far/passwd /to-file /../outside/file /folder/../../outside/file \
            "$WORK/outside/file" 2>&1)"
    same "but those within do" "/within/file: inside" "$(chroot "$MNT" /reader /within/file | grep .)"
else
    skip "inside a chroot the links lead nowhere" "no static C library"
fi

# ---- dots ----

same ".. of the top is the mount point's parent" "$(stat -c %i "$WORK")" "$(stat -c %i "$MNT/..")"
same ".. of a folder" "$(stat -c %i "$MNT")" "$(stat -c %i "$MNT/folder/..")"
same ".. of a folder deep" "$(stat -c %i "$MNT/folder")" "$(stat -c %i "$MNT/folder/deep/../deep/..")"
same "readdir has . and .. with the source's numbers" "$(ls -ai "$SRC/folder")" "$(ls -ai "$MNT/folder")"
for name in ... '..a' 'a..' '\..' ' ..' '..%2f' $'..\n' '~' '*' '-'; do
    echo content >"$MNT/$name"
    same "a file named $(printf %q "$name")" content "$(cat "$SRC/$name" 2>&1)"
    rm "$MNT/$name"
done
for name in ok . ..; do
    same "mkdir of $name as natively" "$(mkdir "$SRC/folder/deep/$name" 2>&1 | sed 's/.*: //')" \
        "$(rm -rf "$SRC/folder/deep/ok"; mkdir "$MNT/folder/deep/$name" 2>&1 | sed 's/.*: //')"
done
check_fails "rmdir of .." rmdir "$MNT/folder/deep/.."
check_fails "rename of .." mv "$MNT/folder/deep/.." "$MNT/x"

# ---- replaced while looked up ----

mkdir "$SRC/race" "$WORK/victim"
echo inside >"$SRC/race/file"
echo victim >"$WORK/victim/file"
cp -r "$SRC/race" "$WORK/spare"

# In the source a folder becomes a symlink to the outside and back; renameat2's exchange would need a tool, so two
# renames in turn.
swap() {
    while [ ! -e "$WORK/stop" ]; do
        mv -T "$SRC/race" "$SRC/race-kept" && ln -s "$WORK/outside" "$SRC/race" && rm "$SRC/race" &&
            mv -T "$SRC/race-kept" "$SRC/race"
    done
}
swap 2>/dev/null &
swapper=$!
own_process $swapper

# The caller follows a symlink that it sees; so paths are walked without following, as openat2 with RESOLVE_NO_SYMLINKS
# would, by find: it opens each folder with O_NOFOLLOW.
seen=0
leaked=
end=$((SECONDS + 5))
# The folder is there for a short time in each turn: on a slow machine 5 seconds may not meet it once.
while [ $SECONDS -lt $end ] || { [ $seen = 0 ] && [ $SECONDS -lt $((end + 60)) ]; }; do
    found=$(find -P "$MNT/race" -maxdepth 1 -name file -size -100 -exec grep -l . {} + 2>/dev/null) || true
    [ -z "$found" ] || seen=$((seen + 1))
    # A handle on the folder, held while it is replaced: what is below must stay the folder's.
    content=$( (cd -P "$MNT" && cd -P ./race 2>/dev/null && [ "$(stat -c %d .)" = "$(stat -c %d "$MNT")" ] && cat ./file) 2>/dev/null) || true
    case $content in
    '' | inside) ;;
    *) leaked=$content && break ;;
    esac
done
: >"$WORK/stop"
wait $swapper || true
t_forget_process $swapper
rm "$WORK/stop"
same "a folder replaced by a link leaks nothing to reads" "" "$leaked"
check "the race was run, $seen times with the folder" test "$seen" -gt 0

# Writes below a folder handle: never into the outside.
rm -rf "$SRC/race" "$SRC/race-kept"
cp -r "$WORK/spare" "$SRC/race"
swap 2>/dev/null &
swapper=$!
own_process $swapper
end=$((SECONDS + 5))
while [ $SECONDS -lt $end ]; do
    (cd -P "$MNT" && cd -P ./race && [ "$(stat -c %d .)" = "$(stat -c %d "$MNT")" ] &&
        { echo x >./new; mkdir ./dir; ln -s a ./link; rm -rf ./new ./dir ./link; }) 2>/dev/null || true
done
: >"$WORK/stop"
wait $swapper || true
t_forget_process $swapper
same "nothing was made outside" file "$(ls "$WORK/outside")"
same "nothing was changed outside" secret "$(cat "$WORK/outside/file")"

# A folder moved out of the source while a process stands in it.
mkdir -p "$SRC/leaving/sub"
echo mine >"$SRC/leaving/sub/file"
moved_out() {
    cd "$MNT/leaving/sub" && cat file >/dev/null && mv "$SRC/leaving" "$WORK/left" || return 1
    cat "$WORK/outside/file" >/dev/null
    # The folder itself may still be reached or not; its new parent may not.
    ! cat ../../outside/file 2>/dev/null | grep secret
}
check "a folder moved out of the source does not open its new parent" moved_out
cd "$TOP"

# ---- a mount of a mount ----

unmount_fs
mount_fs
outer=$DAEMON outer_mnt=$MNT outer_src=$SRC
SRC=$MNT MNT=$WORK/nested
mkdir "$MNT"
if mount_fs; then
    same "a mount of the mount" inside "$(cat "$MNT/folder/file" 2>&1)"
    check "is written" sh -c 'echo x >"$1/nested-file" && cat "$1/nested-file"' - "$MNT"
    same "and the write arrives" x "$(cat "$outer_src/nested-file")"
    rm -f "$MNT/nested-file"
    unmount_fs
fi
DAEMON=$outer MNT=$outer_mnt SRC=$outer_src
check "the outer one goes on" cat "$MNT/folder/file"
unmount_fs

done_testing
