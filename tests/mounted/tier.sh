#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# sanitized: default
# timeout: 300
#
# Copies that outlive the mount: the next mount takes them from the stage directory, and never one that the source has
# another version of; what is wrong with the directory or its disk costs its use and nothing else.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"
. "$TOP/tests/lib/disk.sh"

have_slowfs || skip_all "slowfs is not built"

opens_of() { # CMD...: opens that reach the source meanwhile
    local before
    before=$(slow_count open)
    "$@" >/dev/null || return 1
    echo $(($(slow_count open) - before))
}
read_all() { (cd "$MNT" && cat many/* src/*); }
sums() { (cd "$1" && find many src large -type f -exec sha256sum {} + | sort -k 2); }
same_tree() { diff <(sums "$under") <(sums "$MNT") | head -n 5 && [ "${PIPESTATUS[0]}" = 0 ]; }
reads() { [ "$(cat "$MNT/$1")" = "$2" ] || { cat "$MNT/$1" && false; }; } # FILE TEXT
refuses() { # PATTERN OPTIONS: a mount that is not made, and says why
    local text
    text=$(stagefs "$SRC" "$MNT" -o "$2" 2>&1) && { umount "$MNT" && return 1; }
    grep -q -- "$1" <<<"$text" || { echo "$text" && return 1; }
}
settled() { find "$under" -exec touch -h -d '2 hours ago' {} +; }
written() { is_disk queued_bytes 0; }
taken() { du -s --apparent-size --block-size=1 "$1" | cut -f 1; }

local_source() { # what is in $SRC
    local round
    find "$SRC" -exec touch -h -d '2 hours ago' {} +
    under=$SRC
    for round in 1 2; do
        mount_fs "stage=prefetch,stage_dir=$WORK/local,predict=none" || done_testing
        check "a local source, mount $round" same_tree
        check "is written" wait_for 20 written
        [ "$round" = 1 ] || check "and taken from disk" [ "$(disk hits)" -ge 50 ]
        unmount_fs
    done
}

new_dirs
under=$WORK/slow-under
stage=$WORK/stage
mkdir -p "$under"/{src,many,other}
for i in $(seq 100 149); do head -c $((i * 150)) /dev/urandom | base64 >"$under/many/$i"; done
for name in a b c; do echo "int $name;" >"$under/src/$name.c"; done
head -c 700K /dev/urandom >"$under/large"
settled
mount_slow latency_us=300

# ---- the next mount ----
options=stage_dir=$stage,threshold=200K,predict=none
mount_fs "$options" || done_testing
check "all is read" same_tree
check "and is written" wait_for 20 written
unmount_fs && pass "the mount ends cleanly"
same "a folder for its owner alone" 700 "$(stat -c %a "$stage")"
check "in order" ctl doctor "$stage"

mount_fs "$options" || done_testing
same "the next mount opens nothing at the source" 0 "$(opens_of same_tree)"
check "and is the same" same_tree
check "what was taken is counted" [ "$(disk hits)" -ge 53 ]
# Another mount, and what looks at it, keep away meanwhile.
mkdir "$WORK/mnt2"
second=$(stagefs "$SRC" "$WORK/mnt2" -o "stage_dir=$stage" 2>&1) && fail "a second mount" || true
same "a second mount is refused" yes "$(grep -q 'in use by process' <<<"$second" && echo yes || echo "$second")"
check_fails "the doctor, too" ctl doctor "$stage"
unmount_fs

# ---- versions ----
echo "int A;" >"$under/src/a.c" # another mtime
echo "int B;" >"$under/src/b.c"
touch -r "$under/many/100" "$under/src/b.c" # of the same length, its mtime as it was; the ctime tells
rm "$under/many/149"
mv "$under/many/101" "$under/many/102"
mount_fs "$options" || done_testing
check "what changed while nothing was mounted shows" same_tree
check "the rest was taken from disk" [ "$(disk hits)" -ge 48 ]
check "what comes in is written, too" wait_for 20 written
echo "int C;" >"$MNT/src/c.c"
touch -r "$under/many/100" "$MNT/src/c.c"
mv "$MNT/src/a.c" "$MNT/src/b.c"
unmount_fs
mount_fs "$options" || done_testing
check "what was changed through the mount shows" same_tree
unmount_fs
check "in order" ctl doctor "$stage"

for mode in strict frozen; do
    mount_fs "$options,coherence=$mode" || done_testing
    check "coherence=$mode" same_tree
    check "coherence=$mode takes from disk" [ "$(disk hits)" -ge 48 ]
    unmount_fs
done

# ---- the daemon is killed ----
for i in $(seq 200 260); do head -c $((i * 100)) /dev/urandom >"$under/many/$i"; done
settled
mount_fs "$options" || done_testing
read_all >/dev/null &
reader=$!
wait_for 20 eval '[ "$(disk written)" -gt 0 ]' || true
kill -KILL "$DAEMON"
wait "$DAEMON" || true
t_forget_process "$DAEMON"
wait "$reader" || true
umount "$MNT"
check "in order after that" ctl doctor "$stage"
mount_fs "$options" || done_testing
check "all is right after that" same_tree
unmount_fs

# ---- damage ----
damage() { # the middle of the store
    python3 - "$stage/data.mdb" <<'END'
import os, sys
with open(sys.argv[1], "r+b") as store:
    size = os.fstat(store.fileno()).st_size
    for at in range(16384, size, 4096 * 7):
        store.seek(at + 100)
        store.write(b"damaged")
END
}
# What LMDB does then is the unit tests' affair, and a report of each sanitizer.
if [ "$SANITIZER" = none ]; then
    damage
    check_fails "damage is found" ctl doctor "$stage"
    mount_fs "$options" || done_testing
    check "and never given" same_tree
    unmount_fs
    rm -rf "$stage"
    mount_fs "$options" || done_testing
    check "begun anew" same_tree
    unmount_fs
    damage
    ctl doctor --repair "$stage" >/dev/null
    check "and can be taken out" ctl doctor "$stage"
fi
mount_fs "$options" || done_testing
check "after which all is right" same_tree
check "and written" wait_for 20 written
: >"$stage/data.mdb" # the disk cannot be read any more
echo 3 >/proc/sys/vm/drop_caches
ctl unstage -r "$MNT" >/dev/null
check "a disk that fails while it is used costs nothing else" same_tree
check "and is not used any more" is_disk state failed
unmount_fs
mount_fs "$options" || done_testing
check "the next mount begins anew" is_disk state open
check "and reads" same_tree
unmount_fs

# ---- limits ----
for i in $(seq 300 399); do head -c 100000 /dev/urandom >"$under/many/$i"; done
settled
mount_fs "stage_dir=$WORK/small,stage_size=4M,predict=none" || done_testing
check "more than there is room for is read" same_tree
check "and some of it kept" wait_for 20 written
check "and some given up for it" [ "$(disk evicted)" -gt 0 ]
unmount_fs
check "never more than stage_size" [ "$(taken "$WORK/small")" -le $((4 << 20)) ]

mkdir "$WORK/half"
mount -t tmpfs -o size=12M,mode=700 stage "$WORK/half"
mount_fs "stage_dir=$WORK/half,predict=none" || done_testing
check "without a size it fills half of the disk" same_tree
read_some() { (cd "$MNT" && cat many/11? many/12?) >/dev/null; }
check "more of it" read_some
check "with what comes" wait_for 20 written
unmount_fs
mount_fs "stage_dir=$WORK/half,predict=none" || done_testing
check "which is no less the next time" read_some
check "and is used" [ "$(disk hits)" -gt 0 ]
unmount_fs
umount "$WORK/half"

mkdir "$WORK/full"
mount -t tmpfs -o size=2M,mode=700 stage "$WORK/full"
mount_fs "stage_dir=$WORK/full,stage_size=64M,predict=none" || done_testing
check "a disk that is full costs nothing else" same_tree
is_full() { is_disk state full || { ctl stats --json "$MNT" | grep -o '"disk": {[^}]*}' && false; }; }
check "and is told" wait_for 20 is_full
unmount_fs
umount "$WORK/full"

# ---- what is refused, and nothing changed by it ----
unsized() { refuses 'stage_size= is the size of' stage_size=1G; }
check "a size of nothing" unsized
check "one that is too small" refuses 'give more' "stage_dir=$WORK/no,stage_size=1K"
check "in the source" refuses 'in the source' "stage_dir=$SRC/stage"
check "in the mount" refuses 'in the source' "stage_dir=$MNT/stage"
check "above both" refuses 'holds them' "stage_dir=$WORK"
check "without staging" refuses 'leave out stage=none' "stage_dir=$WORK/no,stage=none"
check "in a folder that is not there" refuses 'in one that exists' "stage_dir=$WORK/no/no"
mkdir "$WORK/precious" && echo x >"$WORK/precious/file"
check "with other things in it" refuses 'holds other things' "stage_dir=$WORK/precious"
check "which are still all there is" [ "$(ls -A "$WORK/precious")" = file ]
check_fails "nothing was made" [ -e "$WORK/no" ]
mkdir "$WORK/elsewhere" "$WORK/mnt3"
other=$(stagefs "$WORK/elsewhere" "$WORK/mnt3" -o "stage_dir=$stage" 2>&1) && fail "another source" || true
same "of another source" yes "$(grep -q 'copies of another source' <<<"$other" && echo yes || echo "$other")"
unmount_slow

# ---- a source whose times say little, as with sftp ----
rm -rf "$stage"
mount_slow latency_us=300,coarse
mount_fs "$options" || done_testing
check "all is read" same_tree
check "and is written" wait_for 20 written
printf 'one\n' >"$under/other/one" && printf 'two\n' >"$under/other/two" && printf 'new\n' >"$under/other/new"
mkdir "$under/other/from" "$under/other/to"
printf 'one\n' >"$under/other/from/file" && printf 'two\n' >"$under/other/to/file"
find "$under/other" -exec touch -d 2020-01-01 {} +
check "files that look alike" reads other/one one
check "another" reads other/two two
check "in folders" reads other/from/file one
check "another" reads other/to/file two
check "are written" wait_for 20 written
printf 'ONE\n' >"$MNT/other/one"
touch -d 2020-01-01 "$MNT/other/one" # the times as they were
cp -p "$MNT/other/new" "$MNT/other/.new" && mv "$MNT/other/.new" "$MNT/other/two"
mv "$MNT/other/to" "$MNT/other/gone" && mv "$MNT/other/from" "$MNT/other/to"
unmount_fs
mount_fs "$options" || done_testing
check "rewritten, its times set back" reads other/one ONE
check "replaced by one that looks alike" reads other/two new
check "in a folder that took the place of another" reads other/to/file one
check "and in the one that it was" reads other/gone/file two
same "nothing else was opened" 0 "$(opens_of same_tree)"
printf 'TWO\n' >"$MNT/other/.two" && touch -d 2020-01-01 "$MNT/other/.two" && mv "$MNT/other/.two" "$MNT/other/two"
kill -KILL "$DAEMON" # before it has written that
wait "$DAEMON" || true
t_forget_process "$DAEMON"
umount "$MNT"
mount_fs "$options" || done_testing
check "replaced just before the daemon was killed" reads other/two TWO
check "all else is read" same_tree
check "and written" wait_for 20 written
unmount_fs
printf 'now\n' >"$under/other/one"
touch -d '1 hour' "$under/other/one" # so young that the next change might not show
mount_fs "$options" || done_testing
check "a young file" wait_for 20 reads other/one now
check "written" wait_for 20 written
unmount_fs
mount_fs "$options" || done_testing
check "is read" reads other/one now
same "from the source" 0 "$(disk hits)"
unmount_fs
unmount_slow

if [ "$VARIANT" = default ]; then
    cp -a "$under/." "$SRC"
    local_source
fi
done_testing
