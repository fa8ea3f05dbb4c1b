#!/usr/bin/env bash
#
# Scripted tests of the program in network namespaces: one function a scenario, in the files of
# scripts/scenarios, each in a testbed of its own. Prints a line a scenario and "N passed, M failed";
# exit status 1 if any failed, 77 if namespaces cannot be made here.
#
#   test-netns.sh [--list] [SCENARIO...]      all scenarios by default
#
# `--help` lists the settings, which are variables of the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/crowd.sh
source scripts/lib/crowd.sh
for file in scripts/scenarios/*.sh; do
    # shellcheck source=/dev/null
    source "$file"
done

readonly SCENARIOS=(
    testbed topologies readme ping races curl_over_tcp real_files large_object random_loss many_clients many_downloads kill_restart
    round_robin round_robin_one_dead overhead_ipv4 overhead_ipv6 one_round_trip upstream_share
    slow_reader tcp_framing tcp_crowd tcp_slow_reader tcp_termination metrics captures devices device_at_hand multi_queue serve_errors get_errors link bench
    stalled_captures fifos announce_hangs device_down foreign_queue look_ups names names_of_sockets odd_responses output_names planted_files
    growing_files forged_opens root_swapped names_and_links few_descriptors first_byte crowd_of_cold_files
    redirect_policies redirect_shares redirect_plain redirect_control redirect_announce
    redirect_kill redirect_netns redirect_silent
    redirect_undetected redirect_scale redirect_paths redirect_slow redirect_two redirect_forged redirect_errors
    redirect_nearest redirect_database redirect_joined
    examples slow_origin other_client sockets sockets_large sockets_shared sockets_tcp race_command kernel_tcp fallback fallback_tun
    anycast_drain anycast_crash anycast_daemon anycast_silent anycast_flap anycast_four
)

# fail MESSAGE...: ends the scenario.
fail() {
    echo "FAILED: $*"
    exit 1
}

# equal WHAT GOT WANT; at_least WHAT GOT BOUND; at_most WHAT GOT BOUND: numbers may be decimals.
equal() {
    [[ $2 == "$3" ]] || fail "$1: '$2', expected '$3'"
    echo "$1: $2"
}
at_least() {
    awk -v got="$2" -v bound="$3" 'BEGIN { exit !(got + 0 >= bound + 0 && got != "") }' ||
        fail "$1: $2, expected at least $3"
    echo "$1: $2 (at least $3)"
}
at_most() {
    awk -v got="$2" -v bound="$3" 'BEGIN { exit !(got + 0 <= bound + 0 && got != "") }' ||
        fail "$1: $2, expected at most $3"
    echo "$1: $2 (at most $3)"
}

# expect STATUS PATTERN COMMAND...: COMMAND must end with STATUS and say PATTERN on standard error
# in one line of its own.
expect() {
    local status=$1 pattern=$2 got=0
    shift 2
    "$@" >"$SCRATCH/expect.out" 2>"$SCRATCH/expect.err" || got=$?
    cat "$SCRATCH/expect.err"
    if [[ $status == nonzero ]]; then
        [[ $got != 0 && $got != 124 && $got != 101 ]] || fail "exit status $got, expected an error"
    else
        [[ $got == "$status" ]] || fail "exit status $got, expected $status"
    fi
    grep -Eiq "^headwater: .*($pattern)" "$SCRATCH/expect.err" || fail "no message like '$pattern'"
    ! grep -q 'panicked at' "$SCRATCH/expect.err" || fail "a panic"
}

identical() {
    cmp -- "$1" "$2" || fail "$1 and $2 differ"
}

stat_of() {
    jq -r "$2" "$1"
}

# fleet SERVERS: a testbed with keys and an empty root.
fleet() {
    topology_up servers "$1"
    # shellcheck disable=SC2119 # no object
    content
}

url_path() {
    jq -rn --arg path "$1" '$path | split("/") | map(@uri) | join("/")'
}

# run SCENARIO: in a subshell of its own, whose exit removes its testbed, and in a process group of
# its own, which `interrupted` can end.
run() {
    local name=$1 status=0 began seconds
    LOG=$(mktemp)
    began=$(now_ms)
    set -m
    (
        set -euo pipefail
        "scenario_$name"
    ) >"$LOG" 2>&1 &
    RUNNING=$!
    set +m
    wait "$RUNNING" || status=$?
    RUNNING=
    seconds=$((($(now_ms) - began + 500) / 1000))
    if ((status == 0)); then
        passed=$((passed + 1))
        printf 'ok      %-22s %4d s\n' "$name" "$seconds"
        if [[ -n $KEEP_LOGS ]]; then sed 's/^/        /' "$LOG"; fi
    else
        failed=$((failed + 1))
        printf 'FAILED  %-22s %4d s (exit status %d)\n' "$name" "$seconds" "$status"
        tail -n 40 "$LOG" | sed 's/^/        /'
    fi
    rm -f -- "$LOG"
}

# An interrupted run takes the running scenario with it, whose own trap cleans up.
interrupted() {
    if [[ -n ${RUNNING:-} ]]; then
        kill -TERM -- "-$RUNNING" 2>/dev/null || true
        wait "$RUNNING" 2>/dev/null || true
        rm -f -- "$LOG"
    fi
    exit 130
}

main() {
    local name chosen passed=0 failed=0
    settings test-netns "$@"
    if [[ -n $LIST ]]; then
        printf '%s\n' "${SCENARIOS[@]}"
        return
    fi
    become_root "$@"
    need ip tc nft jq curl iperf3 tshark python3 ping pgrep setpriv prlimit unshare bird birdc
    [[ -c /dev/net/tun ]] || {
        echo "test-netns.sh: skipped: no /dev/net/tun" >&2
        exit 77
    }
    need_program
    read -ra chosen <<<"$CHOSEN"
    ((${#chosen[@]} > 0)) || chosen=("${SCENARIOS[@]}")
    trap interrupted INT TERM HUP
    echo "seed $SEED, large object $OBJECT_MB MB, $HEADWATER"
    for name in "${chosen[@]}"; do
        declare -F "scenario_$name" >/dev/null || die "no scenario '$name': see --list"
        run "$name"
    done
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

main "$@"
