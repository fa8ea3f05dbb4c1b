#!/usr/bin/env bash
#
# make paper: the experiments by which Trickles was evaluated (Shieh, Myers, Sirer: NSDI 2005), with
# ours beside the kernel's TCP (CUBIC, nginx) on this machine.
#
#   paper.sh [memory|throughput|friendliness|failover|all]... [--quick] [--rounds N] [--out DIR]
#
#   --quick   fewer points and shorter runs: under two minutes in all; without it under eight
#   --rounds  of throughput and friendliness (1); contenders take turns, medians are drawn
#   --out     where results.jsonl grows, and report.html and the pictures are made anew (out/paper)
#
#   memory        of a server over 1 to 100,000 idle connections
#   throughput    of 1 to 512 downloads at once through one link of 100 Mbit/s and 10 ms, with a queue
#                 of one bandwidth-delay product, from one server; and the server's memory meanwhile
#   friendliness  goodput of one download, ours or CUBIC's, beside 1 to 16 of CUBIC over the same link,
#                 10 and 40 ms
#   failover      goodput over time of a download whose server is killed in its middle and started
#                 again
#
# Everything runs in one process for each side: downloads of ours in `headwater load`, whose
# connections are whole clients, those of the kernel's TCP in one program, too.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/contenders.sh
source scripts/lib/contenders.sh
# shellcheck source=scripts/lib/idle-memory.sh
source scripts/lib/idle-memory.sh
# shellcheck source=scripts/lib/failover.sh
source scripts/lib/failover.sh

readonly RATE=100 OBJECT_BYTES=268435456

# planned EXPERIMENT: about how many seconds it takes.
planned() {
    local each=$((WARM + WINDOW + 2)) idle count
    case $1 in
        memory)
            idle=0
            for count in $IDLE; do idle=$((idle + 3 + count / 2200)); done
            echo "$idle"
            ;;
        throughput) echo $((3 + 2 * ROUNDS * $(wc -w <<<"$ACTIVE") * each)) ;;
        friendliness) echo $(($(wc -w <<<"$RTTS") * (3 + 2 * ROUNDS * $(wc -w <<<"$BESIDE") * (each + 1)))) ;;
        failover) echo $((6 + OBJECT_MB / 7)) ;;
    esac
}

# said TEXT...: a line of progress.
said() {
    local elapsed=$((EPOCHSECONDS - RUN))
    printf '%4d s of about %d  %s\n' "$elapsed" "$((all_seconds > elapsed ? all_seconds : elapsed))" "$*"
}

# record KIND CONTENDER JSON...: adds a line made of the objects, with what all lines have.
record() {
    local kind=$1 contender=$2
    shift 2
    printf '%s\n' "$@" | jq -sc --arg kind "$kind" --arg contender "$contender" --argjson run "$RUN" \
        --argjson began "$EPOCHREALTIME" --argjson load "$(cut -d ' ' -f 1 /proc/loadavg)" \
        --slurpfile versions "$SCRATCH/versions" '
        {schema: 1, kind: $kind, contender: $contender, run: $run, began: $began, load: $load}
        + add + {versions: $versions[0]}' >>"$OUT/results.jsonl"
}

# core_ticks: ticks in which cores did anything, and all.
core_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat; }

