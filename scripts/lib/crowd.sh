# shellcheck shell=bash
#
# Many downloads at once of SCRATCH/root/object from the service address, by our client and by curl.
# Sourced after traffic.sh, for topologies with SERVICE4.

# begin COUNT [SERVICE...]: COUNT downloads of the object at once, from the services by turns
# (SERVICE4 alone), each a process with an address of its own, 10.77.1.N or fd77:1::N.
begin() {
    local count=$1 n service address
    shift
    (($# > 0)) || set -- "$SERVICE4"
    for n in $(seq "$count"); do
        service=${*:(n - 1) % $# + 1:1}
        address="10.77.1.$n"
        [[ $service != *:* ]] || service="[$service]" address="fd77:1::$n"
        start "get$n" client timeout --foreground 120 "$HEADWATER" get --transport trickles --tun "c$n" \
            --address "$address" --silent --show-error --stats "$SCRATCH/stats$n" \
            -o "$SCRATCH/got$n" "http://$service/object"
    done
}
# begin_tcp COUNT: the same by curl, whose kernel's TCP meets the server at SERVICE4: `serve`, with
# the TCP of smoltcp, or nginx, with that of its kernel.
begin_tcp() {
    local n
    for n in $(seq "$1"); do
        start "curl$n" client curl -sS -m 60 --speed-limit 1 --speed-time "${PATIENCE_S:-10}" \
            -o "$SCRATCH/theirs$n" "http://$SERVICE4/object"
    done
}
# arrived BYTES: until the client has received that many since `start_counting NEIGHBOUR`, over
# its link to that neighbour.
start_counting() {
    COUNTED_LINK=$1
    read -r _ COUNTED _ < <(link_totals client "$COUNTED_LINK")
}
arrived() {
    local received
    while read -r _ received _ < <(link_totals client "$COUNTED_LINK"); do
        ((received - COUNTED < $1)) || break
        sleep 0.02
    done
}
# outcomes COUNT: waits for all; sets BROKEN, how many ended badly or have other bytes, and HANDSHAKES,
# the sum of the others'.
outcomes() {
    local n
    BROKEN=0 HANDSHAKES=0
    for n in $(seq "$1"); do
        if finish "get$n" && cmp "$SCRATCH/root/object" "$SCRATCH/got$n"; then
            HANDSHAKES=$((HANDSHAKES + $(jq .handshakes "$SCRATCH/stats$n")))
        else
            echo "download $n: $(cat "$SCRATCH/get$n.err")"
            BROKEN=$((BROKEN + 1))
        fi
    done
}
# outcomes_tcp COUNT: the same of curl's; sets TCP_BROKEN, and TCP_EXITS, how many ended with which exit
# status, such as "11 x 0, 5 x 56". One with the wrong bytes is broken whatever its status.
outcomes_tcp() {
    local n status statuses=()
    TCP_BROKEN=0
    for n in $(seq "$1"); do
        status=0
        finish "curl$n" || status=$?
        statuses+=("$status")
        ((status == 0)) && cmp -s "$SCRATCH/root/object" "$SCRATCH/theirs$n" || TCP_BROKEN=$((TCP_BROKEN + 1))
    done
    # shellcheck disable=SC2034 # for the caller
    TCP_EXITS=$(printf '%s\n' "${statuses[@]}" | sort -n | uniq -c | awk '{ print $1 " x " $2 }' | paste -sd , |
        sed 's/,/, /g')
}

# watch_states N: looks at the states of redirector N's backends all the time, through its control socket;
# SCRATCH/statesN.out has a line of JSON for each change.
watch_states() {
    start "states$1" "redirector$1" nice -n -15 "$PWD/scripts/lab.sh" probe backend-states "$SCRATCH/r$1" 5
    until_true 10 test -s "$SCRATCH/states$1.out" || die "redirector $1 does not show its states"
}

# seen_down N SINCE: when, in ms, redirector 1 had server N down for the first time since; fails until it
# has. `watch_states 1` looks.
seen_down() {
    jq -s -e --arg server "server$1" --argjson since "$2" \
        'first(.[] | select(.time >= $since and .states[$server] == "down") | .time)' "$SCRATCH/states1.out"
}
