#!/usr/bin/env bash
# The official SDKs against sag-cloud. Skips with a reason if they cannot be installed.
#   tests/sdk/run.sh [PYTEST_ARGUMENT…]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=${SAG_SDK_VENV:-$target/sdk-venv}

if ! "$venv/bin/python" -c 'import alibabacloud_smartag20180313, aliyunsdksmartag, h2, httpx, hypothesis, pytest' 2>/dev/null; then
    mkdir -p "$target"
    if ! python3 -m venv "$venv" || ! "$venv/bin/pip" install -q -r "$here/requirements.txt" >"$target/sdk-pip.log" 2>&1; then
        echo "SKIP: the SDKs cannot be installed (see $target/sdk-pip.log)"
        exit 0
    fi
fi
# The vendor's libraries for Node: what needs them is skipped without.
node=${SAG_SDK_NODE:-$target/sdk-node/node_modules}
if [[ ! -d $node/@alicloud ]]; then
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        echo "SKIP of the libraries for Node: node or npm is missing"
    else
        mkdir -p "$target/sdk-node"
        cp "$here/package.json" "$target/sdk-node/"
        npm install --prefix "$target/sdk-node" --no-audit --no-fund --ignore-scripts >"$target/sdk-npm.log" 2>&1 ||
            echo "SKIP of the libraries for Node: they cannot be installed (see $target/sdk-npm.log)"
    fi
fi
bin=${SAG_CLOUD_BIN:-}
if [[ -z $bin ]]; then
    (cd "$root" && cargo build -q --locked -p sag-cloud -p sag-agent)
    bin=$target/debug/sag-cloud
fi
cd "$here"
SAG_SDK_NODE=$node SAG_CLOUD_BIN=$bin exec "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
