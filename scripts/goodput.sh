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
#   headwater_sockets  the same over UDP sockets of the kernel, as a user without privileges
#   headwater_sockets_1500  the same without segmentation offloads: every packet has at most 1500 bytes
#   smoltcp        `get --transport tcp` from the same server as headwater, through the same TUNs
#   curl_headwater  the kernel's TCP of curl from the TCP of the same server, through its TUN and veth
#   curl_nginx     the kernel's TCP over veth, segments of up to 64 kB as the kernel likes them
#   curl_nginx_1500  the same without segmentation offloads: every packet has at most 1500 bytes
#   iperf3_cubic   the kernel's TCP with CUBIC requested by name, offloads on
#
# Prints a table; the records are in OUT/goodput.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh

readonly CONTENDERS=(headwater headwater_memory headwater_verified headwater_plain headwater_sockets
    headwater_sockets_1500 smoltcp curl_headwater curl_nginx curl_nginx_1500 iperf3_cubic)

# ours SERVER PATH ARGUMENT...: from the client's own statistics, which leave out process start and set-up.
ours() {
    local url="http://10.77.2.10$1/$2"
    shift 2
    get "$@" --stats "$SCRATCH/stats" "$url" >/dev/null && KIND='get'
}
run_headwater() { ours 1 object --no-digest; }
run_headwater_memory() { ours 1 ".dynamic/1/$((OBJECT_MB << 20))/131072"; }
run_headwater_verified() { ours 1 object; }
run_headwater_plain() { ours 2 object --no-digest --device plain; }
run_headwater_sockets() {
    in_ns client "${USER_RUN[@]}" get --transport trickles --silent --show-error --no-digest \
        --stats "$SCRATCH/home/stats" -o /dev/null http://10.77.21.2/object &&
        cp -- "$SCRATCH/home/stats" "$SCRATCH/stats" && KIND='get'
}
run_headwater_sockets_1500() {
    offloads off
    run_headwater_sockets
    offloads on
}
run_smoltcp() { ours 1 object --no-digest --transport tcp; }
run_curl() {
    in_ns client curl -sf -m 120 -o /dev/null -w '%{size_download} %{time_total}\n' \
        "$1" >"$SCRATCH/curl" && KIND=curl
}
run_curl_headwater() { run_curl http://10.77.2.101/object; }
run_curl_nginx() { run_curl http://10.77.21.2/object; }
run_curl_nginx_1500() {
    offloads off
    run_curl_nginx
    offloads on
}
run_iperf3_cubic() {
    in_ns client iperf3 --client 10.77.21.2 --reverse --congestion cubic --json \
        --bytes "${OBJECT_MB}M" >"$SCRATCH/iperf3" && KIND=iperf3
}

main() {
    local round name
    settings goodput "$@"
    become_root "$@"
    need ip tc jq curl nginx iperf3 ethtool setpriv
    need_program
    topology_up servers 2
    mkdir "$SCRATCH/root"
    head -c "${OBJECT_MB}M" /dev/urandom >"$SCRATCH/root/object"
    # Else the kernel writes it to the disk in the middle of a measurement.
    sync -f "$SCRATCH/root"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    serve 1
    serve 2 --device plain
    unprivileged
    ln "$SCRATCH/root/object" "$SCRATCH/home/root/object"
    start sockets1 server1 "${USER_RUN[@]}" serve --listen 10.77.21.2:7600 --root "$SCRATCH/home/root"
    wait_ready sockets1
    start_nginx 1
    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    versions client server1
    for ((round = -1; round <= ROUNDS; round++)); do
        for name in "${CONTENDERS[@]}"; do
            "run_$name" || die "round $round: $name failed"
            record "$KIND" contender="$name" round="$round" object_mib="$OBJECT_MB" >&2
        done
    done
    report goodput
}

main "$@"
