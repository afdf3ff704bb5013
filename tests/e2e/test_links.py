"""Ports that go down, vanish and come back, without a restart of the gateway."""

import pytest

from harness.lab import Addresses as A
from harness.traffic import iperf
from harness.waiting import within
from harness.wire import IP, UDP, Ether, Raw, marked

pytestmark = pytest.mark.sag

BACK = 3.0  # seconds within which a port that came back forwards again


def eventually(ns, dest, seconds=BACK):
    within(seconds, f"{dest} answers {ns.name}", lambda: ns.ping(dest, count=1, wait=0.3) == 1)


def test_carrier_loss_and_return(gw, lab):
    assert lab.lan1.ping(A.LAN2[4], count=3) == 3
    before = gw.drops().get(("0", "egress-down"), 0)
    lab.lan2.ip("link set eth0 down")
    try:
        within(2, "the gateway notices", lambda: not gw.ports()["3"]["up"])
        head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
        frame = head / IP(src=A.LAN1[4], dst=A.LAN2[4]) / UDP(sport=1, dport=9) / Raw(marked(1))
        sock = lab.lan1.socket(17, 3)
        sock.bind(("eth0", 0))
        for _ in range(5):
            sock.send(bytes(frame))
        sock.close()
        # The host also sends ARP and neighbour discovery of its own, so at least these.
        within(1, "dropped by name", lambda: gw.drops().get(("0", "egress-down"), 0) - before >= 5)
    finally:
        lab.lan2.ip("link set eth0 up")
        lab.lan2.ip("route replace default via 192.0.2.65")
        lab.lan2.ip("-6 addr replace 2001:db8:2::10/64 dev eth0")
        lab.lan2.ip("-6 route replace default via 2001:db8:2::1")
    eventually(lab.lan1, A.LAN2[4])
    eventually(lab.lan1, A.LAN2[6])


def test_others_forward_while_one_port_is_down(gw, lab):
    lab.gw.ip("link set lan-b down")
    try:
        within(2, "the gateway notices", lambda: not gw.ports()["3"]["up"])
        assert lab.lan1.ping(A.INET[4], count=5) == 5
    finally:
        lab.gw.ip("link set lan-b up")
        lab.gw.ip("-6 addr replace 2001:db8:2::1/64 dev lan-b")
    eventually(lab.lan2, A.INET[4])
    eventually(lab.lan2, A.INET[6])


def test_a_deleted_port_comes_back(gw, lab, accounting):
    """The veth pair is deleted and made again under the gateway; it attaches again."""
    assert lab.lan2.ping(A.INET[4], count=2) == 2
    lab.gw.ip("link del lan-b")
    within(2, "the gateway notices", lambda: not gw.ports()["3"]["up"])
    assert lab.lan1.ping(A.INET[4], count=5) == 5
    queues = "numtxqueues 2 numrxqueues 2"
    lab.gw.ip(
        f"link add lan-b address 02:00:00:00:02:01 {queues} type veth"
        f" peer name eth0 netns {lab.prefix}lan2 address 02:00:00:00:02:02 {queues}"
    )
    for ns, dev in ((lab.gw, "lan-b"), (lab.lan2, "eth0")):
        ns.run(["ethtool", "-K", dev, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "on"])
    lab.gw.batch("addr add 192.0.2.65/26 dev lan-b\naddr add 2001:db8:2::1/64 dev lan-b\nlink set lan-b up\n")
    lab.lan2.batch(
        "addr add 192.0.2.74/26 dev eth0\naddr add 2001:db8:2::10/64 dev eth0\nlink set eth0 up\n"
        "route add default via 192.0.2.65\nroute add default via 2001:db8:2::1\n"
    )
    eventually(lab.lan2, A.INET[4], seconds=5)
    eventually(lab.lan2, A.INET[6])
    assert lab.lan2.ping(A.INET[4], count=10) == 10
    assert iperf(lab.lan2, lab.inet, A.INET[4], seconds=1)["mbit"] > 20
    # The device's counters began again at zero with the new device.
    accounting.open()


def test_an_address_that_moves_is_followed(gw, lab):
    """A second address appears on a port and answers; packets for it go to the kernel."""
    lab.gw.ip("addr add 192.0.2.2/26 dev lan-a")
    try:
        eventually(lab.lan1, "192.0.2.2", seconds=1)
    finally:
        lab.gw.ip("addr del 192.0.2.2/26 dev lan-a")
