#!/usr/bin/env bash
#
# Testbeds for use by hand, that stay until they are taken down.
#
#   testbed.sh up NAME SHAPE [ARGUMENT...]   make one; the shapes are in scripts/topologies
#   testbed.sh exec NAME ROLE COMMAND...     run COMMAND in one of its namespaces
#   testbed.sh down NAME                     end what runs in it, and remove it
#   testbed.sh list                          those that are up, with their roles
#
#   testbed.sh up slow path --delay 100ms --rate 10mbit
#   testbed.sh exec slow client ping 10.77.21.2
set -euo pipefail
# shellcheck source=scripts/lib/topology.sh
source "$(dirname "$0")/lib/topology.sh"

up() {
    local name=$1
    [[ $name =~ ^[a-zA-Z0-9_]+$ ]] || die "a name has letters, digits and _, not '$name'"
    shift
    TOPOLOGY_NAME=$name topology_up "$@"
    topology_keep
    echo "${TOPOLOGY_ROLES[*]}"
}

list() {
    ip netns list | sed -n 's/^hw-\([^-]*\)-\([^ ]*\).*/\1 \2/p' | sort -V |
        awk '{ roles[$1] = roles[$1] " " $2 } END { for (name in roles) print name ":" roles[name] }'
}

main() {
    local verb=${1:-help}
    case $verb:$# in
        up:1 | up:2 | down:1 | exec:[1-3]) die "'$verb' needs more: see 'testbed.sh help'" ;;
        help:* | --help:* | -h:*)
            show_help
            return
            ;;
    esac
    settings testbed
    become_root "$@"
    need ip
    shift
    case $verb in
        up) up "$@" ;;
        exec)
            local name=$1 role=$2
            shift 2
            exec ip netns exec "hw-$name-$role" "$@"
            ;;
        down)
            topology_take "$1"
            topology_down
            ;;
        list) list ;;
        *) die "no such verb '$verb': see 'testbed.sh help'" ;;
    esac
}

main "$@"
