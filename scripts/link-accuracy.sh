#!/usr/bin/env bash
#
# How exact and how fast `headwater link` is on this machine: one-way delays beyond the configured
# one, and the kernel's TCP (CUBIC, one flow, MTU 1500) across it. Other programs that run meanwhile
# show in the figures.
#
#   link-accuracy.sh [--seconds N]      of each throughput (5)
#
# Prints a table of delays, then for each rate the goodput of TCP and the cost of a packet in the link,
# both directions together: time of its thread, of which a part is in the kernel. A TUN device
# receives within the system call that writes a packet: the work of the kernel's TCP on a packet,
# acknowledgements included, is in the time of the link.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/contenders.sh
source scripts/lib/contenders.sh

readonly DELAYS_MS=(1 10 40 100 300) PACKETS=1000 GAP_MS=2 PORT=7700

# delay MS: the link's one-way delay, compared with what packets take from the client to the server.
delay() {
    ask_link client-server1 "set both delay=$1ms"
    start receiver server1 "$LAB" probe delays receive 10.77.21.2 $PORT $PACKETS "$1"
    wait_ready receiver 10
    in_ns client "$LAB" probe delays send 10.77.21.2 $PORT $PACKETS $GAP_MS
    finish receiver || die "$(tail -n 1 "$SCRATCH/receiver.err")"
    tail -n 1 "$SCRATCH/receiver.out" >"$SCRATCH/delays"
    record delay ms="$1"
}

# link_time: ticks that the link has run, in the program and in the kernel.
link_time() {
    awk '{ print $14, $15 }' "/proc/${TOPOLOGY_PIDS[link-client-server1]}/stat"
}

# throughput RATE: one flow of the kernel's TCP from the server to the client.
throughput() {
    local before after
    ask_link client-server1 "set both delay=5ms rate=$1"
    ask_link client-server1 reset
    before=$(link_time)
    in_ns client iperf3 --client 10.77.21.2 --reverse --time "$SECONDS_EACH" --json >"$SCRATCH/iperf3"
    after=$(link_time)
    ask_link client-server1 show >"$SCRATCH/show"
    record throughput rate="$1" before="$before" after="$after"
}

main() {
    local ms rate
    settings link-accuracy "$@"
    become_root "$@"
    need ip jq python3 iperf3
    need_program
    topology_up path --delay 1ms
    versions client server1
    for ms in "${DELAYS_MS[@]}"; do delay "$ms"; done
    congestion_route server1 10.77.21.1/32 10.77.21.1 cubic
    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    # shellcheck disable=SC2317 # called by name
    iperf3_listens() { in_ns server1 ss -Hltn 'sport = 5201' | grep -q 5201; }
    until_true 10 iperf3_listens || die "iperf3 does not listen"
    for rate in none 1gbit; do throughput "$rate"; done
    report link-accuracy
}

main "$@"
