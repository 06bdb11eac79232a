#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The C sources are formatted as .clang-format says.
# timeout: 120

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
cd "$TOP"

# Each version of clang-format has its own idea of some lines; 14 is the one that decides.
formatter=
for candidate in clang-format-14 clang-format; do
    if have $candidate && $candidate --version | grep -q 'version 14\.'; then
        formatter=$candidate
        break
    fi
done
[ -n "$formatter" ] || skip_all "clang-format 14 is not installed"

formatted() { # FILE
    $formatter "$1" | diff -u "$1" - | head -n 20
    [ "${PIPESTATUS[1]}" = 0 ]
}

while IFS= read -r source; do
    check "$source" formatted "$source"
done < <(project_files '*.c' '*.h')
done_testing
