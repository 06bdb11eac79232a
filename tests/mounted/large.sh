#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# sanitized: default
# timeout: 300
#
# Large files in the stage directory: each is a file of its own there, that the kernel reads once all of it is right. It
# is never given where it is not what the source has, however it became so, and takes no more than the directory may.
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
sum() { sha256sum <"$1" | cut -d ' ' -f 1; }
sum_open() { # FD: of all of what is open there
    python3 -c '
import hashlib, os, sys
fd, at, total = int(sys.argv[1]), 0, hashlib.sha256()
while part := os.pread(fd, 1 << 20, at):
    at += len(part)
    total.update(part)
print(total.hexdigest())' "$1"
}
same_file() { [ "$(sum "$MNT/$1")" = "$(sum "$under/$1")" ]; }
same_open() { [ "$(sum_open "$1")" = "$(sum "$under/$2")" ]; } # FD NAME
same_all() { (cd "$under" && sha256sum -- *) | (cd "$MNT" && sha256sum -c --quiet); }
written() { is_disk queued_bytes 0; }
files_kept() { find "$stage/large" -type f 2>/dev/null | wc -l; }
taken() { du -s --block-size=1 "$1" | cut -f 1; }
is_old() { # the last change of it, so that one more would show
    [ "$(($(date +%s%N) - $(stat -c %.9Z "$1" | tr -d .)))" -gt 100000000 ]
}
settled() {
    find "$under" -exec touch -h -d '2 hours ago' {} +
    wait_for 20 is_old "$under"
}
random() { head -c "$2" /dev/urandom >"$under/$1"; } # NAME BYTES
# The kernel reads it, where it can. One that has pieces open is not passed through before these are closed.
passed() { # COUNT
    [ "$VARIANT" = pagecache ] || is_disk large_passed "$1"
}
kill_daemon() {
    kill -KILL "$DAEMON"
    wait "$DAEMON" || true
    t_forget_process "$DAEMON"
    umount "$MNT"
}
writer_of() { # STAGE_DIR: the process that writes there
    local process
    for process in /proc/[0-9]*; do
        if [ "$(cat "$process/comm" 2>/dev/null)" = stagefs-disk ] && [ "$(readlink "$process/fd/4")" = "$1" ]; then
            echo "${process##*/}"
        fi
    done
}
passed_some() { [ "$VARIANT" = pagecache ] || [ "$(disk large_passed)" -ge 2 ]; }
all_there() { cat "$MNT/two" "$MNT/big" >/dev/null && written && passed_some; }
damage() { # FILE OFFSET
    printf 'damaged' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

new_dirs
under=$WORK/slow-under
stage=$WORK/stage
mkdir -p "$under"
random big 5000001
random two 3M
random small 1000
settled
mount_slow latency_us=300
options=stage_dir=$stage,threshold=200K,predict=none

# ---- kept, and passed through ----
mount_fs "$options" || done_testing
check "all is read" same_all
check "and written" wait_for 20 written
same "each large one to a file" 2 "$(files_kept)"
check "for its owner alone" [ "$(find "$stage/large" -type f -perm 600 | wc -l)" = 2 ]
check "which takes what the file has" [ "$(disk large_bytes)" -ge 8000000 ]
same "read again, from there" 0 "$(opens_of same_all)"
check "passed through" passed 2
check "and staged at once" ctl stage "$MNT/big"
unmount_fs
check "in order" ctl doctor "$stage"

mount_fs "$options" || done_testing
same "the next mount opens nothing at the source" 0 "$(opens_of same_all)"
check "and passes through" passed 2
check "what was taken is counted" [ "$(disk hits)" -ge 1 ]
exec 7<"$MNT/big"
if [ "$VARIANT" = default ]; then
    # shellcheck disable=SC2046 # numbers
    kill -STOP $(fs_processes)
    check "without the daemon" same_open 7 big
    # shellcheck disable=SC2046 # numbers
    kill -CONT $(fs_processes)
fi

# ---- changed while it is open ----
random big 4000000
check "who has it open sees a change at the source" wait_for 20 eval 'stat "$MNT/big" >/dev/null; same_open 7 big'
exec 7<&-
check "who opens it, too" same_file big
check "what came is written" wait_for 20 written
unmount_fs
check "in order after that" ctl doctor "$stage"
settled
mount_fs "$options" || done_testing
check "the version of now is read" same_all
check "and written" wait_for 20 written
unmount_fs
mount_fs "$options" || done_testing
check "all of both is there" wait_for 20 all_there
exec 7<"$MNT/two"
if [ "$VARIANT" = default ]; then
    before=$(sum_open 7)
    cp "$under/two" "$WORK/two"
    random two 3M
    slow_control fail=READ:EIO
    is_told() { [ "$(stat -c %Y "$MNT/two")" = "$(stat -c %Y "$under/two")" ]; }
    check "a change is seen of what cannot be read" wait_for 20 is_told
    same "who has it open has it as it was, whole" "$before" "$(sum_open 7)"
    slow_control ""
    check "and as it is, when it can be" wait_for 20 eval 'stat "$MNT/two" >/dev/null; same_open 7 two'
    cp "$WORK/two" "$under/two"
    check "as it was again" wait_for 20 eval 'stat "$MNT/two" >/dev/null; same_open 7 two'
fi
exec 7<"$MNT/big"
check "open, and read" same_open 7 big
check "who stores through a mapping meanwhile" python3 -c '
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(fd, 0) as mapping:
    mapping[1000000:1000005] = b"store"
    mapping.flush()
os.pwrite(fd, b"written", 2000000)
os.fsync(fd)
os.close(fd)' "$MNT/big"
stored() { grep -qa store "$under/big" && grep -qa written "$under/big" && same_open 7 big; }
check "changes the source, and what is open" wait_for 20 stored
exec 7<&-
check "and what is opened" wait_for 20 same_file big
mv "$MNT/two" "$MNT/was-two" && cp "$under/big" "$under/two"
check "renamed" same_file was-two
check "and another in its place" wait_for 20 same_file two
check "are written" wait_for 20 written
unmount_fs
check "in order after all that" ctl doctor "$stage"
settled
mount_fs "$options" || done_testing
check "and right" same_all
check "one file for each, no more" wait_for 20 eval 'same_all && written && [ "$(files_kept)" = 3 ]'

# ---- damaged ----
unmount_fs
for file in "$stage"/large/*; do damage "$file" 1500000; done
check_fails "damage is found" ctl doctor "$stage"
mount_fs "$options" || done_testing
check "and never given" same_all
check "nor kept" [ "$(disk corrupt)" -ge 1 ]
check "what is right is written anew" wait_for 20 written
unmount_fs
mount_fs "$options" || done_testing
check "all is right" same_all
check "and written" wait_for 20 written
unmount_fs
for file in "$stage"/large/*; do damage "$file" 1500000; done
ctl doctor --repair "$stage" >/dev/null
check "it can be taken out" ctl doctor "$stage"
same "and is gone" 0 "$(files_kept)"
mount_fs "$options" || done_testing
check "what was taken out is read" same_all
check "and written" wait_for 20 written
unmount_fs
rm -f "$stage"/large/*
check "files that somebody has removed are no damage" ctl doctor "$stage"
mount_fs "$options" || done_testing
check "they are read" same_all
check "and written anew" wait_for 20 eval 'written && [ "$(files_kept)" = 3 ]'

# ---- the daemon is killed ----
random three 20M
settled
check "a new one comes" wait_for 20 test -e "$MNT/three"
cat "$MNT/three" >/dev/null &
reader=$!
check "and is being written" wait_for 20 eval '[ "$(files_kept)" -ge 4 ]'
kill_daemon
wait "$reader" || true
touch "$stage/large/ffff" # as of one that was killed before it was named
mount_fs "$options" || done_testing
check "all is right after the daemon was killed" same_all
check "and written" wait_for 20 written
same "with a file for each" 4 "$(files_kept)"
# What is being written when the daemon is killed is over before another mount has the directory.
writer=$(writer_of "$stage")
kill -STOP "$writer"
kill_daemon
check_fails "who writes has the directory for as long" flock -n "$stage/lock" true
kill -CONT "$writer"
check "and ends then" wait_for 20 flock -n "$stage/lock" true
check "in order after that" ctl doctor "$stage"

# ---- a disk that gets full ----
mkdir "$WORK/full"
mount -t tmpfs -o size=9M,mode=700 stage "$WORK/full"
random big 5000000
settled
mount_fs "stage_dir=$WORK/full,stage_size=64M,threshold=200K,predict=none" || done_testing
check "a file" wait_for 20 same_file big # its source keeps attributes for a second
check "is written" wait_for 20 written
exec 7<"$MNT/big"
check "and opened" same_open 7 big
random big 6000000
check "who has it open sees a change, though there is no room for both" \
    wait_for 20 eval 'stat "$MNT/big" >/dev/null; same_open 7 big'
exec 7<&-
check "as who opens it" same_file big
unmount_fs
umount "$WORK/full"

# ---- limits ----
mount_fs "$options,stage_size=14M" || done_testing
check "a lower limit" wait_for 20 eval '[ "$(taken "$stage")" -le $((14 << 20)) ]'
check "costs nothing else" same_all
check "what is given up goes" wait_for 20 written
check "never more than that" [ "$(taken "$stage")" -le $((14 << 20)) ]
unmount_fs
rm -rf "$stage"
mkdir "$under/more"
for i in $(seq 20); do random "more/$i" 1500K; done
settled
mount_fs "$options,stage_size=16M" || done_testing
read_more() { (cd "$MNT/more" && cat -- *) >/dev/null; }
check "more than there is room for" read_more
check "is written" wait_for 20 written
check "once more" read_more
check "as far as it goes" wait_for 20 written
check "some of it is kept" [ "$(disk large_bytes)" -gt $((4 << 20)) ]
check "no more than that" [ "$(taken "$stage")" -le $((16 << 20)) ]
same_more() { diff -r "$under/more" "$MNT/more"; }
check "all is right" same_more
# What is open stays, whatever becomes of it in the directory.
exec 7<"$MNT/more/20"
for i in $(seq 30 50); do random "more/$i" 1500K; done
settled
check "others come" wait_for 20 test -e "$MNT/more/50"
check "more than there is room for, again" read_more
check "are written" wait_for 20 written
check "what is open is right" same_open 7 more/20
exec 7<&-
check "and the rest" same_more
check "still no more" wait_for 20 eval 'written && [ "$(taken "$stage")" -le $((16 << 20)) ]'
unmount_fs
check "in order at the end" ctl doctor "$stage"
unmount_slow
done_testing
