#!/usr/bin/env bash
#
# make bench: our transport beside smoltcp's TCP (both from `serve`) and the kernel's TCP, MTU 1500,
# no rate limit. Peers take turns within each round, so that whatever else the machine does meets all
# of them; medians with ranges.
#
#   requests      objects, each on a connection of its own: one at a time, CLIENTS at a time, and RATE
#                 a second at random; by our transport with proofs of the own address from earlier
#                 connections ("known") and without; by the kernel from nginx and from the simplest
#                 server (accept, read, write, close). The kernel's connections are reset by the
#                 client when the object is whole
#   throughput    one large object at a time; beside it iperf3 and a well fed pair of sockets, both
#                 with CUBIC and with Reno, and `bare`: our packets without any protocol. All of these
#                 send the same little memory over and over, ours 128 kB of it like iperf3; nginx
#                 sends a file. Besides, by `get`, files: "get-file", as large as the object, and 64
#                 MB: "get-hot", and "get-dropped", the same dropped from the page cache before, are
#                 requested again and again, beside "get-memory", as much of the little memory;
#                 "get-disk" is one without a request before, dropped as well, beside "dd-disk",
#                 which only reads it
#   queues        QUEUE_CLIENTS downloads at once, from one server, from one that shares its device
#                 (--multi-queue) with nobody, and from two that share one; and how many processors
#                 were busy, which shows the limits of the machine
#   connections   requests on random ones of more and more open connections, the last time while
#                 another process keeps KEPT more; memory of idle connections of nginx beside them
#
# Throughput over each of PATHS: `router` is client -- router -- server, `pair` has one veth pair; and
# with each of LINKS: `on`, `off` and `forwarding` are those of offloads in lib/topology.sh, `plain` has
# our plain device. All else by the router, with offloads on.
# Each in two layouts: `two` leaves both ends to all processors, `one` pins both to one processor,
# scheduled in batches, so that neither end interrupts the other.
#
#   bench.sh [requests|throughput|queues|connections...]      all by default
#
# Prints one table; the records are in OUT/results.jsonl, OUT/connections.svg is a picture of the last part.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/idle-memory.sh
source scripts/lib/idle-memory.sh


said() { echo "bench: $*" >&2; }

# The object of `bare` and of the well fed pair comes from there.
readonly BARE=10.77.2.109:7601 FED_PORT=5202

# layout NAME: pins the servers, and sets PINNED to what pins a client.
layout() {
    local name all
    all=0-$(($(nproc --all) - 1))
    PINNED=()
    [[ $1 == two ]] || PINNED=(taskset --cpu-list 0 chrt --batch 0)
    for name in "${!TOPOLOGY_PIDS[@]}"; do
        taskset --all-tasks --cpu-list --pid "$([[ $1 == two ]] && echo "$all" || echo 0)" \
            "${TOPOLOGY_PIDS[$name]}" >/dev/null
        chrt --all-tasks "$([[ $1 == two ]] && echo --other || echo --batch)" --pid 0 \
            "${TOPOLOGY_PIDS[$name]}"
    done
}

# measure LAYOUT CASE BENCH OPTION...: our program as a client, figures to SCRATCH/stats.
measure() {
    local layout=$1 case=$2 bench=$3
    shift 3
    said "$case, layout $layout"
    in_ns client "${PINNED[@]}" "$HEADWATER" bench "$bench" "$@" \
        --stats "$SCRATCH/stats" >"$SCRATCH/table" || die "$case failed"
}

# peers PATH [NGINX-PATH]: options that name all peers and their servers' processes.
peers() {
    local ours=${TOPOLOGY_PIDS[server1]}
    PEERS=("${DEVICE[@]}" --address 10.77.1.100
        --peer "transport=http://10.77.2.101/$1" --server-pid "transport=$ours"
        --peer "smoltcp=http://10.77.2.101/$1" --server-pid "smoltcp=$ours"
        --peer "kernel=http://10.77.21.2/${2:-$1}" --server-pid "kernel=${TOPOLOGY_PIDS[nginx1]}")
}

bench_requests() {
    local size pace case options
    for size in $SIZES; do
        start respond server1 "$HEADWATER" bench respond --listen 10.77.21.2:81 \
            --bytes "${size}000"
        wait_ready respond 10
        layout "$1"
        peers "${size}kB"
        for pace in "1 at a time" "$CLIENTS at a time" "$RATE a second"; do
            options=(--rounds "$ROUNDS" --seconds "$SECONDS_EACH" --warm-up 1)
            case $pace in
            *second) options+=(--rate "$RATE") ;;
            *) options+=(--clients "${pace%% *}") ;;
            esac
            case="requests ${size}kB $pace"
            measure "$1" "$case" requests "${PEERS[@]}" "${options[@]}"
            record requests case="$case" layout="$1"
            measure "$1" "$case known" requests "${options[@]}" --tokens \
                "${PEERS[@]:0:${#DEVICE[@]} + 6}" --peer kernel=http://10.77.21.2:81/ \
                --server-pid "kernel=${TOPOLOGY_PIDS[respond]}"
            record requests case="$case known" layout="$1"
        done
        stop respond
    done
}

