"""Load between hosts of the lab: iperf3 and HTTP."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .net import CommandError
from .waiting import TIMEOUT

if TYPE_CHECKING:
    from .net import Namespace

_ports = itertools.count(5201)


@contextlib.contextmanager
def process(ns: Namespace, command: Sequence[Any], **kw: Any) -> Iterator[Any]:
    """A process in a namespace for the length of a block; ended whatever happens."""
    child = ns.popen(command, **kw)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()


def wait_listening(ns: Namespace, port: int | str, timeout: float = TIMEOUT, udp: bool = False) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if ns.out(["ss", "-Hlun" if udp else "-Hltn", f"sport = :{port}"]).strip():
            return
        time.sleep(0.02)
    raise CommandError(f"nothing listens on port {port} in {ns.name} after {timeout} s")


@contextlib.contextmanager
def iperf_server(ns: Namespace) -> Iterator[Any]:
    """Yields the port of an iperf3 server in `ns`."""
    port = next(_ports)
    with process(ns, ["iperf3", "-s", "-p", port], stdout=subprocess.DEVNULL):
        wait_listening(ns, port)
        yield port


def iperf(client: Namespace, server: Namespace, address: str, seconds: float = 2, udp_mbit: float | None = None, reverse: bool = False, streams: int = 1, options: Sequence[str] = ()) -> dict[str, Any]:
    """Runs iperf3 from `client` to `address` of `server`; the report's end as a dict.

    TCP: "mbit", "retransmits"; UDP: "mbit", "lost", "packets".
    """
    with iperf_server(server) as port:
        command = ["iperf3", "-c", address, "-p", port, "-t", seconds, "-P", streams, "-J", *options]
        if reverse:
            command.append("-R")
        if udp_mbit is not None:
            command += ["-u", "-b", f"{udp_mbit}M", "-l", 1400]
        output = client.run(command, check=False, timeout=seconds + 30).stdout
    report = json.loads(output)
    if "error" in report:
        raise CommandError(f"{' '.join(map(str, command))}: {report['error']}")
    end = report["end"]
    if udp_mbit is not None:
        total = end["sum"]
        return {"mbit": total["bits_per_second"] / 1e6, "lost": total["lost_packets"], "packets": total["packets"]}
    return {
        "mbit": end["sum_received"]["bits_per_second"] / 1e6,
        "retransmits": end["sum_sent"].get("retransmits", 0),
    }


@contextlib.contextmanager
def http_server(ns: Namespace, address: str, folder: Path) -> Iterator[str]:
    """Serves `folder` on port 8000 of `address`; yields the URL's beginning."""
    with process(
        ns,
        ["/usr/bin/python3", Path(__file__).with_name("httpd.py"), address, 8000, folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):
        wait_listening(ns, 8000)
        yield f"http://[{address}]:8000/" if ":" in address else f"http://{address}:8000/"
