#!/usr/bin/env bash
# NAT against the kernel's: the same load through sag-vcpe and through Linux with nftables masquerade,
# side by side on veth devices, in turns; beside them an AF_XDP forwarder that looks at nothing. Writes target/bench/nat.json and prints a table.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

usage() {
    cat <<USAGE
usage: benches/nat-bench.sh [--rounds N] [--new] [--no-build]
  --rounds N   rounds of each measurement (default 7)
  --new        new sessions alone
  --no-build   use what is in target/release
USAGE
}

ROUNDS=7 BUILD=1 NEW=0
while [[ $# -gt 0 ]]; do
    case $1 in
    --rounds) ROUNDS=${2:?--rounds needs a number} && shift ;;
    --no-build) BUILD=0 ;;
    --new) NEW=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done
require_root "$@"
need_tools ip ethtool nft jq nsenter chrt taskset
cd "$SAG_ROOT"
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
VCPE=${SAG_VCPE_BIN:-$TARGET/release/sag-vcpe}
CTL=${SAGCTL_BIN:-$TARGET/release/sagctl}
LOAD=$TARGET/release/examples/nat_load
NULL=$TARGET/release/examples/l2fwd
P=${SAG_BENCH_PREFIX:-sagnat}
TMP=$(mktemp -d)
on_exit "rm -rf '$TMP'"
OUTSIDE=203.0.113.2

build() {
    step "build"
    find_cargo || die "no cargo (scripts/setup.sh installs Rust)"
    run_logged "$TMP/build.log" cargo build --release --locked -p sag-dataplane -p sagctl ||
        { tail -n 30 "$TMP/build.log" && die "the build failed"; }
    run_logged "$TMP/build.log" cargo build --release --locked -p sag-pktgen --example nat_load ||
        { tail -n 30 "$TMP/build.log" && die "the build failed"; }
    run_logged "$TMP/build.log" cargo build --release --locked -p sag-benches --example l2fwd ||
        { tail -n 30 "$TMP/build.log" && die "the build failed"; }
}

# --- the lab -----------------------------------------------------------------------------------

# Two of them: host, gateway, Internet. The same devices, the same settings, one queue each.
lab() {
    local n=$P-$1 dev
    on_exit "for x in lan gw wan; do ip netns del $n-\$x 2>/dev/null; done"
    for x in lan gw wan; do ip netns add "$n-$x" && ip -n "$n-$x" link set lo up; done
    for dev in lan wan; do
        ip link add "$dev" netns "$n-gw" numtxqueues 1 numrxqueues 1 type veth \
            peer name eth0 netns "$n-$dev" numtxqueues 1 numrxqueues 1
    done
    for x in "gw lan" "gw wan" "lan eth0" "wan eth0"; do
        # shellcheck disable=SC2086
        set -- $x
        nsenter --net="/run/netns/$n-$1" sysctl -qw "net.ipv6.conf.$2.disable_ipv6=1" "net.ipv4.conf.$2.rp_filter=0"
        # With GRO a veth device has a NAPI context, which redirected frames need.
        nsenter --net="/run/netns/$n-$1" ethtool -K "$2" tx off rx off tso off gso off gro on >/dev/null
        ip -n "$n-$1" link set "$2" up
    done
    ip -n "$n-gw" addr add 10.0.0.1/16 dev lan
    ip -n "$n-gw" addr add $OUTSIDE/24 dev wan
    ip -n "$n-gw" route add default via 203.0.113.1
    ip -n "$n-gw" neigh add 203.0.113.1 lladdr "$(mac "$n-wan" eth0)" dev wan nud permanent
}

mac() { ip -n "$1" -j link show "$2" | jq -r '.[0].address'; }

kernel_gateway() {
    nsenter --net="/run/netns/$P-ker-gw" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
    nsenter --net="/run/netns/$P-ker-gw" nft -f - <<NFT
table ip nat {
    chain post {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }
}
NFT
    # Room for a million connections; the number of buckets is the kernel's own choice for this memory.
    keep /proc/sys/net/netfilter/nf_conntrack_max 2097152
    keep /sys/module/nf_conntrack/parameters/hashsize 262144
}

# Sets a value of the machine and restores it at the end.
keep() {
    [[ -w $1 ]] || return 0
    on_exit "echo $(<"$1") >$1"
    echo "$2" >"$1"
}

