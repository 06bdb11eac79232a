#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# stagectl and libstagefs on a mount: what is staged, by whom, in which set, and what is told about it; that the files
# read the same all the while; and that the examples work.
# sanitizers: address
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

CTL=$BUILD_DIR/client/stagectl
[ -x "$CTL" ] || skip_all "stagectl is not built in $BUILD_DIR"
have python3 || skip_all "python3 is not installed"

new_dirs
mkdir -p "$SRC/tree/deep/er" "$SRC/other" "$SRC/many" "$SRC/include"
for name in a b c tree/one tree/two tree/deep/three tree/deep/er/four other/five; do
    head -c 20000 /dev/urandom >"$SRC/$name"
done
: >"$SRC/empty"
# Names that a line, a terminal and JSON have to be kept from.
odd=$'odd "name"\n\e[31m\\\xff'
echo odd >"$SRC/$odd"
ln -s a "$SRC/link"
ln -s tree "$SRC/treelink"
ln -s nowhere "$SRC/dangling"
mkfifo "$SRC/pipe"
(cd "$SRC/many" && seq 1 1200 | sed 's/^/a-file-with-a-rather-long-name-/' | xargs touch)
mount_fs stage=prefetch,settle=0,allow_other || done_testing

ctl() { "$CTL" "$@" 2>"$TMPDIR/stderr"; }
# A value of a JSON text: `json TEXT PYTHON-EXPRESSION-OF-x`.
json() { python3 -c 'import json, sys; x = json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$1" "$2"; }
status_of() { # FIELD FILE
    json "$(ctl status -j "$2")" "x[0]['$1']"
}
staged() { # FILE
    case $(status_of state "$1") in
    hot | cold) ;;
    *) return 1 ;;
    esac
}
not_staged() { [ "$(status_of state "$1")" = absent ]; }
exits() { # STATUS CMD...
    local want=$1 status=0
    shift
    "$@" || status=$?
    echo "status $status"
    [ "$status" = "$want" ]
}

# ---- staging ----

check "no file is staged at first" not_staged "$MNT/a"
check "to ask stages nothing" not_staged "$MNT/a"
same "two files are staged" "2 0 40000 None" \
    "$(json "$(ctl stage -j "$MNT/a" "$MNT/b")" "'%d %d %d %s' % (x['staged'], x['failed'], x['bytes'], x['first_error'])")"
check "a is staged" staged "$MNT/a"
check "b is staged" staged "$MNT/b"
check "c is not" not_staged "$MNT/c"
same "its mode" prefetch "$(status_of mode "$MNT/a")"
same "its size" 20000 "$(status_of size_bytes "$MNT/a")"
same "it is on the mount" True "$(status_of on_mount "$MNT/a")"
check "it reads the same" cmp "$SRC/a" "$MNT/a"
check "a file is unstaged" ctl unstage "$MNT/a"
check "a is not staged any more" not_staged "$MNT/a"
check "it still reads the same" cmp "$SRC/a" "$MNT/a"
check "and is unstaged again" ctl unstage "$MNT/a"

check "a path through symbolic links" ctl stage "$MNT/link" "$MNT/treelink/one"
check "the link's target is staged" staged "$MNT/a"
check "the file behind the link is staged" staged "$MNT/tree/one"
check "status follows links too" staged "$MNT/treelink/one"
check "unstage of both" ctl unstage "$MNT/link" "$MNT/treelink/one"
check "neither is staged" not_staged "$MNT/a"

in_folder() { (cd "$MNT/tree" && ctl "$@"); }
check "relative paths, with .. and . in them" in_folder stage ../a ./one deep/../two "$MNT/other/five"
for name in a tree/one tree/two other/five; do
    check "$name is staged" staged "$MNT/$name"
done
check "all of them are unstaged" in_folder unstage ../a ./one deep/../two "$MNT/other/five"

same "a tree" "4 0" "$(json "$(ctl stage -r -j "$MNT/tree")" "'%d %d' % (x['staged'], x['failed'])")"
check "a file deep in it is staged" staged "$MNT/tree/deep/er/four"
same "all of it is, as status -r has it" "4 True" \
    "$(json "$(ctl status -r -j "$MNT/tree")" "'%d %s' % (len(x), all(f['state'] in ('hot', 'cold') for f in x))")"
check "the tree is unstaged" ctl unstage -r "$MNT/tree"
check "a file deep in it is not any more" not_staged "$MNT/tree/deep/er/four"
check "the whole mount" ctl stage -r "$MNT"
check "a file in it is staged" staged "$MNT/other/five"
check "it is unstaged" ctl unstage -r "$MNT"

