# shellcheck shell=bash
#
# Many downloads at once of SCRATCH/root/object from the service address, by our client and by curl.
# Sourced after traffic.sh, for topologies with SERVICE4.

# begin COUNT [SERVICE...]: so many downloads of the object at once, from the services by turns
# (SERVICE4 alone), each a process with an address of its own, 10.77.1.N or fd77:1::N.
begin() {
    local count=$1 n service address
    shift
    (($# > 0)) || set -- "$SERVICE4"
    for n in $(seq "$count"); do
        service=${*:(n - 1) % $# + 1:1}
        address="10.77.1.$n"
        [[ $service != *:* ]] || service="[$service]" address="fd77:1::$n"
        start "get$n" client timeout --foreground 120 "$HEADWATER" get --tun "c$n" \
            --address "$address" --silent --show-error --stats "$SCRATCH/stats$n" \
            -o "$SCRATCH/got$n" "http://$service/object"
    done
}
# begin_tcp COUNT: the kernel's TCP, through the same redirector to the same servers.
begin_tcp() {
    local n
    for n in $(seq "$1"); do
        start "curl$n" client curl -sS -m 60 --speed-limit 1 --speed-time 10 \
            -o "$SCRATCH/theirs$n" "http://$SERVICE4/object"
    done
}
# arrived BYTES: until so much more has come to the client than since `start_counting NEIGHBOUR`, over
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
# outcomes_tcp COUNT: the same of the kernel's TCP; sets TCP_BROKEN.
outcomes_tcp() {
    local n
    TCP_BROKEN=0
    for n in $(seq "$1"); do
        { finish "curl$n" && cmp -s "$SCRATCH/root/object" "$SCRATCH/theirs$n"; } ||
            TCP_BROKEN=$((TCP_BROKEN + 1))
    done
}

# first_since MS FILE PROGRAM: when, in ms, a line of FILE says it for the first time since; the program
# of `sed -n` prints the times of the lines that do.
first_since() {
    local stamp at
    while read -r stamp; do
        at=$(date -d "$stamp" +%s%3N)
        ((at < $1)) || { echo "$at" && return; }
    done < <(sed -n "$3" "$2")
    return 1
}

# says_down N SINCE: when, in ms, redirector 1 says for the first time since that server N is down; fails
# until it does.
says_down() {
    first_since "$2" "$SCRATCH/redirector1.err" "s/^\[\([^ ]*\) .*backend server$1 was .* is down.*/\1/p"
}
