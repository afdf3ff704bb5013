"""Namespaces of the lab: commands and sockets inside them, counters of their devices."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import echo

_CLONE_NEWNET = 0x40000000
_SIOCGIFHWADDR = 0x8927
_libc = ctypes.CDLL(None, use_errno=True)


class CommandError(AssertionError):
    """A command of the test bed failed; the text has the command and all that it printed."""


def run(argv: Sequence[Any], check: bool = True, timeout: float | None = 60, **kw: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command, output captured as text; failure raises with all output."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, **kw)
    if check and done.returncode != 0:
        raise CommandError(f"{' '.join(map(str, argv))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Namespace:
    """One network namespace, entered without a new mount namespace (the bpffs stays visible)."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path

    def argv(self, command: Sequence[Any]) -> list[str]:
        if isinstance(command, str):
            command = command.split()
        return ["nsenter", f"--net={self.path}", *map(str, command)]

    def run(self, command: Sequence[Any], **kw: Any) -> subprocess.CompletedProcess[str]:
        return run(self.argv(command), **kw)

    def out(self, command: Sequence[Any], **kw: Any) -> str:
        return self.run(command, **kw).stdout

    def popen(self, command: Sequence[Any], **kw: Any) -> subprocess.Popen[str]:
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.STDOUT)
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(self.argv(command), text=True, **kw)

    def ip(self, command: Sequence[Any], check: bool = True) -> Any:
        return self.run(["ip", *command.split()], check=check)

    def batch(self, lines: str) -> subprocess.CompletedProcess[str]:
        """Several `ip` commands by one process, in order, at once."""
        return self.run(["ip", "-batch", "-"], input=lines)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace for the length of the block: much cheaper than a process."""
        with open(self.path, "rb") as there, open("/proc/thread-self/ns/net", "rb") as home:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """A socket that lives in this namespace; it stays there when this thread has left."""
        with self.inside():
            return socket.socket(family, kind, proto)

    def read(self, name: str) -> str:
        """A file of /proc/net."""
        with self.inside(), open(f"/proc/thread-self/net/{name}", encoding="ascii") as file:
            return file.read()

    def mac(self, dev: str) -> str:
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("256s", dev.encode()))
        return answer[18:24].hex(":")

    def devices(self) -> dict[str, Any]:
        """Counters of every device: {name: {"rx_packets": …, "tx_dropped": …}}."""
        out = {}
        for link in json.loads(self.out(["ip", "-j", "-s", "link"])):
            stats = link.get("stats64", {})
            out[link["ifname"]] = {f"{way}_{k}": v for way in ("rx", "tx") for k, v in stats.get(way, {}).items()}
        return out

    def snmp(self) -> dict[str, Any]:
        """The kernel's protocol counters: {"Tcp.InCsumErrors": 0, "Icmp6InCsumErrors": 0, …}."""
        out = {}
        lines = self.read("snmp").splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            proto, names = names.split(":")
            for name, value in zip(names.split(), values.split(":")[1].split()):
                out[f"{proto}.{name}"] = int(value)
        for line in self.read("snmp6").splitlines():
            name, value = line.split()
            out[name] = int(value)
        return out

    def checksum_errors(self) -> dict[Any, Any]:
        return {k: v for k, v in self.snmp().items() if k.endswith("InCsumErrors")}

    def ping(self, dest: str, count: int = 5, interval: float = 0.02, wait: int = 2, options: Sequence[Any] = ()) -> int:
        """Answers received of `count` echo requests."""
        with self.inside():
            prepared = echo.prepare(dest, options)
        return echo.run(prepared, count, interval, wait)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        err = ctypes.get_errno()
        raise OSError(err, f"setns: {os.strerror(err)}")


def wire(one: Namespace, dev1: str, other: Namespace, dev2: str) -> None:
    """Joins two namespaces by a pair of devices that are up."""
    names = [Path(ns.path).name for ns in (one, other)]
    run(["ip", "link", "add", dev1, "netns", names[0], "type", "veth", "peer", "name", dev2, "netns", names[1]])
    for ns, dev in ((one, dev1), (other, dev2)):
        ns.run(["ethtool", "-K", dev, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "on"])
    # An end takes XDP's frames if the other one has GRO on when it is set up.
    for ns, dev in ((one, dev1), (other, dev2)):
        ns.ip(f"link set {dev} up")