find "$MNT/many" -type f >"$TMPDIR/list"
same "many files from a list" "1200 0" \
    "$(json "$(ctl stage -j -f "$TMPDIR/list")" "'%d %d' % (x['staged'], x['failed'])")"
nul_list() { find "$MNT/tree" -type f -print0 | "$CTL" stage -0 -f -; }
check "a list with NULs on standard input" nul_list
check "what it named is staged" staged "$MNT/tree/two"
check "without waiting" ctl stage -n "$MNT/c"
check "it comes to be staged" wait_for 20 staged "$MNT/c"

# ---- what fails ----

check "a missing file is status 1" exits 1 "$CTL" stage "$MNT/a" "$MNT/missing"
check "the other is staged all the same" staged "$MNT/a"
ctl stage "$MNT/a" "$MNT/missing" >"$TMPDIR/stdout" || true
same "the message has the path" "stagectl: $MNT/missing: No such file or directory" "$(cat "$TMPDIR/stderr")"
check "a folder without -r" exits 1 "$CTL" stage "$MNT/tree"
check "a pipe" exits 1 "$CTL" stage "$MNT/pipe"
check "a link to nowhere" exits 1 "$CTL" stage "$MNT/dangling"
check "status of a missing file" exits 1 "$CTL" status "$MNT/missing"
check "no command" exits 2 "$CTL"
check "an unknown command" exits 2 "$CTL" stagger
check "a mode that there is not" exits 2 "$CTL" stage -m sometimes "$MNT/a"
check "an option of another command" exits 2 "$CTL" stats -r
check "no files" exits 2 "$CTL" stage
check "help" exits 0 "$CTL" --help

# ---- names ----

check "a file with an odd name" ctl stage "$MNT/$odd"
check "is staged" staged "$MNT/$odd"
odd_name() {
    ctl status -j "$MNT/$odd" >"$TMPDIR/odd.json"
    python3 - "$TMPDIR/odd.json" "$MNT/$odd" <<'END'
import json, os, sys
text = open(sys.argv[1], 'rb').read()
assert b'\x1b' not in text and text.count(b'\n') == 1
assert os.fsencode(json.loads(text)[0]['path']) == os.fsencode(sys.argv[2])
END
}
check "its name is kept in JSON" odd_name
same "and is one line for people" 2 "$(ctl status "$MNT/$odd" | wc -l)"

# ---- sets ----

check "files join a set" ctl stage -s group "$MNT/a" "$MNT/b"
check "a tree joins it" ctl stage -r -s group "$MNT/tree"
set_counts() { json "$(ctl set -j -M "$MNT" "$1")" "'%d %d' % (x[0]['files'], x[0]['staged_files'])"; }
same "the set has them" "6 6" "$(set_counts group)"
check "another set" ctl stage --set=other "$MNT/c"
same "the sets" "['group', 'other']" "$(json "$(ctl set -j -M "$MNT")" "sorted(s['name'] for s in x)")"
same "a file tells its set" group "$(status_of set "$MNT/a")"
check "a set that there is not" exits 1 "$CTL" set -M "$MNT" nothing
check "a set is unstaged" ctl unstage --set group "$MNT/tree/deep"
check "its files are not staged any more" not_staged "$MNT/tree/two"
check "those of the other are" staged "$MNT/c"
check "to unstage one that there is not" exits 1 "$CTL" unstage --set nothing "$MNT"

# ---- counters and settings ----

check "stats for people" ctl stats "$MNT"
check "stats of the only mount" ctl stats
stats_json() {
    python3 - "$(ctl stats --json "$MNT")" <<'END'
import json, sys
stats = json.loads(sys.argv[1])
assert stats['prefetch_fills'] >= 8, stats
assert stats['hot_bytes'] <= stats['hot_limit_bytes'], stats
assert stats['hit_rate'] is None or 0 <= stats['hit_rate'] <= 1, stats
assert stats['inodes'] > 10, stats
END
}
check "stats for programs" stats_json
same "the settings" prefetch "$(json "$(ctl config -j "$MNT")" "x['mode']")"
same "are changed" "adaptive 65536" \
    "$(json "$(ctl config -j "$MNT" mode=adaptive threshold=64K)" "'%s %d' % (x['mode'], x['threshold_bytes'])")"
