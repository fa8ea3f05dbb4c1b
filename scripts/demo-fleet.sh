#!/usr/bin/env bash
#
# Many downloads while servers come and go. Prints a table, and draws throughput by server
# over time in out/demo-NAME.svg; figures are in out/demo-NAME.json.
#
#   demo-fleet.sh failover    one of four servers is killed, and comes back
#   demo-fleet.sh balance     two servers, four, and one
#   demo-fleet.sh anycast     the near site of two is withdrawn, comes back, and falls silent
#
# Three contenders, one after another, each alone on the same links and through the same events:
#
#   headwater get                         from `headwater serve`, through `headwater redirect`
#   curl, smoltcp's TCP by serve          the same servers and redirector, which serve curl by the TCP of
#                                         smoltcp
#   curl + nginx, kernel TCP              nginx at the service address of the same machines, with CUBIC;
#                                         in the redirector's place its kernel forwards packets, each
#                                         flow to one server (ECMP with resilient hashing). A dead server
#                                         is taken out of the group after 150 ms, by a health check as
#                                         quick as our heartbeats
#
# With anycast, the sites and their routes are the same for all; a health check announces and withdraws
# nginx.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/contenders.sh
source scripts/lib/contenders.sh
# shellcheck source=scripts/lib/crowd.sh
source scripts/lib/crowd.sh

readonly RATE=200mbit
readonly LINK="Each alone, one after another, over one link of 200 Mbit/s and 20 ms of queue; bytes are counted before the queue"
# Seconds without a byte after which curl gives up.
readonly PATIENCE_S=5
# Seconds from the death of a server until nginx's health check takes it out: three misses of 50 ms.
readonly HEALTH_CHECK_S=0.15
OBJECT_MIB=8
CONTENDERS=() ROWS=() GENERATION=1 FORWARDING=

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# count_shares ROLE DEVICE...: counts at ROLE the bytes of the service that come by DEVICE, and samples them.
count_shares() {
    local role=$1 device counters='' rules=''
    shift
    for device in "$@"; do
        counters+="counter from-$device { }"$'\n'
        rules+="iifname \"$device\" ip saddr $SERVICE4 counter name from-$device"$'\n'
    done
    in_ns "$role" nft -f - <<RULES
table inet shares {
$counters
    chain forward {
        type filter hook forward priority filter; policy accept;
$rules
    }
}
RULES
    start shares "$role" nice -n -15 "$PWD/scripts/lab.sh" probe counters shares 100
    until_true 10 test -s "$SCRATCH/shares.out" || die "no samples"
}

# event TEXT COMMAND...: does it, and notes when it was done.
event() {
    local text=$1 at
    shift
    "$@"
    at=$(seconds)
    echo "  $at s: $text"
    EVENTS=$(jq -c --arg text "$text" --argjson at "$at" '. + [[$at, $text]]' <<<"$EVENTS")
}
# at SECONDS: waits until so long after the start of the downloads.
at() { sleep "$(awk -v s="$1" -v began="$BEGAN" -v now="$(now_ms)" \
    'BEGIN { left = s - (now - began) / 1000; print (left > 0 ? left : 0) }')"; }
seconds() { awk -v ms="$(($(now_ms) - BEGAN))" 'BEGIN { printf "%.2f", ms / 1000 }'; }

