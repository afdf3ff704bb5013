"""A virtual machine: qemu, what it boots, and commands in it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import queue
import shlex
import shutil
import socket
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import images
from .images import CACHE, HERE, ROOT, Kernel

if TYPE_CHECKING:
    from harness.net import Namespace

QEMU = "qemu-system-x86_64"
# Emulated, on a busy machine with two cores.
BOOT = 420.0
PROBE = 25.0

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100

PROGRAMS = {"sag-vcpe": "SAG_VCPE_BIN", "sagctl": "SAGCTL_BIN", "sag-agent": "SAG_AGENT_BIN", "sag-cloud": "SAG_CLOUD_BIN"}


class GuestError(AssertionError):
    """A guest does not do what it should; the text has what it said."""


@dataclass(frozen=True)
class Nic:
    """A network card of a guest, and the device of a namespace that is at the other end of its wire."""

    ns: Namespace
    tap: str
    mac: str
    model: str = "virtio-net-pci"
    queues: int = 1  # pairs that the card has
    options: str = ""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Guest:
    """One guest; it runs from `start` to `stop`."""

    kernel: Kernel
    nics: Sequence[Nic]
    files: dict[str, bytes] = field(default_factory=dict)  # what the payload has beside the programs, by path
    enabled: Sequence[str] = ()  # units that are started at boot
    programs: bool = True  # whether ours are there; else packages bring them
    cpus: int = 2
    memory: int = 1536  # MiB

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sag-vm-"))
        self.console = self.folder / "console.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port: socket.socket | None = None
        self.answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.asked = 0
        self.lock = threading.Lock()
        self.hello = threading.Event()
        self.boot_seconds = 0.0
        self.accel = ""

    def start(self) -> Guest:
        begin = time.monotonic()
        self.accel = accelerator(self.kernel)
        payload = self.folder / "payload.tar"
        write_payload(payload, self.files, ["sag-bed.service", *self.enabled], self.programs)
        command = [
            *machine(self.accel, self.kernel, self.cpus, self.memory),
            "-append", "console=ttyS0 root=/dev/vda rw net.ifnames=0 panic=-1 quiet systemd.show_status=0",
            "-drive", f"file={images.root_image()},if=none,id=root,format=raw,snapshot=on",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"file={payload},if=none,id=payload,format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=payload",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=bed,path={self.folder}/bed.sock,server=on,wait=off",
            "-device", "virtserialport,chardev=bed,name=sag.bed",
            "-serial", f"file:{self.console}",
        ]  # fmt: skip
        fds: list[int] = []
        try:
            for number, nic in enumerate(self.nics):
                taps = open_tap(nic)
                fds += taps
                handles = f"fds={':'.join(map(str, taps))}" if len(taps) > 1 else f"fd={taps[0]}"
                command += ["-netdev", f"tap,id=net{number},{handles}"]
                device = f"{nic.model},netdev=net{number},mac={nic.mac},bus=pcie.0,addr={16 + number}"
                if len(taps) > 1:
                    device += f",mq=on,vectors={2 * len(taps) + 2}"
                command += ["-device", device + nic.options]
            # The snapshot of the root file system is written to where temporary files are.
            env = {**os.environ, "TMPDIR": str(self.folder)}
            log = open(self.folder / "qemu.log", "wb")
            self.process = subprocess.Popen(
                command, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
            )
        finally:
            for fd in fds:
                os.close(fd)
        self._connect(begin + BOOT)
        while not self.hello.wait(0.2):
            self._alive()
            if time.monotonic() > begin + BOOT:
                raise GuestError(f"{self.kernel.release} has not booted within {BOOT:.0f} s\n{self.tail()}")
        self.boot_seconds = time.monotonic() - begin
        return self

    def _alive(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            said = (self.folder / "qemu.log").read_text(errors="replace")
            raise GuestError(f"qemu has ended with {self.process.returncode}\n{said}\n{self.tail()}")

    def _connect(self, end: float) -> None:
        path = str(self.folder / "bed.sock")
        while True:
            self._alive()
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(path)
                break
            except OSError:
                port.close()
                if time.monotonic() > end:
                    raise GuestError("qemu does not open its socket") from None
                time.sleep(0.05)
        self.port = port
        threading.Thread(target=self._listen, args=[port.makefile("rb")], daemon=True).start()

    def _listen(self, lines: io.BufferedReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                answer = json.loads(line)
                if "hello" in answer:
                    self.hello.set()
                elif (waiting := self.answers.pop(answer["id"], None)) is not None:
                    waiting.put(answer)

    def run(self, shell: str | Sequence[object], check: bool = True, timeout: float = 120) -> Done:
        """A command of the guest's shell."""
        if not isinstance(shell, str):
            shell = shlex.join(map(str, shell))
        assert self.port is not None
        waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        with self.lock:
            self.asked += 1
            number = self.asked
            self.answers[number] = waiting
            message = {"id": number, "shell": shell, "timeout": timeout}
            self.port.sendall(json.dumps(message).encode() + b"\n")
        try:
            answer = waiting.get(timeout=timeout + 60)
        except queue.Empty:
            raise GuestError(f"{shell}: the guest does not answer\n{self.tail()}") from None
        if answer["late"]:
            raise GuestError(f"{shell}: not done within {timeout} s\n{answer['out']}{answer['err']}")
        if check and answer["code"] != 0:
            raise GuestError(f"{shell}: exit {answer['code']}\n{answer['out']}{answer['err']}")
        return Done(answer["code"], answer["out"], answer["err"])

    def out(self, shell: str | Sequence[object], **keys: Any) -> str:
        return self.run(shell, **keys).out

    def json(self, shell: str | Sequence[object], **keys: Any) -> Any:
        return json.loads(self.out(shell, **keys))

    def ctl(self, *args: object) -> Any:
        return self.json(["sagctl", "--json", *args])

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p {shlex.quote(os.path.dirname(path))} && printf %s {shlex.quote(text)} > {shlex.quote(path)}")

    def wait(self, shell: str, seconds: float = 120, every: float = 0.5) -> float:
        """Until a command succeeds; how long that took."""
        begin = time.monotonic()
        while True:
            done = self.run(shell, check=False)
            if done.code == 0:
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                raise GuestError(f"not within {seconds} s: {shell}\n{done.out}{done.err}")
            time.sleep(every)

    def unit(self, name: str) -> dict[str, str]:
        """What systemd knows of a unit."""
        shown = self.out(["systemctl", "show", name])
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def journal(self, unit: str, lines: int = 60) -> str:
        return self.out(["journalctl", "-u", unit, "-n", lines, "-o", "cat", "--no-pager"])

    def refusals(self) -> list[str]:
        """System calls that seccomp refused, as the kernel logged them (AUDIT_SECCOMP)."""
        return [line for line in self.out("dmesg").splitlines() if "type=1326" in line]

    def tail(self, lines: int = 30) -> str:
        if not self.console.exists():
            return "(no console)"
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        if self.port is not None:
            self.port.close()
            self.port = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if keep := os.environ.get("SAG_VM_LOGS"):
            Path(keep).mkdir(parents=True, exist_ok=True)
            if self.console.exists():
                shutil.copy(self.console, Path(keep) / f"console-{self.kernel.name}-{self.folder.name[7:]}.log")
        shutil.rmtree(self.folder, ignore_errors=True)


