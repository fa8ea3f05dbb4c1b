# shellcheck shell=bash
#
# The two sites of `sites`, whose routers learn by BGP where the service address, 10.77.2.100, is: a
# BIRD at each server tells its router of the address while the kernel has a route to it, which
# `serve --announce` keeps only while it can answer. BFD notices silence within 150 ms.
#
#   topology_up anycast [LINK_OPTION...]      of the link between the sites
#   at_site N [OPTION...]                     starts server N, announced
#   anycast_at SITE                           the neighbour to which SITE (west, east) sends the service
#
# AS numbers: west 65010, east 65020, server N 6500N. The processes are bird-ROLE.

readonly SERVICE4=10.77.2.100

# peer NAME LOCAL_AS OWN NEIGHBOUR AS IMPORT EXPORT: one BGP neighbour.
peer() {
    local name=$1 local_as=$2 own=$3 neighbour=$4 as=$5 import=$6 export=$7
    cat <<CONF
protocol bgp $name {
    local $own as $local_as;
    neighbor $neighbour as $as;
    hold time 3; keepalive time 1; connect retry time 1; connect delay time 1; error wait time 1, 2;
    bfd on;
    ipv4 { next hop self; import $import; export $export; };
}
CONF
}

# bird_up ROLE ID: runs the daemon with the configuration on standard input.
bird_up() {
    local role=$1 id=$2
    {
        cat <<CONF
router id $id;
protocol device { scan time 10; }
protocol bfd { interface "*" { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }; }
CONF
        cat
    } >"$SCRATCH/bird-$role.conf"
    start "bird-$role" "$role" nice -n -15 bird -f -c "$SCRATCH/bird-$role.conf" -s "$SCRATCH/bird-$role.ctl"
}

# anycast_routers HERE THERE N END: BIRD of the router of site N, whose end of the link is END.
anycast_routers() {
    local here=$1 there=$2 n=$3 end=$4
    bird_up "$here" "10.77.30.$end" < <(
        echo 'protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }'
        peer server "650${n}0" "10.77.2$n.1" "10.77.2$n.2" "6500$n" "where net = $SERVICE4/32" none
        peer "$there" "650${n}0" "10.77.30.$end" "10.77.30.$((3 - end))" "650$((3 - n))0" all all
    )
}

# anycast_server N: BIRD of server N, which learns the routes of others in its kernel.
anycast_server() {
    local n=$1
    bird_up "server$n" "10.77.2$n.2" < <(
        echo "protocol kernel { learn; ipv4 { import where net = $SERVICE4/32; export none; }; }"
        peer site "6500$n" "10.77.2$n.2" "10.77.2$n.1" "650${n}0" none "where source = RTS_INHERIT"
    )
}

at_site() {
    local n=$1
    shift
    start "server$n" "server$n" nice -n -15 "$HEADWATER" serve --tun hw0 --address "$SERVICE4" \
        --root "$SCRATCH/root" --keys "$SCRATCH/keys" --server-id "$n" \
        --site-id "$n" --digests "$SCRATCH/digests$n" --metrics 127.0.0.1:9100 --announce "$@"
    wait_ready "server$n"
}

anycast_at() {
    ip -n "$TOPOLOGY-$1" -j route show "$SERVICE4" | jq -r '.[0].dev // "nowhere"'
}

anycast_shape() {
    local n
    # shellcheck source=scripts/topologies/sites.sh
    source "$TOPOLOGY_SHAPES/sites.sh" "$@"
    ip -n "$TOPOLOGY-west" route delete "$SERVICE4"
    ip -n "$TOPOLOGY-east" route delete "$SERVICE4"
    # Room for many clients of one host.
    through west client1 10.77.1.128/26
    for n in west east server1 server2; do
        sink "$n" 10.77.2.0/24
    done
    anycast_routers west east 1 1
    anycast_routers east west 2 2
    anycast_server 1
    anycast_server 2
}

anycast_shape "$@"
