#!/usr/bin/env bash
#
# make compare: our transport beside the kernel's TCP and smoltcp's over emulated paths, one download
# at a time: goodput and queueing delay in cells of round trip x rate x fault x queue.
#
#   compare.sh [--full] [--list] [--cells REGEX] [--contenders NAME,...] [--rounds N] [--out DIR]
#
#   --full        every cell; a chosen few by default, in about a quarter of an hour
#   --list        print the names of the cells that would run
#   --cells       only cells whose name matches, of all there are
#   --contenders  of cubic,reno,bbr (the kernel's TCP, curl from nginx), smoltcp (curl from our
#                 server's TCP), headwater (our transport); all by default
#   --rounds      of every cell (3); contenders take turns within each
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
# A run lasts max(1 s, 12 RTT), for the start, and then max(2.5 s, 10 RTT), whose bytes are the
# goodput and in which the queue is watched. Every contender of a round uses the same process of the
# link, and the seed of its faults is the round's number.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/topology.sh
source scripts/topology.sh

HEADWATER=${HEADWATER:-$PWD/target/release/headwater}
readonly CONTENDERS=(cubic reno bbr smoltcp headwater)
readonly RTTS=(1 10 40 100 300) RATES=(10 100 1000) QUEUES=(0.25 1 4)
readonly FAULTS=(clean loss0.1 loss1 reverse1 burst0.5 jitter)
readonly CHOSEN=(
    40ms-100mbit-{clean,loss0.1,loss1,reverse1,burst0.5,jitter,ecn}-1bdp
    40ms-100mbit-clean-{0.25,4}bdp
    {100,300}ms-100mbit-clean-1bdp
    40ms-10mbit-clean-1bdp 10ms-1000mbit-clean-1bdp
)
readonly OBJECT_MIB=1024 MIN_QUEUE=6000

FULL='' LIST='' CELLS='' ROUNDS=3 OUT=out/compare CHOSEN_CONTENDERS=("${CONTENDERS[@]}")

options() {
    while (($# > 0)); do
        case $1 in
            --full) FULL=1 ;;
            --list) LIST=1 ;;
            --cells | --contenders | --rounds | --out)
                (($# > 1)) || die "$1 needs a value"
                case $1 in
                    --cells) CELLS=$2 ;;
                    --contenders) IFS=, read -ra CHOSEN_CONTENDERS <<<"$2" ;;
                    --rounds) ROUNDS=$2 ;;
                    --out) OUT=$2 ;;
                esac
                shift
                ;;
            -h | --help)
                sed -n '3,/^set /s/^# \{0,1\}//p' "$0"
                exit 0
                ;;
            *) die "no option '$1': see --help" ;;
        esac
        shift
    done
    [[ $ROUNDS =~ ^[1-9][0-9]*$ ]] || die "--rounds takes a number above 0, not '$ROUNDS'"
    local name
    for name in "${CHOSEN_CONTENDERS[@]}"; do
        [[ " ${CONTENDERS[*]} " == *" $name "* ]] || die "no contender '$name': ${CONTENDERS[*]}"
    done
}

# calculate EXPRESSION: by awk, up to six digits after the point.
calculate() {
    awk "BEGIN { x = sprintf(\"%.6f\", $1); sub(/\\.?0+\$/, \"\", x); print x }"
}

# queue_bytes RTT_MS RATE_MBIT BDP
queue_bytes() {
    awk -v rtt="$1" -v rate="$2" -v bdp="$3" -v least=$MIN_QUEUE \
        'BEGIN { q = int(rtt * rate * 125 * bdp); print (q < least ? least : q) }'
}

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
}

# cells: the names of those to run.
cells() {
    if [[ -n $CELLS ]]; then
        every_cell | grep -E -- "$CELLS" || die "no cell is like '$CELLS': see --full --list"
    elif [[ -n $FULL ]]; then
        every_cell
    else
        printf '%s\n' "${CHOSEN[@]}"
    fi
}

# enter CELL: sets what describes it, and LINK, the options that make it.
enter() {
    [[ $1 =~ ^([0-9]+)ms-([0-9]+)mbit-([a-z0-9.]+)-([0-9.]+)bdp$ ]] || die "no cell '$1'"
    CELL=$1 RTT=${BASH_REMATCH[1]} RATE=${BASH_REMATCH[2]} FAULT=${BASH_REMATCH[3]}
    QUEUE=${BASH_REMATCH[4]} ECN=0
    QUEUE_BYTES=$(queue_bytes "$RTT" "$RATE" "$QUEUE")
    WARM=$(awk -v rtt="$RTT" 'BEGIN { t = rtt * 0.012; print (t > 1 ? t : 1) }')
    WINDOW=$(awk -v rtt="$RTT" 'BEGIN { t = rtt * 0.01; print (t > 2.5 ? t : 2.5) }')
    LINK=(--delay "$(calculate "$RTT / 2")ms" --rate "${RATE}mbit" --queue "$QUEUE_BYTES")
    case $FAULT in
        clean) ;;
        loss0.1) LINK+=(--ba loss=0.1%) ;;
        loss1) LINK+=(--ba loss=1%) ;;
        reverse1) LINK+=(--ab loss=1%) ;;
        # In the bad state all is lost; it is left after 5 packets and entered after 995.
        burst0.5) LINK+=(--ba burst=0.1005%/20%) ;;
        jitter) LINK+=(--ba "jitter=0.3ms,reorder=on") ;;
        ecn)
            ECN=1
            LINK+=(--ba "mark=$((QUEUE_BYTES / 4))")
            ;;
        *) die "no fault '$FAULT'" ;;
    esac
}

