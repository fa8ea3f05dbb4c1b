# shellcheck shell=bash
#
# Downloads over TCP: of the kernel, as a user without privileges, beside curl; and where our transport falls back
# to it. Sourced by test-netns.sh.

# start_broken: "broken", a server on 10.77.21.2:8080 whose answers break in a way that the path names.
start_broken() {
    start broken server1 python3 -c "
import socket, struct, threading
OK = b'HTTP/1.1 200 OK\r\n'
ANSWERS = {
    b'/whole': OK + b'Content-Length: 5\r\n\r\nwhole',
    b'/short': OK + b'Content-Length: 9\r\n\r\nshort',
    b'/empty': b'',
    b'/reset': OK + b'Content-Length: 9\r\n\r\n',
    b'/chunks': OK + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n' + OK + b'Content-Length: 5\r\n\r\nwrong',
    b'/silent': OK + b'Content-Length: 9\r\n\r\nsil',
}
def client(peer):
    data = b''
    while True:
        while b'\r\n\r\n' not in data:
            more = peer.recv(65536)
            if not more: return
            data += more
        path, data = data.split(b' ')[1], data.split(b'\r\n\r\n', 1)[1]
        peer.sendall(ANSWERS[path])
        if path == b'/reset':
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        if path in (b'/short', b'/empty', b'/reset'):
            return peer.close()
server = socket.create_server(('10.77.21.2', 8080))
print('ready', flush=True)
while True:
    threading.Thread(target=client, args=(server.accept()[0],), daemon=True).start()"
    wait_ready broken 10
}

# Whole files from nginx, as curl gets them, on one connection; a race with 64 descriptors; and the codes of
# curl for each failure.
scenario_kernel_tcp() {
    local dead=10.77.2.112 n path status url
    topology_up pair
    unprivileged
    mkdir "$SCRATCH/root"
    object 20000000
    chmod 755 "$SCRATCH/root"
    start_nginx 1 10.77.21.2 '[fd77:21::2]'
    for url in http://10.77.21.2/object 'http://[fd77:21::2]/object'; do
        in_ns client curl -sS -m 30 -o "$SCRATCH/curl" "$url"
        user_get --transport tcp --stats "$SCRATCH/home/stats" -o "$SCRATCH/home/got" "$url" \
            -o "$SCRATCH/home/got2" "$url"
        identical "$SCRATCH/curl" "$SCRATCH/home/got"
        identical "$SCRATCH/curl" "$SCRATCH/home/got2"
        equal "connections of two files" "$(stat_of "$SCRATCH/home/stats" .connections)" 1
        equal "transport" "$(stat_of "$SCRATCH/home/stats" .transport)" tcp
    done
    user_get --transport tcp -r 100-199 -o "$SCRATCH/home/got" http://10.77.21.2/object
    cmp "$SCRATCH/home/got" <(tail -c +101 "$SCRATCH/root/object" | head -c 100) || fail "wrong range"
    # Ten of eleven addresses are dead, then refuse.
    for n in 113 114 115 116 117 118 119 120 121; do dead+=,10.77.2.$n; done
    USER_RUN=(prlimit --nofile=64 "${USER_RUN[@]}")
    for path in blackhole unreachable; do
        in_ns client ip route replace "$path" 10.77.2.112/28
        for n in paced all; do
            user_get --transport tcp --race "$n" --no-history --stats "$SCRATCH/home/stats" -o "$SCRATCH/home/got" \
                --resolve "many:80:$dead,10.77.21.2" http://many/object
            identical "$SCRATCH/curl" "$SCRATCH/home/got"
            equal "attempts" "$(stat_of "$SCRATCH/home/stats" .connections)" 11
        done
    done
    expect 7 'failed to connect' user_get --transport tcp --resolve "many:80:$dead" http://many/object
    start_broken
    for path in short:18 empty:52 reset:56 silent:28; do
        status=0
        in_ns client curl -s -m 1 -o /dev/null "http://10.77.21.2:8080/${path%:*}" || status=$?
        equal "curl's exit status for /${path%:*}" "$status" "${path#*:}"
        expect "$status" '' user_get --transport tcp -m 1 -o "$SCRATCH/home/no" "http://10.77.21.2:8080/${path%:*}"
    done
    expect 28 'timed out' user_get --transport tcp --idle-timeout 0.5 -o "$SCRATCH/home/no" http://10.77.21.2:8080/silent
    expect 7 'failed to connect' user_get --transport tcp http://10.77.21.2:81/
    expect 22 404 user_get --transport tcp -f http://10.77.21.2/nothing
    expect 6 'resolve' user_get --transport tcp http://no-such-name.invalid/
    # The rest of a broken response is not taken for the next one.
    url=http://10.77.21.2:8080
    expect 8 'not HTTP' user_get --transport tcp -o "$SCRATCH/home/no" "$url/chunks" -o "$SCRATCH/home/got" "$url/whole"
    equal "the next response" "$(cat "$SCRATCH/home/got")" whole
}

# filter VERDICT: the router does this with packets of our transport; `none` ends it.
filter() {
    in_ns nat nft 'table inet filter; delete table inet filter'
    [[ $1 == none ]] || in_ns nat nft "table inet filter {
        chain forward { type filter hook forward priority 0; meta l4proto udp th dport 7600 counter $1; }
    }"
}

