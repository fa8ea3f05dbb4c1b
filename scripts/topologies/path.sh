# shellcheck shell=bash
#
# client -- emulated link -- server1: `ab` is upstream, `ba` is the direction of downloads.
#
#   topology_up path LINK_OPTION...     as of `headwater link`
#   path_link LINK_OPTION...            another link in place of the present one
#
# Net: 21, the client 10.77.21.1, the server 10.77.21.2.

path_link() {
    [[ -z ${TOPOLOGY_PIDS[link-client-server1]:-} ]] || stop link-client-server1
    link client server1 21 "$@"
    through client server1 default
    through server1 client 10.77.1.0/24 fd77:1::/64
}

node client server1
large_windows client server1
sink client 10.77.1.0/24 fd77:1::/64
sink server1 10.77.2.0/24 fd77:2::/64
path_link "$@"
