"""802.1Q: a port that is one VLAN of a device, beside the device's untagged traffic."""

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.wire import IP, UDP, Dot1Q, Ether, Raw, mark_of, marked

pytestmark = pytest.mark.sag

HOST = "198.51.100.200"
VLAN_PORT = """
[[port]]
name = "3.77"
device = "lan-b"
vlan = 77
role = "lan"
addresses = ["198.51.100.193/27"]

[[neighbor]]
address = "198.51.100.200"
mac = "02:00:00:00:02:02"
port = "3.77"
"""


def test_from_and_to_a_vlan(gw_with, lab, wire):
    """The tag is removed towards the WAN and added towards the VLAN."""
    gw_with(lab_config(extra=VLAN_PORT))
    lab.wan.ip(f"route add {HOST}/32 via {A.GW_WAN[4]}")
    wan, lan = wire.sniffer(lab.wan, "gw"), wire.sniffer(lab.lan2, "eth0")
    tagged = Ether(src=lab.lan2.mac("eth0"), dst=lab.gw.mac("lan-b")) / Dot1Q(vlan=77)
    for n in range(3):
        wire.sender(lab.lan2, "eth0").send(tagged / IP(src=HOST, dst=A.INET[4]) / UDP(sport=1, dport=2) / Raw(marked(n)))
        out = wan.until(lambda p: mark_of(bytes(p)) == n)
        assert out is not None and Dot1Q not in out and out[IP].ttl == 63
    plain = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
    for n in range(3):
        wire.sender(lab.wan, "gw").send(plain / IP(src=A.INET[4], dst=HOST) / UDP(sport=2, dport=1) / Raw(marked(10 + n)))
        back = lan.until(lambda p: mark_of(bytes(p)) == 10 + n)
        assert back is not None and back.dst == lab.lan2.mac("eth0") and back[Dot1Q].vlan == 77
        assert back[IP].ttl == 63
