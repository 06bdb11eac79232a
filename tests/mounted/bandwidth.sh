#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 60
#
# A limit on what is fetched: staging keeps to it, and who waits for a file does not wait for it.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

new_dirs
mkdir -p "$WORK/slow-under"/{many,one}
for i in $(seq 30); do head -c 100000 /dev/zero | tr '\0' x >"$WORK/slow-under/many/$i"; done
echo "one file" >"$WORK/slow-under/one/file"
find "$WORK/slow-under" -exec touch -d '2 hours ago' {} +
mount_slow latency_us=300,coarse || done_testing
now_ms() { local now=${EPOCHREALTIME/./} && echo $((now / 1000)); }
stage_all() { ctl stage -r --mode prefetch "$MNT/many"; }

mount_fs predict=none,mem=64M || done_testing
since=$(now_ms)
check "all of it is staged" stage_all
free=$(($(now_ms) - since))
unmount_fs
mount_fs predict=none,mem=64M,bandwidth=1M || done_testing
since=$(now_ms)
stage_all </dev/null >/dev/null 2>&1 &
stager=$!
own_process "$stager"
begun() { [ "$(stat_of prefetch_fills)" -ge 2 ]; }
check "staging has begun" wait_for 10 begun
check "who waits for a file gets it" cmp "$MNT/one/file" "$WORK/slow-under/one/file"
check "also for one that is to be staged" cmp "$MNT/many/30" "$WORK/slow-under/many/30"
check "while the staging goes on" kill -0 "$stager"
check "the staging ends" wait "$stager"
t_forget_process "$stager"
took=$(($(now_ms) - since))
t_comment "3 MB: $free ms without a limit, $took ms with 1 MiB a second"
check "and has kept to the limit" test "$took" -ge 2000
check "which is what took so long" test "$free" -lt "$took"
unmount_fs && pass "the mount ends"
unmount_slow
done_testing
