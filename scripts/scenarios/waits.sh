# shellcheck shell=bash
#
# Readers, commands, resolvers and devices that keep a program waiting, and peers and files that are
# odd: nothing may stop the loop but the end of the program. Sourced by test-netns.sh.

# ends_soon NAME: SIGTERM ends it within three seconds.
ends_soon() {
    local name=$1
    kill -TERM "${TOPOLOGY_PIDS[$name]}"
    # shellcheck disable=SC2317 # called by name
    is_over() { ! running "$name"; }
    until_true 3 is_over || fail "$name is alive three seconds after SIGTERM"
    finish "$name" || echo "$name: exit status $?"
}

# stalls FIFO: a reader that opens the FIFO, takes 2000 bytes and then nothing.
stalls() {
    rm -f "$1"
    mkfifo "$1"
    # shellcheck disable=SC2016 # expanded by the other shell
    start reader client bash -c 'exec 3<"$1"; head -c 2000 <&3 >/dev/null; sleep 600' stalls "$1"
}

# A capture into a FIFO: without a reader, with one that stalls, with one that reads all.
scenario_stalled_captures() {
    local fifo
    fleet 1
    fifo=$SCRATCH/fifo
    object 24M
    stalls "$fifo"
    serve 1 --pcap "$fifo" --metrics 127.0.0.1:9100
    get -o "$SCRATCH/got" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    in_ns client ping -c 1 -W 2 10.77.2.101 || fail "no echo"
    at_least "packets lost to the capture" "$(metric server1 headwater_capture_lost_packets_total)" 1000
    ends_soon server1
    grep 'missing in the capture' "$SCRATCH/server1.err" || fail "the losses are not logged"
    end_pids "${TOPOLOGY_PIDS[reader]}"

    rm -f "$fifo"
    mkfifo "$fifo"
    serve 1 --pcap "$fifo"
    rm -f "$SCRATCH/client"
    mkfifo "$SCRATCH/client"
    get --pcap "$SCRATCH/client" -o "$SCRATCH/got" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    ends_soon server1

    cat "$fifo" >"$SCRATCH/whole" &
    serve 1 --pcap "$fifo" --metrics 127.0.0.1:9100
    in_ns client curl -sf -m 20 --limit-rate 20M -o "$SCRATCH/got" http://10.77.2.101/object
    equal "lost to a reader" "$(metric server1 headwater_capture_lost_packets_total)" 0
    ends_soon server1
    wait $!
    tshark -r "$SCRATCH/whole" 2>/dev/null | tail -1 | grep -q . || fail "an unreadable capture"

    stalls "$fifo"
    start link client "$HEADWATER" link --a hwa --b hwb --pcap "$fifo"
    wait_ready link 10
    ip -n "$TOPOLOGY-client" addr add 10.99.0.1/24 dev hwa
    in_ns client timeout 3 ping -q -f -s 1400 10.99.0.2 || true
    ends_soon link
}

# FIFOs as output and for statistics: signals and --max-time end the wait for a reader; a reader that
# comes late gets everything.
scenario_fifos() {
    local signal
    fleet 1
    object 1M
    : >"$SCRATCH/root/empty"
    serve 1
    mkfifo "$SCRATCH/out" "$SCRATCH/stats"
    for signal in INT TERM; do
        start wait client "$HEADWATER" get --tun hw0 --address 10.77.1.100 -sS -o "$SCRATCH/out" http://10.77.2.101/object
        sleep 0.7
        running wait || fail "it does not wait for a reader"
        kill "-$signal" "${TOPOLOGY_PIDS[wait]}"
        # shellcheck disable=SC2317 # called by name
        is_over() { ! running wait; }
        until_true 2 is_over || fail "SIG$signal does not end it"
        finish wait && fail "success"
    done
    expect 28 'timed out' get -m 1 -o "$SCRATCH/out" http://10.77.2.101/object
    expect 28 'no reader' get -m 1 --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    start_get wait --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    # shellcheck disable=SC2317 # called by name
    is_got() { cmp -s "$SCRATCH/root/object" "$SCRATCH/got"; }
    until_true 5 is_got || fail "no object"
    sleep 0.3
    kill -TERM "${TOPOLOGY_PIDS[wait]}"
    # shellcheck disable=SC2317 # called by name
    is_over() { ! running wait; }
    until_true 2 is_over || fail "SIGTERM does not end the wait for a reader of the statistics"
    finish wait || true
    for object in object empty; do
        start_get late --stats "$SCRATCH/stats" -o "$SCRATCH/out" "http://10.77.2.101/$object"
        sleep 0.5
        timeout 10 cat "$SCRATCH/out" >"$SCRATCH/got" || fail "nothing for a late reader"
        timeout 10 cat "$SCRATCH/stats" >"$SCRATCH/json" || fail "no statistics for a late reader"
        finish late || fail "exit status $?"
        identical "$SCRATCH/root/$object" "$SCRATCH/got"
        equal "exit in the statistics" "$(jq .exit "$SCRATCH/json")" 0
    done
}