# The kernel's TCP takes the congestion control of the route to its peer: each contender has an
# address of its own at the client.
declare -A SOURCE=([cubic]=10.77.1.1 [reno]=10.77.1.2 [bbr]=10.77.1.3 [smoltcp]=10.77.1.4)

testbed() {
    local name
    topology_up path --delay 1ms
    for name in "${!SOURCE[@]}"; do
        ip -n "$TOPOLOGY-client" addr add "${SOURCE[$name]}/32" dev lo
    done
    mkdir "$SCRATCH/root"
    truncate -s "${OBJECT_MIB}M" "$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    serve 1
    start_nginx 1
    # A large file is digested once, which must not fall into a run.
    in_ns client curl -sI -o /dev/null http://10.77.2.101/object
    until_true 60 test -s "$SCRATCH/digests1" || die "the object is not digested"
    versions >"$SCRATCH/versions"
}

versions() {
    jq -n --arg kernel "$(uname -r)" --argjson cores "$(nproc)" \
        --arg headwater "$("$HEADWATER" --version)" \
        --arg revision "$(git describe --always --dirty 2>/dev/null || true)" \
        --arg curl "$(curl --version | sed q)" --arg nginx "$(nginx -v 2>&1)" \
        --arg rmem "$(in_ns client sysctl -n net.ipv4.tcp_rmem)" \
        --arg wmem "$(in_ns server1 sysctl -n net.ipv4.tcp_wmem)" '$ARGS.named'
}

# relink SEED: the cell's link, from new, and what depends on it.
relink() {
    local name
    path_link "${LINK[@]}" --seed "$1"
    for name in cubic reno bbr; do
        ip -n "$TOPOLOGY-server1" route add "${SOURCE[$name]}/32" via 10.77.21.1 congctl "$name"
    done
    for name in client server1; do
        in_ns "$name" sysctl -qw "net.ipv4.tcp_ecn=$ECN"
    done
}

ask_link() { "$HEADWATER" link --control "$SCRATCH/link-client-server1" --send "$1"; }

# command_of NAME: sets COMMAND, the contender's download to standard output.
command_of() {
    case $1 in
        headwater)
            COMMAND=("$HEADWATER" get --tun hw0 --address 10.77.1.100 --silent --show-error
                --stats "$SCRATCH/stats" http://10.77.2.101/object)
            ;;
        smoltcp) COMMAND=(curl -sS --interface "${SOURCE[$1]}" http://10.77.2.101/object) ;;
        *) COMMAND=(curl -sS --interface "${SOURCE[$1]}" http://10.77.21.2/object) ;;
    esac
}

# watch NAME: beside a run: the link's counters for start and window apart, and, near the end, what
# the sending socket says.
watch() {
    sleep "$WARM"
    ask_link show >"$SCRATCH/link-start"
    ask_link reset >"$SCRATCH/reset"
    sleep "$(calculate "$WINDOW - 0.2")"
    in_ns server1 ss -tinH state established "dst ${SOURCE[$1]:-10.77.1.100}" >"$SCRATCH/ss"
}

# settle: until nothing of the last run is under way.
settle() {
    # shellcheck disable=SC2317 # called by name
    link_is_empty() { ask_link show | jq -e '[.ab.waiting_packets, .ba.waiting_packets] | add == 0' >/dev/null; }
    sleep "$(calculate "$RTT * 0.0015 + 0.05")"
    until_true 20 link_is_empty || die "packets of the last run do not cease"
    ask_link reset >"$SCRATCH/reset"
}

