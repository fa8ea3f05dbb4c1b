# shellcheck shell=bash
#
# A download whose server dies in its middle and comes back. Sourced after traffic.sh; the testbed
# is `topology_up servers 1`, the downloads are of OBJECT_MB MiB.

readonly OUTAGE_S=0.5

# contend NAME SERVER COMMAND...: starts COMMAND as a download, kills SERVER when two fifths have
# arrived, brings it back, waits for the end. Sets RESULT_* and leaves SCRATCH/NAME.samples.
contend() {
    local name=$1 server=$2 threshold
    shift 2
    threshold=$((OBJECT_MB * 1048576 * 2 / 5))
    start sampler client "$PWD/scripts/lab.sh" probe interface router 50
    until_true 10 test -s "$SCRATCH/sampler.out" || die "no samples"
    start "$name" client "$@"
    RESULT_START=$EPOCHREALTIME
    follow "$name"
    has_received "$threshold" || die "$name ended early: $(cat "$SCRATCH/$name.err")"
    # shellcheck disable=SC2034 # for the caller
    RESULT_RSS_KILLED=$(rss_kib "$server")
    kill9 "$server"
    RESULT_KILLED=$EPOCHREALTIME
    # A download that the kill breaks ends here, one that survives waits for the server.
    # shellcheck disable=SC2317 # called by name
    gone() { ! running "$name"; }
    RESULT_END=
    if until_true "$OUTAGE_S" gone; then RESULT_END=$EPOCHREALTIME; fi
    sleep "$(awk -v from="$RESULT_KILLED" -v now="$EPOCHREALTIME" -v outage="$OUTAGE_S" \
        'BEGIN { left = from + outage - now; print (left > 0 ? left : 0) }')"
    "$server"
    RESULT_BACK=$EPOCHREALTIME
    RESULT_STATUS=0
    finish "$name" || RESULT_STATUS=$?
    RESULT_END=${RESULT_END:-$EPOCHREALTIME}
    sleep 0.3
    # shellcheck disable=SC2034 # for the caller
    RESULT_RSS_END=$(rss_kib "$server")
    stop sampler
    mv "$SCRATCH/sampler.out" "$SCRATCH/$name.samples"
}

# The servers as `contend` knows them.
server1() { serve 1; }
nginx1() { start_nginx 1; }

# figures NAME LABEL IDENTICAL: the contender that `contend` has just had, as JSON for records and
# pictures; IDENTICAL is 1 if it has the object's bytes.
figures() {
    "$LAB" record failover "$SCRATCH/$1.samples" "$2" start="$RESULT_START" killed="$RESULT_KILLED" \
        back="$RESULT_BACK" end="$RESULT_END" status="$RESULT_STATUS" identical="$3"
}
