# shellcheck shell=bash
#
# Transfers of all kinds and numbers. Sourced by test-netns.sh.

scenario_ping() {
    fleet 1
    object 1M
    serve 1
    in_ns client ping -c 20 -i 0.02 -W 1 10.77.2.101 | tee "$SCRATCH/ping4"
    in_ns client ping -c 20 -i 0.02 -W 1 fd77:2::101 | tee "$SCRATCH/ping6"
    in_ns client ping -c 3 -i 0.02 -W 1 -s 1400 10.77.2.101
    grep -q ' 0% packet loss' "$SCRATCH/ping4" || fail "lost pings on IPv4"
    grep -q ' 0% packet loss' "$SCRATCH/ping6" || fail "lost pings on IPv6"
}

# A host with eleven addresses, of which one serves: the request is answered by that one, each dead address is sent
# OPENs only, and an attempt that loses to another leaves nothing at its server.
scenario_races() {
    local dead=10.77.2.111 n protocol pace stats
    fleet 2
    stats=$SCRATCH/stats.json
    object 1M
    serve 1
    serve 2
    for n in 112 113 114 115 116 117 118 119 120; do
        dead+=,10.77.2.$n
    done
    in_ns router ip route add blackhole 10.77.2.112/28
    for protocol in trickles tcp; do
        for pace in paced all; do
            get -o "$SCRATCH/got" http://many/object --transport "$protocol" --race "$pace" --stats "$stats" \
                --resolve "many:80:$dead,10.77.2.101"
            identical "$SCRATCH/root/object" "$SCRATCH/got"
            equal "attempts" "$(jq .connections "$stats")" 11
        done
    done
    get -o "$SCRATCH/got" http://many/object --race all --stats "$stats" \
        --resolve "many:80:fd77:2::101,10.77.2.102,10.77.2.101" -6
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "attempts of one family" "$(jq .connections "$stats")" 1
    get -o "$SCRATCH/got" http://many/object --race all --stats "$stats" --resolve "many:80:10.77.2.101,10.77.2.102"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "attempts" "$(jq .connections "$stats")" 2
    # The winner dies; a server at another address goes on.
    object 60M
    start_get download -o "$SCRATCH/got" http://many/object --stats "$stats" \
        --resolve "many:80:10.77.2.101,10.77.2.112,10.77.2.102"
    follow download
    has_received 10000000
    kill9 server1
    finish download || fail "the download failed: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "handshakes" "$(jq .handshakes "$stats")" 1
    equal "switches" "$(jq .switches "$stats")" 1
    echo "longest stall: $(jq .longest_stall_ms "$stats") ms"
    expect 28 '10.77.2.112:7600: no answer, 10.77.2.113:7600: no answer' in_ns client "$HEADWATER" get --tun hw1 \
        --address 10.77.1.100 --connect-timeout 1 -sS --resolve many:80:10.77.2.112,10.77.2.113 http://many/
}

# Plain curl over the kernel's TCP reaches the same files.
scenario_curl_over_tcp() {
    local out base=http://10.77.2.101 path tag
    fleet 1
    out=$SCRATCH/out
    object 3M
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
    object 1M
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
    object "${size}M"
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
    object 4M
    serve 1
    for i in $(seq 64); do
        start "get$i" client timeout --foreground 120 "$HEADWATER" get --transport trickles --tun "c$i" \
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
    object 4M
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
    expect 7 'no download started' in_ns client "$HEADWATER" load --tun hw0 --address 10.77.1.100 \
        --connections 2 --download 1 --stats "$stats" http://10.77.2.102/object
}

# Requests on connections of their own, by all that can carry them, and on kept connections.
scenario_bench() {
    local stats common
    fleet 1
    stats="$SCRATCH/stats"
    object 10000
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
    expect 2 'set --tun' in_ns client "$HEADWATER" bench requests --seconds 1 \
        --peer kernel=http://10.77.21.2/object --peer transport=http://10.77.2.101/object
    expect 7 'no response over transport' in_ns client "$HEADWATER" bench requests \
        "${common[@]}" --seconds 1 --peer transport=http://10.77.2.102/object
}

# A reader that takes 1 Mb/s for four seconds, then all it can get: the client requests no more than its
# buffer holds, answers and measures meanwhile, and has lost no pace when the reader hurries.
scenario_slow_reader() {
    local sampled rss=0 received
    fleet 1
    object 12M
    serve 1
    rate 100mbit
    mkfifo "$SCRATCH/pipe"
    # shellcheck disable=SC2016 # for the inner shell
    start reader client bash -c 'exec scripts/lab.sh probe slow-reader 4 125000 "$1" <"$0"' \
        "$SCRATCH/pipe" "$SCRATCH/got"
    # shellcheck disable=SC2016 # for the inner shell
    start download client bash -c 'exec "$@" >"$0"' "$SCRATCH/pipe" "$HEADWATER" get --transport trickles --tun hw0 \
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

# The course of a race as text, JSON and a picture, and the memory of it; ways to connect side by side.
scenario_race_command() {
    local all out history way
    topology_up addresses 10ms 10ms 10ms
    out=$SCRATCH/out history=$SCRATCH/history
    content 1000
    dead "$(address 1)"
    start serve server1 "$HEADWATER" serve --listen "$(address 2):7600" --listen "$(address 3):7600" \
        --listen-tcp "$(address 2):8080" --listen-tcp "$(address 3):8080" --keys "$SCRATCH/keys" --root "$SCRATCH/root"
    wait_ready serve
    all=files:8080:$(addresses 1 2 3)
    race() { in_ns client "$HEADWATER" race --resolve "$all" --history "$history" "$@" files:8080; }
    race --explain --svg "$SCRATCH/race.svg" >"$out"
    cat "$out"
    grep -Eq "^\*  $(address 2):7600 +trickles .* answered" "$out" || fail "the winner is not shown"
    grep -Eq "^   $(address 1):7600 +trickles .* lost" "$out" || fail "the dead address is not shown"
    python3 -c 'import sys, xml.dom.minidom as x; assert len(x.parse(sys.argv[1]).getElementsByTagName("rect")) >= 3' \
        "$SCRATCH/race.svg"
    equal "mode of the history" "$(stat -c %a "$history")" 600
    race --json >"$out"
    equal "the first address now" "$(jq -r '.attempts[0].address' "$out")" "$(address 2):7600"
    equal "attempts" "$(jq '[.attempts[] | select(.start_ms != null)] | length' "$out")" 1
    dead "$(address 1)" "$(address 2)" "$(address 3)"
    expect 28 "$(address 3):7600: no answer" race --connect-timeout 1
    dead
    in_ns client "$HEADWATER" bench connect --samples 3 --stats "$out" --resolve "$all" files:8080
    for way in race random plain he paced; do
        equal "samples of $way" "$(jq "[.peers[] | select(.way == \"$way\") | .samples] | add" "$out")" 6
    done
    in_ns client "$HEADWATER" bench fetch --samples 2 --way race --over trickles --resolve "$all" files:8080/object
}
