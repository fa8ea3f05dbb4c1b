# shellcheck shell=bash
#
# Servers that die, come back, or take turns. Sourced by test-netns.sh.

# SIGKILL and restart at 20 random places of one transfer.
scenario_kill_restart() {
    local size=60 places place kills=0
    fleet 1
    object "${size}M"
    serve 1
    rate 100mbit
    GET_SECONDS=180 start_get download --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.101/object
    follow download
    mapfile -t places < <(awk -v seed="$SEED" -v size="$((size * 1048576))" \
        'BEGIN { srand(seed); for (i = 0; i < 20; i++) printf "%.0f\n", rand() * size * 0.97 }' |
        sort -n)
    for place in "${places[@]}"; do
        has_received "$place" || fail "it ended before kill $((kills + 1))"
        kill9 server1
        serve 1
        kills=$((kills + 1))
    done
    finish download || fail "exit status $?: $(cat "$SCRATCH/download.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    equal "kills" "$kills" 20
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    jq -c '{seconds, timeouts, longest_stall_ms}' "$SCRATCH/stats"
}

# Two servers with the same keys behind a per-packet round robin; then either is killed in
# mid-transfer and the router, after the half second of a health check, withdraws it.
scenario_round_robin() {
    local size=40 dead alive
    fleet 2
    object "${size}M"
    serve 1
    serve 2
    spray 1 2
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" http://10.77.2.100/object
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    shares "$SCRATCH/stats"
    equal "handshakes" "$(stat_of "$SCRATCH/stats" .handshakes)" 1
    get --stats "$SCRATCH/stats" -o "$SCRATCH/got" "http://[fd77:2::100]/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got"
    shares "$SCRATCH/stats"
    rate 100mbit
    for dead in 1 2; do
        alive=$((3 - dead))
        spray 1 2
        start_get download --stats "$SCRATCH/stats" -o "$SCRATCH/got$dead" http://10.77.2.100/object
        follow download
        has_received $((size * 1048576 / 3)) || fail "it ended before the kill"
        kill9 "server$dead"
        sleep 0.5
        spray "$alive"
        finish download || fail "server $dead killed: exit status $?"
        identical "$SCRATCH/root/object" "$SCRATCH/got$dead"
        jq -c '{seconds, timeouts, handshakes, longest_stall_ms, by_server}' "$SCRATCH/stats"
        serve "$dead"
    done
}
# shares STATS: both servers answered about half of the packets.
shares() {
    local share
    share=$(jq '.by_server | ."1" / (."1" + ."2")' "$1")
    at_least "share of server 1" "$share" 0.4
    at_most "share of server 1" "$share" 0.6
}

# The harsh case: nobody withdraws the dead server, so that every other request is lost.
scenario_round_robin_one_dead() {
    local dead
    fleet 2
    object 200000
    serve 1
    serve 2
    spray 1 2
    for dead in 1 2; do
        kill9 "server$dead"
        GET_SECONDS=240 get --stats "$SCRATCH/stats" -o "$SCRATCH/got$dead" http://10.77.2.100/object
        identical "$SCRATCH/root/object" "$SCRATCH/got$dead"
        jq -c '{seconds, timeouts, handshakes, by_server}' "$SCRATCH/stats"
        serve "$dead"
    done
}
