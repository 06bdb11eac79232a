#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The command line: what is refused is refused before anything is mounted, with a word on stderr; what is documented is
# accepted.
# variants: default
# sanitizers: address
# timeout: 240

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
echo content >"$SRC/file"
mkdir "$SRC/inside" "$WORK/full"
: >"$WORK/full/something"
: >"$WORK/plain-file"
ln -s src "$WORK/link-to-src"
ln -s mnt "$WORK/link-to-mnt"

fuse_mounts() { grep -c ' - fuse' /proc/self/mountinfo || true; }

drop_mounts() {
    local point
    while IFS= read -r point; do
        umount -l "$point" || true
    done < <(t_mounts_below)
}

run_fs() { # ARGS...: status in $status, output in $TMPDIR/out and $TMPDIR/err
    status=0
    timeout -k 5 "$PATIENCE" "${T_WRAP[@]}" "$STAGEFS" "$@" >"$TMPDIR/out" 2>"$TMPDIR/err" </dev/null || status=$?
}

judge_refusal() { # NAME
    local why=
    [ "$status" != 0 ] || why+="exit status 0; "
    [ "$status" -lt 124 ] || why+="status $status; "
    [ -s "$TMPDIR/err" ] || why+="nothing on stderr; "
    [ "$(fuse_mounts)" = "$mounts_before" ] || why+="something is mounted; "
    same "refused: $1" "" "$why"
    [ "$(fuse_mounts)" = "$mounts_before" ] || drop_mounts
}

refused() { # NAME ARGS...
    local name=$1
    shift
    run_fs "$@"
    judge_refusal "$name"
}

accepted() { # NAME ARGS...
    local name=$1 why=
    shift
    run_fs "$@"
    [ "$status" = 0 ] || why+="status $status: $(cat "$TMPDIR/err"); "
    if is_mounted "$MNT"; then
        [ "$(cat "$MNT/file" 2>&1)" = content ] || why+="the file cannot be read; "
        umount "$MNT" || why+="cannot be unmounted; "
    else
        why+="not mounted; "
    fi
    wait_for 30 no_fs_process || why+="the daemon stays; "
    same "accepted: $name" "" "$why"
}

mounts_before=$(fuse_mounts)

# ---- information ----

for switch in -h --help -V --version; do
    run_fs $switch
    same "$switch exits with 0" 0 "$status"
    check "$switch prints on stdout" test -s "$TMPDIR/out"
    same "$switch prints nothing on stderr" "" "$(cat "$TMPDIR/err")"
done
check "a help to a full device does not crash" sh -c "\"\$1\" -h >/dev/full 2>&1; test \$? -lt 124" - "$STAGEFS"

# ---- words ----

refused "no arguments"
refused "the source alone" "$SRC"
refused "a third argument" "$SRC" "$MNT" "$NATIVE"
refused "an empty source" "" "$MNT"
refused "an empty mount point" "$SRC" ""
refused "an unknown switch" "$SRC" "$MNT" -Q
refused "an unknown long switch" "$SRC" "$MNT" --nonsense
refused "-o without a list" "$SRC" "$MNT" -o
refused "an unknown option" "$SRC" "$MNT" -o nonsense
refused "an unknown option with a value" "$SRC" "$MNT" -o nonsense=1
refused "an unknown option after a good one" "$SRC" "$MNT" -o ro,nonsense
refused "an option's prefix" "$SRC" "$MNT" -o serv=auto
refused "an option's name in capitals" "$SRC" "$MNT" -o RO

# ---- directories ----

refused "no such source" "$WORK/nothing" "$MNT"
refused "the source is a file" "$WORK/plain-file" "$MNT"
refused "a path through a file" "$WORK/plain-file/x" "$MNT"
refused "no such mount point" "$SRC" "$WORK/nothing"
refused "the mount point is a file" "$SRC" "$WORK/plain-file"
refused "the mount point is not empty" "$SRC" "$WORK/full"
refused "mount point and source are the same" "$SRC" "$SRC"
refused "the same through a symlink" "$SRC" "$WORK/link-to-src"
refused "the same with dots" "$SRC" "$SRC/../src/."
refused "the mount point lies in the source" "$SRC" "$SRC/inside"
refused "the mount point lies in the source, nonempty" "$SRC" "$SRC/inside" -o nonempty
refused "the mount point lies in the source, through a symlink" "$WORK/link-to-src" "$SRC/inside"
refused "the source lies in the mount point" "$SRC" "$WORK" -o nonempty
mkdir "$TMPDIR/bound"
mount --bind "$WORK" "$TMPDIR/bound"
refused "the same through a bind mount" "$SRC" "$TMPDIR/bound/src"
umount "$TMPDIR/bound"

# ---- values ----

for bad in serve serve= serve=nonsense serve=Passthrough uring uring= uring=maybe uring=1 \
    threads threads= threads=0 threads=-1 threads=x threads=1.5 threads=99999999999999999999 "threads=4 " \
    fsname= fsname ro=1 rw=0 nonempty=yes allow_other=1 noatime=1; do
    refused "$bad" "$SRC" "$MNT" -o "$bad"
