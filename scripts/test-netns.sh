#!/usr/bin/env bash
#
# Scripted tests of the program in network namespaces: one function a scenario, each in a testbed
# of its own. Prints a line a scenario and "N passed, M failed"; exit status 1 if any failed, 77 if
# namespaces cannot be made here.
#
#   test-netns.sh [--list] [SCENARIO...]      all scenarios by default
#
# Environment: HEADWATER the program (target/release/headwater), OBJECT_MB size of the large
# objects (1000), SEED of the random instants (drawn and printed), KEEP_LOGS=1 prints the logs of
# scenarios that passed, too.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/topology.sh
source scripts/topology.sh

readonly HEADWATER=${HEADWATER:-$PWD/target/release/headwater}
readonly OBJECT_MB=${OBJECT_MB:-1000}
SEED=${SEED:-$RANDOM}

readonly SCENARIOS=(
    testbed topologies ping curl_over_tcp real_files large_object random_loss many_clients many_downloads kill_restart
    round_robin round_robin_one_dead overhead_ipv4 overhead_ipv6 one_round_trip upstream_share
    slow_reader metrics captures devices device_at_hand multi_queue serve_errors get_errors link bench
)

# fail MESSAGE...: ends the scenario.
fail() {
    echo "FAILED: $*"
    exit 1
}

# equal WHAT GOT WANT; at_least WHAT GOT BOUND; at_most WHAT GOT BOUND: numbers may be decimals.
equal() {
    [[ $2 == "$3" ]] || fail "$1: '$2', expected '$3'"
    echo "$1: $2"
}
at_least() {
    awk -v got="$2" -v bound="$3" 'BEGIN { exit !(got + 0 >= bound + 0 && got != "") }' ||
        fail "$1: $2, expected at least $3"
    echo "$1: $2 (at least $3)"
}
at_most() {
    awk -v got="$2" -v bound="$3" 'BEGIN { exit !(got + 0 <= bound + 0 && got != "") }' ||
        fail "$1: $2, expected at most $3"
    echo "$1: $2 (at most $3)"
}

# expect STATUS PATTERN COMMAND...: COMMAND must end with STATUS and say PATTERN on standard error
# in one line of its own.
expect() {
    local status=$1 pattern=$2 got=0
    shift 2
    "$@" >"$SCRATCH/expect.out" 2>"$SCRATCH/expect.err" || got=$?
    cat "$SCRATCH/expect.err"
    if [[ $status == nonzero ]]; then
        [[ $got != 0 && $got != 124 && $got != 101 ]] || fail "exit status $got, expected an error"
    else
        [[ $got == "$status" ]] || fail "exit status $got, expected $status"
    fi
    grep -Eiq "^headwater: .*($pattern)" "$SCRATCH/expect.err" || fail "no message like '$pattern'"
    ! grep -q 'panicked at' "$SCRATCH/expect.err" || fail "a panic"
}

identical() {
    cmp -- "$1" "$2" || fail "$1 and $2 differ"
}

stat_of() {
    jq -r "$2" "$1"
}

# fleet SERVERS: a testbed with keys and an empty root.
fleet() {
    topology_up servers "$1"
    mkdir "$SCRATCH/root"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
}

# object MIB [NAME]: random bytes below the root.
object() {
    head -c "$(($1 * 1048576))" /dev/urandom >"$SCRATCH/root/${2:-object}"
}

url_path() {
    jq -rn --arg path "$1" '$path | split("/") | map(@uri) | join("/")'
}

# The instruments first: what the other scenarios measure with must tell the truth.
scenario_testbed() {
    local n result
    topology_up servers 2
    for n in 1 2; do
        ip -n "$TOPOLOGY-server$n" addr add "10.77.2.10$n/32" dev lo
        ip -n "$TOPOLOGY-server$n" addr add "fd77:2::10$n/128" dev lo nodad
        start "four$n" "server$n" python3 "$PWD/scripts/udp-probe.py" serve "10.77.2.10$n" 7600
        start "six$n" "server$n" python3 "$PWD/scripts/udp-probe.py" serve "fd77:2::10$n" 7600
        wait_ready "four$n"
        wait_ready "six$n"
    done
    spray 1 2
    result=$(probe 10.77.11.2 10.77.2.100 200)
    equal "IPv4 round robin" "$(jq -c '[.sources, .by_server]' <<<"$result")" \
        '[["10.77.2.100"],{"10.77.2.101":100,"10.77.2.102":100}]'
    result=$(probe fd77:11::2 fd77:2::100 200)
    equal "IPv6 round robin" "$(jq -c '[.sources, .by_server]' <<<"$result")" \
        '[["fd77:2::100"],{"fd77:2::101":100,"fd77:2::102":100}]'
    equal "counted for server 2" "$(spray_count 2)" 200
    spray 2
    result=$(probe 10.77.11.2 10.77.2.100 20)
    equal "one server withdrawn" "$(jq -c .by_server <<<"$result")" '{"10.77.2.102":20}'
    loss 20
    result=$(probe 10.77.11.2 10.77.2.102 200 | jq .answers)
    equal "answered and dropped" $((result + $(loss_count up) + $(loss_count down))) 200
    at_least "dropped on the way there" "$(loss_count up)" 15
    at_least "dropped on the way back" "$(loss_count down)" 10
}
probe() {
    in_ns client python3 "$PWD/scripts/udp-probe.py" send "$1" "$2" 7600 "$3"
}

