# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What every test script sources: TAP output, private directories, the mount and its daemon, polling, and cleaning
# up whether the script passed, failed or died.  It owns every process and mount that it makes; the script's own
# namespaces (made by tests/run) are the second net below it.  It does not build anything and knows no file system
# semantics.
#
# Given by tests/run: TOP, STAGEFS, BUILD_DIR, SANITIZER, VARIANT, TMPDIR.

: "${TOP:?run through tests/run}" "${TMPDIR:?}"
: "${STAGEFS:=$TOP/build/fs/stagefs}" "${BUILD_DIR:=$TOP/build}" "${SANITIZER:=none}" "${VARIANT:=default}"

T_COUNT=0
T_FAILED=0
T_DONE=
T_MOUNTS=0
T_ALLOW_LOG_ERRORS=
T_PIDS=()
T_LOG_DIR="$TMPDIR/logs"
T_OUT="$TMPDIR/.check-output"
DAEMON=
LOG=/dev/null
# Patience in seconds for one step; sanitizer builds are several times slower.
PATIENCE=60
[ "$SANITIZER" = none ] || PATIENCE=180
mkdir -p "$T_LOG_DIR"

# ---- TAP ----

t_comment() { # [TEXT]: as comment lines; without an argument, from stdin
    if [ $# -gt 0 ]; then printf '%s\n' "$1"; else cat; fi | head -c 20000 | sed 's/^/#   /'
}

pass() { # NAME
    T_COUNT=$((T_COUNT + 1))
    printf 'ok %d - %s\n' "$T_COUNT" "$1"
}

fail() { # NAME [DETAIL]
    T_COUNT=$((T_COUNT + 1))
    T_FAILED=$((T_FAILED + 1))
    printf 'not ok %d - %s\n' "$T_COUNT" "$1"
    if [ -n "${2-}" ]; then t_comment "$2"; fi
}

skip() { # NAME REASON
    T_COUNT=$((T_COUNT + 1))
    printf 'ok %d - %s # SKIP %s\n' "$T_COUNT" "$1" "$2"
}

skip_all() { # REASON: the whole script cannot run here
    printf '1..0 # SKIP %s\n' "$1"
    T_DONE=1
    exit 0
}

# Runs a command in this shell (so a function may set variables); its output is shown when it fails.  As in any
# condition, `set -e` does not hold inside the command.
check() { # NAME CMD...
    local name=$1 status=0
    shift
    "$@" >"$T_OUT" 2>&1 </dev/null || status=$?
    if [ "$status" = 0 ]; then
        pass "$name"
    else
        fail "$name" "status $status from: $*
$(tail -n 60 "$T_OUT")"
    fi
}

check_fails() { # NAME CMD...: passes when the command does not succeed
    local name=$1
    shift
    if "$@" >"$T_OUT" 2>&1 </dev/null; then
        fail "$name" "unexpectedly succeeded: $*
$(tail -n 60 "$T_OUT")"
    else
        pass "$name"
    fi
}

same() { # NAME EXPECTED GOT
    if [ "$2" = "$3" ]; then
        pass "$1"
    else
        fail "$1" "expected: $2
got:      $3"
    fi
}

# Relays the TAP output of a program that prints its own cases, renumbered as cases of this script.
relay_tap() { # NAME CMD...
    local name=$1 status=0 before=$T_FAILED line
    shift
    "$@" >"$T_OUT.tap" 2>&1 </dev/null || status=$?
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        "ok "*"# SKIP"*) T_COUNT=$((T_COUNT + 1)) && printf 'ok %d - %s: %s\n' "$T_COUNT" "$name" "${line#ok * - }" ;;
        "ok "*) pass "$name: ${line#ok * - }" ;;
        "not ok "*) fail "$name: ${line#not ok * - }" ;;
        1..*) ;;
        *) printf '# %s\n' "${line#\# }" ;;
        esac
    done <"$T_OUT.tap"
    if [ "$status" != 0 ] && [ "$T_FAILED" = "$before" ]; then
        fail "$name ends with success" "status $status"
    fi
}

done_testing() {
    t_stop_daemons
    t_check_logs
    T_DONE=1
    printf '1..%d\n' "$T_COUNT"
    [ "$T_FAILED" = 0 ] || exit 1
    exit 0
}

# ---- waiting ----

# Polls until the command succeeds; its status in the end.  The seconds are for a plain build.
wait_for() { # SECONDS CMD...
    local limit=$1 end
    shift
    [ "$SANITIZER" = none ] || limit=$((limit * 3))
    end=$((SECONDS + limit))
    while ! "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -gt "$end" ]; then
            echo "# waited $limit s for: $*" >&2
            return 1
        fi
        sleep 0.05
    done
}

