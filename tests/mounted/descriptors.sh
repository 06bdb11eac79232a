#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# No descriptor per known file: with a limit of 1024 for the daemon, a tree of 200,000 files is walked and read, and
# 20,000 files stay mapped after they were closed.
# variants: default
# sanitizers:
# timeout: 600

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

files=200000
mapped=20000
new_dirs
tree=$BUILD_DIR/tests/tree

if [ "$(df --output=iavail "$WORK" | tail -n 1)" -lt $((files + files / 100)) ] ||
    [ "$(df -m --output=avail "$WORK" | tail -n 1)" -lt 1500 ]; then
    skip_all "not enough space or inodes for $files files"
fi
check "a tree of $files files is made" "$tree" make "$SRC" $files
same "walked natively" $((files + files / 500 + 1)) "$(find "$SRC" -ls | wc -l)"

# Only the daemon gets the limit.
low_limit=("${T_WRAP[@]}")
T_WRAP=(prlimit --nofile=1024:1024 "${low_limit[@]}")
mount_fs

limit_of() { awk '/^Max open files/ { print $4, $5 }' "/proc/$DAEMON/limits"; }
same "the daemon's limit" "1024 1024" "$(limit_of)"
descriptors() { find "/proc/$DAEMON/fd" -mindepth 1 -maxdepth 1 | wc -l; }
few_descriptors() { [ "$(descriptors)" -lt 1024 ]; }

same "walked through the mount" $((files + files / 500 + 1)) "$(find "$MNT" -ls | wc -l)"
check "few descriptors after the walk: $(descriptors)" few_descriptors
check "all are read, and right" "$tree" read "$MNT" $files
check "few descriptors after the reads: $(descriptors)" few_descriptors

# The mappings go away with the process that holds them, so the daemon's state is looked at while it stands.
"$tree" hold "$MNT" $mapped "$WORK/ready" "$WORK/go" >"$TMPDIR/hold" 2>&1 </dev/null &
holder=$!
own_process $holder
ready() { [ -e "$WORK/ready" ] || process_gone $holder; }
wait_for 120 ready || true
check "$mapped files are mapped" test -e "$WORK/ready"
check "few descriptors with the mappings: $(descriptors)" few_descriptors
check "the mount still serves" "$tree" read "$MNT" 2000
if [ -e /proc/sys/vm/drop_caches ]; then
    # The pages come from the disk again, through what the kernel holds of the files.
    echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true
fi
: >"$WORK/go"
status=0
wait $holder || status=$?
t_forget_process $holder
same "every mapping has its file's content" "0" "$status$(cat "$TMPDIR/hold")"
check "few descriptors at the end: $(descriptors)" few_descriptors

# Many at once: what the daemon cannot open it must say so, and recover.
many_open() { # in one process
    python3 - "$MNT" <<'PYTHON'
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
try:
    for i in range(3000):
        held.append(os.open("%s/d0000/f%06d" % (sys.argv[1], i % 500), os.O_RDONLY))
except OSError as error:
    print(error)
print(len(held))
PYTHON
}
same "3000 opens of 500 files are held at once" 3000 "$(many_open 2>&1)"
check "and the mount goes on" "$tree" read "$MNT" 2000

unmount_fs
done_testing
