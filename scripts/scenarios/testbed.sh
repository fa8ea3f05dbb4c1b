# shellcheck shell=bash
#
# The testbed and the emulated link: the instruments of the other scenarios. Sourced by test-netns.sh.

# The instruments first: the other scenarios rely on their figures.
scenario_testbed() {
    local n result
    topology_up servers 2
    for n in 1 2; do
        ip -n "$TOPOLOGY-server$n" addr add "10.77.2.10$n/32" dev lo
        ip -n "$TOPOLOGY-server$n" addr add "fd77:2::10$n/128" dev lo nodad
        start "four$n" "server$n" "$PWD/scripts/lab.sh" probe udp-echo serve "10.77.2.10$n" 7600
        start "six$n" "server$n" "$PWD/scripts/lab.sh" probe udp-echo serve "fd77:2::10$n" 7600
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
    in_ns client "$PWD/scripts/lab.sh" probe udp-echo send "$1" "$2" 7600 "$3"
}

# Every topology comes up twice side by side, carries both families end to end, and goes away whole.
scenario_topologies() {
    local name="$BASHPID" side shape ends pids
    while IFS='|' read -r -u 3 shape ends; do
        pids=()
        for side in a b; do
            # shellcheck disable=SC2086 # arguments
            (
                # shellcheck disable=SC2034 # for topology_up
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
redirected 2 2|client 10.77.22.2 client fd77:21::2 redirector2 10.77.21.2
anycast 2 --delay 2ms|client 10.77.22.2 client fd77:22::2
anycast 4 --delay 1ms|client 10.77.24.2 server4 fd77:22::2
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

# The emulated link between two kernels: delay, loss, an outage, a rate with either queue; the
# answers of its control socket, and its refusals. Bounds leave room for a machine that does other things.
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
    # The kernels send a packet of their own now and then, such as a router solicitation.
    command_link show >"$SCRATCH/shown"
    at_least "packets on the link" "$(jq .ab.counters.pushed "$SCRATCH/shown")" 400
    at_most "packets on the link" "$(jq .ab.counters.pushed "$SCRATCH/shown")" 404
    equal "delivered and lost" "$(jq '.ab.counters | .popped + .lost' "$SCRATCH/shown")" \
        "$(jq .ab.counters.pushed "$SCRATCH/shown")"
    at_most "echoes of those delivered" "$got" "$(jq .ab.counters.popped "$SCRATCH/shown")"

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

    at_least "metrics of drops by CoDel" \
        "$(metric client headwater_link_dropped_packets_total 'direction="ba",cause="codel"')" 1

    expect 121 "delay: '5' is not a time" command_link set ab loss=1% delay=5
    expect 121 "unknown setting 'speed'" command_link set both speed=1mbit
    expect 121 "not a direction" command_link set loss=1%
    expect 121 "without a rate" command_link set ba rate=none
    equal "loss after refusals" "$(shown .ab.config.loss_ppm)" 0
    expect 120 "is it running" "$HEADWATER" link-control "$SCRATCH/nobody" show
    expect 112 "in use by another" in_ns client "$HEADWATER" link --a server1 --b x
    expect 120 "choose another --control" in_ns client "$HEADWATER" link --a x --b y \
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