def machine(accel: str, kernel: Kernel, cpus: int, memory: int) -> list[object]:
    cpu = "host" if accel == "kvm" else "max,la57=off"
    how = "kvm" if accel == "kvm" else "tcg,thread=multi"
    return [
        QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-M", "q35", "-accel", how, "-cpu", cpu,
        "-smp", str(cpus), "-m", str(memory), "-kernel", str(kernel.image), "-initrd", str(kernel.initrd),
    ]  # fmt: skip


def accelerator(kernel: Kernel) -> str:
    """`kvm` where a kernel boots with it, else `tcg`. What was found is kept for this machine's kernel and the guest's."""
    images.need(QEMU)
    given = os.environ.get("SAG_VM_ACCEL")
    if given:
        return given
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    found = CACHE / f"accel-{os.uname().release}-{kernel.release}"
    if not found.exists():
        found.write_text("kvm" if probe(kernel) else "tcg")
    return found.read_text()


def probe(kernel: Kernel) -> bool:
    """Whether the first process comes up with hardware virtualization. There are machines where /dev/kvm opens and a guest
    hangs."""
    command = [*machine("kvm", kernel, 1, 512), "-append", "console=ttyS0 sag.probe panic=-1", "-serial", "stdio"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE)
    except subprocess.TimeoutExpired:
        return False
    return b"sag-probe: alive" in done.stdout


def open_tap(nic: Nic) -> list[int]:
    """The queues of a new tap device in a namespace. It is gone when the last of them is closed."""
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (IFF_MULTI_QUEUE if nic.queues > 1 else 0)
    fds = []
    with nic.ns.inside():
        for _ in range(nic.queues):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fds.append(fd)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", nic.tap.encode(), flags))
    nic.ns.ip(f"link set {nic.tap} up")
    return fds


def binary(name: str) -> Path:
    given = os.environ.get(PROGRAMS[name])
    target = images.TARGET
    candidates = [Path(given)] if given else [target / "release" / name, target / "debug" / name]
    for path in candidates:
        if path.exists():
            return path
    raise images.Unavailable(f"{name} is not built (cargo build --workspace --bins), or set {PROGRAMS[name]}")


def stripped(name: str) -> bytes:
    """A program without what debuggers want, which is most of it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / name
        images.call(["strip", "-o", out, binary(name)])
        return out.read_bytes()


def write_payload(path: Path, files: dict[str, bytes], enabled: Sequence[str], programs: bool) -> None:
    """Programs, units and what runs the commands of the tests, as the guest's files."""
    units = ROOT / "configs" / "systemd"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, data: bytes, mode: int = 0o644) -> None:
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode, info.mtime = len(data), mode, int(time.time())
            tar.addfile(info, io.BytesIO(data))

        for name in PROGRAMS if programs else ():
            add(f"usr/bin/{name}", stripped(name), 0o755)
        for unit in sorted(units.glob("*.service")) if programs else ():
            add(f"usr/lib/systemd/system/{unit.name}", unit.read_bytes())
        add("usr/lib/systemd/system/sag-bed.service", (HERE / "sag-bed.service").read_bytes())
        for name in ("agent.py", "hang.py"):
            add(f"opt/sag-bed/{name}", (HERE / name).read_bytes())
        for unit_name in enabled:
            link = tarfile.TarInfo(f"etc/systemd/system/multi-user.target.wants/{unit_name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"/usr/lib/systemd/system/{unit_name}"
            tar.addfile(link)
        for name, data in files.items():
            add(name, data)
