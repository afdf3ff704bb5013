"""By which line to the Internet what begins leaves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .lab import Addresses as A
from .wire import IP, UDP, Ether, Raw, mark_of, marked

if TYPE_CHECKING:
    from .lab import Lab


@contextlib.contextmanager
def second_line(lab: Lab) -> Iterator[None]:
    """The POP has a link to the Internet, which knows the gateway's address there."""
    lab.pop.ip("link add second type veth peer name second netns " + lab.prefix + "inet")
    try:
        lab.pop.batch(f"addr add 10.99.0.1/30 dev second\nlink set second up\nroute add {A.INET[4]}/32 via 10.99.0.2\n")
        lab.inet.batch("addr add 10.99.0.2/30 dev second\nlink set second up\nroute add 192.0.2.128/30 via 10.99.0.1\n")
        loose = ["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.second.rp_filter=0"]
        lab.pop.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", *loose])
        lab.inet.run(["sysctl", "-qw", *loose])
        yield
    finally:
        lab.pop.ip("link del second")


class Flows:
    """Datagrams of ever new flows, and the line by which each left."""

    def __init__(self, lab: Lab, wire: Any) -> None:
        self.lab, self.sender = lab, wire.sender(lab.lan1, "eth0")
        self.at = {"wan": wire.sniffer(lab.wan, "gw"), "express": wire.sniffer(lab.pop, "gw")}
        self.next = 20_000

    def lines(self, count: int) -> dict[str, int]:
        head = Ether(src=self.lab.lan1.mac("eth0"), dst=self.lab.gw.mac("lan-a")) / IP(src=A.LAN1[4], dst=A.INET[4])
        new = range(self.next, self.next + count)
        self.next += count
        for n in new:
            self.sender.send(bytes(head / UDP(sport=n, dport=9) / Raw(marked(n))))
            if n % 50 == 0:
                time.sleep(0.01)  # the flood guard is not the question
        seen = {}
        for name, sniffer in self.at.items():
            seen[name] = len({m for f in sniffer.drain(quiet=0.3) if (m := mark_of(f)) in new})
        return seen
