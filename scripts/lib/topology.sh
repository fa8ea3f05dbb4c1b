# shellcheck shell=bash
#
# The testbed: network namespaces joined by veth pairs and emulated links. Sourced; brings processes.sh
# with it.
#
# `topology_up SHAPE ARGUMENT...` makes the shape that scripts/topologies/SHAPE.sh describes by three
# verbs: `node NAME`, `wire A B NET` and `link A B NET OPTION...`; `through` adds routes. A device is
# named after the neighbour it leads to.
#
#   wire or link A B NET   A has 10.77.NET.1, fd77:NET::1, B has 10.77.NET.2, fd77:NET::2
#   userspace stacks       10.77.1.0/24, fd77:1::/64 at clients; 10.77.2.10N, fd77:2::10N at server
#                          N; 10.77.2.100, fd77:2::100 is the service that a router may spray
#
# `topology_up` arms traps, so that every way out of the caller removes the testbed. Only
# processes started here end with it: their ids are recorded, and whatever else is found inside a
# namespace was started by one of them. Nothing outside the namespaces is changed.

# shellcheck source=scripts/lib/processes.sh
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

TOPOLOGY_SHAPES=$(dirname "${BASH_SOURCE[0]}")/../topologies
TOPOLOGY_MAX_SERVERS=8

# in_ns ROLE COMMAND...: ROLE is client, router or server1, server2, ...
in_ns() {
    local role=$1
    shift
    ip netns exec "$TOPOLOGY-$role" "$@"
}

# node NAME...: namespaces that forward packets.
node() {
    local role
    for role in "$@"; do
        ip netns add "$TOPOLOGY-$role"
        TOPOLOGY_ROLES+=("$role")
        ip -n "$TOPOLOGY-$role" link set lo up
        in_ns "$role" sysctl -qw \
            net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
            net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
            net.ipv6.conf.default.router_solicitations=0 net.ipv6.conf.default.accept_ra=0
    done
}

# wire A B NET: joins the two by a veth pair.
wire() {
    ip -n "$TOPOLOGY-$1" link add "$2" type veth peer name "$1" netns "$TOPOLOGY-$2"
    number "$@"
}

# link A B NET OPTION...: joins the two by an emulated link, `headwater link OPTION...`, the process
# "link-A-B": `ab` is from A to B. `stop link-A-B` takes it away, with its devices and routes; its
# control socket is SCRATCH/link-A-B. The TUN devices are moved to where their packets are, which
# costs no further hop.
link() {
    local a=$1 b=$2 net=$3 name="link-$1-$2"
    shift 3
    rm -f -- "$SCRATCH/$name"
    start "$name" "$a" "$HEADWATER" link --a "$b" --b "to-$b" --control "$SCRATCH/$name" "$@"
    wait_ready "$name" 10
    ip -n "$TOPOLOGY-$a" link set "to-$b" netns "$TOPOLOGY-$b" name "$a"
    number "$a" "$b" "$net"
}

# number A B NET: addresses for the two ends, and room for bursts where the device has a queue.
number() {
    local a=$1 b=$2 net=$3
    TOPOLOGY_HOPS["$a $b"]="$net 2"
    TOPOLOGY_HOPS["$b $a"]="$net 1"
    ends() {
        ip -n "$TOPOLOGY-$1" -batch - <<ENDS
addr replace 10.77.$net.$3/30 dev $2
addr replace fd77:$net::$3/64 dev $2 nodad
link set $2 txqueuelen 10000 up
ENDS
    }
    ends "$a" "$b" 1
    ends "$b" "$a" 2
}

# through A B PREFIX...: A routes PREFIX ("default" is both families) to its neighbour B.
through() {
    local a=$1 b=$2 net end prefix
    shift 2
    read -r net end <<<"${TOPOLOGY_HOPS["$a $b"]}"
    for prefix in "$@"; do
        [[ $prefix == *:* ]] || ip -n "$TOPOLOGY-$a" route replace "$prefix" via "10.77.$net.$end"
        [[ $prefix == *.* ]] || ip -n "$TOPOLOGY-$a" -6 route replace "$prefix" via "fd77:$net::$end"
    done
}

# sink ROLE PREFIX...: packets for a userspace stack that is gone end at ROLE; over its default
# route it would go in circles.
sink() {
    local role=$1 prefix
    shift
    for prefix in "$@"; do
        ip -n "$TOPOLOGY-$role" route add blackhole "$prefix" metric 4096
    done
}

