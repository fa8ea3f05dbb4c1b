# shellcheck shell=bash
#
# client -- router -- redirector 1..R and server 1..K: the router hands the service address,
# 10.77.2.100 and fd77:2::100, to a redirector; servers answer the client directly.
#
#   topology_up redirected [K [R [DELAY...]]]
#                                        K servers (4), R redirectors (1); server I is behind a link
#                                        with the I-th delay each way, or behind a wire
#   share REDIRECTOR...                  the router divides the service among these (ECMP)
#   redirect_config GENERATION [KEY=VALUE...] -- BACKEND...
#                                        writes SCRATCH/redirectorN.toml for every N. Keys: policy,
#                                        interval, misses, recovery, delivery (address or device),
#                                        table and regions (of `nearest`). BACKEND is N or
#                                        N/STATE/WEIGHT/SITE, any of which may be empty or missing
#   redirect N [OPTION...]               starts redirector N; its control socket is SCRATCH/rN
#   control COMMAND...; shown FILTER     asks redirector 1; its answer to `show`, through jq
#   in_force GENERATION                  waits until redirector 1 has noticed the file
#   behind N [OPTION...]                 starts server N behind all redirectors
#   lane N                               a wire from each redirector to server N, for the packets that the
#                                        redirector writes to the device of server N
#   forward_plainly N...                 redirector 1, whose program is stopped, forwards packets for the
#                                        service by its kernel, each flow to one of these servers: ECMP
#                                        with resilient hashing, over the wires of `lane`
#   sever N; mend N                      the router drops silently all packets to and from server N
#   vanish N                             server N is gone with its namespace and its link
#   uplink N RATE                        limits what server N sends, as tc writes rates
#
# Nets: client 11, server N 2N, redirector N 3N; the router has the lower address of each.
# Redirectors and servers run before clients (nice): many of those on a few cores would keep them from
# answering heartbeats in time, as no clients on machines of their own do.
# Redirector N is 10.77.3.N, fd77:3::N; server N 10.77.2.10N, fd77:2::10N.

readonly SERVICE4=10.77.2.100 SERVICE6=fd77:2::100

