#!/usr/bin/env bash
# The lab: a branch office, its gateway, a leased line and the Internet, made of network namespaces
# and veth pairs. `lab.sh status` draws it. Several labs live side by side under different
# SAG_LAB_PREFIX; nothing outside the lab's namespaces is touched except /run/<lab> and
# /sys/fs/bpf/<lab>.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/lab.sh COMMAND
  up                     build the lab (removes what a crashed predecessor left)
  down                   remove all of it
  status                 draw the topology with addresses and say what runs
  exec NS COMMAND…       run a command in a namespace: lan1 lan2 gw wan inet pop
  gw-start [OPTION]…     start the gateway in its namespace
      --forwarder sag|kernel   the product (default), or the kernel's own forwarding as a baseline
      --config FILE            default: configs/lab.toml; a copy with this lab's paths is what runs
      --no-wait                return at once, without waiting for the control socket
  gw-reload              SIGHUP: the gateway reads its configuration file again
  gw-stop                stop the gateway; removes its programs and maps
  ctl ARGUMENT…          sagctl on this lab's gateway
  env                    paths and namespaces of this lab as shell variables
environment:
  SAG_LAB_PREFIX         prefix of the namespaces (default "sag-")
  LAB_QUEUES             queues of each veth end (default 2)
  SAG_VCPE_BIN, SAGCTL_BIN   the binaries (default target/release/…)
USAGE
}

PREFIX=${SAG_LAB_PREFIX:-sag-}
[[ $PREFIX =~ ^[a-z0-9-]{1,24}$ ]] || die "SAG_LAB_PREFIX='$PREFIX': use 1 to 24 of a-z, 0-9 and '-'"
LAB=${PREFIX}lab
RUN=/run/$LAB
PINS=/sys/fs/bpf/$LAB
CONF=$RUN/vcpe.toml
SOCKET=$RUN/vcpe.sock
PIDFILE=$RUN/vcpe.pid
LOG=$RUN/vcpe.log
QUEUES=${LAB_QUEUES:-2}
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
VCPE=${SAG_VCPE_BIN:-$TARGET/release/sag-vcpe}
SAGCTL=${SAGCTL_BIN:-$TARGET/release/sagctl}
NAMESPACES=(lan1 lan2 gw wan inet pop)

ns_path() { printf '/run/netns/%s%s' "$PREFIX" "$1"; }
# Not `ip netns exec`: that mounts a fresh /sys, which hides the bpffs.
in_ns() {
    local ns=$1
    shift
    nsenter --net="$(ns_path "$ns")" "$@"
}

# --- building ----------------------------------------------------------------------------------

# link NS1 DEV1 NS2 DEV2 NUMBER [MTU]: a veth pair with fixed MAC addresses.
# The number of queues is the same at both ends: a packet arrives on the queue it was sent from.
link() {
    local ns1=$1 dev1=$2 ns2=$3 dev2=$4 number=$5 mtu=${6:-1500}
    ip link add "$dev1" netns "$PREFIX$ns1" mtu "$mtu" address "02:00:00:00:0$number:01" \
        numtxqueues "$QUEUES" numrxqueues "$QUEUES" type veth \
        peer name "$dev2" netns "$PREFIX$ns2" mtu "$mtu" address "02:00:00:00:0$number:02" \
        numtxqueues "$QUEUES" numrxqueues "$QUEUES"
}

# Real checksums and real frame sizes on every wire. Generic receive offload stays on: on veth it
# is what makes an end accept frames that XDP redirected, and it verifies checksums in software.
plain_frames() {
    local ns=$1 dev
    shift
    for dev in "$@"; do
        in_ns "$ns" ethtool -K "$dev" tx off rx off tso off gso off gro on >/dev/null
    done
}

# Settings of a namespace, before its devices come up; forwarding: 0 or 1.
settings() {
    local ns=$1 forwarding=$2
    in_ns "$ns" sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
        net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
        net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0 \
        net.ipv6.conf.default.router_solicitations=0 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
        net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000 \
        net.ipv4.ping_group_range="0 2147483647"
    forwarding "$ns" "$forwarding"
}

forwarding() {
    in_ns "$1" sysctl -q -w net.ipv4.ip_forward="$2" net.ipv6.conf.all.forwarding="$2" \
        net.ipv6.conf.default.forwarding="$2"
}

