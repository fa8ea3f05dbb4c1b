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

readonly RTTS=(1 10 40 100 300) RATES=(10 100 1000) QUEUES=(0.25 1 4)
readonly FAULTS=(clean loss0.1 loss1 reverse1 burst0.5 jitter)
readonly CHOSEN=(
    40ms-100mbit-{clean,loss0.1,loss1,reverse1,burst0.5,jitter,ecn}-1bdp
    40ms-100mbit-clean-{0.25,4}bdp
    {100,300}ms-100mbit-clean-1bdp
    40ms-10mbit-clean-1bdp 10ms-1000mbit-clean-1bdp
)
readonly OBJECT_CELLS=({40,100}ms-100mbit-object-{1kB,10kB,100kB,1MB})
readonly OBJECT_BYTES=1073741824

REMEMBERED=()

# every_cell: all names. A queue that the least one would replace by a cell's smaller brother is
# left out.
every_cell() {
    local rtt rate fault queue bytes last
    for rtt in "${RTTS[@]}"; do
        for rate in "${RATES[@]}"; do
            for fault in "${FAULTS[@]}" ecn; do
                last=
                for queue in "${QUEUES[@]}"; do
                    bytes=$(queue_bytes "$rtt" "$rate" "$queue")
                    [[ $bytes == "$last" ]] || echo "${rtt}ms-${rate}mbit-$fault-${queue}bdp"
                    last=$bytes
                done
            done
        done
    done
    printf '%s\n' "${OBJECT_CELLS[@]}"
}

# cells: the names of those to run.
cells() {
    if [[ -n $CELLS ]]; then
        every_cell | grep -E -- "$CELLS" || die "no cell is like '$CELLS': see --full --list"
    elif [[ -n $FULL ]]; then
        every_cell
    else
        printf '%s\n' "${CHOSEN[@]}" "${OBJECT_CELLS[@]}"
    fi
}

# larger A B: the larger of two numbers.
larger() {
    awk -v a="$1" -v b="$2" 'BEGIN { print (a > b ? a : b) }'
}

# enter CELL: sets what describes it: LINK, the options that make it, WARM and WINDOW, the seconds of
# a run, NAMES, those who take part, and TIMES, how often.
enter() {
    local name
    CELL=$1 ECN=0 NAMES=("${CHOSEN_CONTENDERS[@]}") TIMES=$ROUNDS
    if [[ $1 =~ ^([0-9]+)ms-([0-9]+)mbit-object-([0-9]+[kM]B)$ ]]; then
        RTT=${BASH_REMATCH[1]} RATE=${BASH_REMATCH[2]} SIZE=${BASH_REMATCH[3]} FAULT=clean QUEUE=1
        WARM=0 WINDOW=$(calculate "$RTT * 0.006 + 0.4") TIMES=$((2 * ROUNDS + 1)) NAMES=()
        for name in "${CHOSEN_CONTENDERS[@]}"; do
            case $name in
                cubic) NAMES+=(cubic) ;;
                headwater) NAMES+=(headwater "${REMEMBERED[@]}") ;;
            esac
        done
    elif [[ $1 =~ ^([0-9]+)ms-([0-9]+)mbit-([a-z0-9.]+)-([0-9.]+)bdp$ ]]; then
        RTT=${BASH_REMATCH[1]} RATE=${BASH_REMATCH[2]} FAULT=${BASH_REMATCH[3]}
        QUEUE=${BASH_REMATCH[4]} SIZE=
        # Where chance drops packets, a few losses must not decide.
        case $FAULT in
            loss* | burst*) WARM=3 WINDOW=15 ;;
            *) WARM=1 WINDOW=2 ;;
        esac
        WARM=$(larger "$WARM" "$(calculate "$RTT * 0.012")")
        WINDOW=$(larger "$WINDOW" "$(calculate "$RTT * 0.01")")
    else
        die "no cell '$1'"
    fi
    QUEUE_BYTES=$(queue_bytes "$RTT" "$RATE" "$QUEUE")
    LINK=(--delay "$(calculate "$RTT / 2")ms" --rate "${RATE}mbit" --queue "${QUEUE_BYTES}b")
    case $FAULT in
        clean) ;;
        loss0.1) LINK+=(--ba loss=0.1%) ;;
        loss1) LINK+=(--ba loss=1%) ;;
        reverse1) LINK+=(--ab loss=1%) ;;
        # In the bad state all is lost; it is left after 5 packets and entered after 995.
        burst0.5) LINK+=(--ba burst=0.1005%/20%) ;;
        jitter) LINK+=(--ba "jitter=0.3ms,jitter-order=free") ;;
        ecn)
            ECN=1
            LINK+=(--ba "mark=$((QUEUE_BYTES / 4))b")
            ;;
        *) die "no fault '$FAULT'" ;;
    esac
}