# busy "BUSY ALL": the share of all cores that did anything since core_ticks said so.
busy() { calculate "($(core_ticks | sed "s/\([0-9]*\) \([0-9]*\)/(\1 - ${1% *}) \/ (\2 - ${1#* } + 0.001)/"))"; }

memory() {
    local count ours kernel
    topology_up servers 1
    mkdir "$SCRATCH/root"
    head -c 1M /dev/urandom >"$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    versions client server1 >"$SCRATCH/versions"
    for count in $IDLE; do
        ours=$(idle_ours "$count" | jq -c '{connections, rss_before_kib, rss_after_kib, kernel_kib: 0}')
        record memory headwater "$ours"
        kernel=$(idle_kernel "$count" | jq -c '{connections, rss_before_kib, rss_after_kib,
            kernel_kib: ([.kernel_sockets_both_ends_kib / 2, 0] | max)}')
        record memory cubic "$kernel"
        said "memory, $(jq -r .connections <<<"$kernel") connections: headwater $(jq -r .rss_after_kib <<<"$ours") KiB," \
            "nginx and kernel $(jq -r '.rss_after_kib + .kernel_kib | round' <<<"$kernel") KiB"
    done
    topology_down
}

# shared_path RTT: client, link and both servers, the kernel's TCP by CUBIC.
shared_path() {
    local queue
    queue=$(queue_bytes "$1" "$RATE" 1)
    topology_up path --delay "$(calculate "$1 / 2")ms" --rate "${RATE}mbit" --queue "${queue}b" --seed 1
    objects "$OBJECT_BYTES"
    NGINX_FILES=8192 NGINX_CONNECTIONS=2048 contenders_up 1
    congestion_route server1 10.77.21.1/32 10.77.21.1 cubic
    versions client server1 >"$SCRATCH/versions"
}

# queued_kib: what the buffers of the kernel's sockets hold at the server.
queued_kib() {
    sed -n 's/.*skmem:(r\([0-9]*\),rb[0-9]*,t[0-9]*,tb[0-9]*,f\([0-9]*\),w\([0-9]*\),.*/\1 \2 \3/p' "$SCRATCH/ss" |
        awk '{ sum += $1 + $2 + $3 } END { printf "%d", sum / 1024 }'
}

# look: what the kernel's sockets at the server say, to SCRATCH/ss; CUBIC must be what they use.
look() {
    in_ns server1 ss -timnH state established >"$SCRATCH/ss"
    if ! grep -q ' cubic ' "$SCRATCH/ss" || grep -Eq ' (bbr|reno) ' "$SCRATCH/ss"; then
        die "CUBIC was asked for, the kernel took another"
    fi
}

# bottleneck: the link's figures since the last reset, as JSON.
bottleneck() {
    ask_link client-server1 show | jq -c '.ba | {queue_p95_ms: (.sojourn.p95_us / 1000), drops: .dropped}'
}

# many CONTENDER COUNT: downloads at once; adds a line.
many() {
    local name=$1 count=$2 server kernel=0 queued=0 before ticks
    settle client-server1 10
    before=$(socket_kib)
    if [[ $name == headwater ]]; then
        server=server1
        start downloads client "$HEADWATER" load --tun hw0 --address 10.77.1.100 --connections "$count" \
            --download "$WINDOW" --warm "$WARM" http://10.77.2.101/object
    else
        server=nginx1
        start downloads client "$PWD/scripts/lab.sh" probe downloads 10.77.21.2 80 /object "$count" "$WARM" "$WINDOW"
    fi
    sleep "$WARM"
    ask_link client-server1 reset >"$SCRATCH/reset"
    ticks=$(core_ticks)
    sleep "$(calculate "$WINDOW - 0.7")"
    if [[ $name != headwater ]]; then
        look
        kernel=$((($(socket_kib) - before) / 2)) queued=$(queued_kib)
    fi
    jq -nc --argjson rss "$(rss_kib "$server")" --argjson kernel "$((kernel > 0 ? kernel : 0))" \
        --argjson queued "$queued" --argjson busy "$(busy "$ticks")" \
        '{rss_kib: $rss, kernel_kib: $kernel, queued_kib: $queued, busy: $busy}' >"$SCRATCH/server"
    finish downloads || die "$count downloads, $name: $(tail -n 1 "$SCRATCH/downloads.err")"
    bottleneck >"$SCRATCH/link"
    record throughput "$name" "$(jq -c '{connections, served: ([.window_bytes_each[] | select(. > 0)] | length),
        goodput_mbit: (.window_bytes * 8e-6 / .window_seconds), downloads: .}' "$SCRATCH/downloads.out")" "$(<"$SCRATCH/server")" "$(<"$SCRATCH/link")"
    said "throughput, $count downloads, $name: $(tail -n 1 "$OUT/results.jsonl" |
        jq -r '"\(.goodput_mbit * 10 | round / 10) Mbit/s, server \(.rss_kib + .kernel_kib) KiB"')"
}

throughput() {
    local round count index names=(cubic headwater)
    shared_path 10
    for round in $(seq "$ROUNDS"); do
        for count in $ACTIVE; do
            for index in 0 1; do many "${names[(index + round) % 2]}" "$count"; done
        done
    done
    topology_down
}

# beside CONTENDER COUNT RTT: one download beside COUNT of CUBIC, which begin a second before it.
beside() {
    local name=$1 count=$2 rtt=$3 ticks command
    settle client-server1 "$rtt"
    start background client "$PWD/scripts/lab.sh" probe downloads 10.77.21.2 80 /object "$count" $((WARM + 1)) "$WINDOW"
    sleep 1
    case $name in
        headwater)
            command=("$HEADWATER" get --tun hw0 --address 10.77.1.100 --silent --show-error
                http://10.77.2.101/object)
            ;;
        *) command=(curl -sS http://10.77.21.2/object) ;;
    esac
    start foreground client "$PWD/scripts/lab.sh" probe window "$WARM" "$WINDOW" "${command[@]}"
    sleep "$WARM"
    ask_link client-server1 reset >"$SCRATCH/reset"
    ticks=$(core_ticks)
    sleep "$(calculate "$WINDOW - 0.7")"
    look
    ticks=$(busy "$ticks")
    finish background || die "the $count downloads of CUBIC failed: $(tail -n 1 "$SCRATCH/background.err")"
    finish foreground || die "$name failed: $(tail -n 1 "$SCRATCH/foreground.err")"
    bottleneck >"$SCRATCH/link"
    record friendliness "$name" \
        "$(jq -nc --argjson rtt "$rtt" --argjson count "$count" --argjson busy "$ticks" '{rtt_ms: $rtt, background: $count, busy: $busy}')" \
        "$(jq -c '{goodput_mbit: (.window_bytes * 8e-6 / .window_seconds), window: .}' "$SCRATCH/foreground.out")" \
        "$(jq -c '{background_mbit: (.window_bytes * 8e-6 / .window_seconds)}' "$SCRATCH/background.out")" \
        "$(<"$SCRATCH/link")"
    said "friendliness, $rtt ms, beside $count of CUBIC, $name: $(tail -n 1 "$OUT/results.jsonl" |
        jq -r '"\(.goodput_mbit * 10 | round / 10) Mbit/s, the others \(.background_mbit * 10 | round / 10)"')"
}