# Every topology comes up twice side by side, carries both families end to end, and goes away whole.
scenario_topologies() {
    local name="$BASHPID" side shape ends pids
    while IFS='|' read -r -u 3 shape ends; do
        pids=()
        for side in a b; do
            # shellcheck disable=SC2086 # arguments
            (
                TOPOLOGY_NAME=$name$side
                topology_up $shape
                pings $ends
            ) &
            pids+=($!)
        done
        for side in "${pids[@]}"; do wait "$side" || fail "$shape"; done
        ! ip netns list | grep "^hw-$name" || fail "$shape: namespaces are left"
        ! pgrep -f "/hw-$name" || fail "$shape: processes are left"
        [[ -z $(find "${TMPDIR:-/tmp}" -maxdepth 1 -name "hw-$name*") ]] || fail "$shape: files are left"
        echo "$shape"
    done 3<<'SHAPES'
servers 2|client 10.77.22.2 client fd77:21::2
pair|client 10.77.21.2 client fd77:21::2
path --delay 2ms --rate 50mbit|client 10.77.21.2 client fd77:21::2
dumbbell 3 --delay 2ms -- 0ms 3ms|client1 10.77.21.2 client3 10.77.23.2 client2 fd77:22::2
uplinks --delay 2ms -- --delay 3ms|client 10.77.21.2 client fd77:21::2
nat --delay 2ms|client 10.77.30.2 client fd77:30::2
sites --delay 2ms|client1 10.77.21.2 client1 10.77.22.2 client2 fd77:21::2
SHAPES
}
# pings ROLE ADDRESS...
pings() {
    while (($# > 0)); do
        in_ns "$1" ping -c 2 -i 0.05 -W 1 -q "$2" || fail "no answer from $2 to $1"
        shift 2
    done
}

scenario_ping() {
    fleet 1
    object 1
    serve 1
    in_ns client ping -c 20 -i 0.02 -W 1 10.77.2.101 | tee "$SCRATCH/ping4"
    in_ns client ping -c 20 -i 0.02 -W 1 fd77:2::101 | tee "$SCRATCH/ping6"
    in_ns client ping -c 3 -i 0.02 -W 1 -s 1400 10.77.2.101
    grep -q ' 0% packet loss' "$SCRATCH/ping4" || fail "lost pings on IPv4"
    grep -q ' 0% packet loss' "$SCRATCH/ping6" || fail "lost pings on IPv6"
}

# Plain curl over the kernel's TCP reaches the same files.
scenario_curl_over_tcp() {
    local out base=http://10.77.2.101 path tag
    fleet 1
    out=$SCRATCH/out
    object 3
    mkdir "$SCRATCH/root/folder"
    echo '<p>index</p>' >"$SCRATCH/root/folder/index.html"
    echo secret >"$SCRATCH/secret"
    ln -s "$SCRATCH/secret" "$SCRATCH/root/outside"
    serve 1
    code() { in_ns client curl --max-time 20 --path-as-is -s -o "$out" -w '%{http_code}' "$@"; }

    equal "GET" "$(code "$base/object")" 200
    identical "$SCRATCH/root/object" "$out"
    equal "GET over IPv6" "$(code "http://[fd77:2::101]/object")" 200
    identical "$SCRATCH/root/object" "$out"
    equal "two on one connection" "$(code "$base/object" -o /dev/null "$base/object")" 200200
    equal "an index page" "$(code "$base/folder/")" 200
    identical "$SCRATCH/root/folder/index.html" "$out"
    equal "a listing" "$(code "$base/")" 200
    grep -q object "$out" || fail "the listing does not name the file"
    equal "HEAD" "$(in_ns client curl -sI -m 20 "$base/object" | tr -d '\r' |
        sed -n 's/^content-length: //Ip')" 3145728
    equal "a range" "$(code -r 1000-1999 "$base/object")" 206
    cmp "$out" <(tail -c +1001 "$SCRATCH/root/object" | head -c 1000) || fail "wrong range"
    equal "a suffix" "$(code -r -500 "$base/object")" 206
    cmp "$out" <(tail -c 500 "$SCRATCH/root/object") || fail "wrong suffix"
    equal "beyond the end" "$(code -r 9999999- "$base/object")" 416
    equal "missing" "$(code "$base/nothing")" 404
    equal "a method it has not" "$(code -X DELETE "$base/object")" 405
    for path in /../secret /%2e%2e/secret /..%2fsecret /folder/../../secret /outside; do
        [[ $(code "$base$path") == 40[034] ]] || fail "$path was answered"
        ! grep -q secret "$out" || fail "$path leaks"
    done
    tag=$(in_ns client curl -sI -m 20 "$base/object" | tr -d '\r' | sed -n 's/^etag: //Ip')
    [[ -n $tag ]] || fail "no ETag"
    equal "unchanged" "$(code -H "If-None-Match: $tag" "$base/object")" 304
}

# 200 different files of this machine, by one command, over both families.
scenario_real_files() {
    local file n=0 names=() outputs=() urls urls6
    fleet 1
    while IFS= read -r -d '' file; do
        n=$((n + 1))
        cp -- "$file" "$SCRATCH/root/$n-${file##*/}"
        names+=("$n-${file##*/}")
    done < <(find /usr/share /usr/lib -xdev -type f -size +0 -size -512k -print0 2>/dev/null |
        sort -z | awk 'BEGIN { RS = ORS = "\0" } NR % 37 == 0 && kept++ < 196')
    : >"$SCRATCH/root/empty"
    echo odd >"$SCRATCH/root/a name with spaces, 100% odd#1?.txt"
    echo odd >"$SCRATCH/root/unicode-käse-水.txt"
    echo odd >"$SCRATCH/root/.hidden"
    names+=(empty "a name with spaces, 100% odd#1?.txt" unicode-käse-水.txt .hidden)
    at_least "files" "${#names[@]}" 200
    serve 1
    urls=() urls6=()
    for file in "${names[@]}"; do
        outputs+=(-o "$SCRATCH/fetched/$file")
        urls+=("http://10.77.2.101/$(url_path "$file")")
        urls6+=("http://[fd77:2::101]/$(url_path "$file")")
    done
    mkdir "$SCRATCH/fetched"
    get "${outputs[@]}" "${urls[@]}"
    diff -r "$SCRATCH/root" "$SCRATCH/fetched" || fail "IPv4: trees differ"
    rm -r "$SCRATCH/fetched"
    mkdir "$SCRATCH/fetched"
    get "${outputs[@]}" "${urls6[@]}"
    diff -r "$SCRATCH/root" "$SCRATCH/fetched" || fail "IPv6: trees differ"
}

# One large dynamic object, over both families, against the same bytes over TCP.
scenario_large_object() {
    local want got path=".dynamic/7/$((OBJECT_MB * 1000000))"
    fleet 1
    object 1
    serve 1
    want=$(in_ns client curl -s -m 120 "http://10.77.2.101/$path" | sha256sum)
    got=$(GET_SECONDS=120 get --stats "$SCRATCH/stats" "http://10.77.2.101/$path" | sha256sum)
    equal "digest over IPv4" "$got" "$want"
    equal "bytes" "$(stat_of "$SCRATCH/stats" .bytes)" $((OBJECT_MB * 1000000))
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    got=$(GET_SECONDS=120 get "http://[fd77:2::101]/$path" | sha256sum)
    equal "digest over IPv6" "$got" "$want"
    got=$(GET_SECONDS=120 get --transport tcp "http://10.77.2.101/.dynamic/7/20000000" | sha256sum)
    equal "digest of our client over TCP" "$got" \
        "$(in_ns client curl -s -m 60 http://10.77.2.101/.dynamic/7/20000000 | sha256sum)"
}

# 2 % of the packets lost at random, each way.
scenario_random_loss() {
    local size=$((OBJECT_MB / 10 + 10))
    fleet 1
    object "$size"
    serve 1
    loss 2
    GET_SECONDS=180 get --stats "$SCRATCH/stats" -o "$SCRATCH/four" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/four"
    jq -c '{seconds, timeouts, handshakes, longest_stall_ms}' "$SCRATCH/stats"
    GET_SECONDS=180 get -o "$SCRATCH/six" "http://[fd77:2::101]/object"
    identical "$SCRATCH/root/object" "$SCRATCH/six"
    at_least "really lost upstream" "$(loss_count up)" 3
    at_least "really lost downstream" "$(loss_count down)" 100
}

# 64 clients at once, each a process with a TUN and an address of its own.
scenario_many_clients() {
    local i
    fleet 1
    object 4
    serve 1
    for i in $(seq 64); do
        start "get$i" client timeout --foreground 120 "$HEADWATER" get --tun "c$i" \
            --address "10.77.1.$((100 + i))" --silent --show-error \
            -o "$SCRATCH/got$i" http://10.77.2.101/object
    done
    for i in $(seq 64); do
        finish "get$i" || fail "client $i: exit status $?: $(cat "$SCRATCH/get$i.err")"
        cmp "$SCRATCH/root/object" "$SCRATCH/got$i" || fail "client $i has other bytes"
    done
    echo "64 clients, all identical"
}

# 200 downloads at once in one process, through a link that they fill.
scenario_many_downloads() {
    local stats
    fleet 1
    stats="$SCRATCH/stats"
    object 4
    serve 1
    rate 50mbit
    in_ns client timeout --foreground 30 "$HEADWATER" load --tun hw0 --address 10.77.1.100 \
        --connections 200 --warm 2 --download 4 --stats "$stats" http://10.77.2.101/object ||
        fail "exit status $?"
    at_least "downloads that began" "$(jq .began "$stats")" 100
    at_least "Mbit/s of all" "$(jq '.window_bytes * 8e-6 / .window_seconds' "$stats")" 25
    at_most "Mbit/s of all" "$(jq '.window_bytes * 8e-6 / .window_seconds' "$stats")" 51
    equal "HTTP statuses" "$(jq -c '.statuses | keys' "$stats")" '["200"]'
    expect 22 '404' in_ns client "$HEADWATER" load --tun hw0 --address 10.77.1.100 \
        --connections 2 --download 1 --stats "$stats" http://10.77.2.101/missing
    expect 7 'no download began' in_ns client "$HEADWATER" load --tun hw0 --address 10.77.1.100 \
        --connections 2 --download 1 --stats "$stats" http://10.77.2.102/object
}

# Requests on connections of their own, by all that can carry them, and on kept connections.
scenario_bench() {
    local stats common
    fleet 1
    stats="$SCRATCH/stats"
    head -c 10000 /dev/urandom >"$SCRATCH/root/object"
    serve 1
    start_nginx 1
    common=(--tun hw0 --address 10.77.1.100 --stats "$stats")
    in_ns client timeout --foreground 60 "$HEADWATER" bench requests "${common[@]}" --clients 4 \
        --seconds 1 --warm-up 0 --rounds 2 --peer transport=http://10.77.2.101/object \
        --peer smoltcp=http://10.77.2.101/object --peer kernel=http://10.77.21.2/object \
        --server-pid "kernel=${TOPOLOGY_PIDS[nginx1]}" || fail "exit status $?"
    equal "good rounds" "$(jq '[.peers[].rounds[] | select(.completed > 20 and .failed == {}
        and .unfinished == 0 and .body_bytes == .latency.count * 10000)] | length' "$stats")" 6
    equal "HTTP statuses" "$(jq -c '[.peers[].rounds[].statuses | keys] | unique' "$stats")" '[["200"]]'
    in_ns client timeout --foreground 60 "$HEADWATER" bench connections "${common[@]}" \
        --counts 10,300 --rate 200 --seconds 1 --server-pid "${TOPOLOGY_PIDS[server1]}" \
        http://10.77.2.101/object || fail "exit status $?"
    at_least "requests on kept connections" "$(jq '[.peers[].live.completed] | min' "$stats")" 100
    at_most "bytes a connection" "$(jq '[.peers[].state_bytes_per_connection] | max' "$stats")" 1000
    # Sockets need no device.
    expect 22 '404' in_ns client "$HEADWATER" bench requests --seconds 1 \
        --peer kernel=http://10.77.21.2/missing
    expect 2 'name it as --tun' in_ns client "$HEADWATER" bench requests --seconds 1 \
        --peer kernel=http://10.77.21.2/object --peer transport=http://10.77.2.101/object
    expect 7 'no request by transport was answered' in_ns client "$HEADWATER" bench requests \
        "${common[@]}" --seconds 1 --peer transport=http://10.77.2.102/object
}

