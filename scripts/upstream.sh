#!/usr/bin/env bash
#
# Upstream bytes by window, rate and loss: downloads of the simulator over our transport and over its
# model of TCP with CUBIC, each alone behind a queue of one product for 20 s of virtual time. Prints a table: the mean
# window in packets, goodput, and the bytes of requests, or of acknowledgements, per hundred downstream,
# headers included. Without namespaces, in some 10 s; equal programs print equal tables.
#
#   upstream.sh      after `cargo build --release`
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PROGRAM=target/release/headwater

# download CARRIER RTT_MS MBIT LOSS UPLINK
download() {
    local up=()
    [[ $5 == same ]] || up=(--ab "rate=$5mbit,queue=30kb")
    "$PROGRAM" sim-path --both "delay=$(($2 * 500))us,rate=$3mbit,queue=1bdp" --ba "loss=$4%" "${up[@]}" \
        --flow "$1" --lasts 20s --json
}

# row RTT_MS MBIT LOSS UPLINK
row() {
    printf '%7s  %6s  %6s  %6s' "$@"
    local carrier
    for carrier in ours cubic; do
        download "$carrier" "$@" | jq -r --argjson rtt "$1" '
            .flows[0].goodput_mbit as $mbit | [
                ($mbit * ($rtt + .waited.mean_us / 1000) / 11.536 | round),
                ($mbit * 10 | round / 10),
                (.ab.pushed_bytes * 1000 / .ba.pushed_bytes | round / 10)
            ] | @tsv' | while read -r window mbit share; do
            printf '  %9s  %7s  %9s' "$window" "$mbit" "$share %"
        done
    done
    echo
}

main() {
    printf '%7s  %6s  %6s  %6s' 'rtt ms' Mbit/s 'loss %' uplink
    printf '  %9s  %7s  %9s' 'our window' Mbit/s upstream 'window' Mbit/s 'of CUBIC'
    echo
    local rtt mbit loss uplink
    for rtt in 10 40 100; do
        for mbit in 2 10 50 200; do
            row "$rtt" "$mbit" 0 same
        done
    done
    for loss in 0.1 1 3; do
        for mbit in 10 50; do
            row 40 "$mbit" "$loss" same
        done
    done
    for uplink in 0.2 0.5 1 2 5; do
        row 40 50 0 "$uplink"
    done
}

main
