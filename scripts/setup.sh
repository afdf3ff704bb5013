#!/usr/bin/env bash
# Makes a Debian 12 / Ubuntu 24.04 machine fit to build, run and test the gateway.
# Safe to run again at any time: with everything in place it needs no network and no root.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/setup.sh [--check] [--quiet] [--gateway | --demo | --vm]
  --check     change nothing; say what is missing and exit 1 if the gateway cannot be built or run
  --quiet     print only what is done and what is missing
  --gateway   only what building the gateway and the lab need
  --demo      that and the SDKs of the cloud API; without what only tests need
  --vm        everything, and what the tests in virtual machines need (scripts/test-vm.sh)
USAGE
}

CHECK=0 QUIET=0
# Whether to install the programs that only tests use, and the SDKs.
TESTS=1 SDKS=1 VM=0
for arg in "$@"; do
    case $arg in
    --check) CHECK=1 ;;
    --quiet) QUIET=1 ;;
    --gateway) TESTS=0 SDKS=0 ;;
    --demo) TESTS=0 SDKS=1 ;;
    --vm) VM=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

PROBLEMS=0
ok() { [[ $QUIET -eq 1 ]] || printf '  %sok%s       %s\n' "$C_GREEN" "$C_OFF" "$*"; }
note() { printf '  %soptional%s %s\n' "$C_YELLOW" "$C_OFF" "$*"; }
missing() {
    PROBLEMS=$((PROBLEMS + 1))
    printf '  %smissing%s  %s\n' "$C_RED" "$C_OFF" "$*"
}

# --- packages ----------------------------------------------------------------------------------

BUILD_PKGS=(clang llvm libelf-dev zlib1g-dev pkg-config make gcc libc6-dev ca-certificates curl)
TEST_PKGS=(iproute2 util-linux procps iperf3 ethtool tcpdump nftables traceroute iputils-ping
    iputils-tracepath jq python3 python3-scapy python3-pytest
    python3-pytest-rerunfailures python3-pytest-xdist python3-venv)
# What starts guests, and what their root file system is made with (scripts/test-vm.sh).
VM_PKGS=(qemu-system-x86 mmdebstrap e2fsprogs debian-archive-keyring binutils zstd)
# What tests talk with or compare with (dpdk-dev: librte_meter and librte_acl): each is installed where apt has it,
# and its tests are skipped where not.
PEER_PKGS=(coturn stun-client bind9-dnsutils python3-pyftpdlib sipsak sip-tester ngtcp2-client ngtcp2-server
    postgresql dpdk-dev tshark dnsmasq-base udhcpc dhcpcd-base kea-dhcp6-server radvd keepalived frr frr-pythontools
    bird2 ppp charon-systemd strongswan-swanctl)
# What scripts/test.sh checks the sources with; likewise.
LINT_PKGS=(shellcheck clang-format)
# What they would start as services of the machine.
PEER_UNITS=(coturn.service:coturn ngtcp2d.service:ngtcp2-server postgresql.service:postgresql
    keepalived.service:keepalived frr.service:frr bird.service:bird2
    strongswan.service:charon-systemd kea-dhcp6-server.service:kea-dhcp6-server radvd.service:radvd)
# Each line: what it is good for, then the packages to try, first one that exists wins.
OPTIONAL_PKGS=(
    "looking into BPF maps by hand|bpftool linux-tools-common"
    "counting instructions (benches/tests/instructions.rs)|valgrind"
)

