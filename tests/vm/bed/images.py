"""What guests boot from: Debian's and Ubuntu's kernels, a small Debian, and the first file system in memory.

Everything comes by apt from the distributions' archives, checked by their keys, and stays in target/vm. A root file
system is read-only for guests: each writes into a file of its own that is gone with it.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CACHE = TARGET / "vm"

DEBIAN = os.environ.get("SAG_VM_DEBIAN", "http://deb.debian.org/debian")
UBUNTU = os.environ.get("SAG_VM_UBUNTU", "http://archive.ubuntu.com/ubuntu")
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UBUNTU_KEYS = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")

# What is in a guest beside the essential packages.
PACKAGES = (
    "systemd", "systemd-sysv", "udev", "dbus", "kmod", "busybox-static",
    "python3", "procps", "iproute2", "iputils-ping", "ethtool", "bpftool", "ppp", "pppoe", "tcpdump",
)  # fmt: skip
# Modules that the tests use; those that these need come with them.
MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "ext4", "crc32c_generic", "crc32c_intel",
    "autofs4", "binfmt_misc", "e1000e", "vmxnet3", "veth", "8021q", "bonding", "bridge", "macvlan", "vrf", "tun",
    "ppp_generic", "pppoe", "ppp_async", "sch_ingress", "cls_matchall", "act_vlan", "act_mirred",
)  # fmt: skip


class Unavailable(Exception):
    """Something that a guest needs cannot be had here; the text says what, and the remedy."""


@dataclass(frozen=True)
class Release:
    """Where a kernel comes from."""

    archive: str
    suite: str
    keys: Path
    meta: str  # the package that depends on the newest one


# By the version that people call them by.
KERNELS = {
    "5.10": Release(DEBIAN, "bullseye", DEBIAN_KEYS, "linux-image-amd64"),
    "5.15": Release(UBUNTU, "jammy-updates", UBUNTU_KEYS, "linux-image-generic"),
    "6.1": Release(DEBIAN, "bookworm", DEBIAN_KEYS, "linux-image-amd64"),
    "6.12": Release(DEBIAN, "trixie", DEBIAN_KEYS, "linux-image-amd64"),
}
# What the gateway supports (bpf/src/preflight.rs).
OLDEST = (5, 15)


def need(*programs: str) -> None:
    for name in programs:
        if shutil.which(name) is None:
            raise Unavailable(f"{name} is not installed (scripts/setup.sh --vm installs it)")


def call(argv: Iterable[object], **keys: object) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, **keys)
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Apt:
    """apt with the package lists of one suite, apart from those of the machine."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.dir = CACHE / "apt" / release.suite
        self.debs = self.dir / "debs"
        keys = keyring(release.keys)
        if not (self.dir / "ready").exists():
            for sub in ("lists/partial", "archives/partial", "debs"):
                (self.dir / sub).mkdir(parents=True, exist_ok=True)
            line = f"deb [arch=amd64 signed-by={keys}] {release.archive} {release.suite} main\n"
            (self.dir / "sources.list").write_text(line)
            settings = {
                "Dir::Etc::sourcelist": self.dir / "sources.list",
                "Dir::Etc::sourceparts": "/dev/null",
                "Dir::State::lists": self.dir / "lists",
                "Dir::Cache::archives": self.dir / "archives",
                "Dir::Cache::pkgcache": "",
                "Dir::Cache::srcpkgcache": "",
                "Acquire::Languages": "none",
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
                # The lists and packages are in a directory of ours, which that user may not be able to reach.
                "APT::Sandbox::User": "root",
                # The machine's own cleaning and notices are not for these lists.
                "DPkg::Post-Invoke": "",
            }
            text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
            (self.dir / "apt.conf").write_text(text + "#clear APT::Update::Post-Invoke-Success;\n")
            call(["apt-get", "update"], env=self.env, timeout=300)
            (self.dir / "ready").touch()

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "APT_CONFIG": str(self.dir / "apt.conf"), "LC_ALL": "C"}

    def depends(self, package: str) -> list[str]:
        """Names of the packages that the newest version of one depends on."""
        shown = call(["apt-cache", "show", "--no-all-versions", package], env=self.env)
        line = re.search(r"^Depends: (.*)$", shown, re.M)
        return [part.split()[0] for part in line[1].split(",")] if line else []

    def download(self, package: str) -> Path:
        found = list(self.debs.glob(f"{package}_*.deb"))
        if not found:
            call(["apt-get", "download", package], env=self.env, cwd=self.debs, timeout=600)
            found = list(self.debs.glob(f"{package}_*.deb"))
        return found[0]


