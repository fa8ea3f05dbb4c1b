# shellcheck shell=bash
#
# One service address at many sites, 10.77.2.100 and fd77:2::100: client -- site1 -- emulated link --
# site2 ... siteN, and server N at the router of site N, so that each site is farther from the client
# than the one before. A BIRD at each server announces the addresses to its router by BGP while the kernel
# has routes to them, which `serve --announce` keeps only while it can answer; routers exchange routes,
# and each prefers the shortest way. BFD notices silence within 150 ms.
#
#   topology_up anycast [SITES [LINK_OPTION...]]    two or four sites (2); options of each link between
#   at_site N [OPTION...]              starts server N, announced
#   at_all_sites                       starts all, and waits until each site has its own server
#   anycast_at N [ADDRESS]             the neighbour to which the router of site N sends the service
#   routes_at_home ADDRESS...          waits until each site has its own server of these services
#   announce_at N; withdraw_at N       server N announces the service to its site, or no longer, by a route
#                                      of its kernel, as a health check would; packets for the service
#                                      are those of its own addresses and never take that route
#   silence_site N; mend_site N        nothing passes between site N and its server any more; again
#
# Nets: client 11, server N 2N, link from site N to the next 3N; routers have the lower addresses, that
# nearer to the client the lower one of a link. AS numbers: site N 650N0, server N 6500N. The processes
# are bird-ROLE. A session carries both families.

readonly SERVICE4=10.77.2.100 SERVICE6=fd77:2::100

# channel FAMILY PREFIX IMPORT EXPORT: routes of one family; imported or exported are `none`,
# `all`, `learnt` (from the kernel) or `service`.
channel() {
    local words=(none all learnt service) filters=(none all "where source = RTS_INHERIT" "where net = $2") n
    for n in "${!words[@]}"; do
        [[ $3 != "${words[n]}" ]] || local import=${filters[n]}
        [[ $4 != "${words[n]}" ]] || local export=${filters[n]}
    done
    echo "$1 { next hop self; import $import; export $export; };"
}

# peer NAME LOCAL_AS OWN NEIGHBOUR AS IMPORT EXPORT: one BGP neighbour.
peer() {
    local name=$1 local_as=$2 own=$3 neighbour=$4 as=$5 import=$6 export=$7
    cat <<CONF
protocol bgp $name {
    local $own as $local_as;
    neighbor $neighbour as $as;
    hold time 3; keepalive time 1; connect retry time 1; connect delay time 1; error wait time 1, 2;
    bfd on;
    $(channel ipv4 "$SERVICE4/32" "$import" "$export")
    $(channel ipv6 "$SERVICE6/128" "$import" "$export")
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

# anycast_router N SITES: BIRD of the router of site N, which has a neighbour on either side.
anycast_router() {
    local n=$1 sites=$2
    bird_up "site$n" "10.77.2$n.1" < <(
        echo 'protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }'
        echo 'protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; }'
        peer server "650${n}0" "10.77.2$n.1" "10.77.2$n.2" "6500$n" service none
        ((n == 1)) ||
            peer nearer "650${n}0" "10.77.3$((n - 1)).2" "10.77.3$((n - 1)).1" "650$((n - 1))0" all all
        ((n == sites)) ||
            peer farther "650${n}0" "10.77.3$n.1" "10.77.3$n.2" "650$((n + 1))0" all all
    )
}

# anycast_server N: BIRD of server N, which learns the routes of others in its kernel.
anycast_server() {
    local n=$1
    bird_up "server$n" "10.77.2$n.2" < <(
        echo "protocol kernel { learn; ipv4 { import where net = $SERVICE4/32; export none; }; }"
        echo "protocol kernel { learn; ipv6 { import where net = $SERVICE6/128; export none; }; }"
        peer site "6500$n" "10.77.2$n.2" "10.77.2$n.1" "650${n}0" none learnt
    )
}

at_site() {
    local n=$1
    shift
    start "server$n" "server$n" nice -n -15 "$HEADWATER" serve --tun hw0 \
        --address "$SERVICE4" --address "$SERVICE6" --root "$SCRATCH/root" --keys "$SCRATCH/keys" \
        --server-id "$n" --site-id "$n" --digests "$SCRATCH/digests$n" --metrics 127.0.0.1:9100 \
        --announce "$@"
    wait_ready "server$n"
}

at_all_sites() {
    local n
    for n in $(seq "$SITES"); do at_site "$n"; done
    routes_at_home "$SERVICE4" "$SERVICE6"
}

routes_at_home() {
    local service
    # shellcheck disable=SC2317 # called by name
    at_home() {
        local n
        for n in $(seq "$SITES"); do
            [[ $(anycast_at "$n" "$1") == "server$n" ]] || return 1
        done
    }
    for service in "$@"; do
        until_true 20 at_home "$service" || die "no routes: $(cat "$SCRATCH"/bird-*.err)"
    done
}

anycast_at() {
    local service=${2:-$SERVICE4} family=-4
    [[ $service != *:* ]] || family=-6
    ip -n "$TOPOLOGY-site$1" "$family" -j route show "$service" | jq -r '.[0].dev // "nowhere"'
}

announce_at() { sink "server$1" "$SERVICE4/32"; }
withdraw_at() { ip -n "$TOPOLOGY-server$1" route delete blackhole "$SERVICE4/32"; }

silence_site() {
    in_ns "site$1" nft -f - <<RULES
table inet silence {
    chain in { type filter hook prerouting priority raw; policy accept; iifname "server$1" drop; }
    chain out { type filter hook postrouting priority raw; policy accept; oifname "server$1" drop; }
}
RULES
}

mend_site() { in_ns "site$1" nft delete table inet silence; }

anycast_shape() {
    local sites=${1:-2} n
    [[ $sites == 2 || $sites == 4 ]] || die "two or four sites, not '$sites'"
    shift $(($# < 1 ? $# : 1))
    SITES=$sites
    node client
    large_windows client
    for n in $(seq "$sites"); do
        node "site$n" "server$n"
        large_windows "server$n"
        wire "site$n" "server$n" "2$n"
        through "server$n" "site$n" default
        through "site$n" "server$n" "10.77.2.10$n/32" "fd77:2::10$n/128"
        sink "site$n" 10.77.2.0/24 fd77:2::/64
        sink "server$n" 10.77.2.0/24 fd77:2::/64
        ((n == 1)) || link "site$((n - 1))" "site$n" "3$((n - 1))" "$@"
    done
    wire site1 client 11
    through client site1 default
    through site1 client 10.77.1.0/24 fd77:1::/64
    sink client 10.77.1.0/24 fd77:1::/64
    for n in $(seq 2 "$sites"); do
        # Towards the client, and to the sites beyond on the other side.
        through "site$n" "site$((n - 1))" default
    done
    anycast_beyond "$sites"
    for n in $(seq "$sites"); do
        anycast_router "$n" "$sites"
        anycast_server "$n"
    done
}

# anycast_beyond SITES: routes to the nets and servers farther away than each site.
anycast_beyond() {
    local n far
    for n in $(seq $(($1 - 1))); do
        for far in $(seq $((n + 1)) "$1"); do
            through "site$n" "site$((n + 1))" "10.77.2$far.0/30" "fd77:2$far::/64" \
                "10.77.2.10$far/32" "fd77:2::10$far/128"
        done
        for far in $(seq $((n + 1)) $(($1 - 1))); do
            through "site$n" "site$((n + 1))" "10.77.3$far.0/30" "fd77:3$far::/64"
        done
    done
}

anycast_shape "$@"
