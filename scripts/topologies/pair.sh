# shellcheck shell=bash
#
# client -- server1, by one veth pair.
#
#   topology_up pair
#
# Net: 21, the client 10.77.21.1, the server 10.77.21.2.

node client server1
wire client server1 21
through client server1 default
through server1 client 10.77.1.0/24 fd77:1::/64
sink client 10.77.1.0/24 fd77:1::/64
sink server1 10.77.2.0/24 fd77:2::/64
