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

# said: the beginning of a line of progress, which `record` ends.
said() {
    local elapsed=$((EPOCHSECONDS - RUN))
    printf '%4d s of about %d  ' "$elapsed" $((PLANNED_S > elapsed ? PLANNED_S : elapsed))
}

# busy "BUSY ALL": the share of all cores that did anything since core_ticks said so.
busy() { calculate "($(core_ticks | sed "s/\([0-9]*\) \([0-9]*\)/(\1 - ${1% *}) \/ (\2 - ${1#* } + 0.001)/"))"; }

memory() {
    local count
    topology_up servers 1
    content 1M
    versions client server1
    for count in $IDLE; do
        idle_ours "$count"
        idle_kernel "$count" cubic
    done
    topology_down
}

# shared_path RTT: client, link and both servers, the kernel's TCP by CUBIC. Neither server keeps files
# in its own memory: the kernel's page cache has them.
shared_path() {
    local queue=$(($1 * RATE * 125))
    topology_up path --delay "$(calculate "$1 / 2")ms" --rate "${RATE}mbit" --queue "${queue}b" --seed 1
    objects "$OBJECT_BYTES"
    NGINX_FILES=8192 NGINX_CONNECTIONS=2048 contenders_up 1 -- --cache 0
    congestion_route server1 10.77.21.1/32 10.77.21.1 cubic
    versions client server1
}

# look: the state of the kernel's sockets at the server, to SCRATCH/ss.
look() { in_ns server1 ss -timnH state established >"$SCRATCH/ss"; }

# many CONTENDER COUNT ROUND: downloads at once; adds a record.
many() {
    local name=$1 count=$2 server=nginx1 kernel=0 rss before ticks busy
    settle client-server1 10
    before=$(socket_kib)
    if [[ $name == headwater ]]; then
        server=server1
        start downloads client "$HEADWATER" load --tun hw0 --address 10.77.1.100 --connections "$count" \
            --download "$WINDOW" --warm "$WARM" http://10.77.2.101/object
    else
        start downloads client "$LAB" probe downloads 10.77.21.2 80 /object "$count" "$WARM" "$WINDOW"
    fi
    sleep "$WARM"
    ask_link client-server1 reset >"$SCRATCH/reset"
    ticks=$(core_ticks)
    sleep "$(calculate "$WINDOW - 0.7")"
    if [[ $name != headwater ]]; then
        look
        kernel=$((($(socket_kib) - before) / 2))
    fi
    rss=$(rss_kib "$server") busy=$(busy "$ticks")
    finish downloads || die "$count downloads, $name: $(tail -n 1 "$SCRATCH/downloads.err")"
    ask_link client-server1 show >"$SCRATCH/link"
    said
    record throughput contender="$name" round="$3" rss_kib="$rss" kernel_kib="$kernel" busy="$busy"
}

throughput() {
    local round count index names=(cubic headwater)
    shared_path 10
    for round in $(seq "$ROUNDS"); do
        for count in $ACTIVE; do
            for index in 0 1; do many "${names[(index + round) % 2]}" "$count" "$round"; done
        done
    done
    topology_down
}

# beside CONTENDER COUNT RTT ROUND: one download beside COUNT of CUBIC, which begin a second before it.
beside() {
    local name=$1 count=$2 rtt=$3 ticks busy command
    settle client-server1 "$rtt"
    start background client "$LAB" probe downloads 10.77.21.2 80 /object "$count" $((WARM + 1)) "$WINDOW"
    sleep 1
    case $name in
        headwater)
            command=("$HEADWATER" get --transport trickles --tun hw0 --address 10.77.1.100 --silent --show-error
                http://10.77.2.101/object)
            ;;
        *) command=(curl -sS http://10.77.21.2/object) ;;
    esac
    start foreground client "$LAB" probe window "$WARM" "$WINDOW" "${command[@]}"
    sleep "$WARM"
    ask_link client-server1 reset >"$SCRATCH/reset"
    ticks=$(core_ticks)
    sleep "$(calculate "$WINDOW - 0.7")"
    look
    busy=$(busy "$ticks")
    finish background || die "the $count downloads of CUBIC failed: $(tail -n 1 "$SCRATCH/background.err")"
    finish foreground || die "$name failed: $(tail -n 1 "$SCRATCH/foreground.err")"
    ask_link client-server1 show >"$SCRATCH/link"
    said
    record friendliness contender="$name" round="$4" rtt_ms="$rtt" background="$count" busy="$busy"
}

friendliness() {
    local rtt round count index names=(cubic headwater)
    for rtt in $RTTS; do
        shared_path "$rtt"
        for round in $(seq "$ROUNDS"); do
            for count in $BESIDE; do
                for index in 0 1; do beside "${names[(index + round) % 2]}" "$count" "$rtt" "$round"; done
            done
        done
        topology_down
    done
}

# broken NAME LABEL: adds the record of a download that `contend` has just had.
broken() {
    figures "$1" "$2" "$(! cmp -s "$SCRATCH/root/object" "$SCRATCH/$1.got" || echo 1)" >"$SCRATCH/result"
    said
    record failover contender="$1" object_mib="$OBJECT_MB"
}

failover() {
    topology_up servers 1
    content "${OBJECT_MB}M"
    versions client server1
    congestion_route server1 default 10.77.21.1 cubic
    rate "${RATE}mbit"
    serve 1
    contend headwater server1 "$HEADWATER" get --transport trickles --tun hw0 --address 10.77.1.100 --silent --show-error \
        -o "$SCRATCH/headwater.got" http://10.77.2.101/object
    broken headwater "headwater get"
    stop server1
    start_nginx 1
    contend cubic nginx1 curl --silent --show-error -o "$SCRATCH/cubic.got" http://10.77.21.2/object
    broken cubic "curl from nginx, kernel TCP (CUBIC)"
    topology_down
}

main() {
    local part
    settings paper "$@"
    become_root "$@"
    need ip tc nft ss jq curl nginx python3 pgrep
    need_program
    measuring_alone
    mkdir -p "$OUT"
    for part in $PARTS; do "$part"; done
    report paper
}

main "$@"
