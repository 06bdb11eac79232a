#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A mount's life: start in the background and in the foreground, every way of ending it, and what is left afterwards.
# variants: default uring-off staged pagecache
# sanitizers: address thread
# timeout: 240

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
echo content >"$SRC/file"
options=$(variant_options)

nothing_left() {
    local why=
    wait_for 60 no_fs_process || why+="a process stays: $(fs_processes); "
    ! is_mounted "$MNT" || why+="a mount stays; "
    [ -z "$(find /proc -maxdepth 2 -name status -exec grep -l '^State:.Z' {} + 2>/dev/null)" ] ||
        wait_for 10 no_zombie || why+="a zombie stays; "
    same "$1: nothing is left" "" "$why"
}

no_zombie() {
    ! grep -ls '^State:.Z' /proc/[0-9]*/status | grep -q .
}

start_background() { # ARGS...
    timeout -k 5 "$PATIENCE" "${T_WRAP[@]}" "$STAGEFS" "$@" ${options:+-o "$options"} </dev/null
}

# ---- in the background ----

# The pipe must be closed by the daemon, or this would wait for ever.
status=0
printed=$(start_background "$SRC" "$MNT" 2>&1) || status=$?
same "start in the background" 0 "$status"
check "it says in one line how it serves" grep -qx "stagefs: serving .*: .*; coherence=watch" <(printf '%s\n' "$printed")
same "and no more" 1 "$(wc -l <<<"$printed")"
same "the mount answers at once" content "$(cat "$MNT/file" 2>&1)"
pid=$(fs_processes)
same "one process serves" 1 "$(wc -w <<<"$pid")"
same "its working directory pins nothing" / "$(readlink "/proc/$pid/cwd")"
same "it is a session of its own" "$pid" "$(awk '{ print $6 }' "/proc/$pid/stat")"
same "its stdin is no longer ours" /dev/null "$(readlink "/proc/$pid/fd/0")"
check "umount" umount "$MNT"
nothing_left "umount in the background"

(cd "$WORK" && start_background src mnt)
same "relative paths" content "$(cat "$MNT/file" 2>&1)"
check "a file is written" sh -c 'echo more >"$1"' - "$MNT/more"
check "fusermount3 -u" fusermount3 -u "$MNT"
nothing_left "fusermount3 in the background"
same "what was written stays" more "$(cat "$SRC/more")"

start_background "$SRC" "$MNT"
kill -TERM "$(fs_processes)"
nothing_left "SIGTERM in the background"

# ---- in the foreground ----

end_with() { # NAME CMD...
    local name=$1
    shift
    mount_fs || return 0
    cat "$MNT/file" >/dev/null
    "$@"
    if wait_daemon_end; then pass "$name: the daemon exits with 0"; fi
    nothing_left "$name"
}

signal_daemon() { kill "-$1" "$DAEMON"; }

end_with "umount" umount "$MNT"
end_with "fusermount3 -u" fusermount3 -u "$MNT"
end_with "SIGTERM" signal_daemon TERM
end_with "SIGINT" signal_daemon INT
end_with "SIGHUP" signal_daemon HUP
end_with "umount -l" umount -l "$MNT"

# At once, before any request: no race between start and end.
for i in 1 2 3 4 5; do
    mount_fs && unmount_fs && pass "mounted and unmounted at once, $i"
done

# ---- busy ----

mount_fs
(cd "$MNT" && exec sleep 1000) &
holder=$!
own_process $holder
in_mount() { [ "$(readlink "/proc/$holder/cwd")" = "$MNT" ]; }
wait_for 10 in_mount
check_fails "umount of a busy mount is refused" umount "$MNT"
same "it goes on" content "$(cat "$MNT/file" 2>&1)"
kill -TERM "$DAEMON"
if wait_daemon_end; then pass "SIGTERM ends the daemon of a busy mount"; fi
check "the busy mount is gone" wait_for 10 not_mounted "$MNT"
kill $holder
wait $holder 2>/dev/null || true
t_forget_process $holder
nothing_left "busy"

