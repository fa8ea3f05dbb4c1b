# shellcheck shell=bash
#
# client -- N emulated links -- server1: a service with N addresses, each behind a link of its own.
#
#   topology_up addresses DELAY...     one way, of each link in order
#   address_delay N DELAY              another delay of a link
#   address N, address6 N              the address of the server behind link N
#   addresses N...                     the same, joined by commas
#
# Net: 30 + N; the client has 10.77.NET.1, the server 10.77.NET.2 and fd77:NET::2.

address() { echo "10.77.$((30 + $1)).2"; }
address6() { echo "fd77:$((30 + $1))::2"; }
addresses() {
    local n all=()
    for n in "$@"; do all+=("$(address "$n")"); done
    (IFS=,; echo "${all[*]}")
}

# address_link N DELAY: the link and the addresses of its ends.
address_link() {
    local n=$1 net=$((30 + $1)) end role
    start "link-$n" client "$HEADWATER" link --a "p$n" --b "q$n" --control "$SCRATCH/link-$n" \
        --delay "$2"
    wait_ready "link-$n" 10
    ip -n "$TOPOLOGY-client" link set "q$n" netns "$TOPOLOGY-server1"
    for role in client server1; do
        end=$([[ $role == client ]] && echo 1 || echo 2)
        ip -n "$TOPOLOGY-$role" -batch - <<ENDS
addr replace 10.77.$net.$end/30 dev $([[ $role == client ]] && echo p || echo q)$n
addr replace fd77:$net::$end/64 dev $([[ $role == client ]] && echo p || echo q)$n nodad
link set $([[ $role == client ]] && echo p || echo q)$n txqueuelen 10000 up
ENDS
    done
}

address_delay() {
    in_ns client "$HEADWATER" link-control "$SCRATCH/link-$1" set both "delay=$2" >/dev/null
}

# drop FAMILY ADDRESS...: a rule of nftables, if there are any addresses.
drop() {
    local family=$1
    shift
    (($# == 0)) || (IFS=,; echo "$family daddr { $* } drop")
}

# dead ADDRESS...: the server's kernel drops all packets to these addresses, and to no others.
dead() {
    local four=() six=() address
    for address in "$@"; do
        if [[ $address == *:* ]]; then six+=("$address"); else four+=("$address"); fi
    done
    in_ns server1 nft -f - <<RULES
table inet dead
delete table inet dead
table inet dead {
    chain arrivals {
        type filter hook prerouting priority -300;
        $(drop ip "${four[@]}")
        $(drop ip6 "${six[@]}")
    }
}
RULES
}

node client server1
# A closed port is reported each time.
in_ns server1 sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
for n in $(seq $#); do address_link "$n" "${!n}"; done