# noted KIND CONTENDER [NAME=VALUE]...: adds the record of one contender of a round of `throughput`.
noted() {
    local kind=$1 contender=$2
    shift 2
    record "$kind" contender="$contender" case="$THROUGHPUT" layout="$LAYOUT" round="$ROUND" "$@"
}

# drop FILE: out of the page cache, on a disk that has it whole.
drop() { dd of="$SCRATCH/root/$1" oflag=nocache conv=notrunc,fdatasync count=0 status=none; }

# fetch FILE OPTION...: one download by `get`, its figures to SCRATCH/fetched.
fetch() {
    local file=$1
    shift
    in_ns client "${PINNED[@]}" "$HEADWATER" get --transport trickles "${DEVICE[@]}" --address 10.77.1.100 --silent \
        --show-error --stats "$SCRATCH/fetched" "$@" "http://10.77.2.101/$file" >/dev/null ||
        die "$file cannot be fetched"
}

# fetched NAME FILE: one download.
fetched() {
    fetch "$2" --no-digest
    noted fetched "$1"
}

# read_disk: `dd` reads the file "disk", which is in no cache.
read_disk() {
    drop disk
    LC_ALL=C dd if="$SCRATCH/root/disk" of=/dev/null bs=64k 2>"$SCRATCH/dd"
}

# hot FILE...: whether as many files are in the server's memory, which takes over the files that its
# thread has read at the next request.
hot() {
    fetch "$1" --no-digest --range 0-0
    in_ns server1 curl -s http://127.0.0.1:9100/metrics | awk -v least=$# '
        $1 == "headwater_hot_files" { files = $2 } END { exit files < least }'
}

# files: files in memory, and files outside the page cache.
files() {
    fetched get-file object
    fetched get-memory .dynamic/1/64000000/131072
    fetched get-hot dropped
    drop dropped
    fetched get-dropped dropped
    head -c 64000000 /dev/urandom >"$SCRATCH/root/disk"
    sync -f "$SCRATCH/root"
    # Its digest is made before; to ask for the head only makes nothing hot.
    fetch disk --head
    # A hypervisor may cache its reads: then both contenders read from its cache.
    read_disk
    drop disk
    fetched get-disk disk
    read_disk
    noted disk dd-disk
}

bench_throughput() {
    local control file figure fed=("$LAB" probe fed-tcp fetch 10.77.21.2 "$FED_PORT" "${OBJECT_MB}000000")
    THROUGHPUT="throughput $CASE" LAYOUT=$1
    peers ".dynamic/1/${OBJECT_MB}000000/131072" object
    # Requested twice, a file becomes hot; a thread reads it meanwhile.
    for file in object object dropped dropped; do fetch "$file" --no-digest; done
    until_true 60 hot object dropped || die "the files do not become hot"
    for ((ROUND = 1; ROUND <= ROUNDS; ROUND++)); do
        measure "$1" "$THROUGHPUT, round $ROUND" throughput "${PEERS[@]}" --runs 1
        record transfers case="$THROUGHPUT" layout="$1" round="$ROUND"
        in_ns client "${PINNED[@]}" "$HEADWATER" bench bare "${DEVICE[@]}" --address 10.77.1.100 \
            --connect "$BARE" --runs 1 --bytes "${OBJECT_MB}000000" --stats "$SCRATCH/stats" \
            >/dev/null || die "bare failed"
        noted transfers bare
        files
        for control in cubic reno; do
            in_ns client "${PINNED[@]}" iperf3 --client 10.77.21.2 --reverse --congestion "$control" \
                --json --bytes "${OBJECT_MB}M" >"$SCRATCH/iperf3" || die "iperf3-$control failed"
            noted iperf3 "iperf3-$control"
            figure=$(in_ns client "${PINNED[@]}" "${fed[@]}" "$control") || die "fed-$control failed"
            noted figure "fed-$control" mbits="$figure"
        done
    done
}

# at_once ROUND NAME ADDRESS: as many downloads at once as there are to be, each with a device of its own;
# adds a record of their goodput together, and how many processors were busy. Rounds below 1 are warm-up.
at_once() {
    local n before after began ended pids=()
    before=$(core_ticks)
    began=$EPOCHREALTIME
    for ((n = 1; n <= QUEUE_CLIENTS; n++)); do
        in_ns client "$HEADWATER" get --transport trickles --tun "hwq$n" --address "10.77.1.$((100 + n))" --silent \
            --show-error --no-digest "http://$3/object" >/dev/null &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" || die "$2: a download failed"; done
    ended=$EPOCHREALTIME after=$(core_ticks)
    (($1 < 1)) || record queues contender="$2" layout=two round="$1" clients="$QUEUE_CLIENTS" \
        bytes="${OBJECT_MB}000000" before="$before" after="$after" began="$began" ended="$ended"
}

# A server of which one or two processes share a device: name, device, its address, number.
queue() {
    start "$1" server1 "$HEADWATER" serve --tun "$2" --address "$3" --root "$SCRATCH/root" \
        --keys "$SCRATCH/keys" --server-id "$4" --multi-queue
    wait_ready "$1"
}

