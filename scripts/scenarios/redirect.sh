# shellcheck shell=bash
#
# Redirectors and the servers behind them. Sourced by test-netns.sh.

# redirected [K [R [DELAY...]]]: the topology, with keys and a root.
redirected() {
    topology_up redirected "$@"
    content
    echo index >"$SCRATCH/root/index.html"
}

# redirected_fleet POLICY K R: all of them up.
redirected_fleet() {
    local n
    redirected "$2" "$3"
    for n in $(seq "$2"); do behind "$n"; done
    # shellcheck disable=SC2046 # numbers
    redirect_config 1 policy="$1" -- $(seq "$2")
    for n in $(seq "$3"); do redirect "$n"; done
}

# whole COUNT: all downloads end well, identical, on the connection they began with.
whole() {
    outcomes "$1"
    # shellcheck disable=SC2153 # set by outcomes
    equal "broken of $1 downloads" "$BROKEN" 0
    equal "handshakes" "$HANDSHAKES" "$1"
    jq -s -c '{longest_stall_ms: (map(.longest_stall_ms) | max), seconds: (map(.seconds) | max)}' \
        "$SCRATCH"/stats*
}

# noticed N BEFORE AFTER: milliseconds from AFTER until redirector 1 has server N down; whatever took it
# away began at BEFORE and was done at AFTER.
noticed() {
    until_true 5 seen_down "$1" "$2" >/dev/null || fail "nobody notices"
    echo $(($(seen_down "$1" "$2") - $3))
}

# Every policy, chosen by changing the file of a running redirector, over both families.
scenario_redirect_policies() {
    local generation=1 policy counts
    redirected_fleet rendezvous 4 1
    object 8M
    for policy in rendezvous spread spread-random least-loaded; do
        redirect_config "$generation" "policy=$policy" -- 1 2 3 4
        in_force "$generation"
        get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://$SERVICE4/object"
        identical "$SCRATCH/root/object" "$SCRATCH/got"
        counts=$(stat_of "$SCRATCH/stats" '.by_server | length')
        case $policy in
        # The packet that opens a connection has no number of it yet, and may go elsewhere.
        rendezvous) at_most "$policy: servers" "$counts" 2 ;;
        *) equal "$policy: servers" "$counts" 4 ;;
        esac
        equal "$policy: handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
        get -o "$SCRATCH/got" "http://[$SERVICE6]/object"
        identical "$SCRATCH/root/object" "$SCRATCH/got"
        generation=$((generation + 1))
    done
    in_ns client ping -c 3 -i 0.05 -W 1 -q "$SERVICE4" || fail "no echo"
    in_ns client curl -sf -m 20 -o "$SCRATCH/got" "http://$SERVICE4/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
}

# One connection, packet by packet: shares of packets by weight, of bytes alike.
scenario_redirect_shares() {
    local before=() after=() n
    redirected_fleet spread 4 1
    object 60M
    rate 100mbit
    mapfile -t before < <(bytes_by_server)
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://$SERVICE4/object"
    mapfile -t after < <(bytes_by_server)
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    for n in 0 1 2 3; do
        echo "server$((n + 1)): $((after[n] - before[n])) bytes"
        at_least "times its share" "$(awk -v got="$((after[n] - before[n]))" \
            -v all="$((after[0] + after[1] + after[2] + after[3] - before[0] - before[1] - before[2] - before[3]))" \
            'BEGIN { print 4 * got / all }')" 0.98
    done
    redirect_config 2 policy=spread -- 1//100 2//200 3//300 4//400
    in_force 2
    mapfile -t before < <(shown '.backends[].packets')
    get -o "$SCRATCH/got" "http://$SERVICE4/object"
    mapfile -t after < <(shown '.backends[].packets')
    echo "packets before and after: ${before[*]}, ${after[*]}"
    for n in 0 1 2 3; do
        at_least "packets by weight: server$((n + 1))" "$(weighed "$n")" 0.98
        at_most "packets by weight: server$((n + 1))" "$(weighed "$n")" 1.02
    done
}
# bytes_by_server: bytes that each server's device has brought to the kernel.
bytes_by_server() {
    local n
    for n in 1 2 3 4; do
        ip -n "$TOPOLOGY-server$n" -s -j link show hw0 | jq '.[0].stats64.rx.bytes'
    done
}
# weighed N: the packets of backend N + 1, relative to the share that its weight promises.
weighed() {
    awk -v n="$1" -v after="${after[*]}" -v before="${before[*]}" 'BEGIN {
        split(after, a); split(before, b)
        for (i = 1; i <= 4; i++) all += a[i] - b[i]
        print (a[n + 1] - b[n + 1]) / all / ((n + 1) / 10) }'
}

