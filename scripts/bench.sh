#!/usr/bin/env bash
#
# make bench: our transport beside smoltcp's TCP (both from `serve`) and the kernel's TCP, MTU 1500,
# no rate limit. Peers take turns within each round, so that whatever else the machine does meets all
# of them; medians with ranges.
#
#   requests      objects, each on a connection of its own: one at a time, CLIENTS at a time, and RATE
#                 a second at random; by our transport with proofs of the own address from earlier
#                 connections ("known") and without; by the kernel from nginx and from the simplest
#                 server (accept, read, write, close). The kernel's connections are reset by the
#                 client when the object is whole
#   throughput    one large object at a time; beside it iperf3 and a well fed pair of sockets, both
#                 with CUBIC and with Reno, and `bare`: our packets without any protocol. All of these
#                 send the same little memory over and over, ours 128 kB of it like iperf3; nginx
#                 sends a file. Besides, by `get`, files: "get-file", as large as the object, and 64
#                 MB: "get-hot", and "get-dropped", the same dropped from the page cache before, are
#                 asked for again and again, beside "get-memory", as much of the little memory;
#                 "get-disk" is one that nobody has asked for, dropped as well, beside "dd-disk",
#                 which only reads it
#   queues        QUEUE_CLIENTS downloads at once, from one server, from one that shares its device
#                 (--multi-queue) with nobody, and from two that share one; and how many processors
#                 were busy, which says what the machine allows
#   connections   requests on random ones of more and more open connections, the last time while
#                 another process keeps KEPT more; memory of idle connections of nginx beside them
#
# Throughput over each of PATHS: `router` is client -- router -- server, `pair` has one veth pair; and
# with each of LINKS: `on`, `off` and `forwarding` are those of offloads in lib/topology.sh, `plain` has
# our plain device. All else by the router, with offloads on.
# Each in two layouts: `two` leaves both ends to all processors, `one` pins both to one processor,
# scheduled in batches, so that neither end interrupts the other.
#
#   bench.sh [requests|throughput|queues|connections...]      all by default
#
# Prints one table; OUT/*.json have all figures, OUT/connections.svg is a picture of the last part.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/idle-memory.sh
source scripts/lib/idle-memory.sh


said() { echo "bench: $*" >&2; }

# The object of `bare` and of the well fed pair comes from there.
readonly BARE=10.77.2.109:7601 FED_PORT=5202

# layout NAME: pins the servers, and sets PINNED to what pins a client.
layout() {
    local name all
    all=0-$(($(nproc --all) - 1))
    PINNED=()
    [[ $1 == two ]] || PINNED=(taskset --cpu-list 0 chrt --batch 0)
    for name in "${!TOPOLOGY_PIDS[@]}"; do
        taskset --all-tasks --cpu-list --pid "$([[ $1 == two ]] && echo "$all" || echo 0)" \
            "${TOPOLOGY_PIDS[$name]}" >/dev/null
        chrt --all-tasks "$([[ $1 == two ]] && echo --other || echo --batch)" --pid 0 \
            "${TOPOLOGY_PIDS[$name]}"
    done
}

# measure LAYOUT CASE BENCH OPTION...: our program as a client, figures to OUT/CASE-LAYOUT.json.
measure() {
    local layout=$1 case=$2 bench=$3
    shift 3
    said "$case, layout $layout"
    in_ns client "${PINNED[@]}" "$HEADWATER" bench "$bench" "$@" \
        --stats "$SCRATCH/stats" >"$SCRATCH/table" || die "$case failed"
    jq -c --arg layout "$layout" --arg case "$case" '{case: $case, layout: $layout} + .' \
        "$SCRATCH/stats" >"$OUT/${case// /-}-$layout.json"
}

# peers PATH [NGINX-PATH]: options that name all peers and their servers' processes.
peers() {
    local ours=${TOPOLOGY_PIDS[server1]}
    PEERS=("${DEVICE[@]}" --address 10.77.1.100
        --peer "transport=http://10.77.2.101/$1" --server-pid "transport=$ours"
        --peer "smoltcp=http://10.77.2.101/$1" --server-pid "smoltcp=$ours"
        --peer "kernel=http://10.77.21.2/${2:-$1}" --server-pid "kernel=${TOPOLOGY_PIDS[nginx1]}")
}