bench_queues() {
    local round one=10.77.2.107 two=10.77.2.108
    # Pinned to one processor there is nothing to be gained.
    [[ $1 == two ]] || return 0
    through router server1 "$one/32"
    through router server1 "$two/32"
    queue alone hw2 "$one" 2
    queue first hw3 "$two" 3
    queue second hw3 "$two" 4
    said "queues, $QUEUE_CLIENTS downloads at once"
    # The first two make the object hot.
    for ((round = -1; round <= ROUNDS; round++)); do
        at_once "$round" "one server" 10.77.2.101
        at_once "$round" "one, multi-queue" "$one"
        at_once "$round" "two, multi-queue" "$two"
    done
    stop second
    stop first
    stop alone
}

# addresses FIRST CONNECTIONS: options for own addresses from 10.77.1.FIRST on with enough ports for
# CONNECTIONS.
addresses() {
    local n
    ADDRESSES=()
    for n in $(seq $((($2 + LOAD_PORTS - 1) / LOAD_PORTS))); do
        ADDRESSES+=(--address "10.77.1.$(($1 - 1 + n))")
    done
}

bench_connections() {
    local count most case options
    most=$(tr ' ' '\n' <<<"$COUNTS" | sort -n | tail -n 1)
    addresses 100 "$most"
    options=("${DEVICE[@]}" "${ADDRESSES[@]}" --rate "$RATE" --seconds "$SECONDS_EACH"
        --server-pid "${TOPOLOGY_PIDS[server1]}" http://10.77.2.101/1kB)
    measure "$1" connections connections --counts "${COUNTS// /,}" "${options[@]}"
    record connections case=connections layout="$1" kept=0
    if ((KEPT > 0)); then
        addresses 120 "$KEPT"
        start keeper client "$HEADWATER" load --tun hw2 "${ADDRESSES[@]}" --connections "$KEPT" \
            --keep --stats "$SCRATCH/keeper.json" http://10.77.2.101/1kB
        holding keeper
        case="connections beside $KEPT others"
        measure "$1" "$case" connections --counts "$most" "${options[@]}"
        record connections case="$case" layout="$1" kept="$KEPT"
        stop keeper
    fi
    # The kernel's do not depend on the layout.
    [[ $1 == "${LAYOUTS%% *}" ]] || return 0
    stop nginx1
    for count in $KERNEL_COUNTS; do
        said "$count connections of the kernel's TCP"
        idle_kernel "$count" nginx >&2
    done
    start_nginx 1
    layout "$1"
}

# servers SHAPE: brings the path and everything that answers up.
servers() {
    local size
    topology_up "$@"
    # A second device of the server's, beside that of `serve`.
    [[ $1 == pair ]] || through router server1 "${BARE%:*}/32"
    mkdir "$SCRATCH/root"
    for size in 1 $SIZES; do
        head -c "${size}000" /dev/urandom >"$SCRATCH/root/${size}kB"
    done
    head -c "${OBJECT_MB}000000" /dev/urandom >"$SCRATCH/root/object"
    head -c 64000000 /dev/urandom >"$SCRATCH/root/dropped"
    # Else the kernel writes them to the disk in the middle of a measurement.
    sync -f "$SCRATCH/root"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    start_nginx 1
    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    start fed server1 "$LAB" probe fed-tcp serve 10.77.21.2 "$FED_PORT"
    wait_ready fed 10
}

# devices KIND: our servers on devices of that kind.
devices() {
    DEVICE=(--tun hw0 --device "$1")
    ! running server1 || stop server1
    ! running bare || stop bare
    serve 1 --device "$1" --metrics 127.0.0.1:9100
    start bare server1 "$HEADWATER" bench bare --tun hw1 --device "$1" --address "${BARE%:*}" \
        --listen "${BARE#*:}"
    wait_ready bare 10
}

# on_path SHAPE NAME LINKS BENCH...: all that is to be measured there.
on_path() {
    local shape=$1 name=$2 links=$3 link layout bench
    shift 3
    servers "$shape"
    versions client server1
    for link in $links; do
        case $link in
        plain) offloads on && devices plain ;;
        *) offloads "$link" && devices auto ;;
        esac
        CASE="$name $link"
        for layout in $LAYOUTS; do
            layout "$layout"
            for bench in "$@"; do "bench_$bench" "$layout"; done
        done
    done
    topology_down
}

main() {
    local bench path others=() chosen
    settings bench "$@"
    become_root "$@"
    need ip jq curl nginx iperf3 taskset chrt ethtool python3
    need_program
    read -ra chosen <<<"$PARTS"
    mkdir -p "$OUT"
    for bench in "${chosen[@]}"; do
        [[ $bench == throughput ]] || others+=("$bench")
    done
    ((${#others[@]} == 0)) || on_path servers router on "${others[@]}"
    if [[ " ${chosen[*]} " == *' throughput '* ]]; then
        for path in $PATHS; do
            case $path in
            router) on_path servers router "$LINKS" throughput ;;
            pair) on_path pair pair "$LINKS" throughput ;;
            esac
        done
    fi
    report bench
}

main "$@"
