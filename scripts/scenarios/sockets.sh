# shellcheck shell=bash
#
# Servers and clients over UDP sockets of the kernel, as a user without privileges. Sourced by
# test-netns.sh.

# user_object SIZE: random bytes below that user's root.
user_object() { head -c "$1" /dev/urandom >"$SCRATCH/home/root/object"; }

# user_serve NAME OPTION...: a server of that user on server1, which is awaited.
user_serve() {
    local name=$1
    shift
    start "$name" server1 "${USER_RUN[@]}" serve --listen 10.77.30.2:7600 \
        --listen '[fd77:30::2]:7600' --root "$SCRATCH/home/root" "$@"
    wait_ready "$name"
}

# user_get ARGUMENT...: a client of that user; start_user_get NAME ARGUMENT... the same in the background.
user_get() {
    in_ns client timeout --foreground "${GET_SECONDS:-120}" "${USER_RUN[@]}" get --transport trickles -sS "$@"
}
start_user_get() {
    local name=$1
    shift
    start "$name" client timeout --foreground "${GET_SECONDS:-120}" "${USER_RUN[@]}" get --transport trickles -sS "$@"
}

# part_has FILE BYTES: whether a download has written that many bytes.
part_has() { (($(stat -c %s "$1.part" 2>/dev/null || echo 0) >= $2)); }

# Through a NAT and a link that loses 2 % each way, with a server that is killed and a NAT that forgets:
# identical bytes over IPv4 and IPv6, and no privileges at either end.
scenario_sockets() {
    local host got
    topology_up nat --loss 2%
    unprivileged
    user_object 100000000
    expect 110 "CAP_NET_ADMIN|root" user_get --tun hw0 --address 10.77.1.100 http://10.77.30.2/object
    user_serve server1
    equal "mode of the key file" "$(stat -c %a "$SCRATCH/home/.local/state/headwater/keys")" 600
    equal "mode of its directory" "$(stat -c %a "$SCRATCH/home/.local/state/headwater")" 700
    for host in 10.77.30.2 '[fd77:30::2]'; do
        got="$SCRATCH/home/got"
        start_user_get download --stats "$SCRATCH/home/stats" -o "$got" "http://$host/object"
        until_true 60 part_has "$got" 20000000 || fail "no 20 MB: $(cat "$SCRATCH/download.err")"
        kill9 server1
        sleep 0.5
        user_serve server1
        until_true 60 part_has "$got" 50000000 || fail "no 50 MB: $(cat "$SCRATCH/download.err")"
        nat_rebind
        finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
        identical "$SCRATCH/home/root/object" "$got"
        equal "handshakes" "$(stat_of "$SCRATCH/home/stats" .handshakes)" 1
        at_least "losses" "$(stat_of "$SCRATCH/home/stats" .lost)" 100
        jq -c '{seconds, lost, timeouts, longest_stall_ms}' "$SCRATCH/home/stats"
        rm -- "$got"
    done
    stop server1
    # The kernel of the server reports a closed port.
    for host in 10.77.30.2 '[fd77:30::2]'; do
        GET_SECONDS=10 expect 7 "failed to connect" user_get "http://$host/object"
    done
    # This host has no route to others.
    expect 7 "failed to connect" in_ns server1 timeout 10 "${USER_RUN[@]}" get -sS http://192.0.2.1/
}