# SIGKILL and restart at 20 random places of one transfer.
scenario_kill_restart() {
    local size=60 places place first received kills=0
    fleet 1
    object "$size"
    serve 1
    rate 100mbit
    start download client timeout --foreground 180 "$HEADWATER" get --tun hw0 --address 10.77.1.100 \
        --silent --show-error --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    until_true 10 link_bytes download >/dev/null || fail "it ended at once"
    read -r first _ < <(link_bytes download)
    mapfile -t places < <(awk -v seed="$SEED" -v size="$((size * 1048576))" \
        'BEGIN { srand(seed); for (i = 0; i < 20; i++) printf "%.0f\n", rand() * size * 0.97 }' |
        sort -n)
    for place in "${places[@]}"; do
        while read -r received _ < <(link_bytes download); do
            ((received - first < place)) || break
            sleep 0.005
        done
        running download || fail "it ended before kill $((kills + 1))"
        kill9 server1
        serve 1
        kills=$((kills + 1))
    done
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "kills" "$kills" 20
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    jq -c '{seconds, timeouts, longest_stall_ms}' "$SCRATCH/stats"
}

# Two servers with the same keys behind a per-packet round robin; then either is killed in
# mid-transfer and the router, after the half second of a health check, withdraws it.
scenario_round_robin() {
    local size=40 dead alive first received
    fleet 2
    object "$size"
    serve 1
    serve 2
    spray 1 2
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.100/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    shares "$SCRATCH/stats"
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://[fd77:2::100]/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    shares "$SCRATCH/stats"
    rate 100mbit
    for dead in 1 2; do
        alive=$((3 - dead))
        spray 1 2
        start download client timeout --foreground 120 "$HEADWATER" get --tun hw0 --address 10.77.1.100 \
            --silent --show-error --stats "$SCRATCH/stats" -o "$SCRATCH/got$dead" \
            http://10.77.2.100/object
        until_true 10 link_bytes download >/dev/null || fail "it ended at once"
        read -r first _ < <(link_bytes download)
        while read -r received _ < <(link_bytes download); do
            ((received - first < size * 1048576 / 3)) || break
            sleep 0.01
        done
        running download || fail "it ended before the kill"
        kill9 "server$dead"
        sleep 0.5
        spray "$alive"
        finish download || fail "server $dead killed: exit status $?"
        identical "$SCRATCH/root/object" "$SCRATCH/got$dead"
        jq -c '{seconds, timeouts, handshakes, longest_stall_ms, by_server}' "$SCRATCH/stats"
        serve "$dead"
    done
}
# shares STATS: both servers answered about half of the packets.
shares() {
    local share
    share=$(jq '.by_server | ."1" / (."1" + ."2")' "$1")
    at_least "share of server 1" "$share" 0.4
    at_most "share of server 1" "$share" 0.6
}

