#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: thread
# sanitized: default
# timeout: 200
#
# Names and attributes of a slow source that the kernel keeps for longer than ttl: who asks for them again does not wait
# for the source, what changes behind the mount shows within ttl all the same, and nothing is kept where the source does
# not answer.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

FILES=20
promptly() { timeout -k 1 10 "$@"; }
start() { # OPTIONS
    new_dirs
    mkdir -p "$WORK/slow-under"/{folder,other}
    for i in $(seq $FILES); do echo "file $i" >"$WORK/slow-under/folder/f$i"; done
    find "$WORK/slow-under" -exec touch -d '2 hours ago' {} +
    mount_slow latency_us=20000,coarse,timeout=0 && mount_fs "predict=none,$1"
}
end() { # NAME
    unmount_fs && pass "$1: the mount ends"
    unmount_slow
}

# The quickest of the looks at all files, and at as many names that are not there, more than `ttl` after the first, in ms.
# It looks for so long, or until one was as quick as is asked for.
cat >"$TMPDIR/look.py" <<'PYTHON'
import os, sys, time

folder, files, seconds, enough = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]) / 1000
begin = time.monotonic()
best = 1e9
while True:
    since = time.monotonic()
    for i in range(1, files + 1):
        os.stat("%s/f%d" % (folder, i))
        os.path.exists("%s/absent%d" % (folder, i))
    now = time.monotonic()
    if since - begin > 2:
        best = min(best, now - since)
    if best < enough or now - begin > seconds:
        break
    # Longer than ttl, so that each look finds what was kept for that long gone.
    time.sleep(1.3)
print(int(best * 1000))
PYTHON
quickest() { timeout 60 python3 "$TMPDIR/look.py" "$MNT/folder" $FILES "$@"; } # SECONDS MS

start lease=0 || done_testing
without=$(quickest 3.5 0)
end "without leases"
start lease=30 || done_testing
with=$(quickest 30 $((without / 4))) # on a busy machine all may be taken back first
t_comment "all files once: $without ms without leases, $with ms with them"
check "the mount says how much is leased" test "$(stat_of leases)" -ge $FILES
check "who asks again does not wait for the source" test $((with * 4)) -lt "$without"

# ---- changes behind the mount ----

same_file() { cmp "$MNT/folder/$1" "$SLOW_UNDER/folder/$1"; }
same_mode() { [ "$(stat -c '%a %Y %s' "$MNT/folder/$1")" = "$(stat -c '%a %Y %s' "$SLOW_UNDER/folder/$1")" ]; }
gone() { [ ! -e "$MNT/folder/$1" ]; }
there() { [ -e "$MNT/folder/$1" ]; }
shows() { # NAME CMD...: within ttl, and what a busy machine adds
    check "$1 shows" wait_for 3 "${@:2}"
}
keep() { for i in $(seq $FILES); do promptly cat "$MNT/folder/f$i" >/dev/null; done; }

keep
echo "another content" >"$SLOW_UNDER/folder/f1"
shows "a rewrite" same_file f1
keep
echo "the one after it" >"$SLOW_UNDER/spare" && mv "$SLOW_UNDER/spare" "$SLOW_UNDER/folder/f2"
shows "a file in the place of another" same_file f2
chmod 600 "$SLOW_UNDER/folder/f3"
shows "a mode" same_mode f3
gone late || fail "late is not there yet"
echo late >"$SLOW_UNDER/folder/late"
shows "a name that was not there" there late
rm "$SLOW_UNDER/folder/late"
shows "a name that is gone" gone late
echo late again >"$SLOW_UNDER/folder/late"
shows "the same name, once more" there late
mv "$SLOW_UNDER/folder" "$SLOW_UNDER/away" && mkdir "$SLOW_UNDER/folder" && echo "in another folder" >"$SLOW_UNDER/folder/f4"
shows "another folder in the place of one" same_file f4
shows "and what it does not have" gone f5
rm -r "$SLOW_UNDER/folder" && mv "$SLOW_UNDER/away" "$SLOW_UNDER/folder"
shows "the first one again" same_file f5

# ---- changes through the mount ----