# Without encapsulation: the redirector is the router of the servers, a device for each.
scenario_redirect_plain() {
    local n
    redirected 3 1
    for n in 1 2 3; do
        lane "$n"
        behind "$n"
    done
    redirect_config 1 policy=spread delivery=device -- 1 2 3
    redirect 1
    object 8M
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://$SERVICE4/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "servers" "$(stat_of "$SCRATCH/stats" '.by_server | length')" 3
    get -o "$SCRATCH/got" "http://[$SERVICE6]/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "capsules" "$(metric server1 headwater_redirected_packets_total)" 0
    redirect_config 2 policy=spread delivery=device -- 1 2
    in_force 2
    [[ -z $(ip -n "$TOPOLOGY-redirector1" link show to3 2>/dev/null) ]] || fail "a device is left"
    in_ns client curl -sf -m 20 -o "$SCRATCH/got" "http://$SERVICE4/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
}

# A redirector whose device takes joined packets splits the TCP segments that the kernel has joined, over both
# families, for capsules and for devices of backends.
scenario_redirect_joined() {
    local address end segmented=0 generation=1 delivery
    redirected 1 1
    lane 1
    offloads on
    # Room for capsules beside full segments.
    for end in router/server1 server1/router router/redirector1 redirector1/router; do
        ip -n "$TOPOLOGY-${end%/*}" link set "${end#*/}" mtu 1600
    done
    behind 1 --mtu 1600
    redirect_config 1 -- 1
    redirect 1 --device offload --mtu 1600
    for delivery in address device; do
        generation=$((generation + 1))
        redirect_config "$generation" delivery="$delivery" -- 1
        in_force "$generation"
        for address in "$SERVICE4" "[$SERVICE6]"; do
            in_ns client curl -sf -m 10 -H "x: $(printf 'x%.0s' {1..9000})" -o "$SCRATCH/got" \
                "http://$address/index.html"
            identical "$SCRATCH/root/index.html" "$SCRATCH/got"
            at_least "$delivery, $address: segmented packets" "$(($(segmented_packets) - segmented))" 6
            segmented=$(segmented_packets)
        done
    done
    get -o "$SCRATCH/got" "http://$SERVICE4/index.html"
    # What kernels send of their own, to nobody, has an extension header.
    equal "dropped" "$(shown '.counters.headwater_redirect_drops_total | del(.unsupported_extension)')" '{}'
}
segmented_packets() { metric redirector1 headwater_redirect_segmented_packets_total; }

# near KEY=VALUE...: two servers in the west, one in the east, one in the south, behind a redirector that
# looks for the nearest.
near() {
    local n
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 policy=nearest "$@" -- 1///west 2///west 3///east 4///south
    redirect 1
    object 3M
}
# lands: the sites that answer a client of each of three prefixes, over IPv4, then over IPv6.
lands() {
    local n service
    for service in "$SERVICE4" "[$SERVICE6]"; do
        for n in 0 1 2; do
            in_ns client timeout --foreground 20 "$HEADWATER" get --transport trickles --tun hw0 --silent --show-error \
                --address "10.77.1.$((64 * n + 5)),fd77:1::$n:5" --stats "$SCRATCH/stats" \
                -o "$SCRATCH/got" "http://$service/object"
            identical "$SCRATCH/root/object" "$SCRATCH/got"
            stat_of "$SCRATCH/stats" '.by_server | keys
                | map({"1": "west", "2": "west", "3": "east", "4": "south"}[.]) | unique | join("+")'
        done
    done | paste -sd ' '
}
# replaced FILE: puts standard input in the place of the file, whole.
replaced() {
    cat >"$SCRATCH/new"
    mv -- "$SCRATCH/new" "$1"
}
# counted NAME COUNT: until the counter NAME of redirector 1 is COUNT.
counted() {
    # shellcheck disable=SC2317 # called by name
    is_counted() { (($(metric redirector1 "$1") == $2)); }
    until_true 3 is_counted "$@" || fail "$1 is not $2"
}

