#!/usr/bin/env bash
# Builds the book (docs/) and the documentation of the crates into target/book, and checks every link.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
usage: scripts/docs.sh [--install] [--no-rust]
  --install   install mdBook where it is missing (cargo install, into target/tools; a few minutes)
  --no-rust   leave out the documentation of the crates (cargo doc)
Then open target/book/index.html.
USAGE
}

INSTALL=0 RUST=1
for arg in "$@"; do
    case $arg in
    --install) INSTALL=1 ;;
    --no-rust) RUST=0 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

cd "$SAG_ROOT"
TARGET=${CARGO_TARGET_DIR:-$SAG_ROOT/target}
BOOK=$TARGET/book
TOOLS=$TARGET/tools
PATH="$TOOLS/bin:$PATH"
find_cargo || die "no cargo (scripts/setup.sh installs Rust)"

if ! command -v mdbook >/dev/null; then
    # Of its features only the search of the finished book: the rest is a web server, which needs three times as many crates.
    install=(cargo install mdbook --locked --no-default-features --features search --root "$TOOLS")
    [[ $INSTALL -eq 1 ]] ||
        die "mdBook is not installed: scripts/docs.sh --install, or by hand: ${install[*]}"
    step "install mdBook (${install[*]})"
    run_logged "$TARGET/mdbook-install.log" "${install[@]}" ||
        { tail -n 20 "$TARGET/mdbook-install.log" && die "mdBook could not be installed"; }
fi

rm -rf "$BOOK"
mkdir -p "$BOOK"
step "book"
mdbook build --dest-dir "$BOOK/docs" >"$TARGET/mdbook.log" 2>&1 || { cat "$TARGET/mdbook.log" && die "mdbook failed"; }
# mdBook makes .html of every link to .md, also of those that lead out of the book.
sed -i -E 's#href="\.\./(README|CONTRIBUTING|CHANGELOG)\.html"#href="../\1.md"#g' "$BOOK"/docs/*.html
sed -i -E 's#href="\.\./\.\./(README|CONTRIBUTING|CHANGELOG)\.html"#href="../../\1.md"#g' "$BOOK"/docs/*/*.html
# What pages of the book link to beside docs/.
cp -a README.md CONTRIBUTING.md CHANGELOG.md LICENSE configs "$BOOK/"
if [[ $RUST -eq 1 ]]; then
    step "documentation of the crates (cargo doc)"
    run_logged "$TARGET/cargo-doc.log" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked ||
        { tail -n 40 "$TARGET/cargo-doc.log" && die "cargo doc failed"; }
    cp -a "$TARGET/doc" "$BOOK/rust"
fi
cat >"$BOOK/index.html" <<'HTML'
<!DOCTYPE html>
<meta charset="utf-8">
<title>sag-vcpe</title>
<meta http-equiv="refresh" content="0; url=docs/index.html">
<p><a href="docs/index.html">The book</a> · <a href="rust/sag_pipeline/index.html">The crates</a></p>
HTML
[[ $RUST -eq 1 ]] || sed -i 's| · <a href="rust.*</a>||' "$BOOK/index.html"

step "links"
/usr/bin/python3 scripts/check-links.py --book "$BOOK"
step "done: $BOOK/index.html"