process_gone() { # PID: not there any more, or dead and not yet reaped
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 0
    [ -z "$state" ] || [ "$state" = Z ] || [ "$state" = X ]
}

# ---- directories and mounts ----

# $WORK with $SRC (the source), $MNT (the mount point) and $NATIVE (the plain directory to compare with), all on the
# same disk file system.
new_dirs() {
    WORK=$(mktemp -d "$TMPDIR/work.XXXXXX")
    chmod 755 "$WORK"
    SRC=$WORK/src
    MNT=$WORK/mnt
    NATIVE=$WORK/native
    mkdir "$SRC" "$MNT" "$NATIVE"
}

t_octal_path() { # PATH as /proc/self/mountinfo writes it
    local s=$1
    s=${s//\\/\\134}
    s=${s// /\\040}
    s=${s//$'\t'/\\011}
    s=${s//$'\n'/\\012}
    printf '%s' "$s"
}

# The processes of the file system in this script's PID namespace.
fs_processes() {
    local exe target
    target=$(readlink -f "$STAGEFS")
    for exe in /proc/[0-9]*/exe; do
        if [ "$(readlink "$exe" 2>/dev/null)" = "$target" ]; then
            exe=${exe%/exe}
            echo "${exe#/proc/}"
        fi
    done
}

no_fs_process() { [ -z "$(fs_processes)" ]; }

# Does not touch the mount, so it is safe with a daemon that hangs or is dead.
is_mounted() { # PATH
    local id parent dev root point rest want
    want=$(t_octal_path "$1")
    # shellcheck disable=SC2034
    while read -r id parent dev root point rest; do
        [ "$point" != "$want" ] || return 0
    done </proc/self/mountinfo
    return 1
}

not_mounted() { ! is_mounted "$1"; }

mount_field() { # PATH source|type|options|super-options: of the topmost mount there
    awk -v want="$(t_octal_path "$1" | sed 's/\\/\\\\/g')" -v field="$2" '
        $5 == want {
            for (i = 7; i <= NF && $i != "-"; i++);
            v["type"] = $(i + 1); v["source"] = $(i + 2); v["super-options"] = $(i + 3); v["options"] = $6
            found = v[field]
        }
        END { print found }' /proc/self/mountinfo
}

variant_options() {
    case $VARIANT in
    uring-off) echo uring=off ;;
    pagecache) if [ "$SANITIZER" = thread ]; then echo serve=pagecache,uring=off; else echo serve=pagecache; fi ;;
    staged) echo stage=prefetch,settle=0,uring=off ;;
    *) if [ "$SANITIZER" = thread ]; then echo uring=off; fi ;;
    esac
}

# The binary as it must be started in this build (ThreadSanitizer needs a fixed address layout).
# Bash ignores SIGINT in what it starts in the background, and that would be inherited.
if [ "$SANITIZER" = thread ]; then
    T_WRAP=(setarch -R env '--default-signal=INT,QUIT')
else
    T_WRAP=(env '--default-signal=INT,QUIT')
fi
stagefs() { "${T_WRAP[@]}" "$STAGEFS" "$@"; }
ctl() { "${T_WRAP[@]}" "$BUILD_DIR/client/stagectl" "$@"; }

stat_of() { # NAME: of the mount's statistics
    ctl stats --json "$MNT" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# Remembers a process to be ended with the script.
own_process() { T_PIDS+=("$1"); }

new_log() { # sets $LOG
    T_MOUNTS=$((T_MOUNTS + 1))
    LOG=$T_LOG_DIR/daemon-$T_MOUNTS.log
    : >"$LOG"
    chmod 666 "$LOG"
}

# Mounts $SRC at $MNT with the daemon in the foreground as a child of this script; sets $DAEMON and $LOG.
mount_fs() { # [OPTIONS]
    local options=${1-} extra
    extra=$(variant_options)
    case ,$options, in
    *,uring=*) extra=${extra%uring=off} && extra=${extra%,} ;;
    esac
    case ,$options, in
    *,serve=*) extra=${extra#serve=pagecache} && extra=${extra#,} ;;
    esac
    options=$options${extra:+${options:+,}$extra}
    local command=("$STAGEFS" "$SRC" "$MNT" -f)
    [ -z "$options" ] || command+=(-o "$options")
    if [ "$VARIANT" = as-user ]; then
        test_user
        chown "$TUSER" "$SRC" "$MNT" "$NATIVE"
        user_binary
        command[0]=$USER_STAGEFS
        command=(setpriv --reuid "$TUID" --regid "$TGID" --init-groups "${command[@]}")
    fi
    new_log
    "${T_WRAP[@]}" "${command[@]}" </dev/null >>"$LOG" 2>&1 &
    DAEMON=$!
    own_process "$DAEMON"
    wait_mounted
}

