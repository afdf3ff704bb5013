"""A steady numbered stream of UDP packets of one flow, and what of it came out."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from .lab import Addresses as A
from .wire import IP, UDP, Ether, Raw, mark_of, marked

if TYPE_CHECKING:
    from .lab import Lab

_CHECKSUM = slice(40, 42)  # of UDP over IPv4 without options, in the frame


class Stream:
    """A packet each millisecond from lan1 to the Internet, caught at the far side of the gateway."""

    def __init__(self, lab: Lab, wire: Any, sport: int = 6000) -> None:
        head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
        self.template = bytearray(bytes(head / IP(src=A.LAN1[4], dst=A.INET[4]) / UDP(sport=sport, dport=9) / Raw(marked(0))))
        # The mark changes with every packet; a UDP checksum of zero means that there is none.
        self.template[_CHECKSUM] = b"\0\0"
        self.sender = wire.sender(lab.lan1, "eth0")
        self.sniffer = wire.sniffer(lab.wan, "gw")
        self.stop = threading.Event()
        self.sent = 0
        self.seen: set[int] = set()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.stop.is_set():
            self.sender.send(self.template[:-8] + (self.sent + 1).to_bytes(8, "big"))
            self.sent += 1
            # The capture has room for some 59,000 packets, and everything else that passes there is in it, too.
            if self.sent % 64 == 0:
                self._take(quiet=0, timeout=0.02)
            time.sleep(0.001)

    def _take(self, quiet: float, timeout: float) -> None:
        marks = (mark_of(frame) for frame in self.sniffer.drain(quiet=quiet, timeout=timeout))
        self.seen.update(mark for mark in marks if mark is not None)

    def __enter__(self) -> Stream:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def missing(self) -> list[Any]:
        """Numbers sent that never came out, after the stream ended."""
        sent = set(range(1, self.sent + 1))
        # What does not come at once may still be on its way through a busy machine.
        for quiet in (0.3, 2.0):
            self._take(quiet, timeout=20)
            if sent <= self.seen:
                break
        return sorted(sent - self.seen)
