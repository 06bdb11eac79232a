#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# timeout: 240
#
# What a command touches is recorded in order, kept as a file over several recordings, and staged on the next mount
# before anybody asks for it.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

state() { getfattr --only-values -n user.stagefs.state "$MNT/$1" 2>/dev/null; }
staged() { for name in "$@"; do [ "$(state "$name")" = hot ] || return 1; done; }
absent() { for name in "$@"; do [ "$(state "$name")" = absent ] || { echo "$name" && return 1; }; done; }
number() { # NAME: of the predictor's statistics
    ctl stats --json "$MNT" | python3 -c '
import json, sys
print(json.load(sys.stdin)["predictors"]["profiles"][sys.argv[1]])' "$1"
}
is_number() { [ "$(number "$1")" = "$2" ]; }
still() { # CMD...: what it prints does not change any more
    local before
    before=$("$@")
    sleep 0.5
    [ "$("$@")" = "$before" ]
}
reads_of() { # CMD...: reads that reach the source meanwhile
    local before
    before=$(slow_count read)
    "$@" >/dev/null || return 1
    echo $(($(slow_count read) - before))
}
files_of() { sed -n 's/^file //p' "$1"; } # PROFILE
says() { # PATTERN CMD...: it fails and says that
    local pattern=$1 text
    shift
    text=$("$@" 2>&1) && { echo "it went well: $text" && return 1; }
    grep -q -- "$pattern" <<<"$text" || { echo "$text" && return 1; }
}

new_dirs
under=$WORK/slow-under
mkdir -p "$under"/{src,include,empty,many}
for name in a b c d; do echo "int $name;" >"$under/src/$name.c"; done
echo '#pragma once' >"$under/include/first.h"
echo odd >"$under/src/odd \\ name
of two lines"
echo "secret" >"$WORK/outside"
ln -s "$WORK/outside" "$under/link"
head -c 3M /dev/zero >"$under/many/large"
for i in $(seq 100 199); do head -c 15000 /dev/zero | tr '\0' 'x' >"$under/many/$i"; done
find "$under" -exec touch -h -d '2 hours ago' {} +
mount_slow latency_us=300
profile=$WORK/profile

# ---- recording ----

mount_fs predict=profiles,allow_other
cat "$MNT/src/d.c" >/dev/null # before the recording
# shellcheck disable=SC2016 # for the shell that is started
command='cd "$1" && cat src/b.c src/a.c >/dev/null && cat "src/odd \\ name
of two lines" >/dev/null && ! cat empty/first.h include/none.h 2>/dev/null && cat include/first.h && stat src/c.c &&
    ls many && cat link'
check "a command is recorded" ctl profile record "$profile" "$MNT" -- bash -c "$command" - "$MNT"
same "its files are there, in order" '0 src/b.c
0 src/a.c
0 src/odd \\ name\nof two lines
0 include/first.h' "$(files_of "$profile")"
same "what was searched for names that are not there" "search 0 empty search 0 include" \
    "$(grep ^search "$profile" | sort | xargs)"
check "what was only looked in" grep -qx "folder 0 many" "$profile"
same "and the whole is a profile" "stagefs-profile 1" "$(head -n 1 "$profile")"
same "the command's status is told" 7 "$(
    ctl profile record "$WORK/other" "$MNT" -- sh -c "cat $MNT/src/d.c >/dev/null; exit 7" >/dev/null
    echo $?
)"
same "what failed is recorded, too" "0 src/d.c" "$(files_of "$WORK/other")"
same "a command that is not there" 127 "$(
    ctl profile record "$WORK/none" "$MNT" -- /no/such/command >/dev/null 2>&1
    echo $?
)"

# ---- several recordings ----

check "recorded once more, something else" \
    ctl profile record "$profile" "$MNT" -- cat "$MNT/src/b.c" "$MNT/src/c.c"
