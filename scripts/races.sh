#!/usr/bin/env bash
#
# Connects to a service with eleven addresses, of which some are dead, refuse, or are far away: our ways over the transport
# and over the kernel's TCP, beside Python's create_connection, its staggered race (Happy Eyeballs) with 250 and 10 ms,
# all at once as a program in Python does it, and curl. Every address is behind an emulated link of its own; a
# round trip takes 20 ms unless a row says otherwise. Times are medians and worst ones in milliseconds, from before the
# first socket is opened to the connection. Each row with a bound ends in "pass" or "FAILED"; the script fails with the second.
#
#   races.sh [SAMPLES]      of each way (20); 2 of those that take seconds
#
# The figures are in OUT/races.jsonl, too.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh

# A row at the end of a pipe counts its failure in this shell.
shopt -s lastpipe
readonly PORT=8080 ALL=(1 2 3 4 5 6 7 8 9 10 11)
FAILURES=0

# serve_at N... [ADDRESS6...]: one server at the addresses behind these links, and at IPv6 addresses.
serve_at() {
    local n at=()
    for n in "$@"; do
        if [[ $n == *:* ]]; then n="[$n]"; else n=$(address "$n"); fi
        at+=(--listen "$n:7600" --listen-tcp "$n:$PORT")
    done
    [[ -z ${TOPOLOGY_PIDS[serve]:-} ]] || stop serve
    start serve server1 "$HEADWATER" serve "${at[@]}" --keys "$SCRATCH/keys" --root "$SCRATCH/root" \
        --metrics 127.0.0.1:9100
    wait_ready serve
}

# ours WAY OVER SAMPLES TIMEOUT ADDRESSES: records of `bench connect` for one way, addresses joined by commas.
ours() {
    in_ns client "$HEADWATER" bench connect --way "$1" --over "$2" --samples "$3" --connect-timeout "$4" \
        --resolve "files:$PORT:$5" --stats "$SCRATCH/ours" "files:$PORT" >/dev/null
    jq -c '.peers[0] | {times_ms, winners, cpu_ms, packets, losers_answered}' "$SCRATCH/ours"
}

