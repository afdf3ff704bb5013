#!/usr/bin/env bash
# Debian packages of the gateway, of the cloud, and of both: target/packages/*.deb. The same programs give the same bytes.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# cargo-deb: it reads the programs, their libraries and units off the workspace, needs nothing but cargo and dpkg-dev, and
# writes the same package for the same files. nfpm would say all of that a second time, in a file of its own.
CARGO_DEB=3.8.0 CARGO_CYCLONEDX=0.5.9

usage() {
    cat <<USAGE
usage: scripts/package.sh [--profile PROFILE] [--no-build]
  --profile PROFILE   of the programs: dist (the default), release, or dev for a trial
  --no-build          with the programs that are there
Writes sag-vcpe_*.deb (gateway, sagctl, agent), sag-cloud_*.deb and sag-vcpe-all_*.deb (both) into target/packages, and their
SHA-256 sums. cargo-deb and cargo-cyclonedx are installed into target/tools if they are missing.
environment:
  SOURCE_DATE_EPOCH   the time stamp in the packages; default: that of the commit
USAGE
}

PROFILE=dist BUILD=1
while [[ $# -gt 0 ]]; do
    case $1 in
    --profile)
        [[ $# -gt 1 ]] || { usage >&2 && exit 2; }
        PROFILE=$2
        shift
        ;;
    --no-build) BUILD=0 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$SAG_ROOT"
find_cargo || die "no cargo (scripts/setup.sh installs Rust)"
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
[[ $TARGET == "$SAG_ROOT/target" ]] || die "CARGO_TARGET_DIR must be left at target: the lists of files name it"
PROGRAMS=$TARGET/$PROFILE
[[ $PROFILE != dev ]] || PROGRAMS=$TARGET/debug
OUT=$TARGET/packages STAGE=$TARGET/package
export PATH="$TARGET/tools/bin:$PATH"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

tool() { # NAME VERSION
    command -v "$1" >/dev/null || cargo install -q "$1" --version "$2" --locked --root "$TARGET/tools"
}

step "tools"
tool cargo-deb "$CARGO_DEB"
tool cargo-cyclonedx "$CARGO_CYCLONEDX"
command -v dpkg-shlibdeps >/dev/null || die "dpkg-shlibdeps is missing: apt-get install dpkg-dev"

if [[ $BUILD -eq 1 ]]; then
    step "programs ($PROFILE)"
    # No path of the machine that builds is part of a program.
    RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$SAG_ROOT=/usr/src/sag-vcpe --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo" \
        cargo build --locked --profile "$PROFILE" -p sag-dataplane -p sagctl -p sag-agent -p sag-cloud
fi

step "man pages, completions, bills of materials"
rm -rf "$STAGE" "$OUT"
mkdir -p "$STAGE" "$OUT"
for program in sag-vcpe sagctl sag-agent sag-cloud; do
    "$PROGRAMS/$program" manual --out "$STAGE/manual"
done
version=$(cargo metadata --format-version 1 --no-deps | python3 -c '
import json, sys
print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "sag-dataplane"))')
date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")
cat >"$STAGE/changelog" <<CHANGELOG
sag-vcpe ($version-1) unstable; urgency=medium

  * Upstream release; what has changed is in CHANGELOG.md.

 -- The sag-vcpe authors <maintainers@sag-vcpe.example>  $date
CHANGELOG
# The tool writes beside each Cargo.toml, with the folder's path.
on_exit "find . -name sag-bom.json -not -path './target/*' -delete"
cargo cyclonedx -q --format json --spec-version 1.5 --override-filename sag-bom
for program in dataplane:sag-vcpe sagctl:sagctl control-agent:sag-agent cloud:sag-cloud; do
    sed "s|file://$SAG_ROOT|file:///usr/src/sag-vcpe|g" "${program%:*}/sag-bom.json" >"$STAGE/${program#*:}.cdx.json"
done

step "packages"
package() { # ARGUMENT...
    cargo deb -q --no-build --profile "$PROFILE" --locked -o "$OUT" "$@"
}
package -p sag-dataplane
package -p sag-dataplane --variant all
package -p sag-cloud
(cd "$OUT" && sha256sum ./*.deb | tee SHA256SUMS && ls -l ./*.deb)
