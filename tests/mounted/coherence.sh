#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What is promised of changes behind the mount: by a stress (coherence.c) for each mode and way to serve, and rule by
# rule.  COHERENCE_SEED=N repeats a stress.
# variants: default staged
# sanitizers: thread
# sanitized: staged
# timeout: 400

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
# shellcheck source=tests/lib/slow-source.sh
. "$TOP/tests/lib/slow-source.sh"

synced() {
    sync_command=(timeout -k 5 "$PATIENCE" "${T_WRAP[@]}" "$BUILD_DIR/client/stagectl" sync "$MNT")
    # What does not end well shows in the checks that come after.
    "${sync_command[@]}" </dev/null
}

# Edits of a stress, and how late on a busy machine an event may be handled.
edits=2000 slack=2
if [ "$SANITIZER" != none ]; then
    edits=400 slack=8
fi
seed=${COHERENCE_SEED-1}

mount_coherent() { # MODE SERVE [TTL]: as mount_fs
    local options="coherence=$1,serve=$2"
    [ "$1" != ttl ] || options+=",ttl=${3-60}"
    if [ "$VARIANT" = staged ]; then
        options+=",stage=prefetch,mem=4M,cold=1M,uring=off"
        # With only the attributes to tell a change by, a copy needs the time in which they may stay the same.
        [ "$1" = strict ] || [ "$1" = ttl ] || options+=",settle=0"
    fi
    VARIANT=default mount_fs "$options"
}

# ---- the stress ----

stress() { # MODE SERVE
    local arguments=(--mode "$1" --edits "$edits" --seed "$seed" --slack "$slack" --sync-timeout "$PATIENCE")
    new_dirs
    mount_coherent "$1" "$2" 0.2 || return 0
    [ "$1" != ttl ] || arguments+=(--ttl 0.2)
    [ "$2" != pagecache ] || arguments+=(--pagecache)
    [ "$VARIANT" != staged ] || arguments+=(--control "$BUILD_DIR/client/stagectl")
    check "$1, $2: what is read is never older than promised, and after a sync all is as in the source" \
        "${T_WRAP[@]}" "$BUILD_DIR/tests/coherence" "$SRC" "$MNT" "${arguments[@]}"
    tail -n 2 "$T_OUT" | t_comment
    unmount_fs || true
}

for mode in watch ttl strict frozen; do
    for serve in passthrough pagecache; do
        stress $mode $serve
    done
done

# What has to show up: a mount that looks at nothing again, held against the promise of one that always does.
new_dirs
if mount_coherent frozen passthrough; then
    status=0
    "${T_WRAP[@]}" "$BUILD_DIR/tests/coherence" "$SRC" "$MNT" --mode strict --no-sync --edits 200 --round 50 \
        >"$T_OUT" 2>&1 || status=$?
    same "the stress finds what is out of date" 1 $status
    unmount_fs || true
fi

# ---- rule by rule: nothing of this shows by a timeout ----

content() { [ "$(cat "$MNT/$1" 2>/dev/null)" = "$2" ]; }
absent() { ! stat "$MNT/$1" >/dev/null 2>&1; }
attributes() { [ "$(stat -c '%i %h %a %s %y %z' "$MNT/$1")" = "$(stat -c '%i %h %a %s %y %z' "$SRC/$1")" ]; }
listing() { [ "$(ls -Ai "$MNT/$1")" = "$(ls -Ai "$SRC/$1")" ]; }
target() { [ "$(readlink "$MNT/$1")" = "$2" ]; }

# Everything below: names, attributes and targets, then contents.
tree_of() {
    (cd "$1" && find . -printf '%p %i %m %n %s %T@ %C@ %l\n' | sort &&
        find . -type f -print0 | sort -z | xargs -0r sha256sum)
}
same_trees() {
    tree_of "$SRC" >"$TMPDIR/tree-source"
    tree_of "$MNT" >"$TMPDIR/tree-mount"
    diff "$TMPDIR/tree-source" "$TMPDIR/tree-mount"
}

