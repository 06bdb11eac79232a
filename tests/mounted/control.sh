#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Staging on request by the ioctl protocol and by extended attributes: files, folders, sets, who may, and payloads
# that are not of the protocol.
# variants: default uring-off pagecache
# sanitizers: address thread
# timeout: 300

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
# shellcheck source=tests/lib/slow-source.sh
. "$TOP/tests/lib/slow-source.sh"
# shellcheck source=tests/lib/control.sh
. "$TOP/tests/lib/control.sh"

about() { control query "$MNT" "$1" | field "$2"; }
state_is() { [ "$(about "$1" state)" = "$2" ]; }
# Where opens are not told, files are staged in pieces, and done with once those are asked for: they come a little later.
has_staged() { [ "$(control set "$MNT" "$1" | field staged_files)" = "$2" ]; } # SET FILES

new_dirs
mount_slow latency_us=200
mkdir -p "$SLOW_UNDER/tree/deep/er" "$SLOW_UNDER/closed"
for i in $(seq 200); do seq "$i" $((i + 500)) >"$SLOW_UNDER/tree/$i"; done
for i in $(seq 20); do seq "$i" $((i + 500)) >"$SLOW_UNDER/tree/deep/er/$i"; done
echo secret >"$SLOW_UNDER/secret" && chmod 600 "$SLOW_UNDER/secret"
echo hidden >"$SLOW_UNDER/closed/open" && chmod 700 "$SLOW_UNDER/closed"
echo grouped >"$SLOW_UNDER/grouped" && test_user && chgrp "$TGROUP_ID" "$SLOW_UNDER/grouped" && chmod 640 "$SLOW_UNDER/grouped"
ln -s tree "$SLOW_UNDER/link"
ln -s 1 "$SLOW_UNDER/tree/link"
chmod 755 "$WORK" "$TMPDIR" 2>/dev/null || true
# What was asked for a file is known for as long as the kernel knows the file, which is that long.
mount_fs allow_other,entry_timeout=60

# ---- staging ----

same "a tree is staged" '{"files": 220, "done": 220, "failed": 0, "error": "", "about": ""}' \
    "$(control stage "$MNT" tree --recursive=1 --set=whole)"
check "each of its files is" wait_for 30 has_staged whole 220
check "and says so" state_is tree/deep/er/20 hot
before=$(slow_count open)
check "they are read right" diff -r --no-dereference "$SLOW_UNDER/tree" "$MNT/tree"
same "from copies" "$before" "$(slow_count open)"
same "the set knows its files" 220 "$(control set "$MNT" whole | field staged_files)"
same "and they know the set" whole "$(about tree/7 set)"
same "a hit is counted" 1 "$(about tree/7 hits)"
same "named files are staged together, and failures counted" \
    '{"files": 5, "done": 2, "failed": 3, "error": "ENOENT"}' \
    "$(control stage "$MNT" tree/1 nosuch tree/2 tree/nosuch nosuch/1 --set=pair | sed "s/, .about.*/}/")"
same "a folder by name needs to be asked for" EISDIR "$(control stage "$MNT" tree | field error)"
same "links are not followed" ELOOP "$(control stage "$MNT" link/1 | field error)"
same "nor is the way up" EINVAL "$(control stage "$MNT/tree" ../secret | field error)"
same "the two have left the first set" 218 "$(control set "$MNT" whole | field files)"
same "a set is unstaged as a whole" null "$(control unstage "$MNT" --set=whole)"
check "its files are" state_is tree/7 absent
check "and no others" state_is tree/1 hot
same "the set is gone" ENOENT "$(control set "$MNT" whole)"
same "files are unstaged by name" 1 "$(control unstage "$MNT" tree/1 | field "done")"
check "and are" state_is tree/1 absent

# ---- modes ----

same "a mode can be set by attribute" "" "$(setfattr -n user.stagefs.mode -v prefetch "$MNT/tree/30" 2>&1)"
check "which stages it" wait_for 30 state_is tree/30 hot
same "and taken away" "" "$(setfattr -x user.stagefs.mode "$MNT/tree/30" 2>&1)"
check "which unstages it" state_is tree/30 absent
check_fails "another value is refused" setfattr -n user.stagefs.mode -v fast "$MNT/tree/30"
check_fails "another attribute, too" setfattr -n user.stagefs.hits -v 1 "$MNT/tree/30"
control stage "$MNT" tree/31 --mode=none >/dev/null
cat "$MNT/tree/31" >/dev/null
check "a file with the mode none is not staged" state_is tree/31 absent
same "and says so" "staging is off for it" "$(about tree/31 why)"
same "the attributes are in no list" "" "$(getfattr -d -m - "$MNT/tree/30" 2>/dev/null)"

# ---- who may ----

