#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Who may do what, and what a write takes away: each operation is done on the mount and on a plain directory, as root
# and as ordinary users, and both must come out the same.
# variants: default uring-off staged pagecache
# sanitizers: address
# sanitized: staged
# timeout: 240

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
test_user
mkdir "$TMPDIR/bin"
cp "$BUILD_DIR/tests/io" "$TMPDIR/bin/io"
chmod 755 "$TMPDIR/bin" "$TMPDIR/bin/io"
export io=$TMPDIR/bin/io
mount_fs allow_other,suid,dev

as_root() { "$@"; }
# The administrator's user ID without any of his capabilities.
as_powerless_root() { setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"; }
who_list=(as_root as_user as_user2)
if as_powerless_root true 2>/dev/null; then who_list+=(as_powerless_root); fi

# Runs a function with the directory as argument on both sides and compares what it prints.
both() { # NAME FUNCTION [ARGS...]
    local name=$1 native mounted
    shift
    native=$("$1" "$NATIVE" "${@:2}" 2>&1 | sed "s|$NATIVE|DIR|g") || true
    mounted=$("$1" "$MNT" "${@:2}" 2>&1 | sed "s|$MNT|DIR|g") || true
    same "$name" "$native" "$mounted"
}

# ---- set-id bits and file capabilities ----

# A few hundred calls on each side, for which the shell would start thousands of programs.
cat >"$TMPDIR/take_away.py" <<'PYTHON'
"""take_away.py REQUESTS ANSWERS DIR MODE OWNER CAPABILITIES CALL...: each call on a fresh file, by the `io each` behind
the two pipes: its errno, and the mode, the size and the capabilities after it."""
import os, sys
requests, answers, folder, mode, owner, capabilities, *calls = sys.argv[1:]
requests, answers = open(requests, "w"), open(answers)
file, other = folder + "/file", folder + "/other"


def put(path):
    with open(path, "xb", buffering=0) as to:
        to.write(bytes(6000))


put(other)
os.chmod(other, 0o644)
for call in calls:
    put(file)
    os.chown(file, *map(int, owner.split(":")))
    os.chmod(file, int(mode, 8))
    if capabilities:
        os.setxattr(file, "security.capability", bytes.fromhex(capabilities))
    os.stat(file)  # looked at first, so that a remembered answer would show
    print(call, file, other, file=requests, flush=True)
    answer = answers.readline()
    if not answer:
        sys.exit("no answer to " + call)
    info = os.stat(file)
    try:
        left = os.getxattr(file, "security.capability").hex()
    except OSError as error:
        left = os.strerror(error.errno)
    print("%s: %s %o %d %s" % (call, answer.strip(), info.st_mode & 0o7777, info.st_size, left))
    os.unlink(file)
os.unlink(other)
PYTHON
mkfifo "$TMPDIR/requests" "$TMPDIR/answers"
capabilities=
take_away() { # DIR WHO MODE OWNER CALL...
    $2 "$io" each <"$TMPDIR/requests" >"$TMPDIR/answers" &
    python3 "$TMPDIR/take_away.py" "$TMPDIR/requests" "$TMPDIR/answers" "$1" "$3" "$4" "$capabilities" "${@:5}"
}
both_take_away() { # NAME WHO MODE OWNER CALL...
    local native
    native=$(take_away "$NATIVE" "${@:2}" 2>&1) || native="not even natively: $native"
    same "$1" "$native" "$(take_away "$MNT" "${@:2}" 2>&1)"
}

calls=(write write-nothing append pwrite pwritev2 write-direct truncate truncate-same ftruncate open-trunc open-write
    fallocate fallocate-keep punch zero-range mmap-store copy-file-range sendfile splice chown-same read)
for who in "${who_list[@]}"; do
    for mode in 6777 2767 4766 6666; do
        both_take_away "set-id bits of $mode, $who" $who $mode "$TUID:$TGROUP_ID" "${calls[@]}"
    done
done
both_take_away "set-id bits of a user's own" as_user 6755 "$TUID:$TGID" "${calls[@]}"
both_take_away "set-id bits of root's" as_root 6755 0:0 "${calls[@]}"
if have setcap && : >"$NATIVE/cap" && setcap cap_net_raw+ep "$NATIVE/cap" 2>/dev/null; then
    capabilities=$(getfattr --only-values -n security.capability "$NATIVE/cap" | od -An -v -tx1 | tr -d ' \n')
    if [ "$VARIANT" = pagecache ]; then # a store takes capabilities away when it is written back
        calls=("${calls[@]/mmap-store/read}")
    fi
    for who in as_root as_user2; do
        both_take_away "capabilities, $who" $who 777 "$TUID:$TGID" "${calls[@]}"
    done
    both_take_away "capabilities and set-id bits, as_user" as_user 6777 "$TUID:$TGID" "${calls[@]}"
    capabilities=
else
    skip "capabilities" "file capabilities cannot be set here"
fi
rm -f "$NATIVE/cap"

# One who has the file open from before keeps writing: the bits that come back go again.
open_before() { # DIR
    : >"$1/file"
    chown "$TUSER:$TGROUP" "$1/file"
    chmod 6777 "$1/file"
    # shellcheck disable=SC2016
    as_user2 bash -c 'exec 7<>"$1"; echo a >&7; stat -c %a "$1"; echo b >&7; stat -c %a "$1"; : >"$2"
        while [ ! -e "$3" ]; do sleep 0.02; done; echo c >&7; stat -c %a "$1"' - "$1/file" "$WORK/flags/open" "$WORK/flags/set" &
    local writer=$!
    wait_for 30 test -e "$WORK/flags/open"
    chmod 6777 "$1/file"
    : >"$WORK/flags/set"
    wait $writer
    rm -f "$WORK"/flags/* "$1/file"
}
mkdir -m 777 "$WORK/flags"
both "set-id bits with an open from before" open_before

# ---- owners of new objects ----

list() { find "$1" -mindepth 1 -printf '%P %y %M %u %g %l\n' | sort; }

create_all() { # DIR: one of each kind under a few umasks, for `io each`
    local mask
    for mask in 000 022 027 077 777; do
        printf "%s $mask\n" "make-file $1/file$mask" "make-folder $1/dir$mask" "make-fifo $1/fifo$mask" \
            "make-link $1/link$mask" "make-shared $1/mode$mask"
    done
    printf '%s 777\n' "make-folder $1/a" "make-folder $1/a/b" "make-file $1/a/b/c"
}

new_objects() { # DIR MODE OWNER ACL: in a folder for each
    local who folders=("${who_list[@]/#/$1/}")
    mkdir "${folders[@]}"
    chown "$3" "${folders[@]}"
    chmod "$2" "${folders[@]}"
    [ -z "$4" ] || setfacl -d -m "$4" "${folders[@]}" || echo "no acl"
    for who in "${who_list[@]}"; do
        echo "$who"
        create_all "$1/$who" >"$TMPDIR/calls"
        $who "$io" each <"$TMPDIR/calls"
    done
    list "$1"
    rm -rf "${folders[@]}"
}
both "new objects" new_objects 777 root:root ""
both "new objects in a set-gid folder" new_objects 2777 "root:$TGROUP" ""
both "new objects in a set-gid folder of a foreign group" new_objects 2777 "root:$TGID2" ""
both "new objects in a sticky folder" new_objects 1777 root:root ""
both "new objects in another's folder" new_objects 755 "$TUSER:$TGID" ""
both "new objects in a group's folder" new_objects 770 "root:$TGROUP" ""

if have setfacl && setfacl -d -m u:0:rwx "$NATIVE" 2>/dev/null; then
    setfacl -b -k "$NATIVE"
    both "default ACL" new_objects 777 root:root "u:$TUSER2:rwx,g:$TGROUP:r-x,o::---"
    both "default ACL with a mask" new_objects 2777 "root:$TGROUP" "u::rw-,g::r--,u:$TUID2:rwx,m::r-x,o::r--"
    acl_of_new() { # DIR
        mkdir -m 777 "$1/sub"
        setfacl -d -m "u:$TUSER2:rw-,g:$TGROUP:r-x,m::rwx,o::---" "$1/sub"
        as_user mkdir "$1/sub/dir"
        as_user touch "$1/sub/file"
        getfacl -n -p "$1/sub/dir" "$1/sub/file"
        for name in dir file; do as_user2 "$io" open-write "$1/sub/$name"; done
        as_user2 "$io" create "$1/sub/dir/new"
        rm -rf "$1/sub"
    }
    both "default ACL in new objects" acl_of_new
    acl_decides() { # DIR
        echo x >"$1/file"
        chmod 600 "$1/file"
        as_user "$io" read "$1/file"
        setfacl -m "u:$TUSER:r" "$1/file"
        as_user "$io" read "$1/file"
        as_user "$io" write "$1/file"
        as_user2 "$io" read "$1/file"
        setfacl -m "g:$TGROUP:rw,u:$TUSER2:-" "$1/file"
        as_user "$io" write "$1/file"
        as_user2 "$io" read "$1/file"
        setfacl -m m::- "$1/file"
        as_user "$io" read "$1/file"
        chmod 640 "$1/file"
        as_user "$io" read "$1/file"
        getfacl -n -p "$1/file"
        rm "$1/file"
    }
    both "an ACL decides" acl_decides
else
    skip "ACLs" "the file system or setfacl is absent"
fi

# ---- who may ----

permissions() { # DIR
    local who name
    mkdir -m 700 "$1/closed" && echo x >"$1/closed/file"
    mkdir -m 755 "$1/open" && mkdir -m 1777 "$1/sticky" && mkdir -m 711 "$1/passing" && echo x >"$1/passing/file"
    for name in 600 060 006 644 664 000; do
        echo x >"$1/open/$name"
        chmod $name "$1/open/$name"
        chown "root:$TGROUP" "$1/open/$name"
    done
    as_user sh -c 'echo x >"$1/sticky/mine"; chmod 666 "$1/sticky/mine"' - "$1"
    for who in "${who_list[@]}"; do
        {
            for name in open/600 open/060 open/006 open/644 open/664 open/000 closed/file passing/file open/none; do
                printf "%s $1/$name -\n" stat read open-write
            done
            for name in open closed sticky passing; do printf '%s -\n' "create $1/$name/new" "tmpfile $1/$name"; done
        } >"$TMPDIR/calls"
        $who "$io" each <"$TMPDIR/calls" | paste "$TMPDIR/calls" - | sed "s/^/$who /"
        rm -f "$1"/{open,closed,sticky,passing}/new
        $who ls "$1/open" "$1/closed" "$1/sticky" "$1/passing" 2>&1 || true
        # shellcheck disable=SC2016
        $who sh -c '"$io" truncate "$1/open/644"; chmod 640 "$1/open/644"; chgrp "$2" "$1/sticky/mine"
            chown "$3" "$1/sticky/mine"; touch "$1/open/644"; touch -d 2001-01-01 "$1/sticky/mine"
            ln "$1/open/600" "$1/sticky/hard"; setfattr -n user.x -v y "$1/open/644"
            setfattr -n trusted.x -v y "$1/open/644"; mknod "$1/sticky/null" c 1 3' \
            - "$1" "$TGROUP_ID" "$TUID2" 2>&1 || true
        rm -f "$1/sticky/hard" "$1/sticky/null"
    done
    for who in as_user2 as_user; do
        printf '%s rename in sticky: %s\n' $who "$($who "$io" rename "$1/sticky/mine" "$1/sticky/taken" || true)"
        printf '%s unlink in sticky: %s\n' $who "$($who "$io" unlink "$1/sticky/mine" || true)"
        list "$1/sticky"
    done
    list "$1/open"
    rm -rf "${1:?}"/*
}
both "who may do what" permissions

group_member() { # DIR: supplementary groups count
    mkdir -m 2770 "$1/shared"
    chgrp "$TGROUP" "$1/shared"
    as_user "$io" create "$1/shared/new"
    as_user2 "$io" create "$1/shared/foreign"
    setpriv --reuid "$TUID" --regid "$TGID" --clear-groups "$io" create "$1/shared/without"
    # A group that the user database does not know, held by the process alone.
    mkdir -m 770 "$1/numeric"
    chgrp 61999 "$1/numeric"
    setpriv --reuid "$TUID" --regid "$TGID" --groups 61998,61999 "$io" create "$1/numeric/new"
    # A set-gid bit survives only for a member.
    as_user sh -c 'chgrp '"$TGROUP_ID"' "$1/shared/new"; chmod 2755 "$1/shared/new"' - "$1"
    setpriv --reuid "$TUID" --regid "$TGID" --clear-groups chmod 2755 "$1/shared/new"
    list "$1"
    rm -rf "${1:?}"/*
}
both "supplementary groups" group_member

# ---- programs ----

executing() { # DIR
    cp /bin/sleep "$1/program"
    "$1/program" 600 &
    local pid=$!
    own_process $pid
    # shellcheck disable=SC2317
    runs() { [ "$(readlink "/proc/$pid/exe")" = "$1/program" ]; }
    wait_for 30 runs "$1" || echo "does not run"
    "$io" open-write "$1/program"
    "$io" truncate "$1/program"
    "$io" open-trunc "$1/program"
    "$io" read "$1/program"
    chmod 4755 "$1/program"
    kill $pid
    wait $pid 2>/dev/null
    "$io" open-write "$1/program"
    chmod 644 "$1/program"
    "$io" exec "$1/program"
    as_user "$io" exec "$1/program"
    printf '#!/bin/sh\necho "script $0 $1"\n' >"$1/script"
    "$io" exec "$1/script"
    chmod 755 "$1/script"
    as_user "$1/script" argument
    exec 7>>"$1/script"
    "$io" exec "$1/script"
    exec 7>&-
    rm -f "$1/program" "$1/script"
}
both "executing" executing

set_uid_program() { # DIR: on a mount with suid
    cp /usr/bin/id "$1/id"
    chown "$TUSER2:$TGROUP" "$1/id"
    chmod 6755 "$1/id"
    setpriv --reuid "$TUID" --regid "$TGID" --clear-groups "$1/id"
    rm "$1/id"
}
both "a set-uid program on a mount with suid" set_uid_program
device() { # DIR: on a mount with dev
    mknod -m 666 "$1/null" c 1 3 && as_user "$io" open-write "$1/null"
    as_user sh -c 'echo x >"$1/null"' - "$1"
    rm "$1/null"
}
both "a device on a mount with dev" device
unmount_fs

# ---- defaults: nosuid, nodev ----

mount_fs allow_other
cp /usr/bin/id "$SRC/id"
chown "$TUSER2" "$SRC/id"
chmod 6755 "$SRC/id"
same "nosuid is the default" "$TUID" "$(setpriv --reuid "$TUID" --regid "$TGID" --clear-groups "$MNT/id" -u 2>&1)"
mknod -m 666 "$SRC/null" c 1 3
same "nodev is the default" EACCES "$("$io" open-write "$MNT/null" || true)"
unmount_fs

mount_fs noexec,allow_other
same "noexec holds" EACCES "$("$io" exec "$MNT/id" || true)"
same "noexec lets read" "" "$("$io" read "$MNT/id" || true)"
unmount_fs

mount_fs
same "without allow_other others are kept out" EACCES "$(as_user "$io" stat "$MNT/id" || true)"
same "and not root" "" "$("$io" stat "$MNT/id" || true)"
unmount_fs

done_testing