# The harsh case: nobody withdraws the dead server, so that every other request is lost.
scenario_round_robin_one_dead() {
    local dead
    fleet 2
    head -c 200000 /dev/urandom >"$SCRATCH/root/object"
    serve 1
    serve 2
    spray 1 2
    for dead in 1 2; do
        kill9 "server$dead"
        GET_SECONDS=240 get --stats "$SCRATCH/stats" -o "$SCRATCH/got$dead" http://10.77.2.100/object
        identical "$SCRATCH/root/object" "$SCRATCH/got$dead"
        jq -c '{seconds, timeouts, handshakes, by_server}' "$SCRATCH/stats"
        serve "$dead"
    done
}

# overhead HOST FILTER BOUND: object bytes in full packets, found in a capture by their content.
overhead() {
    local result
    fleet 1
    object 20
    serve 1
    get --pcap "$SCRATCH/capture.pcap" -o "$SCRATCH/got" "http://$1/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    result=$(shark -r "$SCRATCH/capture.pcap" -Y "$2" -T fields -e udp.payload 2>/dev/null |
        awk 'NR % 40 == 0 && kept++ < 200' | python3 scripts/payload.py "$SCRATCH/root/object")
    echo "$result"
    at_least "full packets looked at" "$(jq .datagrams <<<"$result")" 100
    at_least "bytes of the object in one" "$(jq .median <<<"$result")" "$3"
}
scenario_overhead_ipv4() {
    overhead 10.77.2.101 'ip.src == 10.77.2.101 && udp && ip.len == 1500' 1440
}
scenario_overhead_ipv6() {
    overhead '[fd77:2::101]' 'ipv6.src == fd77:2::101 && udp && ipv6.plen == 1460' 1420
}

