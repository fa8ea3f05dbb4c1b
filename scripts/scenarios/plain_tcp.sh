# shellcheck shell=bash
#
# Plain HTTP over TCP under misuse: ambiguous requests, crowds, slow readers, a server that
# ends. Sourced by test-netns.sh.

# tcp_probe NAME ARGUMENT...: a probe in the client's namespace.
tcp_probe() {
    in_ns client scripts/lab.sh probe "$@"
}

# A head of which two recipients could read different lengths or hosts is refused, and the connection closed.
scenario_tcp_framing() {
    local field got
    fleet 1
    object 10
    serve 1
    framed() {
        # shellcheck disable=SC2016 # for the inner shell
        in_ns client timeout 5 bash -c 'exec 3<>/dev/tcp/10.77.2.101/80
            printf "GET /object HTTP/1.1\r\n%b\r\n\r\n" "$1" >&3; cat <&3' - "$1" 2>&1 | tr -d '\0'
    }
    for field in 'Host: h\r\nContent-Length: 1\r\nContent-Length: 2' 'Host: h\r\nContent-Length: 1, 2' \
        'Host: h\r\nContent-Length: abc' 'Host: h\r\nContent-Length: -1' 'Host: h\r\nContent-Length: +1' \
        'Host: h\r\nContent-Length: ' 'Host: h\r\nContent-Length: 99999999999999999999' \
        'Host: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked' 'Host: h\r\nTransfer-Encoding: gzip' \
        'Host: h\r\nTransfer-Encoding: chunked, gzip' 'Host: a b' 'Host: a/b' 'Host: h:x' 'Host: [::1' \
        'Host: h\r\nHost: h' 'X: no host\r\nConnection: close'; do
        got=$(framed "$field") || fail "$field: no end of the connection"
        [[ $got == 'HTTP/1.1 400 '* ]] || fail "$field: ${got%%$'\r'*}"
    done
    for field in 'Host: h\r\nConnection: close' 'Host:\r\nConnection: close' \
        'Host: [::1]:80\r\nConnection: close' 'Host: h\r\nContent-Length: 0\r\nConnection: close' \
        'Host: h\r\nContent-Length: 2, 2'; do
        got=$(framed "$field") || fail "$field: no end of the connection"
        [[ $got == 'HTTP/1.1 200 '* ]] || fail "$field: ${got%%$'\r'*}"
    done
}

# The table is full of connections that keep quiet or never end their request, more connect and say nothing,
# and SYNs arrive from forged addresses: a newcomer is answered at once.
scenario_tcp_crowd() {
    local crowd
    fleet 1
    object 10
    serve 1 --metrics 127.0.0.1:9100
    start silent client scripts/lab.sh probe http-crowd 10.77.2.101 80 2000 silent
    start kept client scripts/lab.sh probe http-crowd 10.77.2.101 80 10000 kept
    start partial client scripts/lab.sh probe http-crowd 10.77.2.101 80 4000 partial
    start flood client scripts/lab.sh probe syn-flood 10.77.2.101 80 5000 10.77.1
    for crowd in silent kept partial; do
        until_true 30 grep -q '^open ' "$SCRATCH/$crowd.out" || fail "$crowd: $(cat "$SCRATCH/$crowd.err")"
    done
    at_least "connections" "$(metric server1 headwater_tcp_connections)" 10000
    tcp_probe http-newcomers 10.77.2.101 80 100 >"$SCRATCH/newcomers"
    equal "answered" "$(stat_of "$SCRATCH/newcomers" .answered)" 100
    at_most "longest, ms" "$(stat_of "$SCRATCH/newcomers" .longest_ms)" 1000
    at_least "evictions" "$(metric server1 headwater_tcp_evictions_total)" 1
    running server1 || fail "the server has ended"
    stop flood
    at_least "SYNs" "$(sed -n 's/^sent //p' "$SCRATCH/flood.out")" 5000
}

# A reader of 4 kB/s gets all of an object, though that takes longer than every limit on silence.
scenario_tcp_slow_reader() {
    fleet 1
    object 120000
    serve 1
    tcp_probe http-reader 10.77.2.101 80 /object 4000 "$SCRATCH/got" | tee "$SCRATCH/reader"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "end" "$(sed -n 's/.*"end": "\(.*\)".*/\1/p' "$SCRATCH/reader")" closed
}

# SIGTERM: a response that can end soon ends, an idle connection is closed, a slow reader is reset after
# two seconds, and the server then ends by itself.
scenario_tcp_termination() {
    local pid began took status=0
    fleet 1
    object 8M
    object 300000 small
    serve 1
    pid=${TOPOLOGY_PIDS[server1]}
    start idle client bash -c 'exec 3<>/dev/tcp/10.77.2.101/80
        printf "HEAD /small HTTP/1.1\r\nHost: h\r\n\r\n" >&3; cat <&3'
    start slow client scripts/lab.sh probe http-reader 10.77.2.101 80 /object 4000 "$SCRATCH/slow"
    start quick client scripts/lab.sh probe http-reader 10.77.2.101 80 /small 250000 "$SCRATCH/quick"
    until_true 10 grep -q reading "$SCRATCH/slow.out" || fail "the slow reader has nothing"
    until_true 10 grep -q reading "$SCRATCH/quick.out" || fail "the quick reader has nothing"
    until_true 10 grep -q HTTP "$SCRATCH/idle.out" || fail "the idle client has nothing"
    began=$(now_ms)
    kill -TERM "$pid"
    until_true 2 finish idle || fail "the idle connection was not closed"
    finish server1 || status=$?
    took=$(($(now_ms) - began))
    equal "exit status" "$status" 0
    at_most "ms to the end" "$took" 3000
    finish quick || fail "the quick reader: $(cat "$SCRATCH/quick.err")"
    identical "$SCRATCH/root/small" "$SCRATCH/quick"
    finish slow || fail "the slow reader: $(cat "$SCRATCH/slow.err")"
    grep -q '"end": "reset"' "$SCRATCH/slow.out" || fail "the slow reader: $(cat "$SCRATCH/slow.out")"
    serve 1
    began=$(now_ms)
    stop server1
    at_most "ms to the end without connections" $(($(now_ms) - began)) 1000
}
