#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Each header compiles on its own, and twice.
# timeout: 300

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
cd "$TOP"

compiler=${CC:-cc}
have "$compiler" || skip_all "no C compiler"
flags=(-std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-function -Werror -fsyntax-only -I"$TOP" -I"$BUILD_DIR")
includedir=$(mount-helpers/find-fuse 2>/dev/null | sed -n 's/^includedir=//p') || true
if [ -n "$includedir" ]; then
    flags+=(-isystem "$includedir")
elif have pkg-config; then
    read -r -a more < <(pkg-config --cflags fuse3 2>/dev/null; echo)
    flags+=(${more[@]+"${more[@]}"})
fi

compiles() { # HEADER
    printf '#include "%s"\n#include "%s"\nint main(void) { return 0; }\n' "$1" "$1" >"$TMPDIR/one.c"
    "$compiler" "${flags[@]}" -I"$(dirname "$1")" "$TMPDIR/one.c"
}

while IFS= read -r header; do
    check "$header" compiles "$header"
done < <(project_files '*.h')
[ "$T_COUNT" -gt 0 ] || fail "there are headers"
done_testing
