#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: thread
# sanitized: default
# timeout: 200
#
# Listings of folders of a slow source that the kernel keeps: who lists a tree again does not wait for the source, what
# changes behind the mount shows within ttl all the same, at once after a sync, and nobody misses a name, or has one
# twice.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

new_dirs
for i in $(seq 20); do
    mkdir -p "$WORK/slow-under/d$i/empty"
    for j in 1 2 3; do echo x >"$WORK/slow-under/d$i/f$j"; done
done
mkdir "$WORK/slow-under"/{1,many}
(cd "$WORK/slow-under/many" && for i in $(seq 3000); do : >"a-name-that-is-not-short-$i"; done)
find "$WORK/slow-under" -exec touch -h -d '2 hours ago' {} +

# Walks through the tree until that took no more than so many ms, or for so many seconds; longer than ttl lies between
# two. The quickest, in ms.
cat >"$TMPDIR/walk.py" <<'PYTHON'
import os, sys, time

root, seconds, enough = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
begin, best = time.monotonic(), 1e9
while best > enough and time.monotonic() - begin < seconds:
    since = time.monotonic()
    for _ in os.walk(root):
        pass
    best = min(best, (time.monotonic() - since) * 1000)
    time.sleep(1.3)
print(int(best))
PYTHON
quickest() { timeout 90 python3 "$TMPDIR/walk.py" "$MNT" "$@"; } # SECONDS MS
names() { (cd "$1" && find . -printf '%p %y\n' | sort); }
same_names() { diff <(names "$WORK/slow-under") <(timeout 60 bash -c "$(declare -f names); names '$MNT'"); }
shows() { wait_for 20 same_names; }
prompt_ls() { timeout -k 1 10 ls -U "$MNT/$1"; }
listed() { prompt_ls "$1" | grep -qx "$2"; }
not_listed() { ! listed "$@"; }

# ---- how long it takes ----

mount_slow latency_us=2000,coarse,timeout=0 || done_testing
mount_fs lease=0,predict=none || done_testing
without=$(quickest 2 0)
unmount_fs
mount_fs predict=none || done_testing
with=$(quickest 30 $((without / 5)))
t_comment "the tree once: $without ms without leases, $with ms with them"
check "who lists a tree again and again does not wait for the source" test $((with * 4)) -lt "$without"
check "and finds what is there" same_names

# ---- changes behind the mount ----

echo x >"$WORK/slow-under/d1/new"
check "a file that was made" shows
rm "$WORK/slow-under/d2/f1"
check "one that was removed" shows
mv "$WORK/slow-under/d3/f1" "$WORK/slow-under/d4/other"
check "one that was moved" shows
rm "$WORK/slow-under/d5/f1" && mkdir "$WORK/slow-under/d5/f1"
check "one that became a folder" shows
rm -r "$WORK/slow-under/d6"
check "a folder that was removed" shows
echo x >"$WORK/slow-under/d7/empty/first"
check "a first file in an empty folder" shows
echo x >"$WORK/slow-under/1/2"
check "a folder whose name tells no case" shows
check "is listed" listed 1 2
echo x >"$WORK/slow-under/d8/quiet"
touch -d '2 hours ago' "$WORK/slow-under/d8"
check "a file, made without another time of its folder" shows

# Who holds a folder open, and reads it from the beginning again.
cat >"$TMPDIR/held.py" <<'PYTHON'
import os, sys, time

mounted, under = sys.argv[1], sys.argv[2]
fd = os.open(mounted, os.O_RDONLY)
for i in range(4):
    assert sorted(os.listdir(fd)) == sorted(os.listdir(under)), i
for kept in (False, True):
    name = under + "/held%d" % kept
    os.mkdir(name)
    if kept:  # no time tells
        os.utime(under, (1e9, 1e9))
    end = time.monotonic() + 20
    while os.path.basename(name) not in os.listdir(fd):
        assert time.monotonic() < end, name
        time.sleep(0.1)
PYTHON
check "who holds a folder open sees it, too" timeout 60 python3 "$TMPDIR/held.py" "$MNT/d9" "$WORK/slow-under/d9"

check "listed twice, and so kept" eval 'prompt_ls d10 >/dev/null && prompt_ls d10 >/dev/null'
echo x >"$WORK/slow-under/d10/synced"
check "a sync" ctl sync "$MNT"
check "after which it is there at once" listed d10 synced

# ---- changes through the mount ----

check "listed" listed d11 f1
check "made" touch "$MNT/d11/here"
check "is there" listed d11 here
check "removed" rm "$MNT/d11/here"
check "is gone" not_listed d11 here
check "renamed" mv "$MNT/d11/f1" "$MNT/d11/f0"
check "has the name" listed d11 f0
check "and not the other" not_listed d11 f1
check "all of it" same_names

# ---- a listing that is forgotten while it is read ----

cat >"$TMPDIR/middle.py" <<'PYTHON'
import os, subprocess, sys

ctl, mnt, under = sys.argv[1:]
want = sorted(os.listdir(under + "/many"))
for turn in range(3):
    assert sorted(os.listdir(mnt + "/many")) == want
    with os.scandir(mnt + "/many") as entries:
        got = [next(entries).name for _ in range(5)]
        subprocess.run([ctl, "sync", mnt], check=True)
        got += [e.name for e in entries]
    assert sorted(got) == want, (turn, len(got), len(want))
PYTHON
check "a listing that a sync takes from the kernel goes on" timeout 90 python3 "$TMPDIR/middle.py" \
    "$BUILD_DIR/client/stagectl" "$MNT" "$WORK/slow-under"

# Four that list a large folder while names in it come and go: each sees those that stay, once.
cat >"$TMPDIR/many.py" <<'PYTHON'
import os, sys, threading, time

mnt, under, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
stay = set(os.listdir(under + "/many"))
end = time.monotonic() + seconds
wrong = []

def lister():
    while time.monotonic() < end and not wrong:
        got = os.listdir(mnt + "/many")
        seen = set(got)
        if len(seen) != len(got):
            wrong.append("twice: %d" % (len(got) - len(seen)))
        if stay - seen:
            wrong.append("missing: %s" % sorted(stay - seen)[:3])

def change(folder):
    i = 0
    while time.monotonic() < end:
        i += 1
        path = "%s/many/zz-%d" % (folder, i % 50)
        if os.path.exists(path):
            os.unlink(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        time.sleep(0.03)

threads = [threading.Thread(target=lister) for _ in range(4)] + [threading.Thread(target=change, args=(under,))]
[t.start() for t in threads]
[t.join() for t in threads]
sys.exit("\n".join(wrong) or 0)
PYTHON
check "names that come and go behind: none that stays is missed, or seen twice" timeout 60 python3 \
    "$TMPDIR/many.py" "$MNT" "$WORK/slow-under" 4
check "and then all is as it is" shows

unmount_fs && pass "the mount ends"
unmount_slow
done_testing
