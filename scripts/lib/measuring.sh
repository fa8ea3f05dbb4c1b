# shellcheck shell=bash
#
# Setup, teardown and records of every script that measures. Sourced by processes.sh.

# measuring_alone: a word of warning if another testbed is up.
measuring_alone() {
    [[ -z $(ip netns list | grep '^hw-' || true) ]] ||
        echo "${0##*/}: another testbed is up: what runs beside this disturbs the figures" >&2
}

# need_program: HEADWATER can be run.
need_program() {
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
}

# versions CLIENT SERVER: of programs and machine, for all records of the testbed.
versions() {
    "$LAB" record versions "$HEADWATER" "$(in_ns "$1" sysctl -n net.ipv4.tcp_rmem)" \
        "$(in_ns "$2" sysctl -n net.ipv4.tcp_wmem net.ipv4.tcp_congestion_control)" >"$SCRATCH/versions"
}

# record KIND NAME=VALUE...: adds records to RESULTS, made from the files in SCRATCH.
record() {
    local kind=$1
    shift
    "$LAB" record "$EXPERIMENT" "$kind" "$SCRATCH" "$RESULTS" run="$RUN" "$@" || die "no record of $kind"
}

# report NAME: prints tables and makes pages and pictures in OUT, of RESULTS; returns its status, which is
# not 0 if a bound that must hold does not.
report() {
    local status=0
    "$LAB" report "$1" "$OUT" || status=$?
    give_back
    return "$status"
}

# give_back: OUT belongs to the user who called sudo.
give_back() {
    [[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$OUT"
}

# core_ticks: clock ticks in which cores did anything, and all of them.
core_ticks() {
    awk '/^cpu / { busy = $2 + $3 + $4 + $7 + $8 + $9; print busy, busy + $5 + $6; exit }' /proc/stat
}
