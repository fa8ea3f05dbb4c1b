# shellcheck shell=bash
#
# The needs of every script besides the testbed: the way to report an error and to become root, and
# the processes of a testbed, which are started in a namespace, awaited and ended by name. Sourced.
# `TOPOLOGY` is the testbed's name, `SCRATCH` its directory, `TOPOLOGY_PIDS` the processes by name.

# shellcheck source=scripts/lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
# shellcheck source=scripts/lib/measuring.sh
source "$(dirname "${BASH_SOURCE[0]}")/measuring.sh"

declare -gA TOPOLOGY_PIDS=()

# die MESSAGE...: the one-line error of every script here.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# show_help: the head of the calling script, without the signs of a comment.
show_help() {
    sed -n '3,/^set /s/^# \{0,1\}//p' "$0"
}

# above_zero OPTION VALUE: refuses all but whole numbers above 0.
above_zero() {
    [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 takes a number above 0, not '$2'"
}

# become_root ARGS...: runs the calling script again through sudo if need be, with its settings; exit
# status 77 (the customary "skipped") if there is no way to become root.
become_root() {
    local name handed=("PATH=$PATH")
    ! is_root || return 0
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        for name in "${SETTINGS[@]}"; do handed+=("$name=${!name}"); done
        exec sudo -- env "${handed[@]}" bash "$0" "$@"
    fi
    echo "${0##*/}: skipped: network namespaces need root; run it as root or with sudo" >&2
    exit 77
}
is_root() { ((EUID == 0)); }

# need TOOL...: names the package manager's job when a tool is missing.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "'$tool' is missing: run 'make setup'"
    done
}

# end_pids PID...: asks politely, and after five seconds no more.
end_pids() {
    local pid tries left
    (($# > 0)) || return 0
    kill -TERM "$@" 2>/dev/null || true
    for tries in {1..100}; do
        left=()
        for pid in "$@"; do
            [[ -d /proc/$pid && $(process_state "$pid") != Z ]] && left+=("$pid")
        done
        ((${#left[@]} > 0)) || break
        ((tries == 100)) && kill -KILL "${left[@]}" 2>/dev/null
        sleep 0.05
    done
    wait "$@" 2>/dev/null || true
}

# process_state PID: the letter of /proc/PID/status, or nothing.
process_state() {
    sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null || true
}

# start NAME ROLE COMMAND...: runs COMMAND in the background; its output goes to SCRATCH/NAME.out
# and SCRATCH/NAME.err, its id to TOPOLOGY_PIDS[NAME].
start() {
    local name=$1 role=$2
    shift 2
    # Now, not when the child gets to run: the output of an earlier process of that name is over.
    : >"$SCRATCH/$name.out"
    ip netns exec "$TOPOLOGY-$role" "$@" \
        >"$SCRATCH/$name.out" 2>"$SCRATCH/$name.err" </dev/null &
    TOPOLOGY_PIDS[$name]=$!
}

# finish NAME: waits for what `start` started; returns its exit status.
finish() {
    local pid=${TOPOLOGY_PIDS[$1]} status=0
    wait "$pid" || status=$?
    unset "TOPOLOGY_PIDS[$1]"
    return "$status"
}

# stop NAME: ends it by SIGTERM; kill9 NAME: by SIGKILL, as a crash would.
stop() {
    end_pids "${TOPOLOGY_PIDS[$1]}"
    unset "TOPOLOGY_PIDS[$1]"
}
kill9() {
    kill -KILL "${TOPOLOGY_PIDS[$1]}" || true
    wait "${TOPOLOGY_PIDS[$1]}" 2>/dev/null || true
    unset "TOPOLOGY_PIDS[$1]"
}

# running NAME: whether it still runs.
running() {
    local pid=${TOPOLOGY_PIDS[$1]:-}
    [[ -n $pid && -d /proc/$pid && $(process_state "$pid") != Z ]]
}

# until_true SECONDS COMMAND...: polls COMMAND every 10 ms; fails if time runs out.
until_true() {
    local deadline
    deadline=$(awk -v now="$(now_ms)" -v s="$1" 'BEGIN { printf "%.0f", now + s * 1000 }')
    shift
    until "$@"; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.01
    done
}

now_ms() {
    echo $((${EPOCHREALTIME/[.,]/} / 1000))
}

# wait_ready NAME [SECONDS]: until `serve` has printed its line.
wait_ready() {
    local name=$1
    # shellcheck disable=SC2317 # called by name
    is_ready_or_gone() { grep -qx ready "$SCRATCH/$name.out" || ! running "$name"; }
    if ! until_true "${2:-60}" is_ready_or_gone || ! running "$name"; then
        echo "'$name' did not become ready:" >&2
        cat "$SCRATCH/$name.out" "$SCRATCH/$name.err" >&2
        return 1
    fi
}

# rss_kib NAME: resident memory of the process.
rss_kib() {
    sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/${TOPOLOGY_PIDS[$1]}/status"
}
