# shellcheck shell=bash
# Functions shared by the scripts of this directory. Source it; it runs nothing by itself.

SAG_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export SAG_ROOT
SAG_STARTED_MS="${SAG_STARTED_MS:-$(date +%s%3N)}"

if [[ -t 1 && -z "${NO_COLOR:-}" ]]; then
    C_BOLD=$'\e[1m' C_RED=$'\e[31m' C_GREEN=$'\e[32m' C_YELLOW=$'\e[33m' C_OFF=$'\e[0m'
else
    C_BOLD='' C_RED='' C_GREEN='' C_YELLOW='' C_OFF=''
fi

# --- time and messages -------------------------------------------------------------------------

# Seconds with one decimal since the script started.
elapsed() {
    local ms=$(($(date +%s%3N) - SAG_STARTED_MS))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# One progress line: what is being done, and since when the script runs.
step() { printf '%s[%6ss]%s %s\n' "$C_BOLD" "$(elapsed)" "$C_OFF" "$*"; }
info() { printf '          %s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$C_YELLOW" "$C_OFF" "$*" >&2; }
error() { printf '%serror:%s %s\n' "$C_RED" "$C_OFF" "$*" >&2; }
die() {
    error "$*"
    exit 1
}

# --- results -----------------------------------------------------------------------------------

PASSED=0 FAILED=0 SKIPPED=0
pass() {
    PASSED=$((PASSED + 1))
    printf '          %sPASS%s %s\n' "$C_GREEN" "$C_OFF" "$*"
}
fail() {
    FAILED=$((FAILED + 1))
    printf '          %sFAIL%s %s\n' "$C_RED" "$C_OFF" "$*"
}
skip() {
    SKIPPED=$((SKIPPED + 1))
    printf '          %sSKIP%s %s\n' "$C_YELLOW" "$C_OFF" "$*"
}
summary() { printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$SKIPPED"; }

# --- cleaning up -------------------------------------------------------------------------------

EXIT_ACTIONS=()
# Runs a command when the script ends, however it ends; the last registered runs first.
on_exit() {
    EXIT_ACTIONS+=("$*")
    trap run_exit_actions EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}
run_exit_actions() {
    local code=$? i
    trap '' INT TERM HUP
    set +e
    for ((i = ${#EXIT_ACTIONS[@]} - 1; i >= 0; i--)); do eval "${EXIT_ACTIONS[i]}"; done
    exit "$code"
}

# --- long commands -------------------------------------------------------------------------------

# run_logged LOG COMMAND…: all output goes to the file; now and then a line says that it lives.
run_logged() {
    local log=$1 pid code=0 next
    shift
    mkdir -p "$(dirname "$log")"
    "$@" </dev/null >"$log" 2>&1 &
    pid=$!
    next=$((SECONDS + 30))
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        if [[ $SECONDS -ge $next ]]; then
            next=$((SECONDS + 30))
            printf '[%6ss]   … %s\n' "$(elapsed)" "$(tail -n 1 "$log" | tr -d '\r' | cut -c1-90)"
        fi
    done
    wait "$pid" || code=$?
    return "$code"
}

# --- privilege and tools -----------------------------------------------------------------------

# Runs a command as root: as it is, or by sudo.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=SAG_LAB_PREFIX,LAB_QUEUES,SAG_VCPE_BIN,SAGCTL_BIN,SAG_STARTED_MS,NO_COLOR "$@"
    else
        die "this needs root: run it as root, or install sudo ('$*')"
    fi
}

# Starts the calling script again as root if it is not root already.
require_root() {
    [[ $EUID -eq 0 ]] && return
    command -v sudo >/dev/null || die "$(basename "$0") needs root (network namespaces, BPF) and there is no sudo: run it as root"
    as_root bash "$0" "$@"
    exit $?
}

need_tools() {
    local tool missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || [[ -x /usr/sbin/$tool || -x /sbin/$tool ]] || missing+=("$tool")
    done
    [[ ${#missing[@]} -eq 0 ]] || die "missing: ${missing[*]} (scripts/setup.sh installs them)"
}

# Waits until a command succeeds: wait_until SECONDS COMMAND…
wait_until() {
    local end=$((${EPOCHREALTIME/[.,]/} + ${1%.*} * 1000000))
    shift
    until "$@" >/dev/null 2>&1; do
        [[ ${EPOCHREALTIME/[.,]/} -lt $end ]] || return 1
        sleep 0.02
    done
}

# True when version $1 >= version $2.
version_at_least() { [[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" == "$2" ]]; }

# Cargo as the user has it, also where sudo or a service changed PATH.
find_cargo() {
    local dir
    command -v cargo >/dev/null && return
    for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" /root/.cargo/bin /usr/local/cargo/bin; do
        if [[ -x $dir/cargo ]]; then
            PATH="$dir:$PATH"
            export PATH
            return
        fi
    done
    return 1
}

case ":$PATH:" in
*:/usr/sbin:*) ;;
*) export PATH="$PATH:/usr/sbin:/sbin" ;;
esac
