# shellcheck shell=bash
#
# client with two uplinks: client -- emulated links -- isp1, isp2 -- core -- server1.
#
#   topology_up uplinks [LINK_OPTION...] [-- LINK_OPTION...]   of the first uplink and of the second
#
# Which uplink carries a packet is decided by the client's address: 10.77.1.0/25, fd77:1::/65 belong
# to the first, 10.77.1.128/25, fd77:1::8000:0:0:0/65 to the second, and so do those of the
# uplinks themselves.
#
# Nets: uplinks 11 and 12 (the client has the lower address), isp1 31, isp2 32, server 21.

uplinks_shape() {
    local options=()
    while (($# > 0)) && [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    (($# == 0)) || shift
    node client isp1 isp2 core server1
    large_windows client server1
    link client isp1 11 "${options[@]}"
    link client isp2 12 "$@"
    wire core isp1 31
    wire core isp2 32
    wire core server1 21
    through client isp1 default
    through isp1 core default
    through isp2 core default
    through server1 core default
    through core server1 10.77.2.0/24 fd77:2::/64
    through core isp1 10.77.11.0/24 fd77:11::/64 10.77.1.0/25 fd77:1::/65
    through core isp2 10.77.12.0/24 fd77:12::/64 10.77.1.128/25 fd77:1::8000:0:0:0/65
    through isp1 client 10.77.1.0/25 fd77:1::/65
    through isp2 client 10.77.1.128/25 fd77:1::8000:0:0:0/65
    sink client 10.77.1.0/24 fd77:1::/64
    sink server1 10.77.2.0/24 fd77:2::/64
    second 10.77.12.2 10.77.12.1 10.77.1.128/25
    second fd77:12::2 fd77:12::1 fd77:1::8000:0:0:0/65
}

# second GATEWAY SOURCE...: packets from SOURCE leave by the second uplink.
second() {
    local gateway=$1 family=-4 source
    shift
    [[ $gateway != *:* ]] || family=-6
    ip -n "$TOPOLOGY-client" "$family" route add default via "$gateway" table 12
    for source in "$@"; do
        ip -n "$TOPOLOGY-client" "$family" rule add from "$source" table 12
    done
}

uplinks_shape "$@"
