"""Frames that XDP has sent and the device has not taken: XDP counts them as forwarded, the kernel tells of them."""

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.waiting import within
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

FRAMES = 20


@pytest.fixture
def short_frames(lab):
    """The far end of the WAN port takes shorter frames than the port sends: a wrong MTU on one side of a link."""
    yield lambda: lab.wan.ip("link set gw mtu 1300")
    lab.wan.ip("link set gw mtu 1500")


def test_frames_that_a_device_does_not_take_are_counted(gw_with, lab, wire, short_frames, family):
    gw = gw_with(lab_config())
    out, send = wire.sniffer(lab.wan, "gw"), wire.sender(lab.lan1, "eth0")
    network = IP(src=A.LAN1[4], dst=A.INET[4]) if family == 4 else IPv6(src=A.LAN1[6], dst=A.INET[6])
    packet = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a")) / network / UDP(sport=4004, dport=7)

    def by_xdp(mark):
        before = gw.ports()["0"]["fast"]
        send.send(packet / Raw(marked(mark)))
        return out.until(lambda p: mark_of(bytes(p)) == mark, timeout=1) is not None and gw.ports()["0"]["fast"] > before

    marks = iter(range(1, 1000))
    within(3, "XDP forwards the flow", lambda: by_xdp(next(marks)))
    rows = gw.ports()
    before, lost = rows["0"]["fast"], rows["1"]["tx_lost"]
    assert not [w for w in gw.status()["warnings"] if "lost" in w] or family == 6
    short_frames()
    for _ in range(FRAMES):
        send.send(packet / Raw(b"x" * 1400))
    # Counted as forwarded, and said.
    within(3, "all are counted", lambda: gw.ports()["0"]["fast"] - before == FRAMES)
    within(3, "all are counted as lost", lambda: gw.ports()["1"]["tx_lost"] - lost == FRAMES)
    assert [p["tx_lost"] for name, p in gw.ports().items() if name != "1"] == [0, 0, 0]
    assert [w for w in gw.status()["warnings"] if "wan has lost" in w], gw.status()["warnings"]
    assert gw.drops()[("1", "tx-lost")] == lost + FRAMES
    row = gw.ports()["1"]
    assert FRAMES <= sum(row["driver_losses"].values()), "the driver counts them too"
    assert set(row["driver_losses"]) <= {f"{q}_queue_{n}_xdp_{of}_errors" for q, of in (("tx", "xmit"), ("rx", "tx")) for n in range(8)}
    assert not [p for name, p in gw.ports().items() if name != "1" and p.get("driver_losses")]
    metric = f'sag_port_tx_lost_total{{port="1"}} {lost + FRAMES}'
    metrics = lambda: lab.gw.out(["curl", "-s", "http://127.0.0.1:9477/metrics"])
    within(3, "the metric has them", lambda: metric in metrics(), metrics)
    assert f'sag_drops_total{{port="1",reason="tx-lost"}} {lost + FRAMES}' in metrics()
