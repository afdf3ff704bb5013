#!/usr/bin/env bash
# Everything that the tests need, then the tests; what CI runs. Full logs: target/test-logs/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/test.sh [--quick] [--unit | --e2e] [--release] [-- PYTEST_ARGUMENT…]
  --quick     leave out what takes long
  --unit      format, lints and Rust tests only
  --e2e       build, the SDKs' and the end-to-end tests only
  --release   end-to-end tests of the release build; as a rule they test the one that the Rust tests have
              compiled, whose debug assertions and overflow checks are on
USAGE
}

QUICK=0 UNIT=1 E2E=1 PROFILE=debug
LINTS='' # process of the lints that run beside the tests
SDKS=()  # processes of the SDKs' tests: with SQLite, with PostgreSQL
PYTEST_ARGS=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --quick) QUICK=1 ;;
    --unit) E2E=0 ;;
    --e2e) UNIT=0 ;;
    --release) PROFILE=release ;;
    --) shift && PYTEST_ARGS=("$@") && break ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$SAG_ROOT"
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
# What is compiled for the first time is compiled faster without what helps later changes.
[[ -d $TARGET/debug/incremental ]] || export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
LOGS=$TARGET/test-logs
mkdir -p "$LOGS"

# Shows why a stage failed: what the log says from its first complaint on.
show_failure() {
    local log=$1
    {
        grep -nE -m1 '^(error|failures:|FAIL|=+ (FAILURES|ERRORS) =+|thread .* panicked)' "$log" | cut -d: -f1 || true
    } | {
        read -r line || line=1
        sed -n "${line:-1},$((${line:-1} + 59))s/^/            /p" "$log"
    }
    info "full log: $log"
}

# A stage that passes or fails as a whole.
check() {
    local name=$1 log=$LOGS/$2.log
    shift 2
    step "$name"
    if run_logged "$log" "$@"; then
        pass "$name"
    else
        fail "$name"
        show_failure "$log"
    fi
}

# --- Rust --------------------------------------------------------------------------------------

# Tests that need root say SKIP without it. With sudo at hand they get it.
test_runner() {
    if [[ $EUID -ne 0 ]] && command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        local host
        host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        export "CARGO_TARGET_${host}_RUNNER=sudo -E"
    fi
}

# What checks the sources without compiling them. Each takes seconds.
source_checks() {
    local sh=() venv=$TARGET/lint-venv
    mapfile -t sh < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
    if cargo fmt --version >/dev/null 2>&1; then
        check "format (cargo fmt --check)" fmt cargo fmt --all --check
    else
        skip "format: no rustfmt (rustup component add rustfmt)"
    fi
    if command -v clang-format >/dev/null; then
        check "format of C (clang-format)" clang-format c_format
    else
        skip "format of C: no clang-format (apt-get install clang-format)"
    fi
    if command -v shellcheck >/dev/null; then
        check "lints of scripts (shellcheck)" shellcheck shellcheck -x "${sh[@]}"
    else
        skip "lints of scripts: no shellcheck (apt-get install shellcheck)"
    fi
    if [[ -x $venv/bin/ruff ]]; then
        check "lints of Python (ruff)" ruff "$venv/bin/ruff" check .
    else
        skip "lints of Python: no ruff in $venv (pip install -r tests/lint-requirements.txt)"
    fi
    check "modules without cycles" module-cycles /usr/bin/python3 scripts/module-cycles.py
    check "links of the documents" links /usr/bin/python3 scripts/check-links.py
    check "plot of the README" peers-plot /usr/bin/python3 benches/peers_plot.py --check
    check "no crates with known advisories" advisories without_advisories
    if cargo deny --version >/dev/null 2>&1; then
        check "licences and versions of dependencies (cargo deny)" deny cargo deny --offline check licenses bans sources
    else
        skip "licences and versions of dependencies: no cargo-deny (cargo install cargo-deny)"
    fi
}

# What RustSec has found in crates that were once in the tree (deny.toml); not compiled in, and not in the lock file.
without_advisories() {
    local crate bad=0
    for crate in lru rsa reed-solomon-erasure; do
        if grep -q "^name = \"$crate\"$" Cargo.lock; then
            echo "$crate is in Cargo.lock again:"
            cargo tree --offline --workspace --target all -e all -i "$crate"
            bad=1
        fi
    done
    return "$bad"
}

c_format() {
    local files=()
    mapfile -t files < <(git ls-files --cached --others --exclude-standard 'bpf/*.[ch]' 'benches/*.[ch]')
    clang-format --style=file:bpf/.clang-format --dry-run --Werror "${files[@]}"
}

