#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Lines of fstab: through mount.fuse3, with both ways to name the file system, and through mount.stagefs.  The helpers
# are put where mount(8) looks for them inside this script's mount namespace only.
# variants: default
# sanitizers: address
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
echo content >"$SRC/file"
cp /bin/true "$SRC/true"
FSTAB=$WORK/fstab

# ---- a private view of /usr/sbin ----

sbin=$(readlink -f /sbin)
mkdir "$WORK/sbin"
cp "$TOP/mount-helpers/mount.stagefs" "$WORK/sbin/mount.stagefs"
ln -s "$STAGEFS" "$WORK/sbin/stagefs"
chmod 755 "$WORK/sbin/mount.stagefs"
if ! mount -t overlay -o "ro,lowerdir=$WORK/sbin:$sbin" overlay "$sbin" 2>/dev/null; then
    cp -an "$sbin/." "$WORK/sbin/"
    mount --bind "$WORK/sbin" "$sbin" || skip_all "helpers for mount(8) cannot be put into $sbin"
fi
# mount.fuse3 finds the program in PATH, as it is when the system starts.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
have mount.fuse || have mount.fuse3 || skip_all "mount.fuse3 is not installed"

fstab() { printf '%s\n' "$@" >"$FSTAB"; }

has_option() { # WORD
    case ,$(mount_field "$MNT" options),$(mount_field "$MNT" super-options), in
    *,"$1",*) return 0 ;;
    esac
    echo "no $1 in $(mount_field "$MNT" options) $(mount_field "$MNT" super-options)"
    return 1
}

mounts() { # NAME CMD...: the command mounts $MNT; the caller looks and calls unmounts
    local name=$1
    shift
    check "$name" timeout -k 5 "$PATIENCE" "$@"
    same "$name: type" fuse.stagefs "$(mount_field "$MNT" type)"
    same "$name: source" "$SRC" "$(mount_field "$MNT" source)"
    same "$name: reads" content "$(cat "$MNT/file" 2>&1)"
}

unmounts() { # NAME
    check "$1: umount" umount "$MNT"
    check "$1: the daemon ends" wait_for 60 no_fs_process
    check "$1: the mount is gone" not_mounted "$MNT"
}

# ---- fuse.stagefs and stagefs# ----

fstab "$SRC $MNT fuse.stagefs defaults 0 0"
mounts "SRC MNT fuse.stagefs" mount -T "$FSTAB" "$MNT"
check "it is writable" sh -c 'echo x >"$1/new" && rm "$1/new"' - "$MNT"
unmounts "SRC MNT fuse.stagefs"

fstab "$SRC $MNT fuse.stagefs ro,noauto,nofail,_netdev,user,x-systemd.automount,x-systemd.requires=/,allow_other,entry_timeout=2 0 0"
mounts "everything of fstab" mount -T "$FSTAB" "$MNT"
check "ro" has_option ro
check "allow_other" has_option allow_other
check "user implies nosuid" has_option nosuid
unmounts "everything of fstab"

fstab "stagefs#$SRC $MNT fuse defaults,noatime 0 0"
mounts "stagefs#SRC MNT fuse" mount -T "$FSTAB" "$MNT"
unmounts "stagefs#SRC MNT fuse"

fstab "$SRC $MNT fuse.stagefs nonsense 0 0"
check_fails "an unknown option is refused" mount -T "$FSTAB" "$MNT"
fstab "$SRC/none $MNT fuse.stagefs defaults 0 0"
check_fails "a source that is absent is refused" mount -T "$FSTAB" "$MNT"
check "nothing is mounted" not_mounted "$MNT"

# ---- mount.stagefs ----

mounts "mount -t stagefs" mount -t stagefs "$SRC" "$MNT"
case ,$(mount_field "$MNT" options), in
*,nosuid,* | *,nodev,*) fail "suid and dev, as for a disk" "$(mount_field "$MNT" options)" ;;
*) pass "suid and dev, as for a disk" ;;
esac
unmounts "mount -t stagefs"

mounts "mount -t stagefs -o" mount -t stagefs -o ro,nosuid,nodev,noexec,allow_other "$SRC" "$MNT"
for option in ro nosuid nodev noexec allow_other; do
    check "mount -t stagefs -o $option" has_option $option
done
check_fails "noexec holds" "$MNT/true"
unmounts "mount -t stagefs -o"

mounts "mount -t fuse.stagefs" mount -t fuse.stagefs "$SRC" "$MNT"
unmounts "mount -t fuse.stagefs"

fstab "$SRC $MNT stagefs noauto,nofail,_netdev,x-systemd.automount,x-systemd.mount-timeout=10,allow_other 0 0"
mounts "SRC MNT stagefs" mount -T "$FSTAB" "$MNT"
unmounts "SRC MNT stagefs"

mkdir "$WORK/other"
fstab "$SRC $MNT stagefs defaults,nofail 0 0" "$SRC $WORK/other stagefs noauto 0 0"
mounts "mount -a" mount -a -T "$FSTAB"
check "noauto is left out by mount -a" not_mounted "$WORK/other"
check "mount -a again has nothing to do" mount -a -T "$FSTAB"
same "it is mounted once" 1 "$(awk -v m="$MNT" '$5 == m' /proc/self/mountinfo | wc -l)"
unmounts "mount -a"

check_fails "mount -t stagefs with an unknown option" mount -t stagefs -o nonsense "$SRC" "$MNT"
check_fails "mount -t stagefs without a source" mount -t stagefs "$SRC/none" "$MNT"
check "nothing is mounted by these" not_mounted "$MNT"
check "mount -f only pretends" mount -f -t stagefs "$SRC" "$MNT"
check "nothing is mounted by -f" not_mounted "$MNT"

spaced="$WORK/a b"
mkdir "$spaced"
echo content >"$spaced/file"
fstab "${spaced// /\\040} $MNT stagefs defaults 0 0"
check "a source with a space" mount -T "$FSTAB" "$MNT"
same "a source with a space: reads" content "$(cat "$MNT/file" 2>&1)"
unmounts "a source with a space"

done_testing
