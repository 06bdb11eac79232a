#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default uring-off staged
# sanitizers: address thread
# timeout: 300
#
# Native parity: every operation done in a plain directory and in the mount, as root, as an ordinary user, and on
# read-only mounts. The cases and the comparison are in parity*.c; this script makes the directories and the mounts.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"

if [ "$VARIANT" = staged ]; then export PARITY_ANY_ATIME=1; fi
parity() { "${T_WRAP[@]}" "$BUILD_DIR/tests/parity" "$@"; }
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
