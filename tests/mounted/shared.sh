#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default
# sanitizers: address thread
# sanitized: default
# timeout: 200
#
# A staged copy that readers share with writers: what is stored through a mapping reaches the source, whatever else
# changes the file meanwhile; and once the writers are gone, what the source has reaches the readers.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

# Maps all of a file, and does what it is told by the lines of its input: a place and what to store there, or "close" of
# the descriptor. Each that is done is told by a line of its output.
map_writer() { # FILE
    python3 -c '
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
stores = mmap.mmap(fd, 0)
for line in sys.stdin:
    words = line.split()
    if words[0] == "close":
        os.close(fd)
    else:
        stores[int(words[0]):int(words[0]) + len(words[1])] = words[1].encode()
    print("done", flush=True)' "$1"
}
begin_mapping() { # FILE: told by tell(), until end_mapping
    mkfifo "$WORK/told" "$WORK/answers"
    map_writer "$1" <"$WORK/told" >"$WORK/answers" &
    WRITER=$!
    own_process "$WRITER"
    exec 5>"$WORK/told" 6<"$WORK/answers"
}
tell() { # LINE
    local answer
    echo "$1" >&5 && read -r -t "$PATIENCE" answer <&6 && [ "$answer" = "done" ]
}
end_mapping() {
    exec 5>&- 6<&-
    wait "$WRITER"
    t_forget_process "$WRITER"
    rm "$WORK/told" "$WORK/answers"
}
at() { dd if="$1" bs=1 skip="$2" count="$3" status=none; } # FILE PLACE BYTES
has() { [ "$(at "$1" "$2" "${#3}")" = "$3" ]; }           # FILE PLACE TEXT
same_file() { cmp "$MNT/$1" "$under/$1"; }
same_open() { # FD NAME: what is read by a descriptor is what the source has
    python3 -c '
import os, sys
with open(sys.argv[2], "rb") as there:
    sys.exit(os.pread(int(sys.argv[1]), 1 << 24, 0) != there.read())' "$1" "$under/$2"
}
read_open() { # FD
    python3 -c '
import os, sys
os.pread(int(sys.argv[1]), 1 << 24, 0)' "$1"
}
put() { printf '%s' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE PLACE TEXT
write_by() { # FILE PLACE TEXT: by a program that reads, too
    python3 -c '
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, sys.argv[3].encode(), int(sys.argv[2]))' "$@"
}
is_staged() { ctl status "$MNT/$1" | grep -q hot; }

new_dirs
under=$WORK/slow-under
mkdir -p "$under"
for name in one two three four five; do
    head -c 300001 /dev/urandom >"$under/$name"
done
head -c 4000 /dev/zero | tr '\0' A >"$under/all"
find "$under" -exec touch -h -d '2 hours ago' {} +
mount_slow latency_us=300
mount_fs predict=none,threshold=10M || done_testing

# ---- stores, while the copy is fetched anew ----
exec 7<"$MNT/one"
check "a file is staged" is_staged one
check "a program maps it" begin_mapping "$MNT/one"
check "and stores" tell "100 before"
slow_control gate=READ
timeout "$PATIENCE" truncate -s 300001 "$MNT/one" &
truncating=$!
own_process "$truncating"
check "another changes its size, whereupon it is fetched anew" slow_wait_held
check "stores meanwhile" tell "5000 meanwhile"
check "beyond the first pages, too" tell "290000 far"
slow_control ''
check "the size is changed" wait "$truncating"
t_forget_process "$truncating"
check "what was stored before has reached the source" has "$under/one" 100 before
check "what was stored meanwhile gets there" wait_for 10 has "$under/one" 5000 meanwhile
check "all of it" has "$under/one" 290000 far
check "who has it open sees that" same_open 7 one
slow_control gate=READ
timeout "$PATIENCE" truncate -s 200000 "$MNT/one" &
truncating=$!
own_process "$truncating"
check "it is made shorter" slow_wait_held
check "a store meanwhile" tell "199990 last"
slow_control ''
check "it is shorter" wait "$truncating"
t_forget_process "$truncating"
same "the source is as long as it was made" 200000 "$(stat -c %s "$under/one")"
check "and has what was stored" wait_for 10 has "$under/one" 199990 last
check "it is made longer" truncate -s 350000 "$MNT/one"
check "who has it open sees that it is longer" same_open 7 one
check "a store after all that" tell "150000 after"
check "reaches the source" wait_for 10 has "$under/one" 150000 after
end_mapping
check "without the writer the copy is that of the source" same_open 7 one
exec 7<&-

# What was cut off is zero when it is a part of the file again, also to who compares.
store_where_it_was_cut() { # FILE
    python3 -c '
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
stores = mmap.mmap(fd, 0)
os.ftruncate(fd, 100)
os.pwrite(fd, b"end", 3000)
stores[500:504] = b"AAAA"
os.fsync(fd)' "$1"
}
exec 7<"$MNT/all"
check "a file of one letter is staged" is_staged all
check "it is cut, made longer, and that letter stored" store_where_it_was_cut "$MNT/all"
check "which reaches the source" has "$under/all" 500 AAAA
check "and is read" same_open 7 all
exec 7<&-

# ---- changes of the source, once the writers are gone ----
exec 7<"$MNT/two"
check "a second file is staged" is_staged two
check "it is written while others read it" write_by "$MNT/two" 1000 written
check "that reaches the source" has "$under/two" 1000 written
check "and who has it open" same_open 7 two
put "$under/two" 2000 changed
check "what the source has later is read" wait_for 10 same_file two
check "also by who has it open" same_open 7 two
check "the copy is current again" wait_for 10 is_staged two
check "it is written once more" write_by "$MNT/two" 3000 again
check "which reaches all" same_open 7 two
check "and the source" has "$under/two" 3000 again
check "the change at the source is still there" has "$under/two" 2000 changed
exec 7<&-

# A mapping that outlives its descriptor writes on.
exec 7<"$MNT/three"
check "a third file is mapped" begin_mapping "$MNT/three"
check "its descriptor is closed" tell close
check "it is stored into" tell "7000 later"
check "which reaches the source by itself" wait_for 10 has "$under/three" 7000 later
check "another program writes, and closes" write_by "$MNT/three" 8000 written
check "the mapping is stored into still" tell "9000 last"
end_mapping
check "what was stored last reaches the source, too" wait_for 10 has "$under/three" 9000 last
put "$under/three" 2000 changed
check "what the source has after that is read" wait_for 10 same_file three
check "by who has it open, too" same_open 7 three
exec 7<&-

# ---- a source that does not send what it has ----
shows_time() { [ "$(stat -c %Y "$MNT/$1")" = "$(stat -c %Y "$under/$1")" ]; }
exec 7<"$MNT/five"
check "a file is staged" is_staged five
put "$under/five" 2000 changed
slow_control gate=READ
check "its times are told while its content does not come" wait_for 10 shows_time five
check "that is asked for" slow_wait_held
timeout -k 1 "$PATIENCE" cat "$MNT/five" >/dev/null &
reading=$!
own_process "$reading"
same "a sync waits for that, for as long as it was told" 3 "$(ctl sync -t 2 "$MNT" >/dev/null 2>&1 || echo $?)"
check "who has it open reads on" read_open 7
slow_control ''
check "the content comes" wait_for 10 same_file five
check "to who waits for it" wait "$reading"
t_forget_process "$reading"
check "and to who has it open" wait_for 10 same_open 7 five
exec 7<&-

# ---- a file that was replaced at the source ----
# Without a copy, as by who asks for no access time: the kernel opens what the source has.
read_plain() { dd if="$1" of=/dev/null bs=1M iflag=noatime; }
check "a file is read" read_plain "$MNT/four"
head -c 300001 /dev/urandom >"$under/new"
mv "$under/new" "$under/four"
check "when it was replaced, it is opened all the same" read_plain "$MNT/four"
check "and is what it was replaced by" wait_for 10 same_file four
# Its number may be given to the next file that is made: that is another all the same.
for round in 1 2 3 4 5; do
    echo "old$round" >"$under/six"
    wait_for 10 same_file six
    echo "new$round" >"$under/new"
    mv "$under/new" "$under/six"
    echo another >"$MNT/made$round"
    content=$(cat "$MNT/six")
    check "what a file is read as is not what is made then" [ "$content" = "old$round" -o "$content" = "new$round" ]
    echo "new$round" >"$under/new"
    mv "$under/new" "$under/six"
    echo another >"$under/found$round"
    check "nor" [ "$(cat "$MNT/found$round")" = another ]
    content=$(cat "$MNT/six")
    check "what is found there" [ "$content" = "old$round" -o "$content" = "new$round" ]
done
done_testing
