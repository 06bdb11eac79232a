#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Starting with less than everything: capabilities taken away, few descriptors, closed standard streams, a full disk
# for the messages.  Either the mount works, or it is refused with a word on stderr; never a crash, never a mount that
# answers errors.
# variants: default
# sanitizers: address
# timeout: 180

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"

new_dirs
echo content >"$SRC/file"
options=$(variant_options)
command=("${T_WRAP[@]}" "$STAGEFS" "$SRC" "$MNT" ${options:+-o "$options"})

works() { # what a user does first
    [ "$(cat "$MNT/file")" = content ] && ls -l "$MNT" && echo more >"$MNT/new" && [ "$(cat "$MNT/new")" = more ] &&
        chmod 640 "$MNT/new" && mv "$MNT/new" "$MNT/newer" && mkdir "$MNT/dir" && rmdir "$MNT/dir" && rm "$MNT/newer"
}

works_or_refused() { # NAME CMD...
    local name=$1 status=0
    shift
    timeout -k 5 "$PATIENCE" "$@" >"$TMPDIR/out" 2>"$TMPDIR/err" </dev/null || status=$?
    if is_mounted "$MNT"; then
        same "$name: mounted, so it says success" 0 "$status"
        check "$name: works" works
        umount "$MNT"
        check "$name: ends" wait_for 60 no_fs_process
    elif [ "$status" = 0 ] || [ "$status" -ge 124 ]; then
        fail "$name: works or is refused" "status $status: $(cat "$TMPDIR/err")"
    else
        check "$name: refused, with a word" test -s "$TMPDIR/err"
    fi
    rm -rf "$MNT/new" "$SRC/new" "$SRC/newer" "$SRC/dir"
}

must_work() { # NAME CMD...
    local status=0
    timeout -k 5 "$PATIENCE" "${@:2}" >"$TMPDIR/out" 2>"$TMPDIR/err" </dev/null || status=$?
    same "$1: starts" "0" "$status$([ "$status" = 0 ] || cat "$TMPDIR/err")"
    check "$1: works" works
    umount "$MNT" 2>/dev/null || true
    check "$1: ends" wait_for 60 no_fs_process
}

must_work "with everything" "${command[@]}"

if have capsh; then
    for capability in sys_admin dac_read_search dac_override setuid setgid fowner chown fsetid mknod sys_resource \
        setpcap setfcap sys_nice lease kill; do
        works_or_refused "without CAP_${capability^^}" capsh --drop=cap_$capability -- -c 'exec "$@"' - "${command[@]}"
    done
    refused_for_others() { # what others make would be root's
        # shellcheck disable=SC2016
        ! capsh --drop=cap_dac_read_search -- -c 'exec "$@"' - "${command[@]}" -o allow_other 2>"$TMPDIR/err" &&
            test -s "$TMPDIR/err" && not_mounted "$MNT"
    }
    check "without CAP_DAC_READ_SEARCH nobody else is let in" refused_for_others
    # shellcheck disable=SC2016
    works_or_refused "without any capability" capsh --drop=all -- -c 'exec "$@"' - "${command[@]}"
else
    skip "without capabilities" "capsh is not installed"
fi

# shellcheck disable=SC2016
{
    must_work "with closed standard streams" bash -c 'exec "$@" <&- >&- 2>&-' - "${command[@]}"
    must_work "with a full device for its messages" bash -c 'exec "$@" >/dev/full 2>&1' - "${command[@]}"
    must_work "with 256 descriptors" bash -c 'ulimit -n 256 && exec "$@"' - "${command[@]}"
    works_or_refused "with 8 descriptors" bash -c 'ulimit -n 8 && exec "$@"' - "${command[@]}"
    must_work "with a umask of 0777" bash -c 'umask 0777 && exec "$@"' - "${command[@]}"
    must_work "with an empty environment" env -i "$(command -v env)" \
        ${ASAN_OPTIONS+ASAN_OPTIONS="$ASAN_OPTIONS"} ${LSAN_OPTIONS+LSAN_OPTIONS="$LSAN_OPTIONS"} "${command[@]}"
    must_work "with signals blocked and ignored" bash -c 'trap "" TERM HUP INT PIPE CHLD && exec "$@"' - "${command[@]}"
    must_work "in a removed working directory" bash -c 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"' \
        "$WORK/removed" "${command[@]}"
}

# In a user namespace of its own there is no passthrough, and the mount is the namespace's own.
if unshare -Urm true 2>/dev/null; then
    # shellcheck disable=SC2016
    in_namespace() {
        timeout -k 5 "$PATIENCE" unshare -Urm --propagation private bash -c '
            out=$("$@" 2>&1) || { [ -n "$out" ]; exit; }
            mnt=$0
            [ "$(cat "$mnt/file")" = content ] && echo x >"$mnt/new" && [ "$(cat "$mnt/new")" = x ] && rm "$mnt/new"
            status=$?
            umount "$mnt"
            exit $status' "$MNT" "${command[@]}"
    }
    check "in a user namespace: works or is refused" in_namespace
    check "in a user namespace: ends" wait_for 60 no_fs_process
else
    skip "in a user namespace" "user namespaces are not allowed here"
fi

done_testing
