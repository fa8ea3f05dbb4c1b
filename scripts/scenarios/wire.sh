# shellcheck shell=bash
#
# What travels: sizes, round trips, captures. Sourced by test-netns.sh.

# overhead HOST FILTER BOUND: object bytes in full packets, found in a capture by their content.
overhead() {
    local result
    fleet 1
    object 20M
    serve 1
    get --pcap "$SCRATCH/capture.pcap" -o "$SCRATCH/got" "http://$1/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    result=$(shark -r "$SCRATCH/capture.pcap" -Y "$2" -T fields -e udp.payload 2>/dev/null |
        awk 'NR % 40 == 0 && kept++ < 200' | scripts/lab.sh probe payload "$SCRATCH/root/object")
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
# the client shows a token of a run just before that proved its address, and only then. A server reads a file
# off its loop before it answers from memory, so each file is fetched once before.
scenario_one_round_trip() {
    local tokens
    fleet 1
    tokens=$SCRATCH/tokens
    object 3000 small
    object 10000 medium
    serve 1
    get -o "$SCRATCH/got" -o "$SCRATCH/got2" http://10.77.2.101/small http://10.77.2.101/medium
    equal "client packets before the last answer" "$(asked small)" 1
    at_most "answer packets" "$(answers)" 3
    at_least "client packets for 10 kB without a token" "$(asked medium --tokens "$tokens")" 2
    equal "mode of the tokens" "$(stat -c %a "$tokens")" 600
    equal "client packets for 10 kB with a token" "$(asked medium --tokens "$tokens")" 1
    at_most "answer packets" "$(answers)" 10
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

# 100 MB without loss: the client sends at most a hundredth of the bytes it receives, as IP
# packets counted by the kernel on the link.
scenario_upstream_share() {
    local before=() after=()
    fleet 1
    object 95M
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

# shark OPTION...: tshark with our port decoded as data: by its heuristics random bytes look like
# this or that protocol now and then, and like malformed packets of it.
shark() {
    tshark -d udp.port==7600,data "$@"
}

# Captures of both ends and of both protocols are what tshark calls sound; but it wants 0x0000 where
# the kernel writes the other zero of ones' complement (RFC 1624 section 3).
scenario_captures() {
    local side
    fleet 1
    object 2M
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
