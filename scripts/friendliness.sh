#!/usr/bin/env bash
#
# Downloads that share a bottleneck: ours beside the kernel's CUBIC, and each among its like.
#
#   friendliness.sh [--list] [--cells REGEX] [--seconds N] [--rounds N] [--out DIR]
#
#   --cells     only cells whose name matches
#   --seconds   of every run (60); its first sixth does not count
#   --rounds    of every cell (1)
#   --out       where results.jsonl grows and the report is made anew (out/compare)
#
# Requests and acknowledgements are late by up to the time of two packets at random, in order. Without
# it the packets of a flow would come to the full queue in one phase to the departures for ever, and who
# has the lucky phase gets the others' share (Floyd and Jacobson, On Traffic Phase Effects in
# Packet-Switched Gateways, 1992).
#
# Cells, all with a queue of one bandwidth-delay product and no other faults:
#
#   20ms-20mbit-1x1       one of ours beside one of CUBIC, at 20 and 100 Mbit/s and 20 and 100 ms
#   40ms-100mbit-4x4      4 of ours beside 4 of CUBIC; also 2x2 and 8x8
#   40ms-100mbit-4x0      4 of ours alone; 0x4 are 4 of CUBIC
#   20+80ms-100mbit-2x0   two of ours with round trips of 20 and 80 ms; 0x2 are two of CUBIC. The queue
#                         is that of 80 ms
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/contenders.sh
source scripts/lib/contenders.sh

readonly EVERY_CELL=(
    {20,100}ms-{20,100}mbit-1x1 40ms-100mbit-{2x2,4x4,8x8} 40ms-100mbit-{4x0,0x4}
    20+80ms-100mbit-{2x0,0x2}
)

# enter CELL: sets RTTS, RATE, OURS and CUBICS.
enter() {
    [[ $1 =~ ^([0-9+]+)ms-([0-9]+)mbit-([0-8])x([0-8])$ ]] || die "no cell '$1'"
    CELL=$1 RATE=${BASH_REMATCH[2]} OURS=${BASH_REMATCH[3]} CUBICS=${BASH_REMATCH[4]}
    IFS=+ read -ra RTTS <<<"${BASH_REMATCH[1]}"
    QUEUE_BYTES=$(queue_bytes "${RTTS[-1]}" "$RATE" 1)
    WARM=$(calculate "$SECONDS_EACH / 6")
    WINDOW=$(calculate "$SECONDS_EACH - $WARM")
}

# testbed SEED: for the cell: one path, or one with a longer way to the second server. Sets LINK.
testbed() {
    local options=(--delay "$(calculate "${RTTS[0]} / 2")ms" --rate "${RATE}mbit"
        --queue "${QUEUE_BYTES}b" --ab "jitter=$(calculate "24 / $RATE")ms" --seed "$1") n
    if ((${#RTTS[@]} == 1)); then
        LINK=client-server1
        topology_up path "${options[@]}"
        objects $((RATE * SECONDS_EACH * 150000))
        contenders_up 1
        congestion_route server1 10.77.21.1/32 10.77.21.1 cubic
    else
        LINK=near-far
        topology_up dumbbell 2 "${options[@]}" -- 0ms "$(calculate "(${RTTS[1]} - ${RTTS[0]}) / 2")ms"
        objects $((RATE * SECONDS_EACH * 150000))
        contenders_up 1 2
        for n in 1 2; do congestion_route "server$n" default "10.77.2$n.1" cubic; done
    fi
}

# flow NUMBER KIND: starts a download as "flowNUMBER"; with two round trips each has its own server.
flow() {
    local role=client server=1 command
    ((${#RTTS[@]} == 1)) || role=client$1 server=$1
    case $2 in
        headwater)
            command=("$HEADWATER" get --tun "hw$1" --address "10.77.1.$((100 + $1))" --silent --show-error
                "http://10.77.2.10$server/object")
            ;;
        cubic) command=(curl -sS "http://10.77.2$server.2/object") ;;
    esac
    start "flow$1" "$role" "$PWD/scripts/lab.sh" probe window "$WARM" "$WINDOW" "${command[@]}"
}

# run ROUND: one run in a testbed of its own; adds its line.
run() {
    local flow kinds=() flows=$((OURS + CUBICS))
    testbed "$1"
    for ((flow = 1; flow <= flows; flow++)); do
        # Kinds by turns, so that neither is always first.
        if (((flow + $1) % 2 == 0 && OURS > 0 || CUBICS == 0)); then kinds+=(headwater); else kinds+=(cubic); fi
    done
    for ((flow = 1; flow <= flows; flow++)); do flow "$flow" "${kinds[flow - 1]}"; done
    sleep "$WARM"
    ask_link "$LINK" reset >"$SCRATCH/reset"
    for ((flow = 1; flow <= flows; flow++)); do
        finish "flow$flow" || die "$CELL: ${kinds[flow - 1]} failed: $(cat "$SCRATCH/flow$flow.err")"
    done
    ask_link "$LINK" show >"$SCRATCH/link"
    for ((flow = 1; flow <= flows; flow++)); do
        jq -c --arg kind "${kinds[flow - 1]}" --argjson rtt "${RTTS[$((${#RTTS[@]} > 1 ? flow - 1 : 0))]}" \
            '{contender: $kind, rtt_ms: $rtt, goodput_mbit: (.window_bytes * 8e-6 / .window_seconds), window: .}' \
            "$SCRATCH/flow$flow.out"
    done | jq -sc --arg cell "$CELL" --argjson run "$RUN" --argjson round "$1" --argjson rate "$RATE" \
        --argjson began "$EPOCHREALTIME" --argjson seconds "$SECONDS_EACH" \
        --argjson load "$(cut -d ' ' -f 1 /proc/loadavg)" --argjson queue_bytes "$QUEUE_BYTES" \
        --slurpfile link "$SCRATCH/link" --argjson versions "$(versions "${TOPOLOGY_ROLES[0]}" server1)" '
        {schema: 1, kind: "shared", run: $run, cell: $cell, contender: "all", round: $round, began: $began,
         rate_mbit: $rate, queue_bytes: $queue_bytes, seconds: $seconds, load: $load, flows: .,
         queue_p50_ms: ($link[0].ba.sojourn.p50_us / 1000),
         queue_p95_ms: ($link[0].ba.sojourn.p95_us / 1000), drops: $link[0].ba.dropped,
         versions: $versions}' >>"$OUT/results.jsonl"
    topology_down
}

main() {
    local cell chosen round n=0 all
    settings friendliness "$@"
    mapfile -t chosen < <(printf '%s\n' "${EVERY_CELL[@]}" | grep -E -- "$CELLS")
    ((${#chosen[@]} > 0)) || die "no cell is like '$CELLS': see --list"
    if [[ -n $LIST ]]; then
        printf '%s\n' "${chosen[@]}"
        return
    fi
    become_root "$@"
    need ip jq curl nginx python3
    need_program
    readonly RUN=$EPOCHSECONDS
    mkdir -p "$OUT"
    all=$((${#chosen[@]} * ROUNDS))
    for cell in "${chosen[@]}"; do
        enter "$cell"
        for round in $(seq "$ROUNDS"); do
            n=$((n + 1))
            echo "$n/$all $CELL round $round, $(((all - n + 1) * (SECONDS_EACH + 4) / 60)) min left" >&2
            run "$round"
        done
    done
    scripts/lab.sh report compare "$OUT"
    give_back
}

main "$@"