check "what is made through the mount is there" promptly touch "$MNT/folder/made"
check "at once" there made
rm "$SLOW_UNDER/folder/made"
shows "that it is gone again" gone made
echo written >"$MNT/folder/f6"
check "what is written through the mount is read" same_file f6
echo "before a sync" >"$SLOW_UNDER/folder/f9"
check "a sync" ctl sync "$MNT"
check "what changed before it is there" same_file f9
check "a name is removed through the mount" promptly rm "$MNT/folder/f7"
check "and gone" gone f7
echo back >"$SLOW_UNDER/folder/f7"
shows "that it is there again" same_file f7
check "a name is changed through the mount" promptly mv "$MNT/folder/f10" "$MNT/other/moved"
check "it has the other one" cmp "$MNT/other/moved" "$SLOW_UNDER/other/moved"
rm "$SLOW_UNDER/other/moved"
moved_is_gone() { [ ! -e "$MNT/other/moved" ]; }
shows "that this one is gone" moved_is_gone
check "a name replaces another through the mount" promptly mv "$MNT/folder/f11" "$MNT/folder/f12"
echo "in its place" >"$SLOW_UNDER/spare" && mv "$SLOW_UNDER/spare" "$SLOW_UNDER/folder/f12"
shows "another file in that place" same_file f12
cp "$(command -v sleep)" "$MNT/folder/program"
mkdir "$MNT/folder/again" && touch "$MNT/folder/again/in"
# What was made has ttl; after that it is asked for again, and leased.
asked_for() { there program && there again/in && [ "$SECONDS" -ge "$1" ]; }
wait_for 5 asked_for $((SECONDS + 2)) || fail "what was made is not there"
exec 9<"$MNT/folder/program" # or the next one could have its inode number
rm "$MNT/folder/program" && cp "$(command -v sleep)" "$MNT/folder/program"
"$MNT/folder/program" 60 </dev/null >/dev/null 2>&1 &
program=$!
own_process "$program"
program_runs() { [[ $(readlink "/proc/$program/exe") == "$MNT/"* ]]; }
check "a program runs" wait_for 5 program_runs
echo "told of that" >"$SLOW_UNDER/folder/f13"
shows "what changed after a program was made again" same_file f13
same "the program that runs is known by its name" "$MNT/folder/program" "$(readlink "/proc/$program/exe")"
kill "$program"
exec 9<&-
rm -r "$MNT/folder/again" && mkdir "$MNT/folder/again"
mount -t tmpfs lease-test "$MNT/folder/again"
gone mounted || fail "mounted is not there yet"
check "a folder is made through the mount" promptly mkdir "$MNT/folder/mounted"
mount -t tmpfs lease-test "$MNT/folder/mounted"
echo "told of it" >"$SLOW_UNDER/folder/after"
shows "what was made after it" there after
check "what is mounted on it stays" mountpoint -q "$MNT/folder/mounted"
check "on one that was made again, too" mountpoint -q "$MNT/folder/again"
umount "$MNT/folder/mounted" "$MNT/folder/again"
for i in 10 11; do echo "file $i again" >"$SLOW_UNDER/folder/f$i"; done
shows "that what was moved away is there again" same_file f10

# ---- a source that hangs ----

cat >"$TMPDIR/held.py" <<'PYTHON'
import os, sys, time

fd = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
end = time.monotonic() + float(sys.argv[3])
while os.fstat(fd).st_mode & 0o777 != int(sys.argv[2], 8):
    if time.monotonic() > end:
        sys.exit("the mode is %o" % os.fstat(fd).st_mode)
    time.sleep(0.02)
PYTHON
keep
python3 "$TMPDIR/held.py" "$MNT/folder/f8" 640 10 </dev/null >"$TMPDIR/held.out" 2>&1 &
holder=$!
own_process "$holder"
is_held() { grep -q open "$TMPDIR/held.out"; }
wait_for 5 is_held || fail "f8 cannot be held open"
keep
slow_control gate=LOOKUP
check "the source hangs" slow_wait_held
chmod 640 "$SLOW_UNDER/folder/f8"
check "who has the file open sees its change" wait "$holder"
echo "while it hung" >"$SLOW_UNDER/folder/f8"
stat "$MNT/folder/f9" </dev/null >/dev/null 2>&1 &
waiter=$!
own_process "$waiter"
slow_control ""
check "who waited for it is answered" wait "$waiter"
shows "what changed meanwhile" same_file f8
leases_again() { keep && [ "$(stat_of leases)" -ge $FILES ]; }
check "and there are leases again" wait_for 60 leases_again
end "with leases"
done_testing
