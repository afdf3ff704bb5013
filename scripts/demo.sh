#!/usr/bin/env bash
# The main job on this machine, start to end: installs what is missing, builds, sets up the lab,
# sends real traffic through the gateway, says what happened, cleans up. Exit 0 only if all worked.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/demo.sh [--no-build] [--keep]
  --no-build   use the binaries of target/release as they are
  --keep       leave the lab up at the end; it says how to look into it and how to remove it

A branch office with a gateway, a leased line and the Internet, as network namespaces of this machine: first the gateway
with its file alone (ping, traceroute, iperf3, HTTP, an ACL, NAT), then driven by the cloud API through the vendor's SDK. Every
PASS or FAIL is what real packets did. Needs root or sudo; the first run installs packages (scripts/setup.sh --check only
says which) and builds: a few minutes to the first packet, a few more before the cloud's part; the demo itself takes about
a minute. The machine's own network is not touched.
USAGE
}

BUILD=1 KEEP=0
for arg in "$@"; do
    case $arg in
    --no-build) BUILD=0 ;;
    --keep) KEEP=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

cd "$SAG_ROOT"
export SAG_LAB_PREFIX=${SAG_LAB_PREFIX:-demo-}
LAB_SH=$SAG_ROOT/scripts/lab.sh
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
TMP=$(mktemp -d)
on_exit "rm -rf '$TMP'"

lab() { as_root bash "$LAB_SH" "$@"; }
in_ns() { lab exec "$@"; }
ctl() { lab ctl "$@"; }

# check TEXT COMMAND…: PASS if the command succeeds.
check() {
    local text=$1
    shift
    if "$@" >"$TMP/out" 2>&1; then pass "$text"; else
        fail "$text"
        tail -n 5 "$TMP/out" | sed 's/^/            /'
    fi
}

# build WHAT CARGO_ARGUMENT…. All four packages are named each time, whichever programs are built: so dependencies have
# the same features in all builds, and none is compiled twice.
BUILDING=0
build() {
    [[ $BUILD -eq 1 ]] || return 0
    local started=$SECONDS
    step "build $1 (cargo build --release; minutes the first time)"
    run_logged "$TMP/build.log" cargo build --release --locked \
        -p sag-dataplane -p sagctl -p sag-cloud -p sag-agent "${@:2}" || {
        tail -n 40 "$TMP/build.log"
        die "the build failed"
    }
    BUILDING=$((BUILDING + SECONDS - started))
}

# --- steps -------------------------------------------------------------------------------------

prepare() {
    step "machine"
    bash scripts/setup.sh --quiet --gateway || exit 1
    find_cargo || die "no cargo (scripts/setup.sh installs Rust)"
    build "the gateway" --bin sag-vcpe --bin sagctl
    step "lab and gateway"
    [[ $KEEP -eq 1 ]] || on_exit "lab down"
    lab up
    lab gw-start || exit 1
    eval "$(lab env)"
    lab status
    ctl --json ports | jq -r '.ports[] | "          port \(.name)  \(.capability)"'
}

show_ping() {
    local family address said
    step "ping lan1 → inet and to the gateway"
    for address in 203.0.113.10 2001:db8:203::10 192.0.2.1 2001:db8:1::1; do
        family=IPv4
        [[ $address != *:* ]] || family=IPv6
        said=$(in_ns lan1 ping -n -q -c 20 -i 0.02 -W 1 "$address" 2>&1 || true)
        if grep -q ' 20 received' <<<"$said"; then
            pass "$family $address: 20 of 20 answered, $(sed -n 's|.*= [^/]*/\([^/]*\)/.*|\1|p' <<<"$said") ms on average"
        else
            fail "$family $address: $(grep received <<<"$said" || echo "no answer")"
        fi
    done
}