# sag_gateway LAB [KEY=VALUE of the WAN port…]
sag_gateway() {
    local lab=$1 dir=$TMP/$1 pid
    mkdir -p "$dir/state"
    cat >"$dir/vcpe.toml" <<TOML
[dataplane]
workers = 1
flows = 1048576
state_dir = "$dir/state"
pin_dir = "/sys/fs/bpf/$P-$lab"
control = "$dir/vcpe.sock"
metrics = ""
new_flow_rate = 0
[[port]]
name = "lan"
device = "lan"
role = "lan"
[[port]]
name = "wan"
device = "wan"
role = "wan"
snat = true
TOML
    shift
    printf '%s\n' "$@" >>"$dir/vcpe.toml"
    on_exit "'$VCPE' unload --config '$dir/vcpe.toml' >/dev/null 2>&1"
    nsenter --net="/run/netns/$P-$lab-gw" "$VCPE" run --config "$dir/vcpe.toml" >"$dir/log" 2>&1 &
    pid=$!
    on_exit "kill $pid 2>/dev/null; wait $pid 2>/dev/null"
    PIDS+=("$pid")
    wait_until 20 ctl "$lab" status || { tail -n 20 "$dir/log" && die "the gateway did not start"; }
}

# What a worker costs that does nothing but receive and send by AF_XDP.
null_gateway() {
    nsenter --net="/run/netns/$P-null-gw" "$NULL" lan wan >"$TMP/null.log" 2>&1 &
    NULL_PID=$!
    on_exit "kill -CONT $NULL_PID 2>/dev/null; kill $NULL_PID 2>/dev/null; wait $NULL_PID 2>/dev/null"
    sleep 1
    kill -0 "$NULL_PID" 2>/dev/null || { tail -n 20 "$TMP/null.log" && die "l2fwd did not start"; }
    chrt -f -p 10 "$NULL_PID"
    taskset -pc 0 "$NULL_PID" >/dev/null
    kill -STOP "$NULL_PID"
}

# ctl LAB COMMAND…
ctl() {
    local lab=$1
    shift
    "$CTL" --socket "$TMP/$lab/vcpe.sock" "$@" >/dev/null 2>&1
}

# The load comes before all else on its core; what the kernel and the workers do must not wait. The
# workers have the core beside it.
priorities() {
    local p
    for p in $(pgrep -x 'ksoftirqd/[01]'); do
        on_exit "chrt -o -p 0 $p"
        chrt -f -p 10 "$p"
    done
    for p in $(workers); do
        chrt -f -p 10 "$p"
        taskset -pc 0 "$p" >/dev/null
    done
}

workers() {
    local pid t
    for pid in "${PIDS[@]}"; do
        for t in /proc/"$pid"/task/*; do
            [[ $(<"$t/comm") != worker* ]] || echo "${t##*/}"
        done
    done
}

# --- one measurement ---------------------------------------------------------------------------

# Frames a second that came out, in thousands: load GATEWAY SINK KEY=VALUE…
load() {
    local n=$P-$1 sink=$2
    shift 2
    "$LOAD" lan="$n-lan:eth0" wan="$n-wan:eth0" mac="$(mac "$n-gw" lan)" outside=$OUTSIDE sink="$sink" \
        endpoints=50000 window=512 "$@" >"$TMP/load.json"
    jq '.received / .ns * 1e6 | floor' "$TMP/load.json"
}

forget() {
    case $1 in
    ker) "$LOAD" flush="$P-ker-gw" ;;
    *) ctl "$1" sessions flush --all || die "the gateway does not answer: $(tail -n 5 "$TMP/$1/log")" ;;
    esac
    sleep 0.2
}

# Every frame begins a session. Every outside tuple must be another one.
new_sessions() {
    forget "$1"
    load "$1" tcx flows=1000000 order=ascending frames=1000000 ms=600
    jq -e '.distinct == .received and .foreign == 0' "$TMP/load.json" >/dev/null ||
        die "wrong translations: $(<"$TMP/load.json")"
}

# The same load through the forwarder, which translates nothing. It polls: it is stopped otherwise.
null_sessions() {
    kill -CONT "$NULL_PID"
    load null tcx flows=1000000 order=ascending frames=1000000 ms=600
    kill -STOP "$NULL_PID"
}

