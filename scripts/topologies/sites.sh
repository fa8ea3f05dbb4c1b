# shellcheck shell=bash
#
# Two sites, a client and a server at each: client1, server1 -- west -- emulated link -- east --
# client2, server2. Each site hands the service address, 10.77.2.100 and fd77:2::100, to its own
# server.
#
#   topology_up sites [LINK_OPTION...]
#
# Nets: client N 1N, server N 2N, link 30; the routers have the lower addresses.

sites_shape() {
    local n site other
    node west east
    link west east 30 "$@"
    for n in 1 2; do
        site=west other=east
        ((n == 1)) || site=east other=west
        node "client$n" "server$n"
        large_windows "client$n" "server$n"
        wire "$site" "client$n" "1$n"
        wire "$site" "server$n" "2$n"
        through "$site" "$other" default
        through "$site" "client$n" "10.77.1.10$n/32" "fd77:1::10$n/128"
        through "$site" "server$n" "10.77.2.10$n/32" "fd77:2::10$n/128" 10.77.2.100 fd77:2::100
        through "client$n" "$site" default
        through "server$n" "$site" default
        sink "client$n" 10.77.1.0/24 fd77:1::/64
    done
}

sites_shape "$@"
