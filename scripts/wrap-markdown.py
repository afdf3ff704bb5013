#!/usr/bin/python3
"""Wraps Markdown at 120 columns: paragraphs and list items that have a longer line are filled again.

Tables, headings, code and HTML stay as they are; so do words that cannot be broken.

usage: scripts/wrap-markdown.py [--check] [FILE…]     (without a file: all tracked Markdown)
With --check nothing is written; the exit code is 1 if a file would change.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120
FENCE = re.compile(r"\s*(```|~~~)")
BULLET = re.compile(r"(\s*)((?:[-*+]|\d+[.)])\s+(?:\[[ x]\]\s+)?)?(.*)$")
# What makes a line something else than the continuation of a paragraph.
BLOCK = re.compile(r"\s*(?:[-*+]\s|\d+[.)]\s|\||#|<|```|~~~|>|\[[^\]]+\]:)")


def words(text: str) -> list[str]:
    """Words; a code span is part of one."""
    found, word, code = [], "", False
    for char in text:
        if char == "`":
            code = not code
        if char == " " and not code:
            if word:
                found.append(word)
            word = ""
        else:
            word += char
    return [*found, word] if word else found


def fill(text: str, first: str, hang: str) -> list[str]:
    """Lines of at most WIDTH columns, `first` in front of the first and `hang` in front of the others."""
    lines, line, empty = [], first, True
    for word in words(text):
        if empty or len(line) + 1 + len(word) <= WIDTH:
            line += word if empty else f" {word}"
        else:
            lines.append(line)
            line = hang + word
        empty = False
    return [*lines, line]


def wrap(text: str) -> str:
    source, out, fenced, at = text.split("\n"), [], False, 0
    while at < len(source):
        line = source[at]
        indented = re.match(r"( {4,}|\t)", line) and not (out and BULLET.fullmatch(out[-1])[2])
        if FENCE.match(line):
            fenced = not fenced
        if fenced or FENCE.match(line) or not line.strip() or indented or re.match(r"\s*(\||#|<|>|\[[^\]]+\]:)", line):
            out.append(line)
            at += 1
            continue
        indent, bullet, rest = BULLET.fullmatch(line).groups(default="")
        hang = indent + " " * len(re.match(r"((?:[-*+]|\d+[.)])\s+)?", bullet)[0])
        end = at + 1
        while end < len(source) and source[end].strip() and not BLOCK.match(source[end]):
            end += 1
        block = source[at:end]
        if any(len(row) > WIDTH for row in block):
            filled = fill(" ".join([rest, *(row.strip() for row in block[1:])]), indent + bullet, hang)
            # No line may begin with what Markdown takes for a list, a heading or a quotation.
            if not any(BLOCK.match(row) for row in filled[1:]):
                block = filled
        out += block
        at = end
    return "\n".join(out)


def main() -> int:
    arguments = sys.argv[1:]
    check = "--check" in arguments
    files = [Path(a) for a in arguments if a != "--check"]
    if not files:
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        files = [ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()]
    changed = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        wrapped = wrap(text)
        if wrapped != text:
            changed += 1
            print(file)
            if not check:
                file.write_text(wrapped, encoding="utf-8")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
