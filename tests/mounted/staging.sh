#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Staged copies of a slow source: what is fetched, how often, and what readers and writers see.
# variants: default uring-off
# sanitizers: address thread
# timeout: 300

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
# shellcheck source=tests/lib/slow-source.sh
. "$TOP/tests/lib/slow-source.sh"
# shellcheck source=tests/lib/control.sh
. "$TOP/tests/lib/control.sh"

stat_of() { control stats "$MNT" | field "$1"; }
state() { getfattr --only-values -n user.stagefs.state "$MNT/$1" 2>/dev/null; }
state_is() { [ "$(state "$1")" = "$2" ]; }
same_files() { cmp -s "$SLOW_UNDER/$1" "$MNT/$1"; }

# A source that answers at once would be taken for a local one.
start() { # [SLOW-OPTIONS]
    new_dirs
    mount_slow "latency_us=300${1:+,$1}"
}
finish() {
    unmount_fs && pass "$1: the mount ends cleanly"
    unmount_slow
}

# ---- one fetch ----

start
for name in one two three; do head -c 20000 /dev/urandom | base64 >"$SLOW_UNDER/$name"; done
: >"$SLOW_UNDER/empty"
head -c 3000000 /dev/urandom >"$SLOW_UNDER/large"
mount_fs settle=0,negative_timeout=0
check "a file is read right" same_files one
same "it was fetched with one open" 1 "$(slow_count open)"
check "and is right again" same_files one
check "and again" same_files one
same "without a further open" 1 "$(slow_count open)"
same "its state can be asked for" hot "$(state one)"
same "and the mode" prefetch "$(getfattr --only-values -n user.stagefs.mode "$MNT/one" 2>/dev/null)"
same "and what serves it" copy "$(getfattr --only-values -n user.stagefs.source "$MNT/one" 2>/dev/null)"
same "and the hits" 3 "$(getfattr --only-values -n user.stagefs.hits "$MNT/one" 2>/dev/null)"
check "an empty file is read right" same_files empty
same "and not staged" absent "$(state empty)"
check "a file above the threshold is read right" same_files large
cp /bin/true "$SLOW_UNDER/program"
ran_staged() { "$MNT/program" && state_is program hot; }
check "a program runs" "$MNT/program"
check "and from a copy, once it has come to rest" wait_for 30 ran_staged
cat >"$TMPDIR/rewritten.py" <<'PYTHON'
import os, sys, time
path = sys.argv[1]
for number in range(20):
    with open(path, "rb") as file: file.read()      # a copy, held for a moment more
    writer = os.open(path, os.O_WRONLY)
    os.ftruncate(writer, 0)
    os.stat(path)                                   # the mount looks at the source in between
    os.write(writer, b"content %d" % number)
    os.close(writer)
    end = time.monotonic() + 60
    served = False
    while not served:                               # until it is a copy that is read
        file = os.open(path, os.O_RDONLY)           # open() would look at the file, too
        got = os.read(file, 100)
        served = os.getxattr(path, "user.stagefs.source") == b"copy"
        os.close(file)
        assert got == b"content %d" % number, (number, got)
        assert time.monotonic() < end, "no copy is made"
PYTHON
check "what is looked at while it is written is read as it was written" python3 "$TMPDIR/rewritten.py" "$MNT/three"
same "nothing was fetched in vain" 0 "$(stat_of failed_fills)"
finish "one fetch"

# ---- many readers of one cold file ----

start
head -c 50000 /dev/urandom >"$SLOW_UNDER/cold"
mount_fs negative_timeout=0
stat "$MNT/cold" >/dev/null
before=$(slow_count open)
slow_control gate=READ
cat >"$TMPDIR/readers.py" <<'PYTHON'
import hashlib, sys, threading
path, want, results = sys.argv[1], sys.argv[2], []
def read():
    with open(path, "rb") as file:
        results.append(hashlib.sha256(file.read()).hexdigest() == want)
