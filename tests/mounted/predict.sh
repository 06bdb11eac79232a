#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default pagecache
# sanitizers: address thread
# timeout: 240
#
# What is staged before anybody asks for it: what sources include, and the next files of a folder that is gone through;
# that it is what the source has, and ends where nobody reads it.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"
. "$TOP/tests/lib/slow-source.sh"

have_slowfs || skip_all "slowfs is not built"

state() { getfattr --only-values -n user.stagefs.state "$MNT/$1" 2>/dev/null; }
staged() { for name in "$@"; do [ "$(state "$name")" = hot ] || return 1; done; }
absent() { for name in "$@"; do [ "$(state "$name")" = absent ] || { echo "$name" && return 1; }; done; }
number() { # PREDICTOR NAME: from the statistics
    "$BUILD_DIR/client/stagectl" stats --json "$MNT" | python3 -c '
import json, sys
print(json.load(sys.stdin)["predictors"][sys.argv[1]][sys.argv[2]])' "$1" "$2"
}
at_least() { [ "$(number "$1" "$2")" -ge "$3" ]; }
at_most() { [ "$(number "$1" "$2")" -le "$3" ] || { number "$1" "$2" && false; }; }
same() { cmp "$MNT/$1" "$SLOW_UNDER/$1"; }
reads_of() { # CMD...: reads that reach the source meanwhile
    local before
    before=$(slow_count read)
    "$@" || return 1
    echo $(($(slow_count read) - before))
}
none_of() { [ "$(reads_of "$@")" = 0 ]; }
settled() { touch -d '2 hours ago' "$@"; }

new_dirs
under=$WORK/slow-under
mkdir -p "$under"/{src/sub,include/lib,other/inc,unrelated,many,wide,odd}
cat >"$under/src/a.c" <<'END'
#include "near.h"
#include <lib/far.h>
#include <stdio.h>
#if 0
#include "sub/../sub/open.h"
#endif
// #include "comment.h"
END
echo '#include "sub/deep.h"' >"$under/src/near.h"
echo '#include "../near.h" /* in a circle */' >"$under/src/sub/deep.h"
echo 'int open_;' >"$under/src/sub/open.h"
echo 'int comment;' >"$under/src/comment.h"
echo '#include "further.h"' >"$under/include/lib/far.h"
echo 'int further;' >"$under/include/lib/further.h"
printf '#include <%s.h>\n' one two three >"$under/unrelated/b.c"
for name in one two three; do echo "int $name;" >"$under/other/inc/$name.h"; done
for i in $(seq 100 140); do echo "int i$i;" >"$under/many/f$i.c" && echo x >"$under/many/f$i.txt"; done
for i in $(seq 700); do echo "int w$i;" >"$under/wide/w$i.h"; done
for i in $(seq 700); do echo "#include \"w$i.h\""; done >"$under/wide/all.c"
mkdir "$WORK/outside" && echo 'int outside;' >"$WORK/outside/secret.h"
ln -s "$WORK/outside/secret.h" "$under/odd/link.h"
mkfifo "$under/odd/fifo.h"
mkdir "$under/odd/folder.h"
cat >"$under/odd/o.c" <<END
#include "../../outside/secret.h"
#include "../../../../../../../../../../etc/passwd"
#include "$WORK/outside/secret.h"
#include "link.h"
#include "fifo.h"
#include "folder.h"
#include "."
#include ".."
#include "//"
#include "good.h"
END
echo 'int good;' >"$under/odd/good.h"
for i in $(seq 70); do mkdir -p "$under/path/d$i"; done
mkdir "$under/path/gone"
printf '#include <%s.h>\n' probe >"$under/path/first.c"
printf '#include <%s.h>\n' last >"$under/path/second.c"
echo 'int last;' >"$under/path/d70/last.h"
mkdir -p "$under"/db/{src,inc/deep,build,far}
for name in x y; do echo '#include <deep/only.h>' >"$under/db/src/$name.c"; done
echo 'int only;' >"$under/db/inc/deep/only.h"
echo 'int forced;' >"$under/db/forced.h"
touch "$under/db/build/build.ninja" "$under/db/far/Makefile" "$under/db/Makefile"
cat >"$under/db/build/compile_commands.json" <<'END'
[{"directory": "/elsewhere/db/build", "file": "../src/none.c", "command": "cc -c ../src/none.c"},
 {"directory": "/elsewhere/db/build", "file": "../src/x.c",
  "command": "cc -I../inc -I/usr/include -include ../forced.h -c ../src/x.c"},
 {"directory": "/elsewhere/db/build", "file": "/elsewhere/db/src/y.c", "arguments": ["cc", "-I", "../../../.."]},
 {"directory": "/elsewhere/db/build", "file": "/etc/passwd"}, {"directory": "db", "file": "../../../../etc/passwd"}]
