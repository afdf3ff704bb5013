#!/usr/bin/env python3
"""Finds cycles between the top-level modules of each crate of the workspace.

A crate's top-level modules are those that its root (`src/lib.rs`, `src/main.rs`) declares: the files and
folders directly under `src/`. Module `a` depends on `b` where code of `a`, at any depth, names a path into `b`:
`crate::b::x`, `super::b::x`, a `use` of these with groups, or an item that the root re-exports from `b`. An item
that the root itself defines belongs to the root, which is a node of its own (`lib` or `main`); its `mod` and `use`
lines are no dependencies, the rest of its code is.

Test code does not count: whatever is under `#[cfg(test)]`, and files named `tests.rs`.

For each set of modules that depend on each other in a circle the edges are printed with the places that make them.
The exit code is 1 if there is any such set, 2 if the workspace cannot be read.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Places that are printed for one edge, unless all are requested.
PLACES_SHOWN = 5


@dataclass(frozen=True)
class Token:
    """A word or a punctuation mark of Rust source, and the line it is on (from 1)."""

    text: str
    line: int


@dataclass(frozen=True)
class Place:
    """Where a dependency is written."""

    file: Path
    line: int
    path: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.path}"


@dataclass
class Module:
    """One module of the tree: its path from the crate's root and the tokens of its own code."""

    path: tuple[str, ...]
    file: Path
    tokens: list[Token]


@dataclass
class Crate:
    """What is read of a crate: its root's name and modules, and what the root re-exports."""

    name: str
    root: str
    top: set[str] = field(default_factory=set)
    modules: list[Module] = field(default_factory=list)
    # Names in the root -> the top-level module that they come from.
    exports: dict[str, str] = field(default_factory=dict)
    # Names that each top-level module defines, for re-exports by `*`.
    defined: dict[str, set[str]] = field(default_factory=dict)


Edges = dict[tuple[str, str], list[Place]]


# --- source to tokens --------------------------------------------------------------------------

