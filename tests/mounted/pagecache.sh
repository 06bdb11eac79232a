#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default uring-off
# sanitizers: address thread
# timeout: 240
#
# serve=pagecache: what the kernel does without asking, counted in requests; every operation without a handle; and
# what ends it cleanly.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"

CTL=$BUILD_DIR/client/stagectl
# Over /dev/fuse each request is a read and a write of the daemon's.
daemon_calls() { awk '/^syscr|^syscw/ { n += $2 } END { print n }' "/proc/$DAEMON/io"; }
calls_of() { # CMD...: reads and writes of the daemon while it runs; 0: it was not asked for anything
    local before
    before=$(daemon_calls)
    "$@" >/dev/null 2>&1 || true
    echo $(($(daemon_calls) - before))
}
few() { [ "$1" -le "$2" ] || { echo "$1" && false; }; }
# The kernel may take pages and names back at any time, also where memory is free: what is asked for each time counts.
asks_few() { # LIMIT CMD...
    local limit=$1 calls
    shift
    for _ in 1 2 3 4 5; do
        calls=$(calls_of "$@")
        [ "$calls" -gt "$limit" ] || return 0
    done
    echo "$calls" && false
}

make_code() { # DIR: a program of many headers, and a search path in which most lookups fail
    local i
    mkdir -p "$1"
    for i in $(seq 20); do mkdir "$1/inc$i"; done
    for i in $(seq 40); do
        printf '#ifndef H%d\n#define H%d\nint value%d;\n#endif\n' "$i" "$i" "$i" >"$1/inc20/h$i.h"
        printf '#include <h%d.h>\n' "$i"
    done >"$1/main.c"
    printf 'int main(void) { return value40; }\n' >>"$1/main.c"
}
compile() { # ROOT
    local flags=() i
    for i in $(seq 20); do flags+=("-I$1/inc$i"); done
    cc -fsyntax-only "${flags[@]}" "$1/main.c"
}

# ---- no requests ----

new_dirs
check "a file system of its own, whose events are only ours" mount -t tmpfs none "$SRC"
make_code "$SRC/code"
head -c 300000 /dev/urandom >"$SRC/data"
mount_fs serve=pagecache,stage=none,uring=off || done_testing
same "the statistics say how it is served" pagecache "$(stat_of serve)"
check "and why" grep -q "serve=pagecache was asked for" <(stat_of serve_why)
same "and how changes are noticed" watch "$(stat_of coherence)"
check "a compile" compile "$MNT/code"
check "find" find "$MNT" -type f
check "what is read is the source's" diff -r "$SRC" "$MNT"
check "a second compile, which brings what the first left" compile "$MNT/code"
check "find again" find "$MNT" -type f
check "and reading" cat "$MNT/data"
# The daemon is idle but for its own threads, which do not read or write.
check "a hot compile, of 800 lookups that fail, asks nothing" asks_few 0 compile "$MNT/code"
check "a hot find asks for no more than the statfs(2) that it begins with" asks_few 2 find "$MNT" -type f
check "hot reading asks nothing" asks_few 0 cat "$MNT/data"
check "a failing lookup asks once" few "$(calls_of stat "$MNT/code/absent")" 4
check "and nothing the second time" asks_few 0 stat "$MNT/code/absent"
unmount_fs && pass "the mount ends cleanly"

# ---- staged before the first read ----

# A page may be taken back before that, too: then another mount is tried.
for _ in 1 2 3 4 5; do
    mount_fs serve=pagecache,stage=adaptive,uring=off || done_testing
    staged=no
    "$CTL" stage -r "$MNT/code" </dev/null >/dev/null && staged=yes
    asked=$(calls_of cat "$MNT/code/inc20/h1.h" "$MNT/code/main.c")
    unmount_fs
    [ "$asked" -gt 0 ] || break
done
same "stagectl stage" yes "$staged"
same "the first read of what was staged asks nothing" 0 "$asked"

umount "$SRC"

# ---- one copy of a large file ----

new_dirs
head -c 8M /dev/urandom >"$SRC/ours"
cp "$SRC/ours" "$SRC/theirs"
cat >"$TMPDIR/pages.py" <<'PYTHON'
import mmap, os, sys
for path in sys.argv[2:]:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    if sys.argv[1] == "drop":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    elif sys.argv[1] == "uncached":
        os.preadv(fd, [bytearray(4096)], 0, 0x80)
