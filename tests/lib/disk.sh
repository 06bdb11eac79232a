# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the mount tells of its stage_dir=, for mounted tests: sourced after harness.sh.

: "${TMPDIR:?source tests/lib/harness.sh first}"

disk() { # NAME: of the statistics of what is on disk
    ctl stats --json "$MNT" | python3 -c '
import json, sys
print(json.load(sys.stdin)["disk"][sys.argv[1]])' "$1"
}
is_disk() { [ "$(disk "$1")" = "$2" ]; }
