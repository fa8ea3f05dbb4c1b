# shellcheck shell=bash
#
# Files as the world writes them: logs, files that grow, links, long names, and few descriptors. Sourced
# by test-netns.sh.

# ask CURL-ARGUMENT...: the service by curl over the kernel's TCP.
ask() {
    in_ns client curl -sS -m 20 "$@"
}

readonly FILES_BASE=http://10.77.2.101

# A log that is written to a thousand times a second is served as it was when it was requested, over TCP
# and over the transport; a file that grows is served up to the length that it had.
scenario_growing_files() {
    local before after size
    fleet 1
    : >"$SCRATCH/root/log"
    head -c 20000000 /dev/urandom >"$SCRATCH/root/video"
    cp "$SCRATCH/root/video" "$SCRATCH/video"
    serve 1
    start writer client python3 -c "
import time
with open('$SCRATCH/root/log', 'wb', buffering=0) as log:
    for line in range(60000):
        log.write(b'%079d\n' % line)
        time.sleep(0.001)"
    sleep 1
    before=$(stat -c %s "$SCRATCH/root/log")
    ask -f -o "$SCRATCH/got" "$FILES_BASE/log"
    after=$(stat -c %s "$SCRATCH/root/log")
    size=$(stat -c %s "$SCRATCH/got")
    at_least "bytes of the log" "$size" "$before"
    at_most "bytes of the log" "$size" "$after"
    cmp -n "$size" "$SCRATCH/got" "$SCRATCH/root/log" || fail "other bytes than the log's"
    get -o "$SCRATCH/got" "$FILES_BASE/log"
    size=$(stat -c %s "$SCRATCH/got")
    cmp -n "$size" "$SCRATCH/got" "$SCRATCH/root/log" || fail "other bytes than the log's"
    stop writer
    start grower client sh -c \
        "for i in \$(seq 100); do head -c 10000 /dev/zero >>'$SCRATCH/root/video'; sleep 0.1; done"
    sleep 0.5
    ask -f -o "$SCRATCH/got" "$FILES_BASE/video"
    at_least "bytes of the video" "$(stat -c %s "$SCRATCH/got")" 20000000
    cmp -n 20000000 "$SCRATCH/got" "$SCRATCH/video" || fail "other bytes than the video's"
    get -o "$SCRATCH/got" "$FILES_BASE/video"
    cmp -n 20000000 "$SCRATCH/got" "$SCRATCH/video" || fail "other bytes than the video's"
}

# The root is a symbolic link, which a deployment moves; then the old directory goes.
scenario_root_swapped() {
    local release
    fleet 1
    rmdir "$SCRATCH/root"
    for release in 1 2; do
        mkdir "$SCRATCH/release$release"
        echo "release $release" >"$SCRATCH/release$release/file"
    done
    ln -s release1 "$SCRATCH/root"
    serve 1
    equal "before" "$(ask "$FILES_BASE/file")" "release 1"
    ln -s release2 "$SCRATCH/next"
    mv -T "$SCRATCH/next" "$SCRATCH/root"
    equal "after the swap" "$(ask "$FILES_BASE/file")" "release 2"
    rm -r "$SCRATCH/release1"
    equal "over the transport" "$(get -o - "$FILES_BASE/file")" "release 2"
    rm "$SCRATCH/root"
    mkdir "$SCRATCH/root"
    echo anew >"$SCRATCH/root/file"
    equal "made anew" "$(ask "$FILES_BASE/file")" anew
}