bench_requests() {
    local size pace options
    for size in $SIZES; do
        start respond server1 "$HEADWATER" bench respond --listen 10.77.21.2:81 \
            --bytes "${size}000"
        wait_ready respond 10
        layout "$1"
        peers "${size}kB"
        for pace in "1 at a time" "$CLIENTS at a time" "$RATE a second"; do
            options=(--rounds "$ROUNDS" --seconds "$SECONDS_EACH" --warm-up 1)
            case $pace in
            *second) options+=(--rate "$RATE") ;;
            *) options+=(--clients "${pace%% *}") ;;
            esac
            measure "$1" "requests ${size}kB $pace" requests "${PEERS[@]}" "${options[@]}"
            measure "$1" "requests ${size}kB $pace known" requests "${options[@]}" --tokens \
                "${PEERS[@]:0:${#DEVICE[@]} + 6}" --peer kernel=http://10.77.21.2:81/ \
                --server-pid "kernel=${TOPOLOGY_PIDS[respond]}"
        done
        stop respond
    done
}

# beside NAME COMMAND...: adds the Mbit/s that COMMAND prints in the client's namespace to
# SCRATCH/beside.
beside() {
    local name=$1 figure
    shift
    figure=$(in_ns client "${PINNED[@]}" "$@") || die "$name failed"
    echo "$name $figure" >>"$SCRATCH/beside"
}

# iperf CONTROL: iperf3 with that congestion control.
iperf() {
    iperf3 --client 10.77.21.2 --reverse --congestion "$1" --json --bytes "${OBJECT_MB}M" |
        jq '.end.sum_received.bits_per_second / 1e6'
}

# drop FILE: out of the page cache, on a disk that has it whole.
drop() { dd of="$SCRATCH/root/$1" oflag=nocache conv=notrunc,fdatasync count=0 status=none; }

# fetch FILE OPTION...: one download by `get`, its figures to SCRATCH/fetched.
fetch() {
    local file=$1
    shift
    in_ns client "${PINNED[@]}" "$HEADWATER" get "${DEVICE[@]}" --address 10.77.1.100 --silent \
        --show-error --stats "$SCRATCH/fetched" "$@" "http://10.77.2.101/$file" >/dev/null ||
        die "$file cannot be fetched"
}

# fetched NAME FILE: adds the Mbit/s of one download to SCRATCH/beside.
fetched() {
    fetch "$2" --no-digest
    jq -r --arg name "$1" '"\($name) \(.bytes * 8e-6 / .seconds)"' \
        "$SCRATCH/fetched" >>"$SCRATCH/beside"
}

# read_disk: how many Mbit/s `dd` reads.
read_disk() {
    drop disk
    LC_ALL=C dd if="$SCRATCH/root/disk" of=/dev/null bs=64k 2>&1 |
        sed -n 's/.* copied, \([0-9.e-]*\) s,.*/\1/p' | awk '{ print 64 * 8 / $1 }'
}

# hot FILE...: whether as many files are in the server's memory. It looks for what its thread has read
# when the next request comes.
hot() {
    fetch "$1" --no-digest --range 0-0
    in_ns server1 curl -s http://127.0.0.1:9100/metrics | awk -v least=$# '
        $1 == "headwater_hot_files" { files = $2 } END { exit files < least }'
}

# files: what is hot, and what is not in the page cache.
files() {
    fetched get-file object
    fetched get-memory .dynamic/1/64000000/131072
    fetched get-hot dropped
    drop dropped
    fetched get-dropped dropped
    head -c 64000000 /dev/urandom >"$SCRATCH/root/disk"
    sync -f "$SCRATCH/root"
    # Its digest is made before; to ask for the head only makes nothing hot.
    fetch disk --head
    # A machine around this one may remember what it has read: then both read from there.
    read_disk >/dev/null
    drop disk
    fetched get-disk disk
    echo "dd-disk $(read_disk)" >>"$SCRATCH/beside"
}

