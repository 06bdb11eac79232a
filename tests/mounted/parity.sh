#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default uring-off staged pagecache
# sanitizers: address thread
# sanitized: staged
# timeout: 300
#
# Native parity: every operation done in a plain directory and in the mount, as root, as an ordinary user, and on
# read-only mounts. The cases and the comparison are in parity*.c; this script makes the directories and the mounts.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"

if [ "$VARIANT" = staged ] || [ "$VARIANT" = pagecache ]; then export PARITY_ANY_ATIME=1; fi
# What the kernel serves from its page cache is not what a disk file system does, in three ways (docs/coherence.md):
# direct I/O needs no alignment; FUSE has no mremap(2) that joins what mlock(2) split; and a store through a mapping
# moves the mtime, and takes file capabilities away, when it is written back: not at once, and not never.
exceptions=()
if [ "$VARIANT" = pagecache ]; then
    exceptions=(--except 'open: O_DIRECT sizes and alignment' --except 'mmap: madvise, mlock, mremap'
        --except 'mmap: stores move mtime'
        --except 'setid: set-id bits and capabilities: a store through a mapping')
fi
parity() { "${T_WRAP[@]}" "$BUILD_DIR/tests/parity" ${exceptions[@]+"${exceptions[@]}"} "$@"; }
empty() { [ -z "$(ls -A "$1")" ]; }

new_dirs
mount_fs allow_other,dev,suid || exit 1
relay_tap "root" parity --source "$SRC" "$NATIVE" "$MNT"
relay_tap "user" parity --user 12345 --source "$SRC" "$NATIVE" "$MNT"
check "nothing is left in the mount" empty "$MNT"
check "nothing is left in the source" empty "$SRC"
unmount_fs && pass "the mount ends cleanly"

new_dirs
check "a tree for the read-only mount" parity --prepare-readonly "$SRC"
check "a tree for the read-only directory" parity --prepare-readonly "$NATIVE"
check "a bind mount of it" mount --bind "$NATIVE" "$NATIVE"
check "which is made read-only" mount -o remount,bind,ro "$NATIVE"
mount_fs ro,allow_other,dev,suid || exit 1
relay_tap "read-only, root" parity --readonly "$NATIVE" "$MNT"
relay_tap "read-only, user" parity --readonly --user 12345 "$NATIVE" "$MNT"
unmount_fs && pass "the read-only mount ends cleanly"
umount "$NATIVE"

done_testing
