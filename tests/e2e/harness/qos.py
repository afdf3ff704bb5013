"""CARs in the tests: configurations with them, TCP that fills them, and what arrives."""

from __future__ import annotations

import bisect
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .config import lab_config
from .lab import Addresses as A
from .traffic import process, wait_listening

if TYPE_CHECKING:
    from .lab import Gateway, Lab
    from .net import Namespace


def car(name: str, priority: Any, cir: float, pir: float) -> str:
    return (
        f'[[qos.car]]\nid = "{name}"\npriority = {priority}\nlimit_type = "Absolute"\n'
        f"min_bandwidth_abs = {cir}\nmax_bandwidth_abs = {pir}\n"
    )


def percent(name: str, priority: Any, cir: float, pir: float, source: str) -> str:
    return (
        f'[[qos.car]]\nid = "{name}"\npriority = {priority}\nlimit_type = "Percent"\npercent_source_type = "{source}"\n'
        f"min_bandwidth_percent = {cir}\nmax_bandwidth_percent = {pir}\n"
    )


def policy(priority: Any, port: Any, protocol: str = "udp", extra: Sequence[str] = "", last: int | None = None) -> str:
    return (
        f'[[qos.policy]]\npriority = {priority}\nsource_cidr = "192.0.2.0/24"\ndest_cidr = "0.0.0.0/0"\n'
        f'ip_protocol = "{protocol}"\nsource_port_range = "-1/-1"\ndest_port_range = "{port}/{last or port}"\n{extra}'
    )


def with_bandwidth(text: str, mbit: float) -> str:
    """The same with the WAN port limited."""
    return text.replace('role = "wan"\n', f'role = "wan"\nbandwidth = {mbit}\n')


def qos(*parts: Any) -> str:
    return '\n[[qos]]\nid = "qos-1"\n' + "".join(parts)


def peak_rates(by_port: dict[str, Any], protocol: str = "udp") -> str:
    """The lab's configuration with a CAR for each port, whose peak rate is so many Mbit/s."""
    rows = enumerate(by_port.items(), 1)
    return lab_config(extra=qos(*(car(f"c{mbit}", n, 0, mbit) + policy(n, port, protocol) for n, (port, mbit) in rows)))


def cars(gw: Gateway) -> dict[Any, Any]:
    return {c["id"]: c for c in gw.ctl("qos")["cars"]}


def measure_until(measure: Callable[[], Any], good: Callable[[Any], Any], tries: int = 5) -> Any:
    """The first measurement that is good, of a few: a busy machine delays senders and receivers now and then, and a
    sender that paused has its burst on top. An error of the gateway would be there every time."""
    for _ in range(tries):
        got = measure()
        if good(got):
            break
    return got


def about(got: float, want: float, share: float) -> bool:
    return abs(got - want) <= want * share


class Taken:
    """IP bytes by destination port, counted by nftables at a host. What generic receive offload put together
    is counted as the packets it was: full ones of `mtu` bytes, with headers of `headers` bytes each."""

    def __init__(self, ns: Namespace, protocol: str, ports: Sequence[int], mtu: int, headers: int) -> None:
        self.ns, self.ports, self.mtu, self.headers = ns, ports, mtu, headers
        counters = "".join(f"counter p{port} {{ }}\n" for port in ports)
        rules = "".join(f"{protocol} dport {port} counter name p{port}\n" for port in ports)
        ns.run(["nft", "-f", "-"], input=(
            f"table ip taken {{\n{counters}\nchain in {{\ntype filter hook input priority 0;\n{rules}}}\n}}\n"
        ))

    def bytes(self) -> tuple[float, dict[int, float]]:
        """(time, {port: IP bytes}). The time is as exact as the query is short, so a long one is repeated."""
        for _ in range(5):
            before = time.monotonic()
            output = self.ns.out(["nft", "-j", "list", "counters", "table", "ip", "taken"])
            after = time.monotonic()
            if after - before < 0.03:
                break
        listed, now, found = json.loads(output)["nftables"], (before + after) / 2, {}
        for counter in (entry["counter"] for entry in listed if "counter" in entry):
            payload = counter["bytes"] - self.headers * counter["packets"]
            found[int(counter["name"][1:])] = payload * self.mtu / (self.mtu - self.headers)
        return now, found

    def mbit(self, seconds: float) -> dict[Any, Any]:
        """{port: Mbit/s} of the seconds to come."""
        start, before = self.bytes()
        time.sleep(seconds)
        end, after = self.bytes()
        return {port: (after[port] - before[port]) * 8 / (end - start) / 1e6 for port in self.ports}

    def flowing(self, expected: Callable[[Any], Any], timeout: float = 20) -> None:
        """Returns when bytes have come for every port: so many for each."""
        end = time.monotonic() + timeout
        while any(self.bytes()[1][port] < size for port, size in expected.items()):
            assert time.monotonic() < end, f"not within {timeout} s: {expected}, but {self.bytes()[1]}"
            time.sleep(0.1)

    def close(self) -> None:
        self.ns.run(["nft", "delete", "table", "ip", "taken"])


@contextlib.contextmanager
def iperfs(lab: Lab, options: Sequence[str]) -> Any:
    """An iperf3 client in the LAN and its server at the Internet host for each port, with its own options."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as running:
        for port in options:
            running.enter_context(process(lab.inet, ["iperf3", "-s", "-p", port], **quiet))
        for port in options:
            wait_listening(lab.inet, port)
        for port, more in options.items():
            running.enter_context(process(lab.lan1, ["iperf3", "-c", A.INET[4], "-p", port, "-t", 60, *more], **quiet))
        yield


class Received:
    """TCP at the receiver: a server on a port, and what came when, in bytes of payload."""

    # IP and TCP header with a time stamp, for each full segment.
    SEGMENT, HEADERS = 1448, 52

    def __init__(self, ns: Namespace, port: Any) -> None:
        self.marks = []
        self.over = False
        self.server = ns.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server.bind(("", port))
        self.server.listen()
        self.server.settimeout(10)
        self.thread = threading.Thread(target=self.take)
        self.thread.start()

    def take(self) -> None:
        total = 0
        with contextlib.suppress(OSError), self.server.accept()[0] as peer:
            peer.settimeout(0.2)
            while not self.over:
                with contextlib.suppress(TimeoutError):
                    data = peer.recv(1 << 18)
                    if not data:
                        break
                    total += len(data)
                    self.marks.append((time.time(), total))

    def mbit(self, since: float, until: float) -> float:
        """Mbit/s of IP that came between two moments."""
        times = [t for t, _ in self.marks]
        before, after = bisect.bisect_left(times, since), bisect.bisect_left(times, until)
        if after == 0:
            return 0.0
        payload = self.marks[after - 1][1] - (self.marks[before - 1][1] if before else 0)
        return payload * (1 + self.HEADERS / self.SEGMENT) * 8 / (until - since) / 1e6

    def close(self) -> None:
        self.over = True
        self.thread.join()
        self.server.close()


class Flood:
    """A TCP connection (CUBIC) that sends all the time."""

    def __init__(self, ns: Namespace, address: str, port: Any) -> None:
        self.sock = ns.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        self.sock.settimeout(5)
        self.sock.connect((address, port))
        self.sock.settimeout(0.2)
        self.over = False
        self.thread = threading.Thread(target=self.send)
        self.thread.start()

    def send(self) -> None:
        block = bytes(1 << 16)
        while not self.over:
            with contextlib.suppress(TimeoutError):
                self.sock.send(block)

    def close(self) -> None:
        self.over = True
        self.thread.join()
        self.sock.close()
