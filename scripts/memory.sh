#!/usr/bin/env bash
#
# What connections cost a server: resident memory of `serve` before and after CONNECTIONS opened
# ones that never close, and after HOSTILE mutated packets; beside it idle kernel TCP connections
# to nginx, as many as fit: resident memory of all its processes, and the kernel's own objects for
# the connections of both ends (which is twice what one end takes).
#
# Environment: CONNECTIONS (100000), HOSTILE (0), OUT (out: memory.json). Fails if ours grew by
# over 1 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/topology.sh
source scripts/topology.sh

readonly CONNECTIONS=${CONNECTIONS:-100000} HOSTILE=${HOSTILE:-0} OUT=${OUT:-out}
# Own UDP ports of one address of the load generator; connections of one kernel process and source.
readonly MAX_GROWTH_KIB=1024 LOAD_PORTS=64512 PER_PROCESS=15000
HEADWATER=${HEADWATER:-$PWD/target/release/headwater}

# socket_kib: what sockets take in the kernel on the whole machine: TCP state, socket, file, epoll.
socket_kib() {
    awk '$1 ~ /^(TCP|sock_inode_cache|filp|eventpoll_epi)$/ { sum += $2 * $4 }
        END { printf "%d", sum / 1024 }' /proc/slabinfo
}

