# shellcheck shell=bash
#
# client 1..N -- near -- emulated link -- far -- server 1..N: N pairs share one bottleneck.
#
#   topology_up dumbbell N [LINK_OPTION...] [-- DELAY...]
#
# The link options are of the bottleneck: `ab` is upstream, `ba` the direction of downloads. The
# I-th DELAY makes the way of server I to the bottleneck longer, each way; the last holds for the
# rest, `0ms` is a plain wire.
#
# Nets: client N 1N, server N 2N, bottleneck 30; routers have the lower addresses.

dumbbell_shape() {
    local pairs=$1 n options=() delay=0ms
    shift
    [[ $pairs =~ ^[1-8]$ ]] || die "dumbbell: 1 to 8 pairs, not '$pairs'"
    while (($# > 0)) && [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    node near far
    large_windows near far
    link near far 30 "${options[@]}"
    through near far default
    through far near default
    for n in $(seq "$pairs"); do
        node "client$n" "server$n"
        large_windows "client$n" "server$n"
        wire near "client$n" "1$n"
        delay=${2:-$delay}
        (($# == 0)) || shift
        if [[ $delay == 0ms ]]; then
            wire far "server$n" "2$n"
        else
            link far "server$n" "2$n" --delay "$delay"
        fi
        through "client$n" near default
        through "server$n" far default
        through near "client$n" "10.77.1.10$n/32" "fd77:1::10$n/128"
        through far "server$n" "10.77.2.10$n/32" "fd77:2::10$n/128"
        sink "client$n" 10.77.1.0/24 fd77:1::/64
        sink "server$n" 10.77.2.0/24 fd77:2::/64
    done
}

dumbbell_shape "$@"
