"""Modes: generic XDP, one worker, copy mode requested. Traffic flows in each."""

import socket

import pytest

from harness import wire
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.traffic import iperf

pytestmark = pytest.mark.sag


@pytest.mark.parametrize(
    "dataplane",
    [{"mode": "generic"}, {"mode": "native"}, {"mode": "tc"}, {"workers": 1}, {"zero_copy": "off"}],
    ids=["generic", "native", "tc", "one-worker", "copy"],
)
def test_mode(gw_with, lab, dataplane):
    gw = gw_with(lab_config(**dataplane))
    for family in (4, 6):
        assert lab.lan1.ping(A.INET[family], count=10) == 10
    assert iperf(lab.lan1, lab.inet, A.INET[4], seconds=1)["mbit"] > 20
    if "mode" in dataplane:
        assert all(p["xdp_mode"] == dataplane["mode"] for p in gw.ports().values())
    if "zero_copy" in dataplane:
        assert all(p["xsk_mode"] == "copy" for p in gw.ports().values())
    if "workers" in dataplane:
        assert len(gw.status()["workers"]) == dataplane["workers"]


def test_zero_copy_that_the_driver_cannot_do_is_refused_by_name(gateway, gw_with, lab):
    """veth has no zero-copy: "on" is an error that says so, "auto" a downgrade that says why."""
    gw = gw_with(lab_config())
    assert all("copy" in p["capability"] for p in gw.ports().values())
    gateway.stop()
    config = lab.run_dir / "zc.toml"
    config.write_text(lab_config(zero_copy="on").replace("sag-lab", lab.run_dir.name))
    code, output = gateway.foreground("run", "--config", str(config))
    assert code != 0 and "zero" in output.lower() and "lan-a" in output, output
    gateway.foreground("unload", "--config", str(config))


def test_workers_alone_forward_everything(gw_with, lab):
    """`fast_path = false`: the same packets, none of them finished by XDP."""
    gw = gw_with(lab_config(fast_path=False))
    for family in (4, 6):
        assert lab.lan1.ping(A.INET[family], count=20) == 20
    status = gw.status()
    assert status["fastpath_packets"] == 0 and status["punted_packets"] >= 80
    gw.reload(lab_config(fast_path=True))
    assert lab.lan1.ping(A.INET[4], count=20) == 20
    assert gw.status()["fastpath_packets"] > 0


def test_large_batches_of_workers_leave_in_bulk(gw_with, lab):
    """They are sent by a program, so a packet socket of the gateway's sees them; it sees nothing of AF_XDP's."""
    gw = gw_with(lab_config(fast_path=False))
    everything = socket.htons(wire.ETH_P_ALL)
    with lab.gw.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as tap:
        tap.bind(("wan", wire.ETH_P_ALL))
        tap.setblocking(False)
        for family in (4, 6):
            assert iperf(lab.lan1, lab.inet, A.INET[family], seconds=1, streams=4)["mbit"] > 20
        # A TCP segment; what the machine itself sends by the port is none.
        left = 0
        while True:
            try:
                frame, address = tap.recvfrom(65535)
            except BlockingIOError:
                break
            version = frame[14] >> 4
            left += address[2] == wire.PACKET_OUTGOING and frame[23 if version == 4 else 20] == socket.IPPROTO_TCP
    assert left > 100
    assert gw.status()["fastpath_packets"] == 0
