# shellcheck shell=bash
#
# Downloads over the kernel's TCP, as a user without privileges, beside curl. Sourced by test-netns.sh.

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
            user_get --transport tcp --race "$n" --stats "$SCRATCH/home/stats" -o "$SCRATCH/home/got" \
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
