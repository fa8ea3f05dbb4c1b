# shellcheck shell=bash
#
# One address at many sites, announced by BGP: downloads of a client at the first site while sites go
# and come. Sourced by test-netns.sh.

# anycast [SITES [MIB]]: all up, 5 ms between one and the next, with an object of 6 MiB if nothing else is
# said; monitors note the routes of the routers.
anycast() {
    local n
    topology_up anycast "${1:-2}" --delay 5ms
    content "${2:-6}M"
    at_all_sites
    narrow site1 client 100mbit
    for n in $(seq "$SITES"); do start "monitor$n" "site$n" ip -ts monitor route; done
    start_counting site1
}

# under_way MIB: until the client has received that much, however long a busy machine takes to start all.
under_way() { arrived "$(($1 * 1048576))"; }

# moved SITE DEVICE BEFORE [ADDRESS]: ms from BEFORE until the router of the site sent the service to
# DEVICE.
moved() {
    until_true 10 moved_at "$@" >/dev/null || fail "the route at site $1 does not move: $(anycast_at "$1" "${@:4}")"
    echo $(($(moved_at "$@") - $3))
}
moved_at() {
    first_since "$3" "$SCRATCH/monitor$1.out" "s/^\[\([^]]*\)\] ${4:-$SERVICE4} .*dev $2 .*/\1/p"
}

# first_since MS FILE PROGRAM: when, in ms, a line of FILE matches for the first time since; the program
# of `sed -n` prints the times of the lines that do.
first_since() {
    local stamp at
    while read -r stamp; do
        at=$(date -d "$stamp" +%s%3N)
        ((at < $1)) || { echo "$at" && return; }
    done < <(sed -n "$3" "$2")
    return 1
}

# leave LIMIT COMMAND...: downloads under way, COMMAND takes the nearest site away; the route has moved
# within LIMIT ms, no download breaks, and the kernel's TCP does.
leave() {
    local limit=$1 before
    shift
    anycast
    begin 12
    begin_tcp 6
    under_way 16
    before=$(now_ms)
    "$@"
    at_most "ms until the route had moved" "$(moved 1 site2 "$before")" "$limit"
    whole 12
    outcomes_tcp 6
    at_least "broken of 6 over kernel TCP" "$TCP_BROKEN" 1
    sites_answered 2
}
# sites_answered SITES: downloads had answers of every site.
sites_answered() {
    equal "servers" "$(jq -s -c 'map(.by_server | keys) | add | unique | map(tonumber)' "$SCRATCH"/stats*)" \
        "[$(seq -s , "$1")]"
}

# Asked to drain, the server withdraws its address, answers what still comes, and is back a while after
# it is asked to serve again.
scenario_anycast_drain() {
    local before
    leave 300 drain 1
    before=$(now_ms)
    kill -USR2 "${TOPOLOGY_PIDS[server1]}"
    before=$(moved 1 server1 "$before")
    at_least "ms until it is announced again" "$before" 1000
    at_most "ms until it is announced again" "$before" 2000
}
# shellcheck disable=SC2317 # called by name
drain() { kill -USR1 "${TOPOLOGY_PIDS[server$1]}"; }
scenario_anycast_crash() { leave 300 kill9 server1; }
scenario_anycast_daemon() { leave 300 kill9 bird-server1; }
scenario_anycast_silent() {
    leave 500 silence_site 1
    # All ended at the other site, whose round trip is not mixed with that of the first.
    at_least "smallest round trip at the end, us" "$(jq -s 'map(.rtt_min_us) | min' "$SCRATCH"/stats*)" \
        "$(path_us 2)"
}

# path_us SITE: least round trip to it. Each way a link that is awake may let a packet go 50 microseconds
# early.
path_us() { echo $((($1 - 1) * 9900)); }

# The site comes and goes every 200 ms, FLAPS times, for less time than the downloads take.
scenario_anycast_flap() {
    local n crowd=12
    ((FLAPS <= 10)) || crowd=20
    anycast 2 $((6 + FLAPS * 5 / crowd))
    begin "$crowd"
    begin_tcp 6
    under_way 8
    for ((n = 0; n < FLAPS; n++)); do
        ip -n "$TOPOLOGY-server1" route delete "$SERVICE4" dev hw0
        sleep 0.2
        ip -n "$TOPOLOGY-server1" route replace "$SERVICE4" dev hw0
        sleep 0.2
    done
    at_least "changes of the route" "$(grep -c "$SERVICE4 .*dev" "$SCRATCH/monitor1.out")" "$FLAPS"
    at_least "downloads still under way" "$(still_running "$crowd")" 1
    whole "$crowd"
    outcomes_tcp 6
    at_least "broken of 6 over kernel TCP" "$TCP_BROKEN" 1
    sites_answered 2
}
# still_running COUNT: how many of COUNT downloads have not ended.
still_running() {
    local n count=0
    for n in $(seq "$1"); do ! running "get$n" || count=$((count + 1)); done
    echo "$count"
}

# The nearest of four sites is withdrawn, then the next and the next, then the first is back; over both
# families at once. Nothing restarts, for the client's own address is the same.
scenario_anycast_four() {
    local n before service answered
    anycast 4
    begin 12 "$SERVICE4" "$SERVICE6"
    under_way 8
    at_least "requests at the nearest site" "$(metric server1 headwater_requests_total)" 1
    for n in 2 3 4; do
        equal "requests at site $n" "$(metric "server$n" headwater_requests_total)" 0
    done
    for n in 1 2 3; do
        before=$(now_ms)
        drain "$n"
        for service in "$SERVICE4" "$SERVICE6"; do
            at_most "ms until $service had moved to site $((n + 1))" \
                "$(moved "$n" "site$((n + 1))" "$before" "$service")" 300
        done
        sleep 0.7
    done
    answered=$(metric server1 headwater_requests_total)
    before=$(now_ms)
    kill -USR2 "${TOPOLOGY_PIDS[server1]}"
    for service in "$SERVICE4" "$SERVICE6"; do
        at_most "ms until $service was back" "$(moved 1 server1 "$before" "$service")" 2000
    done
    whole 12
    at_least "requests at the nearest site since" "$(($(metric server1 headwater_requests_total) - answered))" 100
    sites_answered 4
    for n in 1 2 3 4; do
        before=$(jq -s --arg n "$n" 'map(.rtt_min_us_by_server[$n] // empty) | min' "$SCRATCH"/stats*)
        at_least "smallest round trip to site $n, us" "$before" "$(path_us "$n")"
        at_most "smallest round trip to site $n, us" "$before" $(((n - 1) * 10000 + 35000))
    done
    jq -s -c 'map(.transitions | to_entries[]) | group_by(.key) | map({(.[0].key): map(.value) | add}) | add' \
        "$SCRATCH"/stats* | tee "$SCRATCH/transitions"
    equal "restarts" "$(stat_of "$SCRATCH/transitions" '.restart // 0')" 0
}