# An open and mapped file does not keep the daemon from ending.
mount_fs
exec 7<>"$MNT/file"
kill -TERM "$DAEMON"
if wait_daemon_end; then pass "SIGTERM ends the daemon while a file is open"; fi
exec 7>&-
nothing_left "open file"

# ---- killed ----

mount_fs
kill -KILL "$DAEMON"
wait "$DAEMON" 2>/dev/null || true
t_forget_process "$DAEMON"
# The kernel closes a dead process's rings later than the process; until then the answer is ECONNABORTED.
not_connected() { [ "$("$BUILD_DIR/tests/io" stat "$MNT/new-name")" = ENOTCONN ]; }
check "a killed daemon leaves ENOTCONN" wait_for 30 not_connected
check_fails "starting on the dead mount is refused" start_background "$SRC" "$MNT"
check "the dead mount can be unmounted" umount "$MNT"
nothing_left "killed"
mount_fs
same "and mounted again" content "$(cat "$MNT/file" 2>&1)"
unmount_fs

# ---- the mount table ----

mount_fs
same "type" fuse.stagefs "$(mount_field "$MNT" type)"
same "source" "$SRC" "$(mount_field "$MNT" source)"
has_options() { # WORD...: among the options of the mount
    local word
    for word; do
        case ,$(mount_field "$MNT" options), in
        *,"$word",*) ;;
        *) echo "no $word in $(mount_field "$MNT" options)" && return 1 ;;
        esac
    done
}
check "read-write, nosuid, nodev" has_options rw nosuid nodev
unmount_fs

mount_fs fsname=other
same "fsname=other" other "$(mount_field "$MNT" source)"
unmount_fs

mount_fs dev,suid,noexec,noatime
check "noexec, noatime" has_options noexec noatime
check_fails "dev: nodev is not set" has_options nodev
check_fails "suid: nosuid is not set" has_options nosuid
unmount_fs

plain_src=$SRC plain_mnt=$MNT
for name in "with space" "with,comma" 'back\slash' "equals=sign" "quote'and\"" "#hash" "uml-äöü" "-dash" "a,b c\\,d"; do
    SRC="$WORK/source $name" MNT="$WORK/mount $name"
    mkdir "$SRC" "$MNT"
    echo "$name" >"$SRC/file"
    if mount_fs; then
        same "named \"$name\": read" "$name" "$(cat "$MNT/file")"
        same "named \"$name\": source" "$(t_octal_path "$SRC")" "$(mount_field "$MNT" source | sed 's/\\043/#/g')"
        unmount_fs
    fi
done
mkdir "$WORK/-x" "$WORK/-y"
SRC=$plain_src MNT=$plain_mnt
(cd "$WORK" && start_background ./-x ./-y)
check "names that begin with a dash" is_mounted "$WORK/-y"
umount "$WORK/-y"
nothing_left "dash"

# ---- read-only ----

mount_fs ro
check "ro is in the mount table" has_options ro
same "ro: read" content "$(cat "$MNT/file")"
for call in write create unlink truncate open-trunc; do
    target=$MNT/file
    [ $call != create ] || target=$MNT/new
    same "ro: $call" EROFS "$("$BUILD_DIR/tests/io" $call "$target" || true)"
done
check_fails "ro: chmod" chmod 600 "$MNT/file"
check_fails "ro: mkdir" mkdir "$MNT/dir"
unmount_fs

# Two mounts of one source, and a mount over a mount.
mount_fs
first=$DAEMON first_mnt=$MNT
MNT=$WORK/second
mkdir "$MNT"
mount_fs
echo two >"$MNT/two"
same "two mounts of one source" two "$(cat "$first_mnt/two")"
unmount_fs
DAEMON=$first MNT=$first_mnt
unmount_fs

done_testing