know_everything() { # also what is not there
    local name
    ls -lR "$MNT" >/dev/null
    find "$MNT" -type f -exec cat {} + >/dev/null
    for name in new dir/new moved never/other point/new; do stat "$MNT/$name" >/dev/null 2>&1 || true; done
}

cat >"$TMPDIR/held.py" <<'PYTHON'
"""What is held, mapped and open, after a change behind the mount and the command of the arguments."""
import mmap, os, subprocess, sys
source, mount, *command = sys.argv[1:]
with open(source, "wb") as file: file.write(b"a" * 10000)
subprocess.run(command, check=True)
held = os.open(mount, os.O_RDONLY)
mapped = mmap.mmap(held, 10000, prot=mmap.PROT_READ)
assert mapped[:] == b"a" * 10000 and os.pread(held, 10000, 0) == b"a" * 10000, "before"
writer = os.open(source, os.O_WRONLY)
os.pwrite(writer, b"b" * 5000, 2500)
subprocess.run(command, check=True)
want = b"a" * 2500 + b"b" * 5000 + b"a" * 2500
assert os.pread(held, 20000, 0) == want, "open"
assert mapped[:] == want, "mapped"
os.pwrite(writer, b"c" * 10, 10000)
os.ftruncate(writer, 10005)
subprocess.run(command, check=True)
assert os.fstat(held).st_size == 10005, "size"
assert os.pread(held, 20000, 0) == want + b"c" * 5, "grown"
os.ftruncate(writer, 100)
subprocess.run(command, check=True)
assert os.pread(held, 20000, 0) == want[:100] and mapped[:100] == want[:100], "cut"
PYTHON

cat >"$TMPDIR/store.py" <<'PYTHON'
"""A store through a mapping, which the end of the mapping ends."""
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
mapped = mmap.mmap(file, os.fstat(file).st_size)
os.close(file)
mapped[:3] = b"new"
mapped.flush()
mapped.close()
PYTHON

run_rules() { # WHAT: each shows after a sync
    local what=$1
    mkdir -p "$SRC/dir/deep" "$SRC/never" "$SRC/replaced"
    local name
    for name in rewritten linked outside stored removed chmodded dir/deep/file replaced/old; do
        echo old >"$SRC/$name"
    done
    ln -s one "$SRC/link"
    ln "$SRC/outside" "$WORK/outside"
    synced || true
    know_everything
    # A new folder which the mount never looked at.
    rmdir "$SRC/never"
    mkdir "$SRC/never"

    touch -r "$SRC/rewritten" "$TMPDIR/times"
    printf 'new' | dd of="$SRC/rewritten" conv=notrunc status=none
    touch -r "$TMPDIR/times" "$SRC/rewritten"
    synced || true
    check "$what: a rewrite with the same size and mtime (content)" content rewritten new
    check "$what: and its ctime" attributes rewritten
    echo new >"$SRC/new" && echo new >"$SRC/dir/new"
    synced || true
    check "$what: a name that was known not to be there" content new new
    check "$what: and in a folder" content dir/new new
    check "$what: whose list has it" listing dir
    rm "$SRC/removed"
    synced || true
    check "$what: a name that is gone" absent removed
    mv "$SRC/dir" "$SRC/moved"
    synced || true
    check "$what: a folder that was renamed: its old name" absent dir/deep/file
    check "$what: its new name" content moved/deep/file old
    check "$what: its attributes" attributes moved/deep
    ln "$SRC/linked" "$SRC/never/other" && echo changed >"$SRC/never/other"
    synced || true
    check "$what: written by a link in a folder that was never looked at" content linked changed
    check "$what: with its number of links" attributes linked
    echo changed >"$WORK/outside"
    synced || true
    check "$what: written by a link outside the source" content outside changed
    python3 "$TMPDIR/store.py" "$SRC/stored"
    synced || true
    check "$what: a store through a mapping that ended" content stored new
    check "$what: with its times" attributes stored
    chmod 601 "$SRC/chmodded" && ln -sfn two "$SRC/link"
    synced || true
    check "$what: a mode" attributes chmodded
    check "$what: a link's target" target link two
    rm -r "$SRC/replaced" && mkdir "$SRC/replaced" && echo new >"$SRC/replaced/file"
    synced || true
    check "$what: a folder that was made again" content replaced/file new
    check "$what: without what the old one had" absent replaced/old
    check "$what: everything else, too" same_trees
    check "$what: through what is held, mapped and open" \
        python3 "$TMPDIR/held.py" "$SRC/held" "$MNT/held" "${sync_command[@]}"
}

