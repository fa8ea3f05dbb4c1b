# shellcheck shell=bash
#
# The README: its commands work as printed. Sourced by test-netns.sh.

# readme_blocks: the `sh` blocks of the README, in order, but for those marked as not run, which install
# or measure.
readme_blocks() {
    awk '/^```$/ && inside { inside = 0; print "" }
        inside { print }
        /^```sh$/ && last != "<!-- not run by the test -->" { inside = 1 }
        { last = $0 }' README.md
}

# All blocks in one shell, in a network, a mount and a process namespace of their own, where `sudo` has
# nothing to do: whatever they make and start goes with those. A command that fails ends the run, but for
# the jobs in the background, whose end is awaited by the blocks themselves.
scenario_readme() {
    local got answer
    topology_up pair
    mkdir "$SCRATCH/bin" "$SCRATCH/tmp" "$SCRATCH/checkout"
    printf '#!/bin/sh\nexec "$@"\n' >"$SCRATCH/bin/sudo"
    chmod 755 "$SCRATCH/bin/sudo"
    ln -s "$HEADWATER" "$SCRATCH/bin/headwater"
    ln -s "$PWD/scripts" "$SCRATCH/checkout/scripts"
    readme_blocks >"$SCRATCH/blocks.sh"
    at_least "lines of commands" "$(wc -l <"$SCRATCH/blocks.sh")" 60
    cat >"$SCRATCH/all.sh" <<SHELL
set -euo pipefail
ip link set lo up
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
cd "$SCRATCH/checkout"
$(cat "$SCRATCH/blocks.sh")
SHELL
    PATH="$SCRATCH/bin:$PATH" TMPDIR="$SCRATCH/tmp" XDG_STATE_HOME="$SCRATCH/state" timeout 300 \
        unshare --net --mount --pid --fork --mount-proc --kill-child bash "$SCRATCH/all.sh" \
        >"$SCRATCH/readme.out" 2>"$SCRATCH/readme.err" ||
        fail "a command of the README: $(tail -n 5 "$SCRATCH/readme.out" "$SCRATCH/readme.err")"
    cat "$SCRATCH/readme.out"
    identical "$SCRATCH/checkout/try/file" "$SCRATCH/checkout/try/files/file"
    # The statistics of `get` that the README shows, one line per download, in its order.
    mapfile -t got < <(grep '"handshakes":' "$SCRATCH/readme.out")
    equal "downloads whose statistics are shown" "${#got[@]}" 6
    for answer in "${got[@]}"; do
        equal "handshakes" "$(jq .handshakes <<<"$answer")" 1
    done
    equal "servers before the drain" "$(jq -c '.by_server | keys' <<<"${got[3]}")" '["1","2"]'
    equal "servers after it" "$(jq -c '.by_server | keys' <<<"${got[4]}")" '["2"]'
    equal "sites" "$(jq -c '.by_server | keys' <<<"${got[5]}")" '["1","2"]'
    grep -q '^hello$' "$SCRATCH/readme.out" || fail "curl had no answer"
}
