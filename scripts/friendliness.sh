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
# it the packets of a flow would come to the full queue in one phase to the departures for ever, and the
# flow with the lucky phase gets the others' share (Floyd and Jacobson, On Traffic Phase Effects in
# Packet-Switched Gateways, 1992).
#
# Cells, all with a queue of one bandwidth-delay product and no other faults:
#
#   20ms-20mbit-1x1       one of ours beside one of CUBIC, at 20 and 100 Mbit/s and 20 and 100 ms
#   40ms-100mbit-4x4      4 of ours beside 4 of CUBIC; also 2x2 and 8x8
#   40ms-100mbit-4x0      4 of ours alone; 0x4 are 4 of CUBIC
#   20+80ms-100mbit-2x0   two of ours with round trips of 20 and 80 ms; 0x2 are two of CUBIC. The queue
#                         is that of 80 ms
#   40ms-20mbit-64x64     crowds, only by --cells: also 4x4 and 16x16, at 20, 100 and 200 Mbit/s
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/contenders.sh
source scripts/lib/contenders.sh

# enter CELL: sets what describes it, as scripts/lab/cells.py says.
enter() {
    assign < <("$LAB" cells friendliness "$1" "$SECONDS_EACH")
    read -ra RTTS <<<"$RTTS"
}

# testbed SEED: for the cell: one path, or one with a longer way to the second server. Sets LINK.
testbed() {
    local options=(--delay "$DELAY" --rate "${RATE}mbit" --queue "${QUEUE_BYTES}b"
        --ab "jitter=$JITTER" --seed "$1") n
    if ((${#RTTS[@]} == 1)); then
        LINK=client-server1
        topology_up path "${options[@]}"
        objects $((RATE * SECONDS_EACH * 150000))
        contenders_up 1
        congestion_route server1 10.77.21.1/32 10.77.21.1 cubic
    else
        LINK=near-far
        topology_up dumbbell 2 "${options[@]}" -- 0ms "$FAR_DELAY"
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
            command=("$HEADWATER" get --transport trickles --tun "hw$1" --address "10.77.1.$((100 + $1))" --silent --show-error
                "http://10.77.2.10$server/object")
            ;;
        cubic) command=(curl -sS "http://10.77.2$server.2/object") ;;
    esac
    start "flow$1" "$role" "$PWD/scripts/lab.sh" probe window "$WARM" "$WINDOW" "${command[@]}"
}

# run ROUND: one run in a testbed of its own; adds a record of each flow.
run() {
    local flow kinds=() flows=$((OURS + CUBICS))
    testbed "$1"
    versions "${TOPOLOGY_ROLES[0]}" server1
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
    record flows cell="$CELL" round="$1" kinds="${kinds[*]}" seconds="$SECONDS_EACH"
    topology_down
}

main() {
    local cell round n=0 all
    cells friendliness "$@"
    become_root "$@"
    need ip jq curl nginx python3
    need_program
    mkdir -p "$OUT"
    all=$(($(wc -l <<<"$CHOSEN_CELLS") * ROUNDS))
    for cell in $CHOSEN_CELLS; do
        enter "$cell"
        for ((round = 1; round <= ROUNDS; round++)); do
            n=$((n + 1))
            echo "$n/$all $CELL round $round, $(((all - n + 1) * (SECONDS_EACH + 4) / 60)) min left" >&2
            run "$round"
        done
    done
    report compare
}

main "$@"