t_mounted_or_dead() { is_mounted "$MNT" || process_gone "$DAEMON"; }

wait_mounted() { # until $MNT is mounted by $DAEMON and answers
    if wait_for 60 t_mounted_or_dead && is_mounted "$MNT" && timeout -k 5 "$PATIENCE" stat "$MNT/." >/dev/null; then
        return 0
    fi
    fail "mount $MNT" "$(tail -n 40 "$LOG")"
    return 1
}

t_umount() { umount "$MNT" 2>"$T_OUT.umount" || not_mounted "$MNT"; }

# Unmounts $MNT; the daemon must end by itself, with success.
unmount_fs() {
    local status=0
    if ! wait_for 30 t_umount; then
        fail "umount $MNT" "$(cat "$T_OUT.umount")
$(find /proc/[0-9]*/cwd /proc/[0-9]*/fd -lname "$MNT*" -printf '%p %l\n' 2>/dev/null || true)"
        return 1
    fi
    wait_daemon_end
}

wait_daemon_end() {
    local status=0
    if ! wait_for 60 process_gone "$DAEMON"; then
        fail "the daemon ends after the unmount" "$(t_describe_process "$DAEMON")"
        return 1
    fi
    wait "$DAEMON" || status=$?
    t_forget_process "$DAEMON"
    DAEMON=
    if [ "$status" != 0 ]; then
        fail "the daemon ends with success" "status $status
$(tail -n 60 "$LOG")"
        return 1
    fi
}

t_describe_process() { # PID
    local task
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || true
    echo
    for task in "/proc/$1/task/"*; do
        sed -n 's/^State:/state/p' "$task/status" 2>/dev/null || true
        cat "$task/stack" 2>/dev/null || true
    done
}

# ---- ordinary users ----

# Two users and a common group, known only inside this script's mount namespace; sets TUSER, TUID, TGID (the first),
# TUSER2, TUID2, TGID2, and TGROUP/TGROUP_ID (a supplementary group of the first).
test_user() {
    [ -z "${TUSER-}" ] || return 0
    TUSER=stgtest1 TUID=61901 TGID=61901
    TUSER2=stgtest2 TUID2=61902 TGID2=61902
    TGROUP=stgshare TGROUP_ID=61903
    cp /etc/passwd "$TMPDIR/.passwd"
    cp /etc/group "$TMPDIR/.group"
    printf '%s:x:%d:%d::/nonexistent:/bin/sh\n' "$TUSER" $TUID $TGID "$TUSER2" $TUID2 $TGID2 >>"$TMPDIR/.passwd"
    printf '%s:x:%d:%s\n' "$TUSER" $TGID '' "$TUSER2" $TGID2 '' "$TGROUP" $TGROUP_ID "$TUSER" >>"$TMPDIR/.group"
    chmod 644 "$TMPDIR/.passwd" "$TMPDIR/.group"
    mount --bind "$TMPDIR/.passwd" /etc/passwd
    mount --bind "$TMPDIR/.group" /etc/group
    t_open_fuse_device
}

# udev gives /dev/fuse to everybody; where nothing did, this script's namespace gets such a node.
t_open_fuse_device() {
    # shellcheck disable=SC2016
    setpriv --reuid "$TUID" --regid "$TGID" --clear-groups sh -c ': <>/dev/fuse' 2>/dev/null && return
    mknod -m 666 "$TMPDIR/.fuse-device" c 10 229 2>/dev/null &&
        mount --bind "$TMPDIR/.fuse-device" /dev/fuse 2>/dev/null
    return 0
}

as_user() { # CMD...
    test_user
    setpriv --reuid "$TUID" --regid "$TGID" --init-groups --no-new-privs -- "$@"
}

as_user2() { # CMD...
    test_user
    setpriv --reuid "$TUID2" --regid "$TGID2" --init-groups --no-new-privs -- "$@"
}

# The same without no_new_privs, for what needs a set-uid program (fusermount3).
as_user_suid() { # CMD...
    test_user
    setpriv --reuid "$TUID" --regid "$TGID" --init-groups -- "$@"
}

