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

# ---- who does not want to wait ----

new_dirs
mkdir -p "$WORK/slow-under/many"
for i in $(seq 9); do echo "many $i" >"$WORK/slow-under/many/$i"; done
find "$WORK/slow-under" -exec touch -d '2 hours ago' {} +
mount_slow latency_us=300,coarse,timeout=600 || done_testing
mount_fs stage=prefetch,ttl=600,predict=none || done_testing
check "waits: files are known" promptly ls -l "$MNT/many"
slow_control gate=READ
file=0
begin() { # FILE COMMAND...: in the background; sets $waiter
    env --default-signal=INT,TERM "${@:2}" "$MNT/many/$1" </dev/null >"$TMPDIR/waiter.out" 2>&1 &
    waiter=$!
    own_process "$waiter"
}
for signal in KILL INT TERM; do
    begin "$((++file))" cat
    check "waits: $signal: somebody waits for the source" slow_wait_held "$file"
    kill -"$signal" "$waiter"
    check "waits: $signal: he ends" wait_for 5 process_gone "$waiter"
done
# One that handles its signals goes on waiting.
# (Perl's own calls are not begun again after EINTR.)
cat >"$TMPDIR/handles.pl" <<'PERL'
$SIG{USR1} = sub { };
sysopen(my $file, $ARGV[0], 0) or die "open: $!";
defined(sysread($file, my $text, 100)) or die "read: $!";
print $text;
PERL
begin 4 perl "$TMPDIR/handles.pl"
patient=$waiter
check "waits: somebody who handles signals waits" slow_wait_held 4
kill -USR1 "$patient"
begin 5 cat
check "waits: another one does" slow_wait_held 5
kill -KILL "$waiter"
check "waits: another one ends" wait_for 5 process_gone "$waiter"
slow_control ""
check "waits: who handles his signals is served" wait "$patient"
check "waits: the source goes on: what was given up is read by others" promptly cmp "$MNT/many/1" "$SLOW_UNDER/many/1"
unmount_fs && pass "waits: the mount ends"
mount_fs stage=prefetch,ttl=600,predict=none,source_timeout=1 || done_testing
check "timeout: files are known" promptly ls -l "$MNT/many"
slow_control gate=READ
says_timeout() { ! promptly cat "$MNT/many/6" >/dev/null 2>"$TMPDIR/timeout.err" && grep -q "timed out" "$TMPDIR/timeout.err"; }
check "timeout: who waits is told" says_timeout
slow_control ""
check "timeout: the source goes on: it is read" promptly cmp "$MNT/many/6" "$SLOW_UNDER/many/6"
end_slow() { unmount_fs && unmount_slow; }
check "timeout: the mount ends" end_slow

# ---- names and attributes that the source does not tell ----

mount_slow latency_us=300,timeout=0 || done_testing
for options in coherence=strict coherence=strict,source_timeout=1; do
    mount_fs "predict=none,$options" || done_testing
    for gate in LOOKUP GETATTR; do
        path=$MNT # whose name nobody looks up
        [ $gate = GETATTR ] || path=$MNT/many/8
        check "names: $options: $gate: it is known" promptly stat "$path"
        slow_control "gate=$gate"
        env --default-signal=INT,TERM stat "$path" </dev/null >"$TMPDIR/waiter.out" 2>&1 &
        waiter=$!
        own_process "$waiter"
        check "names: $options: $gate: somebody waits for the source" slow_wait_held
        [[ $options = *source_timeout* ]] || kill -TERM "$waiter"
        check "names: $options: $gate: he ends" wait_for 5 process_gone "$waiter"
        [[ $options != *source_timeout* ]] ||
            check "names: $options: $gate: and is told why" grep -q "timed out" "$TMPDIR/waiter.out"
        slow_control ""
        check "names: $options: $gate: the source goes on: it is told" promptly stat "$path"
    done
    unmount_fs && pass "names: $options: the mount ends"
done
unmount_slow

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