redirected_shape() {
    local servers=${1:-4} redirectors=${2:-1} n
    ((servers >= 1 && servers <= TOPOLOGY_MAX_SERVERS)) || die "1 to $TOPOLOGY_MAX_SERVERS servers"
    ((redirectors >= 1 && redirectors <= 4)) || die "1 to 4 redirectors"
    REDIRECTORS=$redirectors
    shift $(($# < 2 ? $# : 2))
    client_and_router
    for n in $(seq "$redirectors"); do
        node "redirector$n"
        wire router "redirector$n" "3$n"
        through "redirector$n" router default
        through router "redirector$n" "10.77.3.$n/32" "fd77:3::$n/128"
        sink "redirector$n" 10.77.2.0/24 fd77:2::/64 10.77.3.0/24 fd77:3::/64
    done
    for n in $(seq "$servers"); do
        node "server$n"
        if [[ ${1:-0ms} == 0ms ]]; then
            wire router "server$n" "2$n"
        else
            link router "server$n" "2$n" --delay "$1"
        fi
        (($# == 0)) || shift
        through "server$n" router default
        sink "server$n" 10.77.2.0/24 fd77:2::/64
        through router "server$n" "10.77.2.10$n/32" "fd77:2::10$n/128"
        redirector_routes "$n"
    done
    # By the flow, as routers do, so that kernel TCP keeps its redirector.
    in_ns router sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
    # shellcheck disable=SC2046 # numbers
    share $(seq "$redirectors")
}

# redirector_routes N: how redirectors reach server N, and what leaves their device for it goes there.
redirector_routes() {
    local n=$1 redirector
    for redirector in $(seq "$REDIRECTORS"); do
        through "redirector$redirector" router "10.77.2.10$n/32" "fd77:2::10$n/128"
    done
}

share() {
    local n hops4=() hops6=()
    for n in "$@"; do
        hops4+=(nexthop via "10.77.3$n.2")
        hops6+=(nexthop via "fd77:3$n::2")
    done
    ip -n "$TOPOLOGY-router" route replace "$SERVICE4/32" "${hops4[@]}"
    ip -n "$TOPOLOGY-router" -6 route replace "$SERVICE6/128" "${hops6[@]}"
}

redirect_config() {
    local generation=$1 policy=rendezvous interval=50 misses=3 recovery=5 delivery=address n
    local table='' regions=''
    shift
    while [[ $1 != -- ]]; do
        local "${1?}"
        shift
    done
    shift
    for n in $(seq "$REDIRECTORS"); do
        {
            echo "generation = $generation"
            echo "id = $n"
            echo "address = [\"10.77.3.$n\", \"fd77:3::$n\"]"
            echo "services = [\"$SERVICE4\", \"$SERVICE6\"]"
            echo 'key-file = "redirect-keys"'
            echo "policy = \"$policy\""
            echo "[heartbeat]"
            echo "interval-ms = $interval"
            echo "misses = $misses"
            echo "recovery = $recovery"
            if [[ -n $table ]]; then
                echo "[nearest]"
                echo "table = \"$table\""
                echo "regions = { $regions }"
            fi
            backend_tables "$delivery" "$@"
        } >"$SCRATCH/new.toml"
        mv -- "$SCRATCH/new.toml" "$SCRATCH/redirector$n.toml"
    done
}

# backend_tables DELIVERY BACKEND...
backend_tables() {
    local delivery=$1 backend n state weight site
    shift
    for backend in "$@"; do
        IFS=/ read -r n state weight site <<<"$backend"
        echo "[[backend]]"
        echo "name = \"server$n\""
        echo "id = $n"
        case $delivery in
        device) echo "device = \"to$n\"" ;;
        *) echo "address = \"10.77.2.10$n\"" ;;
        esac
        echo "state = \"${state:-active}\""
        echo "weight = ${weight:-100}"
        [[ -z ${site:-} ]] || echo "site = \"$site\""
    done
}

# redirect_keys: those that redirectors and servers share.
redirect_keys() {
    [[ -f $SCRATCH/redirect-keys ]] || "$HEADWATER" keygen --out "$SCRATCH/redirect-keys"
}

redirect() {
    local n=$1
    shift
    redirect_keys
    start "redirector$n" "redirector$n" nice -n -15 "$HEADWATER" redirect --tun hw0 \
        --config "$SCRATCH/redirector$n.toml" --control "$SCRATCH/r$n" --metrics 127.0.0.1:9100 "$@"
    wait_ready "redirector$n"
}

control() { "$HEADWATER" redirect-control "$SCRATCH/r1" "$@"; }
shown() { control show | jq -c "$1"; }

in_force() {
    # shellcheck disable=SC2317 # called by name
    is_in_force() { [[ $(shown .generation) == "$1" ]]; }
    until_true 5 is_in_force "$1" || die "generation $1 is not put in force"
}

behind() {
    local n=$1
    shift
    redirect_keys
    start "server$n" "server$n" nice -n -15 "$HEADWATER" serve --tun hw0 \
        --address "$SERVICE4" --address "$SERVICE6" --backend-address "10.77.2.10$n,fd77:2::10$n" \
        --redirected "$SCRATCH/redirect-keys" --redirectors "$(seq -s , "$REDIRECTORS")" \
        --root "$SCRATCH/root" --keys "$SCRATCH/keys" --server-id "$n" \
        --digests "$SCRATCH/digests$n" --metrics 127.0.0.1:9100 "$@"
    wait_ready "server$n"
}

lane() {
    local n=$1 redirector family
    for redirector in $(seq "$REDIRECTORS"); do
        wire "redirector$redirector" "server$n" "4$n"
        ip -n "$TOPOLOGY-redirector$redirector" route add default via "10.77.4$n.2" table "10$n"
        ip -n "$TOPOLOGY-redirector$redirector" -6 route add default via "fd77:4$n::2" table "10$n"
        for family in -4 -6; do
            ip -n "$TOPOLOGY-redirector$redirector" "$family" rule add iif "to$n" table "10$n"
        done
    done
}

forward_plainly() {
    local n role="$TOPOLOGY-redirector1"
    for n in "$@"; do ip -n "$role" nexthop replace id "$n" via "10.77.4$n.2" dev "server$n"; done
    in_ns redirector1 sysctl -qw net.ipv4.fib_multipath_hash_policy=1
    # A flow keeps its server while that one is in the group and the flow is not idle.
    ip -n "$role" nexthop replace id 100 group "$(paste -sd / <(printf '%s\n' "$@"))" type resilient \
        buckets 128 idle_timer 120
    ip -n "$role" route replace "$SERVICE4/32" nhid 100
}

sever() {
    in_ns router nft -f - <<RULES
table inet cut$1 {
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "server$1" drop
        oifname "server$1" drop
    }
}
RULES
}
mend() {
    in_ns router nft delete table inet "cut$1"
}

vanish() {
    local role roles=()
    kill9 "server$1"
    ip netns delete "$TOPOLOGY-server$1"
    for role in "${TOPOLOGY_ROLES[@]}"; do
        [[ $role == "server$1" ]] || roles+=("$role")
    done
    TOPOLOGY_ROLES=("${roles[@]}")
}

# The queue holds packets, so the caller switches offloads off.
uplink() {
    narrow "server$1" router "$2" 20ms 16kb
}

redirected_shape "$@"
