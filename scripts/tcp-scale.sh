#!/usr/bin/env bash
#
# The cost to `serve` of a packet of plain TCP with FEW and with MANY open connections: clients of the
# kernel request on all of them in turn, 8 at a time, and the processor time of the server's loop is
# divided by the packets that it received and sent. The server does not busy-poll.
#
# Prints a table; the records are in OUT/tcp-scale.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh

main() {
    local round connections
    settings tcp-scale "$@"
    become_root "$@"
    need ip jq curl python3
    need_program
    topology_up servers 1
    content 100
    # Each needs a port of its own.
    in_ns client sysctl -qw net.ipv4.ip_local_port_range='10000 65000'
    serve 1 --busy-poll 0
    versions client server1
    for ((round = 0; round <= ROUNDS; round++)); do
        for connections in "$FEW" "$MANY"; do
            in_ns client scripts/lab.sh probe http-rounds 10.77.2.101 80 "$connections" \
                "$SECONDS_EACH" "${TOPOLOGY_PIDS[server1]}" hw0 >"$SCRATCH/rounds"
            record rounds connections="$connections" round="$round" >&2
        done
    done
    report tcp-scale
}

main "$@"
