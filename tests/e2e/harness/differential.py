"""Differential tests: two gateways get the same packets; what comes out of each, as text that can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .lab import Addresses as A
from .wire import ICMP, IP, TCP, UDP, Ether, Raw, checksums_ok

if TYPE_CHECKING:
    from .lab import Lab

WAN = A.GW_WAN[4]
# side: (namespace of the far end, its device, the gateway's device)
SIDES = {"lan": ("lan1", "eth0", "lan-a"), "wan": ("wan", "gw", "wan")}
PERMANENT = "neigh replace {} lladdr {} dev {} nud permanent"


class Subject:
    """One gateway under test, with inside and outside hosts played by the test. The gateway chooses outside ports; in
    packets to be sent and packets seen they are replaced by the inside port that they translate."""

    def __init__(self, lab: Lab, wire: Any, hosts: Sequence[str]) -> None:
        self.lab = lab
        lab.mute("lan1", "wan")
        self.senders, self.sniffers, self.heads = {}, {}, {}
        for side, (name, dev, gw_dev) in SIDES.items():
            ns = getattr(lab, name)
            self.senders[side] = wire.sender(ns, dev)
            self.sniffers[side] = wire.sniffer(ns, dev)
            self.heads[side] = Ether(src=ns.mac(dev), dst=lab.gw.mac(gw_dev))
        lines = [PERMANENT.format(host, lab.lan1.mac("eth0"), "lan-a") for host in hosts]
        lines.append(PERMANENT.format(A.WAN_ROUTER[4], lab.wan.mac("gw"), "wan"))
        lab.gw.batch("\n".join(lines) + "\n")
        self.outside = {}

    def port(self, inside: tuple[str, int]) -> int:
        """The outside port of (host, port); the same number as long as none was assigned."""
        return self.outside.get(inside, inside[1])

    def send(self, side: str, packets: Sequence[Any]) -> None:
        self.sent = packets[0][IP]
        for packet in packets:
            self.senders[side].send(self.heads[side] / packet)

    def received(self) -> list[Any]:
        """Packets that came out since the last call, a line each."""
        out = []
        for side, sniffer in self.sniffers.items():
            while (got := sniffer.raw(0)) is not None:
                packet = Ether(got[1])
                if IP in packet:
                    self._learn(side, packet[IP])
                    out.append(f"{side}: {self._describe(packet[IP])}{'' if checksums_ok(got[1]) else ' WRONG CHECKSUM'}")
        return out

    def _learn(self, side: str, ip: Any) -> None:
        sent = self.sent
        if side == "wan" and ip.src == WAN and (ip.dst, ip.proto) == (sent.dst, sent.proto) and sent.src != WAN:
            for layer, field in ((TCP, "sport"), (UDP, "sport"), (ICMP, "id")):
                if layer in ip and layer in sent and ip.frag == 0:
                    self.outside[(sent.src, getattr(sent[layer], field))] = getattr(ip[layer], field)

    def _end(self, address: str, port: int) -> str:
        if address == WAN:
            for (host, inside), outside in self.outside.items():
                if outside == port:
                    return f"{address}:{inside}{'' if inside == port else f' of {host} renumbered'}"
        return f"{address}:{port}"

    def _describe(self, ip: Any, quoted: bool = False) -> str:
        """A packet as text, outside ports by the inside ones."""
        # Lengths of quotes are what the sender of the error wrote there.
        size = "" if quoted else f" length {ip.len}"
        text = "" if quoted else f"ttl {ip.ttl} "
        if ip.frag or ip.flags.MF:
            return f"{text}{ip.src} > {ip.dst} fragment of {ip.proto} at {ip.frag * 8}{size} {ip.flags}"
        l4 = ip.payload
        if ip.proto in (6, 17):
            rest = f"udp length {l4.len}" if ip.proto == 17 else f"tcp seq {l4.seq}"
            if quoted:
                rest += f" checksums {ip.chksum:04x} {l4.chksum:04x}"
            elif ip.proto == 6:
                rest += f" ack {l4.ack} flags {l4.flags}"
            return f"{text}{self._end(ip.src, l4.sport)} > {self._end(ip.dst, l4.dport)} {rest}{size}"
        if ip.proto == 1 and l4.type in (0, 8):
            ends = [self._end(address, l4.id) if address == WAN else address for address in (ip.src, ip.dst)]
            ident = "" if WAN in (ip.src, ip.dst) else f" id {l4.id}"
            return f"{text}{ends[0]} > {ends[1]} echo {l4.type} seq {l4.seq}{ident}{size}"
        if ip.proto == 1:
            return f"{text}{ip.src} > {ip.dst} icmp {l4.type}/{l4.code} about [{self._describe(l4.payload, quoted=True)}]"
        return f"{text}{ip.src} > {ip.dst} protocol {ip.proto}{size}"


def step(subjects: Sequence[Subject], side: str, build: Callable[[Subject], Any], timeout: float = 0.6) -> list[list[Any]]:
    """The same packets to both; what came out of each. Returns as soon as both outputs are equal and no more packets come."""
    for subject in subjects:
        subject.send(side, build(subject))
    seen = [[] for _ in subjects]
    start = quiet = time.monotonic()
    while True:
        time.sleep(0.005)
        now = time.monotonic()
        for lines, subject in zip(seen, subjects):
            fresh = subject.received()
            if fresh:
                lines += fresh
                quiet = now
        same = all(sorted(lines) == sorted(seen[0]) for lines in seen)
        enough = timeout if not same else 0.03 if seen[0] else 0.1
        if now - quiet > enough or now - start > 3:
            return [sorted(lines) for lines in seen]


def payload(number: int, size: int) -> Any:
    return Raw(bytes([number]) * size)
