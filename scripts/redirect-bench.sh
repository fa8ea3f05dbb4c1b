#!/usr/bin/env bash
#
# make bench-redirect: what a redirector carries and what it keeps, beside what could be in its place.
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
#                processor, a program between the last one; what the kernel does with a packet it does in
#                the call of whoever sent it, so that `forward` and `nft` cost the flood. Processor time a
#                packet is that of both.
#   memory       resident memory of the redirector with few and with very many connections through it
#
#   redirect-bench.sh [throughput|memory...]      both by default
#
# Prints tables; figures are in OUT/redirect-throughput.json and OUT/redirect-memory.json.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh

readonly FEW=10
readonly CASES=(forward nft bounce device rendezvous spread)
# Own ports of one address of the load generator, and addresses that it can have.
readonly LOAD_PORTS=64512 LOAD_ADDRESSES=8

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

# measure ROUND CASE BYTES: a line of figures to SCRATCH/runs.
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
    jq -c --arg case "$2" --argjson round "$1" --argjson bytes "$3" \
        --argjson ran "$(($(ran_ns "$MIDDLE") - ran))" --argjson arrived "$(($(arrived) - arrived))" '
        .peers[0] | {case: $case, round: $round, bytes: $bytes, sent: .packets, seconds, arrived: $arrived,
            per_second: ($arrived / .seconds), gbits: ($arrived * $bytes * 8 / .seconds / 1e9),
            program_ns: ($ran / ([$arrived, 1] | max)), flood_ns: (.own_ns / .packets)}' \
        "$SCRATCH/flood" >>"$SCRATCH/runs"
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
    : >"$SCRATCH/runs"
    for ((round = 1; round <= ROUNDS; round++)); do
        for bytes in $SIZES; do
            for case in "${CASES[@]}"; do measure "$round" "$case" "$bytes"; done
        done
    done
    jq -s --arg kernel "$(uname -r)" --argjson cpus "$(nproc)" \
        '{kernel: $kernel, processors: $cpus, runs: .}' "$SCRATCH/runs" >"$OUT/redirect-throughput.json"
    topology_down
    jq -r '
        def shown: if . >= 100 then round elif . >= 10 then . * 10 | round / 10
            else . * 100 | round / 100 end | tostring;
        def median: sort | (.[length / 2 | floor] + .[(length - 1) / 2 | floor]) / 2;
        def spread: if length == 1 then .[0] | shown
            else "\(median | shown) [\(min | shown)-\(max | shown)]" end;
        .runs as $runs
        | ["bytes", "case", "1000 packets/s", "Gbit/s", "of nft", "program ns", "flood ns"],
          (([$runs[].bytes] | unique[]) as $bytes
          | ([$runs[] | select(.bytes == $bytes)]) as $of
          | ([$of[] | select(.case == "nft") | .per_second] | median) as $nft
          | ([$of[].case] | unique) as $known
          | $ARGS.positional[] | select(. as $case | $known | index($case)) as $case
          | [$of[] | select(.case == $case)]
          | [$bytes, $case, ([.[].per_second / 1000] | spread), ([.[].gbits] | spread),
             ([.[].per_second / $nft] | median | shown),
             (if .[0].program_ns == 0 then "-" else [.[].program_ns] | median | shown end),
             ([.[].flood_ns] | median | shown)])
        | join("\t")' "$OUT/redirect-throughput.json" --args "${CASES[@]}" | column -t -s $'\t'
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
    for name in "${KEEPERS[@]}"; do
        # shellcheck disable=SC2317 # called by name
        holding_or_gone() { grep -q '^holding ' "$SCRATCH/$name.err" || ! running "$name"; }
        until_true 900 holding_or_gone || die "the connections do not open"
        running "$name" || die "a load generator failed: $(tail -n 1 "$SCRATCH/$name.err")"
    done
}
release() {
    local name
    for name in "${KEEPERS[@]}"; do
        kill -INT "${TOPOLOGY_PIDS[$name]}"
        finish "$name" || die "a load generator failed: $(tail -n 1 "$SCRATCH/$name.err")"
    done
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
    fresh=$(rss_kib redirector1)
    keep "$FEW"
    few=$(rss_kib redirector1)
    release
    keep "$CONNECTIONS"
    many=$(rss_kib redirector1)
    release
    jq -s --argjson fresh "$fresh" --argjson few "$few" --argjson many "$many" \
        --argjson count "$CONNECTIONS" --argjson last "$(rss_kib redirector1)" --argjson of_few "$FEW" \
        '{connections: [$of_few, $count], rss_fresh_kib: $fresh, rss_few_kib: $few,
          rss_many_kib: $many, rss_last_kib: $last, loads: .}' \
        "$SCRATCH"/keeper*.json >"$OUT/redirect-memory.json"
    topology_down
    jq -r '"redirector: \(.rss_fresh_kib) KiB fresh, \(.rss_few_kib) KiB with \(.connections[0]) connections, "
        + "\(.rss_many_kib) KiB with \(.connections[1]), \(.rss_last_kib) KiB at the end; "
        + "opened in \([.loads[].opening_seconds] | max | round) s, "
        + "\([.loads[].resumed] | add) of \([.loads[] | .resumed + .not_resumed] | add) tried went on"' "$OUT/redirect-memory.json"
}

main() {
    local bench
    settings redirect-bench "$@"
    become_root "$@"
    need ip nft jq taskset column
    need_program
    LAST_CPU=$(($(nproc --all) - 1))
    mkdir -p "$OUT"
    # Each in a shell of its own, whose exit removes the testbed.
    for bench in $PARTS; do ("bench_$bench"); done
    give_back
}

main "$@"