# client_and_router: what shapes with a router begin with; the net of the client is 11.
client_and_router() {
    node client router
    wire router client 11
    through client router default
    through router client 10.77.1.0/24 fd77:1::/64
    sink client 10.77.1.0/24 fd77:1::/64
}

# large_windows ROLE...: the kernel's TCP may keep 1 Gb/s busy over 300 ms, and starts each
# connection without memory of earlier ones.
large_windows() {
    local role
    for role in "$@"; do
        in_ns "$role" sysctl -qw net.ipv4.tcp_rmem='4096 131072 134217728' \
            net.ipv4.tcp_wmem='4096 65536 134217728' net.ipv4.tcp_no_metrics_save=1
    done
}

# topology_up SHAPE [ARGUMENT...]: makes it, with SCRATCH a directory that goes away with it. Its
# namespaces are hw-NAME-ROLE; NAME is TOPOLOGY_NAME or else the number of this process.
topology_up() {
    local shape=$1
    shift
    [[ -f $TOPOLOGY_SHAPES/$shape.sh ]] || die "no topology '$shape': see scripts/topologies"
    TOPOLOGY="hw-${TOPOLOGY_NAME:-$BASHPID}"
    SCRATCH="${TMPDIR:-/tmp}/$TOPOLOGY"
    mkdir -m 700 -- "$SCRATCH" || die "is '${TOPOLOGY#hw-}' up already?"
    TOPOLOGY_OWNER=$BASHPID
    TOPOLOGY_ROLES=()
    declare -gA TOPOLOGY_PIDS=() TOPOLOGY_HOPS=()
    trap topology_down EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # shellcheck source=/dev/null
    source "$TOPOLOGY_SHAPES/$shape.sh" "$@"
    until_true 10 topology_has_carrier || die "a wire has no carrier"
}

# topology_has_carrier: a kernel can take a second to see that the far end of a veth pair is up;
# IPv6 is deaf until then.
topology_has_carrier() {
    local role
    for role in "${TOPOLOGY_ROLES[@]}"; do
        [[ $(ip -n "$TOPOLOGY-$role" link) != *NO-CARRIER* ]] || return 1
    done
}

# topology_keep: the testbed outlives this process; topology_take NAME makes it this one's again.
topology_keep() {
    trap - EXIT HUP INT TERM
    TOPOLOGY_OWNER=
}
topology_take() {
    TOPOLOGY="hw-$1"
    SCRATCH="${TMPDIR:-/tmp}/$TOPOLOGY"
    [[ -d $SCRATCH ]] || die "no testbed '$1': see 'testbed.sh list'"
    TOPOLOGY_OWNER=$BASHPID
    mapfile -t TOPOLOGY_ROLES < <(ip netns list | sed -n "s/^$TOPOLOGY-\([^ ]*\).*/\1/p")
    declare -gA TOPOLOGY_PIDS=()
}

# topology_down: ends all processes, removes the testbed; safe to call at any moment.
topology_down() {
    local status=$? name role pid pids=()
    trap '' HUP INT TERM
    [[ ${TOPOLOGY_OWNER:-} == "$BASHPID" ]] || return "$status"
    for name in "${!TOPOLOGY_PIDS[@]}"; do
        pids+=("${TOPOLOGY_PIDS[$name]}")
    done
    for role in "${TOPOLOGY_ROLES[@]}"; do
        for pid in $(ip netns pids "$TOPOLOGY-$role" 2>/dev/null); do
            [[ $pid == "$BASHPID" ]] || pids+=("$pid")
        done
    done
    end_pids "${pids[@]}"
    for role in "${TOPOLOGY_ROLES[@]}"; do
        ip netns delete "$TOPOLOGY-$role" || status=1
    done
    TOPOLOGY_ROLES=()
    rm -rf -- "${SCRATCH:?}"
    trap - EXIT HUP INT TERM
    TOPOLOGY_OWNER=
    return "$status"
}

