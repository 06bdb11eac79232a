#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default
# sanitizers: address thread
# timeout: 240
#
# What an earlier mount has kept of a tree that does not change is in the kernel when the mount is ready: then the
# daemon is not needed for it.  The source is asked for nothing meanwhile, and may hang.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"
. "$TOP/tests/lib/disk.sh"

have_slowfs || skip_all "slowfs is not built"

make_tree() {
    mkdir -p "$under"/{sub/deep/deeper,empty,many}
    for i in $(seq 300); do echo "$i" >"$under/many/file$i"; done
    for name in a b c; do echo "int $name;" >"$under/sub/$name.c"; done
    echo deep >"$under/sub/deep/deeper/file"
    head -c 3000000 /dev/urandom >"$under/sub/large"
    mkfifo "$under/sub/fifo"
    ln -s a.c "$under/sub/link"
    find "$under" -exec touch -h -d '2 hours ago' {} +
}
look() { (cd "$1" && find . -printf '%p %y %m %s\n' | sort); }
uses() { # what is asked for, and so is kept
    look "$MNT" >/dev/null
    find "$MNT" -type f -exec cat {} + >/dev/null
    ! cat "$MNT"/{none,sub/none.h,sub/deep/none.h,many/none} 2>/dev/null
}
is_kept() { is_disk folders_written "$(find "$under" -type d | wc -l)" && is_disk queued_bytes 0; }

options=$(variant_options)
options=ro,coherence=frozen${options:+,$options}
# shellcheck disable=SC2120
mount_background() { # [OPTIONS]
    new_log
    timeout -k 5 "$PATIENCE" "${T_WRAP[@]}" "$STAGEFS" "$SRC" "$MNT" -o "$options,stage_dir=$stage${1:+,$1}" \
        </dev/null >>"$LOG" 2>&1
}
unmount_background() { # the first try: nothing that was started holds it
    umount "$MNT" && wait_for 60 no_fs_process
}

# Each is asked of the kernel alone: who is asked besides does not answer.
reads() { timeout -s KILL 10 cat "$MNT/$1" | cmp - "$under/$1"; }
known() {
    local name
    for name in sub/a.c sub/b.c sub/c.c many/file7 many/file300 sub/deep/deeper/file; do
        reads "$name" || { echo "$name is not read" && return 1; }
        [ "$(timeout -s KILL 10 stat -c '%s %a' "$MNT/$name")" = "$(stat -c '%s %a' "$under/$name")" ] ||
            { echo "$name is not known" && return 1; }
    done
    for name in none sub/none.h sub/deep/none.h many/none; do
        [[ $(timeout -s KILL 10 stat "$MNT/$name" 2>&1) = *"No such file"* ]] || { echo "$name is asked for" && return 1; }
    done
    # Without the time of birth, which the kernel keeps of nothing.
    timeout -s KILL 10 stat -c %F "$MNT/empty" "$MNT/sub/fifo" "$MNT/sub/large" >/dev/null || { echo names && return 1; }
}
known_alone() {
    local status=0
    # shellcheck disable=SC2046
    kill -STOP $(fs_processes)
    known || status=$?
    # shellcheck disable=SC2046
    kill -CONT $(fs_processes)
    return "$status"
}
# Of five mounts: pages that nobody uses the kernel may take back at any time.
is_primed() {
    local why
    for _ in 1 2 3 4 5; do
        mount_background || return 1
        why=$(known_alone) && unmount_background && return 0
        unmount_background || return 1
    done
    echo "$why" && return 1
}

new_dirs
under=$WORK/slow-under
stage=$WORK/stage
mkdir -p "$under"
make_tree
mount_slow latency_us=300
check "the first mount has nothing to tell" mount_background
check "all is used" uses
check "and kept" wait_for 20 is_kept
check "it can be unmounted at once" unmount_background

check "the next mount has told the kernel all" is_primed
check "and so has the one after it, in which nobody asked" is_primed

slow_control 'gate=LOOKUP gate=OPEN gate=READ gate=READDIR'
check "the source may hang" is_primed
slow_control ''

check "a mount that tells of opens" mount_background serve=passthrough
check "has the same names" diff <(look "$under") <(look "$MNT")
same "has had the source opened for none" 0 "$(ctl stats --json "$MNT" | python3 -c '
import json, sys
print(json.load(sys.stdin)["source_opens"])')"
check "ends" unmount_background

# ---- what is not kept any more, or not the same ----
mount_background
check "a sync" ctl sync "$MNT"
check "ends" unmount_background
check "the next mount asks the source again" mount_background
check "all is there" diff <(look "$under") <(look "$MNT")
check "all is used once more" uses
check "and kept" wait_for 20 is_kept
check "ends" unmount_background
echo "int another;" >"$under/new.c"
echo there >"$under/sub/none.h"
source_shows() { [ -e "$SRC/new.c" ] && [ -e "$SRC/sub/none.h" ]; }
check "the source is another" wait_for 20 source_shows
check "that is mounted" mount_background
check "and shows" diff <(look "$under") <(look "$MNT")
same "with what had not been there" there "$(cat "$MNT/sub/none.h")"
check "ends" unmount_background

# ---- one that is not believed ----
check "a mount that looks" mount_background coherence=ttl
check "is what the source is" diff <(look "$under") <(look "$MNT")
check "ends" unmount_background
unmount_slow
done_testing
