# shellcheck shell=bash
#
# The examples that need a device, one against the other, beside the program and curl. Sourced by
# test-netns.sh. `cargo build --examples` builds them, as `make test` does on its way.

readonly EXAMPLES=target/debug/examples

scenario_examples() {
    local example address=10.77.2.101 bytes=1000000
    for example in serve_bytes fetch_url; do
        [[ -x $EXAMPLES/$example ]] || fail "no $EXAMPLES/$example: run \`cargo build --examples\`"
    done
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
