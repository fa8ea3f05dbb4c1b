#!/usr/bin/env bash
#
# make compare: our transport beside the kernel's TCP and smoltcp's over emulated paths, one download
# at a time: goodput and queueing delay in cells of round trip x rate x fault x queue, and the time
# that small objects take.
#
#   compare.sh [--full] [--list] [--cells REGEX] [--contenders NAME,...] [--rounds N] [--device KIND]
#              [--out DIR]
#
#   --full        every cell; a chosen few by default, in about a quarter of an hour
#   --list        print the names of the cells that would run
#   --cells       only cells whose name matches, of all there are
#   --contenders  of cubic,reno,bbr (the kernel's TCP, curl from nginx), smoltcp (curl from our
#                 server's TCP), headwater (our transport); all with --full, else cubic and headwater
#   --rounds      of every cell (3), of objects twice as many and one; contenders take turns in each
#   --device      of our servers and clients (auto): an offloading one hands over whole flights, a plain
#                 one packets. The link takes packets from either, and from the kernel's TCP as well
#   --out         where results.jsonl grows by a line a run, and report.html and summary.json are
#                 made anew (out/compare)
#
# A cell is RTT-RATE-FAULT-QUEUE, such as 40ms-100mbit-clean-1bdp. RTT is that of the empty link; the
# rate, both ways, is that of IP packets; a queue is a part of the bandwidth-delay product, four
# packets at least. Faults, on the way of the data unless said otherwise:
#
#   clean      none                              reverse1  1 % of the packets on the way back lost
#   loss0.1    0.1 % of the packets lost         burst0.5  0.5 % lost, in bursts of 5 on average
#   loss1      1 % of the packets lost           jitter    up to 0.3 ms later each, out of order
#   ecn        clean, both ends agree on ECN and the queue marks from a quarter of it on
#
# and, at a few links, which --full and --cells add:
#
#   lte, wifi    the rate of the data varies by scripts/traces/NAME.trace; RATE is its mean
#   bursts       packets arrive in bursts every 10 ms, both ways
#   uplink0.2    0.2 Mbit/s on the way back, with a queue of 30 kB; also 0.5, 1, 2 and 5
#   ordered5     up to 5 ms later each, both ways, in order; also 1 and 20
#   unordered5   the same, out of order
#   reverse2     2 % of the packets on the way back lost
#   corrupt0.2   0.2 % of the packets damaged, both ways
#
# A cell RTT-RATE-object-SIZE fetches one object of 1kB (1000 bytes) to 1MB over the clean link with a
# queue of 1bdp, on a connection of its own: from CUBIC, from us by a client never seen before
# (headwater) and by one that has kept an address token (remembered). Times are the clients' own, from
# the start of the transfer to its last byte, without the start of the process.
#
# A run of the others lasts max(1 s, 12 RTT), for the start, and then max(2 s, 10 RTT), whose bytes are
# the goodput and in which the queue is watched; with random loss, 3 s and 15 s at the least. Every
# contender of a round uses the same process of the link, and the seed of its faults is the round's
# number.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/contenders.sh
source scripts/lib/contenders.sh

readonly OBJECT_BYTES=1073741824

# enter CELL: sets what describes it, as scripts/lab/cells.py says: LINK, the options that make it, WARM
# and WINDOW, the seconds of a run, NAMES, those who take part; and TIMES, how often.
enter() {
    # shellcheck disable=SC2086 # names without spaces
    assign < <("$LAB" cells compare "$1" $TAKING_PART)
    read -ra LINK <<<"$LINK"
    read -ra NAMES <<<"$NAMES"
    TIMES=$ROUNDS
    [[ -z $SIZE ]] || TIMES=$((2 * ROUNDS + 1))
}

# Each contender has an address of its own at the client, whose route sets the kernel's congestion
# control.
declare -A SOURCE=([cubic]=10.77.1.1 [reno]=10.77.1.2 [bbr]=10.77.1.3 [smoltcp]=10.77.1.4)

testbed() {
    local name
    topology_up path --delay 1ms
    for name in "${!SOURCE[@]}"; do
        ip -n "$TOPOLOGY-client" addr add "${SOURCE[$name]}/32" dev lo
    done
    objects "$OBJECT_BYTES"
    contenders_up 1 -- --device "$DEVICE"
    versions client server1
}

# relink SEED: the cell's link, from new, and what depends on it.
relink() {
    local name
    path_link "${LINK[@]}" --seed "$1"
    for name in cubic reno bbr; do
        congestion_route server1 "${SOURCE[$name]}/32" 10.77.21.1 "$name"
    done
    for name in client server1; do
        in_ns "$name" sysctl -qw "net.ipv4.tcp_ecn=$ECN"
    done
}

