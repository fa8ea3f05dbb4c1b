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

readonly BASELINE=benches/instructions.json MAX_PERCENT=5
# shellcheck source=scripts/lib/processes.sh
source scripts/lib/processes.sh
settings bench-check "$@"

need valgrind jq
[[ -n $UPDATE || -f $BASELINE ]] || die "no $BASELINE: make it with UPDATE=1"

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

program=$("$CARGO" bench --locked --no-run --bench instructions --message-format=json |
    jq -r 'select(.executable and .target.name == "instructions") | .executable')
[[ -x $program ]] || die "the benchmark was not built"

# instructions CASE: of one call.
instructions() {
    local calls total
    calls=$(valgrind --tool=callgrind --callgrind-out-file="$scratch/out" \
        --toggle-collect='*instructions::measured*' "$program" "$1" 2>"$scratch/err") ||
        die "callgrind failed: $(tail -n 3 "$scratch/err")"
    total=$(sed -n 's/^\(summary\|totals\): \([0-9]*\).*/\2/p' "$scratch/out" | tail -n 1)
    ((total > 0)) || die "callgrind has not seen the measured function of '$1'"
    echo $((total / calls))
}

for name in $("$program"); do
    echo "{\"$name\": $(instructions "$name")}"
done | jq -s --arg rustc "$(rustc --version | cut -d ' ' -f 2)" '{rustc: $rustc, cases: add}' \
    >"$scratch/now.json"

if [[ -n $UPDATE ]]; then
    cp "$scratch/now.json" "$BASELINE"
    echo "bench-check: wrote $BASELINE"
    exit 0
fi

jq -n -r --slurpfile now "$scratch/now.json" --slurpfile baseline "$BASELINE" \
    --argjson most "$MAX_PERCENT" '
    $now[0] as $now | $baseline[0] as $base
    | (if $now.rustc != $base.rustc then "note\tbaseline of rustc \($base.rustc), this is \($now.rustc)"
       else empty end),
      ($now.cases | keys_unsorted[] | . as $case | $now.cases[$case] as $n | $base.cases[$case] as $b
       | if $b == null then "row\t\($case)\t-\t\($n)\tnew\t"
         else (100 * ($n - $b) / $b) as $percent
         | "row\t\($case)\t\($b)\t\($n)\t\($percent * 10 | round / 10)\t"
           + (if $percent > $most then "TOO MANY" else "" end) end)
    ' >"$scratch/rows"
sed -n 's/^note\t/bench-check: note: /p' "$scratch/rows" >&2
awk -F '\t' '
    BEGIN { printf "%-20s %10s %10s %9s\n", "case", "baseline", "now", "percent" }
    $1 == "row" { printf "%-20s %10s %10s %9s  %s\n", $2, $3, $4, $5, $6 }' "$scratch/rows"
if grep -q 'TOO MANY$' "$scratch/rows"; then
    die "over $MAX_PERCENT percent more instructions: look for the cause, or accept it with UPDATE=1"
fi
