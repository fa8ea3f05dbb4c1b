# shellcheck shell=bash
#
# Servers and downloads in a testbed, and the traffic that they make: ours, and nginx on the kernel's
# TCP for contrast. Sourced; brings the testbed with it.

# shellcheck source=scripts/lib/topology.sh
source "$(dirname "${BASH_SOURCE[0]}")/topology.sh"

# object SIZE [NAME]: random bytes below the servers' root; SIZE is as of `head`, 4M are four MiB.
object() {
    head -c "$1" /dev/urandom >"$SCRATCH/root/${2:-object}"
}

# content [SIZE]: the servers' keys and their root, with an object of this size if one is named.
content() {
    mkdir "$SCRATCH/root"
    (($# == 0)) || object "$1"
    "$HEADWATER" keygen --out "$SCRATCH/keys"
}

# unprivileged: a home of its own for user 1500, with the program and an empty root; USER_RUN begins a
# command of the program as that user.
unprivileged() {
    chmod 711 "$SCRATCH"
    mkdir "$SCRATCH/home" "$SCRATCH/home/root"
    cp -- "$HEADWATER" "$SCRATCH/home/headwater"
    chown -R 1500:1500 "$SCRATCH/home"
    # shellcheck disable=SC2034 # for the callers
    USER_RUN=(setpriv --reuid=1500 --regid=1500 --clear-groups --inh-caps=-all --bounding-set=-all
        env -u XDG_STATE_HOME "HOME=$SCRATCH/home" "$SCRATCH/home/headwater")
}

# metrics ROLE [PORT]: the metrics of a program, from its own loopback; metric ROLE NAME [LABELS] [PORT]: one
# number of that, 0 if it has not been counted yet.
metrics() {
    in_ns "$1" curl -sf -m 5 "http://127.0.0.1:${2:-9100}/metrics"
}
metric() {
    metrics "$1" "${4:-9100}" |
        awk -v name="$2${3:+{$3\}}" '$1 == name { found = $2 } END { print found + 0 }'
}

# link_bytes NAME: bytes received and sent over the link to the router by the namespace of the
# running process NAME; fails when it has ended or has not entered its namespace yet.
link_bytes() {
    local device received sent rest
    while read -r device received rest; do
        [[ $device == router: ]] || continue
        read -r _ _ _ _ _ _ _ sent _ <<<"$rest"
        echo "$received $sent"
        return 0
    done <"/proc/${TOPOLOGY_PIDS[$1]}/net/dev" 2>/dev/null
    return 1
}

# link_totals ROLE [NEIGHBOUR]: packets and bytes of its link to the neighbour, the router if none is
# named, as IP packets (the Ethernet headers taken off): "rx_packets rx_bytes tx_packets tx_bytes".
link_totals() {
    ip -n "$TOPOLOGY-$1" -s -j link show "${2:-router}" | jq -r '.[0].stats64 |
        "\(.rx.packets) \(.rx.bytes - 14 * .rx.packets) \(.tx.packets) \(.tx.bytes - 14 * .tx.packets)"'
}

# serve N [OPTION...]: starts our server N as "serverN" on its own address, files of SCRATCH/root,
# keys of SCRATCH/keys, and waits until it is ready.
serve() {
    local n=$1
    shift
    start "server$n" "server$n" "$HEADWATER" serve --tun hw0 \
        --address "10.77.2.10$n" --address "fd77:2::10$n" --root "$SCRATCH/root" \
        --keys "$SCRATCH/keys" --server-id "$n" --digests "$SCRATCH/digests$n" "$@"
    wait_ready "server$n"
}

# get ARGUMENT...: our client, in the client's namespace, quiet, at most GET_SECONDS, over our transport unless an
# argument says otherwise; start_get NAME ARGUMENT...: the same in the background, to be awaited by `finish`.
get() {
    in_ns client timeout --foreground "${GET_SECONDS:-120}" "$HEADWATER" get --transport trickles --tun hw0 \
        --address 10.77.1.100 --address fd77:1::100 --silent --show-error "$@"
}
start_get() {
    local name=$1
    shift
    start "$name" client timeout --foreground "${GET_SECONDS:-120}" "$HEADWATER" get --transport trickles --tun hw0 \
        --address 10.77.1.100 --address fd77:1::100 --silent --show-error "$@"
}

# follow NAME: counts from now on the bytes that the process has received over the link to the router.
# has_received BYTES: until it has received that many; fails if it ends before.
follow() {
    FOLLOWED=$1
    until_true 10 link_bytes "$1" >/dev/null || die "$1 ended at once: $(cat "$SCRATCH/$1.err")"
    read -r FOLLOWED_FROM _ < <(link_bytes "$1")
}
has_received() {
    local received
    while read -r received _ < <(link_bytes "$FOLLOWED"); do
        ((received - FOLLOWED_FROM < $1)) || break
        sleep 0.005
    done
    running "$FOLLOWED"
}

# start_nginx N [ADDRESS...]: the kernel's TCP for contrast: nginx as "nginxN" on these addresses of
# server N, 10.77.2N.2 and [fd77:2N::2] if none is named. One process, so that one SIGKILL is a crash, or
# NGINX_WORKERS of them besides the master; NGINX_FILES, NGINX_CONNECTIONS are the limits of each.
start_nginx() {
    local n=$1 dir="$SCRATCH/nginx$1" listen processes='master_process off;' reuse=''
    shift
    (($# > 0)) || set -- "10.77.2$n.2" "[fd77:2$n::2]"
    [[ -z ${NGINX_WORKERS:-} ]] || processes="worker_processes $NGINX_WORKERS;" reuse=' reuseport'
    listen=$(printf "        listen %s:80 backlog=4096$reuse;\n" "$@")
    mkdir -p "$dir"
    cat >"$dir/nginx.conf" <<CONF
daemon off;
$processes
pid $dir/pid;
error_log $dir/error.log;
worker_rlimit_nofile ${NGINX_FILES:-1024};
events { worker_connections ${NGINX_CONNECTIONS:-512}; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    keepalive_timeout 1h;
    client_header_timeout 1h;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    server {
$listen
        root $SCRATCH/root;
    }
}
CONF
    start "nginx$n" "server$n" nginx -e "$dir/error.log" -c "$dir/nginx.conf"
    # shellcheck disable=SC2317 # called by name
    nginx_answers() { in_ns "server$n" curl -so /dev/null "http://$1/"; }
    until_true 10 nginx_answers "$1" || {
        cat "$SCRATCH/nginx$n.err" "$dir/error.log" >&2
        return 1
    }
}
