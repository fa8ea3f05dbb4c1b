#!/usr/bin/env bash
#
# make test: all tests of the crate, then the namespace tests where they can run. The last line is
# the count of the namespace tests, or says that they were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast
    cargo test --locked --doc
else
    cargo test --locked --no-fail-fast
fi

status=0
scripts/test-netns.sh || status=$?
case $status in
    0) ;;
    77) echo "namespace tests: SKIPPED" ;;
    *) exit "$status" ;;
esac