installed() { [[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

any_installed() {
    local pkg
    for pkg in "$@"; do installed "$pkg" && return; done
    return 1
}

APT_UPDATED=0
apt_update() {
    [[ $APT_UPDATED -eq 0 ]] || return 0
    step "apt-get update"
    as_root apt-get update -qq || warn "apt-get update failed; trying with the package lists at hand"
    APT_UPDATED=1
}

apt_install() {
    apt_update
    local log
    log=$(mktemp)
    if run_logged "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; then
        rm -f "$log"
    else
        grep -E '^(E|W|Err):?' "$log" >&2 || tail -n 5 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# Whether apt could install it. (No `grep -q` behind a pipe: it closes early, and pipefail calls that a failure.)
apt_has() { apt-cache policy "$1" 2>/dev/null | grep 'Candidate: [^(]' >/dev/null; }

packages() {
    local pkg line what candidates want=() base=("${BUILD_PKGS[@]}" "${TEST_PKGS[@]}")
    [[ $VM -eq 0 ]] || base+=("${VM_PKGS[@]}")
    if ! command -v dpkg-query >/dev/null; then
        missing "apt: this script installs packages on Debian 12 and Ubuntu 24.04 only. Install by hand: ${BUILD_PKGS[*]} ${TEST_PKGS[*]}"
        return
    fi
    for pkg in "${base[@]}"; do installed "$pkg" || want+=("$pkg"); done
    if [[ ${#want[@]} -eq 0 ]]; then
        ok "packages: all ${#base[@]} installed"
    elif [[ $CHECK -eq 1 ]]; then
        missing "packages: ${want[*]} (scripts/setup.sh installs them)"
    else
        step "installing ${want[*]}"
        apt_install "${want[@]}" || missing "packages: apt-get could not install ${want[*]} (see its message above)"
    fi
    [[ $TESTS -eq 1 ]] || return 0
    peers
    for line in "${OPTIONAL_PKGS[@]}"; do
        what=${line%%|*}
        read -ra candidates <<<"${line#*|}"
        any_installed "${candidates[@]}" && continue
        # Only alongside a real installation: a run that lacks nothing else stays offline.
        if [[ $CHECK -eq 0 && ${#want[@]} -gt 0 ]]; then
            for pkg in "${candidates[@]}"; do
                apt_has "$pkg" || continue
                step "installing $pkg (optional: $what)"
                apt_install "$pkg" && continue 2
            done
        fi
        note "not installed: ${candidates[*]} (for $what)"
    done
}

peers() {
    local pkg want=() have=() all=("${PEER_PKGS[@]}" "${LINT_PKGS[@]}")
    for pkg in "${all[@]}"; do installed "$pkg" || want+=("$pkg"); done
    if [[ ${#want[@]} -gt 0 && $CHECK -eq 0 ]]; then
        # What apt does not have is not requested again and again.
        compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt_update
        for pkg in "${want[@]}"; do ! apt_has "$pkg" || have+=("$pkg"); done
    fi
    if [[ ${#have[@]} -gt 0 ]]; then
        step "installing ${have[*]} (programs for tests)"
        keep_services_off
        apt_install "${have[@]}" || true
    fi
    want=()
    for pkg in "${all[@]}"; do installed "$pkg" || want+=("$pkg"); done
    if [[ ${#want[@]} -eq 0 ]]; then
        ok "programs for tests: all ${#all[@]} installed"
    else
        note "not installed: ${want[*]} (their tests are skipped)"
    fi
}

# Masks the units of packages that are about to come, unless somebody has set them up.
keep_services_off() {
    local line unit
    for line in "${PEER_UNITS[@]}"; do
        unit=/etc/systemd/system/${line%%:*}
        installed "${line#*:}" || [[ -e $unit || -L $unit ]] && continue
        as_root mkdir -p "${unit%/*}"
        as_root ln -s /dev/null "$unit"
    done
}

# --- Rust --------------------------------------------------------------------------------------

toolchain_ok() {
    local have
    find_cargo || return 1
    command -v rustc >/dev/null || return 1
    have=$(cd "$SAG_ROOT" && rustc --version 2>/dev/null | awk '{print $2}') || return 1
    [[ -n $have ]] && version_at_least "${have%%-*}" "$1"
}

install_rust() {
    if ! command -v rustup >/dev/null; then
        if apt_has rustup; then
            step "installing rustup (apt)"
            apt_install rustup || return 1
        else
            step "installing rustup (installer of rustup.rs)"
            curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
                sh -s -- -y --profile minimal --default-toolchain stable || return 1
            PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        fi
    fi
    step "installing the stable Rust toolchain"
    rustup toolchain install stable --profile minimal -c rustfmt -c clippy && rustup default stable
}

rust() {
    local want
    want=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$SAG_ROOT/Cargo.toml")
    if ! toolchain_ok "$want" && [[ $CHECK -eq 0 ]]; then
        install_rust || true
    fi
    if toolchain_ok "$want"; then
        ok "Rust: $(rustc --version) (needs $want or newer)"
    else
        missing "Rust $want or newer (rustup toolchain install stable; https://rustup.rs)"
        return
    fi
    cargo fmt --version >/dev/null 2>&1 || note "rustfmt is not installed (rustup component add rustfmt)"
    cargo clippy --version >/dev/null 2>&1 || note "clippy is not installed (rustup component add clippy)"
}

# --- the vendor's SDKs -------------------------------------------------------------------------

# For the demo and for tests/sdk; in a folder of their own below target.
sdks() {
    local target=${CARGO_TARGET_DIR:-$SAG_ROOT/target} venv log
    venv=${SAG_SDK_VENV:-$target/sdk-venv} log=$target/sdk-pip.log
    if ! sdks_there "$venv" && [[ $CHECK -eq 0 ]]; then
        step "installing the SDKs of the cloud API ($venv)"
        mkdir -p "$target"
        if python3 -m venv "$venv"; then
            run_logged "$log" "$venv/bin/pip" install -q -r "$SAG_ROOT/tests/sdk/requirements.txt" || true
        fi
    fi
    if sdks_there "$venv"; then
        ok "SDKs of the cloud API"
    else
        note "not installed: the SDKs of the cloud API (the demo needs them, tests are skipped; see $log)"
    fi
}
sdks_there() { "$1/bin/python" -c 'import alibabacloud_smartag20180313, aliyunsdksmartag, h2, httpx, hypothesis, pytest' 2>/dev/null; }

# --- linters from PyPI ------------------------------------------------------------------------

# ruff, which apt does not have; in a folder of its own below target.
linters() {
    local target=${CARGO_TARGET_DIR:-$SAG_ROOT/target} venv log
    venv=$target/lint-venv log=$target/lint-pip.log
    if ! [[ -x $venv/bin/ruff ]] && [[ $CHECK -eq 0 ]]; then
        step "installing ruff ($venv)"
        mkdir -p "$target"
        if python3 -m venv "$venv"; then
            run_logged "$log" "$venv/bin/pip" install -q -r "$SAG_ROOT/tests/lint-requirements.txt" || true
        fi
    fi
    if [[ -x $venv/bin/ruff ]]; then
        ok "ruff"
    else
        note "not installed: ruff (its check is skipped; see $log)"
    fi
}

# --- compiler and kernel -----------------------------------------------------------------------

bpf_compiler() {
    local version
    if ! command -v clang >/dev/null; then
        missing "clang (apt-get install clang llvm)"
        return
    fi
    version=$(clang -dumpversion)
    if ! version_at_least "$version" 11; then
        missing "clang 11 or newer; this is $version (apt-get install clang)"
    elif ! clang -print-targets 2>/dev/null | grep -w bpf >/dev/null; then
        missing "clang $version was built without the bpf target (apt-get install clang llvm)"
    else
        ok "clang $version with the bpf target"
    fi
}

kernel() {
    local release
    release=$(uname -r)
    if version_at_least "${release%%-*}" 5.15; then
        ok "kernel $release"
    else
        missing "kernel 5.15 or newer; this is $release (install linux-image-amd64 of a newer release and reboot)"
    fi
    if [[ -r /sys/kernel/btf/vmlinux ]]; then
        ok "BTF of the kernel"
    else
        missing "/sys/kernel/btf/vmlinux (a kernel with CONFIG_DEBUG_INFO_BTF=y; Debian's and Ubuntu's have it)"
    fi
    if grep -qw bpf /proc/filesystems; then
        ok "bpffs$(findmnt -n -o TARGET -t bpf | head -n1 | sed 's/^/ mounted at /')"
    else
        missing "bpffs (a kernel with CONFIG_BPF_SYSCALL=y)"
    fi
    privileged_features
}

# What only root can try out. Nothing is left behind: the veth pair lives in a namespace of its own.
privileged_features() {
    if [[ $EUID -ne 0 ]] && ! { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; then
        note "not root and no password-less sudo: veth, XDP and AF_XDP were not tried"
        return
    fi
    if ! command -v ip >/dev/null || ! [[ -x /usr/bin/python3 ]]; then
        note "without iproute2 and python3: veth and AF_XDP were not tried"
        return
    fi
    if as_root unshare --net ip link add sagv0 type veth peer name sagv1 2>/dev/null; then
        ok "network namespaces and veth"
    else
        missing "network namespaces with veth (CONFIG_NET_NS, CONFIG_VETH; in a container: CAP_NET_ADMIN and CAP_SYS_ADMIN; modprobe veth)"
    fi
    # 44 is AF_XDP; Python has no name for it.
    if as_root /usr/bin/python3 -c 'import socket; socket.socket(44, socket.SOCK_RAW, 0).close()' 2>/dev/null; then
        ok "AF_XDP sockets"
    else
        missing "AF_XDP sockets (a kernel with CONFIG_XDP_SOCKETS=y, CAP_NET_RAW)"
    fi
    if as_root nft list tables >/dev/null 2>&1; then
        ok "nftables"
    else
        note "nftables does not answer: the tests that compare ACLs with it will be skipped"
    fi
}

[[ $QUIET -eq 1 ]] || step "checking the machine"
packages
rust
[[ $SDKS -eq 0 ]] || sdks
[[ $TESTS -eq 0 ]] || linters
bpf_compiler
kernel

if [[ $PROBLEMS -gt 0 ]]; then
    error "$PROBLEMS thing(s) missing; each line above names the remedy"
    exit 1
fi
[[ $QUIET -eq 1 ]] || step "the machine is ready"
