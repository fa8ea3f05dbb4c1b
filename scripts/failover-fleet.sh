#!/usr/bin/env bash
#
# make bench-failover: many downloads through one redirector over four servers, of which one is taken
# away when all have begun and a fifth more of all bytes has come; beside them downloads by curl through
# the same redirector from the same servers, whose TCP is that of smoltcp.
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
# Prints a table; the records, with figures of each download, are in OUT/failover-fleet.jsonl. Fails if a
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

# count_downloads: counters at the router for the bytes of each download, read all the time.
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
    start samples router nice -n -15 "$LAB" probe counters downloads 40
    until_true 10 test -s "$SCRATCH/samples.out" || die "no samples"
}

# survive HOW: adds the record of one fleet.
survive() {
    local n before after noticed
    topology_up redirected 4
    content "${OBJECT_MIB}M"
    for n in 1 2 3 4; do behind "$n"; done
    redirect_config 1 -- 1 2 3 4
    redirect 1
    versions client server1
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
    "$HEADWATER" redirect-control "$SCRATCH/r1" show >"$SCRATCH/redirector"
    record survived case="$1" began="$before" taken="$after" noticed="$noticed" gone=$GONE \
        broken="$BROKEN" transfers="$TRANSFERS" handshakes="$HANDSHAKES" tcp_broken="$TCP_BROKEN" \
        downloads="$DOWNLOADS"
    topology_down
}

main() {
    local how
    settings failover-fleet "$@"
    become_root "$@"
    need ip tc nft jq curl ethtool python3
    need_program
    mkdir -p "$OUT"
    for how in $WAYS; do
        echo "failover-fleet: $how, under $TRANSFERS downloads" >&2
        # In a shell of its own, whose exit removes the fleet.
        (survive "$how")
    done
    report failover-fleet
}

main "$@"