# Directories of more entries than a page has, absolute links, and long paths.
scenario_names_and_links() {
    local path
    fleet 1
    mkdir "$SCRATCH/root/many" "$SCRATCH/root/real"
    (cd "$SCRATCH/root/many" && seq -f 'f%05g' 5000 | xargs touch)
    echo inside >"$SCRATCH/root/real/file"
    ln -s "$SCRATCH/root/real/file" "$SCRATCH/root/absolute"
    ln -s "$SCRATCH/root/real" "$SCRATCH/root/directory"
    ln -s /etc/hostname "$SCRATCH/root/outside"
    path=$(printf 'x%.0s' {1..200})
    path=$path/$path/$path/$path/$path
    mkdir -p "$SCRATCH/root/$path"
    echo deep >"$SCRATCH/root/$path/file"
    serve 1
    code() { ask -o "$SCRATCH/got" -w '%{http_code}' "$FILES_BASE/$1"; }
    equal "a large directory" "$(code many/)" 200
    equal "its first entries" "$(grep -c '<li><a href="f' "$SCRATCH/got")" 4096
    grep -q 'and 904 more' "$SCRATCH/got" || fail "the others are not counted"
    equal "an absolute link to a file" "$(code absolute)" 200
    equal "one to a directory" "$(code directory/file)" 200
    equal "one that leads out" "$(code outside)" 403
    equal "a path of a thousand bytes" "$(code "$path/file")" 200
    equal "its content" "$(cat "$SCRATCH/got")" deep
}

# With few descriptors, known files give way to new ones: every request is answered.
scenario_few_descriptors() {
    local index answered
    fleet 1
    for index in {1..100}; do
        head -c 100000 /dev/urandom >"$SCRATCH/root/$index"
    done
    serve 1
    prlimit --pid "${TOPOLOGY_PIDS[server1]}" --nofile=40
    answered=0
    for index in {1..100}; do
        ask -f -o "$SCRATCH/got" "$FILES_BASE/$index" || fail "file $index: no answer"
        identical "$SCRATCH/root/$index" "$SCRATCH/got"
        answered=$((answered + 1))
    done
    equal "answered" "$answered" 100
}

# The first byte of a file that was never requested does not wait for its digest.
scenario_first_byte() {
    local seconds
    fleet 1
    echo small >"$SCRATCH/root/small"
    serve 1
    truncate -s 20G "$SCRATCH/root/large"
    sleep 0.1
    seconds=$(ask -r 0-999 -o "$SCRATCH/got" -w '%{time_starttransfer}' "$FILES_BASE/large")
    equal "bytes" "$(stat -c %s "$SCRATCH/got")" 1000
    echo "first byte after $seconds s over TCP"
    truncate -s 19G "$SCRATCH/root/other"
    sleep 0.1
    get -r 0-999 -o "$SCRATCH/got" --stats "$SCRATCH/stats" "$FILES_BASE/other"
    equal "bytes" "$(stat -c %s "$SCRATCH/got")" 1000
    echo "first byte after $(stat_of "$SCRATCH/stats" .ttfb_seconds) s over the transport"
    ask -I "$FILES_BASE/large" >"$SCRATCH/head"
    grep -qi '^etag' "$SCRATCH/head" || fail "no tag"
    ! grep -qi '^repr-digest' "$SCRATCH/head" || fail "20 GB were digested meanwhile"
}

# While clients request two thousand files never read before, the loop answers echoes: it neither
# digests nor reads them itself.
scenario_crowd_of_cold_files() {
    fleet 1
    mkdir "$SCRATCH/root/cold"
    serve 1
    (cd "$SCRATCH/root/cold" && seq 0 1999 | xargs truncate -s 1M)
    start curl client nice curl -sfZ --parallel-max 40 -r 0-99 -o "$SCRATCH/parts" "$FILES_BASE/cold/[0-1999]"
    in_ns client chrt -f 1 ping -q -c 200 -i 0.01 -W 1 10.77.2.101 >"$SCRATCH/ping" || fail "no echo"
    finish curl || fail "curl failed"
    grep -q ' 0% packet loss' "$SCRATCH/ping" || fail "lost echoes: $(<"$SCRATCH/ping")"
    sed -n 's/^rtt/echoes/p' "$SCRATCH/ping"
}

