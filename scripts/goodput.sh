#!/usr/bin/env bash
#
# Goodput side by side, client -- router -- server, MTU 1500, no rate limit: contenders take turns
# within each round, so that whatever else the machine does meets all of them; medians and ratios. Two
# rounds before them do not count: in the first, servers compute the file's digest, in the second they
# read the file into memory.
#
#   headwater      a file by our transport, offloading TUN at both ends where the kernel has it; as
#                  with the others, nobody looks at a digest
#   headwater_memory  the same 128 kB over and over, as iperf3 sends them
#   headwater_verified  the same with the digest, as `get` does if nothing else is said
#   headwater_plain  the same with a plain TUN at both ends
#   smoltcp        `get --transport tcp` from the same server as headwater, through the same TUNs
#   curl_nginx     the kernel's TCP over veth, segments of up to 64 kB as the kernel likes them
#   curl_nginx_1500  the same without segmentation offloads: every packet has at most 1500 bytes
#   iperf3_cubic   the kernel's TCP with CUBIC asked for by name, offloads on
#
# Prints a table; OUT/goodput.json has all figures.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh

readonly CONTENDERS=(headwater headwater_memory headwater_verified headwater_plain smoltcp
    curl_nginx curl_nginx_1500 iperf3_cubic)

# mbits BYTES SECONDS
mbits() { awk -v bytes="$1" -v s="$2" 'BEGIN { printf "%.1f\n", bytes * 8e-6 / s }'; }

# ours SERVER PATH ARGUMENT...: from the client's own statistics, which leave out process start and set-up.
ours() {
    local url="http://10.77.2.10$1/$2"
    shift 2
    get "$@" --stats "$SCRATCH/stats" "$url" >/dev/null
    mbits "$(jq .bytes "$SCRATCH/stats")" "$(jq .seconds "$SCRATCH/stats")"
}
run_headwater() { ours 1 object --no-digest; }
run_headwater_memory() { ours 1 ".dynamic/1/$((OBJECT_MB << 20))/131072"; }
run_headwater_verified() { ours 1 object; }
run_headwater_plain() { ours 2 object --no-digest --device plain; }
run_smoltcp() { ours 1 object --no-digest --transport tcp; }
run_curl_nginx() {
    local bytes seconds
    read -r bytes seconds < <(in_ns client curl -sf -m 120 -o /dev/null \
        -w '%{size_download} %{time_total}\n' http://10.77.21.2/object)
    mbits "$bytes" "$seconds"
}
run_curl_nginx_1500() {
    offloads off
    run_curl_nginx
    offloads on
}
run_iperf3_cubic() {
    in_ns client iperf3 --client 10.77.21.2 --reverse --congestion cubic --json \
        --bytes "${OBJECT_MB}M" | jq '.end.sum_received.bits_per_second / 1e6 | . * 10 | round / 10'
}

main() {
    local round name control
    settings goodput "$@"
    become_root "$@"
    need ip tc jq curl nginx iperf3 ethtool
    need_program
    topology_up servers 2
    mkdir "$SCRATCH/root"
    head -c "${OBJECT_MB}M" /dev/urandom >"$SCRATCH/root/object"
    # Else the kernel writes it to the disk in the middle of a measurement.
    sync -f "$SCRATCH/root"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    serve 1
    serve 2 --device plain
    start_nginx 1
    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    control=$(in_ns server1 sysctl -n net.ipv4.tcp_congestion_control)
    for round in $(seq -1 "$ROUNDS"); do
        ((round != 1)) || : >"$SCRATCH/figures"
        for name in "${CONTENDERS[@]}"; do
            "run_$name" >"$SCRATCH/figure" || die "round $round: $name failed"
            echo "$name $(<"$SCRATCH/figure")" >>"$SCRATCH/figures"
        done
        echo "round $round: $(tail -n ${#CONTENDERS[@]} "$SCRATCH/figures" | paste -sd ' ')" >&2
    done
    mkdir -p "$OUT"
    jq -Rn --arg control "$control" --arg kernel "$(uname -r)" --argjson cores "$(nproc)" \
        --argjson mb "$OBJECT_MB" '
        def median: sort | if length % 2 == 1 then .[length / 2 | floor]
            else (.[length / 2 - 1] + .[length / 2]) / 2 end;
        [inputs | split(" ") | {name: .[0], mbits: (.[1] | tonumber)}]
        | group_by(.name) | map({key: .[0].name, value: {
            median_mbits: ([.[].mbits] | median), rounds_mbits: [.[].mbits]}}) | from_entries
        | {mtu: 1500, object_mib: $mb, kernel: $kernel, cores: $cores,
           curl_nginx_congestion_control: $control, contenders: .,
           headwater_to: (.headwater.median_mbits as $h
               | map_values($h / .median_mbits * 1000 | round / 1000))}
        ' "$SCRATCH/figures" >"$OUT/goodput.json"
    printf '%-18s %14s %22s\n' contender 'median Mbit/s' 'headwater is x times'
    for name in "${CONTENDERS[@]}"; do
        printf '%-18s %14s %22s\n' "$name" \
            "$(jq ".contenders.$name.median_mbits" "$OUT/goodput.json")" \
            "$(jq ".headwater_to.$name" "$OUT/goodput.json")"
    done
    echo "kernel TCP under curl: $control; $ROUNDS rounds of $OBJECT_MB MiB; $OUT/goodput.json"
    give_back
}

main "$@"
