"""A small machine: one processor, 512 MB, the default configuration; and how long a start takes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import stats
from .cgroup import Group
from .lab import Bare, Sag, in_ns, mac_of
from .measure import Side
from .rows import figures, samples, target
from .scenarios import compare
from .system import Failed

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab

MEMORY = 512 << 20
MB = 1e6
# An eighth of the memory is for flows unless configured; the rest of the gateway takes no more than that again.
LIMIT_MB = 128
IDLE = 0.5


class Default(Sag):
    """The configuration that a user begins with: ports, nothing else. In a control group if there is one."""

    def __init__(self, group: Group | None = None) -> None:
        super().__init__()
        self.group = group

    def config(self, **_: Any) -> str:
        d = self.dir
        ports = "".join(f'[[port]]\nname = "{n}"\ndevice = "{n}"\nrole = "{n}"\n' for n in ("lan", "wan"))
        return (
            f'[dataplane]\nstate_dir = "{d}/state"\npin_dir = "/sys/fs/bpf/{self.lab.bench.prefix}-{self.lab.name}"\n'
            f'control = "{d}/vcpe.sock"\nmetrics = ""\n{ports}'
        )

    def command(self) -> list[str]:
        command = ["nsenter", f"--net=/run/netns/{self.lab.gw}", str(self.lab.bench.vcpe), "run", "--config", str(self.dir / "vcpe.toml")]
        return self.group.command(*command) if self.group else ["taskset", "-c", str(self.lab.bench.other_core), *command]

    def precedence(self) -> None:
        """None: it has no other share of the processor than any program."""


def processor_time(pid: int) -> tuple[dict[str, int], dict[str, int]]:
    """Nanoseconds on a processor and voluntary sleeps, by thread."""
    spent, sleeps = {}, {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = f"{(task / 'comm').read_text(encoding='utf-8').strip()}/{task.name}"
        spent[name] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(encoding="utf-8"), re.M)
        sleeps[name] = int(found[1]) if found else 0
    return spent, sleeps


def idle(bench: Bench, pid: int, seconds: float) -> tuple[list[float], dict[str, list[Any]]]:
    """Percent of a processor in each second without traffic; by thread, percent and sleeps a second."""
    before, slept = processor_time(pid)
    shares, last = [], sum(before.values())
    start = mark = time.monotonic()
    while mark < start + seconds:
        time.sleep(1)
        now, spent = time.monotonic(), sum(processor_time(pid)[0].values())
        shares.append((spent - last) / (now - mark) / 1e7)
        mark, last = now, spent
    after, awake = processor_time(pid)
    took = mark - start
    threads = {n: [(after[n] - before.get(n, 0)) / took / 1e7, (awake[n] - slept.get(n, 0)) / took] for n in after}
    bench.progress(f"  idle: {sum(shares) / len(shares):.2f} % of a processor")
    return shares, threads


def smaps(pid: int) -> dict[str, float]:
    """MB of /proc/PID/smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return {key: int(value) * 1024 / MB for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def maps_of(pid: int) -> float:
    """MB that the kernel charges for the BPF maps whose descriptors the process holds."""
    seen = {}
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = dict(re.findall(r"^(\w+):\s*(\S+)", info.read_text(encoding="ascii"), re.M))
        if "map_id" in fields and "memlock" in fields:
            seen[fields["map_id"]] = int(fields["memlock"])
    return sum(seen.values()) / MB


def small_box(bench: Bench) -> None:
    """Memory, idle processor time, forwarding on one processor."""
    bench.step("a machine of one processor and 512 MB, default configuration")
    with bench.labs() as make:
        try:
            group = Group(bench, f"{bench.prefix}-small", bench.core, MEMORY)
        except Failed as error:
            bench.missing.append(("small box", str(error)))
            return
        lab = make("sb0", Default(group))
        pid = lab.forwarder.process.pid
        bare = make("sb1", Bare())
        # A worker sleeps longer when it has had no packet for five seconds.
        time.sleep(7)
        shares, threads = idle(bench, pid, 20 if bench.full else 10)
        rows = {"started, idle": footprint(group, pid)}
        compare(
            bench,
            "small-box",
            [Side("bare redirect", bare), Side("sag-vcpe, default", lab, renews=False)],
            bench.rounds(5, 15),
            about="Default configuration (route alone), source, gateway and its worker on one processor.",
        )
        rows["10,000 flows"] = footprint(group, pid)
        columns = ["all that is charged, MB", "of it page cache", "resident, MB", "of it anonymous", "BPF maps, MB"]
        figures(
            bench,
            "Memory of a small machine",
            "The whole of the control group: processes and what the kernel holds for them. Limit 512 MB; `sessions` follow the memory.",
            columns,
            rows,
        )
        figures(bench, "Idle", "Of a processor, without traffic.", ["%", "times a second awake"], threads)
        used = samples([cells[0] - cells[1] for cells in rows.values()])
        target(bench, f"1 processor, 512 MB, defaults: memory in all at most {LIMIT_MB} MB", used, LIMIT_MB, False, source="#21", unit="MB")
        target(bench, f"idle: under {IDLE} % of a processor", stats.summary(shares), IDLE, False, source="#21", unit="%")
        lab.forwarder.stop()


def footprint(group: Group, pid: int) -> list[float]:
    resident = smaps(pid)
    return [group.used() / MB, group.part("cache", "file") / MB, resident["Rss"], resident["Anonymous"], maps_of(pid)]


# Sends a datagram every millisecond, as a process in the LAN's namespace.
SEND = """
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
frame = bytes.fromhex(sys.argv[1])
while True:
    s.send(frame)
    time.sleep(0.001)
"""
# Says when the first of them arrives at the WAN's host.
RECEIVE = """
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
s.bind(("eth0", 0))
print("ready", flush=True)
while True:
    frame = s.recv(2048)
    if frame[36:38] == b"\\x27\\x0f":
        print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), flush=True)
        break
"""


def datagram(mac: str) -> str:
    """A frame to a remote address by the gateway: UDP from 10.0.1.1 to 198.51.100.1, port 9999; hexadecimal."""
    ip = bytes.fromhex("4500001e0000400040110000") + bytes([10, 0, 1, 1]) + bytes([198, 51, 100, 1])
    total = sum(int.from_bytes(ip[n : n + 2], "big") for n in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + ((total & 0xFFFF) + (total >> 16) ^ 0xFFFF).to_bytes(2, "big") + ip[12:]
    udp = bytes.fromhex("0400270f000a0000") + b"\0\0"
    return (bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020001020304" "0800") + ip + udp).ljust(60, b"\0").hex()


def first_packet_after(lab: Lab, action: Any) -> float:
    """Seconds from the beginning of an action until a packet comes through."""
    listen = subprocess.Popen(["nsenter", f"--net=/run/netns/{lab.wan}", sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE, text=True)
    send = None
    try:
        listen.stdout.readline()
        send = subprocess.Popen(["nsenter", f"--net=/run/netns/{lab.lan}", sys.executable, "-c", SEND, datagram(mac_of(lab.gw, "lan"))])
        time.sleep(0.3)
        if listen.poll() is not None:
            raise Failed("packets come through before the gateway is started")
        begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        action()
        line, _ = listen.communicate(timeout=20)
        return (int(line) - begun) / 1e9
    finally:
        for process in (send, listen):
            if process and process.poll() is None:
                process.kill()
                process.wait(10)


def start(bench: Bench) -> None:
    """From the start of the daemon to the first packet that it forwards."""
    bench.step("from start to the first packet")
    with bench.labs() as make:
        lab = make("st0", Default())
        in_ns(lab.gw, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        gateway = lab.forwarder
        found: dict[str, list[float]] = {"nothing loaded": [], "after kill -9": []}
        for n in range(bench.rounds(5, 15)):
            gateway.stop()
            found["nothing loaded"].append(first_packet_after(lab, gateway.spawn))
            # Established flows go on by XDP meanwhile: the flow of the datagrams is to be a new one.
            gateway.forget()
            gateway.end("kill")
            found["after kill -9"].append(first_packet_after(lab, gateway.spawn))
            bench.progress(f"round {n + 1}")
        for name, values in found.items():
            bench.progress(f"  {name}: {stats.summary(values)['median']:.3f} s")
        figures(bench, "From start to the first packet", "Seconds from the start of the process until a datagram, one a millisecond, comes through.", ["s"], {n: [stats.summary(v)] for n, v in found.items()})
        target(bench, "start to the first packet, nothing loaded", stats.summary(found["nothing loaded"]), 0.8, False, source="#21", unit="s")


__all__ = ["small_box", "start"]