# measure NAME ROUND: one run; prints its line.
measure() {
    local watcher began=$EPOCHREALTIME
    command_of "$1"
    rm -f "$SCRATCH/stats"
    : >"$SCRATCH/ss"
    watch "$1" &
    watcher=$!
    in_ns client python3 scripts/window.py "$WARM" "$WINDOW" "${COMMAND[@]}" >"$SCRATCH/window"
    ask_link show >"$SCRATCH/link-end"
    wait "$watcher"
    [[ -s $SCRATCH/stats ]] || echo null >"$SCRATCH/stats"
    jq -nc --arg cell "$CELL" --arg contender "$1" --argjson round "$2" --argjson began "$began" \
        --argjson run "$RUN" --argjson rtt "$RTT" --argjson rate "$RATE" --arg fault "$FAULT" \
        --argjson queue "$QUEUE" --argjson queue_bytes "$QUEUE_BYTES" --argjson ecn "$ECN" \
        --argjson load "$(cut -d ' ' -f 1 /proc/loadavg)" --arg link "${LINK[*]}" \
        --rawfile ss "$SCRATCH/ss" --slurpfile window "$SCRATCH/window" \
        --slurpfile link_start "$SCRATCH/link-start" --slurpfile link_end "$SCRATCH/link-end" \
        --slurpfile stats "$SCRATCH/stats" --slurpfile versions "$SCRATCH/versions" '
        $window[0] as $w | $link_end[0].ba as $way
        | {schema: 1, kind: "transfer", run: $run, cell: $cell, contender: $contender, round: $round,
           began: $began, rtt_ms: $rtt, rate_mbit: $rate, fault: $fault, queue_bdp: $queue,
           queue_bytes: $queue_bytes, ecn: ($ecn == 1), link_options: $link, load: $load,
           goodput_mbit: ($w.window_bytes * 8e-6 / $w.window_seconds),
           goodput_from_start_mbit: ($w.bytes * 8e-6 / $w.seconds),
           congestion_control: ([$ss | capture("\\s(?<name>cubic|reno|bbr)\\s").name] | first),
           retransmitted_packets: ([$ss | capture("retrans:\\d+/(?<n>\\d+)").n | tonumber] | first),
           queue_p50_ms: ($way.sojourn.p50_us / 1000), queue_p95_ms: ($way.sojourn.p95_us / 1000),
           drops: $way.dropped, marks: $way.marked,
           window: $w, link_start: $link_start[0], link_window: $link_end[0],
           stats: $stats[0], socket: $ss, versions: $versions[0]}'
}

# run_cell CELL: all its rounds.
run_cell() {
    local round index name count=${#CHOSEN_CONTENDERS[@]}
    enter "$1"
    for round in $(seq "$ROUNDS"); do
        relink "$round"
        for ((index = 0; index < count; index++)); do
            name=${CHOSEN_CONTENDERS[(index + round) % count]}
            settle
            measure "$name" "$round" >"$SCRATCH/record" || die "$CELL, round $round: $name failed"
            jq -e --arg name "$name" 'select(.congestion_control != null)
                | .congestion_control != $name' "$SCRATCH/record" >/dev/null &&
                die "$name was asked for, the kernel took $(jq -r .congestion_control "$SCRATCH/record")"
            cat "$SCRATCH/record" >>"$OUT/results.jsonl"
            progress "$name" "$round"
        done
    done
}

# progress NAME ROUND: a line for the run in SCRATCH/record; the time left is by the planned lengths
# of the runs and what the past ones took.
progress() {
    done_runs=$((done_runs + 1))
    done_seconds=$(calculate "$done_seconds + $WARM + $WINDOW")
    jq -r --argjson n "$done_runs" --argjson of "$all_runs" --argjson elapsed "$((EPOCHSECONDS - RUN))" \
        --argjson share "$(calculate "$done_seconds / $all_seconds")" '
        def left: $elapsed / $share - $elapsed | if . < 90 then "\(. | round) s" else "\(. / 60 | round) min" end;
        "\($n)/\($of) \(.cell) round \(.round) \(.contender): \(.goodput_mbit * 10 | round / 10) Mbit/s, "
        + "queue p95 \(.queue_p95_ms) ms, \(left) left"' "$SCRATCH/record" >&2
}

main() {
    local chosen cell done_runs=0 done_seconds=0 all_runs all_seconds=0
    options "$@"
    mapfile -t chosen < <(cells)
    ((${#chosen[@]} > 0)) || exit 1
    if [[ -n $LIST ]]; then
        printf '%s\n' "${chosen[@]}"
        return
    fi
    become_root "$@"
    need ip ss jq curl nginx python3
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
    [[ -z $(ip netns list | grep '^hw-' || true) ]] ||
        echo "compare.sh: another testbed is up: what runs beside this disturbs the figures" >&2
    readonly RUN=$EPOCHSECONDS
    testbed
    all_runs=$((${#chosen[@]} * ROUNDS * ${#CHOSEN_CONTENDERS[@]}))
    for cell in "${chosen[@]}"; do
        enter "$cell"
        all_seconds=$(calculate "$all_seconds + ($WARM + $WINDOW) * $ROUNDS * ${#CHOSEN_CONTENDERS[@]}")
    done
    echo "compare.sh: ${#chosen[@]} cells, $all_runs runs, at least $(calculate "int($all_seconds / 60 + 1)") minutes" >&2
    mkdir -p "$OUT"
    for cell in "${chosen[@]}"; do run_cell "$cell"; done
    python3 scripts/report.py "$OUT"
    if [[ -n ${SUDO_UID:-} ]]; then chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$OUT"; fi
}

main "$@"
