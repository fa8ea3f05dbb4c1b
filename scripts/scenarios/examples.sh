# shellcheck shell=bash
#
# The examples that need a device, one against the other, beside the program and curl. Sourced by
# test-netns.sh. `cargo build --examples` builds them, as `make test` does on its way.

readonly EXAMPLES=target/debug/examples

need_examples() {
    local example
    for example in "$@"; do
        [[ -x $EXAMPLES/$example ]] || fail "no $EXAMPLES/$example: run \`cargo build --examples\`"
    done
}

scenario_examples() {
    local address=10.77.2.101 bytes=1000000
    need_examples serve_bytes fetch_url
    fleet 1
    start serve_bytes server1 "$EXAMPLES/serve_bytes" hw0 "$address" "$SCRATCH/keys"
    wait_ready serve_bytes
    jq -jn --argjson bytes "$bytes" '[range(251)] | implode' | iconv -f UTF-8 -t LATIN1 >"$SCRATCH/cycle"
    while (($(stat -c %s "$SCRATCH/cycle") < bytes)); do
        cat "$SCRATCH/cycle" "$SCRATCH/cycle" >"$SCRATCH/twice"
        mv "$SCRATCH/twice" "$SCRATCH/cycle"
    done
    head -c "$bytes" "$SCRATCH/cycle" >"$SCRATCH/want"
    in_ns client timeout 60 "$EXAMPLES/fetch_url" hw0 10.77.1.100 "http://$address/$bytes" >"$SCRATCH/got"
    identical "$SCRATCH/want" "$SCRATCH/got"
    in_ns client curl -sf -m 60 -o "$SCRATCH/got" "http://$address/$bytes"
    identical "$SCRATCH/want" "$SCRATCH/got"
    get -o "$SCRATCH/got" "http://$address/$bytes"
    identical "$SCRATCH/want" "$SCRATCH/got"
}

# An application that thinks for 3 s, and then has a line each 100 ms: the client waits without a timeout
# or a loss, over the transport and over TCP, and a restart of the server while it thinks costs only
# thinking again.
scenario_slow_origin() {
    local address=10.77.2.101 url
    url=http://$address/3000/10/100
    need_examples slow_origin
    fleet 1
    start slow_origin server1 "$EXAMPLES/slow_origin" hw0 "$address" "$SCRATCH/keys"
    wait_ready slow_origin
    seq -f 'line %g' 10 >"$SCRATCH/want"
    get -o "$SCRATCH/got" --stats "$SCRATCH/stats" "$url"
    identical "$SCRATCH/want" "$SCRATCH/got"
    jq -e '.timeouts == 0 and .lost == 0 and .handshakes == 1 and .waits > 0 and .ttfb_seconds > 3' \
        "$SCRATCH/stats" >/dev/null || fail "not as it should be: $(cat "$SCRATCH/stats")"
    in_ns client curl -sf -m 60 -o "$SCRATCH/got" "http://$address/1000/10/100"
    identical "$SCRATCH/want" "$SCRATCH/got"
    url=http://$address/3001/10/100
    start_get slow -o "$SCRATCH/got" --stats "$SCRATCH/stats" "$url"
    sleep 1
    kill9 slow_origin
    start slow_origin server1 "$EXAMPLES/slow_origin" hw0 "$address" "$SCRATCH/keys"
    wait_ready slow_origin
    finish slow
    identical "$SCRATCH/want" "$SCRATCH/got"
    jq -e '.handshakes == 1 and .waits > 1' "$SCRATCH/stats" >/dev/null ||
        fail "not as it should be: $(cat "$SCRATCH/stats")"
}

# A client in another language, written from the manual's page of the protocol alone: through 2 % loss each way
# and a crash of its server. It uses the kernel's UDP.
scenario_other_client() {
    local address=10.77.2.101
    fleet 1
    object 4M
    serve 1
    get -o "$SCRATCH/got" "http://$address/object"
    loss 2
    rate 8mbit
    start other client timeout 120 examples/client.py "$address" /object "$SCRATCH/other"
    sleep 1.5
    running other || fail "it ended before the crash: $(cat "$SCRATCH/other.err")"
    kill9 server1
    serve 1
    finish other || fail "exit status $?: $(cat "$SCRATCH/other.err")"
    identical "$SCRATCH/root/object" "$SCRATCH/other"
    cat "$SCRATCH/other.err"
    # Nothing that it sent was refused, but for copies that a server has answered before.
    grep -Eq '200 OK.* [1-9][0-9]* losses, [1-9]' "$SCRATCH/other.err" || fail "no loss, or no timeout"
}