# Clients of three prefixes land at their sites, and where another table says as soon as it is there; when
# all servers of a site are down the others have its clients, in the middle of downloads, too.
scenario_redirect_nearest() {
    redirected 4 1
    prefixes east south
    near table=sites
    equal "sites" "$(lands)" "west east south west east south"
    prefixes south east
    counted headwater_redirect_applied_tables_total 1
    equal "sites by another table" "$(lands)" "west south east west south east"
    prefixes south nowhere
    counted headwater_redirect_rejected_configurations_total 1
    grep "sites:5: no backend has the site .nowhere.*generation 1 stays" "$SCRATCH/redirector1.err" ||
        fail "no clear line"
    rate 100mbit
    begin 6 "$SERVICE4" "$SERVICE6"
    sleep 0.5
    kill9 server1
    kill9 server2
    whole 6
    equal "who answered" "$(jq -s -c 'map(.by_server | keys[] | if . < "3" then "near" else "elsewhere" end)
        | unique' "$SCRATCH"/stats?)" '["elsewhere","near"]'
    behind 1
    # shellcheck disable=SC2317 # called by name
    is_back() { [[ $(shown '.backends[0].state') == '"active"' ]]; }
    until_true 3 is_back || fail "a server that is back gets nothing"
    equal "sites again" "$(lands)" "west south east west south east"
}
# prefixes SITE SITE: a table that gives the second and third prefix these sites.
prefixes() {
    printf '%s\n' "10.77.1.0/24 west" "fd77:1::/64 west" "10.77.1.64/26 $1" "fd77:1::1:0/112 $1" \
        "10.77.1.128/26 $2" "fd77:1::2:0/112 $2" | replaced "$SCRATCH/sites"
}

# The same by a database of countries and continents.
scenario_redirect_database() {
    redirected 4 1
    countries "FR EU"
    near table=sites.mmdb regions='DE = "west", EU = "east", AS = "south"'
    equal "sites" "$(lands)" "west east south west east south"
    countries "JP AS"
    counted headwater_redirect_applied_tables_total 1
    equal "sites by another database" "$(lands)" "west south south west south south"
    head -c 100 /dev/urandom | replaced "$SCRATCH/sites.mmdb"
    counted headwater_redirect_rejected_configurations_total 1
    equal "sites" "$(lands)" "west south south west south south"
    expect 122 'sites.mmdb: not a MaxMind database' in_ns redirector1 timeout --foreground 10 "$HEADWATER" \
        redirect --tun hw1 --config "$SCRATCH/redirector1.toml"
}
# countries CODES: a database with these codes of country and continent for the second prefix.
countries() {
    printf '%s\n' "10.77.1.0/24 DE EU" "fd77:1::/64 DE EU" "10.77.1.64/26 $1" "fd77:1::1:0/112 $1" \
        "10.77.1.128/26 - AS" "fd77:1::2:0/112 - AS" | "$PWD/scripts/lab.sh" probe mmdb "$SCRATCH/new"
    mv -- "$SCRATCH/new" "$SCRATCH/sites.mmdb"
}

# The routes to the service are there while a server is well, and the operator's command runs.
scenario_redirect_announce() {
    redirected 1 1
    behind 1
    redirect_config 1 -- 1
    redirect 1 --announce --announce-command "echo \$1 >>$SCRATCH/told"
    # shellcheck disable=SC2317 # called by name
    is_announced() { [[ -n $(ip -n "$TOPOLOGY-redirector1" route show "$SERVICE4/32") ]]; }
    # shellcheck disable=SC2317 # called by name
    is_withdrawn() { ! is_announced; }
    is_announced || fail "not announced"
    kill9 server1
    until_true 0.5 is_withdrawn || fail "not withdrawn"
    behind 1
    ! is_announced || fail "announced at once"
    until_true 3 is_announced || fail "not announced again"
    get -o "$SCRATCH/got" "http://$SERVICE4/index.html"
    get -o "$SCRATCH/got" "http://[$SERVICE6]/index.html"
    kill9 redirector1
    is_withdrawn || fail "still announced after a crash"
    equal "the command was told" "$(paste -sd ' ' "$SCRATCH/told")" "up down up"
}