PYTHON
pages() { fincore -b -n -o RES "$SRC/$1" | tr -d ' '; }
if python3 "$TMPDIR/pages.py" uncached "$SRC/ours" 2>/dev/null; then
    python3 "$TMPDIR/pages.py" drop "$SRC/ours" "$SRC/theirs"
    cat "$SRC/theirs" >/dev/null
    mount_fs serve=pagecache || done_testing
    check "two large files are read" cmp "$MNT/ours" "$MNT/theirs"
    check "the source's pages of the one do not stay beside the mount's" few "$(pages ours)" $((2 << 20))
    # All but what the kernel itself has taken back since they were read: clean pages that were read once are first.
    check "those that were there before do" few $((6 << 20)) "$(pages theirs)"
    unmount_fs
else
    skip "the source's pages of large files do not stay" "the source has no RWF_DONTCACHE (Linux 6.14)"
fi

# ---- every operation without a handle ----

new_dirs
mount_fs serve=pagecache || done_testing
cat >"$TMPDIR/ops.py" <<'PYTHON'
import errno, fcntl, mmap, os, sys, threading
root, source = sys.argv[1:]
path = os.path.join(root, "file")
def real(name="file"):
    with open(os.path.join(source, name), "rb") as f:
        return f.read()
with open(os.path.join(source, "file"), "wb") as f:
    f.write(b"0123456789" * 1000)
fd = os.open(path, os.O_RDWR)
assert os.pread(fd, 10, 0) == b"0123456789"
assert os.pwrite(fd, b"abc", 5) == 3 and real()[:10] == b"01234abc89"
os.fsync(fd); os.fdatasync(fd)
os.ftruncate(fd, 20); assert len(real()) == 20
os.posix_fallocate(fd, 0, 8192); assert len(real()) == 8192
os.ftruncate(fd, 1 << 20); os.pwrite(fd, b"x", (1 << 20) - 1)
assert os.lseek(fd, 0, os.SEEK_HOLE) >= 0
other = os.open(os.path.join(root, "other"), os.O_RDWR | os.O_CREAT)
assert os.copy_file_range(fd, other, 4096, 0, 0) == 4096
assert real("other") == real()[:4096]
os.unlink(path)                                   # open, and without a name
assert os.pread(fd, 3, 5) == b"abc" and os.pwrite(fd, b"still", 0) == 5 and os.pread(fd, 5, 0) == b"still"
assert os.fstat(fd).st_nlink == 0
os.ftruncate(fd, 5); assert os.fstat(fd).st_size == 5
os.close(fd)
# O_TRUNC and O_APPEND
with open(os.path.join(root, "log"), "wb") as f:
    f.write(b"old content")
with open(os.path.join(root, "log"), "wb") as f:
    pass
assert real("log") == b""
def append(n):
    fd = os.open(os.path.join(root, "log"), os.O_WRONLY | os.O_APPEND)
    for i in range(50):
        os.write(fd, b"%d:%02d\n" % (n, i))
    os.close(fd)