# flooded KIND PATH COUNT GROWTH: FLOOD_ROUNDS times a download alone, then one under 1,000 forged OPENs a
# second for PATH, in which %d changes; memory grows by at most GROWTH KiB. Prints the median of the ratios.
flooded() {
    local kind=$1 path=$2 count=$3 growth=$4 round rss opens alone under ratios=()
    rss=$(rss_kib server1)
    opens=$(metric server1 headwater_opens_total)
    for ((round = 0; round < FLOOD_ROUNDS; round++)); do
        alone=$(flood_download)
        start "flood$kind" client scripts/lab.sh probe open-flood 10.77.2.101 7600 1000 10.77.1 "$path" "$count"
        sleep 1
        under=$(flood_download)
        in_ns client ping -c 5 -i 0.2 -W 1 10.77.2.101 >"$SCRATCH/ping" || fail "$kind: no echo"
        stop "flood$kind"
        ratios+=("$(jq -n "$under / $alone * 100 | round / 100")")
    done
    opens=$(($(metric server1 headwater_opens_total) - opens))
    at_least "$kind: OPENs answered" "$opens" $((500 * FLOOD_ROUNDS))
    at_most "$kind: memory grown, KiB" $(($(rss_kib server1) - rss)) "$growth"
    at_most "$kind: files open" "$(find "/proc/${TOPOLOGY_PIDS[server1]}/fd" | wc -l)" 100
    echo "$kind: goodput, of that alone: $(jq -sc 'sort | "\(.[length / 2 | floor]) (\(.[0])-\(.[-1]))"' -r <<<"${ratios[*]}")," \
        "$(sed -n 's/^rtt/echoes/p' "$SCRATCH/ping")"
}

# flood_download: fetches the object, prints its goodput in bit/s.
flood_download() {
    get --no-digest -o "$SCRATCH/got" --stats "$SCRATCH/stats" "$FILES_BASE/object"
    identical "$SCRATCH/root/object" "$SCRATCH/got" >&2
    stat_of "$SCRATCH/stats" .goodput_bps
}

# Forged OPENs for things that are not in memory start no work: a download goes on, echoes are answered,
# and memory stays as it was.
scenario_forged_opens() {
    local folder link
    fleet 1
    object 200M
    mkdir "$SCRATCH/root/cold" "$SCRATCH/root/links" "$SCRATCH/root/lists"
    (cd "$SCRATCH/root/cold" && seq 10000 | xargs truncate -s 10M)
    for folder in {0..79}; do
        mkdir "$SCRATCH/root/lists/$folder"
        (cd "$SCRATCH/root/lists/$folder" && seq -f 'name%05g' 4096 | xargs touch)
    done
    echo end >"$SCRATCH/root/links/0"
    for link in {1..30}; do
        ln -s "$((link - 1))" "$SCRATCH/root/links/$link"
    done
    serve 1 --cache 0 --metrics 127.0.0.1:9100
    flood_download >/dev/null
    # The first flood beside a download takes buffers for flights that wait, once: 1024 of 64 KiB at most.
    flooded cold /cold/%d 10000 81920
    flooded lists /lists/%d/ 80 4096
    flooded links /links/%d 31 4096
    flooded periods /.dynamic/%d/1000000/262143 1000000 4096
    flooded marks /.watermark/m%d/object 1000000 4096
}

# as_user UID COMMAND...: in the client's namespace, as root or as a user with the right to make
# devices and no other; get_as UID ARGUMENT...: our client.
as_user() {
    local user=$1
    shift
    if ((user == 0)); then
        in_ns client timeout --foreground 60 "$@"
        return
    fi
    # shellcheck disable=SC2016 # expanded by the other shell
    in_ns client unshare --mount bash -c 'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 &&
        exec timeout --foreground 60 setpriv --reuid "$1" --regid "$1" --clear-groups --inh-caps -all,+net_admin \
            --ambient-caps +net_admin --bounding-set -all,+net_admin "${@:2}"' sh "$user" "$@"
}
get_as() {
    local user=$1
    shift
    as_user "$user" "$SCRATCH/program" get --tun hw0 --address 10.77.1.100 --silent --show-error "$@"
}