# The effects of the control socket, of signals and of the file, and their limits.
scenario_redirect_control() {
    local before
    redirected_fleet spread 2 1
    object 1M
    control drain server1
    equal "states" "$(shown '[.backends[].state]')" '["draining","active"]'
    before=$(metric server1 headwater_redirected_packets_total)
    get -o "$SCRATCH/got" "http://$SERVICE4/object"
    equal "packets while it drains" "$(($(metric server1 headwater_redirected_packets_total) - before))" 0
    control activate server1
    # shellcheck disable=SC2317 # called by name
    is_state() { [[ $(shown ".backends[$1].state") == "\"$2\"" ]]; }
    kill -USR1 "${TOPOLOGY_PIDS[server2]}"
    until_true 2 is_state 1 draining || fail "a server that asks for no packets gets some"
    kill -USR2 "${TOPOLOGY_PIDS[server2]}"
    until_true 2 is_state 1 active || fail "a server that asks for packets gets none"
    echo "policy = 5" >>"$SCRATCH/redirector1.toml"
    # shellcheck disable=SC2317 # called by name
    is_refused() { (($(metric redirector1 headwater_redirect_rejected_configurations_total) >= $1)); }
    until_true 3 is_refused 1 || fail "a mistake is not noticed"
    kill -HUP "${TOPOLOGY_PIDS[redirector1]}"
    until_true 3 is_refused 2 || fail "SIGHUP reads nothing"
    grep -E 'redirector1.toml:[0-9]+: .*generation 1 stays' "$SCRATCH/redirector1.err" || fail "no clear line"
    expect 121 'redirector1.toml:' control reload
    expect 121 "no backend is named 'x'" control drain x
    expect 121 'unknown command' control fly
    get -o "$SCRATCH/got" "http://$SERVICE4/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "in force" "$(shown .generation)" 1
}

# survive HOW: many downloads, then server 3 of 4 is gone; none breaks, of the kernel's TCP about a
# quarter does. HOW is called with 3.
survive() {
    local tcp=20 before changes
    redirected_fleet rendezvous 4 1
    watch_states 1
    object 4M
    rate 200mbit
    start_counting router
    begin "$TRANSFERS"
    begin_tcp "$tcp"
    arrived $(((TRANSFERS + tcp) * 4194304 * 3 / 10))
    before=$(now_ms)
    "$1" 3
    at_most "ms until it was noticed" "$(noticed 3 "$before" "$(now_ms)")" 200
    whole "$TRANSFERS"
    # shellcheck disable=SC2153 # set by outcomes_tcp
    outcomes_tcp "$tcp"
    sort "$SCRATCH"/curl*.err | uniq -c
    at_least "broken of $tcp over kernel TCP" "$TCP_BROKEN" 1
    changes=$(shown '[.backends[].changes]')
    echo "changes of states: $changes"
    equal "state" "$(shown '.backends[2].state')" '"down"'
    # A server that very many clients keep from answering heartbeats loses its TCP, too.
    [[ $changes != '[0,0,1,0]' ]] || ((TRANSFERS > 40)) ||
        at_most "broken of $tcp over kernel TCP" "$TCP_BROKEN" 12
}
# shellcheck disable=SC2317 # called by name
crash() { kill9 "server$1"; }
# shellcheck disable=SC2317 # called by name
unplug() { ip -n "$TOPOLOGY-router" link delete "server$1"; }
scenario_redirect_kill() { survive crash; }
scenario_redirect_netns() { survive unplug; }
scenario_redirect_silent() { survive sever; }

# Nobody withdraws the dead server: a quarter of all requests is lost, and all downloads end.
scenario_redirect_undetected() {
    redirected 4 1
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 policy=spread interval=60000 misses=100 -- 1 2 3 4
    redirect 1
    object 300000
    sever 3
    begin 10
    whole 10
    equal "state" "$(shown '.backends[2].state')" '"active"'
}