batch() { in_ns "$1" ip -batch -; }

mount_bpffs() {
    [[ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" == bpf_fs ]] && return
    mount -t bpf bpf /sys/fs/bpf || die "cannot mount bpffs on /sys/fs/bpf (kernel with CONFIG_BPF_SYSCALL=y, CAP_SYS_ADMIN)"
}

up() {
    local ns
    need_tools ip nsenter ethtool sysctl
    clear_away
    mount_bpffs
    mkdir -p "$RUN"
    for ns in "${NAMESPACES[@]}"; do ip netns add "$PREFIX$ns"; done

    for ns in lan1 lan2 inet gw; do settings "$ns" 0; done
    for ns in wan pop; do settings "$ns" 1; done

    #    namespace  device    namespace  device  number MTU
    link gw         lan-a     lan1       eth0    1
    link gw         lan-b     lan2       eth0    2
    link gw         wan       wan        gw      3
    link gw         express   pop        gw      4
    link wan        inet      inet       eth0    5
    link wan        narrow    inet       eth1    6      1400

    plain_frames gw lan-a lan-b wan express
    plain_frames lan1 eth0
    plain_frames lan2 eth0
    plain_frames wan gw inet narrow
    plain_frames inet eth0 eth1
    plain_frames pop gw

    batch gw <<IP
link set lo up
addr add 192.0.2.1/26 dev lan-a
addr add 2001:db8:1::1/64 dev lan-a
addr add 192.0.2.65/26 dev lan-b
addr add 2001:db8:2::1/64 dev lan-b
addr add 198.51.100.2/24 dev wan
addr add 2001:db8:100::2/64 dev wan
addr add 192.0.2.129/30 dev express
addr add 2001:db8:e::1/64 dev express
link set lan-a up
link set lan-b up
link set wan up
link set express up
route add default via 198.51.100.1
route add default via 2001:db8:100::1
route add 192.0.2.192/26 via 192.0.2.130
route add 2001:db8:ee::/64 via 2001:db8:e::2
IP
    batch lan1 <<IP
link set lo up
addr add 192.0.2.10/26 dev eth0
addr add 2001:db8:1::10/64 dev eth0
link set eth0 up
route add default via 192.0.2.1
route add default via 2001:db8:1::1
IP
    batch lan2 <<IP
link set lo up
addr add 192.0.2.74/26 dev eth0
addr add 2001:db8:2::10/64 dev eth0
link set eth0 up
route add default via 192.0.2.65
route add default via 2001:db8:2::1
IP
    batch wan <<IP
link set lo up
addr add 198.51.100.1/24 dev gw
addr add 2001:db8:100::1/64 dev gw
addr add 203.0.113.1/26 dev inet
addr add 2001:db8:203::1/64 dev inet
addr add 203.0.113.65/26 dev narrow
addr add 2001:db8:204::1/64 dev narrow
link set gw up
link set inet up
link set narrow up
route add 192.0.2.0/25 via 198.51.100.2
route add 2001:db8:1::/64 via 2001:db8:100::2
route add 2001:db8:2::/64 via 2001:db8:100::2
IP
    batch inet <<IP
link set lo up
addr add 203.0.113.10/26 dev eth0
addr add 2001:db8:203::10/64 dev eth0
addr add 203.0.113.74/26 dev eth1
addr add 2001:db8:204::10/64 dev eth1
link set eth0 up
link set eth1 up
route add default via 203.0.113.1
route add default via 2001:db8:203::1
IP
    batch pop <<IP
link set lo up
addr add 192.0.2.130/30 dev gw
addr add 2001:db8:e::2/64 dev gw
addr add 192.0.2.193/32 dev lo
addr add 2001:db8:ee::1/128 dev lo
link set gw up
route add default via 192.0.2.129
route add default via 2001:db8:e::1
IP
    echo none >"$RUN/forwarder"
}

# --- taking down -------------------------------------------------------------------------------

# Ends what runs in the lab's namespaces, and nothing else: the kernel knows who is inside.
end_processes() {
    local signal ns pids
    for signal in TERM KILL; do
        pids=$(for ns in "${NAMESPACES[@]}"; do
            [[ -e $(ns_path "$ns") ]] && ip netns pids "$PREFIX$ns" 2>/dev/null
        done || true)
        [[ -n $pids ]] || return 0
        # shellcheck disable=SC2086  # one argument per process
        kill "-$signal" $pids 2>/dev/null || true
        wait_until 2 no_processes && return 0
    done
}
no_processes() {
    local ns
    for ns in "${NAMESPACES[@]}"; do
        [[ -e $(ns_path "$ns") ]] || continue
        [[ -z "$(ip netns pids "$PREFIX$ns" 2>/dev/null)" ]] || return 1
    done
}

clear_away() {
    local ns
    end_processes
    remove_pins
    for ns in "${NAMESPACES[@]}"; do
        [[ ! -e $(ns_path "$ns") ]] || ip netns delete "$PREFIX$ns" 2>/dev/null || rm -f "$(ns_path "$ns")"
    done
    rm -rf "$RUN"
    # The numbers that a daemon that was killed has received stay until its machine restarts.
    local pins=${PINS#/}
    rm -f "/run/sag/${pins//\//-}."{esp,sysctl}
}

remove_pins() {
    [[ -d $PINS ]] || return 0
    if [[ -x $VCPE && -r $CONF ]]; then
        in_ns gw "$VCPE" unload --config "$CONF" >/dev/null 2>&1 || true
    fi
    # Pins of another version, or of a daemon that is not built now: bpffs objects go with their files.
    rm -rf "$PINS"
}

# --- the gateway -------------------------------------------------------------------------------

gw_pid() {
    local pid
    pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
    # A number may have been given to another process since.
    [[ -n $pid && "$(readlink "/proc/$pid/ns/net")" == "$(in_ns gw readlink /proc/self/ns/net)" ]] || return 1
    echo "$pid"
}
# The process that gw_start made; it may not have entered its namespace yet.
# Gone, too, is one that has ended with all its threads and that its parent has not waited for: where nothing but
# init does that, it may stay in the process table for seconds.
gw_gone() {
    local pid state tasks
    pid=$(cat "$PIDFILE" 2>/dev/null) || return 0
    kill -0 "$pid" 2>/dev/null || return 0
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null) || return 0
    tasks=("/proc/$pid/task/"*)
    [[ $state == Z && ${#tasks[@]} -le 1 ]]
}
gw_answers() { "$SAGCTL" --socket "$SOCKET" status; }
gw_answers_or_died() { gw_gone || gw_answers; }

require_up() { [[ -e $(ns_path gw) && -d $RUN ]] || die "the lab is not up (scripts/lab.sh up)"; }

gw_start() {
    local forwarder=sag config=$SAG_ROOT/configs/lab.toml wait=1
    while [[ $# -gt 0 ]]; do
        case $1 in
        --forwarder) forwarder=${2:?--forwarder needs a value} && shift 2 ;;
        --config) config=${2:?--config needs a file} && shift 2 ;;
        --no-wait) wait=0 && shift ;;
        *) die "gw-start: unknown option '$1'" ;;
        esac
    done
    require_up
    if gw_pid >/dev/null; then die "the gateway runs already, process $(gw_pid) (lab.sh gw-stop)"; fi
    case $forwarder in
    kernel)
        forwarding gw 1
        # Switching forwarding changes neighbour and router behaviour of IPv6; routes stay.
        ;;
    sag)
        [[ -x $VCPE ]] || die "$VCPE is not built (cargo build --release -p sag-dataplane), or set SAG_VCPE_BIN"
        forwarding gw 0
        # Written only if it is another file: a copy edited in place survives a restart.
        [[ $(realpath -m "$config") == "$(realpath -m "$CONF")" ]] || sed "s/sag-lab/$LAB/g" "$config" >"$CONF"
        mkdir -p "$RUN/state"
        setsid nsenter --net="$(ns_path gw)" "$VCPE" run --config "$CONF" </dev/null >>"$LOG" 2>&1 &
        echo $! >"$PIDFILE"
        if [[ $wait -eq 1 ]]; then
            if ! wait_until 15 gw_answers_or_died || gw_gone; then
                tail -n 15 "$LOG" >&2
                die "the gateway did not start; its last lines are above, all of them in $LOG"
            fi
        fi
        ;;
    *) die "--forwarder is sag or kernel, not '$forwarder'" ;;
    esac
    echo "$forwarder" >"$RUN/forwarder"
}