friendliness() {
    local rtt round count index names=(cubic headwater)
    for rtt in $RTTS; do
        shared_path "$rtt"
        for round in $(seq "$ROUNDS"); do
            for count in $BESIDE; do
                for index in 0 1; do beside "${names[(index + round) % 2]}" "$count" "$rtt"; done
            done
        done
        topology_down
    done
}

# The servers as `contend` knows them.
server1() { serve 1; }
nginx1() { start_nginx 1; }

# broken NAME LABEL: adds the line of a download that `contend` has just had.
broken() {
    local outcome completed=false
    if [[ $RESULT_STATUS == 0 ]] && cmp -s "$SCRATCH/root/object" "$SCRATCH/$1.got"; then
        completed=true outcome="complete and identical, stalled $RESULT_STALL ms"
    else
        outcome="broken, exit status $RESULT_STATUS"
    fi
    record failover "$1" "$(figures "$1" "$2" "$outcome" "$completed")" "{\"rate_mbit\": $RATE, \"object_mib\": $OBJECT_MB}"
    said "failover, $1: $outcome"
}

failover() {
    topology_up servers 1
    mkdir "$SCRATCH/root"
    head -c "${OBJECT_MB}M" /dev/urandom >"$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    versions client server1 >"$SCRATCH/versions"
    congestion_route server1 default 10.77.21.1 cubic
    rate "${RATE}mbit"
    serve 1
    contend headwater server1 "$HEADWATER" get --tun hw0 --address 10.77.1.100 --silent --show-error \
        -o "$SCRATCH/headwater.got" http://10.77.2.101/object
    broken headwater "headwater get"
    stop server1
    start_nginx 1
    contend cubic nginx1 curl --silent --show-error -o "$SCRATCH/cubic.got" http://10.77.21.2/object
    broken cubic "curl from nginx, kernel TCP (CUBIC)"
    topology_down
}

main() {
    local experiment all_seconds=0
    settings paper "$@"
    become_root "$@"
    need ip tc nft ss jq curl nginx python3 pgrep
    need_program
    [[ -z $(ip netns list | grep '^hw-' || true) ]] ||
        echo "paper.sh: another testbed is up: what runs beside this disturbs the figures" >&2
    readonly RUN=$EPOCHSECONDS
    for experiment in $PARTS; do all_seconds=$((all_seconds + $(planned "$experiment"))); done
    mkdir -p "$OUT"
    for experiment in $PARTS; do "$experiment"; done
    scripts/lab.sh report paper "$OUT"
    give_back
}

main "$@"
