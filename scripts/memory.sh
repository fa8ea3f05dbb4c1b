#!/usr/bin/env bash
#
# What connections cost a server: resident memory of `serve` before and after CONNECTIONS opened
# ones that never close, and beside it idle kernel TCP connections to nginx, as many as fit.
#
# Environment: CONNECTIONS (100000), OUT (out: memory.json). Fails if ours grew by over 1 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/topology.sh
source scripts/topology.sh

readonly CONNECTIONS=${CONNECTIONS:-100000} OUT=${OUT:-out} MAX_GROWTH_KIB=1024
HEADWATER=${HEADWATER:-$PWD/target/release/headwater}

# slab_kib: what the kernel's own objects take on the whole machine; both ends of every connection.
slab_kib() { sed -n 's/^Slab:[[:space:]]*\([0-9]*\).*/\1/p' /proc/meminfo; }

ours() {
    local before after
    serve 1
    # One transfer first, so that what is allocated once is there.
    get -o "$SCRATCH/first" http://10.77.2.101/object
    before=$(rss_kib server1)
    in_ns client timeout --foreground 600 "$HEADWATER" load --tun hw0 --address 10.77.1.100 \
        --connections "$CONNECTIONS" http://10.77.2.101/object >"$SCRATCH/load" || die "the load generator failed"
    sleep 1
    after=$(rss_kib server1)
    get -o "$SCRATCH/last" http://10.77.2.101/object
    cmp "$SCRATCH/root/object" "$SCRATCH/last"
    stop server1
    jq -n --argjson connections "$CONNECTIONS" --argjson before "$before" --argjson after "$after" \
        '{connections: $connections, rss_before_kib: $before, rss_after_kib: $after}'
}

kernel() {
    local before after slab_before slab_after source sources=() opened fitting
    local per_source=25000 n
    for n in $(seq $(((CONNECTIONS + per_source - 1) / per_source))); do
        source="10.77.1.$((200 + n))"
        ip -n "$TOPOLOGY-client" addr add "$source/32" dev lo
        sources+=("$source")
    done
    # More descriptors than the limit, if root may; else as many connections as fit.
    ulimit -n $((CONNECTIONS + 2000)) 2>/dev/null || ulimit -n "$(ulimit -H -n)"
    fitting=$(($(ulimit -n) - 1000))
    ((fitting <= CONNECTIONS)) || fitting=$CONNECTIONS
    NGINX_FILES=$(ulimit -n) NGINX_CONNECTIONS=$((fitting + 500)) start_nginx 1
    before=$(rss_kib nginx1) slab_before=$(slab_kib)
    start idle client python3 "$PWD/scripts/idle-connections.py" 10.77.21.2 80 "$fitting" "${sources[@]}"
    # shellcheck disable=SC2317 # called by name
    opened_or_gone() { grep -q '^open ' "$SCRATCH/idle.out" || ! running idle; }
    until_true 120 opened_or_gone || die "the idle connections do not open"
    running idle || die "no idle connections: $(cat "$SCRATCH/idle.err")"
    cat "$SCRATCH/idle.err" >&2
    sleep 1
    opened=$(sed -n 's/^open //p' "$SCRATCH/idle.out")
    after=$(rss_kib nginx1) slab_after=$(slab_kib)
    stop idle
    stop nginx1
    jq -n --argjson connections "$opened" --argjson before "$before" --argjson after "$after" \
        --argjson slab $((slab_after - slab_before)) \
        '{connections: $connections, rss_before_kib: $before, rss_after_kib: $after,
          kernel_slab_both_ends_kib: $slab}'
}

main() {
    local grown
    become_root "$@"
    need ip jq nginx python3
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
    topology_up 1
    mkdir "$SCRATCH/root"
    head -c 1M /dev/urandom >"$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    ours >"$SCRATCH/ours.json"
    kernel >"$SCRATCH/kernel.json"
    mkdir -p "$OUT"
    jq -n --slurpfile ours "$SCRATCH/ours.json" --slurpfile kernel "$SCRATCH/kernel.json" \
        '{headwater: $ours[0], nginx_kernel_tcp: $kernel[0]}' >"$OUT/memory.json"
    jq -r '"                  connections   server RSS before       after   kernel objects, both ends",
        (to_entries[] | .value as $v | "\(.key)  \($v.connections)  \($v.rss_before_kib) KiB  \($v.rss_after_kib) KiB  \($v.kernel_slab_both_ends_kib // 0) KiB")' \
        "$OUT/memory.json"
    if [[ -n ${SUDO_UID:-} ]]; then chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$OUT"; fi
    grown=$(jq '.headwater | .rss_after_kib - .rss_before_kib' "$OUT/memory.json")
    ((grown <= MAX_GROWTH_KIB)) || die "the server grew by $grown KiB over $CONNECTIONS connections"
}

main "$@"