# command_of NAME: sets COMMAND, the contender's download to standard output.
command_of() {
    case $1 in
        headwater)
            COMMAND=("$HEADWATER" get --transport trickles --tun hw0 --device "$DEVICE" --address 10.77.1.100 --silent
                --show-error --stats "$SCRATCH/stats" http://10.77.2.101/object)
            ;;
        smoltcp) COMMAND=(curl -sS --interface "${SOURCE[$1]}" http://10.77.2.101/object) ;;
        *) COMMAND=(curl -sS --interface "${SOURCE[$1]}" http://10.77.21.2/object) ;;
    esac
}

# watch NAME: beside a run: the link's counters for start and window apart, and, near the end, the
# state of the sending socket.
watch() {
    sleep "$WARM"
    ask_link client-server1 show >"$SCRATCH/link-start"
    ask_link client-server1 reset >"$SCRATCH/reset"
    sleep "$(calculate "$WINDOW - 0.5")"
    in_ns server1 ss -tinH state established "dst ${SOURCE[$1]:-10.77.1.100}" >"$SCRATCH/ss"
}

# device_drops: packets that the TUN devices of link and server had no room for so far.
device_drops() {
    { ip -n "$TOPOLOGY-client" -s -j link show; ip -n "$TOPOLOGY-server1" -s -j link show; } |
        jq -s '[.[][].stats64.tx.dropped] | add'
}

# measure NAME ROUND: one run; prints its line.
measure() {
    local began=$EPOCHREALTIME dropped
    dropped=$(device_drops)
    command_of "$1"
    rm -f "$SCRATCH/stats"
    : >"$SCRATCH/ss"
    watch "$1" &
    TOPOLOGY_PIDS[watch]=$!
    in_ns client scripts/lab.sh probe window "$WARM" "$WINDOW" "${COMMAND[@]}" >"$SCRATCH/window"
    ask_link client-server1 show >"$SCRATCH/link-end"
    finish watch
    record transfer cell="$CELL" contender="$1" round="$2" began="$began" device="$DEVICE" \
        device_drops=$(($(device_drops) - dropped))
}

# object_seconds NAME: fetches the cell's object, prints how long it took.
object_seconds() {
    local extra=()
    case $1 in
        cubic)
            in_ns client curl -sSf -m 60 -o /dev/null -w '%{time_total}\n' \
                --interface "${SOURCE[cubic]}" "http://10.77.21.2/$SIZE"
            ;;
        *)
            [[ $1 == headwater ]] || extra=(--tokens "$SCRATCH/tokens")
            GET_SECONDS=60 get --device "$DEVICE" --stats "$SCRATCH/stats" "${extra[@]}" "http://10.77.2.101/$SIZE" >/dev/null
            jq .seconds "$SCRATCH/stats"
            ;;
    esac
}

# measure_object NAME ROUND: one run; adds its record.
measure_object() {
    object_seconds "$1" >"$SCRATCH/seconds"
    record object cell="$CELL" contender="$1" round="$2" device="$DEVICE"
}

# run_cell CELL: all its rounds.
run_cell() {
    local round index name count kind
    enter "$1"
    count=${#NAMES[@]} kind=measure${SIZE:+_object}
    for ((round = 1; round <= TIMES; round++)); do
        # A short transfer meets no faults: one link will do for all rounds.
        if [[ -z $SIZE ]] || ((round == 1)); then relink "$round"; fi
        if [[ " ${NAMES[*]} " == *' remembered '* ]] && ((round == 1)); then
            object_seconds remembered >/dev/null
        fi
        for ((index = 0; index < count; index++)); do
            name=${NAMES[(index + round) % count]}
            settle client-server1 "$RTT"
            progress
            "$kind" "$name" "$round" || die "$CELL, round $round: $name failed"
        done
    done
}

# progress: the beginning of a line for the next run; the time left follows from the planned lengths of the runs
# and the durations of the past ones.
progress() {
    local rest=$((all_ms / 1000))
    ((done_ms == 0)) || rest=$(((EPOCHSECONDS - RUN) * (all_ms - done_ms) / done_ms))
    done_runs=$((done_runs + 1)) done_ms=$((done_ms + PLANNED_MS))
    printf '%d/%d, %d min left: ' "$done_runs" "$all_runs" $(((rest + 59) / 60)) >&2
}

main() {
    local cell done_runs=0 done_ms=0 all_runs=0 all_ms=0
    cells compare "$@"
    become_root "$@"
    need ip ss jq curl nginx python3
    need_program
    measuring_alone
    for cell in $CHOSEN_CELLS; do
        enter "$cell"
        all_runs=$((all_runs + TIMES * ${#NAMES[@]}))
        all_ms=$((all_ms + PLANNED_MS * TIMES * ${#NAMES[@]}))
    done
    testbed
    echo "compare.sh: $all_runs runs, at least $((all_ms / 60000 + 1)) minutes" >&2
    mkdir -p "$OUT"
    for cell in $CHOSEN_CELLS; do run_cell "$cell"; done
    report compare
}

main "$@"
