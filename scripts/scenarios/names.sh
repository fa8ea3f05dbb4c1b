# shellcheck shell=bash
#
# Names by DNS servers that misbehave, over the stack of a TUN device and over sockets of the kernel.
# Sourced by test-netns.sh.

# name_servers SERVER...: a DNS server that misbehaves at 10.77.21.2, and our SERVER over a TUN device at
# 10.77.2.101 or over sockets at 10.77.21.2; `dead` and `closed` are names of addresses without a server.
name_servers() {
    start dns server1 scripts/lab.sh probe faulty-dns 10.77.21.2 "*=$1,$2" lying="$1" \
        dead=10.77.2.111,10.77.2.112,fd77:2::113 closed=10.77.21.2,fd77:21::2 local4="$1"
    wait_ready dns 10
}

# queries FILTER: the queries that the server has logged so far, as jq selects them.
queries() { jq -c "select($1)" <(tail -n +2 "$SCRATCH/dns.out"); }

# looked_up COMMAND...: the outcome of every fault, over either way to the servers; COMMAND is a client without its URLs.
looked_up() {
    local name before
    for name in good slow6-20 servfail6 truncated many spelling lying flood; do
        rm -f "$SCRATCH/home/got"
        "$@" -o "$SCRATCH/home/got" "http://$name.test/object" || fail "$name: exit status $?"
        identical "$SCRATCH/root/object" "$SCRATCH/home/got"
        echo "$name"
    done
    # The Resolution Delay: IPv4 addresses wait for 50 ms and no longer; IPv6 addresses join late.
    before=$(now_ms)
    "$@" -o "$SCRATCH/home/got" http://slow6-2000.test/object || fail "slow6: exit status $?"
    at_most "ms with IPv6 addresses 2 s late" "$(($(now_ms) - before))" 1500
    expect 6 'could not resolve host nxdomain.test \(no such name' "$@" http://nxdomain.test/
    expect 6 'could not resolve host nodata.test \(the name has no addresses' "$@" http://nodata.test/
    expect 6 'answered with SERVFAIL' "$@" http://servfail.test/
    expect 6 'answered with REFUSED' "$@" http://refused.test/
    expect 6 'loop of aliases' "$@" http://loop.test/
    expect 28 'resolving silent.test timed out' "$@" --connect-timeout 1 http://silent.test/
    expect 28 'resolving wrongid.test timed out' "$@" --connect-timeout 1 http://wrongid.test/
    expect 6 'never.onion \(no such name' "$@" http://never.onion/
    # Nothing is kept of the lies about this name in the answer to another one.
    "$@" -o "$SCRATCH/home/got" http://lying.test/object -o "$SCRATCH/home/got2" http://bank.test/object ||
        fail "bank: exit status $?"
    equal "queries about bank.test" "$(queries '.name | ascii_downcase == "bank.test"' | wc -l)" 2
}

# random_queries: identifiers, ports and spellings of all queries are random, as the server and a capture
# of its link saw them.
random_queries() {
    local all
    all=$(queries true | wc -l)
    at_least "queries" "$all" 40
    at_least "identifiers" "$(queries true | jq .id | sort -u | wc -l)" "$((all * 9 / 10))"
    at_least "ports" "$(queries true | jq .port | sort -u | wc -l)" "$((all * 9 / 10))"
    at_least "spellings" "$(queries true | jq .name | sort -u | wc -l)" "$((all * 7 / 10))"
    stop_capture
    tshark -r "$SCRATCH/dns.pcap" -Y 'udp && dns.flags.response == 0' -T fields \
        -e ip.src -e udp.srcport -e dns.id -e dns.qry.name -e dns.rr.udp_payload_size >"$SCRATCH/fields" 2>/dev/null
    at_least "captured ports" "$(cut -f 2 "$SCRATCH/fields" | sort -u | wc -l)" "$((all * 7 / 10))"
    equal "sources" "$(cut -f 1 "$SCRATCH/fields" | sort -u)" "$1"
    equal "payload sizes of EDNS" "$(cut -f 5 "$SCRATCH/fields" | sort -u)" 1232
}

capture_queries() {
    start capture server1 tshark -q -i client -f 'port 53' -w "$SCRATCH/dns.pcap"
    until_true 10 grep -q Capturing "$SCRATCH/capture.err" || fail "no capture"
}
stop_capture() {
    kill -INT "${TOPOLOGY_PIDS[capture]}"
    finish capture || true
}