threads = [threading.Thread(target=append, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
lines = real("log").splitlines()
assert len(lines) == 200 and len(set(lines)) == 200, len(set(lines))
with open(os.path.join(root, "log"), "rb") as f:
    assert f.read() == real("log")
# appended behind and in front
with open(os.path.join(source, "log"), "ab") as f:
    f.write(b"behind\n")
fd = os.open(os.path.join(root, "log"), os.O_WRONLY | os.O_APPEND)
os.write(fd, b"in front\n")
assert real("log").endswith(b"behind\nin front\n")
# permission changed after the open
with open(os.path.join(root, "private"), "wb") as f:
    f.write(b"secret")
fd = os.open(os.path.join(root, "private"), os.O_RDWR)
os.chmod(os.path.join(root, "private"), 0)
assert os.pread(fd, 6, 0) == b"secret" and os.pwrite(fd, b"SECRET", 0) == 6
os.close(fd)
# a mapping that is shared and written back
with open(os.path.join(root, "mapped"), "wb") as f:
    f.write(b"m" * 8192)
fd = os.open(os.path.join(root, "mapped"), os.O_RDWR)
mapping = mmap.mmap(fd, 8192)
mapping[0:5] = b"store"
mapping.flush()
assert real("mapped")[:5] == b"store"
assert os.pread(fd, 5, 0) == b"store"
os.pwrite(fd, b"write", 4096)
assert mapping[4096:4101] == b"write"
mapping.close(); os.close(fd)
assert real("mapped")[:5] == b"store"
# locks
a = os.open(os.path.join(root, "mapped"), os.O_RDWR); b = os.open(os.path.join(root, "mapped"), os.O_RDWR)
fcntl.flock(a, fcntl.LOCK_EX)
try:
    fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    raise SystemExit("two locks")
except OSError as e:
    assert e.errno == errno.EWOULDBLOCK
# a folder that is listed while it changes
os.mkdir(os.path.join(root, "many"))
for i in range(3000):
    os.close(os.open(os.path.join(root, "many", f"a-name-of-some-length-{i}"), os.O_CREAT | os.O_WRONLY))
names = os.listdir(os.path.join(root, "many"))
assert len(names) == 3000 == len(set(names)), len(names)
seen = 0
with os.scandir(os.path.join(root, "many")) as entries:
    for entry in entries:
        os.unlink(entry.path); seen += 1
assert seen == 3000 and os.listdir(os.path.join(source, "many")) == [], seen
os.rmdir(os.path.join(root, "many"))
PYTHON
check "every operation works without a handle" python3 "$TMPDIR/ops.py" "$MNT" "$SRC"
# Nobody tells of the release of a file that was created; those with O_PATH are the cache's, which is bounded.
open_files() {
    cat "/proc/$DAEMON/fdinfo/"* | awk '$1 == "flags:" && $2 !~ /1[0-7][0-7][0-7][0-7][0-7][0-7][0-7]$/ { n++ } END { print n }'
}
check "and none is left open in the daemon" few "$(open_files)" 60
unmount_fs && pass "that mount ends cleanly, too"

# ---- what a write takes away ----

if have setpriv; then
    new_dirs
    printf 'set-id' >"$SRC/file"
    chown 4321:4321 "$SRC/file"
    chmod 4777 "$SRC/file"
    mount_fs serve=pagecache,allow_other,suid || done_testing
    # shellcheck disable=SC2016
    check "who does not own a set-id file writes to it" setpriv --reuid 1234 --regid 1234 --clear-groups \
        sh -c 'echo more >>"$1"' - "$MNT/file"
    same "and the bit is gone" 777 "$(stat -c %a "$SRC/file")"
    unmount_fs
fi

# ---- ends ----

# What was stored through a mapping that is still there is written before a signal ends the mount.
new_dirs
mount_fs serve=pagecache || done_testing
cat >"$TMPDIR/store.py" <<'PYTHON'
import mmap, os, sys, time
with open(sys.argv[1], "wb") as f:
    f.write(bytes(8192))
fd = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(fd, 8192)
mapping[0:6] = b"stored"
print("ready", flush=True)
time.sleep(600)
PYTHON
coproc STORE { exec python3 "$TMPDIR/store.py" "$MNT/mapped"; }
store_pid=$STORE_PID
own_process "$store_pid"
read -r word <&"${STORE[0]}"
same "a program stores through a mapping" ready "$word"
kill -TERM "$DAEMON"
wait_daemon_end && pass "SIGTERM ends the mount"
same "and what was stored is there" stored "$(head -c 6 "$SRC/mapped")"
kill "$store_pid" 2>/dev/null || true
wait_for 10 not_mounted "$MNT"

# A READ that the source does not answer, and a change of the same file: the watcher waits in the kernel.
new_dirs
echo content >"$SRC/file"
mount_fs serve=pagecache || done_testing
check "the file is read" cat "$MNT/file"
for i in $(seq 200); do
    echo "$i" >"$SRC/file"
    cat "$MNT/file" >/dev/null
done &
own_process $!
kill -TERM "$DAEMON"
wait_daemon_end && pass "SIGTERM ends it while files change and are read"
wait_for 10 not_mounted "$MNT"
done_testing
