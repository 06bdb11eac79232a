#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers:
# timeout: 200
#
# A real slow source: sshfs to an sshd of this machine, on its own port and with its own keys, over a line of two
# milliseconds. Trees are built in the mount, changes on the server show, and sshfs can be killed and mounted again.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/disk.sh"
. "$TOP/tests/lib/small-build.sh"
. "$TOP/tests/lib/ports.sh"

for program in sshfs sshd ssh-keygen; do
    PATH=$PATH:/usr/sbin have "$program" || skip_all "$program is not installed"
done
proxy=$BUILD_DIR/tests/delayproxy
[ -x "$proxy" ] || skip_all "delayproxy is not built"

SSHFS=
server_is_up() { listens "$server" && listens "$line"; }
start_server() { # an sshd, and the line to it
    keys=$WORK/keys
    mkdir -m 700 "$keys"
    ssh-keygen -q -t ed25519 -N '' -f "$keys/host"
    ssh-keygen -q -t ed25519 -N '' -f "$keys/user"
    mkdir -p /run/sshd # sshd insists on it
    read -r server line < <(free_ports)
    cat >"$keys/config" <<END
Port $server
ListenAddress 127.0.0.1
HostKey $keys/host
PidFile none
AuthorizedKeysFile $keys/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp
END
    "$(PATH=$PATH:/usr/sbin command -v sshd)" -D -e -f "$keys/config" </dev/null >"$WORK/sshd.log" 2>&1 &
    own_process $!
    "$proxy" "$line" "$server" 1000 </dev/null >/dev/null 2>&1 &
    own_process $!
    wait_for 20 server_is_up
}
mounted_or_dead() { is_mounted "$SRC" || process_gone "$SSHFS"; }
mount_sshfs() { # no caches of its own for long: what the server has shows
    sshfs -f -F /dev/null -o "port=$line,IdentityFile=$keys/user,IdentitiesOnly=yes,StrictHostKeyChecking=no" \
        -o "UserKnownHostsFile=/dev/null,LogLevel=ERROR,allow_other,dir_cache=no,entry_timeout=0,attr_timeout=0" \
        "root@127.0.0.1:$under" "$SRC" </dev/null >"$WORK/sshfs.log" 2>&1 &
    SSHFS=$!
    own_process "$SSHFS"
    wait_for 30 mounted_or_dead && is_mounted "$SRC" || { cat "$WORK/sshfs.log" "$WORK/sshd.log" && return 1; }
}
end_sshfs() { # by which signal
    kill "-$1" "$SSHFS"
    wait_for 20 process_gone "$SSHFS" || return 1
    wait "$SSHFS" 2>/dev/null || true
    t_forget_process "$SSHFS"
}
gone() { ! stat "$MNT/unknown" >/dev/null 2>"$WORK/why" && grep -q 'not connected' "$WORK/why"; }
written() { [ "$(disk written)" -ge 60 ] && [ "$(disk queued_bytes)" = 0 ]; }

new_dirs
under=$WORK/under
mkdir "$under"
make_tree
settled
check "an sshd answers" start_server
check "sshfs mounts" mount_sshfs
mount_fs "ttl=1,stage_dir=$WORK/stage" || done_testing
check "the tree is the same" same_tree
check "it is built in the mount" build
check "what was built is at the server, and runs" runs
check "once more there is nothing to do" nothing_to_do
check "a header that changes at the server is compiled" rebuilds 100

echo changed >"$under/note"
check "a change at the server shows" wait_for 20 content note changed
echo "once more" >"$under/note"
check "a sync" "$BUILD_DIR/client/stagectl" sync "$MNT"
check "shows it at once" content note "once more"
check "the mount is written" sh -c "echo mine >'$MNT/note'"
same "which is at the server" mine "$(cat "$under/note")"

check "sshfs is killed" end_sshfs KILL
check "which is told" wait_for 20 gone
umount -l "$SRC"
echo "after that" >"$under/note"
check "mounted again" mount_sshfs
check "it is served" wait_for 20 content note "after that"
check "all of it" same_tree
check "and built, with what changed there" rebuilds 1000
unmount_fs && pass "the mount ends cleanly"

settled
mount_fs "ttl=1,stage_dir=$WORK/stage" || done_testing
check "after its times were set, the tree is read anew" same_tree
check "and kept" wait_for 20 written
unmount_fs
mount_fs "ttl=1,stage_dir=$WORK/stage" || done_testing
check "mounted anew, it is the same" same_tree
check "and comes from the disk" [ "$(disk hits)" -ge 10 ]
unmount_fs
umount "$SRC"
wait "$SSHFS" || true
t_forget_process "$SSHFS"
done_testing
