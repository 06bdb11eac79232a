#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# sanitized: default
# timeout: 300
#
# A tree that does not change is answered from what an earlier mount has kept of its folders: all that can be asked, as
# it is at the source, and without asking it; and not once it is known to be another.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"
. "$TOP/tests/lib/disk.sh"

have_slowfs || skip_all "slowfs is not built"

written() { is_disk folders_written "$1" && is_disk queued_bytes 0; }
asked_of() { # CMD...: requests that reach the source meanwhile
    local before after
    before=$(requests)
    "$@" >/dev/null || return 1
    after=$(requests)
    [ "$before" = "$after" ] || { echo "$before" && echo "$after" && return 1; }
}
requests() {
    slow_stats | python3 -c '
import json, sys
stats = json.load(sys.stdin)
print({name: stats.get(name, 0)
       for name in ("lookup", "getattr", "open", "read", "opendir", "readdir", "readdirplus", "readlink", "getxattr",
                    "listxattr")})'
}
# All that find(1) can tell but numbers, which the source gives anew with each mount; of folders not their size.
tell() { (cd "$1" && find . \( -type d -printf '%p %y %m %u %g %n %T@ %C@\n' \) -o -printf '%p %y %m %u %g %n %s %b %T@ %C@ %l\n' | sort); }
numbers() { (cd "$MNT" && find . -mindepth 1 -printf '%p %i\n' | sort); }
sums() { (cd "$1" && find . -type f -exec sha256sum {} + | sort -k 2); }
same_tree() { diff <(tell "$under") <(tell "$MNT") && diff <(sums "$under") <(sums "$MNT"); }
same_names() { diff <(cd "$under" && find . | sort) <(cd "$MNT" && find . | sort); }
absent() { local name && for name in "$@"; do [ ! -e "$MNT/$name" ] || { echo "$name" && return 1; }; done; }
all_absent() { absent none sub/none sub/.gitignore sub/deep/none.h empty/none plain/none; }
reads() { [ "$(cat "$MNT/$1")" = "$2" ] || { cat "$MNT/$1" && false; }; } # FILE TEXT
everything() { same_tree && all_absent && same_names; }

make_tree() {
    mkdir -p "$under"/{sub/deep/deeper,empty,plain,many}
    for i in $(seq 300); do echo "$i" >"$under/many/file$i"; done
    for name in a b c; do echo "int $name;" >"$under/sub/$name.c"; done
    echo deep >"$under/sub/deep/deeper/file"
    echo unread >"$under/sub/deep/unread"
    echo umlaut >"$under/plain/$(printf 'uml\303\244ut')"
    echo 1 >"$under/plain/1"
    printf '#!/bin/sh\necho ran\n' >"$under/plain/run"
    chmod 751 "$under/plain/run"
    chmod 700 "$under/empty"
    chown 1234:4321 "$under/plain/1"
    ln -s ../sub/a.c "$under/plain/link"
    ln -s nowhere "$under/plain/dangling"
    mkfifo "$under/plain/fifo"
    find "$under" -exec touch -h -d '2 hours ago' {} +
}
folders() { find "$under" -type d | wc -l; }

new_dirs
under=$WORK/slow-under
stage=$WORK/stage
mkdir -p "$under"
make_tree
mount_slow latency_us=300
options=ro,coherence=frozen,stage_dir=$stage,predict=none

# ---- kept, and answered from ----
mount_fs "$options" || done_testing
check "the first mount looks at the source" everything
check "each folder is kept" wait_for 20 written "$(folders)"
unmount_fs && pass "the mount ends cleanly"
check "in order" ctl doctor "$stage"

mount_fs "$options" || done_testing
check "the next one does not ask it" asked_of everything
check "and is the same" everything
same "all folders are taken" "$(folders)" "$(disk folders_taken)"
same "a program runs from there" ran "$("$MNT/plain/run")"
same "a link is followed" "int a;" "$(cat "$MNT/plain/link")"
check_fails "what is read-only stays so" touch "$MNT/sub/a.c"
first=$(numbers)
slow_control 'fail=LOOKUP:EIO fail=GETATTR:EIO fail=OPEN:EIO fail=READDIR:EIO'
echo 3 >/proc/sys/vm/drop_caches
check "the source may fail" everything
slow_control ''
unmount_fs
mount_fs "$options" || done_testing
same "numbers are the same in each mount" "$first" "$(numbers)"
unmount_fs