bench_throughput() {
    local control file rounds=$ROUNDS case="throughput $CASE"
    : >"$SCRATCH/beside"
    : >"$SCRATCH/runs"
    peers ".dynamic/1/${OBJECT_MB}000000/131072" object
    export -f iperf
    export OBJECT_MB
    # Asked for twice, a file becomes hot; a thread reads it meanwhile.
    for file in object object dropped dropped; do fetch "$file" --no-digest; done
    until_true 60 hot object dropped || die "the files do not become hot"
    for ((; rounds > 0; rounds--)); do
        measure "$1" "$case" throughput "${PEERS[@]}" --runs 1
        cat "$OUT/${case// /-}-$1.json" >>"$SCRATCH/runs"
        in_ns client "${PINNED[@]}" "$HEADWATER" bench bare "${DEVICE[@]}" --address 10.77.1.100 \
            --connect "$BARE" --runs 1 --bytes "${OBJECT_MB}000000" --stats "$SCRATCH/bare" \
            >/dev/null || die "bare failed"
        jq -r '.peers[].rounds[] | "bare \(.body_bytes * 8 / .latency.max_us)"' \
            "$SCRATCH/bare" >>"$SCRATCH/beside"
        files
        for control in cubic reno; do
            beside "iperf3-$control" bash -c "iperf $control"
            beside "fed-$control" scripts/lab.sh probe fed-tcp fetch 10.77.21.2 "$FED_PORT" \
                "${OBJECT_MB}000000" "$control"
        done
    done
    # The rounds of all runs as those of one, and the other programs' beside them.
    jq -c --slurp --rawfile beside "$SCRATCH/beside" '
        . as $runs | .[0] | .settings.runs = ($runs | length)
        | .peers |= [range(length) as $i | .[$i]
            | .rounds = [$runs[] | .peers[$i].rounds[]]]
        | .beside_mbits = ([$beside | split("\n")[] | select(. != "") | split(" ")]
            | group_by(.[0]) | map({key: .[0][0], value: map(.[1] | tonumber)}) | from_entries)
        ' "$SCRATCH/runs" >"$SCRATCH/throughput"
    cp "$SCRATCH/throughput" "$OUT/${case// /-}-$1.json"
}

# processor_time: seconds that all processors were busy, and idle.
processor_time() {
    awk -v hz="$(getconf CLK_TCK)" \
        '/^cpu / { print ($2 + $3 + $4 + $7 + $8 + $9) / hz, ($5 + $6) / hz; exit }' /proc/stat
}

# at_once NAME ADDRESS: as many downloads at once as there are to be, each with a device of its own;
# adds their goodput together, and how many processors were busy, to SCRATCH/queues.
at_once() {
    local n before began ended pids=()
    before=$(processor_time)
    began=$EPOCHREALTIME
    for n in $(seq "$QUEUE_CLIENTS"); do
        in_ns client "$HEADWATER" get --tun "hwq$n" --address "10.77.1.$((100 + n))" --silent \
            --show-error --no-digest "http://$2/object" >/dev/null &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" || die "$1: a download failed"; done
    ended=$EPOCHREALTIME
    echo "$1 $before $(processor_time) $began $ended" >>"$SCRATCH/queues"
}

# A server of which one or two processes share a device: name, device, its address, number.
queue() {
    start "$1" server1 "$HEADWATER" serve --tun "$2" --address "$3" --root "$SCRATCH/root" \
        --keys "$SCRATCH/keys" --server-id "$4" --multi-queue
    wait_ready "$1"
}

bench_queues() {
    local round one=10.77.2.107 two=10.77.2.108
    # Pinned to one processor there is nothing to be gained.
    [[ $1 == two ]] || return 0
    through router server1 "$one/32"
    through router server1 "$two/32"
    queue alone hw2 "$one" 2
    queue first hw3 "$two" 3
    queue second hw3 "$two" 4
    said "queues, $QUEUE_CLIENTS downloads at once"
    for ((round = -2; round < ROUNDS; round++)); do
        # The first two make the object hot.
        ((round != 0)) || : >"$SCRATCH/queues"
        at_once "one server" 10.77.2.101
        at_once "one, multi-queue" "$one"
        at_once "two, multi-queue" "$two"
    done
    stop second
    stop first
    stop alone
    jq -Rn --arg layout "$1" --argjson cores "$(nproc)" \
        --argjson bytes "${OBJECT_MB}000000" --argjson clients "$QUEUE_CLIENTS" '
        [inputs | capture("^(?<peer>.*) (?<b0>\\S+) (?<i0>\\S+) (?<b1>\\S+) (?<i1>\\S+)"
                + " (?<t0>\\S+) (?<t1>\\S+)$")
            | with_entries(if .key == "peer" then . else .value |= tonumber end)
            | (.b1 - .b0) as $busy | (.i1 - .i0) as $idle
            | {peer, mbits: ($clients * $bytes * 8e-6 / (.t1 - .t0)),
               busy: ($busy * $cores / ($busy + $idle))}]
        | {bench: "queues", case: "queues, \($clients) at once", layout: $layout,
           cores: $cores, peers: (group_by(.peer) | map({peer: .[0].peer,
             rounds: map({mbits, busy})}) | sort_by(.peer | startswith("one server") | not))}
        ' "$SCRATCH/queues" >"$OUT/queues-$1.json"
}