# 4 servers, 8, 2, 4, and three drained at once, under way.
scenario_redirect_scale() {
    local n before
    redirected 8 1
    for n in $(seq 8); do behind "$n"; done
    redirect_config 1 -- 1 2 3 4
    redirect 1
    object 8M
    rate 200mbit
    start_counting router
    begin "$TRANSFERS"
    arrived $((TRANSFERS * 8388608 / 10))
    redirect_config 2 -- 1 2 3 4 5 6 7 8
    in_force 2
    arrived $((TRANSFERS * 8388608 * 2 / 10))
    redirect_config 3 -- 1 2
    in_force 3
    arrived $((TRANSFERS * 8388608 * 3 / 10))
    redirect_config 4 -- 1 2 3 4
    in_force 4
    arrived $((TRANSFERS * 8388608 * 4 / 10))
    redirect_config 5 -- 1/draining 2/draining 3/draining 4
    in_force 5
    sleep 0.3
    before=$(drained_packets)
    sleep 1
    equal "packets to drained servers" "$(drained_packets)" "$before"
    whole "$TRANSFERS"
    for n in 5 6 7 8; do
        at_least "packets to server$n" "$(metric "server$n" headwater_redirected_packets_total)" 1
    done
}
drained_packets() {
    local n
    for n in 1 2 3; do metric "server$n" headwater_redirected_packets_total; done | paste -sd ' '
}

# Servers that are near and far take turns: the order of packets changes all the time, which costs
# goodput but neither bytes nor the connection.
scenario_redirect_paths() {
    local alone spread
    redirected 3 1 10ms 12500us 20ms
    for n in 1 2 3; do behind "$n"; done
    redirect_config 1 policy=spread -- 3
    redirect 1
    object 30M
    rate 100mbit
    # A server that has not seen a large file yet digests it first.
    twice
    alone=$(stat_of "$SCRATCH/stats" .seconds)
    redirect_config 2 policy=spread -- 1 2 3
    in_force 2
    twice
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "servers" "$(stat_of "$SCRATCH/stats" '.by_server | length')" 3
    spread=$(stat_of "$SCRATCH/stats" .seconds)
    echo "seconds: $alone alone, $spread spread"
    jq -c '{lost, repeated, timeouts, transitions, rtt_smoothed_us, longest_stall_ms}' "$SCRATCH/stats"
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    at_least "goodput beside that of the farthest alone" "$(awk -v a="$alone" -v s="$spread" 'BEGIN { print a / s }')" 0.5
}
# twice: the object, whose first download does not count.
twice() {
    for _ in 1 2; do
        get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://$SERVICE4/object"
    done
}

# One of four servers has a tenth of the others' uplink. Packets by turns go at the pace of the slowest;
# weights that follow loads and queues let it have as much as it can carry.
scenario_redirect_slow() {
    local n policy generation=1 one many
    redirected_fleet spread 4 1
    object 3M
    offloads off
    for n in 1 2 3; do uplink "$n" 100mbit; done
    uplink 4 10mbit
    for policy in spread least-loaded; do
        redirect_config "$generation" "policy=$policy" -- 1 2 3 4
        in_force "$generation"
        generation=$((generation + 1))
        get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://$SERVICE4/object"
        identical "$SCRATCH/root/object" "$SCRATCH/got"
        one=$(stat_of "$SCRATCH/stats" '.goodput_bps / 1e6 | round')
        jq -c '{seconds, lost, timeouts, transitions, longest_stall_ms, by_server}' "$SCRATCH/stats"
        begin 6
        whole 6
        many=$(jq -s '(map(.bytes) | add) * 8e-6 / (map(.seconds) | max) | round' "$SCRATCH"/stats?*)
        echo "$policy: $one Mbit/s for one, $many Mbit/s for six; packets $(shown '[.backends[].packets]')"
        jq -n --arg policy "$policy" --argjson one "$one" --argjson many "$many" '{($policy): [$one, $many]}' \
            >>"$SCRATCH/goodput"
    done
    for n in 0 1; do
        at_least "least-loaded beside spread" "$(jq -s --argjson n "$n" \
            'add | .["least-loaded"][$n] / .spread[$n]' "$SCRATCH/goodput")" 1.3
    done
}