# ---- another tree ----
echo "int A, a;" >"$under/sub/a.c"
mount_fs "$options" || done_testing
same "what cannot be known is as it was: nothing changes in such a tree" "int a;" "$(cat "$MNT/sub/a.c")"
check "a sync looks" ctl sync "$MNT"
check "and all is as it is now" everything
unmount_fs
mount_fs "$options" || done_testing
check "in the next mount, too" everything
check "which keeps the folders anew" wait_for 20 written "$(folders)"
unmount_fs

echo "int B, b;" >"$under/sub/b.c"
echo top >"$under/top"
mount_fs "$options" || done_testing
check "another file at the top: all is looked at" everything
check "and kept anew" wait_for 20 written "$(folders)"
unmount_fs
mount_fs "$options" || done_testing
check "for the next mount" asked_of everything
unmount_fs

# What was never read, and so has no copy, has another content when it is.
rm -rf "$stage"
mount_fs "$options" || done_testing
check "a tree of which only the folders are kept" same_names
check "is kept" wait_for 20 written "$(folders)"
unmount_fs
echo "another unread" >"$under/sub/deep/unread"
source_shows() { [ "$(cat "$SRC/sub/deep/unread")" = "another unread" ]; } # which has a cache of its own
check "the source has another content" wait_for 20 source_shows
mount_fs "$options" || done_testing
cat "$MNT/sub/deep/unread" >/dev/null 2>&1 || true # an error at most, and never the new content with the old size
check "what is another is found when it is read" wait_for 20 reads sub/deep/unread "another unread"
check "and all is as it is now" wait_for 20 everything
unmount_fs

# ---- a mount that may change it ----
mount_fs "$options" || done_testing
check "all once more" everything
check "is kept" wait_for 20 written "$(folders)"
unmount_fs
mount_fs "coherence=frozen,stage_dir=$stage,predict=none" || done_testing
check "one that may write asks the source" everything
echo "int C, c;" >"$MNT/sub/c.c"
rm "$MNT/many/file7"
unmount_fs
mount_fs "$options" || done_testing
check "and what it has changed shows" everything
check "kept" wait_for 20 written "$(folders)"
unmount_fs
mount_fs "ro,stage_dir=$stage,predict=none" || done_testing
check "one that looks" everything
unmount_fs
mount_fs "$options" || done_testing
same "forgets what was kept" 0 "$(disk folders_taken)"
check "all is as it is" everything

# ---- the daemon is killed ----
wait_for 20 written "$(folders)" || true
kill -KILL "$DAEMON"
wait "$DAEMON" || true
t_forget_process "$DAEMON"
umount "$MNT"
check "in order after that" ctl doctor "$stage"
mount_fs "$options" || done_testing
check "all is there" asked_of everything

# ---- something else is mounted below ----
unmount_fs
mount -t tmpfs catalog "$SRC/empty"
echo other >"$SRC/empty/other"
mount_fs "$options" || done_testing
check "what is mounted below shows" reads empty/other other
same "and the catalog is not used" 0 "$(disk folders_taken)"
unmount_fs
umount "$SRC/empty"
mount_fs "$options" || done_testing
check "nor forgotten for that" asked_of everything

# ---- what is open lives through a sync ----
cat >"$TMPDIR/rewinds.py" <<'PYTHON'
import ctypes, sys

libc = ctypes.CDLL(None, use_errno=True)
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("len", ctypes.c_uint16), ("type", ctypes.c_uint8),
                ("name", ctypes.c_char * 256)]
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.readdir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
stream = libc.opendir(sys.argv[1].encode())
for line in sys.stdin:
    libc.rewinddir(stream)
    names = []
    while entry := libc.readdir(stream):
        names.append(entry.contents.name.decode())
    print(" ".join(sorted(names)), flush=True)
