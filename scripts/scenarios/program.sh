# shellcheck shell=bash
#
# The program as its user meets it: metrics, devices, errors. Sourced by test-netns.sh.

# Prometheus text on the server's own loopback: well-formed, moving, nothing about single clients.
scenario_metrics() {
    local name before after
    fleet 1
    object 2M
    serve 1 --metrics 127.0.0.1:9100
    metrics server1 >"$SCRATCH/metrics0"
    get -o "$SCRATCH/got" http://10.77.2.101/object
    in_ns client ping -c 2 -i 0.02 10.77.2.101 >"$SCRATCH/ping"
    # A packet for a port that nobody has is a drop with a reason.
    in_ns client bash -c 'echo x >/dev/udp/10.77.2.101/9'
    metrics server1 | tee "$SCRATCH/metrics1"
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

# Both kinds of TUN device with each other and with the kernel's TCP, over links that carry joined
# packets and over links that do not: the same bytes, and joined where they may be.
scenario_devices() {
    local link server client address packets
    fleet 1
    object 8M
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
# device_packets: packets that the server has written to its device, joined ones counted as one.
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
    object 8M
    for n in 1 2; do queue "$n"; done
    for try in $(seq 16); do
        fetch "download $try" --stats "$SCRATCH/stats" http://10.77.2.101/object
        by=$(jq -c --argjson by "$by" '$by + (.by_server | keys) | unique' "$SCRATCH/stats")
        ((try < 4)) || [[ $by != '["1","2"]' ]] || break
    done
    equal "servers that answered" "$by" '["1","2"]'
    rate 20mbit
    start_get download --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
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
packets_of() { metric server1 headwater_response_packets_total '' "900$1"; }
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

# A device that outlives its program keeps the offloads of a killed process; the next one, plain, must
# not be handed joined packets. A process that ends in order leaves none.
scenario_device_at_hand() {
    fleet 1
    object 8M
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

# The errors of serve at its start.
scenario_serve_errors() {
    local keys
    fleet 1
    keys=$SCRATCH/keys
    expect 118 'empty' try_serve hw1 10.77.2.150 "$SCRATCH/root" "$keys"
    object 1M
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

# The messages of get, and curl's exit codes.
scenario_get_errors() {
    fleet 1
    object 4M
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
    # A device is written to, never replaced.
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