# Each contender has an address of its own at the client, whose route tells the kernel which
# congestion control to use.
declare -A SOURCE=([cubic]=10.77.1.1 [reno]=10.77.1.2 [bbr]=10.77.1.3 [smoltcp]=10.77.1.4)

testbed() {
    local name
    topology_up path --delay 1ms
    for name in "${!SOURCE[@]}"; do
        ip -n "$TOPOLOGY-client" addr add "${SOURCE[$name]}/32" dev lo
    done
    objects "$OBJECT_BYTES"
    contenders_up 1
    versions client server1 >"$SCRATCH/versions"
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
            COMMAND=("$HEADWATER" get --tun hw0 --device "$DEVICE" --address 10.77.1.100 --silent
                --show-error --stats "$SCRATCH/stats" http://10.77.2.101/object)
            ;;
        smoltcp) COMMAND=(curl -sS --interface "${SOURCE[$1]}" http://10.77.2.101/object) ;;
        *) COMMAND=(curl -sS --interface "${SOURCE[$1]}" http://10.77.21.2/object) ;;
    esac
}

# watch NAME: beside a run: the link's counters for start and window apart, and, near the end, what
# the sending socket says.
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
    dropped=$(($(device_drops) - dropped))
    [[ -s $SCRATCH/stats ]] || echo null >"$SCRATCH/stats"
    jq -nc --arg cell "$CELL" --arg contender "$1" --argjson round "$2" --argjson began "$began" \
        --argjson run "$RUN" --argjson rtt "$RTT" --argjson rate "$RATE" --arg fault "$FAULT" \
        --argjson queue "$QUEUE" --argjson queue_bytes "$QUEUE_BYTES" --argjson ecn "$ECN" \
        --argjson load "$(cut -d ' ' -f 1 /proc/loadavg)" --arg link "${LINK[*]}" --arg device "$DEVICE" \
        --argjson device_drops "$dropped" --rawfile ss "$SCRATCH/ss" --slurpfile window "$SCRATCH/window" \
        --slurpfile link_start "$SCRATCH/link-start" --slurpfile link_end "$SCRATCH/link-end" \
        --slurpfile stats "$SCRATCH/stats" --slurpfile versions "$SCRATCH/versions" '
        $window[0] as $w | $link_end[0].ba as $way
        | {schema: 1, kind: "transfer", run: $run, cell: $cell, contender: $contender, round: $round,
           began: $began, rtt_ms: $rtt, rate_mbit: $rate, fault: $fault, queue_bdp: $queue,
           queue_bytes: $queue_bytes, ecn: ($ecn == 1), link_options: $link, device: $device, load: $load,
           goodput_mbit: ($w.window_bytes * 8e-6 / $w.window_seconds),
           goodput_from_start_mbit: ($w.bytes * 8e-6 / $w.seconds),
           congestion_control: ([$ss | capture("\\s(?<name>cubic|reno|bbr)\\s").name] | first),
           retransmitted_packets: ([$ss | capture("retrans:\\d+/(?<n>\\d+)").n | tonumber] | first),
           queue_p50_ms: ($way.sojourn.p50_us / 1000), queue_p95_ms: ($way.sojourn.p95_us / 1000),
           drops: $way.dropped, device_drops: $device_drops, marks: $way.counters.marked,
           window: $w, link_start: $link_start[0], link_window: $link_end[0],
           stats: $stats[0], socket: $ss, versions: $versions[0]}'
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

# measure_object NAME ROUND: one run; prints its line.
measure_object() {
    object_seconds "$1" >"$SCRATCH/seconds"
    jq -nc --arg cell "$CELL" --arg contender "$1" --argjson round "$2" --argjson run "$RUN" \
        --argjson began "$EPOCHREALTIME" --argjson rtt "$RTT" --argjson rate "$RATE" --arg size "$SIZE" \
        --argjson load "$(cut -d ' ' -f 1 /proc/loadavg)" --arg link "${LINK[*]}" --arg device "$DEVICE" \
        --slurpfile seconds "$SCRATCH/seconds" --slurpfile versions "$SCRATCH/versions" '
        {schema: 1, kind: "object", run: $run, cell: $cell, contender: $contender, round: $round,
         began: $began, rtt_ms: $rtt, rate_mbit: $rate, size: $size, link_options: $link, device: $device, load: $load,
         seconds: $seconds[0], versions: $versions[0]}'
}

# run_cell CELL: all its rounds.
run_cell() {
    local round index name count
    enter "$1"
    count=${#NAMES[@]}
    for round in $(seq "$TIMES"); do
        # A short transfer meets no faults: one link will do for all rounds.
        if [[ -z $SIZE ]] || ((round == 1)); then relink "$round"; fi
        if [[ -n $SIZE && -n ${REMEMBERED[*]} ]] && ((round == 1)); then
            object_seconds remembered >/dev/null
        fi
        for ((index = 0; index < count; index++)); do
            name=${NAMES[(index + round) % count]}
            settle client-server1 "$RTT"
            if [[ -n $SIZE ]]; then
                measure_object "$name" "$round" >"$SCRATCH/record" || die "$CELL: $name failed"
            else
                measure "$name" "$round" >"$SCRATCH/record" || die "$CELL, round $round: $name failed"
                agreed "$name"
            fi
            cat "$SCRATCH/record" >>"$OUT/results.jsonl"
            progress
        done
    done
}

# agreed NAME: whether the kernel's TCP used the congestion control that the run is about.
agreed() {
    local took
    took=$(jq -r '.congestion_control // empty' "$SCRATCH/record")
    case $1 in
        cubic | reno | bbr) [[ $took == "$1" ]] || die "$1 was asked for, the kernel took '$took'" ;;
    esac
}

# progress: a line for the run in SCRATCH/record; the time left is by the planned lengths of the runs
# and what the past ones took.
progress() {
    done_runs=$((done_runs + 1))
    done_seconds=$(calculate "$done_seconds + $WARM + $WINDOW")
    jq -r --argjson n "$done_runs" --argjson of "$all_runs" --argjson elapsed "$((EPOCHSECONDS - RUN))" \
        --argjson share "$(calculate "$done_seconds / $all_seconds")" '
        def left: $elapsed / $share - $elapsed
            | if . < 90 then "\(. | round) s" else "\(. / 60 | round) min" end;
        "\($n)/\($of) \(.cell) round \(.round) \(.contender): "
        + if .kind == "object" then "\(.seconds * 1000 | round) ms"
          else "\(.goodput_mbit * 10 | round / 10) Mbit/s, queue p95 \(.queue_p95_ms) ms" end
        + ", \(left) left"' "$SCRATCH/record" >&2
}

main() {
    local chosen cell done_runs=0 done_seconds=0 all_runs=0 all_seconds=0
    settings compare "$@"
    read -ra CHOSEN_CONTENDERS <<<"$TAKING_PART"
    mapfile -t chosen < <(cells)
    ((${#chosen[@]} > 0)) || exit 1
    if [[ -n $LIST ]]; then
        printf '%s\n' "${chosen[@]}"
        return
    fi
    become_root "$@"
    need ip ss jq curl nginx python3
    need_program
    [[ -z $(ip netns list | grep '^hw-' || true) ]] ||
        echo "compare.sh: another testbed is up: what runs beside this disturbs the figures" >&2
    readonly RUN=$EPOCHSECONDS
    ! "$HEADWATER" get --help | grep -q -- '--tokens ' || REMEMBERED=(remembered)
    for cell in "${chosen[@]}"; do
        enter "$cell"
        all_runs=$((all_runs + TIMES * ${#NAMES[@]}))
        all_seconds=$(calculate "$all_seconds + ($WARM + $WINDOW) * $TIMES * ${#NAMES[@]}")
    done
    testbed
    echo "compare.sh: ${#chosen[@]} cells, $all_runs runs, at least $(calculate "int($all_seconds / 60 + 1)") minutes" >&2
    mkdir -p "$OUT"
    for cell in "${chosen[@]}"; do run_cell "$cell"; done
    scripts/lab.sh report compare "$OUT"
    give_back
}

main "$@"