same "what was not met has an age, and its place" '0 src/b.c
1 src/a.c
1 src/odd \\ name\nof two lines
1 include/first.h
0 src/c.c' "$(files_of "$profile")"
cp "$profile" "$WORK/kept"
check_fails "a failed one" ctl profile record "$profile" "$MNT" -- false
check "ages nothing" cmp "$profile" "$WORK/kept"
for _ in 1 2 3; do ctl profile record "$profile" "$MNT" -- cat "$MNT/src/b.c" >/dev/null; done
same "after three more it is forgotten" "0 src/b.c
3 src/c.c" "$(files_of "$profile")"
check "recorded without a command" ctl profile start "$MNT"
check "is one at a time" says "a recording is going on" ctl profile record "$WORK/second" "$MNT" -- true
cat "$MNT/src/d.c" >/dev/null
echo written >"$MNT/src/new"
check "what cannot be written ends nothing" says "No such file" ctl profile stop "$WORK/no/such/file" "$MNT"
: >"$WORK/empty"
ln -s "$profile" "$WORK/link-to-profile"
check "it is ended by hand" ctl profile stop "$WORK/link-to-profile" "$MNT"
same "into the file that was named, by a link, too; without what was only written" "1 src/b.c
0 src/d.c" "$(files_of "$profile")"
check "which stays a link" test -L "$WORK/link-to-profile"
check "there is nothing to end then" says "nothing is being recorded" ctl profile stop "$WORK/empty" "$MNT"
check "an empty file is as none" ctl profile record "$WORK/empty" "$MNT" -- cat "$MNT/src/d.c"
same "and written" "0 src/d.c" "$(files_of "$WORK/empty")"
check "in the mount itself" ctl profile record "$MNT/profile" "$MNT" -- cat "$MNT/src/d.c"
check "too" cmp "$MNT/profile" "$WORK/empty"
echo "no profile" >"$WORK/text"
check "a file that is none is not written over" says "line 1" ctl profile record "$WORK/text" "$MNT" -- true
same "and stays" "no profile" "$(cat "$WORK/text")"
check "nor is one that cannot be" says "No such file" ctl profile record "$WORK/no/such/file" "$MNT" -- true
check "a child that nobody waits for" env --ignore-signal=CHLD \
    "$BUILD_DIR/client/stagectl" profile record "$WORK/child" "$MNT" -- cat "$MNT/src/d.c"
interrupted() { # ^C is for the command; what was recorded until then is written
    env --default-signal=INT "$BUILD_DIR/client/stagectl" profile record "$WORK/interrupted" "$MNT" -- \
        sh -c "cat $MNT/src/d.c >/dev/null; kill -INT \$PPID; kill -INT \$\$; sleep 20"
    [ $? = 130 ] && [ "$(files_of "$WORK/interrupted")" = "0 src/d.c" ]
}
check "an interrupt" interrupted
test_user
cp "$BUILD_DIR/client/stagectl" "$TMPDIR/stagectl" && chmod 755 "$TMPDIR/stagectl"
check "who does not own the mount does not record" says "owner" as_user "$TMPDIR/stagectl" profile start "$MNT"
check "nor replay" says "owner" as_user "$TMPDIR/stagectl" profile replay "$WORK/kept" "$MNT"
unmount_fs

# ---- the next mount ----

cat >"$profile" <<'END'
stagefs-profile 1
# with the sources of another branch
folder 0 .
search 0 include
file 0 src/a.c
file 1 src/gone.c
file 0 gone/too.c
folder 0 src/b.c
file 0 src
file 0 link
file 0 src/b.c
file 3 src/odd \\ name\nof two lines
END
mount_fs "profile=$profile,predict=profiles,ttl=300"
check "what the profile has is staged by itself" wait_for 20 staged src/a.c src/b.c "src/odd \\ name
of two lines"
lookups_of() { # CMD...: names that are asked of the source meanwhile
    local before
    before=$(slow_count lookup)
    "$@" >/dev/null 2>&1 || true
    echo $(($(slow_count lookup) - before))
}
check "its folders are read" wait_for 20 still slow_count readdir
stat "$MNT/include" >/dev/null
same "what a searched folder lacks is known from its listing" 0 "$(lookups_of stat "$MNT/include/absent.h")"
check "and nothing else" absent src/c.c src/d.c include/first.h
check "it is counted" is_number files 3
read_them() { cat "$MNT/src/a.c" "$MNT/src/b.c"; }
same "whoever reads it waits for no source" 0 "$(reads_of read_them)"
check "and it is what the source has" cmp "$MNT/src/a.c" "$under/src/a.c"
check "what was read is counted" is_number used_files 2
echo 'int changed;' >"$under/src/b.c"
ctl sync "$MNT"
check "what has changed since is read as it is now, once the source has it" \
    wait_for 20 cmp "$MNT/src/b.c" "$under/src/b.c"
large_is_passed_over() { [ "$(state many/large)" = absent ]; }
printf 'stagefs-profile 1\nfile 0 many/large\nfile 0 src/c.c\n' >"$WORK/another"
check "another is followed at once" ctl profile replay "$WORK/another" "$MNT"
check "and staged" wait_for 20 staged src/c.c
check "but for a file that would be staged by range" large_is_passed_over
check "the same once more" ctl profile replay "$WORK/another" "$MNT"
check "what is none is not" says "line 1" ctl profile replay "$WORK/text" "$MNT"
unmount_fs

# ---- with little memory ----