# Sessions that exist, packets of all of them in an order that no cache likes.
established() {
    local gw=$1 flows=$2 sink=tcx
    [[ $gw == ker ]] || sink=xdp
    forget "$gw"
    load "$gw" tcx flows="$flows" order=ascending frames="$flows" ms=4000 >/dev/null
    load "$gw" "$sink" flows="$flows" order=shuffled frames=1000000000 ms=400
}

# The kernel's packets are handed to the other core (1), or not (0).
steering() { ip netns exec "$P-ker-gw" sh -c "echo $1 >/sys/class/net/lan/queues/rx-0/rps_cpus"; }

record() { printf '%s %s\n' "$1" "$2" >>"$TMP/figures"; }

measure() {
    local r f
    for ((r = 1; r <= ROUNDS; r++)); do
        info "round $r of $ROUNDS"
        record new/kernel "$(new_sessions ker)"
        record new/sag "$(new_sessions sag)"
        record new/sag-eim "$(new_sessions eim)"
        record new/null "$(null_sessions)"
        steering 1
        record new/kernel-rps "$(new_sessions ker)"
        steering 0
        for f in 10000 100000 1000000; do
            [[ $NEW -eq 0 ]] || break
            record "established-$f/kernel" "$(established ker "$f")"
            record "established-$f/sag" "$(established sag "$f")"
        done
        forget ker
        forget sag
        forget eim
    done
}

report() {
    mkdir -p "$TARGET/bench"
    jq -Rn --arg cpu "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1)" --arg kernel "$(uname -r)" \
        --argjson cores "$(nproc)" '
        def median: sort | .[length / 2 | floor];
        # What was not measured has no row.
        def beside(a; b): if ((a and b) | not) then null else
            [a, b] | transpose | map(.[0] / .[1]) | {median: median, min: min, max: max} end;
        [inputs | split(" ") | {key: .[0], value: (.[1] | tonumber)}] | group_by(.key)
        | map({key: .[0].key, value: map(.value)}) | from_entries
        | {machine: {cpu: $cpu, cores: $cores, kernel: $kernel}, unit: "thousand frames a second",
           figures: map_values({median: median, min: min, max: max, n: length}),
           ratios: ({
             "new sessions, mapping as Linux has it": beside(.["new/sag"]; .["new/kernel"]),
             "new sessions, endpoint-independent": beside(.["new/sag-eim"]; .["new/kernel"]),
             "new sessions, mapping as Linux has it, of the forwarder": beside(.["new/sag"]; .["new/null"]),
             "new sessions, endpoint-independent, of the forwarder": beside(.["new/sag-eim"]; .["new/null"]),
             "10k sessions": beside(.["established-10000/sag"]; .["established-10000/kernel"]),
             "100k sessions": beside(.["established-100000/sag"]; .["established-100000/kernel"]),
             "1M sessions": beside(.["established-1000000/sag"]; .["established-1000000/kernel"])
           } | map_values(select(. != null)))}' "$TMP/figures" >"$TARGET/bench/nat.json"
    jq -r '.figures | to_entries[] | [.key, .value.median, .value.min, .value.max] | @tsv' "$TARGET/bench/nat.json" |
        awk -F'\t' 'BEGIN { printf "%-28s %9s %9s %9s   thousand frames/s\n", "", "median", "least", "most" }
                    { printf "%-28s %9d %9d %9d\n", $1, $2, $3, $4 }'
    jq -r '.ratios | to_entries[] | [.key, (.value | .median, .min, .max)] | @tsv' "$TARGET/bench/nat.json" |
        awk -F'\t' 'BEGIN { printf "%-60s %7s %7s %7s   of the rounds\n", "sag-vcpe : Linux", "median", "least", "most" }
                    { printf "%-60s %7.2f %7.2f %7.2f\n", $1, $2, $3, $4 }'
    info "report: $TARGET/bench/nat.json"
}

[[ $BUILD -eq 0 ]] || build
[[ -x $LOAD && -x $NULL && -x $VCPE && -x $CTL ]] || die "not built: run without --no-build"
step "four labs: Linux; sag-vcpe with the same mapping; with its own default; an AF_XDP forwarder"
for name in ker sag eim null; do lab $name; done
PIDS=()
kernel_gateway
sag_gateway sag 'snat_mapping = "address-and-port-dependent"' 'snat_filtering = "address-and-port-dependent"'
sag_gateway eim
null_gateway
priorities
step "measure ($ROUNDS rounds)"
steering 0
measure
step "result"
report
