#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# An ordinary user mounts through fusermount3: told once that it is without passthrough, and everything works.
# variants: default
# sanitizers: address
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

have fusermount3 || skip_all "fusermount3 is not installed"
[ -u "$(readlink -f "$(command -v fusermount3)")" ] || skip_all "fusermount3 is not set-uid here"
new_dirs
test_user
user_binary
as_user_suid sh -c ': <>/dev/fuse' 2>/dev/null || skip_all "an ordinary user cannot open /dev/fuse"
chown "$TUSER:" "$SRC" "$MNT" "$NATIVE"
cp "$BUILD_DIR/tests/io" "$TMPDIR/bin/"

user_sh() { # SCRIPT ARGS...
    as_user timeout -k 5 "$PATIENCE" bash -c "set -eu; $1" - "${@:2}" </dev/null
}

user_mount() { # [OPTIONS]
    new_log
    user_start "$@"
}

user_refused() { # NAME [OPTIONS]
    LOG=$TMPDIR/refused
    check_fails "$1" user_start "${2-}"
    check "$1: a word on stderr" test -s "$LOG"
    rm -f "$LOG"
}

user_start() { # [OPTIONS]
    as_user_suid timeout -k 5 "$PATIENCE" "$USER_STAGEFS" "$SRC" "$MNT" ${1:+-o "$1"} </dev/null >>"$LOG" 2>&1
}

user_processes() { find /proc/[0-9]*/exe -lname "$(readlink -f "$USER_STAGEFS")" 2>/dev/null || true; }
none_left() { [ -z "$(user_processes)" ]; }

user_sh 'echo content >"$1/file"' "$SRC"

check "mounts in the background" user_mount
if ! is_mounted "$MNT"; then
    fail "it is mounted" "$(cat "$LOG")"
    done_testing
fi
same "type" fuse.stagefs "$(mount_field "$MNT" type)"
same "source" "$SRC" "$(mount_field "$MNT" source)"
same "says once that passthrough is not used" 1 "$(grep -ci passthrough "$LOG")"
case ,$(mount_field "$MNT" options), in
*,nosuid,*) pass "nosuid" ;;
*) fail "nosuid" "$(mount_field "$MNT" options)" ;;
esac

same "reads" content "$(user_sh 'cat "$1/file"' "$MNT")"
check "writes" user_sh 'echo one >"$1/new"; echo two >>"$1/new"; printf "one\ntwo\n" | cmp - "$1/new"; cmp "$1/new" "$2/new"' "$MNT" "$SRC"
same "owns what it makes" "$TUSER" "$(stat -c %U "$SRC/new")"
check "folders, links, names" user_sh '
    cd "$1"; mkdir -p a/b; ln -s ../file a/l; ln file a/h; mv new a/b/n; test "$(cat a/l)" = content
    test "$(stat -c %h file)" = 2; chmod 600 file; rm a/h; test "$(stat -c %h file)" = 1; ls -la a >/dev/null; rm -r a' "$MNT"
same "another user is kept out" EACCES "$(as_user2 "$TMPDIR/bin/io" stat "$MNT/file" || true)"
check "maps and shares" user_sh 'cp /bin/true "$1/true" && "$1/true"' "$MNT"
check "a large file keeps its content" user_sh '
    head -c 20000000 /dev/urandom >"$1/big"; cmp "$1/big" "$2/big"; truncate -s 12345678 "$1/big"; cmp "$1/big" "$2/big"
    rm "$1/big"' "$MNT" "$SRC"

# A page written back through a handle that appends goes where it was, and not to the end.
check "appends and maps the same file" user_sh '
    printf "%08192d" 0 >"$1/both"
    python3 -c "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
