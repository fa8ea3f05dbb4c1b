# shellcheck shell=bash
#
# Settings of a script, as scripts/lab/experiments.py declares them, and what every script that measures
# does before and after. Sourced by processes.sh.

LAB=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../lab.sh
declare -ga SETTINGS=()

# settings EXPERIMENT ARGUMENT...: makes each setting a readonly variable, from ARGUMENTs and the
# environment; `become_root` passes all of them on. Prints the help and exits if that is what an
# argument asks for.
settings() {
    local lines
    if [[ " $* " == *' --help '* || " $* " == *' -h '* ]]; then
        show_help
        echo
        "$LAB" settings "$1" --help
        exit 0
    fi
    lines=$("$LAB" settings "$@") || exit 2
    # shellcheck disable=SC2034 # for become_root
    mapfile -t SETTINGS < <(cut -d = -f 1 <<<"$lines")
    assign -r <<<"$lines"
    readonly EXPERIMENT=$1 RUN=$EPOCHSECONDS
}

# assign [-r]: makes global variables of lines NAME=VALUE, readonly ones with -r.
assign() {
    local line
    while IFS= read -r line; do declare -g "$@" "$line"; done
}

# record KIND NAME=VALUE...: adds records to RESULTS, made of what is in SCRATCH.
record() {
    local kind=$1
    shift
    "$LAB" record "$EXPERIMENT" "$kind" "$SCRATCH" "$RESULTS" run="$RUN" "$@"
}

# report NAME: prints tables and makes pages and pictures in OUT, of RESULTS.
report() {
    "$LAB" report "$1" "$OUT"
    give_back
}

# versions CLIENT SERVER: of programs and machine, for all records of the testbed.
versions() {
    "$LAB" record versions "$HEADWATER" "$(in_ns "$1" sysctl -n net.ipv4.tcp_rmem)" \
        "$(in_ns "$2" sysctl -n net.ipv4.tcp_wmem)" >"$SCRATCH/versions"
}

# measuring_alone: a word of warning if another testbed is up.
measuring_alone() {
    [[ -z $(ip netns list | grep '^hw-' || true) ]] ||
        echo "${0##*/}: another testbed is up: what runs beside this disturbs the figures" >&2
}

# need_program: HEADWATER can be run.
need_program() {
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
}

# give_back: OUT belongs to whoever called sudo.
give_back() {
    [[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$OUT"
}
