# shellcheck shell=bash
#
# client -- router -- server 1..K, by veth pairs; the router can drop, limit and spray.
#
#   topology_up servers [K]     1 to TOPOLOGY_MAX_SERVERS, 1 by default
#
# Nets: client 11, server N 2N; the router has the lower address of each.

servers_shape() {
    local servers=${1:-1} n
    ((servers >= 1 && servers <= TOPOLOGY_MAX_SERVERS)) || die "1 to $TOPOLOGY_MAX_SERVERS servers"
    client_and_router
    for n in $(seq "$servers"); do
        node "server$n"
        wire router "server$n" "2$n"
        through "server$n" router default
        through router "server$n" "10.77.2.10$n/32" "fd77:2::10$n/128"
    done
}

servers_shape "$@"