# An announce command that hangs when it should withdraw, and one that hangs when it should announce.
scenario_announce_hangs() {
    fleet 1
    object 1M
    # shellcheck disable=SC2016 # expanded by the shell of the command
    serve 1 --announce --announce-command "echo \$1 >>$SCRATCH/told; [ \$1 = up ] || exec sleep 600"
    for _ in 1 2 3; do
        kill -USR1 "${TOPOLOGY_PIDS[server1]}"
        sleep 0.3
        kill -USR2 "${TOPOLOGY_PIDS[server1]}"
        sleep 1.3
    done
    get -m 5 -o "$SCRATCH/got" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    kill -USR1 "${TOPOLOGY_PIDS[server1]}"
    # shellcheck disable=SC2317 # called by name
    is_retried() { (($(grep -c down "$SCRATCH/told") >= 2)); }
    until_true 20 is_retried || fail "the withdrawal is not tried again"
    # shellcheck disable=SC2317 # called by name
    is_logged() { grep 'was killed' "$SCRATCH/server1.err"; }
    until_true 10 is_logged || fail "no log line"
    ends_soon server1
    [[ -z $(ip netns pids "$TOPOLOGY-server1") ]] || fail "a command is left"

    rm "$SCRATCH/told"
    serve 1 --announce-command "echo \$1 >>$SCRATCH/told; [ \$1 = down ] || exec sleep 600"
    # shellcheck disable=SC2317 # called by name
    is_told() { [[ $(paste -sd ' ' "$SCRATCH/told") == "$1" ]]; }
    until_true 5 is_told up || fail "not announced"
    kill -USR1 "${TOPOLOGY_PIDS[server1]}"
    until_true 2 is_told 'up down' || fail "the withdrawal waits for the announcement"
    ends_soon server1
}

# A device that is set down and up has its routes again, on both ends of a download that goes on; an
# address that is withdrawn meanwhile has none.
scenario_device_down() {
    fleet 1
    object 8M
    serve 1 --announce
    # shellcheck disable=SC2317 # called by name
    has_routes() {
        [[ -n $(ip -n "$TOPOLOGY-$1" route show dev hw0) && -n $(ip -n "$TOPOLOGY-$1" -6 route show dev hw0) ]]
    }
    rate 8mbit
    start_get download --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    sleep 1
    for role in server1 client; do
        ip -n "$TOPOLOGY-$role" link set hw0 down
        sleep 0.5
        ! has_routes "$role" || fail "$role: a device that is down has routes"
        ip -n "$TOPOLOGY-$role" link set hw0 up
        until_true 2 has_routes "$role" || fail "$role: no routes"
        sleep 0.5
    done
    rate none
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    grep 'hw0 is up again' "$SCRATCH/server1.err" || fail "no log line"
    kill -USR1 "${TOPOLOGY_PIDS[server1]}"
    # shellcheck disable=SC2317 # called by name
    is_withdrawn() { ! has_routes server1; }
    until_true 2 is_withdrawn || fail "not withdrawn"
    ip -n "$TOPOLOGY-server1" link set hw0 down
    ip -n "$TOPOLOGY-server1" link set hw0 up
    sleep 1
    is_withdrawn || fail "a withdrawn address has a route again"
    kill -USR2 "${TOPOLOGY_PIDS[server1]}"
    until_true 5 has_routes server1 || fail "not announced again"
}

