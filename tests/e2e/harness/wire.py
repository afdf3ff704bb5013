"""Raw frames: sending them from a namespace and catching what comes out at another."""

from __future__ import annotations

# Scapy looks for a default route and for optional modules at import, and says so.
import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

logging.getLogger("scapy").setLevel(logging.ERROR)

# pylint: disable=wrong-import-position,unused-import
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import rdpcap, wrpcap

if TYPE_CHECKING:
    from .net import Namespace

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4


class Sender:
    """Puts frames on one device as they are."""

    def __init__(self, ns: Namespace, dev: str) -> None:
        self.sock = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.bind((dev, 0))

    def send(self, *frames: Any) -> None:
        for frame in frames:
            self.sock.send(bytes(frame))

    def close(self) -> None:
        self.sock.close()


def _with_tag(data: bytes, extra: Sequence[Any]) -> bytes:
    """The frame as it was on the wire: the kernel takes the 802.1Q tag off and reports it separately."""
    for level, kind, aux in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tci, tpid = struct.unpack_from("=I12xHH", aux)
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack(">HH", tpid or 0x8100, tci) + data[12:]
    return data


class Sniffer:
    """Catches the frames that arrive at a device, from the moment it is made."""

    def __init__(self, ns: Namespace, dev: str) -> None:
        self.name = f"{ns.name}/{dev}"
        self.sock = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.sock.bind((dev, ETH_P_ALL))
        self.sock.setblocking(False)

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def raw(self, timeout: float) -> tuple[float, bytes] | None:
        """The next frame as (time, bytes), or None."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            ready, _, _ = select.select([self.sock], [], [], max(left, 0))
            if not ready:
                return None
            data, extra, _, addr = self.sock.recvmsg(65535, 64)
            if addr[2] != PACKET_OUTGOING:
                return time.monotonic(), _with_tag(data, extra)

    def until(self, matches: Callable[[Any], Any], timeout: float = 10.0) -> Any:
        """The first packet for which `matches(packet)` holds, or None."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            got = self.raw(left)
            if got is None:
                return None
            packet = Ether(got[1])
            if matches(packet):
                return packet
        return None

    def drain(self, quiet: float = 0.25, timeout: float = 5.0) -> list[Any]:
        """All frames as bytes, until nothing came for `quiet` seconds."""
        out, end = [], time.monotonic() + timeout
        while time.monotonic() < end:
            got = self.raw(quiet)
            if got is None:
                break
            out.append(got[1])
        return out


def marked(number: int) -> bytes:
    """Payload that identifies a packet wherever it comes out."""
    return b"SAG!" + struct.pack(">Q", number)


def mark_of(frame: bytes) -> int | None:
    at = frame.find(b"SAG!")
    return struct.unpack_from(">Q", frame, at + 4)[0] if at >= 0 and len(frame) >= at + 12 else None


def checksums_ok(frame: bytes) -> bool:
    """True when every checksum of the packet is what a fresh computation gives."""
    packet = Ether(frame)
    network = packet[IP] if IP in packet else packet[IPv6]
    fresh = network.__class__(bytes(network))
    for layer in (IP, TCP, UDP, ICMP):
        if layer in fresh:
            del fresh[layer].chksum
    layer = fresh.payload
    while layer:
        if layer.name.startswith("ICMPv6") and "cksum" in layer.fields:
            del layer.cksum
            break
        layer = layer.payload
    return bytes(fresh.__class__(bytes(fresh))) == bytes(network)
