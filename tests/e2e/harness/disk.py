"""Small file systems of their own, which tests fill up and make read-only."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .net import run


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes at this folder."""
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder])
    try:
        yield folder
    finally:
        run(["umount", "-l", folder], check=False)
        # A program that still runs writes where the disk was.
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path) -> Path:
    """Not a byte is left. Returns the file that has to go for room."""
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(b"x" * 4096)
    return filler


def remount(folder: Path, how: str) -> None:
    """`ro`, `rw`, or another option."""
    run(["mount", "-o", f"remount,{how}", folder])


@contextlib.contextmanager
def covered(folder: Path) -> Iterator[None]:
    """A read-only file system over the folder: what is opened anew is there."""
    run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder])
    try:
        yield
    finally:
        run(["umount", "-l", folder])
