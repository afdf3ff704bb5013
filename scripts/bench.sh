#!/usr/bin/env bash
# The benchmark: sag-vcpe beside its peers on the same topology in the same run, in turns. Writes
# target/bench/report.md, report.json and plots. docs/benchmarks.md says what the rows mean.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/bench.sh [--quick | --full] [--only SCENARIO]… [--rounds N] [--seed N] [--no-build] | --list
       scripts/bench.sh nat | blocked | cloud | failover [OPTION]…
  --quick      under ten minutes, without the build (the default)
  --full       all sizes and peers, more rounds
  --only       one scenario; several --only: several
  --list       print the names of the scenarios
  --rounds N   no more rounds than that, for a look at all that --full measures
  --seed N     of the ClassBench-like rule sets (default 1)
  --no-build   use what is in target/release
  nat, blocked, cloud, failover   a program of its own: benches/nat-bench.sh, blocked_time.py, cloud_bench.py,
               failover.py (--help: its options)
environment:
  SAG_VCPE_BIN, SAGCTL_BIN, SAG_PKTGEN_BIN   other binaries
exit code: 0 measured (targets may be missed), 1 a measurement is broken or failed, 2 wrong usage
USAGE
}

case ${1:-} in
nat) exec bash "$SAG_ROOT/benches/nat-bench.sh" "${@:2}" ;;
blocked) exec /usr/bin/python3 "$SAG_ROOT/benches/blocked_time.py" "${@:2}" ;;
cloud) exec /usr/bin/python3 "$SAG_ROOT/benches/cloud_bench.py" "${@:2}" ;;
failover) exec /usr/bin/python3 "$SAG_ROOT/benches/failover.py" "${@:2}" ;;
--list) PYTHONPATH=$SAG_ROOT/benches PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m sagbench --list ;;
esac

BUILD=1
ARGS=()
PACKAGES=(-p sag-dataplane -p sagctl -p sag-pktgen)
while [[ $# -gt 0 ]]; do
    case $1 in
    --no-build) BUILD=0 ;;
    --quick) ARGS+=("$1") ;;
    --full) ARGS+=("$1") && PACKAGES+=(-p sag-cloud) ;;
    --only | --seed | --rounds)
        ARGS+=("$1" "${2:?$1 needs a value}")
        [[ $2 != cloud ]] || PACKAGES+=(-p sag-cloud)
        shift
        ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$SAG_ROOT"
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
VCPE=${SAG_VCPE_BIN:-$TARGET/release/sag-vcpe}
CTL=${SAGCTL_BIN:-$TARGET/release/sagctl}
PKTGEN=${SAG_PKTGEN_BIN:-$TARGET/release/pktgen}

# The daemon and what it is measured with; then what runs in memory.
build() {
    cargo build --release --locked "${PACKAGES[@]}" &&
        cargo build --release --locked -p sag-benches --example targets --example nat --example million --example esp --example overlay \
            --example rte_acl_compare --example l2fwd --example fec --example contention &&
        cargo build --release --locked -p sag-fib --example internet_table -p sag-compile --example full_table
}

if [[ $BUILD -eq 1 ]]; then
    bash scripts/setup.sh --quiet || die "the machine is not ready"
    find_cargo || die "no cargo (scripts/setup.sh installs Rust)"
    step "build (release)"
    mkdir -p "$TARGET/bench"
    run_logged "$TARGET/bench/build.log" build ||
        { tail -n 30 "$TARGET/bench/build.log" && die "the build failed"; }
fi
for binary in "$VCPE" "$CTL" "$PKTGEN"; do
    [[ -x $binary ]] || die "$binary is not built: run without --no-build"
done
need_tools ip ethtool nft nsenter chrt taskset sysctl
# One at a time: each puts the machine's settings back to what it found.
mkdir -p /run/lock 2>/dev/null || true
if [[ $EUID -eq 0 ]]; then
    exec 9>/run/lock/sag-bench.lock
    flock -n 9 || die "another scripts/bench.sh runs on this machine"
fi
step "measure"
export PYTHONPATH=$SAG_ROOT/benches PYTHONDONTWRITEBYTECODE=1
COMMAND=(/usr/bin/python3 -m sagbench --target "$TARGET" --vcpe "$VCPE" --sagctl "$CTL" --pktgen "$PKTGEN" "${ARGS[@]}")
[[ $EUID -ne 0 ]] || exec "${COMMAND[@]}"
command -v sudo >/dev/null || die "this needs root (network namespaces, BPF) and there is no sudo"
exec sudo env PYTHONPATH="$PYTHONPATH" PYTHONDONTWRITEBYTECODE=1 PATH="$PATH" "${COMMAND[@]}"
