"""More than the gateway can take: it drops by name, stays alive, and every packet is accounted for."""

import os
import random
import signal
import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.stream import Stream
from harness.wire import IP, UDP, Ether, Raw, marked

pytestmark = [pytest.mark.sag, pytest.mark.alone]


def flood(lab, wire, packets, dst=None, seed=1):
    """Frames of as many flows, as fast as one core sends them."""
    rng = random.Random(seed)
    head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    template = bytearray(bytes(head / IP(src=A.LAN1[4], dst=dst or A.INET[4]) / UDP(sport=1, dport=9) / Raw(marked(0))))
    template[40:42] = b"\0\0"
    sender = wire.sender(lab.lan1, "eth0")
    for _ in range(packets):
        ports = rng.getrandbits(32) | 0x00010001
        template[34:38] = ports.to_bytes(4, "big")
        sender.send(template)


def dropped(gw, port, *reasons):
    drops = gw.drops()
    return sum(drops.get((port, reason), 0) for reason in reasons)


@pytest.fixture
def quiet_wan(lab):
    """The provider's router swallows the flood instead of answering it."""
    rules = """
        table inet mute {
            chain forward { type filter hook forward priority 0; udp dport 9 drop; }
        }
    """
    lab.wan.run(["nft", "-f", "-"], input=rules)
    yield
    lab.wan.run(["nft", "delete", "table", "inet", "mute"])


def test_flood_of_new_flows(gw, lab, wire, quiet_wan):
    flood(lab, wire, 30000)
    assert lab.lan1.ping(A.INET[4], count=5) == 5
    assert lab.lan2.ping(A.INET[6], count=5) == 5


def test_flood_guard(gw_changed, lab, wire, quiet_wan):
    """New flows of a port have a rate; sessions and other ports do not feel it; a warning reports the flood."""
    gw = gw_changed(lab_config(new_flow_rate=500))
    before = dropped(gw, "0", "flood-guard")
    with Stream(lab, wire, sport=7778) as stream:
        time.sleep(0.1)
        flood(lab, wire, 20000, seed=2)
        warnings = gw.status()["warnings"]
        # Sessions begin at the other port meanwhile.
        assert lab.lan2.ping(A.INET[4], count=3) == 3
    assert stream.missing() == []
    assert dropped(gw, "0", "flood-guard") - before > 10000
    assert dropped(gw, "3", "flood-guard") == 0
    time.sleep(1.2)
    warnings += gw.status()["warnings"]
    assert any(line.startswith("port 0: flood of new flows") for line in warnings), warnings
    assert "flood of new flows" in gw.tail()
    gw.reload(lab_config(new_flow_rate=0))
    before = dropped(gw, "0", "flood-guard")
    flood(lab, wire, 3000, seed=3)
    assert dropped(gw, "0", "flood-guard") == before


def test_more_flows_than_the_table_holds(gw_with, lab, wire, quiet_wan):
    """Unanswered sessions make room for new ones of their host, as far as they can, and those with traffic continue."""
    gw = gw_with(lab_config(flows=1024))
    with Stream(lab, wire, sport=7777) as stream:
        time.sleep(0.2)
        flood(lab, wire, 6000)
        time.sleep(0.2)
    assert stream.missing() == []
    status = gw.status()["sessions"]
    assert status["evicted"] + dropped(gw, "0", "host-half-open", "host-share") > 4000
    assert status["evicted"] > 0 and status["evicted_established"] == 0
    assert status["ipv4"] <= status["capacity_ipv4"]


def test_flood_to_a_neighbour_that_is_not_there(gw, lab, wire):
    """Waiting packets are bounded: the rest is dropped by name at once, others are not held up."""
    before = dropped(gw, "0", "neighbor-queue-full", "neighbor-failed")
    flood(lab, wire, 5000, dst="192.0.2.99")
    assert lab.lan1.ping(A.INET[4], count=5) == 5
    end = time.monotonic() + 8
    while dropped(gw, "0", "neighbor-queue-full", "neighbor-failed") - before < 5000 and time.monotonic() < end:
        time.sleep(0.1)
    now = dropped(gw, "0", "neighbor-queue-full", "neighbor-failed", "flood-guard", "rx-ring-full") - before
    assert now == 5000
    assert gw.ports()["0"]["held"] == 0


def test_workers_that_stand_still(gw, lab, wire, quiet_wan):
    """No worker takes frames for a while: all frames of the pool are used up, XDP drops by name and
    carries the flows that it knows; afterwards everything works again."""
    with Stream(lab, wire, sport=7778) as stream:
        time.sleep(0.3)
        os.kill(gw.pid(), signal.SIGSTOP)
        try:
            flood(lab, wire, 20000, seed=2)
        finally:
            os.kill(gw.pid(), signal.SIGCONT)
        time.sleep(0.3)
    assert stream.missing() == []
    assert dropped(gw, "0", "rx-ring-full", "no-frame") > 0
    assert lab.lan1.ping(A.INET[4], count=10) == 10
    assert lab.lan2.ping(A.INET[6], count=10) == 10


@pytest.mark.slow
@pytest.mark.bad_checksums  # random bytes in payloads that get through to the hosts
def test_mixed_storm(gw, lab, wire, quiet_wan, seed):
    """Random bytes in every field: nothing crashes, every frame is accounted for."""
    rng = random.Random(seed)
    head = bytes(Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a")))[:12]
    good = bytes(IP(src=A.LAN1[4], dst=A.INET[4]) / UDP(sport=1, dport=9) / Raw(marked(0)))
    sender = wire.sender(lab.lan1, "eth0")
    pid = gw.pid()
    for _ in range(20000):
        body = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.getrandbits(8)
        body = body[: rng.randint(6, len(body))] if rng.random() < 0.3 else body
        sender.send(head + rng.choice([b"\x08\x00", b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8"]) + bytes(body))
    assert gw.pid() == pid and lab.lan1.ping(A.INET[4], count=5) == 5, f"--seed {seed}"
