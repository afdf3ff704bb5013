#!/usr/bin/python3
"""Checks links within the repository: every file and every heading that Markdown points to exists.

All tracked Markdown files are read. With --book the finished book is checked, too: each href, src and anchor of its
pages. Pages of docs/ must be in docs/SUMMARY.md. Links to the Internet are not followed.

usage: scripts/check-links.py [--book FOLDER]
Each broken link is printed as file:line; the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import functools
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^\s*(```|~~~)")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s*\[[^\]]+\]:\s+<?(\S+?)>?\s*$")
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines outside of code blocks, with their numbers; code spans are blanked."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", lambda m: " " * len(m[0]), line)


def slug(heading: str) -> str:
    """The anchor that GitHub and mdBook give a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    kept = (c for c in text.strip().lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    found: dict[str, int] = {}
    names = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if FENCE.match(line):
            fenced = not fenced
        if fenced:
            continue
        names.update(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line))
        if heading := re.match(r"#{1,6}\s+(.*?)\s*#*$", line):
            name = slug(heading[1])
            times = found[name] = found.get(name, -1) + 1
            names.add(f"{name}-{times}" if times else name)
    return frozenset(names)


def tracked(pattern: str) -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", pattern]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()]


def check_markdown(page: Path) -> Iterator[str]:
    for number, line in prose(page.read_text(encoding="utf-8")):
        targets = [m[1] for m in LINK.finditer(line)]
        if reference := REFERENCE.match(line):
            targets.append(reference[1])
        for target in targets:
            if EXTERNAL.match(target) or target.startswith("//"):
                continue
            where = f"{page.relative_to(ROOT)}:{number}: {target}"
            name, _, anchor = unquote(target).partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists():
                yield f"{where}: no such file"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                yield f"{where}: no such heading"


def check_index() -> Iterator[str]:
    """Every page of docs/ is in the book, once."""
    summary = ROOT / "docs" / "SUMMARY.md"
    listed = [m[1] for _, line in prose(summary.read_text(encoding="utf-8")) for m in LINK.finditer(line)]
    for name in sorted({n for n in listed if listed.count(n) > 1}):
        yield f"docs/SUMMARY.md: {name}: listed more than once"
    for page in tracked("docs/*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        if name not in ("SUMMARY.md", *listed):
            yield f"docs/{name}: is not in docs/SUMMARY.md"


class Page(HTMLParser):
    """Links and anchors of a page of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[int, str]] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)
            elif value and name in ("href", "src") and tag != "base":
                self.links.append((self.getpos()[0], value))


@functools.cache
def html(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8", errors="replace"))


def check_html(page: Path, book: Path) -> Iterator[str]:
    for number, target in html(page).links:
        if EXTERNAL.match(target) or target.startswith("//"):
            continue
        where = f"{page.relative_to(book)}:{number}: {target}"
        name, _, anchor = unquote(target).partition("#")
        file = (page.parent / name.partition("?")[0]).resolve() if name else page
        if not file.exists():
            yield f"{where}: no such file"
        elif anchor and file.suffix == ".html" and anchor not in html(file).anchors:
            yield f"{where}: no such anchor"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--book", type=Path, metavar="FOLDER", help="also check the finished book")
    book: Path | None = parser.parse_args().book
    pages = tracked("*.md")
    broken = [problem for page in pages for problem in check_markdown(page)]
    broken += check_index()
    finished = 0
    if book is not None:
        book = book.resolve()
        # rustdoc checks its own links (-D warnings); print.html is all pages in one, with links of each.
        for page in sorted((book / "docs").rglob("*.html")):
            if page.name not in ("print.html", "404.html", "toc.html"):
                finished += 1
                broken += check_html(page, book)
    for problem in broken:
        print(problem)
    print(f"{len(pages)} Markdown files, {finished} pages of the book: {len(broken)} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
