#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# No path of one person's machine, no host of a package registry (a machine's own configuration names those), and each
# source file begins with its licence.
# timeout: 60

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
cd "$TOP"

none() { # NAME REGEX
    local found
    found=$(project_files | grep -vE '^(LICENSE|client/LICENSE|tests/lint/words\.sh)$' |
        xargs -d '\n' grep -nIE -e "$2" -- 2>/dev/null | head -n 20) || true
    same "$1" "" "$found"
}

none "no path of one machine" '(^|[^A-Za-z0-9_.$}/-])/(home/[a-z]+|Users/[A-Za-z]+|wor[k])/'
none "no package registry is named" \
    '(deb|security|ftp|snapshot|archive)\.(debian|ubuntu)\.(org|com)|pypi\.org|crates\.io|registry\.npmjs|proxy\.golang'
none "no conflict markers" '^(<<<<<<<|>>>>>>>) '
none "no trailing whitespace" '[[:space:]]+$'

unlicensed() {
    local file
    project_files '*.c' '*.h' '*.sh' meson.build | while IFS= read -r file; do
        head -n 3 "$file" | grep -qE 'SPDX-License-Identifier: (GPL-2.0-only|LGPL-2.1-or-later)$|SPDX-License-Identifier: (GPL-2.0-only|LGPL-2.1-or-later) ' || echo "$file"
    done
}
same "each source names its licence" "" "$(unlicensed)"
done_testing
