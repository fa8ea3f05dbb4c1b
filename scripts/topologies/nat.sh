# shellcheck shell=bash
#
# client -- nat -- emulated link -- server1: the world sees the address of `nat`, IPv4 and IPv6.
#
#   topology_up nat [LINK_OPTION...]
#   nat_timeout SECONDS     how long an idle UDP mapping is kept (kernel default 30, after answers 120)
#   nat_rebind              forgets every mapping; new ones get other ports
#
# Nets: client 11 (nat has the lower address), link 30 (nat has the lower address).

nat_timeout() {
    in_ns nat sysctl -qw "net.netfilter.nf_conntrack_udp_timeout=$1" \
        "net.netfilter.nf_conntrack_udp_timeout_stream=$1"
}

nat_rebind() {
    # The kernel forgets the mappings to an address that goes away, and so does it the routes.
    ip -n "$TOPOLOGY-nat" addr flush dev server1
    number nat server1 30
    nat_routes
}
nat_routes() { through nat server1 10.77.2.0/24 fd77:2::/64; }

node client nat server1
large_windows client server1
wire nat client 11
link nat server1 30 "$@"
through client nat default
through nat client 10.77.1.0/24 fd77:1::/64
nat_routes
sink client 10.77.1.0/24 fd77:1::/64
sink server1 10.77.2.0/24 fd77:2::/64
in_ns nat nft -f - <<RULES
table inet nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "server1" masquerade random
    }
}
RULES
