# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# A slow source for mounted tests: sourced after harness.sh.  $SRC becomes a mount of slowfs over the plain directory
# $SLOW_UNDER, so that mount_fs serves what is slow, and a test can hold, fail and count what goes to the source.
# tests/slowfs/slowfs.c has the options and the words of control.
#
#   new_dirs
#   mount_slow latency_us=2000
#   mount_fs stage=prefetch
#   slow_control 'gate=READ fail=GETATTR:EIO'   # hold all reads, fail all getattr; '' ends both
#   slow_count read

: "${TMPDIR:?source tests/lib/harness.sh first}"
: "${SLOWFS:=$BUILD_DIR/tests/slowfs}"

SLOW_UNDER=
SLOW_PID=
SLOW_STATS=
SLOW_CONTROL=

have_slowfs() { [ -x "$SLOWFS" ]; }

t_slow_mounted_or_dead() { is_mounted "$SRC" || process_gone "$SLOW_PID"; }

# Mounts $WORK/slow-under (made when it is not there) at $SRC; after new_dirs, and before mount_fs.
mount_slow() { # [OPTIONS]
    SLOW_UNDER=$WORK/slow-under
    SLOW_STATS=$WORK/slow-stats.json
    SLOW_CONTROL=$WORK/slow-control
    mkdir -p "$SLOW_UNDER"
    : >"$SLOW_CONTROL"
    local options="control=$SLOW_CONTROL,stats=$SLOW_STATS${1:+,$1}"
    new_log
    "${T_WRAP[@]}" "$SLOWFS" "$SLOW_UNDER" "$SRC" -f -o "$options" </dev/null >>"$LOG" 2>&1 &
    SLOW_PID=$!
    own_process "$SLOW_PID"
    if wait_for 60 t_slow_mounted_or_dead && is_mounted "$SRC" &&
        timeout -k 5 "$PATIENCE" stat "$SRC/." >/dev/null; then
        return 0
    fi
    fail "mount the slow source" "$(tail -n 40 "$LOG")"
    return 1
}

# Signals slowfs and waits for the statistics that it writes then.
t_slow_signal() { # SIGNAL
    rm -f "$SLOW_STATS"
    kill "-$1" "$SLOW_PID" && wait_for 20 test -s "$SLOW_STATS"
}

# Prints the counts as JSON: each operation, and read_bytes, written_bytes, at_gate and waiting (now), most_waiting.
slow_stats() { t_slow_signal USR1 && cat "$SLOW_STATS"; }

# Prints one number of them: an operation that was never asked for is 0.
slow_count() { # NAME
    local stats
    stats=$(slow_stats) || return 1
    printf '%s\n' "$stats" | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"
}

# Replaces the words of control ('' ends all holds and failures); in force when this returns.
slow_control() { # WORDS
    printf '%s\n' "$1" >"$SLOW_CONTROL"
    t_slow_signal HUP
}

# Waits until at least so many operations are held at a gate.
slow_wait_held() { # [COUNT]
    wait_for 20 t_slow_held "${1:-1}"
}

t_slow_held() { [ "$(slow_count at_gate)" -ge "$1" ]; }

# Unmounts the slow source; nothing may use it any more.
unmount_slow() {
    local status=0
    umount "$SRC" && wait_for 20 process_gone "$SLOW_PID" || return 1
    wait "$SLOW_PID" || status=$?
    t_forget_process "$SLOW_PID"
    SLOW_PID=
    return "$status"
}