# A 3 kB object: everything arrives before the client sends a second packet. So does one of 10 kB when
# the client shows what it remembers of an earlier run, and only then.
scenario_one_round_trip() {
    local tokens
    fleet 1
    tokens=$SCRATCH/tokens
    head -c 3000 /dev/urandom >"$SCRATCH/root/small"
    head -c 10000 /dev/urandom >"$SCRATCH/root/medium"
    serve 1
    equal "client packets before the last answer" "$(asked small --tokens "$tokens")" 1
    at_most "answer packets" "$(answers)" 3
    equal "mode of the tokens" "$(stat -c %a "$tokens")" 600
    equal "client packets for 10 kB with a token" "$(asked medium --tokens "$tokens")" 1
    at_most "answer packets" "$(answers)" 10
    at_least "client packets for 10 kB without one" "$(asked medium)" 2
}
# asked OBJECT [OPTION...]: packets that the client sends before the last of the answers comes.
asked() {
    local object=$1
    shift
    get --pcap "$SCRATCH/capture.pcap" -o "$SCRATCH/got" "$@" "http://10.77.2.101/$object" >&2
    identical "$SCRATCH/root/$object" "$SCRATCH/got" >&2
    shark -r "$SCRATCH/capture.pcap" -Y udp -T fields -e frame.number -e frame.time_relative \
        -e ip.src -e ip.dst -e udp.length 2>/dev/null | tee "$SCRATCH/frames" >&2
    awk '$3 == "10.77.1.100" { sent++ }
        $3 == "10.77.2.101" { before = sent }
        END { print before + 0 }' "$SCRATCH/frames"
}
answers() {
    grep -c '10\.77\.2\.101[[:space:]]*10\.77\.1\.100' "$SCRATCH/frames"
}

# 100 MB without loss: what the client sends is at most a hundredth of what it receives, as IP
# packets counted by the kernel on the link.
scenario_upstream_share() {
    local before=() after=()
    fleet 1
    object 95
    serve 1
    read -r -a before < <(link_totals client)
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    read -r -a after < <(link_totals client)
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    at_least "bytes down" $((after[1] - before[1])) $((95 * 1048576))
    at_most "bytes up per 100 down" "$(awk -v up=$((after[3] - before[3])) \
        -v down=$((after[1] - before[1])) 'BEGIN { print 100 * up / down }')" 1
    jq -c '{packets_in, packets_out, bytes_in, bytes_out, lost, repeated}' "$SCRATCH/stats"
}

# A reader that takes 1 Mb/s for four seconds, then all it can get: the client asks for no more than its
# buffer holds, answers and measures meanwhile, and has lost no pace when the reader hurries.
scenario_slow_reader() {
    local sampled rss=0 received
    fleet 1
    object 12
    serve 1
    rate 100mbit
    mkfifo "$SCRATCH/pipe"
    # shellcheck disable=SC2016 # for the inner shell
    start reader client bash -c 'exec python3 scripts/slow-reader.py 4 125000 "$1" <"$0"' \
        "$SCRATCH/pipe" "$SCRATCH/got"
    # shellcheck disable=SC2016 # for the inner shell
    start download client bash -c 'exec "$@" >"$0"' "$SCRATCH/pipe" "$HEADWATER" get --tun hw0 \
        --address 10.77.1.100 --silent --show-error --max-time 60 --buffer 1M --stats "$SCRATCH/stats" \
        http://10.77.2.101/object
    for _ in 1 2 3; do
        sleep 1
        sampled=$(rss_kib download)
        rss=$((sampled > rss ? sampled : rss))
    done
    read -r received _ < <(link_bytes download)
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    finish reader || fail "the reader: $(cat "$SCRATCH/reader.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    cat "$SCRATCH/reader.out"
    jq -c '{seconds, lost, timeouts, probes, transitions, rtt_smoothed_us}' "$SCRATCH/stats"
    at_most "KiB of memory while it was slow" "$rss" 12288
    at_least "bytes that came while it was slow" "$received" 1000000
    at_most "bytes that came while it was slow" "$received" 2500000
    at_most "its longest gap when it was fast (ms)" "$(jq .longest_gap_ms "$SCRATCH/reader.out")" 500
    at_most "seconds when it was fast" "$(jq .fast_seconds "$SCRATCH/reader.out")" 4
    at_most "longest stall (ms)" "$(stat_of "$SCRATCH/stats" .longest_stall_ms)" 300
}

# Prometheus text on the server's own loopback: well-formed, moving, nothing about single clients.
scenario_metrics() {
    local url=http://127.0.0.1:9100/metrics name before after
    fleet 1
    object 2
    serve 1 --metrics 127.0.0.1:9100
    in_ns server1 curl -sf -m 5 "$url" >"$SCRATCH/metrics0"
    get -o "$SCRATCH/got" http://10.77.2.101/object
    in_ns client ping -c 2 -i 0.02 10.77.2.101 >"$SCRATCH/ping"
    # A packet for a port that nobody has is a drop with a reason.
    in_ns client bash -c 'echo x >/dev/udp/10.77.2.101/9'
    in_ns server1 curl -sf -m 5 "$url" | tee "$SCRATCH/metrics1"
    ! grep -Evq '^(# (HELP|TYPE) [a-z_:][a-z0-9_:]* .+|[a-z_:][a-z0-9_:]*(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+|)$' \
        "$SCRATCH/metrics1" || fail "lines that are not Prometheus text"
    ! grep -Eq '10\.77\.1\.|fd77:1:' "$SCRATCH/metrics1" || fail "a label names a client"
    sum() { awk -v pattern="$2" '$1 ~ pattern { total += $2 } END { printf "%.0f", total }' "$1"; }
    for name in packets bytes requests opens drop; do
        grep -Eq "^[a-z_]*$name" "$SCRATCH/metrics1" || fail "no metric for $name"
        before=$(sum "$SCRATCH/metrics0" "^[a-z_]*$name") after=$(sum "$SCRATCH/metrics1" "^[a-z_]*$name")
        at_least "$name grew by" $((after - before)) 1
    done
    equal "an unknown path" "$(in_ns server1 curl -s -o /dev/null -m 5 -w '%{http_code}' http://127.0.0.1:9100/x)" 404
}

# shark OPTION...: tshark, told that our port carries data: by its heuristics random bytes look like
# this or that protocol now and then, and like malformed packets of it.
shark() {
    tshark -d udp.port==7600,data "$@"
}

