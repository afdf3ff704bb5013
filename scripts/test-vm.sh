#!/usr/bin/env bash
# The gateway in virtual machines with the kernels of Debian and Ubuntu: systemd, virtio-net, older verifiers.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/test-vm.sh [--kernel VERSION]… [--no-build] [-- PYTEST_ARGUMENT…]
  --kernel VERSION   5.10, 5.15, 6.1 or 6.12; several may be given; all of them by default
  --no-build         with the programs that are there (target/release, else target/debug)
What it needs is installed by scripts/setup.sh --vm, which it runs. Kernels and a root file system come from the
distributions' archives at the first run and stay in target/vm (700 MB). A kernel takes five minutes emulated. What was
seen is in target/vm/report.md.
environment:
  SAG_VM_ACCEL       kvm or tcg, in place of a probe
  SAG_VM_LOGS        a directory that gets the guests' consoles
  SAG_VM_DEBIAN, SAG_VM_UBUNTU   mirrors of the archives
USAGE
}

BUILD=1 KERNELS=() PYTEST_ARGS=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --kernel)
        [[ $# -gt 1 ]] || { usage >&2 && exit 2; }
        KERNELS+=(--kernel "$2")
        shift
        ;;
    --no-build) BUILD=0 ;;
    --) shift && PYTEST_ARGS=("$@") && break ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$SAG_ROOT"
step "machine"
bash scripts/setup.sh --quiet --vm || die "the machine is not ready for the tests"
if [[ $BUILD -eq 1 ]]; then
    find_cargo || die "no cargo (scripts/setup.sh installs Rust)"
    step "build"
    cargo build --workspace --bins --locked
fi
step "tests in virtual machines"
as_root env PYTHONDONTWRITEBYTECODE=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$SAG_ROOT/target}" \
    /usr/bin/python3 -m pytest -q -ra tests/vm "${KERNELS[@]}" "${PYTEST_ARGS[@]}"
