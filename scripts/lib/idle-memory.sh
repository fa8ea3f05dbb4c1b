# shellcheck shell=bash
#
# What idle connections cost a server, ours and nginx with the kernel's TCP. Sourced after
# traffic.sh; the testbed is `topology_up servers 1`, with an object and keys in SCRATCH.
#
# Memory is resident memory of the server's processes, and for the kernel's TCP its own objects for
# the connections besides: those of both ends are counted, since the machine is one, so that half of
# it is the share of one end.

# Own UDP ports of one address of the load generator; connections of one kernel process and source,
# just below half of the ephemeral ports, from where on the kernel searches long for a free one.
readonly LOAD_PORTS=64512 PER_PROCESS=14000

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

# load NAME CONNECTIONS OPTION...: our load generator, in the background, figures to
# SCRATCH/NAME.json.
load() {
    local name=$1 connections=$2 n addresses=()
    shift 2
    for n in $(seq $(((connections + LOAD_PORTS - 1) / LOAD_PORTS))); do
        addresses+=(--address "10.77.1.$((99 + n))")
    done
    start "$name" client "$HEADWATER" load --tun hw0 "${addresses[@]}" --connections "$connections" \
        --stats "$SCRATCH/$name.json" "$@" http://10.77.2.101/object
}

# holding NAME: until the load generator NAME holds all its connections.
holding() {
    local name=$1
    # shellcheck disable=SC2317 # called by name
    holding_or_gone() {
        jq -es 'any(.event == "holding")' "$SCRATCH/$name.out" >/dev/null || ! running "$name"
    }
    until_true 900 holding_or_gone || die "the connections do not open"
    running "$name" || die "the load generator failed: $(tail -n 1 "$SCRATCH/$name.err")"
}

# let_go NAME: ends the load generator NAME, which then tries how many of its connections go on.
let_go() {
    kill -INT "${TOPOLOGY_PIDS[$1]}"
    finish "$1" || die "the load generator failed: $(tail -n 1 "$SCRATCH/$1.err")"
}

# idle_ours CONNECTIONS [HOSTILE]: opens and holds them at a new server, then lets one in a hundred
# go on, then sends mutated packets; adds a record.
idle_ours() {
    local connections=$1 hostile=${2:-0} before after resumed
    serve 1
    # One transfer first, for the memory that is allocated once.
    get -o "$SCRATCH/first" http://10.77.2.101/object
    before=$(rss_kib server1)
    load connections "$connections" --keep --resume-sample $((connections / 100))
    holding connections
    after=$(rss_kib server1)
    let_go connections
    resumed=$(rss_kib server1)
    if ((hostile > 0)); then
        load hostile 1000 --hostile "$hostile" --resume-sample 1000
        finish hostile || die "the server failed: $(tail -n 1 "$SCRATCH/hostile.err")"
    fi
    get -o "$SCRATCH/last" http://10.77.2.101/object
    cmp "$SCRATCH/root/object" "$SCRATCH/last"
    record idle-ours connections="$connections" before="$before" after="$after" resumed="$resumed" \
        last="$(rss_kib server1)"
    stop server1
}

# idle_kernel CONNECTIONS CONTENDER: opens and holds as many as fit at a new nginx; adds a record.
idle_kernel() {
    local before after sockets_before sockets_after opened=0 limit each share=0 left n
    ulimit -n "$(ulimit -H -n)"
    limit=$(($(ulimit -n) - 1000))
    each=$((PER_PROCESS < limit ? PER_PROCESS : limit))
    each=$(($1 < each ? $1 : each))
    # Connections fall to the workers by chance: one takes up to a tenth more than its share. nginx takes
    # memory for all of them when it starts.
    NGINX_WORKERS=$((($1 + each - 1) / each)) NGINX_FILES=$(ulimit -n) \
        NGINX_CONNECTIONS=$((each + each / 10 + 100)) start_nginx 1 10.77.21.2
    before=$(tree_rss_kib nginx1) sockets_before=$(socket_kib)
    for ((n = 1, left = $1; left > 0; n++, left -= share)); do
        share=$((left < each ? left : each))
        ip -n "$TOPOLOGY-client" addr replace "10.77.1.$((200 + n))/32" dev lo
        start "idle$n" client "$LAB" probe idle-connections 10.77.21.2 80 "$share" \
            "10.77.1.$((200 + n))"
        # shellcheck disable=SC2317 # called by name
        opened_or_gone() { grep -q '^open ' "$SCRATCH/idle$n.out" || ! running "idle$n"; }
        until_true 120 opened_or_gone || die "the idle connections do not open"
        running "idle$n" || die "no idle connections: $(cat "$SCRATCH/idle$n.err")"
        cat "$SCRATCH/idle$n.err" >&2
        opened=$((opened + $(sed -n 's/^open //p' "$SCRATCH/idle$n.out")))
    done
    sleep 1
    after=$(tree_rss_kib nginx1) sockets_after=$(socket_kib)
    for n in $(seq $((n - 1))); do stop "idle$n"; done
    stop nginx1
    record idle-kernel contender="$2" connections="$opened" before="$before" after="$after" \
        sockets=$((sockets_after - sockets_before))
}
