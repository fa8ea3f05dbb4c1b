#!/usr/bin/env bash
#
# make bench-redirect: packet rate and memory of a redirector, beside programs that could be in its place.
#
#   throughput   a flood of packets like requests through the same namespace to four machines that drop
#                them, which it passes by
#                  forward      the kernel, as it came
#                  nft          the kernel, rewritten packet by packet: numgen, no connection tracking
#                  bounce       a TUN device and the simplest loop: headwater bench bounce
#                  device       headwater redirect, rendezvous, a device for each server
#                  rendezvous   headwater redirect, encapsulated, by the connection
#                  spread       headwater redirect, encapsulated, packets by turns
#                Cases take turns within each round; medians with ranges. The flood has the first
#                processor, a program between the last one; the kernel does its work on a packet in the
#                call of the sender, so that `forward` and `nft` cost the flood. Processor time a
#                packet is that of both.
#   memory       resident memory of the redirector with few and with very many connections through it
#
#   redirect-bench.sh [throughput|memory...]      both by default
#
# Prints tables; the records are in OUT/redirect-bench.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/idle-memory.sh
source scripts/lib/idle-memory.sh

readonly FEW=10
readonly CASES=(forward nft bounce device rendezvous spread)
# Addresses that the load generator can have.
readonly LOAD_ADDRESSES=8

said() { echo "redirect-bench: $*" >&2; }

# between CASE: puts it between the flood and the servers; `pause CASE` takes it away. MIDDLE is its
# process, if it has one.
between() {
    MIDDLE=
    case $1 in
    forward) through redirector1 router "$SERVICE4/32" ;;
    nft)
        in_ns redirector1 nft -f - <<RULES
table ip spray {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        ip daddr $SERVICE4 notrack ip daddr set numgen inc mod 4 map { 0 : 10.77.2.101, 1 : 10.77.2.102, 2 : 10.77.2.103, 3 : 10.77.2.104 }
    }
}
RULES
        ;;
    bounce)
        start redirector1 redirector1 nice -n -15 "$HEADWATER" bench bounce --tun hw0 --device plain \
            --address "$SERVICE4" --to 10.77.2.101
        wait_ready redirector1
        ;;
    device) configured rendezvous device ;;
    *) configured "$1" address ;;
    esac
    [[ -z ${TOPOLOGY_PIDS[redirector1]:-} ]] || MIDDLE=${TOPOLOGY_PIDS[redirector1]}
    [[ -z $MIDDLE ]] || taskset --all-tasks --cpu-list --pid "$LAST_CPU" "$MIDDLE" >/dev/null
}
pause() {
    case $1 in
    forward) ip -n "$TOPOLOGY-redirector1" route delete "$SERVICE4/32" ;;
    nft) in_ns redirector1 nft delete table ip spray ;;
    *) stop redirector1 ;;
    esac
}
# configured POLICY DELIVERY: a redirector whose servers need not say that they live.
configured() {
    redirect_config 1 policy="$1" delivery="$2" interval=60000 misses=100 -- 1 2 3 4
    redirect 1
}

# arrived: packets that the servers' links have brought.
arrived() {
    local n sum=0 packets
    for n in 1 2 3 4; do
        read -r packets _ < <(link_totals "server$n")
        sum=$((sum + packets))
    done
    echo "$sum"
}
# ran_ns PID: its processor time; 0 without one.
ran_ns() {
    [[ -n $1 ]] || { echo 0 && return; }
    awk '{ sum += $1 } END { printf "%d", sum }' /proc/"$1"/task/*/schedstat
}

# measure ROUND CASE BYTES: adds a record.
measure() {
    local arrived ran
    said "round $1, $2, packets of $3 bytes"
    between "$2"
    arrived=$(arrived) ran=$(ran_ns "$MIDDLE")
    in_ns client nice -n -15 taskset --cpu-list 0 "$HEADWATER" bench flood --tun hw0 --device plain \
        --address 10.77.1.100 --to "$SERVICE4:7600" --bytes "$3" --seconds "$SECONDS_EACH" \
        --stats "$SCRATCH/flood" >/dev/null || die "the flood failed"
    # What waits in a queue when the flood ends.
    sleep 0.1
    record flood contender="$2" round="$1" bytes="$3" arrived=$(($(arrived) - arrived)) \
        ran_ns=$(($(ran_ns "$MIDDLE") - ran))
    pause "$2"
}

bench_throughput() {
    local round bytes case n
    topology_up redirected 4
    "$HEADWATER" keygen --out "$SCRATCH/redirect-keys"
    # What still has the service as its destination when it comes back goes to the first server.
    ip -n "$TOPOLOGY-router" route add "$SERVICE4/32" via 10.77.21.2 table 100
    ip -n "$TOPOLOGY-router" rule add iif redirector1 table 100
    for n in 1 2 3 4; do
        ip -n "$TOPOLOGY-redirector1" route add default via 10.77.31.1 table "10$n"
        ip -n "$TOPOLOGY-redirector1" rule add iif "to$n" table "10$n"
    done
    versions client server1
    for ((round = 1; round <= ROUNDS; round++)); do
        for bytes in $SIZES; do
            for case in "${CASES[@]}"; do measure "$round" "$case" "$bytes"; done
        done
    done
    topology_down
}

# keep CONNECTIONS: that many through the redirector, held, by as many generators as it takes.
keep() {
    local most=$((LOAD_PORTS * LOAD_ADDRESSES)) rest=$1 share first n name
    local -a addresses
    said "$1 connections"
    KEEPERS=()
    for ((; rest > 0; rest -= share)); do
        share=$((rest < most ? rest : most)) first=$((100 + LOAD_ADDRESSES * ${#KEEPERS[@]}))
        addresses=()
        for ((n = 0; n * LOAD_PORTS < share; n++)); do addresses+=(--address "10.77.1.$((first + n))"); done
        name=keeper${#KEEPERS[@]}
        start "$name" client "$HEADWATER" load --tun "$name" "${addresses[@]}" --connections "$share" \
            --keep --resume-sample $((share < 1000 ? share : 1000)) --stats "$SCRATCH/$name.json" \
            "http://$SERVICE4/1kB"
        KEEPERS+=("$name")
    done
    for name in "${KEEPERS[@]}"; do holding "$name"; done
}
release() {
    local name
    for name in "${KEEPERS[@]}"; do let_go "$name"; done
}

bench_memory() {
    local n fresh few many
    topology_up redirected 4
    mkdir "$SCRATCH/root"
    head -c 1000 /dev/urandom >"$SCRATCH/root/1kB"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 -- 1 2 3 4
    redirect 1
    versions client server1
    fresh=$(rss_kib redirector1)
    keep "$FEW"
    few=$(rss_kib redirector1)
    release
    keep "$CONNECTIONS"
    many=$(rss_kib redirector1)
    release
    record memory fresh="$fresh" few="$few" many="$many" last="$(rss_kib redirector1)" \
        few_connections=$FEW many_connections="$CONNECTIONS"
    topology_down
}

main() {
    local bench
    settings redirect-bench "$@"
    become_root "$@"
    need ip nft jq taskset python3
    need_program
    LAST_CPU=$(($(nproc --all) - 1))
    mkdir -p "$OUT"
    # Each in a shell of its own, whose exit removes the testbed.
    for bench in $PARTS; do ("bench_$bench"); done
    report redirect-bench
}

main "$@"