def keyring(path: Path) -> Path:
    """Ubuntu's keys, on a Debian that lacks them, are in a package of Debian's own."""
    if path.exists():
        return path
    ours = CACHE / "keyrings" / path.name
    if ours.exists():
        return ours
    if path != UBUNTU_KEYS or not DEBIAN_KEYS.exists():
        raise Unavailable(f"{path} is not there (apt-get install {path.stem.removesuffix('-archive-keyring')}-archive-keyring)")
    deb = Apt(Release(DEBIAN, "trixie", DEBIAN_KEYS, "")).download("ubuntu-keyring")
    ours.parent.mkdir(parents=True, exist_ok=True)
    unpacked = ours.with_suffix(".unpacked")
    unpacked.mkdir(exist_ok=True)
    call(["dpkg-deb", "-x", deb, unpacked])
    shutil.copy(unpacked / path.relative_to("/"), ours)
    shutil.rmtree(unpacked)
    return ours


# --- the root file system ----------------------------------------------------------------------


def root_suite() -> str:
    """The oldest Debian whose C library runs what was built on this machine."""
    have = tuple(int(n) for n in os.confstr("CS_GNU_LIBC_VERSION").split()[1].split("."))
    return "bookworm" if have <= (2, 36) else "trixie"


def root_tree() -> Path:
    """An unpacked Debian."""
    suite = root_suite()
    recipe = hashlib.sha256(" ".join((suite, DEBIAN, *PACKAGES)).encode()).hexdigest()[:12]
    tree = CACHE / f"root-{suite}-{recipe}"
    if not (tree / "etc").is_dir():
        need("mmdebstrap")
        temporary = tree.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        keys = keyring(DEBIAN_KEYS)
        call(
            ["mmdebstrap", "--variant=minbase", "--format=directory", f"--keyring={keys}", "--aptopt=Acquire::Languages none",
             "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
             "--dpkgopt=path-exclude=/usr/share/locale/*", f"--include={','.join(PACKAGES)}", suite, temporary, DEBIAN],
            timeout=900,
        )  # fmt: skip
        temporary.rename(tree)
    return tree


def root_image() -> Path:
    """It as a file system in a file."""
    tree = root_tree()
    image = tree.with_suffix(".ext4")
    if not image.exists():
        need("mkfs.ext4")
        temporary = image.with_suffix(".new")
        call(["mkfs.ext4", "-q", "-F", "-L", "sag-root", "-m", "0", "-O", "^has_journal", "-d", tree, temporary, "1200M"])
        temporary.rename(image)
    return image


# --- kernels -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """What qemu starts."""

    name: str  # as in KERNELS
    release: str  # as `uname -r` prints it
    image: Path
    initrd: Path

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.name.split("."))