same "and stay so" "mode=adaptive" "$(ctl config "$MNT" | head -n 1)"
check "a setting that there is not" exits 2 "$CTL" config "$MNT" speed=high
check "a value that is none" exits 2 "$CTL" config "$MNT" mem=lots
check "the mode is put back" ctl config "$MNT" mode=prefetch

# ---- hints ----

for kind in sequential random willneed dontneed; do
    check "hint $kind" ctl hint $kind "$MNT/a" "$MNT/tree/one"
done
check "an unknown hint" exits 2 "$CTL" hint backwards "$MNT/a"
check "a hint for a folder" exits 1 "$CTL" hint random "$MNT/tree"

# ---- copying ----

truncate -s 5M "$SRC/sparse"
printf middle | dd of="$SRC/sparse" bs=1 seek=2000000 conv=notrunc status=none
check "a copy on the mount" ctl copy "$MNT/a" "$MNT/copied"
check "is the same" cmp "$SRC/a" "$SRC/copied"
check "a copy of a sparse file" ctl copy "$MNT/sparse" "$MNT/sparse2"
check "is the same" cmp "$SRC/sparse" "$SRC/sparse2"
blocks=$(stat -c %b "$SRC/sparse2")
check "and is sparse" test "$blocks" -lt 200
check "files to a folder" ctl copy "$MNT/a" "$MNT/b" "$MNT/other"
check "are there" cmp "$SRC/b" "$MNT/other/b"
check "out of the mount" ctl copy "$MNT/a" "$NATIVE/a"
check "is the same" cmp "$SRC/a" "$NATIVE/a"
check "into the mount, over a file that is staged" ctl copy "$NATIVE/a" "$MNT/b"
check "reads the new contents" cmp "$SRC/a" "$MNT/b"
check "a copy onto itself" exits 1 "$CTL" copy "$MNT/a" "$MNT/a"
same "nothing is left over" "" "$(find "$SRC" -name '.copy-*')"

# ---- files elsewhere ----

echo elsewhere >"$NATIVE/file"
same "a file elsewhere and one here" 2 "$(json "$(ctl stage -j "$NATIVE/file" "$MNT/a")" "x['staged']")"
check "the one here is staged" staged "$MNT/a"
same "status of a file elsewhere" False "$(status_of on_mount "$NATIVE/file")"
check "stats elsewhere" exits 1 "$CTL" stats "$NATIVE"

# ---- other users ----

chmod 600 "$SRC/c"
mkdir -p "$TMPDIR/bin"
cp "$CTL" "$TMPDIR/bin/stagectl"
chmod 755 "$TMPDIR/bin" "$TMPDIR/bin/stagectl" "$TMPDIR"
user_ctl() { as_user "$TMPDIR/bin/stagectl" "$@"; }
check "an ordinary user stages what they may read" user_ctl stage "$MNT/a"
check "and nothing else" exits 1 user_ctl stage "$MNT/c"
check "nor changes the settings" exits 1 user_ctl config "$MNT" mode=none
check "but sees them" user_ctl config "$MNT"

# ---- the examples ----

if [ -x "$BUILD_DIR/examples/copy-tool" ]; then
    check "copy-tool" "$BUILD_DIR/examples/copy-tool" "$MNT/a" "$MNT/copied2"
    check "is the same" cmp "$SRC/a" "$SRC/copied2"
    ctl unstage -r "$MNT/tree" >/dev/null
    printf '#include "answer.h"\nint main(void) { return ANSWER; }\n' >"$SRC/main.c"
    printf '#define ANSWER 42\n' >"$SRC/include/answer.h"
    if have cc; then
        check "stage-cc compiles" "$BUILD_DIR/examples/stage-cc" cc -I "$MNT/include" "$MNT/main.c" -o "$MNT/main"
        check "what it made runs" exits 42 "$MNT/main"
    fi
    check "stage-cc hands the arguments on" exits 3 "$BUILD_DIR/examples/stage-cc" sh -c 'exit 3'
    check "it staged the source" staged "$MNT/main.c"
else
    skip "the examples" "they are not built"
fi

# ---- a mount that does not stage ----

cd /
unmount_fs || done_testing
mount_fs stage=none || done_testing
check "a mount that does not stage: stage" ctl stage -r "$MNT/tree"
check "unstage" ctl unstage -r "$MNT/tree"
check "status" ctl status -r "$MNT/tree"
check "hint" ctl hint willneed "$MNT/a"
check "copy" ctl copy "$MNT/a" "$MNT/copied3"
check "stats" ctl stats "$MNT"
check "sync" ctl sync "$MNT"
unmount_fs
done_testing