rust_tests() {
    local log=$LOGS/cargo-test.log code=0 ok bad ignored said_skip
    step "Rust tests"
    test_runner
    # Examples and benchmarks are compiled by the lints alone.
    run_logged "$log" cargo test --workspace --locked --lib --bins --tests --no-fail-fast -- --show-output || code=$?
    ok=$(sum_of 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log")
    bad=$(sum_of 's/^test result: .* \([0-9]*\) failed;.*/\1/p' "$log")
    ignored=$(sum_of 's/^test result: .* \([0-9]*\) ignored;.*/\1/p' "$log")
    # A test that lacks a capability says so and returns: it counts as skipped, not as passed.
    said_skip=$(grep -cE '^SKIP' "$log" || true)
    [[ $code -eq 0 || $bad -gt 0 ]] || bad=1
    PASSED=$((PASSED + ok - said_skip)) FAILED=$((FAILED + bad)) SKIPPED=$((SKIPPED + ignored + said_skip))
    info "$ok ran well, $bad failed, $((ignored + said_skip)) of them skipped"
    grep -E '^SKIP' "$log" | sort | uniq -c | sed 's/^/          /' || true
    [[ $bad -eq 0 ]] || show_failure "$log"
}

sum_of() { sed -n "$1" "$2" | awk '{ n += $1 } END { print n + 0 }'; }

# What compiles the sources without making programs of them.
lints() {
    if cargo clippy --version >/dev/null 2>&1; then
        check "lints (cargo clippy)" clippy cargo clippy --workspace --all-targets --locked -- -D warnings
    else
        skip "lints: no clippy (rustup component add clippy)"
    fi
    check "documentation (cargo doc)" doc env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    check "examples in the documentation" doc-tests cargo test --workspace --locked --doc --no-fail-fast
}

# The lints in the time that end-to-end tests leave over: these wait a lot, and the idle class never takes from them.
# Nothing else may call cargo meanwhile: it would wait for the lock on the target folder.
start_lints() {
    set -m
    idle_lints >"$LOGS/lints.out" 2>&1 &
    LINTS=$!
    set +m
    on_exit "kill -- -$LINTS 2>/dev/null"
}

idle_lints() {
    chrt --idle --pid 0 "$BASHPID" >/dev/null 2>&1 || true
    PASSED=0 FAILED=0 SKIPPED=0
    lints
    echo "$PASSED $FAILED $SKIPPED" >"$LOGS/lints.count"
}

finish_lints() {
    local ok=0 bad=1 skipped=0 code=0
    step "lints, started beside the tests"
    wait "$LINTS" || code=$?
    grep -v '…' "$LOGS/lints.out" || true
    [[ $code -ne 0 ]] || read -r ok bad skipped <"$LOGS/lints.count"
    LINTS=''
    PASSED=$((PASSED + ok)) FAILED=$((FAILED + bad)) SKIPPED=$((SKIPPED + skipped))
}

# --- end to end --------------------------------------------------------------------------------

# Most of a test is waiting, so several run at a time, each file of them in labs of its own; what measures rates or
# loads the machine runs alone afterwards. With arguments of the caller's, all is one run.
e2e_tests() {
    local several=$(($(nproc) * 2))
    step "end-to-end tests"
    if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null; then
        SKIPPED=$((SKIPPED + 1))
        info "SKIP: network namespaces need root, and there is no sudo"
        return
    fi
    if [[ ${#PYTEST_ARGS[@]} -gt 0 ]] || ! /usr/bin/python3 -c 'import xdist' 2>/dev/null; then
        e2e_run e2e "${PYTEST_ARGS[@]}"
        return
    fi
    e2e_run e2e -n "$several" --dist loadfile -m "not alone"
    [[ -z $LINTS ]] || finish_lints
    step "end-to-end tests that need the machine for themselves"
    e2e_run e2e-alone -m alone
}

# e2e_run LOG PYTEST_ARGUMENT…
e2e_run() {
    # Real traffic on a busy machine: a test that fails has one more try, and the report names it.
    local log=$LOGS/$1.log code=0 line args=(-q -raR -p no:cacheprovider --durations=20 --reruns 1 "${@:2}")
    [[ $QUICK -eq 0 ]] || args+=(--quick)
    run_logged "$log" as_root env PYTHONDONTWRITEBYTECODE=1 SAG_VCPE_BIN="$BIN/sag-vcpe" SAGCTL_BIN="$BIN/sagctl" \
        PKTGEN_BIN="$BIN/pktgen" SAG_AGENT_BIN="$BIN/sag-agent" SAG_CLOUD_BIN="$BIN/sag-cloud" \
        /usr/bin/python3 -m pytest tests/e2e "${args[@]}" || code=$?
    line=$(grep -E '^[0-9]+ (passed|failed|skipped|error).* in [0-9.]+s' "$log" | tail -n1 || true)
    PASSED=$((PASSED + $(count_in "$line" passed)))
    FAILED=$((FAILED + $(count_in "$line" failed) + $(count_in "$line" 'errors?')))
    SKIPPED=$((SKIPPED + $(count_in "$line" skipped)))
    info "${line:-no result}"
    grep -E '^(SKIPPED|RERUN)' "$log" | sed 's/^/          /' || true
    if [[ $code -ne 0 ]]; then
        [[ $(count_in "$line" failed) -gt 0 || $(count_in "$line" 'errors?') -gt 0 ]] || FAILED=$((FAILED + 1))
        grep -E '^(FAILED|ERROR) ' "$log" | sed 's/^/          /' || true
        show_failure "$log"
    fi
}

# The cloud API, driven by the vendor's SDKs, with one database and the other at once and beside the Rust tests: most of
# it is waiting, and Python's time on one core each.
start_sdk_tests() {
    local cloud="SAG_CLOUD_BIN=$BIN/sag-cloud"
    if [[ ! -x $TARGET/sdk-venv/bin/python ]]; then
        step "machine of the official SDKs"
        run_logged "$LOGS/sdk.log" env "$cloud" bash tests/sdk/run.sh --collect-only || true
    fi
    env "$cloud" bash tests/sdk/run.sh -ra >"$LOGS/sdk.log" 2>&1 &
    SDKS=("$!")
    if [[ $QUICK -eq 0 ]]; then
        env "$cloud" bash tests/sdk/with-postgres.sh tests/sdk/run.sh -ra >"$LOGS/sdk-postgres.log" 2>&1 &
        SDKS+=("$!")
    fi
    on_exit "kill ${SDKS[*]} 2>/dev/null"
}

finish_sdk_tests() {
    local code=0
    step "cloud API by the official SDKs"
    wait "${SDKS[0]}" || code=$?
    sdk_results "with SQLite" "$LOGS/sdk.log" "$code"
    [[ -n ${SDKS[1]:-} ]] || return 0
    code=0
    wait "${SDKS[1]}" || code=$?
    sdk_results "with PostgreSQL" "$LOGS/sdk-postgres.log" "$code"
}

# sdk_results NAME LOG EXIT_CODE
sdk_results() {
    local name=$1 log=$2 code=$3 line reason
    reason=$(grep -m1 '^SKIP:' "$log" || true)
    if [[ -n $reason && $code -eq 0 ]]; then
        skip "cloud API $name: ${reason#SKIP: }"
        return
    fi
    line=$(grep -E '^[0-9]+ (passed|failed|skipped|error).* in [0-9.]+s' "$log" | tail -n1 || true)
    PASSED=$((PASSED + $(count_in "$line" passed)))
    FAILED=$((FAILED + $(count_in "$line" failed) + $(count_in "$line" 'errors?')))
    SKIPPED=$((SKIPPED + $(count_in "$line" skipped)))
    info "$name: ${line:-no result}"
    grep -E '^SKIPPED' "$log" | sed 's/^/          /' || true
    if [[ $code -ne 0 ]]; then
        [[ $(count_in "$line" failed) -gt 0 || $(count_in "$line" 'errors?') -gt 0 ]] || FAILED=$((FAILED + 1))
        show_failure "$log"
    fi
}

count_in() {
    local n
    n=$(grep -oE "[0-9]+ $2" <<<"$1" | head -n1 | cut -d' ' -f1 || true)
    echo "${n:-0}"
}

# --- all of it ---------------------------------------------------------------------------------

step "machine"
bash scripts/setup.sh --quiet || die "the machine is not ready for the tests"
find_cargo || die "no cargo (scripts/setup.sh installs Rust)"

BIN=$TARGET/$PROFILE
[[ $UNIT -eq 0 ]] || source_checks
if [[ $E2E -eq 1 ]]; then
    if [[ $PROFILE == release ]]; then
        check "release build" build cargo build --workspace --release --locked
        # Only builds with debug assertions have the places at which tests kill the agent.
        check "agent with crash points" build-agent cargo build --locked -p sag-agent
    else
        # At once with the Rust tests, and with the features that these want of dependencies: nothing is compiled twice.
        with=()
        [[ $UNIT -eq 0 ]] || with=(--tests)
        check "build" build cargo build --workspace --locked --lib --bins "${with[@]}"
    fi
    [[ ! -x $BIN/sag-cloud ]] || start_sdk_tests
fi
if [[ $UNIT -eq 1 ]]; then
    [[ $E2E -eq 1 ]] || lints
    rust_tests
    check "the benchmark's own tests" bench-tests \
        env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -q -p no:cacheprovider benches/sagbench/tests
fi
if [[ $E2E -eq 1 ]]; then
    [[ ${#SDKS[@]} -eq 0 ]] || finish_sdk_tests
    [[ $UNIT -eq 0 ]] || start_lints
    if [[ -x $BIN/sag-vcpe ]]; then e2e_tests; else fail "end-to-end tests: no gateway was built"; fi
    [[ -z $LINTS ]] || finish_lints
fi

step "done; full logs in $LOGS"
summary
[[ $FAILED -eq 0 && $PASSED -gt 0 ]]