m = mmap.mmap(fd, 8192)
m[0:4] = b\"page\"
m.flush()
os.write(fd, b\"end\")
m[4096:4100] = b\"more\"
m.flush()
" "$1/both"
    test "$(stat -c %s "$2/both")" = 8195
    test "$(head -c 4 "$2/both")" = page
    test "$(tail -c 3 "$2/both")" = end
    test "$(tail -c +4097 "$2/both" | head -c 4)" = more
    rm "$1/both"' "$MNT" "$SRC"

check "what is open stays usable when its mode forbids it" user_sh '
    python3 -c "
import os, sys
path = sys.argv[1] + \"/closed\"
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.write(fd, b\"before\")
os.close(fd)
fd = os.open(path, os.O_RDWR)
os.chmod(path, 0)
os.pwrite(fd, b\"after\", 0)
assert os.pread(fd, 10, 0) == b\"aftere\"
os.ftruncate(fd, 5)
assert os.fstat(fd).st_size == 5
try:
    os.open(path, os.O_RDONLY)
    raise SystemExit(\"it was opened anew\")
except PermissionError:
    pass
" "$1"
    test "$(stat -c %s "$2/closed")" = 5
    rm -f "$1/closed"' "$MNT" "$SRC"

if have "${CC:-cc}"; then
    compile() {
        user_sh '
            cd "$1" && export TMPDIR="$1"
            for i in 1 2 3 4 5; do
                printf "#include \"all.h\"\nint f%d(void) { return %d + BASE; }\n" $i $i >f$i.c
                echo "int f$i(void);" >>all.h
            done
            echo "#define BASE 1" >>all.h
            printf "#include \"all.h\"\nint main(void) { return f1() + f2() + f3() + f4() + f5() != 20; }\n" >main.c
            for i in f1 f2 f3 f4 f5 main; do '"${CC:-cc}"' -O1 -c $i.c; done
            ar rcs libf.a f?.o
            '"${CC:-cc}"' -o prog main.o libf.a
            ./prog' "$MNT"
    }
    check "compiles, links and runs a program" compile
else
    skip "compiles, links and runs a program" "no C compiler"
fi

check "fusermount3 -u" as_user_suid fusermount3 -u "$MNT"
check "the daemon is gone" wait_for 60 none_left
check "the mount is gone" not_mounted "$MNT"

# ---- folders watched one by one ----

ctl_stat() { user_sh '"$1" stats --json "$2" | python3 -c "import json, sys; print(json.load(sys.stdin)[sys.argv[1]])" "$3"' \
    "$BUILD_DIR/client/stagectl" "$MNT" "$1"; }
seen() { user_sh 'test -e "$1"' "$MNT/$1"; }
user_sh 'mkdir -p "$1/deep/er"; echo one >"$1/deep/er/file"' "$SRC"
check "mounts to watch, for times that no test waits for" user_mount ttl=3000
same "it watches" watch "$(ctl_stat coherence)"
check "a name is not there" user_sh '! test -e "$1/deep/er/new" && ! test -e "$1/deep/er/new"' "$MNT"
user_sh 'echo x >"$1/deep/er/new"' "$SRC"
check "and is, made behind" wait_for 10 seen deep/er/new
user_sh 'mv "$1/deep" "$1/moved"' "$SRC"
check "a renamed folder goes" wait_for 10 user_sh '! test -e "$1/deep"' "$MNT"
check "and comes" seen moved/er/file
user_sh 'cat "$1/moved/er/file" >/dev/null; echo two >"$2/moved/er/file"' "$MNT" "$SRC"
check "content changed by its name is seen" wait_for 10 user_sh 'test "$(cat "$1/moved/er/file")" = two' "$MNT"
user_sh 'ln "$1/moved/er/file" "$1/moved/link"; echo three >"$1/moved/link"' "$SRC"
check "changed by another name, after a sync" user_sh '"$1" sync "$2" && test "$(cat "$2/moved/er/file")" = three' \
    "$BUILD_DIR/client/stagectl" "$MNT"
# What is made through the mount is not dropped again: a working directory in it would lose its way.
check "new folders can be worked in at once" user_sh '
    cd "$1"; for i in $(seq 300); do mkdir d; cd d; test "$(/bin/pwd)" = "$1/d"; cd ..; mv d e; cd e
    test "$(/bin/pwd)" = "$1/e"; cd ..; rmdir e; done' "$MNT"
check "a folder that is removed whole and made again can be worked in" user_sh '
    cd "$1"; for i in $(seq 5); do mkdir -p build/sub; for f in $(seq 200); do : >build/sub/$f; done
    rm -r build; mkdir build; cd build; test "$(/bin/pwd)" = "$1/build"; sleep 0.02; test "$(/bin/pwd)" = "$1/build"
    cd ..; rmdir build; done' "$MNT"
# Open files: those that only name something (O_PATH) are the cache's, which is bounded.
open_files() {
    local pid
    pid=$(user_processes | sed 's|/proc/||; s|/exe||')
    cat "/proc/$pid/fdinfo/"* | awk '$1 == "flags:" && $2 !~ /1[0-7][0-7][0-7][0-7][0-7][0-7][0-7]$/ { n++ } END { print n }'
}
check "many changes of mode hold few descriptors" user_sh '
    mkdir "$1/modes"; for i in $(seq 300); do : >"$1/modes/$i"; chmod 755 "$1/modes/$i"; chmod 500 "$1/modes/$i"; done
    rm -r "$1/modes"' "$MNT"
check "few indeed" test "$(open_files)" -lt 150
check "unmounted" as_user_suid fusermount3 -u "$MNT"
check "that daemon is gone" wait_for 60 none_left

# ---- copies on disk ----

ctl_disk() { user_sh '"$1" stats --json "$2" | python3 -c "import json, sys; print(json.load(sys.stdin)[\"disk\"][sys.argv[1]])" "$3"' \
    "$BUILD_DIR/client/stagectl" "$MNT" "$1"; }
user_sh 'head -c 30000 /dev/urandom >"$1/kept"' "$SRC"
mkdir -m 700 "$WORK/stage"
user_refused "a stage directory of root's" "stage=prefetch,stage_dir=$WORK/stage"
chown "$TUSER" "$WORK/stage"
for round in 1 2; do
    check "mounts with a stage directory, time $round" user_mount "stage=prefetch,stage_dir=$WORK/stage"
    check "reads, time $round" user_sh 'cmp "$1/kept" "$2/kept"' "$MNT" "$SRC"
    [ "$round" = 1 ] || check "from there" test "$(ctl_disk hits)" -gt 0
    check "unmounted, time $round" as_user_suid fusermount3 -u "$MNT"
    check "both processes are gone, time $round" wait_for 60 none_left
done

# ---- few watches ----

limit=/proc/sys/fs/inotify/max_user_watches
before=$(cat $limit)
if { echo 4 >$limit; } 2>/dev/null; then
    user_sh 'for i in $(seq 20); do mkdir -p "$1/many/$i"; done' "$SRC"
    check "mounts with few watches to be had" user_mount ttl=0.2
    check "looks into many folders" user_sh 'for i in $(seq 20); do test ! -e "$1/many/$i/new"; done' "$MNT"
    check "not all are watched" test "$(ctl_stat unwatched)" -gt 0
    user_sh 'for i in $(seq 20); do echo x >"$1/many/$i/new"; done' "$SRC"
    check "and names come all the same" wait_for 10 user_sh 'for i in $(seq 20); do test -e "$1/many/$i/new"; done' "$MNT"
    echo "$before" >$limit
    check "unmounted, too" as_user_suid fusermount3 -u "$MNT"
    check "the daemon of that is gone" wait_for 60 none_left
else
    skip "few watches" "$limit cannot be set"
fi

chown root "$MNT"
user_refused "cannot mount over root's directory"
check "nothing is mounted" not_mounted "$MNT"
chown "$TUSER" "$MNT"

if [ -f /etc/fuse.conf ]; then
    : >"$TMPDIR/fuse.conf"
    chmod 644 "$TMPDIR/fuse.conf"
    mount --bind "$TMPDIR/fuse.conf" /etc/fuse.conf
    user_refused "allow_other needs user_allow_other" allow_other
    check "nothing is mounted without it" not_mounted "$MNT"
    echo user_allow_other >"$TMPDIR/fuse.conf"
    check "allow_other with user_allow_other" user_mount allow_other
    user_sh 'chmod 644 "$1/file"' "$MNT"
    same "another user reads" content "$(as_user2 cat "$MNT/file" 2>&1)"
    same "another user may not write" EACCES "$(as_user2 "$TMPDIR/bin/io" write "$MNT/file" || true)"
    # Root's own writes arrive as the daemon, which is the user: what it may not do, root may not either.
    same "root reads" content "$(cat "$MNT/file" 2>&1)"
    check "unmounted again" as_user_suid fusermount3 -u "$MNT"
    check "the second daemon is gone" wait_for 60 none_left
fi

done_testing
