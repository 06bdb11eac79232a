#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default staged pagecache
# sanitizers:
# timeout: 600
#
# A real project (the distribution's pcre2) is configured and built inside the mount, its own tests
# pass there, and what was built is the same, bit for bit, as what a native build gives. Both builds
# are done at the same path, bound to one tree after the other, since objects record their path.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"

for tool in make "${CC:-gcc}" dpkg-source; do
    have "$tool" || skip_all "$tool is not installed"
done
shared=$SHARED/compile
at=$shared/at
unpacked=$shared/unpacked
mkdir -p "$at"
if [ ! -d "$unpacked" ]; then
    if ! "$TOP/mount-helpers/fetch-source" pcre2 "$TMPDIR/unpacked" >"$TMPDIR/fetch.log" 2>&1; then
        t_comment <"$TMPDIR/fetch.log"
        skip_all "the source package pcre2 cannot be fetched"
    fi
    # pcre2grep forks first and flushes what it has printed after that, so its lines and its child's come in either
    # order, natively, too; and its own test compares them.
    sed -i 's/^pid = fork();/(void)fflush(stdout); pid = fork();/' "$TMPDIR/unpacked/src/pcre2grep.c"
    mv "$TMPDIR/unpacked" "$unpacked"
fi

export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
unset MAKEFLAGS MFLAGS CFLAGS CPPFLAGS LDFLAGS
new_dirs
cp -a "$unpacked" "$SRC/project"
mount_fs dev,suid || exit 1

# Binds $1 to the common path and runs the rest there.
build_in() { # TREE NAME CMD...
    local tree=$1 log=$TMPDIR/$2.log status=0
    shift 2
    mount --bind "$tree" "$at"
    (cd "$at/project" && "$@") >"$log" 2>&1 </dev/null || status=$?
    cd / && umount "$at"
    [ "$status" = 0 ] || tail -n 60 "$log"
    return "$status"
}

configure() {
    ./configure --disable-static-libs --disable-dependency-tracking --prefix=/nonexistent \
        CFLAGS='-g -O1' ARFLAGS=crD AR_FLAGS=crD RANLIB='ranlib -D'
}

build() { make -j"$(nproc)"; }

tests() { make -j"$(nproc)" check; }

# Everything that compilers, linkers and configure wrote, with its mode; not logs, which tell times.
summary() { # TREE
    (cd "$1/project" && find . -type f ! -name '*.log' ! -name '*.trs' ! -name 'config.status' ! -path './test*' \
        -printf '%m ' -exec sha256sum {} \; | sort -k 3)
    (cd "$1/project" && find . -type l ! -path './test*' -printf 'link %p %l\n' | sort)
}

kind_count() { # TREE PATTERN
    find "$1/project" -name "$2" -type f | wc -l
}

if [ ! -s "$shared/native.sum" ]; then
    cp -a "$unpacked" "$NATIVE/project"
    check "native: configure" build_in "$NATIVE" native-configure configure
    check "native: make" build_in "$NATIVE" native-make build
    # Not for the others where it did not work.
    summary "$NATIVE" >"$shared/native.new"
    [ "$(kind_count "$NATIVE" '*.o')" -le 20 ] || mv "$shared/native.new" "$shared/native.sum"
fi
check "mount: configure" build_in "$MNT" mount-configure configure
check "mount: make" build_in "$MNT" mount-make build

summary "$MNT" >"$TMPDIR/mount.sum"
summary "$SRC" >"$TMPDIR/source.sum"
printf '# %d objects and %d libraries among %d files\n' "$(kind_count "$SRC" '*.o')" \
    "$(($(kind_count "$SRC" '*.so*') + $(kind_count "$SRC" '*.a')))" "$(wc -l <"$TMPDIR/mount.sum")"
check "there are objects to compare" test "$(kind_count "$SRC" '*.o')" -gt 20
check "built in the mount and natively: the same bits" diff "$shared/native.sum" "$TMPDIR/mount.sum"
check "the mount shows what the source has" diff "$TMPDIR/source.sum" "$TMPDIR/mount.sum"

nothing_to_do() { make -q; }
check "make finds nothing out of date" build_in "$MNT" mount-again nothing_to_do
check "mount: the project's own tests pass" build_in "$MNT" mount-check tests
unmount_fs && pass "the mount ends cleanly"
done_testing
