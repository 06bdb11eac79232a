#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Changes made in the source behind the mount: at once with timeouts of 0, else after the timeouts; data is always
# current.
# variants: default uring-off staged pagecache
# sanitizers: address thread
# timeout: 150

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs

content() { [ "$(cat "$MNT/$1" 2>/dev/null)" = "$2" ]; }
absent() { [ ! -e "$MNT/$1" ]; }
there() { [ -e "$MNT/$1" ]; }
mode() { [ "$(stat -c %a "$MNT/$1")" = "$2" ]; }
size() { [ "$(stat -c %s "$MNT/$1")" = "$2" ]; }
attributes() { [ "$(stat -c '%i %h %a %u %g %s %y %z' "$MNT/$1")" = "$(stat -c '%i %h %a %u %g %s %y %z' "$SRC/$1")" ]; }
listing() { [ "$(ls "$MNT/$1")" = "$(ls "$SRC/$1")" ]; }

run_changes() { # NAME CHECK...: with "at once" or "wait_for 30"
    local when=$1
    shift
    find "$SRC" -mindepth 1 -delete
    mkdir "$SRC/dir"
    local name
    for name in kept replaced deleted appended truncated changed linked renamed; do echo old >"$SRC/$name"; done
    # Everything is known to the kernel: names, attributes, the absence of what will come.
    ls -lR "$MNT" >/dev/null
    cat "$MNT"/* >/dev/null 2>&1 || true
    stat "$MNT/new" "$MNT/dir/new" >/dev/null 2>&1 || true

    echo new >"$SRC/new"
    check "$when: a new file" "$@" content new new
    echo new >"$SRC/dir/new"
    check "$when: a new file in a folder" "$@" content dir/new new
    check "$when: the folder's list has it" "$@" listing dir
    rm "$SRC/deleted"
    check "$when: a deleted file" "$@" absent deleted
    echo changed >"$SRC/temporary" && mv "$SRC/temporary" "$SRC/replaced"
    check "$when: a file replaced by rename" "$@" content replaced changed
    check "$when: and its attributes" "$@" attributes replaced
    mv "$SRC/renamed" "$SRC/renamed-2"
    check "$when: the new name" "$@" content renamed-2 old
    check "$when: the old name" "$@" absent renamed
    echo more >>"$SRC/appended"
    check "$when: an appended file's content" "$@" content appended $'old\nmore'
    check "$when: an appended file's size" "$@" size appended 9
    : >"$SRC/truncated"
    check "$when: a truncated file's size" "$@" size truncated 0
    check "$when: a truncated file's content" "$@" content truncated ""
    chmod 601 "$SRC/changed"
    check "$when: a changed mode" "$@" mode changed 601
    touch -d 2001-02-03T04:05:06.789 "$SRC/changed"
    check "$when: times" "$@" attributes changed
    ln "$SRC/linked" "$SRC/second"
    check "$when: the number of links" "$@" attributes linked
    rm -r "$SRC/dir" && echo file >"$SRC/dir"
    check "$when: a folder replaced by a file" "$@" content dir file
    rm "$SRC/kept" && ln -s new "$SRC/kept"
    check "$when: a file replaced by a link" "$@" content kept new
    rm "$SRC/kept" && mkdir "$SRC/kept" && echo deep >"$SRC/kept/deep"
    check "$when: a link replaced by a folder" "$@" content kept/deep deep
    check "$when: the list of the top" "$@" listing .
}

mount_fs attr_timeout=0,entry_timeout=0,negative_timeout=0

run_changes "timeouts of 0"
unmount_fs

mount_fs
run_changes "timeouts of 1 s" wait_for 30
unmount_fs

# ---- data ----

# What is passed through is the source's own; of the rest the source's events tell, a moment later.
told() {
    case $VARIANT in
    pagecache | staged) "$BUILD_DIR/client/stagectl" sync "$MNT" ;;
    esac
}
mount_fs attr_timeout=3600,entry_timeout=3600
echo 0123456789 >"$SRC/data"
exec 8<"$MNT/data"
read -r line <&8
same "before" 0123456789 "$line"
printf 'ABC' | dd of="$SRC/data" conv=notrunc status=none
exec 8<&-
told
same "data changed behind the mount is seen by the next open" ABC3456789 "$(cat "$MNT/data")"
exec 8<"$MNT/data"
printf 'XYZ' | dd of="$SRC/data" conv=notrunc status=none
told
read -r line <&8
exec 8<&-
# Of a staged copy it is seen with the next look at the file, for which the timeout is long here.
[ "$VARIANT" = staged ] || same "and by one who had it open" XYZ3456789 "$line"
printf 'from the mount' | dd of="$MNT/data" conv=notrunc status=none
same "and the other way" "from the mount" "$(cat "$SRC/data")"
echo replaced >"$SRC/replacing"
exec 8<"$MNT/data"
mv "$SRC/replacing" "$SRC/data"
same "who had it open keeps the old file" "from the mount" "$(cat <&8)"
exec 8<&-
unmount_fs

# ---- creation over what somebody made behind the mount ----

# The kernel remembers that the name does not exist, and the daemon meets something else.
cat >"$TMPDIR/created.py" <<'PYTHON'
"""created.py SOURCE MOUNT [COUNT]: for each kind of object and each way to create, a line: the kind, the flags, and
what comes of it in a plain folder and in the mount; or only folders, COUNT times."""
import errno, os, shutil, sys, time
source, mount, *count = sys.argv[1:]


def write(path, text, mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


BEHIND = {
    "file": lambda path: write(path, "old\n"),
    "closed": lambda path: write(path, "", 0),
    "folder": os.mkdir,
    "fifo": os.mkfifo,
    "link": lambda path: os.symlink("data", path),
    "dangling": lambda path: os.symlink("nowhere", path),
}


def remove(*paths):
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


def open_to_create(path, flags):
    """The errno, or the content."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_NONBLOCK | flags, 0o644)
    except OSError as error:
        return errno.errorcode[error.errno]
    try:
        return "opened %s" % (os.read(fd, 100) if flags & os.O_RDWR else "")
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.close(fd)


def create(kind, flags):
    """In the folder, then in the mount, whose kernel knows already that the name is not there."""
    there, seen = os.path.join(source, kind), os.path.join(mount, kind)
    for path in (there, seen):
        remove(there, os.path.join(source, "nowhere"))
        end = time.monotonic() + 20
        while os.path.lexists(seen) and time.monotonic() < end:  # until an event has told of the last one
            time.sleep(0.001)
        if os.path.lexists(seen):
            sys.exit("%s is not gone after 20 s" % seen)
        BEHIND[kind](there)
        yield open_to_create(path, flags)


if count:
    for i in range(int(count[0])):
        list(create("folder", os.O_RDWR))
    sys.exit()
for kind in BEHIND:
    for flags in ("O_RDWR", "O_WRONLY", "O_RDWR|O_EXCL"):
        number = sum(getattr(os, flag) for flag in flags.split("|"))
        print(kind, flags, *create(kind, number), sep="\t", flush=True)
PYTHON
created=(timeout 60 python3 "$TMPDIR/created.py" "$SRC" "$MNT")
mount_fs negative_timeout=3600,entry_timeout=3600
echo pointed >"$SRC/data"
cases=0
while IFS=$'\t' read -r kind flags expected got; do
    cases=$((cases + 1))
    same "created over a $kind made behind, $flags" "$expected" "$got"
done < <("${created[@]}")
same "all of these were tried" 18 $cases
held() { find "/proc/$DAEMON/fd" -mindepth 1 | wc -l; }
before=$(held)
check "folders, more often" "${created[@]}" 25
check "and no descriptor is left of it: $before, $(held)" test "$(held)" -le $((before + 12))
unmount_fs

# ---- a change in the middle of a listing, and a removed working directory ----

mount_fs attr_timeout=0,entry_timeout=0,negative_timeout=0
rm -rf "${SRC:?}"/*
mkdir "$SRC/gone"
echo x >"$SRC/gone/file"
removed_below() {
    cd "$MNT/gone" && ls >/dev/null && rm -r "$SRC/gone" || return 1
    ! ls file 2>/dev/null && ! touch new 2>/dev/null
}
check "a folder removed behind the back of who stands in it" removed_below
cd "$TOP"
check "the mount goes on" touch "$MNT/after"
unmount_fs

done_testing
