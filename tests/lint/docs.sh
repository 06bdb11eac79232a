#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The manual pages are well formed, every option of the table stands in the manual, and the documents' links lead
# somewhere.
# timeout: 60

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
cd "$TOP"

pages=()
while IFS= read -r page; do
    pages+=("$page")
done < <(
    find "$BUILD_DIR/docs" docs -maxdepth 2 -name '*.[1-8]' -size +0 2>/dev/null | sort
)
for page in ${pages[@]+"${pages[@]}"}; do
    if have mandoc; then
        check "mandoc: $(basename "$page")" mandoc -T lint -W warning "$page"
    else
        skip "mandoc: $(basename "$page")" "mandoc is not installed"
    fi
done

if [ -x "$STAGEFS" ] && "$STAGEFS" -h >"$TMPDIR/help" 2>/dev/null; then
    manual=$(find "$BUILD_DIR/docs" docs -maxdepth 2 -name stagefs.1 2>/dev/null | head -n 1)
    if [ -n "$manual" ]; then
        missing=
        while read -r option; do
            grep -qE -- "(^| )$option([= ,]|\$)" "$manual" || missing+="$option "
        done < <(sed -n '/^options/,$s/^  \([a-z_]*\).*/\1/p' "$TMPDIR/help" | grep .)
        same "the manual has every option of --help" "" "$missing"
    else
        fail "stagefs(1) is built"
    fi
else
    skip "the manual has every option of --help" "stagefs is not built"
fi

broken_links() {
    local document target
    project_files '*.md' | while IFS= read -r document; do
        { grep -oE '\]\([^)# ]+[^)]*\)' "$document" || true; } | sed 's/^](//; s/)$//; s/#.*//' | while IFS= read -r target; do
            case $target in
            '' | *://* | mailto:*) continue ;;
            esac
            [ -e "$(dirname "$document")/$target" ] || echo "$document: $target"
        done
    done
}
same "the documents' links lead to files" "" "$(broken_links)"
done_testing
