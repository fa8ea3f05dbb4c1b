# shellcheck shell=bash
#
# Settings of a script, as scripts/lab/experiments.py declares them. Sourced by processes.sh.

LAB=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../lab.sh
declare -ga SETTINGS=()

# settings EXPERIMENT ARGUMENT...: makes each setting a readonly variable, from ARGUMENTs and the
# environment; `become_root` passes all of them on. Prints the help and exits if an argument
# requests it.
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
    # shellcheck disable=SC2034 # for `record`
    readonly EXPERIMENT=$1 RUN=$EPOCHSECONDS
}

# cells EXPERIMENT ARGUMENT...: `settings`, and the cells to measure in CHOSEN_CELLS; with LIST prints these
# and exits.
cells() {
    settings "$@"
    CHOSEN_CELLS=$("$LAB" cells list "$@") || exit 1
    if [[ -n $LIST ]]; then
        echo "$CHOSEN_CELLS"
        exit 0
    fi
}

# assign [-r]: makes global variables of lines NAME=VALUE, readonly ones with -r.
assign() {
    local line
    while IFS= read -r line; do declare -g "$@" "$line"; done
}
