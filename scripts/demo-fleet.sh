#!/usr/bin/env bash
#
# What happens to many downloads when servers come and go, ours and curl's through the same redirector
# (or the same anycast address) to the same servers. Prints a table, and draws throughput by server over
# time in out/demo-NAME.svg; figures are in out/demo-NAME.json.
#
#   demo-fleet.sh failover    one of four servers is killed, and comes back
#   demo-fleet.sh balance     packets take turns over two servers, four, and one
#   demo-fleet.sh anycast     the near site of two is withdrawn, comes back, and falls silent
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/crowd.sh
source scripts/lib/crowd.sh

readonly RATE=200mbit
EVENTS='[]'
OBJECT_MIB=12

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# files: the object, and the keys of the servers.
files() {
    mkdir "$SCRATCH/root"
    head -c "$((OBJECT_MIB * 1048576))" /dev/urandom >"$SCRATCH/root/object"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
}

# count_shares ROLE DEVICE...: counts at ROLE what comes of the service by DEVICE, by protocol, and
# samples it.
count_shares() {
    local role=$1 device counters='' rules='' protocol
    shift
    for device in "$@"; do
        for protocol in udp tcp; do
            counters+="counter $protocol-$device { }"$'\n'
            rules+="iifname \"$device\" ip saddr $SERVICE4 meta l4proto $protocol counter name $protocol-$device"$'\n'
        done
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
seconds() { awk -v ms="$(($(now_ms) - BEGAN))" 'BEGIN { printf "%.2f", ms / 1000 }'; }

# both: all downloads begin.
both() {
    say "$DOWNLOADS downloads by headwater get and $DOWNLOADS by curl, $OBJECT_MIB MiB each, over $RATE"
    BEGAN=$(now_ms)
    begin "$DOWNLOADS"
    begin_tcp "$DOWNLOADS"
}

# result NAME TITLE DEVICE...: waits for all, prints the table, draws the picture.
result() {
    local name=$1 title=$2 stall
    shift 2
    outcomes "$DOWNLOADS"
    outcomes_tcp "$DOWNLOADS"
    sleep 0.3
    stop shares
    stall=$(jq -s 'map(.longest_stall_ms) | max | round' "$SCRATCH"/stats*)
    mkdir -p "$OUT"
    jq -s --arg title "$title" --argjson began "$BEGAN" --argjson events "$EVENTS" \
        --argjson count "$DOWNLOADS" --argjson ours "$BROKEN" --argjson theirs "$TCP_BROKEN" \
        --argjson handshakes "$HANDSHAKES" --argjson stall "$stall" '
        . as $samples
        | def series($protocol): $ARGS.positional | map({(.): [
            ($samples[0].bytes["\($protocol)-\(.)"]) as $zero
            | . as $device | $samples[]
            | [.time - $began / 1000, .bytes["\($protocol)-\($device)"] - $zero]
            | select(.[0] >= -0.2)]}) | add;
        {title: $title, events: $events, longest_stall_ms: $stall, handshakes: $handshakes, contenders: [
            {name: "headwater get", broken: $ours, servers: series("udp"),
             outcome: "\($ours) of \($count) broken, \($handshakes) handshakes"},
            {name: "curl, kernel TCP", broken: $theirs, servers: series("tcp"),
             outcome: "\($theirs) of \($count) broken"}]}' \
        "$SCRATCH/shares.out" --args "$@" >"$OUT/demo-$name.json"
    scripts/lab.sh report fleet "$OUT/demo-$name.json" "$OUT/demo-$name.svg"
    give_back
    say "Result"
    row() { printf '  %-30s %-16s %s\n' "$@"; }
    row "" "headwater get" "curl, kernel TCP"
    row "downloads broken, of $DOWNLOADS" "$BROKEN" "$TCP_BROKEN"
    row "handshakes" "$HANDSHAKES" "-"
    row "longest time without progress" "$stall ms" "-"
    echo
    echo "  picture: $OUT/demo-$name.svg   figures: $OUT/demo-$name.json"
    ((BROKEN == 0)) || die "a download did not survive"
}

failover() {
    local n
    topology_up redirected 4
    files
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 -- 1 2 3 4
    redirect 1
    rate "$RATE"
    count_shares router server1 server2 server3 server4
    both
    sleep 3
    event "kill -9 server3" kill9 server3
    sleep 3
    event "server3 is back" behind 3
    result failover "One of four servers is killed under $DOWNLOADS downloads" server1 server2 server3 server4
    sed -n 's/^\[[^ ]*T\([^ ]*\)Z .*\] \(backend .* is .*\)/  redirector, \1: \2/p' "$SCRATCH/redirector1.err"
}

balance() {
    local n
    topology_up redirected 4
    files
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 policy=spread -- 1 2
    redirect 1
    rate "$RATE"
    count_shares router server1 server2 server3 server4
    both
    sleep 3
    event "four servers" redirect_config 2 policy=spread -- 1 2 3 4
    sleep 3
    event "three are drained" redirect_config 3 policy=spread -- 1 2/draining 3/draining 4/draining
    result balance "Packets take turns over two servers, four, and one" server1 server2 server3 server4
}

anycast() {
    OBJECT_MIB=20
    topology_up anycast 2 --delay 5ms
    files
    at_all_sites
    tc -n "$TOPOLOGY-site1" qdisc add dev client root tbf rate "$RATE" burst 128kb latency 20ms
    count_shares site1 server1 site2
    both
    sleep 2
    event "near site withdrawn" kill -USR1 "${TOPOLOGY_PIDS[server1]}"
    sleep 2
    event "back" kill -USR2 "${TOPOLOGY_PIDS[server1]}"
    sleep 3
    event "falls silent" silence_site 1
    result anycast "Two sites, one address: the near one goes, comes back, falls silent" server1 site2
}

settings demo-fleet "$@"
become_root "$@"
need ip tc nft jq curl python3 bird
need_program
"$PART"