threads = [threading.Thread(target=read) for _ in range(100)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(0 if results == [True] * 100 else 1)
PYTHON
python3 "$TMPDIR/readers.py" "$MNT/cold" "$(sha256sum <"$SLOW_UNDER/cold" | cut -d' ' -f1)" &
readers=$!
own_process $readers
check "a fetch is under way" slow_wait_held
same "which is its state" filling "$(state cold)"
slow_control ""
check "a hundred readers of a cold file get it" wait "$readers"
same "by one open" $((before + 1)) "$(slow_count open)"

# ---- a change while it is fetched ----

head -c 50000 /dev/urandom >"$SLOW_UNDER/changing"
stat "$MNT/changing" >/dev/null
slow_control gate=READ
cat "$MNT/changing" >"$TMPDIR/got" &
reader=$!
own_process $reader
check "another fetch is under way" slow_wait_held
head -c 50000 /dev/urandom >"$SLOW_UNDER/newer"
cat "$SLOW_UNDER/newer" >"$SLOW_UNDER/changing"
slow_control ""
wait $reader
check "a file that changes while it is fetched is read right" cmp "$SLOW_UNDER/newer" "$TMPDIR/got"
check "and so it is afterwards" cmp "$SLOW_UNDER/newer" "$MNT/changing"
check "the fetch was not kept" test "$(stat_of changed_fills)" -gt 0

# ---- errors of the source ----

head -c 5000 /dev/urandom >"$SLOW_UNDER/failing"
stat "$MNT/failing" >/dev/null
slow_control fail=READ:EIO
same "an error in reading is the reader's" "cat: $MNT/failing: Input/output error" "$(cat "$MNT/failing" 2>&1 >/dev/null)"
slow_control fail=OPEN:EACCES
same "an error in opening is the opener's" "cat: $MNT/failing: Permission denied" "$(cat "$MNT/failing" 2>&1 >/dev/null)"
slow_control ""
check "and is over with its cause" same_files failing
finish "many readers"

# ---- changes behind the mount ----

start timeout=0
seq 1 1000 >"$SLOW_UNDER/file"
mount_fs negative_timeout=0,attr_timeout=0,entry_timeout=0
check "before the change" same_files file
file_staged() { cat "$MNT/file" >/dev/null && state_is file hot; }
check "it is staged" wait_for 30 file_staged
seq 1 2000 >"$SLOW_UNDER/file"
check "the next open sees a change behind the mount" same_files file
exec 8<"$MNT/file"
seq 5 3000 >"$SLOW_UNDER/file"
stat "/proc/self/fd/8" >/dev/null
stat "$MNT/file" >/dev/null
same "who has it open sees it after a look" "$(sha256sum <"$SLOW_UNDER/file")" "$(sha256sum <&8)"
exec 8<&-
check "and so does the next" same_files file
mv "$SLOW_UNDER/file" "$SLOW_UNDER/file.old"
seq 7 70 >"$SLOW_UNDER/file"
check "a file replaced by rename" same_files file

# ---- writers through the mount ----

printf 'first\nsecond\n' >"$SLOW_UNDER/shared"
touch -d 2001-02-03 "$SLOW_UNDER/shared"
read_staged() { cat "$MNT/$1" >/dev/null && state_is "$1" hot; }
check "it is staged before" wait_for 30 read_staged shared
exec 8<"$MNT/shared"
read -r _ <&8
echo third >>"$MNT/shared"
same "a reader of the copy sees what is appended" "second third" "$(tr '\n' ' ' <&8 | sed 's/ $//')"
same "as the source has it" "first second third" "$(tr '\n' ' ' <"$SLOW_UNDER/shared" | sed 's/ $//')"
printf 'SECOND' | dd of="$MNT/shared" bs=1 seek=6 conv=notrunc status=none
same "a part overwritten" "first SECOND third" "$(tr '\n' ' ' <"/proc/self/fd/8" | sed 's/ $//')"
truncate -s 3 "$MNT/shared"
same "truncated" fir "$(cat /proc/self/fd/8)"
: >"$MNT/shared"
same "emptied by O_TRUNC" "" "$(cat /proc/self/fd/8)"
same "and in the source" "" "$(cat "$SLOW_UNDER/shared")"
exec 8<&-
seq 1 100 >"$MNT/shared"
check "written anew" same_files shared

cat >"$TMPDIR/mapped.py" <<'PYTHON'
import mmap, os, sys, time
path, under = sys.argv[1:]
size = 20000
with open(under, "wb") as file: file.write(b"." * size)
os.utime(under, (10, 10))
def open_copy():
    """A reader whose file is the copy, and that is as the source."""
    end = time.monotonic() + 60
    while True:
        file = open(path, "rb", buffering=0)
        if os.getxattr(path, "user.stagefs.source") == b"copy" and file.read() == open(under, "rb").read():
            return file
        file.close()
        assert time.monotonic() < end, "no copy of it is made"
        time.sleep(0.01)
reader = open_copy()
seen = mmap.mmap(reader.fileno(), size, prot=mmap.PROT_READ)
writer = os.open(path, os.O_RDWR)
stores = mmap.mmap(writer, size)
stores[5:10] = b"store"
assert seen[5:10] == b"store", "another mapping does not see it"
assert os.pread(reader.fileno(), 5, 5) == b"store", "a read does not see it"
assert os.pread(writer, 5, 5) == b"store", "the writer's read does not see it"
os.fsync(writer)
assert open(under, "rb").read()[5:10] == b"store", "fsync did not carry it"
stores[100:105] = b"later"
os.close(writer)
def carried(at, want):
    end = time.monotonic() + 60
    while open(under, "rb").read()[at:at + len(want)] != want:
        assert time.monotonic() < end, want
        time.sleep(0.01)
carried(100, b"later")
stores[200:205] = b"after"          # the handle is closed, the mapping is not
carried(200, b"after")
with open(under, "r+b") as file:    # somebody else's change is not undone
    file.seek(300); file.write(b"other")
stores[400:405] = b"mine."
carried(400, b"mine.")
assert open(under, "rb").read()[300:305] == b"other", "a change behind the mount was undone"
stores.close()
seen.close(); reader.close()
first = open_copy()
second = os.open(path, os.O_RDWR)
mmap.mmap(second, size).close()
os.close(second); first.close()
# Written again before the mount has forgotten the first time: the old shadow says nothing now.
with open(under, "r+b") as file:
    file.seek(500); file.write(b"b" * 10)
again = open_copy()
second = os.open(path, os.O_RDWR)
stores = mmap.mmap(second, size)
stores[500:510] = b"." * 10          # what the first shadow had
os.fsync(second)
assert open(under, "rb").read()[500:510] == b"." * 10, "a store was lost"
stores.close(); os.close(second); again.close()
# O_APPEND taken off.
again = open_copy()
second = os.open(path, os.O_RDWR | os.O_APPEND)
import fcntl
fcntl.fcntl(second, fcntl.F_SETFL, 0)
os.pwrite(second, b"XX", 0)
assert open(under, "rb").read()[:2] == b"XX" and os.path.getsize(under) == size, "it went to the end"
# A byte far away takes no memory of the daemon, and a reader of the source's part sees it.
os.pwrite(second, b"far", 600 << 20)
assert os.pread(second, 3, 600 << 20) == b"far"
assert os.stat(under).st_size == (600 << 20) + 3
os.ftruncate(second, size)
os.close(second); again.close()
content = open(under, "rb").read()
end = time.monotonic() + 60
while open(path, "rb").read() != content:
    assert time.monotonic() < end, "it is not read as it is"
    time.sleep(0.01)
PYTHON
check "stores through a mapping reach the source" python3 "$TMPDIR/mapped.py" "$MNT/mapped" "$SLOW_UNDER/mapped"
resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$DAEMON/status"; }
[ "$SANITIZER" != none ] || check "in little memory" test "$(resident)" -lt 100000
cp "$SLOW_UNDER/file.old" "$SLOW_UNDER/gone" && touch -d 2001-02-03 "$SLOW_UNDER/gone"
check "a file is staged" wait_for 30 read_staged gone
before=$(stat_of hot_bytes)
rm "$MNT/gone"
less() { [ "$(stat_of hot_bytes)" -lt "$before" ]; }
check "the copy of a deleted file goes" wait_for 30 less
finish "changes"

# ---- budgets ----

start
mkdir "$SLOW_UNDER/many"
for i in $(seq 300); do seq "$i" $((i + 4000)) >"$SLOW_UNDER/many/$i"; done
mount_fs negative_timeout=0,mem=2M,cold=2M
parallel_read() { seq 300 | xargs -P 16 -I{} cmp "$SLOW_UNDER/many/{}" "$MNT/many/{}"; }
check "a storm of readers over a small budget" parallel_read
check "and again" parallel_read
within() { [ "$(stat_of hot_peak_bytes)" -le 2097152 ] && [ "$(stat_of cold_peak_bytes)" -le 2097152 ]; }
check "the budgets held" within
packed() { [ "$(stat_of packed)" -gt 0 ] && [ "$(stat_of cold_hits)" -gt 0 ] && [ "$(stat_of evicted)" -gt 0 ]; }
check "copies went cold, came back, and went" packed
control stats "$MNT" | t_comment
same "none was damaged" 0 "$(stat_of corrupt)"
check "the limits can be changed" control config "$MNT" mem=400000 cold=100000
low() { [ "$(stat_of hot_bytes)" -le 400000 ] && [ "$(stat_of cold_bytes)" -le 100000 ]; }
check "and hold at once" wait_for 30 low
check "reading goes on" parallel_read
finish "budgets"

# ---- a local source ----

new_dirs
head -c 1000000 /dev/urandom >"$SRC/warm"
head -c 1000000 /dev/urandom >"$SRC/cold"
head -c 4000000 /dev/urandom >"$SRC/large"
sync "$SRC/cold" "$SRC/large"
mount_fs settle=0,readahead=4M
read_ahead() { cat "/sys/class/bdi/$(mountpoint -d "$MNT")/read_ahead_kb"; }
reads_ahead() { [ "$(read_ahead)" = "$1" ]; }
check "the mount reads ahead as it was told" wait_for 20 reads_ahead 4096
why() { control query "$MNT" "$1" | field why; }
for name in cold large; do dd if="$SRC/$name" iflag=nocache count=0 status=none; done
check "a file that is in the page cache is read right" cmp "$SRC/warm" "$MNT/warm"
same "and left there" "it is in the page cache already" "$(why warm)"
same "without a hint" 0 "$(stat_of advised)"
cat "$MNT/cold" >/dev/null
same "a file that is not is read ahead of" "a local source reads ahead, a copy would not pay" "$(why cold)"
same "by a hint" 1 "$(stat_of advised)"
cat "$MNT/large" >/dev/null
same "a large one is served by the source's own pages" "1 the source's own pages serve it" \
    "$(stat_of mmap_opens) $(why large)"
check "and right" cmp "$SRC/large" "$MNT/large"
unmount_fs && pass "local: the mount ends cleanly"
mount_fs readahead=16K
check "less than the kernel's own is had, too" wait_for 20 reads_ahead 16
unmount_fs && pass "less: the mount ends cleanly"

# ---- by range ----

start timeout=0
head -c 5000000 /dev/urandom >"$SLOW_UNDER/large"
truncate -s 2G "$SLOW_UNDER/huge"
for i in 1 5 9 200 1000 2000; do printf "mark $i" | dd of="$SLOW_UNDER/huge" bs=1M seek=$i conv=notrunc status=none; done
mount_fs negative_timeout=0,mem=8M,cold=0,settle=0,attr_timeout=0,entry_timeout=0
check "a large file is read right" same_files large
same "it is staged by range" mmap "$(getfattr --only-values -n user.stagefs.mode "$MNT/large" 2>/dev/null)"
same "which is there" hot "$(state large)"
at_rest() { before=$(slow_count read) && [ "$(stat_of queued)" = 0 ] && [ "$(slow_count read)" = "$before" ]; }
check "what is read ahead comes in" wait_for 30 at_rest
check "and again" same_files large
check "from what was staged, or the page cache" test "$(slow_count read)" = "$before"
cat >"$TMPDIR/ranges.py" <<'PYTHON'
import mmap, os, random, sys
path, under, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(seed)
with open(path, "rb") as file, open(under, "rb") as plain:
    size = os.fstat(plain.fileno()).st_size
    assert os.fstat(file.fileno()).st_size == size
    mapped = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    for _ in range(400):
        at = random.choice((random.randrange(size), random.randrange(2010) << 20, size - random.randrange(9000)))
        at = min(at, size - 1)
        count = random.choice((1, 7, 4096, 70000, 600000))
        want = os.pread(plain.fileno(), count, at)
        assert os.pread(file.fileno(), count, at) == want, (at, count)
        assert mapped[at:at + len(want)] == want, (at, count)
    assert os.pread(file.fileno(), 10, size) == b""
PYTHON
check "any part of it, by read and by mapping" python3 "$TMPDIR/ranges.py" "$MNT/large" "$SLOW_UNDER/large" 1
check "any part of 2 GiB" python3 "$TMPDIR/ranges.py" "$MNT/huge" "$SLOW_UNDER/huge" 2
same "what was read by range is counted so" yes "$(control stats "$MNT" | python3 -c '
import json, sys
stats = json.load(sys.stdin)
print("yes" if 0 < stats["range_misses"] <= stats["misses"] and 0 < stats["hot_range_hits"] <= stats["hot_hits"] else stats)')"
check "within the budget" test "$(stat_of hot_peak_bytes)" -le 8388608
[ "$SANITIZER" != none ] || check "and in little memory" test "$(resident)" -lt 100000
printf 'changed' | dd of="$SLOW_UNDER/large" bs=1M seek=2 conv=notrunc status=none
check "a change behind the mount is seen by the next open" same_files large
printf 'written' | dd of="$MNT/large" bs=1M seek=3 conv=notrunc status=none
check "a change through the mount is" same_files large
exec 8<"$MNT/large"
head -c 100 <&8 >/dev/null
printf 'at once' | dd of="$MNT/large" bs=1M seek=4 conv=notrunc status=none
same "by who has it open, too" "at once" "$(dd if=/proc/self/fd/8 bs=1M skip=4 count=1 status=none | head -c 7)"
exec 8<&-
check "and by the next open" same_files large
truncate -s 1000000 "$MNT/large"
check "a shorter file" same_files large
slow_control fail=READ:EIO
head -c 3000000 /dev/urandom >"$SLOW_UNDER/broken"
check_fails "an error of the source is the reader's" cat "$MNT/broken"
slow_control ""
check "and is over with its cause" same_files broken
same "a file above the threshold is fetched whole on request" 1 "$(control stage "$MNT" large --mode=prefetch | field "done")"
before=$(slow_count read)
check "it is right" same_files large
check "and served from the copy" test "$(slow_count read)" = "$before"
finish "ranges"

# ---- a part of a file, before the source has said that the file did not change meanwhile ----

start timeout=60
head -c 3000000 /dev/urandom >"$SLOW_UNDER/hasty"
mount_fs negative_timeout=0,settle=0,attr_timeout=60,entry_timeout=60
cat >"$TMPDIR/hasty.py" <<'PYTHON'
import os, subprocess, sys
path, under, hold, held = sys.argv[1:]
file = os.open(path, os.O_RDONLY)
subprocess.run(hold, shell=True, check=True)    # what the source is asked whether the file changed, it does not answer
reader = os.fork()
if not reader:
    want = open(under, "rb").read()[1 << 20:][:4096]
    os._exit(0 if os.pread(file, 4096, 1 << 20) == want else 1)
status = os.waitpid(reader, 0)[1]
subprocess.run(held, shell=True, check=True)    # and was asked
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON
stat "$MNT/hasty" >/dev/null
hold="printf '%s' gate=GETATTR >'$SLOW_CONTROL'; rm -f '$SLOW_STATS'; kill -HUP $SLOW_PID; until [ -s '$SLOW_STATS' ]; do :; done"
held="until grep -q '\"at_gate\": [1-9]' '$SLOW_STATS'; do kill -USR1 $SLOW_PID; done"
check "a part is there before the source has said that it did not change" timeout 60 python3 "$TMPDIR/hasty.py" \
    "$MNT/hasty" "$SLOW_UNDER/hasty" "$hold" "$held"
slow_control "" # whatever came of it: who waits at the gate cannot be killed
check "and what else is in the file" same_files hasty
finish "hasty"

# ---- an ordinary user: no passthrough, so everything is staged by range ----

test_user
start
chmod 755 "$WORK" "$TMPDIR"
mkdir "$SLOW_UNDER/many"
for i in $(seq 50); do seq "$i" $((i + 4000)) >"$SLOW_UNDER/many/$i"; done
head -c 3000000 /dev/urandom >"$SLOW_UNDER/large"
chown -R "$TUSER" "$SLOW_UNDER" "$MNT"
user_binary
new_log
setpriv --reuid "$TUID" --regid "$TGID" --init-groups "${T_WRAP[@]}" "$USER_STAGEFS" "$SRC" "$MNT" -f \
    -o settle=0,uring=off </dev/null >>"$LOG" 2>&1 &
DAEMON=$!
own_process "$DAEMON"
as_him() { as_user "$@"; }
check "an ordinary user mounts a slow source" wait_for 60 is_mounted "$MNT"
copies_agree() { as_him diff -r "$SLOW_UNDER" "$MNT"; }
check "it is read right" copies_agree
quiet() { before=$(slow_count read) && wait_for 5 sleep 0.2 && [ "$(slow_count read)" = "$before" ]; }
check "and what is read ahead comes in" wait_for 30 quiet
check "and again" copies_agree
check "from memory" test "$(slow_count read)" = "$before"
# shellcheck disable=SC2016
check "what he writes" as_him sh -c 'seq 5 >"$1/many/1" && cmp "$1/many/1" "$2/many/1"' - "$MNT" "$SLOW_UNDER"
check "is there" copies_agree
check "his mount ends" wait_for 30 t_umount
wait_daemon_end && pass "and cleanly"
unmount_slow

for options in mem=0 cold=0 compress=none stage=none threshold=0; do
    start
    mkdir "$SLOW_UNDER/many"
    for i in $(seq 20); do seq "$i" $((i + 4000)) >"$SLOW_UNDER/many/$i"; done
    mount_fs "negative_timeout=0,$options"
    parallel_read() { seq 20 | xargs -P 4 -I{} cmp "$SLOW_UNDER/many/{}" "$MNT/many/{}"; }
    check "$options: reading works" parallel_read
    check "$options: and again" parallel_read
    finish "$options"
done

done_testing
