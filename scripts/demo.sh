#!/usr/bin/env bash
#
# make demo: a download whose server is killed with SIGKILL in its middle and started again, by
# headwater and, for contrast, by the kernel's TCP (curl from nginx) on the same path.
#
# OUT gets demo.svg and demo.json. Leaves no namespace and no process behind.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/traffic.sh
source scripts/lib/traffic.sh
# shellcheck source=scripts/lib/failover.sh
source scripts/lib/failover.sh

readonly SMALL_FILES=48

settings demo "$@"
become_root "$@"
need ip tc nft jq curl nginx python3 sha256sum
need_program

# plant ROOT: a tree of this machine's files, and one large file made of them.
plant() {
    local root=$1 sysroot sources=() file n=0
    sysroot=$(rustc --print sysroot 2>/dev/null || echo /usr)
    for file in /usr/share/doc "$sysroot/share" "$sysroot/lib" /usr/lib; do
        [[ -d $file ]] && sources+=("$file")
    done
    mkdir -p "$root/files"
    # A broken pipe is how `head` ends the two searches.
    while IFS= read -r -d '' file; do
        n=$((n + 1))
        mkdir -p "$root/files/$((n / 100))"
        cp -- "$file" "$root/files/$((n / 100))/$n-${file##*/}"
    done < <(find "${sources[@]}" -xdev -type f -readable -size +0 -size -256k -print0 2>/dev/null |
        head -z -n 600 || true)
    { find "${sources[@]}" -xdev -type f -readable -size +1M -print0 2>/dev/null |
        sort -z | xargs -0 cat 2>/dev/null || true; } | head -c "${OBJECT_MB}M" >"$root/large.bin"
    (($(stat -c %s "$root/large.bin") >= OBJECT_MB * 1048576)) ||
        die "this machine has no $OBJECT_MB MB of files to serve: set OBJECT_MB lower"
}

digest() { sha256sum "$1" 2>/dev/null | cut -c 1-64; }

mib() { awk -v kib="$1" 'BEGIN { printf "%.1f MiB", kib / 1024 }'; }

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Planting files, making namespaces: client -- router ($RATE) -- server"
topology_up servers 1
plant "$SCRATCH/root"
echo "  $(find "$SCRATCH/root" -type f | wc -l) files, $(du -sm "$SCRATCH/root" | cut -f1) MB; large.bin has $OBJECT_MB MiB"
"$HEADWATER" keygen --out "$SCRATCH/keys"
rate "$RATE"
serve 1
rss_fresh=$(rss_kib server1)
want=$(digest "$SCRATCH/root/large.bin")

say "Fetching $SMALL_FILES small files of the tree by one command"
mapfile -t small < <(cd "$SCRATCH/root" && find files -type f | sort -V | sed "${SMALL_FILES}q")
mkdir "$SCRATCH/small"
outputs=() urls=()
for index in "${!small[@]}"; do
    outputs+=(-o "$SCRATCH/small/$index")
    urls+=("http://10.77.2.101/$(jq -rn --arg path "${small[index]}" '$path | split("/") | map(@uri) | join("/")')")
done
get --stats "$SCRATCH/small.json" "${outputs[@]}" "${urls[@]}"
for index in "${!small[@]}"; do
    cmp "$SCRATCH/root/${small[index]}" "$SCRATCH/small/$index"
done
echo "  all ${#small[@]} identical"

say "headwater: large.bin; kill -9 of the server in the middle, started again $OUTAGE_S s later"
contend headwater server1 "$HEADWATER" get --transport trickles --tun hw0 --address 10.77.1.100 --silent --show-error \
    --stats "$SCRATCH/stats.json" -o "$SCRATCH/ours.bin" http://10.77.2.101/large.bin
got=$(digest "$SCRATCH/ours.bin")
rss_killed=$RESULT_RSS_KILLED rss_end=$RESULT_RSS_END ours_status=$RESULT_STATUS
outage=$(awk -v a="$RESULT_KILLED" -v b="$RESULT_BACK" 'BEGIN { printf "%d", (b - a) * 1000 }')
ours=$(figures headwater "headwater get" "$([[ $got != "$want" ]] || echo 1)")
ours_ok=$(jq .completed <<<"$ours") ours_stall=$(jq .longest_stall_ms <<<"$ours")
echo "  exit status $ours_status, server away $outage ms, no progress for $ours_stall ms"
stop server1

say "Kernel TCP: the same file, curl from nginx on the same path, nginx killed the same way"
start_nginx 1
control=$(in_ns server1 sysctl -n net.ipv4.tcp_congestion_control)
contend curl nginx1 curl --silent --show-error -o "$SCRATCH/theirs.bin" http://10.77.21.2/large.bin
theirs_status=$RESULT_STATUS theirs=$(digest "$SCRATCH/theirs.bin")
theirs_bytes=$(stat -c %s "$SCRATCH/theirs.bin")
tcp=$(figures curl "curl from nginx, kernel TCP ($control)" "$([[ $theirs != "$want" ]] || echo 1)")
echo "  exit status $theirs_status: $(tail -n 1 "$SCRATCH/curl.err")"

mkdir -p "$OUT"
jq -n --arg title "Download of $OBJECT_MB MiB, server killed and restarted" \
    --arg link "One download at a time, a link of $RATE" \
    --arg sha256 "$want" --argjson outage "$outage" --argjson ours "$ours" --argjson tcp "$tcp" \
    --argjson fresh "$rss_fresh" --argjson killed "$rss_killed" --argjson restarted "$rss_end" \
    --slurpfile stats "$SCRATCH/stats.json" \
    '{title: $title, link: $link, sha256: $sha256, server_away_ms: $outage,
      server_rss_kib: {fresh: $fresh, before_kill: $killed, restarted_at_end: $restarted},
      stats: $stats[0], contenders: [$ours, $tcp]}' >"$OUT/demo.json"
scripts/lab.sh report failover "$OUT/demo.json" "$OUT/demo.svg"
give_back

stat_of() { jq -r "$1 // \"?\"" "$SCRATCH/stats.json"; }
say "Result"
row() { printf '  %-34s %-22s %s\n' "$@"; }
row "" "headwater" "curl + nginx, kernel TCP"
row "server killed and restarted" "once, away $outage ms" "once"
row "exit status" "$ours_status" "$theirs_status"
row "bytes of $((OBJECT_MB * 1048576))" "$(stat -c %s "$SCRATCH/ours.bin")" "$theirs_bytes"
row "digest identical" "$([[ $got == "$want" ]] && echo yes || echo NO)" \
    "$([[ $theirs == "$want" ]] && echo yes || echo NO)"
row "longest time without progress" "$ours_stall ms" "-"
row "  as the client saw it" "$(stat_of .longest_stall_ms) ms" "-"
row "handshakes" "$(stat_of .handshakes)" "-"
row "server memory: fresh" "$(mib "$rss_fresh")" "-"
row "  just before the kill" "$(mib "$rss_killed")" "-"
row "  restarted, at the end" "$(mib "$rss_end")" "-"
echo
echo "  served   $want"
echo "  received ${got:-nothing}"
echo "  picture: $OUT/demo.svg   figures: $OUT/demo.json"
[[ $ours_ok == true ]] || die "the download did not survive"
