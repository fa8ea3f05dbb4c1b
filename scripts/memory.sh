#!/usr/bin/env bash
#
# What connections cost a server: resident memory of `serve` before and after CONNECTIONS opened
# ones that never close, and after HOSTILE mutated packets; beside it idle kernel TCP connections
# to nginx, as many as fit: resident memory of all its processes, and the kernel's own objects for
# the connections of both ends (which is twice what one end takes).
#
# Prints a table; OUT/memory.json has all figures. Fails if ours grew by over 1 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/idle-memory.sh
source scripts/lib/idle-memory.sh

readonly MAX_GROWTH_KIB=1024

# table: the figures for people.
table() {
    jq -r '
        def row(name; v; sockets): [name, v.connections, v.rss_before_kib, v.rss_after_kib,
            v.rss_after_kib - v.rss_before_kib, sockets,
            ((v.rss_after_kib - v.rss_before_kib + sockets) * 1024 / v.connections | round)];
        ["server", "connections", "RSS before", "RSS after", "grown", "kernel, one end",
            "bytes/connection"],
        row("headwater"; .headwater; 0),
        row("nginx"; .nginx_kernel_tcp;
            .nginx_kernel_tcp.kernel_sockets_both_ends_kib / 2 | round) | @tsv' "$1" |
        awk -F '\t' '{ printf "%-10s %12s %11s %10s %8s %16s %17s\n", $1, $2, $3, $4, $5, $6, $7 }'
    jq -r '.headwater | "sizes in KiB; a client of ours keeps "
        + "\(.load.state_bytes_per_connection) bytes a connection; \(.load.resumed) of "
        + "\(.load.resumed + .load.not_resumed) kept connections went on; opened in "
        + "\(.load.opening_seconds * 10 | round / 10) s",
        (.hostile | select(.) | "\([.hostile.sent[]] | add) mutated packets: "
        + "\([.hostile.replies[]] | add) replies, \(.hostile.pulses_missed) of "
        + "\(.hostile.pulses) sound requests between them missed, \(.resumed) of "
        + "\(.connections) connections went on"), "server RSS at the end: \(.rss_last_kib) KiB"' "$1"
}

main() {
    local grown
    settings memory "$@"
    become_root "$@"
    need ip jq nginx python3 curl pgrep
    need_program
    topology_up servers 1
    content 1M
    idle_ours "$CONNECTIONS" "$HOSTILE" >"$SCRATCH/ours.json"
    idle_kernel "$CONNECTIONS" >"$SCRATCH/kernel.json"
    mkdir -p "$OUT"
    jq -n --slurpfile ours "$SCRATCH/ours.json" --slurpfile kernel "$SCRATCH/kernel.json" \
        '{headwater: $ours[0], nginx_kernel_tcp: $kernel[0]}' >"$OUT/memory.json"
    table "$OUT/memory.json"
    give_back
    grown=$(jq '.headwater | ([.rss_after_kib, .rss_last_kib] | max) - .rss_before_kib' \
        "$OUT/memory.json")
    ((grown <= MAX_GROWTH_KIB)) || die "the server grew by $grown KiB over $CONNECTIONS connections"
}

main "$@"
