#!/usr/bin/env bash
#
# make bench-failover: many downloads through one redirector over four servers, of which one is taken
# away when all have begun and a fifth more of all bytes has come; beside them downloads by curl, over the kernel's TCP,
# through the same redirector from the same servers.
#
#   kill         SIGKILL to its process
#   namespace    its process, its namespace and its link are gone
#   silent       the router drops all that is to it and from it
#
# `noticed` is how long after the beginning of that the redirector says that the server is down. A
# `stall` is the longest time without a byte that ended in the three seconds after it, by counters of the
# router that are looked at every 40 ms: of downloads that the server had, and of the others, which
# share the same bottleneck and stand still for its sake. `2 RTT` are two of the median round trip, queues
# included. `verdicts` are how often the redirector has changed its mind about each server: more than one
# about that server, or any about another, is a server too busy to answer in time, which breaks
# connections of TCP as well.
#
#   failover-fleet.sh [kill|namespace|silent...]      all by default
#
# All share RATE with a buffer of BUFFER. With little of both each download has room for a packet or two,
# hardly moves but by timeouts, and opens another connection after four in a row, whatever the servers
# do: with 50mbit and 20ms ten in a hundred do so.
#
# Prints a table; OUT/failover-fleet.json has all figures, those of each download among them. Fails if a
# download of ours breaks or has other bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/crowd.sh
source scripts/lib/crowd.sh

readonly GONE=3

take_away() {
    case $1 in
    kill) kill9 "server$GONE" ;;
    namespace) vanish "$GONE" ;;
    silent) sever "$GONE" ;;
    esac
}

# count_downloads: counters at the router for what each download gets, looked at all the time.
count_downloads() {
    local n counters='' names=''
    for n in $(seq "$TRANSFERS"); do
        counters+="counter c$n { }"$'\n'
        names+="10.77.1.$n : \"c$n\", "
    done
    in_ns router nft -f - <<RULES
table inet downloads {
$counters
    chain forward {
        type filter hook forward priority filter; policy accept;
        oifname "client" meta l4proto udp counter name ip daddr map { ${names%, } }
    }
}
RULES
    start samples router nice -n -15 "$PWD/scripts/lab.sh" probe counters downloads 40
    until_true 10 test -s "$SCRATCH/samples.out" || die "no samples"
}

# survive HOW: the figures of one fleet, as a line of JSON.
survive() {
    local n before after noticed changes stalls
    topology_up redirected 4
    content "${OBJECT_MIB}M"
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 -- 1 2 3 4
    redirect 1
    watch_states 1
    offloads off
    narrow router client "$RATE" "$BUFFER"
    count_downloads
    begin "$TRANSFERS"
    begin_tcp "$DOWNLOADS"
    # From when all have been started: that takes a busy machine some seconds.
    start_counting router
    arrived $(((TRANSFERS + DOWNLOADS) * OBJECT_MIB * 1048576 * 2 / 10))
    before=$(now_ms)
    take_away "$1"
    after=$(now_ms)
    until_true 5 seen_down "$GONE" "$before" >"$SCRATCH/noticed" || die "the redirector does not notice"
    noticed=$(tail -n 1 "$SCRATCH/noticed")
    outcomes "$TRANSFERS" >&2
    outcomes_tcp "$DOWNLOADS"
    stop samples
    changes=$("$HEADWATER" redirect-control "$SCRATCH/r1" show | jq -c '[.backends[].changes]')
    stalls=$(scripts/lab.sh report stalls "$SCRATCH/samples.out" "$before" "$SCRATCH/stats" "$GONE")
    jq -s -c --arg how "$1" --argjson stalls "$stalls" --argjson noticed "$((noticed - before))" \
        --argjson taken "$((after - before))" --argjson broken "$BROKEN" \
        --argjson transfers "$TRANSFERS" --argjson downloads "$DOWNLOADS" \
        --argjson handshakes "$HANDSHAKES" --argjson changes "$changes" --argjson tcp_broken "$TCP_BROKEN" '
        def median: sort | .[(length - 1) / 2 | floor];
        {how: $how, transfers: $transfers, broken: $broken, identical: ($transfers - $broken),
         handshakes: $handshakes, tcp_downloads: $downloads, tcp_broken: $tcp_broken,
         changes: $changes, noticed_ms: $noticed, taken_away_ms: $taken,
         rtt_ms: ([.[].rtt_smoothed_us / 1000] | median),
         stalls: $stalls, each: .}' "$SCRATCH"/stats*
    topology_down
}

main() {
    local how figures=''
    settings failover-fleet "$@"
    become_root "$@"
    need ip tc nft jq curl ethtool python3 column
    need_program
    mkdir -p "$OUT"
    for how in $WAYS; do
        echo "failover-fleet: $how, under $TRANSFERS downloads" >&2
        # In a shell of its own, whose exit removes the fleet.
        figures+=$(survive "$how")$'\n'
    done
    jq -s . <<<"$figures" >"$OUT/failover-fleet.json"
    give_back
    jq -r '
        def ms: if . == null then "-" else round | tostring end;
        ["server taken by", "broken", "identical", "handshakes", "curl broken", "verdicts", "noticed ms", "2 RTT ms",
            "had by it", "stall p50", "p99", "max ms", "others p50", "p99", "max ms"],
        (.[] | [.how, "\(.broken) of \(.transfers)", .identical, .handshakes,
            "\(.tcp_broken) of \(.tcp_downloads)", (.changes | join(" ")),
            .noticed_ms, (2 * .rtt_ms | ms),
            .stalls.of_the_dead.count, (.stalls.of_the_dead | .p50_ms, .p99_ms, .max_ms | ms),
            (.stalls.of_others | .p50_ms, .p99_ms, .max_ms | ms)])
        | join("\t")' "$OUT/failover-fleet.json" | column -t -s $'\t'
    ((0 == $(jq 'map(.broken) | add' "$OUT/failover-fleet.json"))) || die "a download did not survive"
}

main "$@"