TOKEN = re.compile(
    r"""
      (?P<skip> \s+ | //[^\n]* )
    | (?P<comment> /\* )
    | (?P<raw> (?:b|c)?r(?P<hashes>\#*)" )
    | (?P<string> (?:b|c)?"(?:[^"\\]|\\.)*" )
    | (?P<char> b?'(?:[^'\\]|\\(?:x[0-9A-Fa-f]{2}|u\{[^}]*\}|.))' )
    | (?P<lifetime> '[A-Za-z_]\w* )
    | (?P<word> (?:r\#)?[A-Za-z_]\w* )
    | (?P<number> \d[\w]* )
    | (?P<mark> :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenize(source: str) -> list[Token]:
    """The words and marks of `source`, without comments, literals and lifetimes (a literal leaves `""`)."""
    tokens: list[Token] = []
    at, line = 0, 1
    while at < len(source):
        match = TOKEN.match(source, at)
        assert match is not None  # the last alternative takes any character
        start, at = at, match.end()
        kind = match.lastgroup if match.lastgroup != "hashes" else "raw"
        if match["comment"]:
            at = end_of_comment(source, at)
        elif match["raw"] is not None:
            end = source.find('"' + match["hashes"], at)
            at = len(source) if end < 0 else end + 1 + len(match["hashes"])
        if kind in ("word", "mark"):
            tokens.append(Token(match[0].removeprefix("r#"), line))
        elif kind in ("raw", "string", "char", "number"):
            tokens.append(Token('""', line))
        line += source.count("\n", start, at)
    return tokens


def end_of_comment(source: str, at: int) -> int:
    """The end of a block comment whose `/*` ends at `at`; such comments nest."""
    depth = 1
    for match in re.finditer(r"/\*|\*/", source[at:]):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return at + match.end()
    return len(source)


CLOSING = {"(": ")", "[": "]", "{": "}"}


def skip_group(tokens: list[Token], at: int) -> int:
    """The index behind the group that opens at `at`."""
    depth = 0
    for i in range(at, len(tokens)):
        if tokens[i].text in CLOSING:
            depth += 1
        elif tokens[i].text in CLOSING.values():
            depth -= 1
            if depth == 0:
                return i + 1
    return len(tokens)


def skip_item(tokens: list[Token], at: int) -> int:
    """The index behind the item, statement or field that starts at `at`, its attributes included."""
    while at < len(tokens) and tokens[at].text == "#":
        at = skip_group(tokens, at + 1)
    while at < len(tokens):
        text = tokens[at].text
        if text in (";", ","):
            return at + 1
        if text in CLOSING.values():
            return at
        if text == "{":
            return skip_group(tokens, at)
        at = skip_group(tokens, at) if text in CLOSING else at + 1
    return at


def is_test_only(attribute: list[Token]) -> bool:
    """Whether an attribute, without `#[` and `]`, keeps its item out of builds that are not tests."""
    words = [t.text for t in attribute]
    if words[:2] != ["cfg", "("]:
        return False
    return words[2:3] == ["test"] or (words[2:4] == ["all", "("] and "test" in words and "not" not in words)


def without_tests(tokens: list[Token]) -> list[Token]:
    """`tokens` without the items that only tests are built with."""
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        if tokens[at].text == "#" and at + 1 < len(tokens) and tokens[at + 1].text == "[":
            end = skip_group(tokens, at + 1)
            at = skip_item(tokens, end) if is_test_only(tokens[at + 2 : end - 1]) else end
            continue
        kept.append(tokens[at])
        at += 1
    return kept


# --- modules -----------------------------------------------------------------------------------


def read_module(crate: Crate, path: tuple[str, ...], file: Path, folder: Path) -> None:
    """Adds the module in `file` and those below it, whose files are in `folder`."""
    add_module(crate, path, file, folder, without_tests(tokenize(file.read_text(encoding="utf-8"))))


def add_module(crate: Crate, path: tuple[str, ...], file: Path, folder: Path, tokens: list[Token]) -> None:
    own: list[Token] = []
    at = 0
    while at < len(tokens):
        declares = tokens[at].text == "mod" and at + 2 < len(tokens) and tokens[at + 2].text in (";", "{")
        if not declares:
            own.append(tokens[at])
            at += 1
            continue
        name = tokens[at + 1].text
        below = (*path, name)
        if not path:
            crate.top.add(name)
        if tokens[at + 2].text == "{":
            end = skip_group(tokens, at + 2)
            add_module(crate, below, file, folder / name, tokens[at + 3 : end - 1])
            at = end
            continue
        at += 3
        found = [f for f in (folder / f"{name}.rs", folder / name / "mod.rs") if f.is_file()]
        if found and found[0].name != "tests.rs":
            read_module(crate, below, found[0], folder / name)
    crate.modules.append(Module(path, file, own))


ITEM = {"struct", "enum", "union", "fn", "trait", "type", "const", "static", "macro_rules"}


def defined_names(tokens: list[Token]) -> Iterator[str]:
    """Names of the items at the top of a module."""
    at = 0
    while at + 1 < len(tokens):
        text = tokens[at].text
        if text in ITEM:
            name = tokens[at + 2] if text == "macro_rules" and at + 2 < len(tokens) else tokens[at + 1]
            yield name.text
        at = skip_group(tokens, at) if text == "{" else at + 1


# A path of a `use`, the name that it gets, and its line.
Import = tuple[tuple[str, ...], str, int]


def use_paths(tokens: list[Token], at: int, prefix: tuple[str, ...]) -> tuple[list[Import], int]:
    """The paths of the use tree at `at`, below `prefix`, and the index behind the tree."""
    path = prefix
    line = tokens[at].line if at < len(tokens) else 0
    while at < len(tokens):
        text = tokens[at].text
        if text == "{":
            found: list[Import] = []
            at += 1
            while at < len(tokens) and tokens[at].text != "}":
                if tokens[at].text == ",":
                    at += 1
                    continue
                inner, end = use_paths(tokens, at, path)
                found += inner
                at = max(end, at + 1)
            return found, at + 1
        if text == "::":
            at += 1
        elif text == "as":
            return [(path, tokens[at + 1].text, line)], at + 2
        elif text == "*" or re.fullmatch(r"\w+", text):
            line = tokens[at].line
            path = (*path, text)
            at += 1
        else:
            break
    name = path[-1] if path else ""
    if name == "self" and len(path) > 1:
        path, name = path[:-1], path[-2]
    return [(path, name, line)], at


def paths_of(module: Module) -> Iterator[tuple[tuple[str, ...], int, bool]]:
    """Every path of a module's code as (path, line, whether it is of a `use`)."""
    tokens = module.tokens
    at = 0
    while at < len(tokens):
        text = tokens[at].text
        if text == "use":
            found, at = use_paths(tokens, at + 1, ())
            yield from ((path, line, True) for path, _, line in found)
            continue
        starts = re.fullmatch(r"[A-Za-z_]\w*", text) and at + 1 < len(tokens) and tokens[at + 1].text == "::"
        if not starts:
            at += 1
            continue
        path, line = [text], tokens[at].line
        at += 1
        while at + 1 < len(tokens) and tokens[at].text == "::" and re.fullmatch(r"\w+", tokens[at + 1].text):
            path.append(tokens[at + 1].text)
            at += 2
        at += tokens[at].text == "::" if at < len(tokens) else 0
        yield tuple(path), line, False


def read_exports(crate: Crate) -> None:
    """Finds out which top-level module the names of the root come from."""
    for module in crate.modules:
        if len(module.path) == 1:
            crate.defined.setdefault(module.path[0], set()).update(defined_names(module.tokens))
    globs: list[str] = []
    for module in crate.modules:
        for at, token in enumerate(module.tokens):
            if token.text == "macro_rules" and module.path and at + 2 < len(module.tokens):
                crate.exports.setdefault(module.tokens[at + 2].text, module.path[0])
        if module.path:
            continue
        at = 0
        while at < len(module.tokens):
            if module.tokens[at].text != "use":
                at += 1
                continue
            found, at = use_paths(module.tokens, at + 1, ())
            for path, name, _ in found:
                path = path[1:] if path[0] in ("self", "crate") else path
                if path and path[0] in crate.top:
                    if name == "*":
                        globs.append(path[0])
                    else:
                        crate.exports[name] = path[0]
    for top in globs:
        for name in crate.defined.get(top, set()):
            crate.exports.setdefault(name, top)


def target(crate: Crate, module: Module, path: tuple[str, ...]) -> str | None:
    """The top-level module, or the root, that a path leads to; `None` if it stays where it is or leaves the crate."""
    base = list(module.path)
    rest = list(path)
    if rest[0] == "crate" or (rest[0] == crate.name.replace("-", "_") and rest[0] not in crate.top):
        base, rest = [], rest[1:]
    elif rest[0] in ("self", "super"):
        while rest and rest[0] in ("self", "super"):
            if rest.pop(0) == "super":
                base = base[:-1]
    elif base:
        return None
    if base:
        return base[0]
    if not rest:
        return None
    if rest[0] in crate.top:
        return rest[0]
    absolute = path[0] in ("crate", "self", "super")
    return crate.exports.get(rest[0], crate.root if absolute and rest[0] != "self" else None)


def read_crate(name: str, folder: Path) -> list[Crate]:
    """The library and the program of a package, as far as it has them."""
    source = folder / "src"
    crates: list[Crate] = []
    for root in ("lib", "main"):
        file = source / f"{root}.rs"
        if file.is_file():
            crate = Crate(name, root)
            read_module(crate, (), file, source)
            read_exports(crate)
            crates.append(crate)
    return crates


def edges_of(crate: Crate) -> Edges:
    """The dependencies between top-level modules, with the places that make them."""
    edges: Edges = {}
    for module in crate.modules:
        source = module.path[0] if module.path else crate.root
        for path, line, is_use in paths_of(module):
            if not path or (is_use and not module.path):
                continue
            to = target(crate, module, path)
            if to is not None and to != source:
                edges.setdefault((source, to), []).append(Place(module.file, line, "::".join(path)))
    return edges


# --- cycles ------------------------------------------------------------------------------------


def components(edges: Edges) -> list[list[str]]:
    """The strongly connected components of more than one node, each sorted (Tarjan's algorithm)."""
    following: dict[str, list[str]] = {}
    for a, b in sorted(edges):
        following.setdefault(a, []).append(b)
        following.setdefault(b, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in following[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1:
                found.append(component)

    for node in following:
        if node not in index:
            visit(node)
    return sorted(found)


def packages(workspace: Path) -> list[tuple[str, Path]]:
    """Name and folder of each member of the workspace."""
    members = tomllib.loads((workspace / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["members"]
    folders = [folder for member in members for folder in sorted(workspace.glob(member))]
    found = []
    for folder in folders:
        manifest = folder / "Cargo.toml"
        if manifest.is_file():
            found.append((tomllib.loads(manifest.read_text(encoding="utf-8"))["package"]["name"], folder))
    return found


def report(crate: Crate, edges: Edges, component: list[str], workspace: Path, shown: int) -> None:
    """Prints one cycle."""
    print(f"{crate.name} ({crate.root}): {len(component)} modules depend on each other: {', '.join(component)}")
    for (a, b), places in sorted(edges.items()):
        if a in component and b in component:
            print(f"  {a} -> {b}")
            for place in places[:shown]:
                print(f"      {Place(place.file.relative_to(workspace), place.line, place.path)}")
            if len(places) > shown:
                print(f"      and {len(places) - shown} more")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Finds cycles between the top-level modules of each crate.")
    add = parser.add_argument
    add("crates", nargs="*", metavar="CRATE", help="look at these packages only")
    add("--allow", action="append", default=[], metavar="CRATE", help="print this package's cycles without failing")
    add("--all", action="store_true", help=f"print every place of an edge, not the first {PLACES_SHOWN}")
    add("--graph", action="store_true", help="print what every module depends on, cycle or not")
    add("--workspace", type=Path, default=Path(__file__).resolve().parent.parent, help="folder of the workspace")
    options = parser.parse_args(arguments)
    workspace: Path = options.workspace.resolve()
    try:
        members = packages(workspace)
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        print(f"{workspace}: cannot read the workspace: {error}", file=sys.stderr)
        return 2
    unknown = {*options.crates, *options.allow} - {name for name, _ in members}
    if unknown:
        print(f"no such package: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed, looked_at = False, 0
    for name, folder in members:
        if options.crates and name not in options.crates:
            continue
        for crate in read_crate(name, folder):
            edges = edges_of(crate)
            looked_at += 1
            if options.graph:
                for node in sorted({a for a, _ in edges}):
                    print(f"{crate.name}: {node} -> {', '.join(sorted(b for a, b in edges if a == node))}")
            for component in components(edges):
                report(crate, edges, component, workspace, sys.maxsize if options.all else PLACES_SHOWN)
                failed = failed or name not in options.allow
    if not failed:
        print(f"{looked_at} crates: no cycle between modules" + (" that is not allowed" if options.allow else ""))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