# loss PERCENT: the router drops that share (two decimals) of the forwarded packets at random,
# each way for itself. `loss 0` ends it. `loss_count up|down` prints how many were dropped. Offloads
# are off from then on: else a joined packet would be lost whole.
loss() {
    local share
    offloads off
    share=$(awk -v p="$1" 'BEGIN { printf "%d", p * 100 + 0.5 }')
    in_ns router nft -f - <<RULES
table inet loss
delete table inet loss
table inet loss {
    counter up { }
    counter down { }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "client" numgen random mod 10000 < $share counter name up drop
        oifname "client" numgen random mod 10000 < $share counter name down drop
    }
}
RULES
}
loss_count() {
    in_ns router nft -j list counter inet loss "$1" | jq '.nftables[] | .counter // empty | .packets'
}

# spray SERVER...: the router hands each packet for the service address to the next of the named
# servers (numbers), whatever connection it belongs to: stateless rewriting, no tracking. Answers
# (UDP) get the service address as their source. `spray_count N`: packets handed to server N.
spray() {
    local n i=0 map4='' map6='' counters='' count='' sources4='' sources6=''
    for n in "$@"; do
        map4+="$i : 10.77.2.10$n, "
        map6+="$i : fd77:2::10$n, "
        sources4+="10.77.2.10$n, "
        sources6+="fd77:2::10$n, "
        i=$((i + 1))
    done
    for n in $(seq "$TOPOLOGY_MAX_SERVERS"); do
        counters+="counter to$n { }"$'\n'
        count+="oifname \"server$n\" counter name to$n"$'\n'
    done
    in_ns router nft -f - <<RULES
table ip spray
delete table ip spray
table ip6 spray
delete table ip6 spray
table inet spray
delete table inet spray
table ip spray {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        ip daddr 10.77.2.100 notrack ip daddr set numgen inc mod $# map { ${map4%, } }
        iifname "server*" ip saddr { ${sources4%, } } meta l4proto udp notrack ip saddr set 10.77.2.100
    }
}
table ip6 spray {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        ip6 daddr fd77:2::100 notrack ip6 daddr set numgen inc mod $# map { ${map6%, } }
        iifname "server*" ip6 saddr { ${sources6%, } } meta l4proto udp notrack ip6 saddr set fd77:2::100
    }
}
table inet spray {
$counters
    chain forward {
        type filter hook forward priority filter; policy accept;
$count
    }
}
RULES
}
spray_count() {
    in_ns router nft -j list counter inet spray "to$1" |
        jq '.nftables[] | .counter // empty | .packets'
}

# narrow ROLE DEVICE RATE [BUFFER [BURST]]: limits what ROLE sends by the device, as tc writes rates, with
# a buffer of 20 ms. The queue holds packets: joined ones make its limits coarse, see `offloads`.
narrow() {
    tc -n "$TOPOLOGY-$1" qdisc replace dev "$2" root tbf rate "$3" burst "${5:-128kb}" latency "${4:-20ms}"
}

# rate DOWN [UP]: limits the router's link to the client (and back), as tc writes rates, with a
# buffer of 20 ms; `rate none` ends it. Offloads are off from then on: the queue holds packets.
rate() {
    offloads off
    tc -n "$TOPOLOGY-router" qdisc del dev client root 2>/dev/null || true
    tc -n "$TOPOLOGY-client" qdisc del dev router root 2>/dev/null || true
    [[ $1 == none ]] && return 0
    narrow router client "$1"
    [[ -z ${2:-} ]] || narrow client router "$2"
}

# offloads on|off|forwarding: whether the veth links may carry packets larger than the MTU, of TCP and
# of UDP. With `forwarding` nothing larger is sent, but receivers join what belongs together again,
# of UDP too where packets are only passed on.
offloads() {
    local role device send=$1 join=$1 forwarding=off
    [[ $1 != forwarding ]] || { send=off join=on forwarding=on; }
    for role in "${TOPOLOGY_ROLES[@]}"; do
        for device in $(ip -n "$TOPOLOGY-$role" -j link show type veth | jq -r '.[].ifname'); do
            in_ns "$role" ethtool -K "$device" tso "$send" gso "$send" tx-udp-segmentation "$send" \
                gro "$join" rx-udp-gro-forwarding "$forwarding" >/dev/null
        done
    done
}

# congestion NAME: requests the kernel's congestion control of that name in every namespace, and
# prints the one in force: a kernel may not let a namespace choose.
congestion() {
    local role
    for role in "${TOPOLOGY_ROLES[@]}"; do
        in_ns "$role" sysctl -qw "net.ipv4.tcp_congestion_control=$1" 2>/dev/null || true
    done
    in_ns client sysctl -n net.ipv4.tcp_congestion_control
}