# contend NAME SERVER BEGIN EVENTS: one contender's downloads, begun by BEGIN, and what EVENTS does
# meanwhile; processes of servers are SERVER1, SERVER2, ... The first is ours.
contend() {
    local name=$1 SERVER=$2 begin=$3 events=$4 outcome handshakes=- stall=- exits=- broken
    say "$name: $DOWNLOADS downloads of $OBJECT_MIB MiB over $RATE"
    EVENTS='[]'
    BEGAN=$(now_ms)
    "$begin" "$DOWNLOADS"
    [[ $SERVER != nginx ]] || name+=" ($(congestion_seen server1 server2))"
    "$events"
    if [[ $begin == begin ]]; then
        outcomes "$DOWNLOADS"
        broken=$BROKEN handshakes=$HANDSHAKES
        stall="$(jq -s 'map(.longest_stall_ms) | max | round' "$SCRATCH"/stats*) ms"
        outcome="$broken of $DOWNLOADS broken, $handshakes handshakes"
    else
        outcomes_tcp "$DOWNLOADS"
        broken=$TCP_BROKEN exits=$TCP_EXITS
        outcome="$broken of $DOWNLOADS broken${FORWARDING:+; $FORWARDING}"
    fi
    sleep 0.5
    echo "  $outcome"
    ROWS+=("$name|$broken|$exits|$handshakes|$stall")
    CONTENDERS+=("$(jq -n --arg name "$name" --arg outcome "$outcome" --argjson passed "$((broken == 0))" \
        --argjson broken "$broken" --arg exits "$exits" --arg handshakes "$handshakes" --arg stall "$stall" \
        --argjson events "$EVENTS" --argjson began "$BEGAN" --argjson ended "$(now_ms)" '
        {name: $name, outcome: $outcome, passed: ($passed == 1), broken: $broken, curl_exit_statuses: $exits,
         handshakes: (try ($handshakes | tonumber) catch null), longest_stall: $stall, events: $events, began_ms: $began, ended_ms: $ended}')")
}

# nginx_up N: nginx at the service address of server N's kernel, which has it instead of our device, with
# CUBIC towards clients.
nginx_up() {
    congestion_route "server$1" default "10.77.2$1.1" cubic
    ip -n "$TOPOLOGY-server$1" addr replace "$SERVICE4/32" dev lo
    start_nginx "$1" "$SERVICE4"
}

# result NAME TITLE DEVICE[=LABEL]...: prints the table, draws the picture; LABEL names the device there.
result() {
    local name=$1 title=$2 row
    shift 2
    stop shares
    mkdir -p "$OUT"
    # The samples of a contender's own time hold the bytes of its servers.
    printf '%s\n' "${CONTENDERS[@]}" | jq -s --arg title "$title" --arg link "$LINK" \
        '{title: $title, link: $link,
          contenders: map(. + {counters: ($ARGS.positional | map(split("=")
              | {(.[-1]): "from-\(.[0])"}) | add)})}' \
        --args "$@" >"$OUT/demo-$name.json"
    scripts/lab.sh report fleet "$OUT/demo-$name.json" "$OUT/demo-$name.svg" "$SCRATCH/shares.out"
    give_back
    say "Result"
    for row in "|broken of $DOWNLOADS|curl's exit statuses|handshakes|longest stall" "${ROWS[@]}"; do
        IFS='|' read -r -a row <<<"$row"
        printf '  %-34s %-13s %-21s %-11s %s\n' "${row[@]}"
    done
    echo
    echo "  picture: $OUT/demo-$name.svg   figures: $OUT/demo-$name.json"
    [[ ${ROWS[0]} == *"|0|"* ]] || die "a download did not survive"
}

# fleet [KEY=VALUE...] -- BACKEND...: four servers behind a redirector, and the wires for plain forwarding.
fleet() {
    local n
    topology_up redirected 4
    content "${OBJECT_MIB}M"
    for n in 1 2 3 4; do
        lane "$n"
        behind "$n"
    done
    redirect_config "$GENERATION" "$@"
    redirect 1
    watch_states 1
    rate "$RATE"
    count_shares router server1 server2 server3 server4
}

# plainly N...: nginx takes the place of our servers, the kernel that of our redirector, which sends to
# servers N...
plainly() {
    local n
    stop states1
    stop redirector1
    for n in 1 2 3 4; do
        stop "server$n"
        nginx_up "$n"
    done
    forward_plainly "$@"
    FORWARDING="plain forwarding by flow (resilient ECMP)"
}