PYTHON
mkfifo "$TMPDIR/rewind"
python3 "$TMPDIR/rewinds.py" "$MNT/sub" <"$TMPDIR/rewind" >"$TMPDIR/listings" 2>&1 &
rewinds=$!
own_process "$rewinds"
exec 6>"$TMPDIR/rewind"
listings() { [ "$(wc -l <"$TMPDIR/listings")" -ge "$1" ]; }
listed() { # NUMBER NAME: it is in that listing
    echo >&6
    wait_for 20 listings "$1" && sed -n "$1p" "$TMPDIR/listings" | grep -qw "$2" || { cat "$TMPDIR/listings" && false; }
}
check "a folder is being listed" listed 1 b.c
exec 7<"$MNT/sub/b.c" 8<"$MNT/sub"
echo 3 >/proc/sys/vm/drop_caches # after which the source has other numbers
touch -d '2 hours ago' "$under/sub/new"
echo "int B, b, bb;" >"$under/sub/b.c"
check "a sync" ctl sync "$MNT"
same "what was open is as it is now" "int B, b, bb;" "$(cat <&7)"
same "and so is a folder" b.c "$(cd /proc/self/fd/8 && echo b*)"
exec 7<&- 8<&-
check "what is listed once more is as it is now" listed 2 new
check "and so it is for others" test -e "$MNT/sub/new"
exec 6>&-
check "the end of that" wait "$rewinds"
check "all is as it is now" everything
unmount_fs

# ---- removed, and other permissions ----
mount_fs "$options" || done_testing
check "a tree without that of before" everything
check "is kept" wait_for 20 written "$(folders)"
unmount_fs
rm "$under/sub/deep/deeper/file"
gone() { [ ! -e "$SRC/sub/deep/deeper/file" ]; }
check "a file is removed" wait_for 20 gone
mount_fs "$options,mem=0" || done_testing
cat "$MNT/sub/deep/deeper/file" >/dev/null 2>&1 || true
check "that is found when it is asked for at the source" wait_for 20 everything
unmount_fs
mount_fs "$options" || done_testing
check "in the next mount, too" everything
check "which keeps all anew" wait_for 20 written "$(folders)"
unmount_fs
chmod 600 "$under/sub/deep/unread"
closed() { [ "$(stat -c %a "$SRC/sub/deep/unread")" = 600 ]; }
check "a file is closed" wait_for 20 closed
mount_fs "$options,mem=0" || done_testing
cat "$MNT/sub/deep/unread" >/dev/null 2>&1 || true
check "that is found when it is opened at the source" wait_for 20 everything
unmount_fs

# ---- made writable ----
mount_fs "$options" || done_testing
check "a tree to be kept" everything
check "is" wait_for 20 written "$(folders)"
unmount_fs
mount_fs "$options" || done_testing
if mount -o remount,rw "$MNT"; then
    echo new >"$MNT/sub/new"
    echo "int C, c, cc;" >"$MNT/sub/c.c"
    rm "$MNT/many/file9"
    check "what is changed after that shows" wait_for 20 everything
fi
unmount_fs
mount_fs "$options" || done_testing
check "in the next mount, too" everything
unmount_fs
unmount_slow

# ---- a source with file handles ----
rm -rf "$stage"
cp -a "$under/." "$SRC/"
under=$SRC
mount_fs "$options" || done_testing
check "a local source" everything
check "is kept" wait_for 20 written "$(folders)"
unmount_fs
mount_fs "$options" || done_testing
check "the next mount" everything
same "takes its folders" "$(folders)" "$(disk folders_taken)"
same "with its own numbers" "$(cd "$SRC" && find . -mindepth 1 -printf '%p %i\n' | sort)" "$(numbers)"
ln "$SRC/sub/a.c" "$SRC/sub/second"
echo "int D, d;" >"$SRC/sub/b.c" # in place: the same file by its handle
check "a sync" ctl sync "$MNT"
check "after which all is as it is now" everything
unmount_fs
mount_fs "$options" || done_testing
check "with hard links" everything
check "is kept" wait_for 20 written "$(folders)"
unmount_fs
mount_fs "$options" || done_testing
check "and taken" everything
same "as one file" "$(stat -c %i "$MNT/sub/a.c")" "$(stat -c %i "$MNT/sub/second")"
unmount_fs
done_testing
