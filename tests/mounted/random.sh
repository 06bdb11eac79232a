#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# variants: default uring-off staged pagecache
# sanitizers: address thread
# timeout: 300
#
# A long random sequence of operations on the mount and on a plain directory (random.c). A failing
# run is repeated with the seed that it printed: RANDOM_SEED=N tests/run random.
set -euo pipefail
. "$TOP/tests/lib/harness.sh"

steps=12000
[ "$SANITIZER" = none ] || steps=2500

new_dirs
mount_fs dev,suid || exit 1
arguments=(--steps "$steps" --threads 4 --source "$SRC")
[ -z "${RANDOM_SEED-}" ] || arguments+=(--seed "$RANDOM_SEED")
relay_tap "random operations" "${T_WRAP[@]}" "$BUILD_DIR/tests/random" "${arguments[@]}" "$MNT" "$NATIVE"
check "the mount still answers" stat "$MNT/private"
unmount_fs && pass "the mount ends cleanly"
done_testing
