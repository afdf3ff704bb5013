"""Packet accounting: every received packet is accounted for exactly once.

Per port: received = forwarded + handed to the kernel + dropped (by one named reason) + held for a
neighbour; over all ports: sent = forwarded + made by the gateway. The kernel's counters of the device are an independent check.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .lab import PORT_DEVICES

if TYPE_CHECKING:
    from .lab import Gateway


class PacketAccounting:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.lab = gateway.lab
        self.baseline = None

    def open(self) -> None:
        """Starts the comparison with the devices' counters here, at a quiet moment."""
        self.baseline = self._quiet()

    def close(self) -> None:
        self.baseline = None

    def _read(self) -> dict[str, Any]:
        devices = self.lab.gw.devices()
        return {
            "ports": self.gateway.ports(),
            "drops": self.gateway.drops(),
            "netdev": {name: devices.get(dev, {}).get("rx_packets") for name, dev in PORT_DEVICES.items()},
        }

    @staticmethod
    def _counters(snapshot: dict[str, Any]) -> tuple[dict[Any, tuple[Any, Any, Any]], Any, Any]:
        return (
            {n: (p["rx_packets"], p["tx_packets"], p["held"]) for n, p in snapshot["ports"].items()},
            snapshot["drops"],
            snapshot["netdev"],
        )

    def _quiet(self, timeout: float = 4.0) -> dict[str, Any]:
        """A snapshot without traffic: the same twice in a row."""
        last, end = self._read(), time.monotonic() + timeout
        while time.monotonic() < end:
            time.sleep(0.1)
            now = self._read()
            if self._counters(now) == self._counters(last):
                return now
            last = now
        return last

    def errors(self) -> list[Any]:
        """What is not accounted for, a line each."""
        now = self._quiet()
        out = []
        by_port = {}
        lost = {}
        for (port, reason), packets in now["drops"].items():
            # What a device has not taken of XDP was received by another port, and forwarded.
            of_reason = lost if reason == "tx-lost" else by_port
            of_reason[port] = of_reason.get(port, 0) + packets
        for name, p in now["ports"].items():
            if lost.get(name, 0) != p["tx_lost"]:
                out.append(f"port {name}: lost {p['tx_lost']}, but dropped as tx-lost {lost.get(name, 0)}")
            if p["tx_lost"] > p["tx_packets"]:
                out.append(f"port {name}: lost {p['tx_lost']} of {p['tx_packets']} that were sent")
            if by_port.get(name, 0) != p["dropped"]:
                out.append(f"port {name}: dropped {p['dropped']}, but its reasons add up to {by_port.get(name, 0)}")
            accounted = p["forwarded"] + p["to_kernel"] + p["dropped"] + p["held"]
            if p["rx_packets"] != accounted:
                out.append(
                    f"port {name}: received {p['rx_packets']}, but forwarded {p['forwarded']} + kernel {p['to_kernel']}"
                    f" + dropped {p['dropped']} + held {p['held']} = {accounted}"
                )
        ports = now["ports"].values()
        sent = sum(p["tx_packets"] for p in ports)
        made = sum(p["forwarded"] + p["originated"] for p in ports)
        if sent != made:
            out.append(f"all ports: sent {sent}, but forwarded + originated = {made}")
        if self.baseline is not None:
            out += self._against_devices(now)
        if out:
            out.append(f"drops: { {f'{p}/{r}': n for (p, r), n in now['drops'].items() if n} }")
        return out

    def _against_devices(self, now: dict[str, Any]) -> list[Any]:
        out = []
        for name in now["ports"]:
            then, here = self.baseline["netdev"].get(name), now["netdev"].get(name)
            if then is None or here is None or name not in self.baseline["ports"]:
                continue
            # The device counts large buffers once, and what XDP leaves to the kernel twice.
            if now["ports"][name]["xdp_mode"] == "tc":
                continue
            device = here - then
            # VLAN ports share the device with the port that has its untagged traffic.
            sharing = [n for n, p in now["ports"].items() if p["device"] == now["ports"][name]["device"]]
            count = lambda state: sum(state["ports"][n]["rx_packets"] for n in sharing if n in state["ports"])
            ours = count(now) - count(self.baseline)
            if device != ours:
                out.append(f"port {name}: the device received {device} since the test began, the gateway counted {ours}")
        return out


def restarted(gw: Gateway, accounting: PacketAccounting, config: str | None = None, quiet: bool = True) -> None:
    """Starts the daemon again over the state of the previous one. Its counters begin at zero; they can be compared with
    the devices' from the next quiet moment on."""
    accounting.close()
    gw.start(config)
    if quiet:
        accounting.open()
