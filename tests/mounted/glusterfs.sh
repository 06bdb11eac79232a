#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers:
# timeout: 200
#
# A distributed source: a GlusterFS volume of two replicated bricks on this machine, each served by a process of its
# own.  A tree is built in the mount, what another client of the volume changes shows, and one brick is killed while
# a build goes on.  The volume is put together from its translators: no management daemon, no state of the machine.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/small-build.sh"
. "$TOP/tests/lib/ports.sh"

for program in glusterfs glusterfsd; do
    PATH=$PATH:/usr/sbin have "$program" || skip_all "$program is not installed"
done
PATH=$PATH:/usr/sbin

declare -A BRICKS CLIENTS
write_brick() { # NUMBER PORT
    mkdir "$WORK/brick$1"
    cat >"$WORK/brick$1.vol" <<END
volume posix
    type storage/posix
    option directory $WORK/brick$1
    option ctime on
end-volume
volume locks
    type features/locks
    subvolumes posix
end-volume
volume brick
    type performance/io-threads
    option thread-count 8
    subvolumes locks
end-volume
volume server
    type protocol/server
    option transport-type tcp
    option transport.address-family inet
    option transport.socket.bind-address 127.0.0.1
    option transport.socket.listen-port $2
    option auth.addr.brick.allow 127.0.0.1
    subvolumes brick
end-volume
END
    cat >>"$WORK/client.vol" <<END
volume client$1
    type protocol/client
    option transport-type tcp
    option transport.address-family inet
    option remote-host 127.0.0.1
    option remote-port $2
    option remote-subvolume brick
end-volume
END
}
write_volume() {
    read -r -a PORTS < <(free_ports)
    write_brick 1 "${PORTS[0]}"
    write_brick 2 "${PORTS[1]}"
    cat >>"$WORK/client.vol" <<'END'
volume replicate
    type cluster/replicate
    subvolumes client1 client2
end-volume
volume utime
    type features/utime
    subvolumes replicate
end-volume
END
}
start_brick() { # NUMBER
    glusterfsd -f "$WORK/brick$1.vol" -N -l "$WORK/brick$1.log" </dev/null >/dev/null 2>&1 &
    BRICKS[$1]=$!
    own_process $!
    wait_for 20 listens "${PORTS[$1 - 1]}" || { tail -n 20 "$WORK/brick$1.log" && return 1; }
}
kill_brick() { # NUMBER
    kill -KILL "${BRICKS[$1]}"
    wait "${BRICKS[$1]}" 2>/dev/null || true
    t_forget_process "${BRICKS[$1]}"
}
answers() { [ -d "$1/." ] && is_mounted "$1"; }
# Without caches of its own: with fopen-keep-cache, its default, a GlusterFS client goes on giving the pages that it had
# before another one changed the file, also where nothing is mounted on it.
mount_client() { # DIR
    glusterfs -f "$WORK/client.vol" -N -l "$WORK/client.log" --attribute-timeout=0 --entry-timeout=0 \
        --fopen-keep-cache=off "$1" </dev/null >/dev/null 2>&1 &
    CLIENTS[$1]=$!
    own_process $!
    wait_for 30 answers "$1" || { tail -n 20 "$WORK/client.log" && return 1; }
}
unmount_client() { # DIR
    umount "$1" && wait_for 20 process_gone "${CLIENTS[$1]}" || return 1
    wait "${CLIENTS[$1]}" 2>/dev/null || true
    t_forget_process "${CLIENTS[$1]}"
}

new_dirs
under=$WORK/other # where another client has the volume
mkdir "$under"
write_volume
check "a brick is served" start_brick 1
check "and its replica" start_brick 2
check "the volume is mounted" mount_client "$SRC"
check "and by another client" mount_client "$under"

# ---- many changes by another client ----

if [ "$VARIANT" = pagecache ]; then ways=(--pagecache); else ways=(); fi
mount_fs ttl=1 || done_testing
# Names stay: where they move and go, a volume has errors of its own (EINVAL, and EIO of what is just being removed).
check "nothing is older than ttl" "$BUILD_DIR/tests/coherence" "$under" "$MNT" --mode ttl --ttl 1 --by-names \
    --without exchange,rename,mkdir,folder,remove,recreate,replace --edits 80 --round 40 "${ways[@]}"
unmount_fs
rm -rf "${under:?}"/*

# ---- a build, and a brick that dies ----

make_tree
settled
check "both bricks have the tree" diff -r -x .glusterfs "$WORK/brick1" "$WORK/brick2"
mount_fs ttl=1 || done_testing
same "changes are looked for" ttl "$(stat_of coherence)"
check "the tree is the same" same_tree
check "it is built in the mount" build
check "what was built is there for the other client, and runs" runs
check "once more there is nothing to do" nothing_to_do
check "a header that the other client changes is compiled" rebuilds 100
echo changed >"$under/note"
check "what the other client writes shows" wait_for 20 content note changed
check "the mount is written" sh -c "echo mine >'$MNT/note'"
same "for the other client, too" mine "$(cat "$under/note")"
same "and on both bricks" "mine mine" "$(cat "$WORK/brick1/note" "$WORK/brick2/note" | paste -s -d ' ')"

rm -f "$under"/*.o "$under/program"
check "a sync, after what was built is gone" ctl sync "$MNT"
build_all() { make -B -j2 -C "$MNT" >"$WORK/make.log" 2>&1 || { tail -n 20 "$WORK/make.log" && return 1; }; }
build_all </dev/null >"$WORK/building.log" 2>&1 &
builder=$!
own_process "$builder"
some_objects() { [ "$(find "$under" -maxdepth 1 -name '*.o' | wc -l)" -ge 3 ]; }
check "a build is under way" wait_for 30 some_objects
kill_brick 1
check "a brick is killed meanwhile" kill -0 "$builder"
check "the build ends well" wait "$builder"
t_forget_process "$builder"
check "and what it built runs" [ "$("$under/program")" = 303 ]
check "the tree is the same" same_tree
check "what changes now is compiled" rebuilds 1000
echo "on one brick" >"$under/note"
check "and shows" wait_for 20 content note "on one brick"
check "the mount is written" sh -c "echo 'mine, too' >'$MNT/note'"
same "the brick that is left has it" "mine, too" "$(cat "$WORK/brick2/note")"
check "the brick comes back" start_brick 1
both() { echo "$1" >"$under/again" && [ "$(cat "$WORK/brick1/again" 2>/dev/null)" = "$1" ]; }
check "and is written again" wait_for 30 both "on both"
check "which shows in the mount" wait_for 20 content again "on both"
check "all of it is the same" same_tree
unmount_fs && pass "the mount ends cleanly"

check "the clients end" unmount_client "$SRC"
check "both" unmount_client "$under"
kill_brick 1
kill_brick 2
done_testing