done
for name in entry_timeout attr_timeout negative_timeout; do
    for bad in "" = =-1 =x =1x =nan =inf =1e999 "= 1" =0x10 =1,5; do
        refused "$name$bad" "$SRC" "$MNT" -o "$name$bad"
    done
done
for bad in bandwidth=x bandwidth=100 source_timeout=x stage=none,bandwidth=1M stage=none,source_timeout=1; do
    refused "$bad" "$SRC" "$MNT" -o "$bad"
done
for pair in ro,rw rw,ro suid,nosuid nodev,dev exec,noexec atime,noatime sync,async; do
    refused "$pair" "$SRC" "$MNT" -o "$pair"
    refused "$pair in two lists" "$SRC" "$MNT" -o "${pair%,*}" -o "${pair#*,}"
done

# ---- the machine ----

without_device() {
    status=0
    # shellcheck disable=SC2016
    unshare --mount --propagation private sh -c '
        mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 || exit 0
        exec timeout -k 5 "$@" </dev/null' - "$PATIENCE" "${T_WRAP[@]}" "$STAGEFS" "$SRC" "$MNT" \
        >"$TMPDIR/out" 2>"$TMPDIR/err" || status=$?
    judge_refusal "/dev/fuse is absent"
    check "it is named" grep -q /dev/fuse "$TMPDIR/err"
}
without_device

uring=/sys/module/fuse/parameters/enable_uring
if [ "$SANITIZER" != none ]; then
    skip "refused: uring=on where the kernel has it off" "io_uring is not used in this build"
elif [ ! -e $uring ]; then
    refused "uring=on where the kernel does not have it" "$SRC" "$MNT" -o uring=on
elif [ "$(cat $uring)" = N ]; then
    refused "uring=on where the kernel has it off" "$SRC" "$MNT" -o uring=on
elif echo N 2>/dev/null >$uring; then
    refused "uring=on where the kernel has it off" "$SRC" "$MNT" -o uring=on
    echo Y >$uring
    accepted "uring=on" "$SRC" "$MNT" -o uring=on
    refused "uring=on,source_timeout=1" "$SRC" "$MNT" -o uring=on,source_timeout=1
else
    skip "refused: uring=on where the kernel has it off" "the kernel's switch cannot be moved"
fi

test_user
user_binary
chown "$TUSER" "$SRC" "$MNT"
refused_user() { # NAME ARGS...
    local name=$1
    shift
    status=0
    as_user_suid timeout -k 5 "$PATIENCE" "$USER_STAGEFS" "$@" >"$TMPDIR/out" 2>"$TMPDIR/err" </dev/null || status=$?
    judge_refusal "$name"
}
refused_user "an ordinary user asks for passthrough" "$SRC" "$MNT" -o serve=passthrough
refused_user "an ordinary user asks for suid" "$SRC" "$MNT" -o suid
refused_user "an ordinary user asks for dev" "$SRC" "$MNT" -o dev
refused_user "an ordinary user mounts on another's directory" "$SRC" "$WORK/full" -o nonempty
mkdir -m 700 "$WORK/secret"
refused_user "an ordinary user mounts what he cannot read" "$WORK/secret" "$MNT"
chown root "$SRC" "$MNT"

# ---- good lines ----

accepted "two directories" "$SRC" "$MNT"
accepted "options before" -o ro "$SRC" "$MNT"
accepted "options between" "$SRC" -oro "$MNT"
accepted "two lists" "$SRC" "$MNT" -o ro -o noatime
accepted "an empty option in a list" "$SRC" "$MNT" -o ro,,noatime,
accepted "--" -- "$SRC" "$MNT"
accepted "symlinks to both" "$WORK/link-to-src" "$WORK/link-to-mnt"
accepted "a slash at the end" "$SRC/" "$MNT/"
for good in serve=auto uring=auto uring=off entry_timeout=0 entry_timeout=0.5 entry_timeout=3600 \
    attr_timeout=0,entry_timeout=0,negative_timeout=0 attr_timeout=1.25 negative_timeout=5 allow_other threads=1 threads=16 \
    fsname=other nonempty dev nodev suid nosuid dev,suid noexec exec noatime atime relatime strictatime nodiratime \
    sync dirsync async; do
    accepted "$good" "$SRC" "$MNT" -o "$good"
done
accepted "everything that fstab has" "$SRC" "$MNT" -o \
    "defaults,noauto,auto,nofail,_netdev,user,users,nouser,x-systemd.automount,x-systemd.requires=/x,x-gvfs-show,comment=hello"
accepted "the same option twice" "$SRC" "$MNT" -o ro,ro

: >"$MNT/hidden"
accepted "nonempty over a directory that is not empty" "$SRC" "$MNT" -o nonempty
rm "$MNT/hidden"

# A sibling whose name begins with the source's name is not inside it.
mkdir "$WORK/src-mnt"
MNT=$WORK/src-mnt
accepted "a mount point whose name begins as the source's" "$SRC" "$MNT"

done_testing