# addresses FIRST CONNECTIONS: options for own addresses from 10.77.1.FIRST on that have ports for
# so many.
addresses() {
    local n
    ADDRESSES=()
    for n in $(seq $((($2 + LOAD_PORTS - 1) / LOAD_PORTS))); do
        ADDRESSES+=(--address "10.77.1.$(($1 - 1 + n))")
    done
}

bench_connections() {
    local count most options
    most=$(tr ' ' '\n' <<<"$COUNTS" | sort -n | tail -n 1)
    addresses 100 "$most"
    options=("${DEVICE[@]}" "${ADDRESSES[@]}" --rate "$RATE" --seconds "$SECONDS_EACH"
        --server-pid "${TOPOLOGY_PIDS[server1]}" http://10.77.2.101/1kB)
    measure "$1" connections connections --counts "${COUNTS// /,}" "${options[@]}"
    if ((KEPT > 0)); then
        addresses 120 "$KEPT"
        start keeper client "$HEADWATER" load --tun hw2 "${ADDRESSES[@]}" --connections "$KEPT" \
            --keep --stats "$SCRATCH/keeper.json" http://10.77.2.101/1kB
        # shellcheck disable=SC2317 # called by name
        kept_or_gone() { grep -q '^holding ' "$SCRATCH/keeper.err" || ! running keeper; }
        until_true 900 kept_or_gone || die "the connections to be kept do not open"
        running keeper || die "no kept connections: $(tail -n 1 "$SCRATCH/keeper.err")"
        measure "$1" "connections beside $KEPT others" connections --counts "$most" "${options[@]}"
        jq --argjson kept "$KEPT" '.kept_besides = $kept' \
            "$OUT/connections-beside-$KEPT-others-$1.json" >"$SCRATCH/stats"
        cp "$SCRATCH/stats" "$OUT/connections-beside-$KEPT-others-$1.json"
        stop keeper
    fi
    # The kernel's do not depend on the layout.
    [[ $1 == "${LAYOUTS%% *}" ]] || return 0
    stop nginx1
    for count in $KERNEL_COUNTS; do
        said "$count connections of the kernel's TCP"
        idle_kernel "$count" >"$OUT/kernel-connections-$count.json"
    done
    start_nginx 1
    layout "$1"
}

# table: all that was measured now, as one.
table() {
    jq -r --slurp '
        def shown: if . >= 100 then round elif . >= 10 then . * 10 | round / 10
            else . * 100 | round / 100 end | tostring;
        def median: sort | (.[length / 2 | floor] + .[(length - 1) / 2 | floor]) / 2;
        def spread: if length == 0 then "-" elif min == max then median | shown
            else "\(median | shown) [\(min | shown)-\(max | shown)]" end;
        def cpu(of): [.rounds[] | select(.server_ns and of > 0) | .server_ns / of / 1000]
            | if length == 0 then "-" else median | shown end;
        ["case", "layout", "peer", "figure", "median [range]", "of the first", "p50 us", "p99 us",
            "server CPU us"],
        (.[] | .case as $case | .layout as $layout
         | if .bench == "requests" then .peers[0].rounds as $first | .peers[]
             | [$case, $layout, .peer, "requests/s", ([.rounds[].per_second] | spread),
                ([.rounds, $first] | transpose | map(.[0].per_second / .[1].per_second) | spread),
                ([.rounds[].latency.p50_us] | median | shown),
                ([.rounds[].latency.p99_us] | median | shown), cpu(.completed)]
           elif .bench == "throughput" then
             (.peers[0].rounds | map(.body_bytes * 8 / .latency.max_us)) as $first
             | (.peers[] | [.peer, (.rounds | map(.body_bytes * 8 / .latency.max_us))]),
               (.beside_mbits | to_entries[] | [.key, .value])
             | [$case, $layout, .[0], "Mbit/s", (.[1] | spread),
                ([.[1], $first] | transpose | map(.[0] / .[1]) | spread), "-", "-", "-"]
           elif .bench == "queues" then .cores as $cores | .peers[0].rounds as $first | .peers[]
             | [$case, $layout, .peer, "Mbit/s", ([.rounds[].mbits] | spread),
                ([.rounds, $first] | transpose | map(.[0].mbits / .[1].mbits) | spread),
                "-", "-", "-"],
               [$case, $layout, .peer, "busy of \($cores)", ([.rounds[].busy] | spread),
                "-", "-", "-", "-"],
               [$case, $layout, .peer, "all busy: Mbit/s",
                ([.rounds[] | .mbits * $cores / .busy] | spread), "-", "-", "-", "-"]
           else .peers[]
             | [$case, $layout, "\(.connections) open", "requests/s", (.live.per_second | shown), "-",
                (.live.latency.p50_us | shown), (.live.latency.p99_us | shown),
                (if .server_ns and .live.completed > 0
                 then .server_ns / .live.completed / 1000 | shown else "-" end)]
           end)
        | join("\t")' "$@" | column -t -s $'\t'
    jq -r --slurp '.[] | select(.bench == "connections") | .peers | select(length > 1)
        | "memory from \(.[0].connections) to \(.[-1].connections) connections: "
          + "server \(.[-1].server_rss_kib - .[0].server_rss_kib) KiB more, "
          + "this generator \((.[-1].own_rss_kib - .[0].own_rss_kib) * 1024
              / (.[-1].connections - .[0].connections) | round) bytes each"' "$@"
}

