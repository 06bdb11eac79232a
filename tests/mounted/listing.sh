#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# timeout: 120
#
# Names that are not in a slow folder are answered from one listing of it, and never wrongly: not after one was made,
# here or behind, and not where the source takes two spellings for one name.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"
absent() { local name && for name in "$@"; do [ ! -e "$MNT/dir/$name" ] || { echo "$name" && return 1; }; done; }
lookups_of() { # CMD...: lookups that reach the source meanwhile
    local before
    before=$(slow_count lookup)
    "$@" || return 1
    echo $(($(slow_count lookup) - before))
}
few() { [ "$1" -le "$2" ] || { echo "$1" && false; }; }
seen() { [ -e "$MNT/dir/$1" ]; }

new_dirs
mkdir -p "$WORK/slow-under/dir"
for i in $(seq 30); do echo "$i" >"$WORK/slow-under/dir/header$i.h"; done
mount_slow latency_us=500 || done_testing
mount_fs ttl=300,uring=off || done_testing
check "two names that are not there" absent no1 no2
# While the folder is being read, names are still looked up.
check "a hundred others cost the source next to nothing" few "$(lookups_of absent a{1..100})" 12
check "what is there is found" seen header7.h
all() { cat "$MNT"/dir/header*.h >/dev/null; }
stats() { for i in $(seq 30); do stat "$MNT/dir/header$i.h" >/dev/null || return 1; done; }
check "names that are there come with their attributes" few "$(lookups_of stats)" 12
check "and are read" all
echo x >"$MNT/dir/made"
check "what was made through the mount is there" seen made
check "and others are not, still" absent b1 b2 b3
mv "$MNT/dir/made" "$MNT/dir/b4"
check "a new name by rename" seen b4
ln "$MNT/dir/b4" "$MNT/dir/b5"
check "by link" seen b5
mkdir "$MNT/dir/b6"
check "by mkdir" seen b6
check "absent again" absent c1 c2 c3
echo x >"$WORK/slow-under/dir/c4"
check "made behind: after a sync" "$BUILD_DIR/client/stagectl" sync "$MNT"
check "it is there" seen c4
check "more misses, and the folder is read" absent d1 d2 d3 d4
for i in $(seq 40); do echo x >"$WORK/slow-under/dir/behind$i"; done
shown() { # what a listing has shown is there
    local name
    # shellcheck disable=SC2045
    for name in $(ls "$MNT/dir"); do [ -e "$MNT/dir/$name" ] || { echo "$name" && return 1; }; done
}
check "what a listing shows is there" shown
check "two more misses" absent d5 d6
echo x >"$WORK/slow-under/dir/$(printf 'uml\303\244ut')"
check "a name beyond ASCII is always looked up" seen "$(printf 'uml\303\244ut')"
unmount_fs && pass "the mount ends cleanly"

mount_fs ttl=0.3,uring=off || done_testing
check "misses, for a short time" absent e1 e2 e3
echo x >"$WORK/slow-under/dir/e4"
check "made behind: after that time" wait_for 10 seen e4
unmount_fs

mount_fs ttl=1,uring=off || done_testing
check "misses, for a second" absent g1 g2 g3 g4
asked=0
for_long() { # without a pause that is longer than the part of its time in which a folder is read anew
    local end=$((SECONDS + 5))
    while [ "$SECONDS" -lt "$end" ]; do
        asked=$((asked + 1))
        [ ! -e "$MNT/dir/long$asked" ] || return 1
    done
}
answered() { # a machine that pauses for long does not do so each time
    local before
    for _ in 1 2 3; do
        before=$(slow_count lookup)
        for_long || return 1
        few $(($(slow_count lookup) - before)) "$1" && return
    done
    return 1
}
most=20 # it is 10, and 30 where a folder is read anew when its time is over
[ "$SANITIZER" = none ] || most=1000 # a slow daemon may come too late
check "who asks all the time is answered from listings" answered $most
echo x >"$WORK/slow-under/dir/g5"
check "which are new ones" wait_for 10 seen g5
unmount_fs
unmount_slow && pass "the slow source ends cleanly"

mount_slow latency_us=500,fold || done_testing
mount_fs ttl=300,uring=off || done_testing
check "misses on a source that takes either case" absent f1 f2 f3 f4
check "the other spelling of a name is found" seen HEADER9.H
unmount_fs
unmount_slow
done_testing