for mode in watch ttl strict frozen; do
    for serve in passthrough pagecache; do
        new_dirs
        mount_coherent $mode $serve || continue
        run_rules "$mode, $serve"
        unmount_fs || true
    done
done

# ---- without a sync ----

for serve in passthrough pagecache; do
    new_dirs
    mount_coherent watch $serve || continue
    echo old >"$SRC/file" && echo old >"$SRC/removed"
    wait_for 20 content file old || true
    know_everything
    echo changed >"$SRC/file" && echo new >"$SRC/new" && rm "$SRC/removed"
    check "watch, $serve: content shows by itself" wait_for 20 content file changed
    check "watch, $serve: a new name" wait_for 20 content new new
    check "watch, $serve: a removed name" wait_for 20 absent removed
    unmount_fs || true

    new_dirs
    mount_coherent strict $serve || continue
    echo old >"$SRC/file" && echo old >"$SRC/removed"
    know_everything
    echo changed >"$SRC/file" && echo new >"$SRC/new" && rm "$SRC/removed"
    check "strict, $serve: content shows at once" content file changed
    check "strict, $serve: a new name" content new new
    check "strict, $serve: a removed name" absent removed
    unmount_fs || true

    new_dirs
    echo old >"$SRC/file" && echo old >"$SRC/removed"
    mount_coherent frozen $serve || continue
    know_everything
    # A read moves the atime, which makes the kernel ask for the attributes once more.
    know_everything
    before=$(stat -c '%s %y %z' "$MNT/file")
    echo changed >"$SRC/file" && echo new >"$SRC/new" && rm "$SRC/removed"
    # Passed through, the content is the source's own.
    [ $serve = passthrough ] || check "frozen, $serve: the content stays" content file old
    same "frozen, $serve: attributes stay" "$before" "$(stat -c '%s %y %z' "$MNT/file")"
    check "frozen, $serve: what was not there stays away" absent new
    check "frozen, $serve: what was removed stays" stat "$MNT/removed"
    check "frozen, $serve: what is made through the mount" cp "$SRC/new" "$MNT/made"
    check "frozen, $serve: is there with its content" content made new
    check "frozen, $serve: a sync" synced
    check "frozen, $serve: shows the content" content file changed
    check "frozen, $serve: and attributes" attributes file
    check "frozen, $serve: the new name" content new new
    check "frozen, $serve: and no removed one" absent removed
    unmount_fs || true
done

# ---- events that were lost ----

cat >"$TMPDIR/flood.py" <<'PYTHON'
"""More different events than the kernel keeps for the daemon, and no file left of them."""
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for i in range(count):
    name = os.path.join(folder, "flood-%d" % i)
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)
PYTHON

queue=$(cat /proc/sys/fs/fanotify/max_queued_events 2>/dev/null || echo 16384)
for serve in passthrough pagecache; do
    if [ "$queue" -gt 100000 ]; then
        skip "lost events, $serve" "the kernel keeps $queue of them here"
        continue
    fi
    new_dirs
    mkdir -p "$SRC/dir/deep" "$SRC/flood"
    for name in kept removed dir/deep/file; do echo old >"$SRC/$name"; done
    mount_coherent watch $serve || continue
    know_everything
    exec 8<"$MNT/kept"
    kill -STOP "$DAEMON"
    python3 "$TMPDIR/flood.py" "$SRC/flood" $((queue + 1000))
    # Of these nothing is told.
    touch -r "$SRC/kept" "$TMPDIR/times"
    printf 'new' | dd of="$SRC/kept" conv=notrunc status=none
    touch -r "$TMPDIR/times" "$SRC/kept"
    rm "$SRC/removed"
    echo new >"$SRC/new"
    mv "$SRC/dir/deep" "$SRC/moved"
    kill -CONT "$DAEMON"
    check "lost events, $serve: a sync" synced
    check "lost events, $serve: all is as in the source" same_trees
    same "lost events, $serve: also for who had it open" new "$(cat <&8)"
    exec 8<&-
    check "lost events, $serve: what was known not to be there" content new new
    check "lost events, $serve: what is gone" absent removed
    check "lost events, $serve: some were lost" test "$(stat_of overflows)" -gt 0
    unmount_fs || true
