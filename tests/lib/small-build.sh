# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# A small program that is built in a mount, below a source that others change: sourced by tests, after harness.sh.
# `under` is the folder in which the server has the tree; "$MNT" is where it is mounted, at last.

make_tree() { # twenty sources, a header each and one for all
    local i
    mkdir -p "$under"/{src,include}
    echo 'int common(int);' >"$under/include/common.h"
    for i in $(seq 20); do
        printf '#include "common.h"\n#define N%d %d\n' "$i" "$i" >"$under/include/h$i.h"
        printf '#include <h%d.h>\nint f%d(int n) { return n + N%d; }\n' "$i" "$i" "$i" >"$under/src/f$i.c"
    done
    {
        echo '#include <stdio.h>'
        for i in $(seq 20); do echo "int f$i(int);"; done
        echo 'int main(void) { int n = 0;'
        for i in $(seq 20); do echo "n = f$i(n);"; done
        echo 'printf("%d\n", n); return 0; }'
    } >"$under/src/main.c"
    cat >"$under/Makefile" <<'END'
objects := $(patsubst src/%.c,%.o,$(wildcard src/*.c))
program: $(objects)
	$(CC) -o $@ $^
%.o: src/%.c
	$(CC) -MD -Iinclude -c -o $@ $<
-include $(wildcard *.d)
END
}
build() { make -j2 -C "$MNT" >"$WORK/make.log" 2>&1 || { tail -n 20 "$WORK/make.log" && return 1; }; }
runs() { [ "$("$under/program")" = 210 ]; }
nothing_to_do() { build && grep -q 'is up to date' "$WORK/make.log"; }
next_second() { # some servers tell no more of a time
    local now
    now=$(date +%s)
    while [ "$(date +%s)" = "$now" ]; do :; done
}
rebuilds() { # what a header says that was changed at the server
    next_second
    sed -i "s/#define N7 .*/#define N7 $1/" "$under/include/h7.h"
    touch "$under/include/h7.h"
    next_second
    "$BUILD_DIR/client/stagectl" sync "$MNT" && build && [ "$("$under/program")" = $((203 + $1)) ] ||
        { "$under/program" && cat "$WORK/make.log" && return 1; }
}
settled() { find "$under" -exec touch -h -d '2 hours ago' {} +; }
content() { [ "$(cat "$MNT/$1" 2>/dev/null)" = "$2" ]; }
same_tree() { diff -r "$under" "$MNT"; }