# python WAY SAMPLES CAP ADDRESSES
python() {
    # shellcheck disable=SC2086 # words of addresses
    in_ns client "$LAB" probe connects "$1" "$2" "$3" "$PORT" ${4//,/ }
}

# curl_times SAMPLES CAP ADDRESSES: like the others.
curl_times() {
    local n time
    for ((n = 0; n < $1; n++)); do
        time=$(in_ns client curl -s -o /dev/null -I -w '%{time_connect}' --max-time "$2" \
            --resolve "files:$PORT:$3" "http://files:$PORT/object" || true)
        jq -n --argjson s "${time:-0}" 'if $s > 0 then $s * 1000 else null end'
    done | jq -sc '{times_ms: .}'
}

# row NAME WAY [BOUND [worst]]: prints a row of the record on standard input; with a bound, no sample may have failed, and
# the median, or the worst time, must not exceed it.
row() {
    local name=$1 way=$2 bound=${3:-} what=${4:-median} median worst failed count record verdict=''
    record=$(cat)
    jq -c --arg row "$name" --arg way "$way" --arg bound "$bound" '{row: $row, way: $way, bound: $bound} + .' \
        <<<"$record" >>"$OUT/races.jsonl"
    read -r median worst failed count < <(jq -r '
        (.times_ms | map(select(. != null)) | sort) as $t |
        [($t[(($t | length) - 1) / 2 | floor] // "-"), ($t[-1] // "-"), (.times_ms | length) - ($t | length),
         (.times_ms | length)] | @tsv' <<<"$record")
    if [[ -n $bound ]]; then
        verdict="$what <= $bound: FAILED"
        if [[ $failed == 0 ]] && awk -v a="${!what}" -v b="$bound" 'BEGIN { exit !(a <= b) }'; then
            verdict="$what <= $bound: pass"
        else
            FAILURES=$((FAILURES + 1))
        fi
    fi
    printf '%-34s %-24s %9s %9s %7s  %s\n' "$name" "$way" "$median" "$worst" "$failed/$count" "$verdict"
}

# check NAME WORDS VALUE OPERATOR BOUND: a row of a figure that is no time.
check() {
    local verdict=FAILED
    if awk -v a="$3" -v b="$5" -v op="$4" 'BEGIN { exit !(op == "<=" ? a <= b : op == ">=" ? a >= b : a == b) }'; then
        verdict=pass
    else
        FAILURES=$((FAILURES + 1))
    fi
    jq -nc --arg row "$1" --arg what "$2" --arg value "$3" --arg bound "$4 $5" \
        '{row: $row, figure: $what, value: $value, bound: $bound}' >>"$OUT/races.jsonl"
    printf '%-34s %-42s %9s  %s %s: %s\n' "$1" "$2" "$3" "$4" "$5" "$verdict"
}

# Dead addresses, the first k of the order.
dead_first() {
    local k all dead_ones n over
    all=$(addresses "${ALL[@]}")
    for k in 0 3 6 10; do
        dead_ones=()
        for ((n = 1; n <= k; n++)); do dead_ones+=("$(address "$n")"); done
        dead "${dead_ones[@]}"
        for over in trickles tcp; do
            ours race "$over" "$SAMPLES" 60 "$all" | row "$k of 11 dead" "all, $over" 25
            ours paced "$over" "$SAMPLES" 60 "$all" | row "$k of 11 dead" "paced, $over" $((30 + 10 * k))
            ours he "$over" 2 60 "$all" | row "$k of 11 dead" "he, $over" $((35 + 250 * k))
        done
        ours seq trickles 1 60 "$all" | row "$k of 11 dead" "seq, trickles"
        python all "$SAMPLES" 20 "$all" | row "$k of 11 dead" "Python, all"
        python staggered-10 "$SAMPLES" 20 "$all" | row "$k of 11 dead" "Python, 10 ms"
        python staggered-250 2 20 "$all" | row "$k of 11 dead" "Python, 250 ms"
        python sequential 1 20 "$all" | row "$k of 11 dead" "Python, 1 s each"
        curl_times 1 20 "$all" | row "$k of 11 dead" "curl"
    done
    dead
}

# Dead addresses anywhere in the order: twenty orders.
dead_anywhere() {
    local k n order shuffled dead_ones way kind
    for k in 3 6 10; do
        dead_ones=()
        for ((n = 1; n <= k; n++)); do dead_ones+=("$(address "$n")"); done
        dead "${dead_ones[@]}"
        rm -f -- "$SCRATCH/all" "$SCRATCH/paced"
        for ((order = 0; order < SAMPLES; order++)); do
            mapfile -t shuffled < <(shuf --random-source=<(yes "$k.$order") -e "${ALL[@]}")
            for way in "race all" "paced paced"; do
                read -r way kind <<<"$way"
                ours "$way" trickles 1 60 "$(addresses "${shuffled[@]}")" >>"$SCRATCH/$kind"
            done
        done
        jq -sc '{times_ms: (map(.times_ms) | add)}' "$SCRATCH/all" | row "$k dead, random order" "all" 30 worst
        jq -sc '{times_ms: (map(.times_ms) | add)}' "$SCRATCH/paced" | row "$k dead, random order" "paced" 150 worst
    done
    dead
}

# Ten refuse, the last is far away.
refusals() {
    local all over
    all=$(addresses "${ALL[@]}")
    serve_at 11
    address_delay 11 250ms
    for over in trickles tcp; do
        ours he "$over" 5 60 "$all" >"$SCRATCH/he"
        # Each refusal takes a round trip of 20 ms.
        row "10 refuse, 1 at 500 ms" "he, $over" 715 <"$SCRATCH/he"
        ours race "$over" "$SAMPLES" 60 "$all" >"$SCRATCH/all"
        row "10 refuse, 1 at 500 ms" "all, $over" 505 <"$SCRATCH/all"
        check "10 refuse, 1 at 500 ms" "processor ms of all, $over" "$(jq .cpu_ms "$SCRATCH/all")" "<=" 5
    done
    python all 5 20 "$all" | row "10 refuse, 1 at 500 ms" "Python, all"
    python staggered-250 2 20 "$all" | row "10 refuse, 1 at 500 ms" "Python, 250 ms"
    curl_times 1 20 "$all" | row "10 refuse, 1 at 500 ms" "curl"
    address_delay 11 10ms
    serve_at "${ALL[@]}"
}

# Round trips of 10 to 110 ms in a random order; links 1 to 11 in ascending order.
unequal() {
    local n order shuffled best=0 worst=0 got place excess
    for n in "${ALL[@]}"; do address_delay "$n" "$((n * 5))ms"; done
    rm -f -- "$SCRATCH/all" "$SCRATCH/paced"
    for ((order = 0; order < SAMPLES; order++)); do
        mapfile -t shuffled < <(shuf --random-source=<(yes "$order") -e "${ALL[@]}")
        ours race trickles 1 60 "$(addresses "${shuffled[@]}")" | tee -a "$SCRATCH/all" >"$SCRATCH/one"
        [[ $(jq -r '.winners[0]' "$SCRATCH/one") != "$(address 1)" ]] || best=$((best + 1))
        ours paced trickles 1 60 "$(addresses "${shuffled[@]}")" | tee -a "$SCRATCH/paced" >"$SCRATCH/one"
        got=$(jq -r '.winners[0]' "$SCRATCH/one" | awk -F. '{ print $3 - 30 }')
        for place in "${!shuffled[@]}"; do [[ ${shuffled[place]} != 1 ]] || break; done
        excess=$((10 * (got - 1) - 10 * place))
        ((excess <= worst)) || worst=$excess
    done
    jq -sc '{times_ms: (map(.times_ms) | add)}' "$SCRATCH/all" | row "10 to 110 ms, random order" "all"
    jq -sc '{times_ms: (map(.times_ms) | add)}' "$SCRATCH/paced" | row "10 to 110 ms, random order" "paced"
    check "10 to 110 ms, random order" "winners of all that are the nearest" "$best" "==" "$SAMPLES"
    check "10 to 110 ms, random order" "ms that paced's is too far, beyond 10 a place" "$worst" "<=" 0
    for n in "${ALL[@]}"; do address_delay "$n" 10ms; done
}

# Six dead IPv6 addresses before five live ones of IPv4.
families() {
    local n dead_ones=() all over
    for n in 1 2 3 4 5 6; do dead_ones+=("$(address6 "$n")"); done
    dead "${dead_ones[@]}"
    all=$(IFS=,; echo "${dead_ones[*]}"),$(addresses 7 8 9 10 11)
    for over in trickles tcp; do
        ours paced "$over" "$SAMPLES" 60 "$all" | row "6 dead IPv6, 5 live IPv4" "paced, $over" 35
        ours he "$over" 5 60 "$all" | row "6 dead IPv6, 5 live IPv4" "he, $over" 275
        ours race "$over" "$SAMPLES" 60 "$all" | row "6 dead IPv6, 5 live IPv4" "all, $over" 25
    done
    python staggered-10 "$SAMPLES" 20 "$all" | row "6 dead IPv6, 5 live IPv4" "Python, 10 ms"
    python staggered-250 2 20 "$all" | row "6 dead IPv6, 5 live IPv4" "Python, 250 ms"
    curl_times 3 20 "$all" | row "6 dead IPv6, 5 live IPv4" "curl"
    dead
}

# All are far away: no attempt is given up because the next one starts.
far() {
    local n all
    all=$(addresses "${ALL[@]}")
    for n in "${ALL[@]}"; do address_delay "$n" 200ms; done
    for way in he paced race; do
        ours "$way" trickles 5 60 "$all" | row "400 ms away" "$way, trickles" 410
    done
    for n in "${ALL[@]}"; do address_delay "$n" 10ms; done
}

# Races leave nothing at the servers: memory, soft state, packets, beside TCP's accepts and TIME-WAIT.
left_behind() {
    local all before after state count=$RACES packets
    all=$(addresses "${ALL[@]}")
    ours race trickles 100 60 "$all" >/dev/null
    before=$(rss_kib serve) state=$(metric server1 headwater_soft_state_bytes)
    ours race trickles "$count" 60 "$all" >"$SCRATCH/many"
    after=$(rss_kib serve)
    row "$count races, all alive" "all, trickles" <"$SCRATCH/many"
    packets=$(jq '.packets / 11' "$SCRATCH/many")
    check "$count races, all alive" "packets an address" "$packets" "<=" 2.2
    check "$count races, all alive" "growth of the server, KiB" $((after - before)) "<=" 64
    check "$count races, all alive" "growth of its soft state, bytes" \
        $(($(metric server1 headwater_soft_state_bytes) - state)) "==" 0
    before=$(in_ns server1 nstat -asz TcpPassiveOpens | awk '/Tcp/ { print $2 }')
    count=$((RACES / 20))
    ours race tcp "$count" 60 "$all" | row "$count races, all alive" "all, tcp"
    after=$(in_ns server1 nstat -asz TcpPassiveOpens | awk '/Tcp/ { print $2 }')
    awk -v n=$((after - before)) -v c="$count" \
        'BEGIN { printf "%-34s %-42s %9.1f\n", c " races, all alive", "connections accepted for each race over TCP", n / c }'
}

# A hundred programs at once, with 64 descriptors each.
at_once() {
    local all n pids=() good=0
    all=$(addresses "${ALL[@]}")
    for ((n = 0; n < 100; n++)); do
        in_ns client prlimit --nofile=64 "$HEADWATER" race --race all --no-history --connect-timeout 20 \
            --resolve "files:$PORT:$all" "files:$PORT" >"$SCRATCH/once.$n" 2>&1 &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" && good=$((good + 1)); done
    check "100 races at once, 64 descriptors" "that connect" "$good" "==" 100
}

main() {
    settings races "$@"
    become_root "$@"
    need ip nft jq curl python3 nstat
    need_program
    mkdir -p -- "$OUT"
    : >"$OUT/races.jsonl"
    topology_up addresses 10ms 10ms 10ms 10ms 10ms 10ms 10ms 10ms 10ms 10ms 10ms
    content 1000
    serve_at "${ALL[@]}"
    printf '%-34s %-24s %9s %9s %7s\n' row way 'median ms' worst failed
    dead_first
    dead_anywhere
    refusals
    unequal
    families
    far
    left_behind
    at_once
    give_back
    ((FAILURES == 0)) || die "$FAILURES bounds do not hold"
}

main "$@"
