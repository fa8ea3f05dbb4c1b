#!/usr/bin/env bash
#
# make bench: our transport beside smoltcp's TCP (both from `serve`) and the kernel's TCP (nginx,
# iperf3), client -- router -- server, MTU 1500, no rate limit. Peers take turns within each round,
# so that whatever else the machine does meets all of them; medians with ranges.
#
#   requests      objects, each on a connection of its own: one at a time, CLIENTS at a time, and RATE
#                 a second at random; the kernel's connections are reset when the object is whole
#   throughput    one large object at a time; iperf3 with CUBIC and with Reno beside them
#   connections   requests on random ones of more and more open connections, ours only
#
# Each in two layouts: `two` leaves both ends to all processors, `one` pins both to one processor.
#
#   bench.sh [requests|throughput|connections...]      all by default
#
# Environment: ROUNDS (5), SECONDS_EACH (3), CLIENTS (16), RATE (1000), SIZES in kB (1 10 100),
# OBJECT_MB (400), COUNTS (10,100,1000,10000,100000), LAYOUTS (two one), OUT (out/bench). Prints one
# table; OUT/*.json have all figures.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/topology.sh
source scripts/topology.sh

readonly ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-3} CLIENTS=${CLIENTS:-16}
readonly RATE=${RATE:-1000} SIZES=${SIZES:-1 10 100} OBJECT_MB=${OBJECT_MB:-400}
readonly COUNTS=${COUNTS:-10,100,1000,10000,100000} LAYOUTS=${LAYOUTS:-two one}
readonly OUT=${OUT:-out/bench}
HEADWATER=${HEADWATER:-$PWD/target/release/headwater}

# Own UDP ports of one address of a client.
readonly PORTS=64512

said() { echo "bench: $*" >&2; }

# layout NAME: pins the servers, and sets PINNED to what pins a client.
layout() {
    local name all
    all=0-$(($(nproc --all) - 1))
    PINNED=()
    [[ $1 == two ]] || PINNED=(taskset --cpu-list 0)
    for name in server1 nginx1 iperf3; do
        taskset --all-tasks --cpu-list --pid "$([[ $1 == two ]] && echo "$all" || echo 0)" \
            "${TOPOLOGY_PIDS[$name]}" >/dev/null
    done
}

# measure LAYOUT CASE BENCH OPTION...: our program as a client, figures to OUT/CASE-LAYOUT.json.
measure() {
    local layout=$1 case=$2 bench=$3
    shift 3
    said "$case, layout $layout"
    in_ns client "${PINNED[@]}" "$HEADWATER" bench "$bench" --tun hw0 "$@" \
        --stats "$SCRATCH/stats" >"$SCRATCH/table" || die "$case failed"
    jq -c --arg layout "$layout" --arg case "$case" '{case: $case, layout: $layout} + .' \
        "$SCRATCH/stats" >"$OUT/${case// /-}-$layout.json"
}

# peers PATH: options that name all peers and their servers' processes.
peers() {
    local ours=${TOPOLOGY_PIDS[server1]}
    PEERS=(--address 10.77.1.100
        --peer "transport=http://10.77.2.101/$1" --server-pid "transport=$ours"
        --peer "smoltcp=http://10.77.2.101/$1" --server-pid "smoltcp=$ours"
        --peer "kernel=http://10.77.21.2/$1" --server-pid "kernel=${TOPOLOGY_PIDS[nginx1]}")
}

bench_requests() {
    local size
    for size in $SIZES; do
        peers "${size}kB"
        PEERS+=(--rounds "$ROUNDS" --seconds "$SECONDS_EACH" --warm-up 1)
        measure "$1" "requests ${size}kB 1 at a time" requests "${PEERS[@]}"
        measure "$1" "requests ${size}kB $CLIENTS at a time" requests "${PEERS[@]}" \
            --clients "$CLIENTS"
        measure "$1" "requests ${size}kB $RATE a second" requests "${PEERS[@]}" --rate "$RATE"
    done
}

