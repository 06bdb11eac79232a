#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# sanitized: default
# timeout: 200
#
# A remote source whose server dies, and that is mounted again in its place: the mount serves what is there then, without
# being made anew; never what another has put there; and what is open stays what it was.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

content() { [ "$(cat "$MNT/$1" 2>/dev/null)" = "$2" ]; }
gone() { local text && text=$(stat "$MNT/$1" 2>&1) && return 1 || grep -q 'not connected' <<<"$text"; }
kill_source() { # its mount is there until somebody takes it down
    kill -KILL "$SLOW_PID"
    wait_for 20 process_gone "$SLOW_PID" || return 1
    wait "$SLOW_PID" 2>/dev/null || true
    t_forget_process "$SLOW_PID"
}
take_down() { umount -l "$SRC"; }
write_tree() { # WORD
    mkdir -p "$WORK/slow-under/folder/deep"
    for name in one two folder/three folder/deep/four; do echo "$1 $name" >"$WORK/slow-under/$name"; done
    find "$WORK/slow-under" -exec touch -d @1700000000 {} + # size and times tell nothing
}
tree_is() { for name in one two folder/three folder/deep/four; do content "$name" "$1 $name" || return 1; done; }

for mode in ttl=1 coherence=frozen coherence=strict; do
    new_dirs
    write_tree alpha
    mount_slow latency_us=300,coarse || done_testing
    mount_fs "stage=prefetch,$mode" || done_testing
    check "$mode: the tree is there" tree_is alpha
    exec 3<"$MNT/one"
    check "$mode: the source dies" kill_source
    if [ $mode = coherence=frozen ]; then
        check "$mode: what is staged is served all the same" tree_is alpha
    else
        check "$mode: which is told" wait_for 20 gone unknown
    fi
    check "$mode: its mount is taken down" take_down
    rm -r "$WORK/slow-under/folder/deep"
    write_tree gamma
    mv "$WORK/slow-under/one" "$WORK/slow-under/other" && mv "$WORK/slow-under/two" "$WORK/slow-under/one"
    mv "$WORK/slow-under/other" "$WORK/slow-under/two"
    mount_slow latency_us=300,coarse || done_testing
    check "$mode: mounted again, it is served" wait_for 20 content one "gamma two"
    check "$mode: by its names" content two "gamma one"
    check "$mode: and below them" content folder/deep/four "gamma folder/deep/four"
    check "$mode: written, too" sh -c "echo written >'$MNT/new'"
    same "$mode: to the source" written "$(cat "$SLOW_UNDER/new")"
    same "$mode: it lists what is there" "$(ls "$SLOW_UNDER")" "$(ls "$MNT")"
    contains_five() { "$BUILD_DIR/client/stagectl" stage -r "$MNT" | grep -q '^5 of 5 files'; }
    check "$mode: a job goes through all of it" contains_five
    if [ "$VARIANT" = default ]; then # cat would ask for its attributes, which are the source's
        read -r -u 3 line || true
        same "$mode: who had a copy open has it still" "alpha one" "$line"
    fi
    exec 3<&-
    # And again, and again: the kernel gives numbers of mounts and devices to the next but one.
    for word in delta gamma alpha omega; do
        check "$mode: it dies once more" kill_source
        check "$mode: and its mount is taken down" take_down
        write_tree $word
        mount_slow latency_us=300,coarse || done_testing
        check "$mode: and is there once more" wait_for 20 tree_is $word
    done
    unmount_fs && pass "$mode: the mount ends cleanly"
    unmount_slow
done

# What was written and not yet told to the server is not said to be there.
new_dirs
write_tree alpha
mount_slow latency_us=300,coarse || done_testing
mount_fs ttl=1 || done_testing
cat >"$TMPDIR/writer.py" <<'PYTHON'
"""writer.py FILE: writes, waits for a line, and says what close says."""
import os, sys

fd = os.open(sys.argv[1], os.O_WRONLY)
os.write(fd, b"lost")
print("written", flush=True)
sys.stdin.readline()
try:
    os.close(fd)
    print("closed")
except OSError as error:
    print(error.errno)
PYTHON
if [ "$VARIANT" = default ]; then # who serves without opens has no close to answer
    coproc WRITER { python3 "$TMPDIR/writer.py" "$MNT/one"; }
    read -r -u "${WRITER[0]}" line
    same "a writer has written" written "$line"
    check "the source dies" kill_source
    check "and is taken down" take_down
    write_tree gamma
    mount_slow latency_us=300,coarse || done_testing
    check "mounted again, it is served" wait_for 20 tree_is gamma
    echo >&"${WRITER[1]}"
    read -r -u "${WRITER[0]}" line
    same "his close fails" 5 "$line"
fi
unmount_fs
unmount_slow

# What is kept on disk is found again by path, where it is of that time.
new_dirs
write_tree alpha
mount_slow latency_us=300,coarse || done_testing
mount_fs "stage_dir=$WORK/stage,predict=none" || done_testing
check "with copies on disk: the tree is there" tree_is alpha
kept() { # all four
    "$BUILD_DIR/client/stagectl" stats --json "$MNT" | python3 -c '
import json, sys
disk = json.load(sys.stdin)["disk"]
sys.exit(disk["queued_bytes"] != 0 or disk["entries"] < 4)'
}
check "and written" wait_for 20 kept
check "the source dies" kill_source
check "and is taken down" take_down
mount_slow latency_us=300,coarse || done_testing
check "mounted again, it is served" wait_for 20 tree_is alpha
same "and none of it read from the source" 0 "$(slow_count read)"
unmount_fs
unmount_slow

# Another thing at its place is not the source.
new_dirs
write_tree alpha
mount_slow latency_us=300,coarse || done_testing
mount_fs ttl=0.1 || done_testing
check "another at its place: the tree is there" tree_is alpha
check "the source dies" kill_source
check "and is taken down" take_down
mount -t tmpfs foreign "$SRC" && echo "another's" >"$SRC/one"
check "what another puts there is not served" wait_for 20 gone one
umount "$SRC"
mount_slow latency_us=300,coarse || done_testing
check "the source is, when it is there again" wait_for 20 tree_is alpha
check "and nothing else was" content one "alpha one"
unmount_fs
unmount_slow
done_testing
