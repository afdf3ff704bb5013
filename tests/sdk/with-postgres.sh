#!/usr/bin/env bash
# Runs a command with SAG_CLOUD_TEST_DB naming a private PostgreSQL that lives as long as the command, and
# SAG_CLOUD_TEST_KEY a file for the key of its secrets.
#   tests/sdk/with-postgres.sh COMMAND…
# Skips with a reason if PostgreSQL is not installed.
set -euo pipefail
initdb=$(command -v initdb || find /usr/lib/postgresql -name initdb 2>/dev/null | sort -V | tail -1 || true)
if [[ -z $initdb ]]; then
    echo "SKIP: PostgreSQL is not installed"
    exit 0
fi
bin=$(dirname "$(readlink -f "$initdb")")
dir=$(mktemp -d -t sag-pg.XXXXXX)
# PostgreSQL does not run as root.
as=()
if [[ $EUID -eq 0 ]]; then
    if ! id postgres >/dev/null 2>&1; then
        echo "SKIP: PostgreSQL does not run as root and there is no user postgres"
        rmdir "$dir"
        exit 0
    fi
    chown postgres "$dir"
    as=(setpriv --reuid=postgres --regid=postgres --init-groups --reset-env)
fi
stop() {
    (cd "$dir" && "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1) || true
    rm -rf "$dir"
}
trap stop EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$dir"
"${as[@]}" "$bin/initdb" -D "$dir/data" -U sag -A trust >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir" start >/dev/null
cd - >/dev/null
export SAG_CLOUD_TEST_KEY=$dir/key
SAG_CLOUD_TEST_DB="postgres://sag@127.0.0.1:$port/postgres" "$@"