# auto_get LABEL TRICKLES TCP HISTORY_OPTION...: a download without a word on the transport, which takes these
# numbers of attempts over each.
auto_get() {
    local label=$1 trickles=$2 tcp=$3
    shift 3
    in_ns client timeout 60 "${USER_RUN[@]}" get -sSv --stats "$SCRATCH/home/stats" \
        -o "$SCRATCH/home/got" "$@" http://10.77.30.2:8080/object 2>"$SCRATCH/get.err" ||
        fail "$label: exit status $?: $(cat "$SCRATCH/get.err")"
    identical "$SCRATCH/home/root/object" "$SCRATCH/home/got"
    equal "$label: attempts" "$(stat_of "$SCRATCH/home/stats" '.attempts | "\(.trickles) \(.tcp)"')" "$trickles $tcp"
    echo "$label: $(stat_of "$SCRATCH/home/stats" '.ttfb_seconds * 1000 | round') ms to the first byte"
}

# A middlebox drops or rejects our transport: TCP of the kernel, then of the stack, carries the download; the next run on
# this network tries TCP first, one on another network does not.
scenario_fallback() {
    local first remember
    topology_up nat --delay 10ms
    unprivileged
    user_object 100000
    remember=(--history "$SCRATCH/home/history")
    user_serve server1 --listen-tcp 10.77.30.2:8080
    auto_get "open" 1 0 "${remember[@]}"
    equal "transport" "$(stat_of "$SCRATCH/home/stats" '.urls[0].transport')" trickles
    filter drop
    auto_get "dropped" 1 1 --no-history
    equal "transport" "$(stat_of "$SCRATCH/home/stats" '.urls[0].transport')" tcp
    grep -q 'no byte in 100ms; trying tcp' "$SCRATCH/get.err" || fail "no reason: $(cat "$SCRATCH/get.err")"
    first=$(stat_of "$SCRATCH/home/stats" '.ttfb_seconds * 1000 | round')
    # 100 ms, and two round trips of 20 ms; the rest is for a busy machine.
    at_least "ms to the first byte" "$first" 140
    at_most "ms to the first byte" "$first" 440
    # One silence may be a lost packet where the transport has answered before.
    auto_get "dropped, remembered" 1 1 "${remember[@]}"
    auto_get "dropped, again" 1 1 "${remember[@]}"
    auto_get "dropped, twice" 0 1 "${remember[@]}"
    rm -- "$SCRATCH/home/history"
    auto_get "dropped, nothing known" 1 1 "${remember[@]}"
    auto_get "dropped, known" 0 1 "${remember[@]}"
    grep -q 'TCP first' "$SCRATCH/get.err" || fail "no reason: $(cat "$SCRATCH/get.err")"
    # Another own prefix is another network.
    ip -n "$TOPOLOGY-client" addr add 10.77.99.1/32 dev lo
    ip -n "$TOPOLOGY-nat" route add 10.77.99.1/32 via 10.77.11.2
    ip -n "$TOPOLOGY-client" route replace default via 10.77.11.1 src 10.77.99.1
    auto_get "another network" 1 1 "${remember[@]}"
    ip -n "$TOPOLOGY-client" route replace default via 10.77.11.1
    filter reject
    auto_get "rejected" 1 1 --no-history
    at_most "ms to the first byte" "$(stat_of "$SCRATCH/home/stats" '.ttfb_seconds * 1000 | round')" 400
    filter none
    auto_get "open, remembered" 0 1 "${remember[@]}"
    rm -- "$SCRATCH/home/history"
    auto_get "open, forgotten" 1 0 "${remember[@]}"
    # Both transports refuse, then both are silent.
    stop server1
    in_ns client "${USER_RUN[@]}" get --no-history -sS http://10.77.30.2:8080/ 2>"$SCRATCH/get.err" && fail "no server"
    grep -Eq '10.77.30.2:7600 failed after .*10.77.30.2:8080 failed after' "$SCRATCH/get.err" || fail "$(cat "$SCRATCH/get.err")"
    in_ns nat nft 'table inet filter { chain forward { type filter hook forward priority 0; drop; }; }'
    expect 28 '10.77.30.2:7600: no answer, 10.77.30.2:8080: no answer' in_ns client "${USER_RUN[@]}" get --no-history \
        -sS --connect-timeout 1 http://10.77.30.2:8080/
}

# The same over a TUN device, where TCP is that of the stack; a server that dies in mid-download is awaited over our
# transport.
scenario_fallback_tun() {
    fleet 1
    object 30M
    serve 1
    in_ns router nft 'table inet filter { chain forward { type filter hook forward priority 0; udp dport 7600 drop; }; }'
    get --transport auto --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "attempts" "$(stat_of "$SCRATCH/stats" '.attempts | "\(.trickles) \(.tcp)"')" "1 1"
    equal "transport" "$(stat_of "$SCRATCH/stats" .transport)" tcp
    in_ns router nft 'delete table inet filter'
    rate 80mbit
    start_get download --transport auto --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    follow download
    has_received 5000000
    kill9 server1
    sleep 1
    serve 1
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "attempts" "$(stat_of "$SCRATCH/stats" '.attempts | "\(.trickles) \(.tcp)"')" "1 0"
}
