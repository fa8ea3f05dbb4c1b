# shellcheck shell=bash
#
# One address at two sites, announced by BGP: downloads of a client in the west while its site goes.
# Sourced by test-netns.sh.

# anycast: both sites up, the client's own one nearer; a monitor notes what its router's kernel does.
anycast() {
    topology_up anycast --delay 5ms
    mkdir "$SCRATCH/root"
    object 6
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    at_site 1
    at_site 2
    # shellcheck disable=SC2317 # called by name
    converged() { [[ $(anycast_at west) == server1 && $(anycast_at east) == server2 ]]; }
    until_true 20 converged || fail "no routes: $(cat "$SCRATCH"/bird-*.err)"
    tc -n "$TOPOLOGY-west" qdisc add dev client1 root tbf rate 100mbit burst 128kb latency 20ms
    start monitor west ip -ts monitor route
}

# moved DEVICE BEFORE: ms from BEFORE until the router in the west sent the service to DEVICE.
moved() {
    until_true 10 moved_at "$1" "$2" >/dev/null || fail "the route does not move: $(anycast_at west)"
    echo $(($(moved_at "$1" "$2") - $2))
}
moved_at() {
    local stamp at
    while read -r stamp; do
        at=$(date -d "$stamp" +%s%3N)
        ((at < $2)) || { echo "$at" && return; }
    done < <(sed -n "s/^\[\([^]]*\)\] $SERVICE4 .*dev $1 .*/\1/p" "$SCRATCH/monitor.out")
    return 1
}

# leave LIMIT COMMAND...: downloads under way, COMMAND takes the site in the west away; the route has
# moved within LIMIT ms, no download breaks, and the kernel's TCP does.
leave() {
    local limit=$1 before
    shift
    anycast
    begin 12 client1 129
    begin_tcp 6 client1
    sleep 2
    before=$(now_ms)
    "$@"
    at_most "ms until the route had moved" "$(moved east "$before")" "$limit"
    whole 12
    outcomes_tcp 6
    at_least "broken of 6 over kernel TCP" "$TCP_BROKEN" 1
    both_sites
}
# both_sites: both have answered.
both_sites() {
    equal "servers" "$(jq -s -c 'map(.by_server | keys) | add | unique' "$SCRATCH"/stats*)" '["1","2"]'
}

# shellcheck disable=SC2317 # called by name
drain_west() { kill -USR1 "${TOPOLOGY_PIDS[server1]}"; }
# shellcheck disable=SC2317 # called by name
silence_west() {
    in_ns west nft -f - <<'RULES'
table inet silence {
    chain in { type filter hook prerouting priority raw; policy accept; iifname "server1" drop; }
    chain out { type filter hook postrouting priority raw; policy accept; oifname "server1" drop; }
}
RULES
}

# Asked to drain, the server withdraws its address, answers what still comes, and is back a while after
# it is asked to serve again.
scenario_anycast_drain() {
    local before
    leave 300 drain_west
    before=$(now_ms)
    kill -USR2 "${TOPOLOGY_PIDS[server1]}"
    before=$(moved server1 "$before")
    at_least "ms until it is announced again" "$before" 1000
    at_most "ms until it is announced again" "$before" 2000
}
scenario_anycast_crash() { leave 300 kill9 server1; }
scenario_anycast_daemon() { leave 300 kill9 bird-server1; }
scenario_anycast_silent() { leave 500 silence_west; }

# The site comes and goes every 200 ms.
scenario_anycast_flap() {
    local n
    anycast
    begin 12 client1 129
    sleep 1
    for ((n = 0; n < 10; n++)); do
        ip -n "$TOPOLOGY-server1" route delete "$SERVICE4" dev hw0
        sleep 0.2
        ip -n "$TOPOLOGY-server1" route replace "$SERVICE4" dev hw0
        sleep 0.2
    done
    at_least "changes of the route" "$(grep -c "$SERVICE4 .*dev" "$SCRATCH/monitor.out")" 10
    whole 12
    both_sites
}