END
for i in $(seq 400); do echo "int far$i;" >"$under/db/far/far$i.c"; done
python3 - >"$under/db/far/compile_commands.json" <<'END'
import json
print(json.dumps([{"directory": "/tmp/out", "file": "/another/machine/db/far/far%d.c" % i} for i in range(1, 401)]))
END
echo '[{"directory": "/elsewhere' >"$under/db/compile_commands.json"
# What earlier builds have left, of ninja and of make, and options in a file.
mkdir -p "$under"/nj/{src,inc,build} "$under"/mk/{src,inc,obj} "$under"/rsp/forced
echo '#include "n.h"' | tee "$under/nj/src/n.c" "$under/nj/src/abs.c" >/dev/null
echo 'int n;' >"$under/nj/inc/n.h"
cat >"$under/nj/build/build.ninja" <<END
rule cc
  command = gcc -MD -MF \$out.d -I../inc -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
build n.o: cc ../src/n.c
build abs.o: cc $under/nj/src/abs.c
END
ninja -C "$under/nj/build" >/dev/null
echo '#include "m.h"' >"$under/mk/src/m.c"
echo 'int m;' >"$under/mk/inc/m.h"
(cd "$under/mk" && gcc -MD -MP -MF obj/m.d -Iinc -c src/m.c -o obj/m.o)
(cd "$under/mk" && gcc -MD -MF obj/abs.d -I"$PWD/inc" -c "$PWD/src/m.c" -o obj/m.o)
echo 'int forced;' >"$under/rsp/forced/f.h"
echo '-DX -include "forced/f.h"' >"$under/rsp/options.rsp"
echo '[{"directory": "/far/rsp", "file": "none.c"}, {"directory": "/far/rsp", "file": "x.c", "command": "cc @options.rsp"}]' \
    >"$under/rsp/compile_commands.json"
echo 'int x;' >"$under/rsp/x.c"
touch "$under/rsp/Makefile"
find "$under" -type f -exec touch -d '2 hours ago' {} +
mount_slow latency_us=300 || done_testing

mount_fs uring=off,ttl=300 || done_testing
check "a source is read" same src/a.c
check "what it includes is staged" wait_for 30 staged src/near.h
check "from the folders above it, too" wait_for 30 staged include/lib/far.h
check "and what that includes" wait_for 30 staged src/sub/deep.h include/lib/further.h
check "conditionals are left open" wait_for 30 staged src/sub/open.h
check "comments are not" absent src/comment.h
check "six files were staged ahead, or five" at_least includes files 5
check "none of them was read" at_most includes used_files 0
check "reading one of them asks the source for no data" none_of same include/lib/further.h
check "that counts" wait_for 10 at_least includes used_files 1
for name in src/near.h include/lib/far.h src/sub/deep.h src/sub/open.h; do check "$name is right" same "$name"; done

check "one whose folders are not known" same unrelated/b.c
probe() { [ ! -e "$MNT/unrelated/inc/one.h" ] && [ -e "$MNT/other/inc/one.h" ]; }
check "a compiler asks for the first name" probe
check "the others are found in that folder" wait_for 30 staged other/inc/two.h other/inc/three.h

cat_all() { for i in "$@"; do cat "$MNT/many/f$i.c" >/dev/null || return 1; done; }
check "three files of a folder are read in order" cat_all 100 101 102
check "the next ones are staged" wait_for 30 staged many/f103.c many/f104.c many/f105.c
check "those of another kind are not" absent many/f103.txt many/f110.txt
check "and no more than some" absent many/f140.c
check "reading on" cat_all 103 104 105 106
check "takes more of them" wait_for 30 staged many/f112.c
check "which is seen" at_least siblings used_files 3
check "at the end there are none left" cat_all $(seq 107 140)
check "what was staged was read" at_least siblings used_files 20

check "odd names are passed over" same odd/o.c
check "a good one among them is not" wait_for 30 staged odd/good.h
check "one that is larger than the record allows" same wide/all.c
held_back() { [ "$(number includes skipped)" -gt 0 ]; }
check "holds back in the end" wait_for 60 held_back
check "after some hundred files that nobody reads" at_most includes files 600
text() { "$BUILD_DIR/client/stagectl" stats "$MNT" | grep -q 'by includes, throttled'; }
check "people are told" text