# Captures of both ends and of both protocols are what tshark calls sound; but it wants 0x0000 where
# the kernel writes the other zero of ones' complement (RFC 1624 section 3).
scenario_captures() {
    local side
    fleet 1
    object 2
    serve 1 --pcap "$SCRATCH/server.pcap"
    get --pcap "$SCRATCH/client.pcap" -o "$SCRATCH/got" http://10.77.2.101/object
    get -o "$SCRATCH/got" "http://[fd77:2::101]/object"
    in_ns client curl -s -m 20 -o "$SCRATCH/got" http://10.77.2.101/object
    in_ns client ping -c 2 -i 0.02 10.77.2.101
    stop server1
    for side in client server; do
        shark -r "$SCRATCH/$side.pcap" -q -z io,phs 2>"$SCRATCH/tshark.err" || fail "$side: unreadable"
        ! grep -Ei 'cut short|malformed|damaged' "$SCRATCH/tshark.err" || fail "$side: damaged"
        at_least "$side packets" "$(shark -r "$SCRATCH/$side.pcap" 2>/dev/null | wc -l)" 20
        equal "$side: bad packets" "$(shark -r "$SCRATCH/$side.pcap" -o ip.check_checksum:TRUE \
            -o udp.check_checksum:TRUE -o tcp.check_checksum:TRUE -Y '_ws.malformed ||
            ip.checksum.status == "Bad" || udp.checksum.status == "Bad" ||
            (tcp.checksum.status == "Bad" && tcp.checksum != 0xffff)' 2>/dev/null | wc -l)" 0
    done
    at_least "TCP in the server's" "$(shark -r "$SCRATCH/server.pcap" -Y tcp 2>/dev/null | wc -l)" 10
    at_least "pings in the server's" "$(shark -r "$SCRATCH/server.pcap" -Y icmp 2>/dev/null | wc -l)" 4
}

# Both kinds of TUN device with each other and with the kernel's TCP, over links that carry joined
# packets and over links that do not: the same bytes, and joined where they may be.
scenario_devices() {
    local link server client address packets
    fleet 1
    object 8
    start_nginx 1
    for link in on off; do
        offloads "$link"
        for server in offload plain; do
            serve 1 --device "$server"
            for address in 10.77.2.101 '[fd77:2::101]'; do
                for client in offload plain; do
                    packets=$(device_packets)
                    fetch "$client $address" --device "$client" "http://$address/object"
                    packets=$(($(device_packets) - packets))
                    case $server in
                    offload) at_most "$link, $server to $client: packets" "$packets" 3000 ;;
                    plain) at_least "$link, $server to $client: packets" "$packets" 5500 ;;
                    esac
                    fetch "TCP, $client $address" --device "$client" --transport tcp "http://$address/object"
                done
                in_ns client curl -sf -m 60 -o "$SCRATCH/got" "http://$address/object"
                identical "$SCRATCH/root/object" "$SCRATCH/got"
            done
            stop server1
        done
        for client in offload plain; do
            for address in 10.77.21.2 '[fd77:21::2]'; do
                fetch "nginx, $client $address" --device "$client" --transport tcp "http://$address/object"
            done
        done
    done
}
# device_packets: what the server has written to its device, joined packets counted as one.
device_packets() {
    ip -n "$TOPOLOGY-server1" -s -j link show hw0 | jq '.[0].stats64.rx.packets'
}
# fetch WHAT ARGUMENT...: the object, which must be identical.
fetch() {
    local what=$1
    shift
    rm -f "$SCRATCH/got"
    get -o "$SCRATCH/got" "$@" || fail "$what"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
}

# Two processes on one device of two queues, over which the kernel spreads connections. The one that
# serves a download is killed: the kernel gives its queue's packets to the other, which goes on. So
# does the one that comes back.
scenario_multi_queue() {
    local n try by='[]' of first
    fleet 1
    object 8
    for n in 1 2; do queue "$n"; done
    for try in $(seq 16); do
        fetch "download $try" --stats "$SCRATCH/stats" http://10.77.2.101/object
        by=$(jq -c --argjson by "$by" '$by + (.by_server | keys) | unique' "$SCRATCH/stats")
        ((try < 4)) || [[ $by != '["1","2"]' ]] || break
    done
    equal "servers that answered" "$by" '["1","2"]'
    rate 20mbit
    start download client timeout --foreground 60 "$HEADWATER" get --tun hw0 --address 10.77.1.100 \
        --silent --show-error --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    until_true 10 served || fail "it ended at once"
    of=$(served)
    kill9 "queue$of"
    first=$(packets_of $((3 - of)))
    until_true 10 more_than "$((3 - of))" "$first" || fail "the other queue has no packets"
    queue "$of"
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    equal "servers of the download" "$(jq -c '.by_server | length' "$SCRATCH/stats")" 2
    expect 2 'one queue' "$HEADWATER" serve --tun hw1 --address 10.77.2.102 --root "$SCRATCH/root" \
        --keys "$SCRATCH/keys" --device plain --multi-queue
}
# queue N: a process on the shared device, with metrics on port 900N.
queue() {
    start "queue$1" server1 "$HEADWATER" serve --tun hw0 --address 10.77.2.101 --root "$SCRATCH/root" \
        --keys "$SCRATCH/keys" --server-id "$1" --multi-queue --metrics "127.0.0.1:900$1"
    wait_ready "queue$1"
}
# packets_of N: response packets that a process has sent.
packets_of() {
    in_ns server1 curl -sf "http://127.0.0.1:900$1/metrics" |
        awk '/^headwater_response_packets_total/ { print $2 }'
}
more_than() { (($(packets_of "$1") > $2)); }
# served: the number of the process that sends now.
served() {
    local n before
    for n in 1 2; do
        before=$(packets_of "$n")
        sleep 0.1
        if (($(packets_of "$n") > before)); then
            echo "$n"
            return
        fi
    done
    return 1
}