failover() {
    fleet -- 1 2 3 4
    contend "headwater get" server begin lose_server3
    contend "curl, smoltcp's TCP by serve" server begin_tcp lose_server3
    plainly 1 2 3 4
    contend "curl + nginx, kernel TCP" nginx begin_tcp lose_server3
    result failover "One of four servers is killed under $DOWNLOADS downloads" server1 server2 server3 server4
}
# shellcheck disable=SC2317 # called by name
lose_server3() {
    at 1.5
    event "kill -9 server3" kill9 "${SERVER}3"
    if [[ $SERVER == nginx ]]; then
        sleep "$HEALTH_CHECK_S"
        forward_plainly 1 2 4
    else
        until_true 5 seen_down 3 "$BEGAN" >"$SCRATCH/noticed" || die "the redirector does not notice"
        echo "  redirector: server3 down $(awk -v at="$(head -n 1 "$SCRATCH/noticed")" -v began="$BEGAN" \
            'BEGIN { printf "%.2f", (at - began) / 1000 }') s after the start"
    fi
    at 3.5
    event "back" come_back
}
# shellcheck disable=SC2317 # called by name
come_back() {
    if [[ $SERVER == server ]]; then
        behind 3
    else
        start_nginx 3 "$SERVICE4"
        forward_plainly 1 2 3 4
    fi
}

balance() {
    fleet policy=spread -- 1 2
    contend "headwater get" server begin two_four_one
    balanced 1 2
    contend "curl, smoltcp's TCP by serve" server begin_tcp two_four_one
    plainly 1 2
    contend "curl + nginx, kernel TCP" nginx begin_tcp two_four_one
    result balance "Two servers, four, and one under $DOWNLOADS downloads" server1 server2 server3 server4
}
# shellcheck disable=SC2317 # called by name
two_four_one() {
    at 1.5
    event "four servers" balanced 1 2 3 4
    at 3.5
    event "three are drained" balanced 1 2/draining 3/draining 4/draining
}
# balanced BACKEND...: our redirector, or the kernel in its place, sends packets to these.
balanced() {
    local active=() backend
    if [[ ${SERVER:-server} == server ]]; then
        redirect_config "$((++GENERATION))" policy=spread -- "$@"
        control reload >"$SCRATCH/reload"
    else
        for backend in "$@"; do [[ $backend == */* ]] || active+=("$backend"); done
        forward_plainly "${active[@]}"
    fi
}

anycast() {
    OBJECT_MIB=12
    topology_up anycast 2 --delay 5ms
    content "${OBJECT_MIB}M"
    at_all_sites
    narrow site1 client "$RATE"
    count_shares site1 server1 site2
    contend "headwater get" server begin lose_site1
    mend_site 1
    routes_at_home "$SERVICE4"
    contend "curl, smoltcp's TCP by serve" server begin_tcp lose_site1
    mend_site 1
    for n in 1 2; do
        stop "server$n"
        nginx_up "$n"
        announce_at "$n"
    done
    routes_at_home "$SERVICE4"
    contend "curl + nginx, kernel TCP" nginx begin_tcp lose_site1
    result anycast "Two sites, one address: the near one goes, comes back, falls silent" \
        "server1=near site" "site2=far site"
}
# shellcheck disable=SC2317 # called by name
lose_site1() {
    at 1.5
    event "near site withdrawn" withdraw
    at 3
    event "back" come_home
    at 5.5
    event "falls silent" silence_site 1
}
# shellcheck disable=SC2317 # called by name
withdraw() {
    if [[ $SERVER == server ]]; then kill -USR1 "${TOPOLOGY_PIDS[server1]}"; else withdraw_at 1; fi
}
# shellcheck disable=SC2317 # called by name
come_home() {
    if [[ $SERVER == server ]]; then kill -USR2 "${TOPOLOGY_PIDS[server1]}"; else announce_at 1; fi
}

settings demo-fleet "$@"
become_root "$@"
need ip tc nft ss jq curl nginx python3 bird
need_program
"$PART"