change() { echo 'int changed_behind;' >"$under/src/near.h" && "$BUILD_DIR/client/stagectl" sync "$MNT"; }
check "one is changed behind" change
check "what is read is the new one, as soon as the source has it" wait_for 10 same src/near.h
unmount_fs && pass "the mount ends cleanly"

mount_fs uring=off,ttl=300 || done_testing
probe_all() { for i in $(seq 70); do [ ! -e "$MNT/path/d$i/probe.h" ] || return 1; done; }
check "one whose header is nowhere" same path/first.c
probe_gone() { [ ! -e "$MNT/path/gone/probe.h" ]; }
kept_open() { find "/proc/$DAEMON/fd" -lname '*/path/gone*' | grep -q .; }
let_go() { ! kept_open; }
check "a folder is asked for it" probe_gone
check "and removed" rmdir "$MNT/path/gone"
check "it is not kept for that" wait_for 10 let_go
check "more folders than are kept are asked for it" probe_all
check "another" same path/second.c
check "is found in the last of them" wait_for 30 staged path/d70/last.h
unmount_fs

mount_fs uring=off,ttl=300 || done_testing
check "a build begins" stat "$MNT/db/build/build.ninja"
check "what its database names is staged" wait_for 30 staged db/src/x.c db/src/y.c db/forced.h
check "and what that includes, from the folders of its -I" wait_for 30 staged db/inc/deep/only.h
for name in src/x.c src/y.c inc/deep/only.h; do check "$name is right" same "db/$name"; done
check "of graphs three files" at_least graphs files 3
check "two of them were read" at_least graphs used_files 2
check "one with a broken database begins" stat "$MNT/db/Makefile"
check "one with paths of another machine" stat "$MNT/db/far/Makefile"
check "the first of many are staged" wait_for 30 at_least graphs files 259
check "and not all at once" at_most graphs files 259
read_far() { for i in $(seq 60); do cat "$MNT/db/far/far$i.c" >/dev/null || return 1; done; }
check "the build goes on" read_far
check "and more are staged ahead of it" wait_for 30 at_least graphs files 370
unmount_fs

mount_fs uring=off,ttl=300,predict=graphs || done_testing
check "a build of ninja begins that was made before" stat "$MNT/nj/build/build.ninja"
check "what it remembers is staged, the header, too" wait_for 30 staged nj/src/n.c nj/src/abs.c nj/inc/n.h
check "what make reads of an earlier build is read" same mk/obj/m.d
check "what it names is staged, from where the compiler ran" wait_for 30 staged mk/src/m.c mk/inc/m.h
for name in nj/src/n.c nj/inc/n.h mk/inc/m.h; do check "$name is right" same "$name"; done
check "a build begins whose options are in a file" stat "$MNT/rsp/Makefile"
check "what they include is staged" wait_for 30 staged rsp/x.c rsp/forced/f.h
unmount_fs

mount_fs uring=off,ttl=300,predict=graphs || done_testing
check "one with absolute paths is read" same mk/obj/abs.d
check "what it names is staged, too" wait_for 30 staged mk/src/m.c mk/inc/m.h
check "predict=graphs: a source is read" same src/a.c
check "predict=graphs: what it includes is not staged" absent src/near.h
unmount_fs

mount_fs uring=off,ttl=300,predict=includes || done_testing
check "predict=includes: a build begins" stat "$MNT/db/build/build.ninja"
check "a source is read" same src/a.c
check "what it includes is staged" wait_for 30 staged src/near.h
check "what a database names is not" absent db/src/x.c db/src/y.c
unmount_fs

mount_fs uring=off,ttl=300,predict=none || done_testing
check "predict=none: a source is read" same src/a.c
check "files are read in order" cat_all $(seq 100 110)
check "nothing is staged ahead" absent src/near.h include/lib/far.h many/f111.c
check "nor counted" at_most includes files 0
unmount_fs

mount_fs uring=off,predict=siblings || done_testing
check "predict=siblings: a source is read" same src/a.c
check "files are read in order" cat_all $(seq 100 104)
check "the next ones are staged" wait_for 30 staged many/f105.c
check "what is included is not" absent src/near.h
unmount_fs

mount_fs uring=off || done_testing
cat "$MNT/src/a.c" "$MNT/wide/all.c" >/dev/null
unmount_fs && pass "a mount that is ended amid predictions ends cleanly"

for i in 1 2 3; do
    mount_fs uring=off,stage=prefetch,mem=1M || done_testing
    check "with little memory, $i: a source is read" same wide/all.c
    check "and others" cat_all $(seq 100 140)
    unmount_fs
done
unmount_slow && pass "the slow source ends cleanly"
done_testing
