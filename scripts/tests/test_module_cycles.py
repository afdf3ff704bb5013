"""What `module-cycles.py` takes for a dependency between modules, and what not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    """The script as a module; its name is not one that `import` takes."""
    file = Path(__file__).resolve().parent.parent / "module-cycles.py"
    spec = importlib.util.spec_from_file_location("module_cycles", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["module_cycles"] = module
    spec.loader.exec_module(module)
    return module


cycles = load()


def workspace(folder: Path, files: dict[str, str]) -> Path:
    """A workspace of one package `x` with these files under `src/`."""
    (folder / "Cargo.toml").write_text('[workspace]\nmembers = ["x"]\n')
    (folder / "x").mkdir()
    (folder / "x" / "Cargo.toml").write_text('[package]\nname = "my-x"\n')
    for name, text in files.items():
        file = folder / "x" / "src" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def edges(folder: Path, files: dict[str, str]) -> dict[str, set[str]]:
    """Each module and what it depends on."""
    out: dict[str, set[str]] = {}
    for crate in cycles.read_crate("my-x", workspace(folder, files) / "x"):
        for a, b in cycles.edges_of(crate):
            out.setdefault(a, set()).add(b)
    return out


@pytest.mark.parametrize(
    "code",
    [
        "use crate::b::B;",
        "use crate::{b::B, b};",
        "use super::b;",
        "use super::{b::{self, B as C}};",
        "pub use crate::b::*;",
        "fn f() -> crate::b::B<'static> { todo() }",
        "fn f() { super::b::g::<u8>() }",
        "mod inner { fn f() { super::super::b::g() } }",
        "use crate::B;",
        "use crate::Renamed;",
        "fn f() { crate::shout!() }",
        "macro_rules! m { () => { $crate::b::B } }",
        "#[cfg(any(test, windows))] use crate::b::B;",
        "#[cfg(not(test))] use crate::b::B;",
        "const C: char = '\"'; use crate::b::B; const D: char = '\"';",
    ],
)
def test_dependency(tmp_path: Path, code: str) -> None:
    root = "mod a;\nmod b;\npub use b::*;\npub use self::b::B as Renamed;\n"
    files = {"lib.rs": root, "a.rs": code, "b.rs": "pub struct B; macro_rules! shout { () => {} }"}
    assert edges(tmp_path, files) == {"a": {"b"}}


@pytest.mark.parametrize(
    "code",
    [
        "// crate::b::B\n/* crate::b::B /* */ crate::b */\n/// [`crate::b::B`]\nfn f() {}",
        'const S: &str = "crate::b::B \\" crate::b";',
        'const S: &str = r#"crate::b::B " crate::b"#;',
        "#[cfg(test)] use crate::b::B;",
        "#[cfg(test)]\nmod tests { use crate::b::B; }",
        "#[cfg(all(test, unix))] #[allow(dead_code)] fn f() { crate::b::g() }",
        "struct S { #[cfg(test)] b: crate::b::B, c: u8 }",
        "mod inner { use super::b::B; } mod b {}",
        "mod tests;",
        "pub(in crate::a) fn f() { self::b::g() } mod b { pub fn g() {} }",
        "use std::b::B; use b::B;",
    ],
)
def test_no_dependency(tmp_path: Path, code: str) -> None:
    files = {"lib.rs": "mod a;\nmod b;\npub use b::B;\n", "a.rs": code, "b.rs": "pub struct B;"}
    files["a/tests.rs"] = "use crate::b::B;"
    assert edges(tmp_path, files) == {}


def test_code_of_the_root_counts_and_its_use_lines_do_not(tmp_path: Path) -> None:
    files = {
        "lib.rs": "mod a;\nmod b;\nuse a::A;\npub struct Of(A);\nimpl Of { fn f() { b::g() } }",
        "a/mod.rs": "mod deep;\npub struct A;",
        "a/deep.rs": "use crate::Of;\nuse super::A;",
        "b.rs": "",
    }
    assert edges(tmp_path, files) == {"lib": {"b"}, "a": {"lib"}}


def test_a_program_beside_a_library_is_a_crate_of_its_own(tmp_path: Path) -> None:
    main = "mod cli;\nfn main() { cli::run(my_x::a::f()) }"
    files = {"lib.rs": "pub mod a;", "a.rs": "", "main.rs": main, "cli.rs": ""}
    assert edges(tmp_path, files) == {"main": {"cli"}}


def test_components() -> None:
    graph = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "f"), ("f", "e"), ("d", "g")]
    assert cycles.components({edge: [] for edge in graph}) == [["a", "b", "c"], ["e", "f"]]


def test_report_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"lib.rs": "mod a;\nmod b;", "a.rs": "\nuse crate::b;", "b.rs": "fn f() {\n    crate::a::g();\n}"}
    folder = str(workspace(tmp_path, files))
    assert cycles.main(["--workspace", folder]) == 1
    out = capsys.readouterr().out
    assert "my-x (lib): 2 modules depend on each other: a, b" in out
    assert "x/src/a.rs:2  crate::b\n" in out and "x/src/b.rs:2  crate::a::g\n" in out
    assert cycles.main(["--workspace", folder, "--allow", "my-x"]) == 0
    assert cycles.main(["--workspace", folder, "--allow", "other"]) == 2
    assert cycles.main(["--workspace", str(tmp_path / "nowhere")]) == 2


def test_no_cycle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(workspace(tmp_path, {"lib.rs": "mod a;\nmod b;", "a.rs": "use crate::b;", "b.rs": ""}))
    assert cycles.main(["--workspace", folder, "my-x"]) == 0
    assert "no cycle" in capsys.readouterr().out
