#!/usr/bin/env bash
#
# What connections cost a server: resident memory of `serve` before and after CONNECTIONS opened
# ones that never close, and after HOSTILE mutated packets; beside it idle kernel TCP connections
# to nginx, as many as fit: resident memory of all its processes, and the kernel's own objects for
# the connections of both ends (twice the memory of one end).
#
# Prints a table; the records are in OUT/memory.jsonl. Fails if ours grew by over 1 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/idle-memory.sh
source scripts/lib/idle-memory.sh

main() {
    settings memory "$@"
    become_root "$@"
    need ip jq nginx python3 curl pgrep
    need_program
    topology_up servers 1
    content 1M
    versions client server1
    idle_ours "$CONNECTIONS" "$HOSTILE"
    idle_kernel "$CONNECTIONS" nginx
    report memory
}

main "$@"
