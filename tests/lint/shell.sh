#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The shell scripts pass shellcheck.
# timeout: 300

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
cd "$TOP"

have shellcheck || skip_all "shellcheck is not installed"

while IFS= read -r script; do
    case $script in
    *.sh) ;;
    *) head -n 1 "$script" | grep -aqE '^#!.*[/ ](ba|da)?sh( |$)' || continue ;;
    esac
    # SC1091, SC2154: TOP and what the harness sets are not known to shellcheck.
    check "$script" shellcheck -S warning -e SC1091,SC2154 "$script"
done < <(project_files)
done_testing