gw_reload() {
    local pid
    pid=$(gw_pid) || die "the gateway does not run"
    kill -HUP "$pid"
}

gw_stop() {
    local pid
    require_up
    forwarding gw 0
    if pid=$(gw_pid); then
        kill -TERM "$pid" 2>/dev/null || true
        wait_until 5 gw_gone || kill -KILL "$pid" 2>/dev/null || true
        wait_until 5 gw_gone || die "process $pid does not end"
    fi
    rm -f "$PIDFILE"
    remove_pins
    echo none >"$RUN/forwarder"
}

# --- looking -----------------------------------------------------------------------------------

status() {
    local state forwarder
    if [[ ! -e $(ns_path gw) ]]; then
        echo "lab $LAB: down"
        return 3
    fi
    forwarder=$(cat "$RUN/forwarder" 2>/dev/null || echo none)
    case $forwarder in
    sag) if state=$(gw_pid); then state="sag-vcpe, process $state"; else state="sag-vcpe, not running"; fi ;;
    kernel) state="the kernel forwards (baseline)" ;;
    *) state="not started" ;;
    esac
    cat <<PICTURE

 lab $LAB; gateway: $state

                 ┌─────────────── gw ──────────────┐
 lan1 ───────────┤ port 0          port 1          ├────── wan (router) ────────── inet
 192.0.2.10      │ lan-a           wan             │ 198.51.100.1        │         203.0.113.10
 2001:db8:1::10  │ 192.0.2.1       198.51.100.2    │ 2001:db8:100::1     │         2001:db8:203::10
                 │ 2001:db8:1::1   2001:db8:100::2 │                     └ MTU 1400
                 │                                 │                               203.0.113.74
                 │                                 │                               2001:db8:204::10
 lan2 ───────────┤ port 3          port 2          ├────── pop
 192.0.2.74      │ lan-b           express         │ 192.0.2.130     behind it: 192.0.2.193
 2001:db8:2::10  │ 192.0.2.65      192.0.2.129     │ 2001:db8:e::2              2001:db8:ee::1
                 │ 2001:db8:2::1   2001:db8:e::1   │
                 └─────────────────────────────────┘
