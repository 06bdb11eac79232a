#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# sanitized: default
# timeout: 200
#
# A source that hangs: who reads what is staged is served all the same, however many wait for the source; stagectl
# answers; and those who wait are served when it goes on.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

WAITERS=80 # more than there are threads
ctl() { timeout -k 1 10 "$BUILD_DIR/client/stagectl" "$@"; }
promptly() { timeout -k 1 10 "$@"; }
same_file() { promptly cmp "$MNT/staged/$1" "$SLOW_UNDER/staged/$1"; }
all_staged() { for i in $(seq 20); do same_file "$i" || return 1; done; }
start_waiters() { # they read a file each
    local i
    waiters=()
    for i in $(seq $WAITERS); do
        cmp "$MNT/unstaged/$i" "$SLOW_UNDER/unstaged/$i" </dev/null >/dev/null 2>&1 &
        waiters+=($!)
        own_process $!
    done
}
all_served() { local pid && for pid in "${waiters[@]}"; do wait "$pid" || return 1; done; }

for gate in READ OPEN; do
    new_dirs
    mkdir -p "$WORK/slow-under"/{staged,unstaged}
    for i in $(seq 20); do echo "staged $i" >"$WORK/slow-under/staged/$i"; done
    for i in $(seq $WAITERS); do echo "unstaged $i" >"$WORK/slow-under/unstaged/$i"; done
    find "$WORK/slow-under" -exec touch -d '2 hours ago' {} +
    mount_slow latency_us=300,coarse,timeout=600 || done_testing
    mount_fs stage=prefetch,ttl=600,predict=none || done_testing
    check "$gate: files are staged" all_staged
    check "$gate: the others are known" promptly ls -l "$MNT/unstaged"
    slow_control "gate=$gate"
    start_waiters
    check "$gate: others wait for the source" slow_wait_held 1
    check "$gate: what is staged is served" all_staged
    check "$gate: stagectl answers" ctl stats "$MNT"
    check "$gate: once more" all_staged
    slow_control ""
    check "$gate: the source goes on: who waited is served" all_served
    unmount_fs && pass "$gate: the mount ends"
    unmount_slow
done

# ---- a daemon that is killed while it ends, and waits for the source ----

requests_waiting() { # COUNT: that many requests of the mount, or more, have no answer
    [ "$(cat "/sys/fs/fuse/connections/$connection/waiting")" -ge "$1" ]
}
both_gone() { process_gone "$DAEMON" && process_gone "$waiter"; }

new_dirs
mkdir -p "$WORK/slow-under"
mount_slow latency_us=300,timeout=0 || done_testing
mount_fs attr_timeout=0 || done_testing
connection=$(mountpoint -d "$MNT")
connection=${connection#*:}
slow_control gate=GETATTR
stat "$MNT" </dev/null >/dev/null 2>&1 &
waiter=$!
own_process "$waiter"
check "killed: somebody waits for the source" slow_wait_held
kill -TERM "$DAEMON"
check "killed: the daemon asks for what is to be written back" wait_for 20 requests_waiting 2
check "killed: which waits for the source, too" slow_wait_held 2
kill -KILL "$DAEMON"
slow_control ""
check "killed: nobody waits any more" wait_for 20 both_gone
t_forget_process "$DAEMON"
check "killed: the mount can be taken away" umount "$MNT"
unmount_slow
done_testing