def kernel(name: str) -> Kernel:
    try:
        of = KERNELS[name]
    except KeyError:
        raise Unavailable(f"no kernel {name}; there are {', '.join(KERNELS)}") from None
    apt = Apt(of)
    package = next((d for d in apt.depends(of.meta) if re.match(r"linux-image-\d", d)), None)
    if package is None:
        raise Unavailable(f"{of.meta} of {of.suite} depends on no linux-image-…")
    release = package.removeprefix("linux-image-")
    init = (HERE / "init.sh").read_bytes()
    recipe = hashlib.sha256(b"%s %s" % (" ".join(MODULES).encode(), init)).hexdigest()[:12]
    folder = CACHE / "kernels" / release
    made = Kernel(name, release, folder / "vmlinuz", folder / f"initrd-{recipe}")
    if not made.initrd.exists():
        unpacked = folder / "unpacked"
        unpacked.mkdir(parents=True, exist_ok=True)
        packages = [package]
        if of.archive == UBUNTU:
            packages += [f"linux-modules-{release}", f"linux-modules-extra-{release}"]
        for each in packages:
            call(["dpkg-deb", "-x", apt.download(each), unpacked])
        shutil.copy(unpacked / "boot" / f"vmlinuz-{release}", made.image)
        make_initrd(made, unpacked)
        shutil.rmtree(unpacked)
    return made


def make_initrd(of: Kernel, unpacked: Path) -> None:
    """busybox, the modules and a script that hands over to systemd."""
    tree = root_tree()
    # The tools of kmod are the guest's, so that this machine needs none.
    inside = tree / "tmp" / "modules"
    shutil.rmtree(inside, ignore_errors=True)
    where = next(p for p in (unpacked / "usr/lib/modules", unpacked / "lib/modules") if p.is_dir())
    shutil.copytree(where, inside / "lib" / "modules", symlinks=True)
    try:
        call(["chroot", tree, "/sbin/depmod", "-b", "/tmp/modules", of.release])
        files: dict[str, Path] = {}
        for name in MODULES:
            shown = subprocess.run(
                ["chroot", tree, "/sbin/modprobe", "-d", "/tmp/modules", "-S", of.release, "--show-depends", name],
                capture_output=True, text=True,
            )  # fmt: skip
            # A module that is not there is built in, or this kernel does not have it.
            for path in re.findall(r"^insmod (\S+)", shown.stdout, re.M):
                files[path.removeprefix("/tmp/modules")] = tree / path.lstrip("/")
        chosen = CACHE / "kernels" / of.release / "chosen"
        shutil.rmtree(chosen, ignore_errors=True)
        for path, source in files.items():
            to = chosen / re.sub(r"\.(xz|zst)$", "", path.lstrip("/"))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(plain(source))
        for each in inside.glob(f"lib/modules/{of.release}/modules.*"):
            if each.name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
                shutil.copy(each, chosen / "lib" / "modules" / of.release / each.name)
        shutil.rmtree(inside)
        shutil.copytree(chosen, inside)
        call(["chroot", tree, "/sbin/depmod", "-b", "/tmp/modules", of.release])
        shutil.rmtree(chosen)
        shutil.copytree(inside, chosen)
    finally:
        shutil.rmtree(inside, ignore_errors=True)
    (chosen / "bin").mkdir()
    shutil.copy(tree / "bin" / "busybox", chosen / "bin" / "busybox")
    shutil.copy(HERE / "init.sh", chosen / "init")
    (chosen / "init").chmod(0o755)
    for name in ("dev", "proc", "sys", "root"):
        (chosen / name).mkdir()
    temporary = of.initrd.with_suffix(".new")
    with temporary.open("wb") as out:
        out.writelines(newc(chosen))
    temporary.rename(of.initrd)
    shutil.rmtree(chosen)


def plain(module: Path) -> bytes:
    if module.suffix == ".xz":
        return lzma.decompress(module.read_bytes())
    if module.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", module], check=True, capture_output=True).stdout
    return module.read_bytes()


def newc(tree: Path) -> Iterator[bytes]:
    """An archive of a tree in the format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst."""

    def entry(number: int, name: str, mode: int, data: bytes) -> bytes:
        words = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % w for w in words) + name.encode() + b"\0"
        return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)

    for number, path in enumerate(sorted(tree.rglob("*")), 1):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        yield entry(number, str(path.relative_to(tree)), status.st_mode, data)
    yield entry(0, "TRAILER!!!", 0, b"")
