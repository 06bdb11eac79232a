# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Requests of the ioctl protocol, for mounted tests: sourced after harness.sh.  One process of tests/mounted/control.py
# sends them all, as it takes longer to start than most of a test's steps; it ends with the script.

: "${TMPDIR:?source tests/lib/harness.sh first}"

mkfifo "$TMPDIR/.requests" "$TMPDIR/.answers"
python3 "$TOP/tests/mounted/control.py" each <"$TMPDIR/.requests" >"$TMPDIR/.answers" &
exec {T_REQUESTS}>"$TMPDIR/.requests" {T_ANSWERS}<"$TMPDIR/.answers"

# As `control.py ARGUMENT...`; one at a time.
control() { # ARGUMENT...
    local status text
    printf '%s\n' "$*" >&"$T_REQUESTS"
    if ! read -r -t "$((2 * PATIENCE))" status text <&"$T_ANSWERS"; then
        echo "no answer to: $*" # and what comes after it would be taken for that of the next one
        exec {T_ANSWERS}<&-
        return 2
    fi
    printf '%s\n' "$text"
    return "$status"
}

field() { # NAME: of the JSON on stdin
    local line='' pattern="\"$1\": (\"([^\"]*)\"|[^,}]*)"
    read -r line || true
    [[ $line =~ $pattern ]] || { echo "no $1 in: $line" && return 1; }
    case ${BASH_REMATCH[1]} in
    \"*) printf '%s\n' "${BASH_REMATCH[2]}" ;;
    *) printf '%s\n' "${BASH_REMATCH[1]}" ;;
    esac
}