# A device that outlives its program keeps the offloads of who was killed; the next one, plain, must
# not be handed joined packets. Who ends in order leaves none.
scenario_device_at_hand() {
    fleet 1
    object 8
    ip -n "$TOPOLOGY-server1" tuntap add dev hw0 mode tun
    serve 1 --device offload
    equal "in use" "$(has_offloads)" 'on on'
    kill9 server1
    equal "after a crash" "$(has_offloads)" 'on on'
    serve 1 --device plain
    equal "plain" "$(has_offloads)" 'off off'
    fetch "from a plain device" http://10.77.2.101/object
    stop server1
    serve 1 --device auto
    equal "in use again" "$(has_offloads)" 'on on'
    fetch "from an offloading device" http://10.77.2.101/object
    stop server1
    equal "after the end" "$(has_offloads)" 'off off'
}
has_offloads() {
    in_ns server1 ethtool -k hw0 |
        awk '/^(tcp-segmentation-offload|tx-udp-segmentation):/ { print $2 }' | paste -sd ' '
}

# What serve says when it cannot start.
scenario_serve_errors() {
    local keys
    fleet 1
    keys=$SCRATCH/keys
    expect 118 'empty' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$keys"
    object 1
    expect 118 'no such|not exist|missing' try_serve hw1 10.77.2.150 "$SCRATCH/nowhere" "$keys"
    expect 115 'no such|not exist|missing|keygen' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$SCRATCH/nokeys"
    cp "$keys" "$SCRATCH/open"
    chmod 644 "$SCRATCH/open"
    expect 116 'mode|chmod|permission' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$SCRATCH/open"
    head -c 20 "$keys" >"$SCRATCH/short"
    chmod 600 "$SCRATCH/short"
    expect 117 'key' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$SCRATCH/short"
    expect nonzero 'name' try_serve a-name-too-long-for-linux 10.77.2.150 "$SCRATCH/root" "$keys"
    expect 2 'mtu' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$keys" --mtu 100
    serve 1 --metrics 127.0.0.1:9100
    expect 112 'busy|use' try_serve hw0 10.77.2.150 "$SCRATCH/root" "$keys"
    expect 113 'address|use|route' try_serve hw1 10.77.2.101 "$SCRATCH/root" "$keys"
    expect 119 'metrics|use' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$keys" --metrics 127.0.0.1:9100
    expect 110 'sudo|root|CAP_NET_ADMIN' in_ns server1 setpriv --bounding-set -net_admin \
        --inh-caps -net_admin timeout --foreground 10 "$HEADWATER" serve --tun hw1 --address 10.77.2.150 \
        --root "$SCRATCH/root" --keys "$keys"
    expect 111 '/dev/net/tun' in_ns server1 unshare --mount bash -c \
        "mount -t tmpfs none /dev/net && exec timeout --foreground 10 \"\$@\"" serve "$HEADWATER" serve --tun hw1 \
        --address 10.77.2.150 --root "$SCRATCH/root" --keys "$keys"
    in_ns client ping -c 1 -W 1 10.77.2.101 >/dev/null || fail "the first server no longer answers"
    stop server1
    [[ -z $(ip -n "$TOPOLOGY-server1" link show hw0 2>/dev/null) ]] || fail "a TUN device is left"
    expect 115 'exist' "$HEADWATER" keygen --out "$keys"
}
# try_serve TUN ADDRESS ROOT KEYS [OPTION...]
try_serve() {
    local tun=$1 address=$2 root=$3 keys=$4
    shift 4
    in_ns server1 timeout --foreground 10 "$HEADWATER" serve --tun "$tun" --address "$address" --root "$root" \
        --keys "$keys" "$@"
}

# What get says, and curl's exit codes.
scenario_get_errors() {
    fleet 1
    object 4
    serve 1
    expect 2 '' get_status --no-such-option http://10.77.2.101/
    expect 1 'http' get https://10.77.2.101/object
    expect 3 'url' get 'http://[10.77.2.101/object'
    expect 6 'resolve|host|name' get http://no-such-name.invalid/object
    expect 28 'time' get --connect-timeout 2 http://10.77.2.109/object
    expect 7 'connect|refused' get --transport tcp http://10.77.2.101:81/object
    expect 22 '404' get --fail http://10.77.2.101/nothing
    expect 23 'write|space|directory|permission|file' get -o "$SCRATCH/no/such/place" http://10.77.2.101/object
    rate 8mbit
    expect 28 'time' get --max-time 1 -o "$SCRATCH/partial" http://10.77.2.101/object
    [[ ! -e $SCRATCH/partial ]] || fail "a partial file is presented as whole"
    rate none
    get -C - -o "$SCRATCH/partial" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/partial"
    # What is not a regular file is written to, never replaced.
    mknod "$SCRATCH/null" c 1 3
    get -o "$SCRATCH/null" http://10.77.2.101/object
    [[ -c $SCRATCH/null ]] || fail "a device was replaced by a file"
    get --stats "$SCRATCH/stats" -o "$SCRATCH/range" -r 100-199 http://10.77.2.101/object
    cmp "$SCRATCH/range" <(tail -c +101 "$SCRATCH/root/object" | head -c 100) || fail "wrong range"
    equal "schema of the statistics" "$(stat_of "$SCRATCH/stats" .schema)" 1
    ip -n "$TOPOLOGY-client" addr add 10.77.1.140/32 dev lo
    expect 113 'address' in_ns client timeout --foreground 10 "$HEADWATER" get --tun hw0 \
        --address 10.77.1.140 http://10.77.2.101/object
}
# A usage error is clap's to word: only the status counts.
get_status() {
    local status=0
    get "$@" || status=$?
    echo "headwater: " >&2
    return "$status"
}