{ echo "stagefs-profile 1" && for i in $(seq 100 199); do echo "file 0 many/$i"; done; } >"$WORK/many"
# All of them fit, and half of them at a time may be there unread.
mount_fs "profile=$WORK/many,mem=2M,compress=none,predict=profiles"
some() { [ "$(number files)" -ge 20 ]; }
check "as much as there is room for is staged" wait_for 20 some
check "until there is none left" wait_for 20 still number files
# 24 at a time are followed; those that were overtaken by others behind them take more than there is room for.
few() { [ "$(number bytes)" -le $((1024 * 1024 + 24 * 15000)) ] || { number bytes && false; }; }
check "and no more" few
in_turn() { # each is staged before it is read, as room is made by reading those before it
    local i
    for i in $(seq 100 199); do
        wait_for 20 staged "many/$i" && cmp "$MNT/many/$i" "$under/many/$i" || return 1
    done
}
check "the rest follows as it is read" in_turn
check "all that was staged was read" is_number used_files 100
check "and all that was read was staged" is_number files 100
unmount_fs

# ---- beside guesses ----

{ echo "stagefs-profile 1" && for i in $(seq 100 149); do echo "file 0 many/$i"; done; } >"$WORK/half"
mount_fs "profile=$WORK/half,predict=siblings:profiles"
half() { for i in $(seq 100 149); do wait_for 20 staged "many/$i" && cat "$MNT/many/$i" || return 1; done; }
check "files are read in the order of their folder" half
check "all of them were in the profile" is_number used_files 50
check "so nobody guesses that the next ones will be" absent many/150 many/151 many/160
unmount_fs

# ---- by a name, in stage_dir= ----

stage=$WORK/stage
mount_fs "stage_dir=$stage,predict=profiles"
check "a recording with a name" ctl profile record one "$MNT" -- cat "$MNT/src/a.c" "$MNT/src/b.c"
check "is in stage_dir" cmp <(files_of "$stage/profiles/one") <(printf "0 src/a.c\n0 src/b.c\n")
same "and listed" one "$(ctl profile list "$MNT")"
check "it is followed by its name" ctl profile replay one "$MNT"
check "and exported" ctl profile export one "$WORK/exported" "$MNT"
check "as it is" cmp "$stage/profiles/one" "$WORK/exported"
check "and imported by another name" ctl profile import "$WORK/exported" other "$MNT"
same "both are listed" "one other" "$(ctl profile list "$MNT" | paste -s -d ' ')"
check "a name is found from a folder of the mount, too" ctl profile replay one "$MNT/src"
named_from_within() { (cd "$MNT/src" && ctl profile record third . -- cat d.c >/dev/null); }
check "and a recording has one there" named_from_within
check "nothing is written into the source" test ! -e "$under/src/third"
check "it is kept" test -e "$stage/profiles/third"
check "it is removed" rm "$stage/profiles/third"
chmod 777 "$stage/profiles"
check "where others may write nothing is kept" says "no stage_dir" ctl profile list "$MNT"
chmod 700 "$stage/profiles"
check "a name that there is not" says "No such file" ctl profile replay absent "$MNT"
echo damaged >"$stage/profiles/other"
check "one that is damaged is replaced" ctl profile import "$WORK/exported" other "$MNT"
check "by what is in order" cmp "$WORK/exported" "$stage/profiles/other"
check "what is no profile is not imported" says "line 1" ctl profile import "$WORK/text" bad "$MNT"
check "and nothing is left of it" test ! -e "$stage/profiles/bad"
unmount_fs
mount_fs "stage_dir=$stage,predict=profiles,profile=other,allow_other"
check "a mount follows it by its name" wait_for 10 staged src/a.c src/b.c
test_user
check "where it is, is not told to others" says "No such attribute" as_user \
    getfattr --only-values -n user.stagefs.stage_dir "$MNT"
unmount_fs
check "the store is in order with them" ctl doctor "$stage"
mount_fs predict=profiles
check "without stage_dir there are none" says "no stage_dir" ctl profile list "$MNT"
unmount_fs

# ---- what is refused ----

refuse() { # PATTERN OPTIONS
    says "$1" "$STAGEFS" "$SRC" "$MNT" -f -o "$2" || return 1
    ! is_mounted "$MNT"
}
printf 'stagefs-profile 1\nfile 0 a\nfile 0 ../a\n' >"$WORK/bad"
check "a line that leaves the tree" refuse "line 3" "profile=$WORK/bad"
check "a file that is no profile" refuse "line 1" "profile=$WORK/text"
check "no file" refuse "No such file" "profile=$WORK/absent"
check "without staging" refuse "stage=none" "profile=$profile,stage=none"
check "without the predictor" refuse "predict=profiles" "profile=$profile,predict=includes"
check "no words" says "profile: write" ctl profile
check "a word that is none" says "profile: write" ctl profile erase
check "no file is named" says "give the file" ctl profile record

unmount_slow
done_testing
