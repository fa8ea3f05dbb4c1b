#!/usr/bin/env bash
#
# make bench-check: instructions of every step of the transport, counted by callgrind, beside those
# in benches/instructions.json. Fails if any takes over 5 percent more. UPDATE=1 writes the file
# instead.
#
# Counts hardly depend on what else the machine does, but on the compiler: the file names its own.
# They depend a little on the processor too, since memcpy and AES-GCM are chosen by it.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BASELINE=benches/instructions.json
# shellcheck source=scripts/lib/processes.sh
source scripts/lib/processes.sh
settings bench-check "$@"

need valgrind jq python3
[[ -n $UPDATE || -f $BASELINE ]] || die "no $BASELINE: make it with UPDATE=1"

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

program=$("$CARGO" bench --locked --no-run --bench instructions --message-format=json |
    jq -r 'select(.executable and .target.name == "instructions") | .executable')
[[ -x $program ]] || die "the benchmark was not built"

"$LAB" probe instructions "$program" "$(rustc --version | cut -d ' ' -f 2)" >"$scratch/now.json"
if [[ -n $UPDATE ]]; then
    cp "$scratch/now.json" "$BASELINE"
    echo "bench-check: wrote $BASELINE"
    exit 0
fi
"$LAB" report instructions "$scratch/now.json" "$BASELINE"
