#!/usr/bin/env bash
#
# make bench: micro-benchmarks (nanoseconds and bytes per call), then goodput in namespaces.
# Environment: ROUNDS of the goodput comparison (5).
set -euo pipefail
cd "$(dirname "$0")/.."

cargo bench --locked
status=0
scripts/goodput.sh || status=$?
[[ $status == 0 || $status == 77 ]] || exit "$status"