# iperf LAYOUT CONTROL: adds the Mbit/s of one run to SCRATCH/iperf.
iperf() {
    local figure
    figure=$(in_ns client "${PINNED[@]}" iperf3 --client 10.77.21.2 --reverse --congestion "$2" \
        --json --bytes "${OBJECT_MB}M" | jq '.end.sum_received.bits_per_second / 1e6') ||
        die "iperf3 with $2 failed"
    echo "$2 $figure" >>"$SCRATCH/iperf"
}

bench_throughput() {
    local control rounds=$ROUNDS
    : >"$SCRATCH/iperf"
    : >"$SCRATCH/runs"
    peers object
    for ((; rounds > 0; rounds--)); do
        measure "$1" throughput throughput "${PEERS[@]}" --runs 1
        cat "$OUT/throughput-$1.json" >>"$SCRATCH/runs"
        for control in cubic reno; do iperf "$1" "$control"; done
    done
    # The rounds of all runs as those of one, and the other program's beside them.
    jq -c --slurp --rawfile iperf "$SCRATCH/iperf" '
        . as $runs | .[0] | .settings.runs = ($runs | length)
        | .peers |= [range(length) as $i | .[$i]
            | .rounds = [$runs[] | .peers[$i].rounds[]]]
        | .iperf3_mbits = ([$iperf | split("\n")[] | select(. != "") | split(" ")]
            | group_by(.[0]) | map({key: .[0][0], value: map(.[1] | tonumber)}) | from_entries)
        ' "$SCRATCH/runs" >"$SCRATCH/throughput"
    cp "$SCRATCH/throughput" "$OUT/throughput-$1.json"
}

bench_connections() {
    local n addresses=() most
    most=$(tr , '\n' <<<"$COUNTS" | sort -n | tail -n 1)
    for n in $(seq $(((most + PORTS - 1) / PORTS))); do
        addresses+=(--address "10.77.1.$((99 + n))")
    done
    measure "$1" connections connections "${addresses[@]}" --counts "$COUNTS" --rate "$RATE" \
        --seconds "$SECONDS_EACH" --server-pid "${TOPOLOGY_PIDS[server1]}" http://10.77.2.101/1kB
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
               (.iperf3_mbits | to_entries[] | ["iperf3 \(.key)", .value])
             | [$case, $layout, .[0], "Mbit/s", (.[1] | spread),
                ([.[1], $first] | transpose | map(.[0] / .[1]) | spread), "-", "-", "-"]
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

main() {
    local layout bench size chosen=("$@")
    become_root "$@"
    need ip jq curl nginx iperf3 taskset column
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
    ((${#chosen[@]} > 0)) || chosen=(requests throughput connections)
    for bench in "${chosen[@]}"; do
        declare -F "bench_$bench" >/dev/null || die "no bench '$bench': see the head of this script"
    done
    topology_up servers 1
    mkdir "$SCRATCH/root"
    for size in 1 $SIZES; do
        head -c "${size}000" /dev/urandom >"$SCRATCH/root/${size}kB"
    done
    head -c "${OBJECT_MB}M" /dev/urandom >"$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    serve 1
    start_nginx 1
    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    mkdir -p "$OUT"
    rm -f -- "$OUT"/*.json
    for layout in $LAYOUTS; do
        layout "$layout"
        for bench in "${chosen[@]}"; do "bench_$bench" "$layout"; done
    done
    shopt -s nullglob
    table "$OUT"/{requests,throughput,connections}*.json
    echo "kernel $(uname -r), $(nproc) processors, kernel TCP under nginx:" \
        "$(in_ns server1 sysctl -n net.ipv4.tcp_congestion_control); $OUT/*.json"
    if [[ -n ${SUDO_UID:-} ]]; then chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$OUT"; fi
}

main "$@"