# Two redirectors, of which one is killed; the router takes 200 ms to notice.
scenario_redirect_two() {
    redirected_fleet rendezvous 4 2
    object 4M
    rate 200mbit
    start_counting router
    begin "$TRANSFERS"
    arrived $((TRANSFERS * 4194304 * 3 / 10))
    at_least "packets by redirector 1" "$(metric redirector1 headwater_redirect_packets_received_total)" 100
    at_least "packets by redirector 2" "$(metric redirector2 headwater_redirect_packets_received_total)" 100
    kill9 redirector2
    sleep 0.2
    share 1
    whole "$TRANSFERS"
}

# Packets that are forged, replayed or malformed are counted and change nothing.
scenario_redirect_forged() {
    local reason
    redirected 2 1
    behind 1
    behind 2
    redirect_config 1 policy=spread -- 1 2
    redirect 1 --pcap "$SCRATCH/redirector.pcap"
    object 1M
    get -o "$SCRATCH/got" "http://$SERVICE4/object"
    sleep 0.2
    in_ns client "$PWD/scripts/lab.sh" probe capsules "$SCRATCH/redirector.pcap" 7601 | tee "$SCRATCH/sent"
    get -o "$SCRATCH/got" "http://$SERVICE4/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    for reason in replayed forged truncated unknown_kind unknown_key misdirected; do
        at_least "server: $reason" "$(metric server1 headwater_redirected_refused_total "reason=\"$reason\"")" 1
    done
    for reason in heartbeat_forged heartbeat_truncated heartbeat_unknown_kind unsolicited; do
        at_least "redirector: $reason" "$(metric redirector1 headwater_redirect_drops_total "reason=\"$reason\"")" 1
    done
    equal "states" "$(shown '[.backends[].state]')" '["active","active"]'
    equal "changes" "$(shown '[.backends[].changes]')" '[0,0]'
}

# The errors of redirect at its start, and misuse of serve behind redirectors.
scenario_redirect_errors() {
    redirected 1 1
    redirect_config 1 -- 1
    # shellcheck disable=SC2317 # called by name
    try() { in_ns redirector1 timeout --foreground 10 "$HEADWATER" redirect --tun hw1 --config "$@"; }
    expect 122 'cannot read .*--config' try "$SCRATCH/nowhere"
    expect 115 'keygen' try "$SCRATCH/redirector1.toml"
    "$HEADWATER" keygen --out "$SCRATCH/redirect-keys"
    sed 's/^weight = .*/weight = 0/' "$SCRATCH/redirector1.toml" >"$SCRATCH/bad.toml"
    expect 122 'bad.toml:[0-9]+: server1: use a weight' try "$SCRATCH/bad.toml"
    sed 's/^policy = .*/policy = "nearest"/' "$SCRATCH/redirector1.toml" >"$SCRATCH/bad.toml"
    expect 122 'bad.toml:[0-9]+: .*table' try "$SCRATCH/bad.toml"
    printf '[nearest]\ntable = "none"\n' >>"$SCRATCH/bad.toml"
    expect 122 'cannot read .*none' try "$SCRATCH/bad.toml"
    redirect 1
    expect 112 'use' in_ns redirector1 timeout 10 "$HEADWATER" redirect --tun hw0 --config "$SCRATCH/redirector1.toml"
    expect 120 'control' try "$SCRATCH/redirector1.toml" --control "$SCRATCH/r1"
    expect 119 'metrics' try "$SCRATCH/redirector1.toml" --metrics 127.0.0.1:9100
    expect 120 'no redirector answers' "$HEADWATER" redirect-control "$SCRATCH/nobody" show
    expect 2 'backend-address' in_ns server1 timeout 10 "$HEADWATER" serve --tun hw0 --address "$SERVICE4" \
        --root "$SCRATCH/root" --keys "$SCRATCH/keys" --redirected "$SCRATCH/redirect-keys"
    object 1M
    expect 115 'keygen' in_ns server1 timeout 10 "$HEADWATER" serve --tun hw0 --address "$SERVICE4" \
        --root "$SCRATCH/root" --keys "$SCRATCH/keys" --redirected "$SCRATCH/none" --backend-address 10.77.2.101
}
