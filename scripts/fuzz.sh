#!/usr/bin/env bash
# Coverage-guided fuzzing with libFuzzer, on the stable compiler. Without arguments it lists the targets.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

FUZZ=$SAG_ROOT/fuzz
TARGET_DIR=${CARGO_TARGET_DIR:-$SAG_ROOT/target}/fuzz

usage() {
    cat <<USAGE
usage: scripts/fuzz.sh [TARGET…] [--seconds N]
  TARGET        what to fuzz, one after the other; "all" stands for every target
  --seconds N   how long for each target (60)

Starts from fuzz/corpus/TARGET and collects what reaches new code in target/fuzz/corpus/TARGET. An input that fails
is written to fuzz/corpus/TARGET, where \`cargo test -p sag-fuzz\` replays it.
USAGE
}

targets() { find "$FUZZ/libfuzzer/targets" -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort; }

list() {
    usage
    printf '\ntargets:\n'
    local name
    for name in $(targets); do
        printf '  %-10s %s\n' "$name" "$(sed -n 's/^\/\/! //p' "$FUZZ/libfuzzer/targets/$name.rs" | head -n1)"
    done
}

SECONDS_EACH=60 CHOSEN=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --seconds)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--seconds takes a number of seconds, 1 or more"
        SECONDS_EACH=$2 && shift
        ;;
    -h | --help) list && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    all) mapfile -t CHOSEN < <(targets) ;;
    *)
        [[ -f $FUZZ/libfuzzer/targets/$1.rs ]] || die "no target named $1; there are: $(targets | tr '\n' ' ')"
        CHOSEN+=("$1")
        ;;
    esac
    shift
done
[[ ${#CHOSEN[@]} -gt 0 ]] || { list && exit 0; }

# --- build ---------------------------------------------------------------------------------------

find_cargo || die "no cargo: scripts/setup.sh installs Rust"
command -v c++ >/dev/null || die "no C++ compiler, which libFuzzer is compiled with: apt-get install g++"

HOST=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, less the sanitizers: those need a nightly compiler, and the code fuzzed here forbids unsafe.
# With --target, build scripts and macros are not instrumented.
INSTRUMENT=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1
)
BINS=()
for target in "${CHOSEN[@]}"; do BINS+=(--bin "$target"); done
step "building ${CHOSEN[*]}"
if ! run_logged "$TARGET_DIR/build.log" env RUSTFLAGS="${INSTRUMENT[*]}" CARGO_TARGET_DIR="$TARGET_DIR" \
    cargo build --release --locked --manifest-path "$FUZZ/libfuzzer/Cargo.toml" --target "$HOST" "${BINS[@]}"; then
    tail -n 20 "$TARGET_DIR/build.log" | sed 's/^/          /'
    if grep -q 'failed to .*\(download\|fetch\|get\)' "$TARGET_DIR/build.log"; then
        info "libfuzzer-sys and what it needs are fetched from crates.io once: that takes a network"
    fi
    die "the fuzz targets do not build; full log: $TARGET_DIR/build.log"
fi

# --- run -----------------------------------------------------------------------------------------

# Inputs after which another process goes on. The tables of a gateway live as long as the process, about 0.1 MiB for
# each input of these targets; -1: as many as there is time for.
inputs_of_a_process() {
    case $1 in
    pipeline | quotes | tunnel | xdp) echo 12000 ;;
    *) echo -1 ;;
    esac
}

for target in "${CHOSEN[@]}"; do
    collected=$TARGET_DIR/corpus/$target log=$TARGET_DIR/$target.log code=0
    mkdir -p "$collected"
    step "$target, $SECONDS_EACH s"
    alone=()
    if [[ $target == xdp ]]; then
        if [[ $EUID -ne 0 ]]; then
            skip "xdp: loading a BPF program needs root"
            continue
        fi
        # Mounts and namespaces of the gateway that it makes are gone with the process.
        alone=(unshare --mount --net)
    fi
    most=$(inputs_of_a_process "$target") runs=0 end=$((SECONDS + SECONDS_EACH))
    while [[ $code -eq 0 && $SECONDS -lt $end ]]; do
        run_logged "$log" "${alone[@]}" "$TARGET_DIR/$HOST/release/$target" "$collected" "$FUZZ/corpus/$target" \
            -max_total_time=$((end - SECONDS)) -runs="$most" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
            -print_final_stats=1 -artifact_prefix="$FUZZ/corpus/$target/" || code=$?
        more=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        runs=$((runs + ${more:-0}))
    done
    reached=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n1 || true)
    if [[ $code -eq 75 ]]; then
        skip "$target: $(grep -m1 '^SKIP' "$log" || echo "it cannot run here")"
    elif [[ $code -eq 0 ]]; then
        pass "$target: $runs runs, ${reached:-no coverage}, $(find "$collected" -type f | wc -l) inputs collected"
    else
        fail "$target: $runs runs, then a failure"
        grep -E '^(thread|==[0-9]+== ERROR|SUMMARY|artifact_prefix|Test unit written)' "$log" | sed 's/^/          /' || true
        info "full log: $log; replay: cargo test -p sag-fuzz $target"
    fi
done
step "done"
summary
[[ $FAILED -eq 0 ]]
