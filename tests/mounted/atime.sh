#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Access times move as the mount's options say, whatever the source's own mount does: reads through the mount, of a
# file, a folder and a link, beside reads of the source.
# variants: default uring-off
# sanitizers:
# timeout: 120

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
mount_loop_ext4 "$WORK/disk" 64M strictatime || skip_all "no loop device can be mounted here"
SRC=$WORK/disk/src
mkdir "$SRC"

atimes() { stat -c %x "$SRC/file" "$SRC/folder" "$SRC/link"; }
read_all() { # DIR
    cat "$1/file"
    ls "$1/folder"
    readlink "$1/link"
}
# Reads through the mount until the clock has moved on so far that each strict read shows. The kernel keeps listings
# and link targets for a while, so each look at them is a new mount's first one.
tick() { # until the clock of the file system shows another time
    local control
    echo x >"$SRC/clock"
    control=$(stat -c %y "$SRC/clock")
    while echo x >"$SRC/clock" && [ "$(stat -c %y "$SRC/clock")" = "$control" ]; do :; done
}
moved() { # OPTIONS: which of file, folder and link moved with the second read
    local before
    rm -rf "${SRC:?}"/*
    mkdir "$SRC/folder"
    echo content >"$SRC/file"
    ln -s file "$SRC/link"
    # The first read after a change moves the time even with relatime, and so does the next one where both were
    # within one tick of the clock.
    tick
    read_all "$SRC" >/dev/null
    before=$(atimes)
    tick
    mount_fs "$1" >&2
    read_all "$MNT" >/dev/null
    unmount_fs >&2
    paste -d ' ' <(printf 'file\nfolder\nlink\n') <(atimes) <(printf '%s\n' "$before") |
        while read -r name day clock zone day_before clock_before zone_before; do
            [ "$day $clock $zone" = "$day_before $clock_before $zone_before" ] || printf '%s ' "$name"
        done
}

same "as the source's own mount: strictly" "file folder link " "$(moved rw)"
same "relatime" "" "$(moved relatime)"
same "noatime" "" "$(moved noatime)"
same "ro" "" "$(moved ro)"
same "nodiratime" "file link " "$(moved nodiratime)"
mount -o remount,relatime "$WORK/disk"
same "as the source's own mount: relatime" "" "$(moved rw)"
mount -o remount,noatime "$WORK/disk"
same "strictatime on a source with noatime" "file folder link " "$(moved strictatime 2>/dev/null || true)"
done_testing
