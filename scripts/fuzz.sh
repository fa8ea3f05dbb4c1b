#!/usr/bin/env bash
#
# make fuzz: explores every fuzz target for SECONDS each, from the committed corpora. Its findings
# stay below tests/fuzz/target; an input that fails lands in tests/fuzz/artifacts.
#
#   fuzz.sh [SECONDS] [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SECONDS_EACH=${1:-60}
readonly FOUND=tests/fuzz/target/corpus

rustup run nightly cargo --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir tests/fuzz)
fi
for target in "${targets[@]}"; do
    echo "fuzzing $target for $SECONDS_EACH s"
    mkdir -p "$FOUND/$target"
    cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" "$FOUND/$target" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$SECONDS_EACH" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1
done