# servers SHAPE: brings the path and everything that answers up.
servers() {
    local size
    topology_up "$@"
    # A second device of the server's, beside that of `serve`.
    [[ $1 == pair ]] || through router server1 "${BARE%:*}/32"
    mkdir "$SCRATCH/root"
    for size in 1 $SIZES; do
        head -c "${size}000" /dev/urandom >"$SCRATCH/root/${size}kB"
    done
    head -c "${OBJECT_MB}000000" /dev/urandom >"$SCRATCH/root/object"
    head -c 64000000 /dev/urandom >"$SCRATCH/root/dropped"
    # Else the kernel writes them to the disk in the middle of a measurement.
    sync -f "$SCRATCH/root"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    start_nginx 1
    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    start fed server1 scripts/lab.sh probe fed-tcp serve 10.77.21.2 "$FED_PORT"
    wait_ready fed 10
}

# devices KIND: our servers on devices of that kind.
devices() {
    DEVICE=(--tun hw0 --device "$1")
    ! running server1 || stop server1
    ! running bare || stop bare
    serve 1 --device "$1" --metrics 127.0.0.1:9100
    start bare server1 "$HEADWATER" bench bare --tun hw1 --device "$1" --address "${BARE%:*}" \
        --listen "${BARE#*:}"
    wait_ready bare 10
}

# on_path SHAPE NAME LINKS BENCH...: all that is to be measured there.
on_path() {
    local shape=$1 name=$2 links=$3 link layout bench
    shift 3
    servers "$shape"
    for link in $links; do
        case $link in
        plain) offloads on && devices plain ;;
        *) offloads "$link" && devices auto ;;
        esac
        CASE="$name $link"
        for layout in $LAYOUTS; do
            layout "$layout"
            for bench in "$@"; do "bench_$bench" "$layout"; done
        done
    done
    CONTROL=$(in_ns server1 sysctl -n net.ipv4.tcp_congestion_control)
    topology_down
}

main() {
    local bench path others=() chosen
    settings bench "$@"
    become_root "$@"
    need ip jq curl nginx iperf3 taskset chrt ethtool column python3
    need_program
    read -ra chosen <<<"$PARTS"
    mkdir -p "$OUT"
    rm -f -- "$OUT"/*.json
    for bench in "${chosen[@]}"; do
        [[ $bench == throughput ]] || others+=("$bench")
    done
    ((${#others[@]} == 0)) || on_path servers router on "${others[@]}"
    if [[ " ${chosen[*]} " == *' throughput '* ]]; then
        for path in $PATHS; do
            case $path in
            router) on_path servers router "$LINKS" throughput ;;
            pair) on_path pair pair "$LINKS" throughput ;;
            esac
        done
    fi
    shopt -s nullglob
    table "$OUT"/{requests,throughput,queues,connections}*.json
    if [[ " ${chosen[*]} " == *' connections '* ]]; then
        jq -r '"nginx with \(.connections) idle connections: \(.rss_after_kib - .rss_before_kib) KiB"
            + " more, the kernel at both ends \(.kernel_sockets_both_ends_kib) KiB"' \
            "$OUT"/kernel-connections-*.json
        scripts/lab.sh report connections "$OUT"/{kernel-,}connections*.json "$OUT/connections.svg"
    fi
    echo "kernel $(uname -r), $(nproc) processors, kernel TCP under nginx: $CONTROL; $OUT/*.json"
    give_back
}

main "$@"
