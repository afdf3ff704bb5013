"""A VLAN of a wire, for a host whose kernel has no VLAN devices: a tap whose frames are tagged on the wire."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator

from harness.net import Namespace

from .guest import IFF_NO_PI, IFF_TAP, TUNSETIFF

ETH_P_ALL, ETH_P_8021Q = 0x0003, 0x8100
SOL_PACKET, PACKET_AUXDATA = 263, 8
# struct tpacket_auxdata of linux/if_packet.h; the kernel takes the tag out of the frame and says it here.
AUXDATA, VLAN_VALID = struct.Struct("=IIIHHHH"), 1 << 4


@contextlib.contextmanager
def vlan(ns: Namespace, wire: str, tag: int, tap: str) -> Iterator[None]:
    """As long as the block lasts, `tap` is the VLAN `tag` of the device `wire`."""
    over = threading.Event()
    with ns.inside():
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        packets.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        packets.bind((wire, ETH_P_ALL))
    header = struct.pack("!HH", ETH_P_8021Q, tag)

    def from_wire() -> None:
        frame, ancillary, _, address = packets.recvmsg(65536, 128)
        if address[2] == socket.PACKET_OUTGOING:
            return
        for _, kind, data in ancillary:
            status, _, _, _, _, tci, _ = AUXDATA.unpack_from(data)
            if kind == PACKET_AUXDATA and status & VLAN_VALID and tci & 0xFFF == tag:
                os.write(device, frame)

    def from_tap() -> None:
        frame = os.read(device, 65536)
        packets.send(frame[:12] + header + frame[12:])

    def work() -> None:
        poll = selectors.DefaultSelector()
        poll.register(packets, selectors.EVENT_READ, from_wire)
        poll.register(device, selectors.EVENT_READ, from_tap)
        while not over.is_set():
            for key, _ in poll.select(0.1):
                with contextlib.suppress(BlockingIOError):
                    key.data()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        packets.close()
        os.close(device)