show_traceroute() {
    local family address gateway said
    step "traceroute lan1 → inet"
    for family in 4 6; do
        address=203.0.113.10 gateway=192.0.2.1
        [[ $family -eq 4 ]] || address=2001:db8:203::10 gateway=2001:db8:1::1
        said=$(in_ns lan1 traceroute "-$family" -n -q 1 -w 2 "$address" 2>&1 | awk 'NR > 1 { print $2 }' | paste -sd' ')
        if [[ $said == "$gateway "*" $address" ]]; then pass "IPv$family ${said// / → }"; else fail "IPv$family ${said:-nothing}"; fi
    done
}

# one_iperf TEXT ADDRESS OPTION…
one_iperf() {
    local text=$1 address=$2 figures
    shift 2
    in_ns lan1 iperf3 -c "$address" -t 2 -J "$@" >"$TMP/iperf.json" 2>&1 || true
    figures=$(jq -r 'if .error then empty
        elif .end.sum then "\(.end.sum.bits_per_second / 1e6 | floor) Mbit/s, \(.end.sum.lost_packets) of \(.end.sum.packets) lost"
        else "\(.end.sum_received.bits_per_second / 1e6 | floor) Mbit/s" end' "$TMP/iperf.json" 2>/dev/null || true)
    if [[ -n $figures && $figures != "0 Mbit/s"* ]]; then
        pass "$text: $figures"
    else
        fail "$text: $(jq -r '.error // "no traffic"' "$TMP/iperf.json" 2>/dev/null || tail -n1 "$TMP/iperf.json")"
    fi
}

show_iperf() {
    step "iperf3 lan1 ⇄ inet (two seconds each; hosts, gateway and routers share this machine's $(nproc) CPUs)"
    lab exec inet iperf3 -s -D >/dev/null
    wait_until 5 in_ns inet bash -c 'ss -Hltn sport = :5201 | grep -q .' || die "iperf3 does not listen"
    one_iperf "TCP IPv4 up" 203.0.113.10
    one_iperf "TCP IPv4 down" 203.0.113.10 -R
    one_iperf "TCP IPv6 up" 2001:db8:203::10
    one_iperf "TCP IPv6 down" 2001:db8:203::10 -R
    one_iperf "UDP IPv4 up" 203.0.113.10 -u -b 100M -l 1400
    one_iperf "UDP IPv6 down" 2001:db8:203::10 -u -b 100M -l 1400 -R
}

show_http() {
    step "HTTP lan1 → inet"
    echo "hello from the Internet" >"$TMP/hello.txt"
    chmod 755 "$TMP"
    local address url port
    for address in 203.0.113.10 2001:db8:203::10; do
        for port in 8000 8001; do
            lab exec inet /usr/bin/python3 "$SAG_ROOT/tests/e2e/harness/httpd.py" "$address" "$port" "$TMP" >/dev/null 2>&1 &
        done
    done
    # shellcheck disable=SC2016  # expands in the namespace
    wait_until 5 in_ns inet bash -c '[[ $(ss -Hltn "sport >= :8000 and sport <= :8001" | wc -l) -eq 4 ]]' || die "no HTTP server"
    for url in http://203.0.113.10:8000/ "http://[2001:db8:203::10]:8000/"; do
        check "$url" fetch "$url"
    done
}
fetch() { in_ns lan1 curl -sS -g --max-time 3 "${1}hello.txt" | grep hello >/dev/null; }
refused() { ! fetch "$1"; }

show_mtu() {
    local said
    step "1500-byte packets with DF towards a link of 1400"
    said=$(in_ns lan1 ping -n -M 'do' -c 1 -W 1 -s 1472 203.0.113.74 2>&1 || true)
    check "IPv4: $(grep -o 'From.*' <<<"$said" | head -n1)" grep -q 'mtu = 1400' <<<"$said"
    said=$(in_ns lan1 ping -n -M 'do' -c 1 -W 1 -s 1452 2001:db8:204::10 2>&1 || true)
    check "IPv6: $(grep -o 'From.*' <<<"$said" | head -n1)" grep -q 'mtu[=:]\? \?1400' <<<"${said//mtu = /mtu=}"
}

show_acl() {
    local epoch
    step "an ACL: two rules into the file, SIGHUP"
    epoch=$(ctl --json status | jq .config_epoch)
    as_root tee -a "$CONF" >/dev/null <<'RULES'

[[acl]]
id = "acl-demo"
[[acl.rule]]
id = "no-8001"
direction = "out"
type = "WAN"
policy = "drop"
ip_protocol = "tcp"
source_cidr = "192.0.2.0/26"
dest_cidr = "203.0.113.0/24"
source_port_range = "-1/-1"
dest_port_range = "8001/8001"
priority = 1
[[acl.rule]]
id = "no-smtp"
direction = "out"
type = "WAN"
policy = "drop"
ip_protocol = "tcp"
source_cidr = "192.0.2.0/26"
dest_cidr = "203.0.113.0/24"
source_port_range = "-1/-1"
dest_port_range = "25/25"
priority = 2
RULES
    lab gw-reload
    check "the new configuration is in force" wait_until 5 epoch_after "$epoch"
    check "rule no-8001 bites: port 8001 does not answer" refused http://203.0.113.10:8001/
    check "port 8000 still answers" fetch http://203.0.113.10:8000/
    check "rule no-smtp has matched nothing" rule_hits no-smtp '== 0'
    check "rule no-8001 counted its packets" rule_hits no-8001 '> 0'
    ctl acl | sed 's/^/          /'
}
epoch_after() { [[ $(ctl --json status | jq .config_epoch) -gt $1 ]]; }
rule_hits() { ctl --json acl | jq -e "[.acls[].rules[] | select(.id == \"$1\")][0].hits $2"; }

show_nat() {
    local epoch wan=198.51.100.2 one other figures
    step "NAT: configs/lab-nat.toml, SIGHUP; the Internet loses its route to the branch"
    epoch=$(ctl --json status | jq .config_epoch)
    in_ns wan ip route del 192.0.2.0/25
    sed "s/sag-lab/$LAB/g" "$SAG_ROOT/configs/lab-nat.toml" | as_root tee "$CONF" >/dev/null
    lab gw-reload
    check "the new configuration is in force" wait_until 5 epoch_after "$epoch"
    one=$(seen_from lan1) other=$(seen_from lan2)
    check "lan1 and lan2, both from port 40000, come from the WAN address: $one and $other" \
        two_of_address "$wan" "$one" "$other"
    figures=$(in_ns lan1 iperf3 -c 203.0.113.10 -t 2 -J 2>/dev/null | jq -r '.end.sum_received.bits_per_second / 1e6 | floor' || true)
    check "TCP through NAT: ${figures:-no} Mbit/s" test "${figures:-0}" -gt 0
    lab exec lan1 /usr/bin/python3 "$SAG_ROOT/tests/e2e/harness/httpd.py" 192.0.2.10 8080 "$TMP" >/dev/null 2>&1 &
    wait_until 5 in_ns lan1 bash -c 'ss -Hltn sport = :8080 | grep -q .' || die "no HTTP server on lan1"
    check "port forward: $wan:8080 is lan1's, from the Internet" get_hello inet "$wan" 203.0.113.10
    check "hairpin: and from lan2" get_hello lan2 "$wan" 192.0.2.74
    check "traceroute from behind NAT: the routers' ICMP errors come back" traces_through_nat
    ctl nat | sed 's/^/          /'
    ctl sessions --nat --limit 5 | sed 's/^/          /'
    check "the NAT log has a record of each beginning" grep -q '"event":"session-created".*"nat_src":"198.51.100.2"' "$RUN/nat.log"
}
# The source address that the Internet host sees for a connection from port 40000.
seen_from() {
    in_ns "$1" curl -sS --max-time 3 --local-port 40000 http://203.0.113.10:8000/whoami | tr ' ' ':' || echo nobody
}
two_of_address() { [[ $2 == "$1":* && $3 == "$1":* && $2 != "$3" ]]; }
get_hello() { in_ns "$1" curl -sS --max-time 3 --interface "$3" "http://$2:8080/hello.txt" | grep hello; }
traces_through_nat() {
    in_ns lan1 traceroute -n -q 1 -w 2 203.0.113.10 | awk 'NR > 1 { print $2 }' | paste -sd' ' |
        grep -x '192.0.2.1 198.51.100.1 203.0.113.10'
}

# The cloud's names of the ports: 0 is the WAN, 1 and 4 are LANs, 3 is the leased line.
api_config() {
    sed '/^\[\[port\]\]/,$d' "$SAG_ROOT/configs/lab.toml"
    local port
    for port in "0 wan wan" "1 lan-a lan" "3 express express" "4 lan-b lan"; do
        # shellcheck disable=SC2086  # three words
        printf '[[port]]\nname = "%s"\ndevice = "%s"\nrole = "%s"\n' $port
    done
}

show_cloud() {
    bash scripts/setup.sh --quiet --demo || exit 1
    build "the cloud API and its agent" --bin sag-cloud --bin sag-agent
    step "a new gateway, driven by the cloud API from here on (→ a call of the SDK; below it what the packets did)"
    in_ns wan ip route replace 192.0.2.0/25 via 198.51.100.2
    lab gw-stop
    api_config >"$TMP/api.toml"
    lab gw-start --config "$TMP/api.toml"
    as_root env PYTHONDONTWRITEBYTECODE=1 CARGO_TARGET_DIR="$TARGET" SAG_SDK_VENV="${SAG_SDK_VENV:-$TARGET/sdk-venv}" \
        SAG_LAB_PREFIX="$SAG_LAB_PREFIX" SAG_STARTED_MS="$SAG_STARTED_MS" \
        /usr/bin/python3 "$SAG_ROOT/scripts/demo_cloud.py" "$TMP/cloud.json" || true
    if [[ -s $TMP/cloud.json ]]; then
        PASSED=$((PASSED + $(jq .passed "$TMP/cloud.json"))) FAILED=$((FAILED + $(jq .failed "$TMP/cloud.json")))
    else
        fail "the cloud's part did not come to its end"
    fi
}

show_counters() {
    step "counters"
    sleep 0.3
    ctl --json ports >"$TMP/ports.json"
    ctl --json drops >"$TMP/drops.json"
    ctl ports | sed 's/^/          /'
    ctl drops | sed 's/^/          /'
    check "every packet is accounted for: received = forwarded + kernel + dropped + held, on every port" \
        jq -e 'all(.ports[]; .rx_packets == .forwarded + .to_kernel + .dropped + .held)' "$TMP/ports.json"
    check "and sent = forwarded + made by the gateway" \
        jq -e '([.ports[].tx_packets] | add) == ([.ports[] | .forwarded + .originated] | add)' "$TMP/ports.json"
    # shellcheck disable=SC2016  # jq's variables
    check "every drop has one named reason" jq -e --slurpfile drops "$TMP/drops.json" \
        'all(.ports[]; .name as $p | .dropped == ([$drops[0].drops[] | select(.port == $p) | .packets] | add // 0))' "$TMP/ports.json"
    check "no host received a wrong checksum" no_checksum_errors
}
no_checksum_errors() {
    local ns
    for ns in lan1 lan2 inet wan pop; do
        # shellcheck disable=SC2016  # expands in the namespace
        in_ns "$ns" bash -c 'nstat -asz "*InCsumErrors" | awk "/InCsumErrors/ && \$2 != 0 { print; bad = 1 } END { exit bad }"' || return 1
    done
}

prepare
show_ping
show_traceroute
show_iperf
show_http
show_mtu
show_acl
show_nat
show_counters
show_cloud
show_counters

step "$([[ $FAILED -eq 0 ]] && echo "all of it worked" || echo "something failed"); $((SECONDS - BUILDING)) s without the builds"
summary
if [[ $KEEP -eq 1 ]]; then
    info "the lab is still up; with SAG_LAB_PREFIX=$SAG_LAB_PREFIX in front:"
    info "scripts/lab.sh status · scripts/lab.sh exec lan1 ping 203.0.113.10 · scripts/lab.sh ctl sessions · scripts/lab.sh down"
fi
[[ $FAILED -eq 0 ]]
