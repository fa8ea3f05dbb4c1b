#!/usr/bin/env bash
#
# An idle connection outlives its server: the reader of a download takes one piece and then nothing
# for SECONDS, so that the client's buffer is full and nothing is requested; half way the server is
# killed and started again. When the reader goes on, one request must bring the next bytes.
#
#   idle.sh [SECONDS]      continuations are good for 15 minutes
#
# Prints the figures; the records are in OUT/idle.jsonl. Fails if the bytes differ, or if the client sent
# more than one packet before the first answer.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh


main() {
    settings idle "$@"
    become_root "$@"
    need ip jq tshark python3
    need_program
    topology_up servers 1
    # So large that the digest is remembered across the restart, not computed before the first answer.
    content 24000000
    serve 1
    versions client server1
    mkfifo "$SCRATCH/pipe"
    # shellcheck disable=SC2016 # for the inner shell
    start reader client bash -c 'exec scripts/lab.sh probe slow-reader "$1" 0 "$2" <"$0"' \
        "$SCRATCH/pipe" "$SECONDS_IDLE" "$SCRATCH/got"
    # shellcheck disable=SC2016 # for the inner shell
    start download client bash -c 'exec "$@" >"$0"' "$SCRATCH/pipe" "$HEADWATER" get --transport trickles --tun hw0 \
        --address 10.77.1.100 --silent --show-error --buffer 1M --pcap "$SCRATCH/capture.pcap" \
        --stats "$SCRATCH/stats" http://10.77.2.101/object
    sleep $((SECONDS_IDLE / 2))
    running download || die "the download ended at once: $(cat "$SCRATCH/download.err")"
    kill9 server1
    serve 1
    finish download || die "the download failed: $(cat "$SCRATCH/download.err")"
    finish reader || die "the reader failed: $(cat "$SCRATCH/reader.err")"
    cmp "$SCRATCH/root/object" "$SCRATCH/got" || die "the bytes differ"
    tshark -r "$SCRATCH/capture.pcap" -Y udp -T fields -e frame.time_epoch -e ip.src \
        >"$SCRATCH/packets" 2>"$SCRATCH/tshark.err" || die "$(tail -n 1 "$SCRATCH/tshark.err")"
    record resumed client=10.77.1.100
    report idle
}

main "$@"