done

# ---- mounts below the source that come and go ----

for serve in passthrough pagecache; do
    new_dirs
    mkdir "$SRC/point"
    echo under >"$SRC/point/file"
    mount_coherent watch $serve || continue
    know_everything
    if ! mount -t tmpfs -o size=1m tmpfs "$SRC/point" 2>/dev/null; then
        skip "a mount below, $serve" "tmpfs cannot be mounted here"
        unmount_fs || true
        continue
    fi
    echo over >"$SRC/point/file" && echo new >"$SRC/point/new"
    check "a mount below, $serve: a sync" synced
    check "a mount below, $serve: shows its files" content point/file over
    check "a mount below, $serve: and names that were not there" content point/new new
    echo "over again" >"$SRC/point/file" && rm "$SRC/point/new"
    check "a mount below, $serve: another sync" synced
    check "a mount below, $serve: shows changes in it" content point/file "over again"
    check "a mount below, $serve: and what is gone" absent point/new
    umount -l "$SRC/point"
    check "a mount below, $serve: a sync after it is gone" synced
    check "a mount below, $serve: shows what it hid" content point/file under
    unmount_fs || true
done

# ---- a sync that cannot end ----

sync_status() { # STATUS ARGUMENT...
    local want=$1 status=0
    shift
    timeout -k 5 "$PATIENCE" "${T_WRAP[@]}" "$BUILD_DIR/client/stagectl" sync "$@" "$MNT" || status=$?
    [ "$status" = "$want" ] || { echo "status $status" && return 1; }
}

if have_slowfs; then
    new_dirs
    mount_slow "latency_us=300,timeout=0"
    echo old >"$SLOW_UNDER/file"
    echo old >"$SLOW_UNDER/other"
    VARIANT=default mount_fs "coherence=ttl,ttl=600,negative_timeout=0,uring=off" || done_testing
    know_everything
    ctl sync "$MNT" || true
    know_everything
    echo changed >"$SLOW_UNDER/file"
    slow_control gate=LOOKUP
    # What looks at the source now may answer what was there before: a sync has to wait for it.
    stat "$MNT/unknown" >/dev/null 2>&1 &
    waiting=$!
    own_process $waiting
    check "a look at the source does not end" slow_wait_held
    check "the exit status of a sync that cannot end in time is 3" sync_status 3 -t 0.5
    slow_control ""
    check "and that of one that can is 0" sync_status 0
    wait $waiting || true
    check "after which the change shows" content file changed
    unmount_fs || true
    unmount_slow || true

    # One round trip for each staged file, and not one after the other: that would be 8 s.
    new_dirs
    mount_slow "latency_us=300,timeout=0,coarse"
    for i in $(seq 400); do echo "old $i" >"$SLOW_UNDER/$i"; done
    find "$SLOW_UNDER" -type f -exec touch -d '2 hours ago' {} +
    VARIANT=default mount_fs "coherence=ttl,ttl=600,stage=prefetch,uring=off" || done_testing
    check "400 files are staged" ctl stage -r "$MNT"
    echo "changed" >"$SLOW_UNDER/399"
    slow_control latency_us=20000
    check "a sync over 400 files of a slow source takes less than 5 s" sync_status 0 -t 5
    check "after which a change shows" content 399 changed
    unmount_fs || true
    unmount_slow || true
else
    skip "a sync that cannot end" "slowfs is not built"
fi
same "a plain folder is always in sync, or is said to be no mount" "" \
    "$(ctl sync "$NATIVE" >/dev/null 2>&1 || [ $? = 1 ] || echo "another status")"

done_testing