# The checkout may lie where an ordinary user cannot look: a copy of the binary for them, in $USER_STAGEFS.
user_binary() {
    USER_STAGEFS=$TMPDIR/bin/stagefs
    [ ! -x "$USER_STAGEFS" ] || return 0
    mkdir -p "$TMPDIR/bin"
    chmod 755 "$TMPDIR/bin"
    cp "$STAGEFS" "$USER_STAGEFS"
    chmod 755 "$USER_STAGEFS"
}

# ---- small file systems ----

# An ext4 image of SIZE (for truncate -s) mounted at DIR; the loop device goes away with the mount.  Fails where the
# machine has no loop devices: the caller skips.
mount_loop_ext4() { # DIR SIZE [MOUNT-OPTIONS]
    local image=$TMPDIR/loop.$RANDOM$RANDOM.img
    truncate -s "$2" "$image" && mke2fs -q -F -t ext4 -m 0 -O ^has_journal "$image" &&
        mkdir -p "$1" && mount -o "loop${3:+,$3}" "$image" "$1"
}

have() { command -v "$1" >/dev/null 2>&1; }

# ---- the end ----

expect_log_errors() {
    T_ALLOW_LOG_ERRORS=1
    : >"$TMPDIR/.log-errors-expected"
}

t_forget_process() {
    local pid kept=()
    for pid in ${T_PIDS[@]+"${T_PIDS[@]}"}; do
        [ "$pid" = "$1" ] || kept+=("$pid")
    done
    T_PIDS=(${kept[@]+"${kept[@]}"})
}

t_mounts_below() { # deepest first
    awk -v top="$(t_octal_path "$TMPDIR" | sed 's/\\/\\\\/g')/" 'index($5, top) == 1 { print $5 }' \
        /proc/self/mountinfo | sort -r
}

t_all_gone() {
    local pid
    for pid in ${T_PIDS[@]+"${T_PIDS[@]}"}; do
        process_gone "$pid" || return 1
    done
}

t_stop_daemons() {
    local point pid
    for pid in $(fs_processes); do
        t_forget_process "$pid"
        own_process "$pid"
    done
    while IFS= read -r point; do
        umount -c -l "$(printf '%b' "${point//\\/\\0}")" 2>/dev/null || true
    done < <(t_mounts_below)
    # Without its mount a daemon ends by itself, and a sanitizer gets to say what it has to say.
    wait_for 20 t_all_gone 2>/dev/null || true
    for pid in ${T_PIDS[@]+"${T_PIDS[@]}"}; do
        process_gone "$pid" || kill -TERM "$pid" 2>/dev/null || true
    done
    wait_for 5 t_all_gone 2>/dev/null || true
    for pid in ${T_PIDS[@]+"${T_PIDS[@]}"}; do
        if ! process_gone "$pid"; then
            t_describe_process "$pid" | t_comment
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
    T_PIDS=()
}

t_check_logs() {
    local found
    [ -z "$T_ALLOW_LOG_ERRORS" ] || return 0
    found=$(grep -HnE 'error:|ERROR: |runtime error' "$T_LOG_DIR"/daemon-*.log 2>/dev/null | sed "s|^$T_LOG_DIR/||" |
        head -n 20) || true
    if [ -n "$found" ]; then
        fail "no error in a daemon's log" "$found"
    fi
    found=$(find "$TMPDIR/sanitizer" -type f -size +0 -exec head -n 60 {} + 2>/dev/null) || true
    if [ -n "$found" ]; then
        fail "no report of a sanitizer" "$found"
    fi
}

t_on_error() { # STATUS LINE COMMAND
    case $- in
    *e*) printf '# line %s: status %s from: %s\n' "$2" "$1" "$3" ;;
    esac
}

t_on_exit() {
    local status=$?
    trap - EXIT ERR
    set +e
    [ -z "$T_DONE" ] || exit "$status"
    printf '# the script ended early with status %s after %d cases\n' "$status" "$T_COUNT"
    cd / || true
    t_stop_daemons
    t_check_logs
    exit $((status ? status : 1))
}

set -E
trap 't_on_error "$?" "${BASH_SOURCE[0]##*/}:$LINENO" "$BASH_COMMAND"' ERR
trap t_on_exit EXIT

# ---- the project's own files ----

# Paths relative to TOP, sorted; all files, or those whose name matches one of the patterns.
project_files() { # [PATTERN...]
    local pattern tests=()
    for pattern; do
        tests+=(${tests[@]+-o} -name "$pattern")
    done
    (cd "$TOP" && find . -mindepth 1 \( -path ./.git -o -path './build*' \) -prune -o \
        -type f \( "${tests[@]:--true}" \) -print) | sed 's|^\./||' | sort
}