# Queries of the stack itself: none of the kernel's sockets.
scenario_names() {
    local path=(timeout --foreground 60 "$HEADWATER" get --tun hw0 --address 10.77.1.100
        --address fd77:1::100 --dns-servers 10.77.21.2 -sS)
    topology_up pair
    content 1M
    mkdir "$SCRATCH/home"
    through client server1 10.77.2.0/24 fd77:2::/64
    serve 1
    name_servers 10.77.2.101 fd77:2::101
    capture_queries
    looked_up in_ns client "${path[@]}"
    random_queries 10.77.1.100
    expect 7 'failed to connect.*10.77.21.2:80 failed' in_ns client "${path[@]}" --transport tcp \
        --connect-timeout 5 http://closed.test/
    expect 28 '10.77.2.111:7600: no answer.*10.77.2.112:7600: no answer' in_ns client "${path[@]}" \
        --connect-timeout 1 http://dead.test/
    in_ns client "${path[@]}" -4 -o "$SCRATCH/home/got" http://slow6-9000.test/object
    expect 2 'interface is for sockets' in_ns client "${path[@]}" --interface lo http://good.test/
}

# Queries over sockets of the kernel, of a user without privileges; the servers are those of resolv.conf.
scenario_names_of_sockets() {
    local own
    topology_up pair
    unprivileged
    content 1M
    cp "$SCRATCH/root/object" "$SCRATCH/home/root/object"
    chown -R 1500:1500 "$SCRATCH/home"
    start server1 server1 "${USER_RUN[@]}" serve --listen 10.77.21.2:7600 --listen '[fd77:21::2]:7600' \
        --listen-tcp 10.77.21.2:8080 --root "$SCRATCH/home/root"
    wait_ready server1
    name_servers 10.77.21.2 fd77:21::2
    capture_queries
    printf 'search nowhere.test test\nnameserver 10.77.21.9\nnameserver 10.77.21.2\noptions timeout:1 attempts:2\n' \
        >"$SCRATCH/home/resolv.conf"
    # shellcheck disable=SC2016 # expanded by the other shell
    local path=(unshare --mount bash -c 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"' sh
        "$SCRATCH/home/resolv.conf" timeout --foreground 60 "${USER_RUN[@]}" get -sS)
    looked_up in_ns client "${path[@]}" --dns-servers 10.77.21.2
    # The first server of the file is dead, the name is completed by the second domain.
    in_ns client "${path[@]}" -o "$SCRATCH/home/got" http://good/object || fail "exit status $?"
    identical "$SCRATCH/root/object" "$SCRATCH/home/got"
    random_queries 10.77.21.1
    expect 7 'failed to connect.*10.77.21.2:7601 failed after.*' in_ns client "${path[@]}" \
        --dns-servers 10.77.21.2 --connect-to ::closed.test:7601 http://elsewhere.test/
    expect 7 'fd77:21::2.:7601 failed after' in_ns client "${path[@]}" --dns-servers 10.77.21.2 \
        --udp-port 7601 -6 http://closed.test/
    # curl's spellings.
    in_ns client "${path[@]}" --dns-servers 10.77.21.2:53 --connect-to elsewhere.test:80:good.test: \
        --interface server1 -o "$SCRATCH/home/got" http://elsewhere.test/object || fail "exit status $?"
    in_ns client "${path[@]}" --transport tcp --dns-servers 10.77.21.2 --connect-to ::10.77.21.2:8080 \
        --interface 10.77.21.1 -o "$SCRATCH/home/got" http://elsewhere.test/object || fail "exit status $?"
    identical "$SCRATCH/root/object" "$SCRATCH/home/got"
    expect 113 'no-such-if' in_ns client "${path[@]}" --interface no-such-if http://good.test/
    # A link-local address, with its zone.
    start linked server1 "${USER_RUN[@]}" serve --listen '[::]:7700' --root "$SCRATCH/home/root"
    wait_ready linked
    own=$(ip -n "$TOPOLOGY-server1" -6 -o address show dev client scope link | awk '{ sub("/.*", "", $4); print $4 }')
    in_ns client "${path[@]}" --udp-port 7700 -o "$SCRATCH/home/got" "http://[$own%25server1]/object" ||
        fail "exit status $?"
    identical "$SCRATCH/root/object" "$SCRATCH/home/got"
    expect 2 'no interface nowhere' in_ns client "${path[@]}" "http://[$own%25nowhere]/object"
    # An address without a server is an error at once.
    expect 6 'no answer from DNS server 127.0.0.9:53' in_ns client "${path[@]}" --dns-servers 127.0.0.9 http://good.test/
}
