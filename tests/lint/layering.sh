#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A lower layer never includes a higher one, and FUSE is seen by fs/ alone.
# timeout: 60

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
cd "$TOP"

includes() { # LAYER: "file:line:folder/" of each quoted include
    [ -d "$1" ] || return 0
    grep -rnE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$1" |
        sed -E 's/^([^:]*:[^:]*):[^"]*"([^"]*)".*/\1 \2/' || true
}

layer() { # LAYER ALLOWED-FOLDER...
    local layer=$1 bad='' where what folder
    shift
    while read -r where what; do
        case $what in
        config.h) continue ;;
        */*) folder=${what%%/*} ;;
        *) bad+="$where includes \"$what\" without its folder"$'\n' && continue ;;
        esac
        case " $* " in
        *" $folder "*) ;;
        *) bad+="$where includes \"$what\""$'\n' ;;
        esac
    done < <(includes "$layer")
    same "$layer includes only: $*" "" "$bad"
}

layer util util
layer cache util cache
layer fs util cache client fs
layer client util client cache
# libstagefs is linked into other people's programs, and the cache is the daemon's.
same "of the client only stagectl's doctor knows the cache" "client/ctl_doctor.c" \
    "$(grep -lE '#[[:space:]]*include[[:space:]]*"cache/' client/*.[ch])"

fuse_users() {
    local folder
    for folder in util cache client; do
        [ ! -d "$folder" ] || grep -rnE --include='*.[ch]' '#[[:space:]]*include[[:space:]]*[<"](fuse|linux/fuse)' "$folder" || true
    done
}
same "FUSE's headers are included by fs alone" "" "$(fuse_users)"

# What answers an operation calls the layers of fs below it, never another operation's file.
same "an operation's file is included by none" "" \
    "$(grep -rnE --include='*.[ch]' '#[[:space:]]*include.*op_[a-z_]*\.c' util fs 2>/dev/null || true)"

done_testing
