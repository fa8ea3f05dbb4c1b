#!/usr/bin/env bash
#
# make sim-soak: simulates RUNS worlds of seeds never used before, drawn from the clock, in chunks, and
# prints its progress. Stops at the first world that breaks a law: its seed and captures remain.
#
#   soak.sh [RUNS]      100,000 worlds take about 50 minutes on one core; CHUNK=1000 sets the size of a chunk
set -euo pipefail
cd "$(dirname "$0")/.."

readonly RUNS=${1:-100000} CHUNK=${CHUNK:-1000} PROGRAM=target/release/headwater
[[ $RUNS =~ ^[1-9][0-9]*$ && $CHUNK =~ ^[1-9][0-9]*$ ]] || {
    echo "soak.sh: RUNS and CHUNK are whole numbers from 1 on" >&2
    exit 2
}

first=$(date +%s%N)
echo "seeds from $first on"
for ((done = 0; done < RUNS; done += count)); do
    count=$((RUNS - done < CHUNK ? RUNS - done : CHUNK))
    mkdir -p out
    if ! "$PROGRAM" sim --seed $((first + done)) --runs "$count" --pcap out >out/soak.log 2>&1; then
        cat out/soak.log
        echo "a law is broken among the worlds from $((first + done)) on, after $done others" >&2
        exit 1
    fi
    echo "$((done + count)) of $RUNS worlds, $SECONDS s: no law broken"
done
