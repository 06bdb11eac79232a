#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Disk quotas hold through the mount as they do natively, although the daemon is root: a user's (XFS) with the same
# error at the same size and number of files, and a subvolume's (btrfs).
# variants: default uring-off
# sanitizers:
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

test_user

fill() { # DIR MIB: how far a user's file grows, in MiB, and the error
    as_user dd if=/dev/zero of="$1/file" bs=64k count=$(($2 * 16)) conv=notrunc,fsync 2>"$TMPDIR/dd" || true
    printf '%s %s\n' $(($(stat -c %s "$1/file") >> 20)) "$(sed -n 's/^dd: .*: //p' "$TMPDIR/dd" | head -n 1)"
    rm -f "$1/file"
}

# ---- a subvolume's quota ----

mount_btrfs() {
    have mkfs.btrfs && truncate -s 300M "$WORK/btrfs.img" && mkfs.btrfs -q "$WORK/btrfs.img" &&
        mkdir "$WORK/btrfs" && mount -o loop "$WORK/btrfs.img" "$WORK/btrfs" && btrfs quota enable "$WORK/btrfs"
}

new_dirs
if mount_btrfs >"$T_OUT" 2>&1; then
    SRC=$WORK/btrfs/src
    NATIVE=$WORK/btrfs/native
    for volume in "$SRC" "$NATIVE"; do
        btrfs -q subvolume create "$volume"
        btrfs qgroup limit 8M "$volume"
        chmod 777 "$volume"
    done
    mount_fs allow_other
    native=$(fill "$NATIVE" 32)
    mounted=$(fill "$MNT" 32)
    same "natively the subvolume's quota ends a file" "Disk quota exceeded" "${native#* }"
    same "and through the mount" "${native#* }" "${mounted#* }"
    check "near the limit: ${mounted%% *} MiB" test "${mounted%% *}" -ge 6 -a "${mounted%% *}" -le 8
    # The file system gives room back in its own time, and the mount within a second.
    # shellcheck disable=SC2016
    check "with room again, a write succeeds" wait_for 30 sh -c 'echo x >"$1/new" && cat "$1/new"' - "$MNT"
    unmount_fs
else
    skip "a subvolume's quota" "no btrfs with quotas can be mounted here"
fi

# ---- a user's quota ----

mount_xfs() {
    have mkfs.xfs && truncate -s 512M "$WORK/xfs.img" && mkfs.xfs -q "$WORK/xfs.img" && mkdir "$WORK/xfs" &&
        mount -o loop,uquota "$WORK/xfs.img" "$WORK/xfs"
}

many() { # DIR: how many files a user makes, and the error
    # shellcheck disable=SC2016
    as_user sh -c 'n=0; while [ $n -lt 50 ] && mkdir "$1/d$n"; do n=$((n + 1)); done; echo $n' - "$1" 2>&1 |
        sed 's/.*: //'
    rm -rf "$1"/d*
}

new_dirs
if mount_xfs >"$T_OUT" 2>&1; then
    SRC=$WORK/xfs/src
    NATIVE=$WORK/xfs/native
    mkdir -m 777 "$SRC" "$NATIVE"
    check "a quota is set" xfs_quota -x -c "limit bsoft=0 bhard=4m isoft=0 ihard=20 $TUID" "$WORK/xfs"
    mount_fs allow_other
    native=$(fill "$NATIVE" 32)
    same "natively a user's quota ends a file" "Disk quota exceeded" "${native#* }"
    same "and through the mount, at the same size" "$native" "$(fill "$MNT" 32)"
    same "and at the same number of folders" "$(many "$NATIVE")" "$(many "$MNT")"
    unmount_fs
else
    skip "a user's quota" "this kernel's XFS has no quotas"
fi
done_testing