# A device of several queues whose first user has another form of packets is refused; the capability
# to administer the network suffices without root, and without the program `ip`.
scenario_foreign_queue() {
    fleet 1
    object 1M
    start holder server1 python3 -c "
import fcntl, os, struct, time
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'hw9', 0x1 | 0x1000 | 0x100))
print('ready', flush=True)
time.sleep(600)"
    wait_ready holder 10
    expect 112 'virtio headers' in_ns server1 timeout --foreground 10 "$HEADWATER" serve --tun hw9 --multi-queue \
        --address 10.77.2.150 --root "$SCRATCH/root" --keys "$SCRATCH/keys"
    ip -n "$TOPOLOGY-server1" link show hw9 >/dev/null || fail "the other program lost its device"
    stop holder
    cp "$HEADWATER" "$SCRATCH/capable"
    setcap cap_net_admin=ep "$SCRATCH/capable"
    cp "$SCRATCH/keys" "$SCRATCH/nobody"
    chown 65534 "$SCRATCH/nobody"
    chmod 755 "$SCRATCH" "$SCRATCH/root" "$SCRATCH/capable"
    chmod 644 "$SCRATCH/root/object"
    # shellcheck disable=SC2016 # expanded by the other shell
    start server1 server1 unshare --mount bash -c 'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 &&
        exec setpriv --reuid 65534 --regid 65534 --clear-groups env PATH=/nonexistent "$@"' sh \
        "$SCRATCH/capable" serve --tun hw0 --address 10.77.2.101 --root "$SCRATCH/root" --keys "$SCRATCH/nobody"
    wait_ready server1
    get -o "$SCRATCH/got" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    stop server1
}