# Plain HTTP over the kernel's TCP: whole files, requests on one connection, a crowd beyond the places and
# the descriptors, and the end by SIGTERM.
scenario_sockets_tcp() {
    local url=http://10.77.21.2:8080/object crowd
    topology_up pair
    unprivileged
    user_object 30000000
    start server1 server1 prlimit --nofile=128 "${USER_RUN[@]}" serve --listen 10.77.21.2:7600 \
        --listen-tcp 10.77.21.2:8080 --listen-tcp '[fd77:21::2]:8080' --root "$SCRATCH/home/root" \
        --metrics 127.0.0.1:9100
    wait_ready server1
    in_ns client curl -sS -m 30 -o "$SCRATCH/got" "$url"
    identical "$SCRATCH/home/root/object" "$SCRATCH/got"
    in_ns client curl -sS -m 30 -o "$SCRATCH/got" 'http://[fd77:21::2]:8080/object'
    identical "$SCRATCH/home/root/object" "$SCRATCH/got"
    in_ns client curl -sS -m 30 -r 100-199 -o "$SCRATCH/got" "$url" -o "$SCRATCH/got2" "$url"
    equal "bytes of a range" "$(stat -c %s "$SCRATCH/got2")" 100
    equal "connections of two requests" "$(metric server1 headwater_tcp_accepted_total)" 3
    # 300 silent peers at a process with 128 descriptors: those without progress make room.
    start crowd client python3 -c "import socket, time
held = [socket.create_connection(('10.77.21.2', 8080)) for _ in range(300)]
print('ready', flush=True)
time.sleep(60)"
    wait_ready crowd
    in_ns client curl -sS -m 30 -o "$SCRATCH/got" --retry 5 --retry-all-errors "$url"
    identical "$SCRATCH/home/root/object" "$SCRATCH/got"
    at_least "connections that made room" "$(metric server1 headwater_tcp_evictions_total)" 150
    in_ns client timeout 60 "${USER_RUN[@]}" get -sS -o "$SCRATCH/home/got" http://10.77.21.2/object
    identical "$SCRATCH/home/root/object" "$SCRATCH/home/got"
    stop crowd
    # A download in progress ends within two seconds, unless the kernel has all of its bytes.
    start download client curl -sS --limit-rate 1M -o /dev/null \
        http://10.77.21.2:8080/.dynamic/1/4000000000
    sleep 0.5
    crowd=$(now_ms)
    kill -TERM "${TOPOLOGY_PIDS[server1]}"
    finish server1 || fail "exit status $?: $(cat "$SCRATCH/server1.err")"
    at_most "ms to the end" "$(($(now_ms) - crowd))" 4000
    ! finish download || fail "a download outlived its server"
}

# Two processes of one port: while one is away, the other serves.
scenario_sockets_shared() {
    local name
    topology_up nat --rate 200mbit
    unprivileged
    user_object 1000
    for name in 1 2; do user_serve "server$name" --multi-queue --server-id "$name"; done
    start_user_get download --stats "$SCRATCH/home/stats" -o /dev/null \
        http://10.77.30.2/.dynamic/1/150000000
    sleep 1
    for name in 1 2; do
        kill9 "server$name"
        sleep 1
        user_serve "server$name" --multi-queue --server-id "$name"
        sleep 0.5
    done
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    equal "servers" "$(jq -c '.by_server | keys' "$SCRATCH/home/stats")" '["1","2"]'
    equal "handshakes" "$(stat_of "$SCRATCH/home/stats" .handshakes)" 1
}

# A large file, over the transport through a restart of its server, and over TCP.
scenario_sockets_large() {
    local bytes=${OBJECT_MB}000000
    topology_up pair
    unprivileged
    user_object "$bytes"
    large_serve() {
        start server1 server1 "${USER_RUN[@]}" serve --listen 10.77.21.2:7600 --listen-tcp 10.77.21.2:8080 \
            --root "$SCRATCH/home/root"
        wait_ready server1
    }
    large_serve
    start_user_get download --stats "$SCRATCH/home/stats" -o "$SCRATCH/home/got" http://10.77.21.2/object
    until_true 60 part_has "$SCRATCH/home/got" "$((bytes / 4))" || fail "no quarter: $(cat "$SCRATCH/download.err")"
    kill9 server1
    large_serve
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/home/root/object" "$SCRATCH/home/got"
    equal "handshakes" "$(stat_of "$SCRATCH/home/stats" .handshakes)" 1
    jq -c '{seconds, goodput_bps, longest_stall_ms}' "$SCRATCH/home/stats"
    user_get --transport tcp --stats "$SCRATCH/home/stats" -o "$SCRATCH/home/got" http://10.77.21.2:8080/object
    identical "$SCRATCH/home/root/object" "$SCRATCH/home/got"
    jq -c '{seconds, goodput_bps}' "$SCRATCH/home/stats"
}
