#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: thread
# sanitized: default
# timeout: 240
#
# What an earlier mount has kept the names of is looked at before the next one is ready, and leased to the kernel: then
# the daemon is not needed for it.  It is what the source has by then, changes show within ttl, and a source that hangs
# keeps nobody from mounting, nor from unmounting.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"
. "$TOP/tests/lib/disk.sh"

have_slowfs || skip_all "slowfs is not built"

make_tree() {
    mkdir -p "$under"/{sub/deep/deeper,empty,many,unused/below}
    for i in $(seq 300); do echo "$i" >"$under/many/file$i"; done
    for name in a b c; do echo "int $name;" >"$under/sub/$name.c"; done
    echo deep >"$under/sub/deep/deeper/file"
    echo unused >"$under/unused/below/file"
    ln -s a.c "$under/sub/link"
    find "$under" -exec touch -h -d '2 hours ago' {} +
}
look() { (cd "$1" && find . -printf '%p %y %m %s\n' | sort); }
same_tree() { diff <(look "$under") <(look "$MNT"); }
uses() { # what is asked for, and so is kept
    cat "$MNT"/many/* "$MNT"/sub/*.c "$MNT/sub/deep/deeper/file" >/dev/null
    ! cat "$MNT"/{none,sub/none.h,sub/deep/none.h,many/none} 2>/dev/null
}
is_kept() { [ "$(disk written)" -ge 304 ] && is_disk queued_bytes 0; }
mount_background() { # [OPTIONS]
    local options
    options=$(variant_options)
    new_log
    timeout -k 5 "$PATIENCE" "${T_WRAP[@]}" "$STAGEFS" "$SRC" "$MNT" \
        -o "${options:+$options,}uring=off,stage_dir=$stage${1:+,$1}" </dev/null >>"$LOG" 2>&1
}
unmount_background() { # the first try: nothing that was started holds it
    umount "$MNT" && wait_for 60 no_fs_process
}
known() { # to the kernel alone: who is asked besides does not answer
    local name
    for name in sub/a.c sub/b.c many/file7 many/file300 sub/deep/deeper/file; do
        [ "$(timeout -s KILL 3 stat -c '%s %a' "$MNT/$name")" = "$(stat -c '%s %a' "$under/$name")" ] ||
            { echo "$name is not known" && return 1; }
    done
    for name in none sub/none.h sub/deep/none.h many/none; do
        [[ $(timeout -s KILL 3 stat "$MNT/$name" 2>&1) = *"No such file"* ]] || { echo "$name is asked for" && return 1; }
    done
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
# Of five mounts: on a busy machine the source may be too slow for leases, as it is for a daemon that is slow itself.
is_primed() { # [OPTIONS]
    local why
    if [ "$SANITIZER" != none ]; then
        mount_background "$@" && known && unmount_background
        return
    fi
    for _ in 1 2 3 4 5; do
        mount_background "$@" || return 1
        why=$(known_alone) && unmount_background && return 0
        unmount_background || return 1
    done
    echo "$why" && return 1
}
patience=15
[ "$SANITIZER" = none ] || patience=60
few() { [ "$1" -le "$2" ] || { echo "$1" && false; }; }

new_dirs
under=$WORK/slow-under
stage=$WORK/stage
mkdir -p "$under"
make_tree
mount_slow latency_us=2000,timeout=0 || done_testing

before=$(slow_count readdir)
check "the first mount has nothing to tell" mount_background
check "and looks at nothing by itself" few $(($(slow_count readdir) - before)) 5
check "what is used" uses
check "is kept" wait_for 60 is_kept
check "it can be unmounted at once" unmount_background

check "the next mount has told the kernel what was used" is_primed
check "and so has the one after it, in which nobody asked" is_primed
check "and one that nobody writes to" is_primed ro

check "it is mounted" mount_background
check "all of the tree is there" same_tree
check "ends" unmount_background
before=$(slow_count readdir)
check "predict=none" mount_background predict=none
check "looks at nothing" few $(($(slow_count readdir) - before)) 5
check "ends" unmount_background

# ---- the source changes ----

echo "int another;" >"$under/sub/a.c"
echo there >"$under/sub/none.h"
rm "$under/many/file7"
mv "$under/sub/deep/deeper" "$under/sub/elsewhere"
mkdir "$under/many/none"
check "while nobody mounts it" mount_background
check "the next mount shows it at once" same_tree
same "with what is in it" "int another;" "$(cat "$MNT/sub/a.c")"
same "and what had not been there" there "$(cat "$MNT/sub/none.h")"
echo "int changed, again;" >"$under/sub/b.c"
echo behind >"$under/sub/deep/none.h"
rm "$under/many/file8"
check "what changes behind it shows, too" wait_for 20 same_tree
same "with its content" "int changed, again;" "$(cat "$MNT/sub/b.c")"
check "ends" unmount_background

# Something is made through the mount while the kernel is being told.
mount_background &
mounting=$!
own_process $mounting
wait_for 60 is_mounted "$MNT"
for i in 1 2 3 4; do echo "new $i" >"$MNT/sub/new$i" && rm -f "$MNT/many/file1$i"; done
check "one that is changed while it is being mounted" wait $mounting
t_forget_process $mounting
check "shows what was made, and not what was removed" same_tree
check "with its content" diff -r "$under" "$MNT"
check "ends" unmount_background

# ---- the source hangs ----

for gate in READDIR LOOKUP GETATTR; do
    check "$gate: it is mounted, and asked for the names" mount_background
    check "ends" unmount_background
    # Held from when the walk has begun: without its top nothing can be mounted.
    (
        wait_for 60 is_mounted "$MNT"
        printf 'gate=%s\n' "$gate" >"$SLOW_CONTROL" && kill -HUP "$SLOW_PID"
    ) &
    holding=$!
    own_process $holding
    since=$SECONDS
    check "$gate: a source that hangs keeps nobody from mounting" mount_background
    check "for long" few $((SECONDS - since)) "$patience"
    wait $holding || true
    t_forget_process $holding
    # umount(8) itself asks for the attributes of the top.
    [ $gate != GETATTR ] || slow_control ''
    check "nor from unmounting at once" timeout -k 1 10 umount "$MNT"
    slow_control ''
    check "all that was started ends" wait_for 60 no_fs_process
done

check "it goes on, and is mounted" mount_background
check "all is there" same_tree
check "ends" unmount_background
unmount_slow
done_testing
