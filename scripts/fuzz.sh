#!/usr/bin/env bash
#
# make fuzz: explores every fuzz target for SECONDS each, from the committed corpora.
#
#   fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../tests"

readonly SECONDS_EACH=${1:-60}

rustup run nightly cargo --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
for target in $(cargo +nightly fuzz list --fuzz-dir fuzz); do
    echo "fuzzing $target for $SECONDS_EACH s"
    cargo +nightly fuzz run --fuzz-dir fuzz "$target" -- -max_total_time="$SECONDS_EACH" -rss_limit_mb=2048
done
