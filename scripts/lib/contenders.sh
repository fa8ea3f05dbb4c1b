# shellcheck shell=bash
#
# The parts that all comparisons with TCP share: objects, servers of both, and versions. Sourced
# after traffic.sh.

# calculate EXPRESSION: by awk, up to six digits after the point.
calculate() {
    awk "BEGIN { x = sprintf(\"%.6f\", $1); sub(/\\.?0+\$/, \"\", x); print x }"
}

# objects LARGE_BYTES: the object of long downloads, which has no blocks on the disk, and small ones.
objects() {
    local name
    mkdir "$SCRATCH/root"
    truncate -s "$1" "$SCRATCH/root/object"
    for name in 1kB 10kB 100kB 1MB; do truncate -s "$name" "$SCRATCH/root/$name"; done
}

# contenders_up N... [-- OPTION...]: our server, with OPTIONs, and nginx in each serverN. A large file is
# digested once, which must not fall into a run.
contenders_up() {
    local n servers=()
    while (($# > 0)) && [[ $1 != -- ]]; do
        servers+=("$1")
        shift
    done
    (($# == 0)) || shift
    "$HEADWATER" keygen --out "$SCRATCH/keys"
    for n in "${servers[@]}"; do
        serve "$n" "$@"
        start_nginx "$n"
        in_ns "server$n" curl -sI -o /dev/null "http://10.77.2.10$n/object"
    done
    for n in "${servers[@]}"; do
        until_true 120 test -s "$SCRATCH/digests$n" || die "the object is not digested"
    done
}

# congestion_route ROLE PREFIX GATEWAY NAME: the kernel's TCP at ROLE controls congestion towards
# PREFIX by NAME; unlike the sysctl, a route may name any that the kernel has.
congestion_route() {
    ip -n "$TOPOLOGY-$1" route replace "$2" via "$3" congctl "$4"
}

# congestion_seen ROLE...: the congestion control of the first connection of port 80 seen there.
congestion_seen() {
    local role
    # shellcheck disable=SC2317 # called by name
    seen_at() {
        for role in "$@"; do
            in_ns "$role" ss -tinHO state established 'sport = :80'
        done | awk '{ for (i = 2; i <= NF; i++) if ($i ~ /^(wscale|rto):/) { seen = $(i - 1); break } }
            END { if (seen == "") exit 1; print seen }'
    }
    until_true 5 seen_at "$@" || die "no connection at $*"
}

# ask_link A-B COMMAND
ask_link() { "$HEADWATER" link-control "$SCRATCH/link-$1" "$2"; }

# settle A-B RTT_MS: until nothing of the last run is under way there.
settle() {
    local link=$1
    # shellcheck disable=SC2317 # called by name
    link_is_empty() { ask_link "$link" show | jq -e '[.ab, .ba | .now | .queued_packets + .in_flight_packets] | add == 0' >/dev/null; }
    sleep "$(calculate "$2 * 0.0015 + 0.05")"
    until_true 20 link_is_empty || die "packets of the last run do not cease"
    ask_link "$link" reset >"$SCRATCH/reset"
}