# tree_rss_kib NAME: resident memory of the process and its children.
tree_rss_kib() {
    local pid=${TOPOLOGY_PIDS[$1]} child sum
    sum=$(rss_kib "$1")
    for child in $(pgrep -P "$pid"); do
        sum=$((sum + $(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$child/status")))
    done
    echo "$sum"
}

# load NAME OPTION...: our load generator, in the background, figures to SCRATCH/NAME.json.
load() {
    local name=$1 n addresses=()
    shift
    for n in $(seq $(((CONNECTIONS + LOAD_PORTS - 1) / LOAD_PORTS))); do
        addresses+=(--address "10.77.1.$((99 + n))")
    done
    start "$name" client "$HEADWATER" load --tun hw0 "${addresses[@]}" \
        --stats "$SCRATCH/$name.json" "$@" http://10.77.2.101/object
}

ours() {
    local before after resumed
    serve 1
    # One transfer first, so that what is allocated once is there.
    get -o "$SCRATCH/first" http://10.77.2.101/object
    before=$(rss_kib server1)
    load connections --connections "$CONNECTIONS" --keep --resume-sample $((CONNECTIONS / 100))
    # shellcheck disable=SC2317 # called by name
    holding_or_gone() { grep -q '^holding ' "$SCRATCH/connections.err" || ! running connections; }
    until_true 900 holding_or_gone || die "the connections do not open"
    running connections || die "the load generator failed: $(tail -n 1 "$SCRATCH/connections.err")"
    after=$(rss_kib server1)
    kill -INT "${TOPOLOGY_PIDS[connections]}"
    finish connections || die "the load generator failed: $(tail -n 1 "$SCRATCH/connections.err")"
    resumed=$(rss_kib server1)
    if ((HOSTILE > 0)); then
        load hostile --connections 1000 --hostile "$HOSTILE" --resume-sample 1000
        finish hostile || die "the server failed: $(tail -n 1 "$SCRATCH/hostile.err")"
    else
        echo null >"$SCRATCH/hostile.json"
    fi
    get -o "$SCRATCH/last" http://10.77.2.101/object
    cmp "$SCRATCH/root/object" "$SCRATCH/last"
    jq -n --argjson connections "$CONNECTIONS" --argjson before "$before" --argjson after "$after" \
        --argjson resumed "$resumed" --argjson last "$(rss_kib server1)" \
        --slurpfile load "$SCRATCH/connections.json" --slurpfile hostile "$SCRATCH/hostile.json" \
        '{connections: $connections, rss_before_kib: $before, rss_after_kib: $after,
          rss_after_resumed_kib: $resumed, rss_last_kib: $last, load: $load[0],
          hostile: $hostile[0]}'
    stop server1
}

# start_nginx_workers N: nginx with N workers, since the descriptors of one process are limited.
start_nginx_workers() {
    cat >"$SCRATCH/nginx.conf" <<CONF
daemon off;
pid $SCRATCH/nginx.pid;
worker_processes $1;
worker_rlimit_nofile $(ulimit -n);
events { worker_connections $(($(ulimit -n) - 100)); }
http {
    access_log off;
    keepalive_timeout 1h;
    client_header_timeout 1h;
    client_body_temp_path $SCRATCH/body;
    proxy_temp_path $SCRATCH/proxy;
    fastcgi_temp_path $SCRATCH/fastcgi;
    uwsgi_temp_path $SCRATCH/uwsgi;
    scgi_temp_path $SCRATCH/scgi;
    server {
        listen 10.77.21.2:80 backlog=4096 reuseport;
        root $SCRATCH/root;
    }
}
CONF
    start nginx server1 nginx -e "$SCRATCH/nginx.log" -c "$SCRATCH/nginx.conf"
    # shellcheck disable=SC2317 # called by name
    nginx_answers() { in_ns server1 curl -so /dev/null http://10.77.21.2/; }
    until_true 10 nginx_answers || die "nginx does not answer: $(cat "$SCRATCH/nginx.log")"
}

kernel() {
    local before after sockets_before sockets_after opened=0 limit each share=0 left n
    ulimit -n "$(ulimit -H -n)"
    limit=$(($(ulimit -n) - 1000))
    each=$((PER_PROCESS < limit ? PER_PROCESS : limit))
    start_nginx_workers $(((CONNECTIONS + each - 1) / each))
    before=$(tree_rss_kib nginx) sockets_before=$(socket_kib)
    for ((n = 1, left = CONNECTIONS; left > 0; n++, left -= share)); do
        share=$((left < each ? left : each))
        ip -n "$TOPOLOGY-client" addr add "10.77.1.$((200 + n))/32" dev lo
        start "idle$n" client python3 "$PWD/scripts/idle-connections.py" 10.77.21.2 80 "$share" \
            "10.77.1.$((200 + n))"
        # shellcheck disable=SC2317 # called by name
        opened_or_gone() { grep -q '^open ' "$SCRATCH/idle$n.out" || ! running "idle$n"; }
        until_true 120 opened_or_gone || die "the idle connections do not open"
        running "idle$n" || die "no idle connections: $(cat "$SCRATCH/idle$n.err")"
        cat "$SCRATCH/idle$n.err" >&2
        opened=$((opened + $(sed -n 's/^open //p' "$SCRATCH/idle$n.out")))
    done
    sleep 1
    after=$(tree_rss_kib nginx) sockets_after=$(socket_kib)
    for n in $(seq $((n - 1))); do stop "idle$n"; done
    stop nginx
    jq -n --argjson connections "$opened" --argjson before "$before" --argjson after "$after" \
        --argjson sockets $((sockets_after - sockets_before)) \
        '{connections: $connections, rss_before_kib: $before, rss_after_kib: $after,
          kernel_sockets_both_ends_kib: $sockets}'
}

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
    become_root "$@"
    need ip jq nginx python3 curl pgrep
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
    topology_up servers 1
    mkdir "$SCRATCH/root"
    head -c 1M /dev/urandom >"$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    ours >"$SCRATCH/ours.json"
    kernel >"$SCRATCH/kernel.json"
    mkdir -p "$OUT"
    jq -n --slurpfile ours "$SCRATCH/ours.json" --slurpfile kernel "$SCRATCH/kernel.json" \
        '{headwater: $ours[0], nginx_kernel_tcp: $kernel[0]}' >"$OUT/memory.json"
    table "$OUT/memory.json"
    if [[ -n ${SUDO_UID:-} ]]; then chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$OUT"; fi
    grown=$(jq '.headwater | ([.rss_after_kib, .rss_last_kib] | max) - .rss_before_kib' \
        "$OUT/memory.json")
    ((grown <= MAX_GROWTH_KIB)) || die "the server grew by $grown KiB over $CONNECTIONS connections"
}

main "$@"