# Names by a server of the DNS that answers for one name and is silent about the rest.
scenario_look_ups() {
    fleet 1
    object 1M
    serve 1
    start dns server1 python3 -c "
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('10.77.21.2', 53))
print('ready', flush=True)
while True:
    query, peer = server.recvfrom(1500)
    if query[12:].startswith(bytes([5]) + b'files' + bytes([4]) + b'test'):
        end = query.index(0, 12) + 5
        wants_v4 = query[end - 4:end - 2] == bytes([0, 1])
        answer = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 77, 2, 101]) if wants_v4 else b''
        head = query[:2] + bytes([0x81, 0x80, 0, 1, 0, len(answer) // 16, 0, 0, 0, 0])
        server.sendto(head + query[12:end] + answer, peer)"
    wait_ready dns 10
    echo 'nameserver 10.77.21.2' >"$SCRATCH/resolv.conf"
    # shellcheck disable=SC2016 # expanded by the other shell
    resolving() {
        in_ns client unshare --mount bash -c 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"' sh \
            "$SCRATCH/resolv.conf" timeout --foreground 60 "$HEADWATER" get --tun hw0 --address 10.77.1.100 -sS "$@"
    }
    resolving -o "$SCRATCH/got" http://files.test/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    local before
    before=$(now_ms)
    expect 28 'timed out' resolving -m 1 -o "$SCRATCH/got" http://silent.test/object
    expect 28 'timed out' resolving --connect-timeout 1 -o "$SCRATCH/got" http://silent.test/object
    at_most "ms for both" "$(($(now_ms) - before))" 4500
    # One that is not answered delays neither the next nor the end.
    resolving --connect-timeout 1 -o "$SCRATCH/no" http://silent.test/object -o "$SCRATCH/got" http://files.test/object 2>/dev/null &&
        fail "a silent name is found"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    resolving -o "$SCRATCH/got" http://silent.test/object 2>"$SCRATCH/silent.err" &
    sleep 1
    kill -INT "$(pgrep -f "^$HEADWATER get .*silent.test" | head -1)"
    before=$(now_ms)
    wait $! || equal "exit status" "$?" 130
    at_most "ms until SIGINT ends it" "$(($(now_ms) - before))" 2000
}

# Responses of other servers that curl takes: folded fields, codes above 599, many fields, long ones,
# locations in Latin-1, and a URL in the query of one without a scheme.
scenario_odd_responses() {
    local path
    fleet 1
    start odd server1 python3 -c "
import socket, threading
BODY = bytes(range(256)) * 40
LENGTH = b'Content-Length: %d\r\n' % len(BODY)
def answer(path):
    kind, _, count = path.strip('/').partition('/')
    fields = {'folded': b'X: a;\r\n b;\r\n\tc\r\n', 'many': b'Set-Cookie: a=b\r\n' * int(count or 0),
              'long': b'X: ' + b'x' * int(count or 0) + b'\r\n'}
    if kind == 'latin1': return b'HTTP/1.1 302 Found\r\nLocation: /caf\xe9\r\nContent-Length: 0\r\n\r\n'
    status = b'999 Denied' if kind == '999' else b'200 OK'
    return b'HTTP/1.1 ' + status + b'\r\n' + fields.get(kind, b'') + LENGTH + b'\r\n' + BODY
def client(peer):
    data = b''
    while b'\r\n\r\n' not in data:
        data += peer.recv(65536)
    peer.sendall(answer(data.split(b' ')[1].split(b'?')[0].decode('latin-1')))
    peer.close()
server = socket.create_server(('10.77.21.2', 8080))
print('ready', flush=True)
while True:
    threading.Thread(target=client, args=(server.accept()[0],), daemon=True).start()"
    wait_ready odd 10
    for path in /plain /folded /999 /many/64 /many/4000 /long/17000 /long/99000 /latin1 '/plain?u=http://x/'; do
        rm -f "$SCRATCH/got" "$SCRATCH/curl"
        in_ns client curl -sSL -m 10 -o "$SCRATCH/curl" "10.77.21.2:8080$path" || fail "curl $path: $?"
        get -L -m 10 --transport tcp -o "$SCRATCH/got" "10.77.21.2:8080$path" || fail "$path: exit status $?"
        identical "$SCRATCH/curl" "$SCRATCH/got"
        echo "$path"
    done
    expect 8 'too many fields' get -m 10 --transport tcp -o "$SCRATCH/got" 10.77.21.2:8080/many/6000
    expect 8 'too long' get -m 10 --transport tcp -o "$SCRATCH/got" 10.77.21.2:8080/long/400000
}

# Outputs with the longest names, and onto a mount point, which cannot be replaced: bodies, statistics
# and tokens.
scenario_output_names() {
    local name length place
    fleet 1
    object 1M
    serve 1
    mkdir "$SCRATCH/out"
    for length in 250 251 255; do
        name=$(printf 'n%.0s' $(seq "$length"))
        get -o "$SCRATCH/out/$name" http://10.77.2.101/object
        identical "$SCRATCH/root/object" "$SCRATCH/out/$name"
        get --stats "$SCRATCH/out/$name" --tokens "$SCRATCH/out/${name/n/t}" -o "$SCRATCH/got" http://10.77.2.101/object
        equal "exit in the statistics" "$(stat_of "$SCRATCH/out/$name" .exit)" 0
    done
    rate 8mbit
    expect 28 'time' get -m 0.5 -o "$SCRATCH/out/$name" http://10.77.2.101/object
    rate none
    get -C - -o "$SCRATCH/out/$name" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/out/$name"
    equal "files" "$(find "$SCRATCH/out" -type f | wc -l)" 6
    for place in body stats tokens; do
        : >"$SCRATCH/source-$place"
        : >"$SCRATCH/$place"
    done
    # shellcheck disable=SC2016 # expanded by the other shell
    in_ns client unshare --mount bash -c '
        for place in body stats tokens; do mount --bind "$1/source-$place" "$1/$place"; done
        shift; exec "$@"' sh "$SCRATCH" "$HEADWATER" get --tun hw0 --address 10.77.1.100 -sS \
        --stats "$SCRATCH/stats" --tokens "$SCRATCH/tokens" -o "$SCRATCH/body" http://10.77.2.101/object
    identical "$SCRATCH/root/object" "$SCRATCH/source-body"
    equal "exit in the statistics" "$(stat_of "$SCRATCH/source-stats" .exit)" 0
    grep -q '^10.77.1.100 ' "$SCRATCH/source-tokens" || fail "no token"
    [[ ! -e $SCRATCH/body.part ]] || fail "a part is left"
}