PICTURE
}

print_env() {
    local ns
    printf 'LAB=%q RUN=%q PINS=%q CONF=%q SOCKET=%q PIDFILE=%q LOG=%q VCPE=%q SAGCTL=%q\n' \
        "$LAB" "$RUN" "$PINS" "$CONF" "$SOCKET" "$PIDFILE" "$LOG" "$VCPE" "$SAGCTL"
    for ns in "${NAMESPACES[@]}"; do printf 'NS_%s=%q\n' "$ns" "$(ns_path "$ns")"; done
}

# --- command line ------------------------------------------------------------------------------

command=${1:-}
case $command in
up | down | exec | status | gw-start | gw-reload | gw-stop | ctl) require_root "$@" ;;
env) print_env && exit 0 ;;
-h | --help) usage && exit 0 ;;
*) usage >&2 && exit 2 ;;
esac
shift

# One at a time per lab, for what changes it. The lock file stays: removing it would be a race.
case $command in
up | down | gw-start | gw-stop)
    mkdir -p /run/lock
    exec 9>"/run/lock/$LAB.lock"
    flock -w 60 9 || die "another lab.sh works on $LAB"
    ;;
esac

case $command in
up) up 9>&- ;;
down) clear_away 9>&- ;;
status) status ;;
exec)
    [[ $# -ge 2 ]] || die "usage: lab.sh exec NS COMMAND…"
    [[ -e $(ns_path "$1") ]] || die "no namespace '$1' (lab up? one of: ${NAMESPACES[*]})"
    ns=$1
    shift
    exec nsenter --net="$(ns_path "$ns")" "$@"
    ;;
gw-start) gw_start "$@" 9>&- ;;
gw-reload) gw_reload ;;
gw-stop) gw_stop 9>&- ;;
ctl) exec "$SAGCTL" --socket "$SOCKET" "$@" ;;
esac