# plant DIRECTORY VICTIM: entries of another user, as which they are made.
plant() {
    # shellcheck disable=SC2016 # expanded by the other shell
    setpriv --reuid 1600 --regid 1600 --clear-groups bash -c '
        cd "$1"; umask 0
        ln -s "$2" link; ln -s "$2.new" dangling; ln -s "$(dirname "$2")" way
        mkfifo fifo
        for name in file parted.part; do echo planted >"$name"; done
        "$3" keygen --out keys; printf "# headwater address tokens\n" >tokens; chmod 644 tokens' \
        bash "$1" "$2" "$SCRATCH/program"
}

# Entries that another user has planted in directories that others may write to: refused, whether the
# program runs as root or not, and no file changes. Safe outputs work as with curl.
scenario_planted_files() {
    local user yard own name url=http://10.77.2.101/object
    fleet 1
    object 1M
    serve 1
    chmod 711 "$SCRATCH"
    install -m 755 "$HEADWATER" "$SCRATCH/program"
    for user in 0 1500; do
        yard=$SCRATCH/yard$user own=$SCRATCH/own$user
        install -d -m 1777 "$yard"
        install -d -o "$user" -g "$user" "$own"
        echo precious >"$own/precious"
        chown "$user:$user" "$own/precious"
        plant "$yard" "$own/precious"
        for name in link dangling way/precious file fifo parted; do
            expect 23 'another user' get_as "$user" -o "$yard/$name" "$url"
            [[ $name == parted ]] || expect 23 'another user' get_as "$user" --pcap "$yard/$name" -o /dev/null "$url"
            [[ $name == parted ]] || expect 23 'another user' get_as "$user" --stats "$yard/$name" -o /dev/null "$url"
        done
        expect 23 'another user' get_as "$user" -C - -o "$yard/parted" "$url"
        get_as "$user" -v --tokens "$yard/tokens" -o /dev/null "$url" 2>"$SCRATCH/err"
        grep -q 'another user' "$SCRATCH/err" || fail "tokens of another user are used"
        expect 115 'another user|Permission denied' as_user "$user" \
            "$SCRATCH/program" serve --tun hw1 --address 10.77.1.101 --root "$own" --keys "$yard/keys"
        equal "files of $user" "$(cat "$own"/*)" precious
        for name in file parted.part; do
            equal "$name" "$(stat -c %u:%a "$yard/$name") $(cat "$yard/$name")" "1600:666 planted"
        done
        # An own link, a name that is free, hard links.
        setpriv --reuid "$user" --clear-groups ln -s "$own/target" "$yard/mine"
        get_as "$user" --stats "$yard/stats" --tokens "$yard/own-tokens" -o "$yard/mine" "$url"
        [[ -L $yard/mine ]] || fail "the link is gone"
        identical "$SCRATCH/root/object" "$own/target"
        equal "tokens" "$(stat -c %u:%a "$yard/own-tokens")" "$user:600"
        equal "statistics" "$(stat -c %u:%a "$yard/stats")" "$user:644"
        ln "$own/target" "$own/other"
        echo old >"$own/target"
        get_as "$user" -o "$own/target" "$url"
        identical "$SCRATCH/root/object" "$own/other"
        # A part of another URL is not continued.
        rate 8mbit
        expect 28 'time' get_as "$user" -m 0.5 -o "$yard/new" "$url"
        rate none
        equal "part" "$(stat -c %u:%a "$yard/new.part")" "$user:600"
        equal "origin" "$(python3 -c 'import os, sys
print(os.getxattr(sys.argv[1], "user.headwater.origin").decode().split("\n")[0])' "$yard/new.part")" "$url"
        get_as "$user" -C - -o "$yard/new" "$url?other"
        identical "$SCRATCH/root/object" "$yard/new"
    done
}