# run SCENARIO: in a subshell of its own, whose exit removes its testbed, and in a process group of
# its own, which `interrupted` can end.
# The emulated link between two kernels: delay, loss, an outage, a rate with either queue; what it
# shows, and what it refuses. Bounds leave room for a machine that does other things.
scenario_link() {
    local got
    topology_up path --delay 20ms --seed 1 --metrics 127.0.0.1:9100
    command_link() { "$HEADWATER" link-control "$SCRATCH/link-client-server1" "$@"; }
    shown() { command_link show | jq "$1"; }
    echoes() { in_ns client ping -q "$@" 10.77.21.2 || true; }

    got=$(echoes -c 5 -i 0.1 | sed -n 's|^rtt.* = ||p' | cut -d/ -f1)
    at_least "shortest round trip, ms" "$got" 39.8
    at_most "shortest round trip, ms" "$got" 60

    command_link set both delay=0ms
    command_link set ab loss=30%
    command_link reset
    got=$(echoes -c 400 -i 0.002 -W 1 | sed -n 's/.* \([0-9]*\) received.*/\1/p')
    at_least "echoes of 400 at 30 % loss" "$got" 220
    at_most "echoes of 400 at 30 % loss" "$got" 340
    equal "sent and lost" $((got + $(shown .ab.counters.lost))) 400

    command_link set ab loss=0% outage=0s+1s
    equal "echoes in an outage" "$(echoes -c 3 -i 0.1 -W 0.2 | sed -n 's/.* \([0-9]*\) received.*/\1/p')" 0
    until_true 5 in_ns client ping -q -c 1 -W 1 10.77.21.2 || fail "the outage does not end"
    at_least "lost in the outage" "$(shown .ab.counters.outage)" 3

    start iperf3 server1 iperf3 --server --bind 10.77.21.2
    command_link set both rate=20mbit delay=5ms queue=200ms
    stream
    at_most "Mbit/s over 20 Mbit/s" "$MBITS" 20
    at_least "Mbit/s over 20 Mbit/s" "$MBITS" 8
    at_least "longest wait in a queue of 200 ms, us" "$(shown .ba.sojourn.max_us)" 20000
    command_link set ba aqm=codel/5ms/20ms
    stream
    at_least "dropped by CoDel" "$(shown .ba.counters.codel)" 1

    in_ns client curl -sf -m 5 http://127.0.0.1:9100/metrics >"$SCRATCH/metrics"
    at_least "metrics of drops by CoDel" "$(sed -n \
        's/^headwater_link_dropped_packets_total{direction="ba",cause="codel"} //p' "$SCRATCH/metrics")" 1

    expect 121 "delay: '5' is no time" command_link set ab loss=1% delay=5
    expect 121 "'speed' cannot be set" command_link set both speed=1mbit
    expect 121 "no direction" command_link set loss=1%
    expect 121 "without a rate" command_link set ba rate=none
    equal "loss after refusals" "$(shown .ab.config.loss_ppm)" 0
    expect 120 "is it running" "$HEADWATER" link-control "$SCRATCH/nobody" show
    expect 112 "in use by another" in_ns client "$HEADWATER" link --a server1 --b x
    expect 120 "name another for --control" in_ns client "$HEADWATER" link --a x --b y \
        --control "$SCRATCH/link-client-server1"
}
# stream: the kernel's TCP for a second, server to client; MBITS is its goodput.
stream() {
    command_link reset
    # shellcheck disable=SC2317 # called by name
    listens() { in_ns server1 ss -Hltn 'sport = 5201' | grep -q 5201; }
    until_true 5 listens || fail "iperf3 does not listen"
    in_ns client iperf3 --client 10.77.21.2 --reverse --time 1 --json >"$SCRATCH/iperf3.json"
    MBITS=$(stat_of "$SCRATCH/iperf3.json" '.end.sum_received.bits_per_second / 1e6')
}

run() {
    local name=$1 log status=0 began seconds
    log=$(mktemp)
    began=$(now_ms)
    set -m
    (
        set -euo pipefail
        "scenario_$name"
    ) >"$log" 2>&1 &
    RUNNING=$!
    set +m
    wait "$RUNNING" || status=$?
    RUNNING=
    seconds=$((($(now_ms) - began + 500) / 1000))
    if ((status == 0)); then
        passed=$((passed + 1))
        printf 'ok      %-22s %4d s\n' "$name" "$seconds"
        if [[ -n ${KEEP_LOGS:-} ]]; then sed 's/^/        /' "$log"; fi
    else
        failed=$((failed + 1))
        printf 'FAILED  %-22s %4d s (exit status %d)\n' "$name" "$seconds" "$status"
        tail -n 40 "$log" | sed 's/^/        /'
    fi
    rm -f -- "$log"
}

# An interrupted run takes the running scenario with it, whose own trap cleans up.
interrupted() {
    if [[ -n ${RUNNING:-} ]]; then
        kill -TERM -- "-$RUNNING" 2>/dev/null || true
        wait "$RUNNING" 2>/dev/null || true
    fi
    exit 130
}

main() {
    local name chosen=("$@") passed=0 failed=0
    if [[ ${1:-} == --list ]]; then
        printf '%s\n' "${SCENARIOS[@]}"
        return
    fi
    become_root "$@"
    need ip tc nft jq curl iperf3 tshark python3 ping pgrep setpriv unshare
    [[ -c /dev/net/tun ]] || {
        echo "test-netns.sh: skipped: no /dev/net/tun" >&2
        exit 77
    }
    [[ -x $HEADWATER ]] || die "no $HEADWATER: build it, or name it in HEADWATER"
    ((${#chosen[@]} > 0)) || chosen=("${SCENARIOS[@]}")
    trap interrupted INT TERM HUP
    echo "seed $SEED, large object $OBJECT_MB MB, $HEADWATER"
    for name in "${chosen[@]}"; do
        declare -F "scenario_$name" >/dev/null || die "no scenario '$name': see --list"
        run "$name"
    done
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

main "$@"