chmod 644 "$TOP/tests/mounted/control.py" 2>/dev/null || true
cp "$TOP/tests/mounted/control.py" "$TMPDIR/control.py" && chmod 644 "$TMPDIR/control.py"
as_him() { as_user /usr/bin/python3 "$TMPDIR/control.py" "$@"; }
same "a user stages what he may read" 1 "$(as_him stage "$MNT" tree/40 | field "done")"
same "by a group, too" 1 "$(as_him stage "$MNT" grouped | field "done")"
same "and nothing else" EACCES "$(as_him stage "$MNT" secret | field error)"
same "nor below what he may not search" EACCES "$(as_him stage "$MNT" closed/open | field error)"
check "which was not staged" state_is secret absent
same "nor may he ask about it" EACCES "$(as_him query "$MNT" secret)"
same "he cannot drop a set that is another's" EPERM "$(as_him unstage "$MNT" --set=pair)"
same "nor join it" EPERM "$(as_him stage "$MNT" tree/41 --set=pair)"
control stage "$MNT" tree/2 --set=other >/dev/null
control stage "$MNT" tree/2 --set=pair >/dev/null
same "a file is in a set once" 1 "$(control set "$MNT" pair | field files)"
same "he may look at the settings" adaptive "$(as_him config "$MNT" | field mode)"
same "and not change them" EPERM "$(as_him config "$MNT" mem=1)"
same "whose job it is not may not look at it" ENOENT "$(
    number=$(python3 -c '
import sys
sys.path.insert(0, sys.argv[1])
import control
request = control.Stage(mode=2, names_bytes=7)
import ctypes
ctypes.memmove(ctypes.addressof(request) + control.Stage.names.offset, b"tree/9\0", 7)
print(control.send(sys.argv[2], request).job)' "$TMPDIR" "$MNT")
    as_user /usr/bin/python3 -c '
import errno, sys
sys.path.insert(0, sys.argv[1])
import control
try: control.send(sys.argv[2], control.Job(job=int(sys.argv[3]))); print("told")
except OSError as error: print(errno.errorcode[error.errno])' "$TMPDIR" "$MNT" "$number")"
same "root changes them" '{"mode": "none", "threshold": 5, "mem": 3000000, "cold": 4000000}' \
    "$(control config "$MNT" mode=none threshold=5 mem=3000000 cold=4000000)"
cat "$MNT/tree/50" >/dev/null
check "with mode=none nothing is staged by itself" state_is tree/50 absent
same "but on request" 1 "$(control stage "$MNT" tree/50 --mode=prefetch | field "done")"
check "it is" wait_for 30 state_is tree/50 hot

# ---- payloads that are not of the protocol ----

cat >"$TMPDIR/hostile.py" <<'PYTHON'
import ctypes, errno, fcntl, os, random, sys
sys.path.insert(0, sys.argv[1])
import control
random.seed(int(sys.argv[3]))
folder = os.open(sys.argv[2], os.O_RDONLY)
file = os.open(sys.argv[2] + "/tree/60", os.O_RDONLY)
kinds = [control.Stage, control.Unstage, control.Job, control.Query, control.Set, control.Stats, control.Config,
         control.Advise, control.Sync]
allowed = {errno.EINVAL, errno.ENOENT, errno.ENOTTY, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG,
           errno.EAGAIN, errno.EISDIR, errno.EOPNOTSUPP}
def send(fd, number, payload):
    try:
        fcntl.ioctl(fd, number, bytearray(payload))
    except OSError as error:
        assert error.errno in allowed, error
for round in range(3000):
    kind = random.choice(kinds)
    size = ctypes.sizeof(kind)
    payload = bytearray(random.randbytes(size) if random.random() < 0.3 else size)
    if random.random() < 0.8:
        payload[0:4] = (1).to_bytes(4, "little")
    if kind is control.Config:          # what is well-formed there would be obeyed
        payload[4:8] = b"\xff\xff\xff\x7f"
    for _ in range(random.randrange(4)):
        payload[random.randrange(4, 120) % size] = random.randrange(256)
    if kind is control.Config:
        payload[4:8] = b"\xff\xff\xff\x7f"
    send(random.choice((folder, file)), control.command(kind), payload)
    if random.random() < 0.1:           # other sizes, other numbers
        wrong = random.randrange(1, 16000)
        send(folder, 3 << 30 | wrong << 16 | control.TYPE << 8 | random.randrange(256), bytearray(16384)[:wrong])
for name in (b"/etc/passwd", b"..", b"../..", b"tree/../..", b"tree//1", b".", b"a" * 5000, b"\xff\xfe"):
    try:
        control.stage(folder, [os.fsdecode(name)])
    except OSError as error:
        assert error.errno in allowed, error
PYTHON
check "random payloads are refused or harmless" python3 "$TMPDIR/hostile.py" "$TMPDIR" "$MNT" "$RANDOM"
check "and the mount is as it was" cmp "$SLOW_UNDER/tree/60" "$MNT/tree/60"
same "a request on another file system is none" ENOTTY "$(control stats "$WORK")"
unmount_fs && pass "the mount ends cleanly"

mount_fs stage=none
check "a mount that does not stage has statistics all the same" control stats "$MNT"
same "it refuses to stage" ENOTSUP "$(control stage "$MNT" tree/1)"
unmount_fs && pass "it ends cleanly"

mount_fs
slow_control gate=READ
python3 -c '
import sys
sys.path.insert(0, sys.argv[1])
import control
control.send(sys.argv[2], control.Stage(mode=2, flags=1))' "$TMPDIR" "$MNT"
check "a job is under way" slow_wait_held
# For a while after the unmount, which is less than the grace that the end of a mount has.
(wait_for 4 not_mounted "$MNT" || true; timeout 1 tail -f /dev/null || true; slow_control "") >/dev/null 2>&1 &
own_process $!
unmount_fs && pass "the mount ends in the middle of it"
unmount_slow
done_testing
