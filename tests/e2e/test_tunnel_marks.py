"""Outer headers as scapy reads and writes them, for each kind: congestion and code points (RFC 6040, 2983) in both directions, and
the UDP header of VXLAN."""

import pytest
from scapy.layers.inet import in4_chksum
from scapy.layers.inet6 import in6_chksum
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import GRE
from scapy.layers.vxlan import VXLAN

from harness.lab import Addresses as A
from harness.tunnels import FAR, LOCAL, REMOTE, SPI_IN, esp_keys, gateway_config
from harness.wire import IP, UDP, Ether, IPv6, Raw, checksums_ok, mark_of, marked

pytestmark = pytest.mark.sag

OUTER = pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
MAC = "02:00:00:00:aa:01"
KINDS = {
    "vxlan": ("vxlan", {"vni": 100, "mac": MAC}),
    "gre": ("gre", {}),
    "ipip": ("ipip", {}),
    "esp": ("esp", {"probe_interval": 0}),
    "esp-udp": ("esp", {"probe_interval": 0, "udp_encap": True}),
}


@pytest.fixture
def muted(lab):
    lab.mute("inet")
    yield
    lab.unmute("inet")


def tos_of(packet):
    return packet.tos if isinstance(packet, IP) else packet.tc


def with_tos(packet, tos):
    if isinstance(packet, IP):
        packet.tos = tos
        del packet.chksum
    else:
        packet.tc = tos
    return packet


class Peer:
    """The far end: what it sends for a packet inside, with a traffic class outside."""

    def __init__(self, name, outer, keys):
        self.name, self.make = name, {4: IP, 6: IPv6}[outer]
        self.outer = outer
        if name.startswith("esp"):
            self.sa = SecurityAssociation(
                ESP, spi=SPI_IN, crypt_algo="AES-GCM", crypt_key=bytes.fromhex(keys["key_in"]), esn_en=True,
                tunnel_header=self.make(src=REMOTE[outer], dst=LOCAL[outer]),
            )

    def says(self, inner, tos):
        head = self.make(src=REMOTE[self.outer], dst=LOCAL[self.outer])
        if self.name == "vxlan":
            link = Ether(src="02:00:00:00:bb:02", dst=MAC)
            packet = head / UDP(sport=55555, dport=4789, chksum=0) / VXLAN(vni=100, flags=8) / link / inner
        elif self.name == "gre":
            packet = head / GRE() / inner
        elif self.name == "ipip":
            packet = head / inner
        else:
            packet = self.sa.encrypt(inner)
            if self.name == "esp-udp":
                packet = head / UDP(sport=4500, dport=4500, chksum=0) / Raw(bytes(packet.payload))
        return with_tos(packet, tos)


EF, AF11 = 46 << 2, 10 << 2
ECT1, ECT0, CE = 1, 2, 3


@OUTER
@pytest.mark.parametrize("name", KINDS)
def test_congestion_and_code_points(gw_with, lab, wire, muted, name, outer, family):
    kind, keys = KINDS[name]
    if kind == "esp":
        keys = {**esp_keys(), **keys}
    gw = gw_with(gateway_config(kind, outer, **keys))
    far, near = wire.sniffer(lab.inet, "eth0"), wire.sniffer(lab.lan1, "eth0")
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    net = {4: IP, 6: IPv6}[family]
    ours = lambda p: (IP if outer == 4 else IPv6) in p and p[IP if outer == 4 else IPv6].dst == REMOTE[outer]
    # In: a copy of both, by the worker that sees the flow's first packet, and by XDP afterwards.
    for n, tos in enumerate((EF | ECT1, EF | ECT0, AF11 | CE, AF11, EF | ECT1)):
        packet = with_tos(net(src=A.LAN1[family], dst=FAR[family]), tos) / UDP(sport=1111, dport=2222) / Raw(marked(n))
        wire.sender(lab.lan1, "eth0").send(link / packet)
        out = far.until(ours)
        assert out is not None, f"packet {n} did not come out\n{gw.tail()}"
        assert tos_of(out[IP if outer == 4 else IPv6]) == tos, f"packet {n}"
    # Out: the code point is the inner packet's, the mark that of RFC 6040, figure 4.
    peer, send = Peer(name, outer, keys), wire.sender(lab.wan, "gw").send
    frame = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
    n = 100
    for inner in (0, ECT0, ECT1, CE):
        for outside in (0, ECT0, ECT1, CE):
            n += 1
            packet = with_tos(net(src=FAR[family], dst=A.LAN1[family]), AF11 | inner)
            packet = packet / UDP(sport=2222, dport=1111) / Raw(marked(n))
            before = gw.drops().get(("1", "tunnel-ecn"), 0)
            send(frame / peer.says(packet, EF | outside))
            got = near.until(lambda p, n=n: mark_of(bytes(p)) == n, **({"timeout": 0.3} if (inner, outside) == (0, CE) else {}))
            if (inner, outside) == (0, CE):
                assert got is None and gw.drops()[("1", "tunnel-ecn")] == before + 1
                continue
            assert got is not None, (inner, outside, gw.drops())
            want = CE if CE in (inner, outside) else ECT1 if inner and outside == ECT1 else inner
            assert tos_of(got[net]) == AF11 | want, (inner, outside)
            assert checksums_ok(bytes(got))


def is_flow(packet, sport):
    inside = packet.getlayer(UDP, 2)
    return inside is not None and inside.sport == sport


@OUTER
@pytest.mark.parametrize("checksum", [True, False], ids=["sum", "zero"])
def test_the_udp_header_of_vxlan(gw_with, lab, wire, muted, outer, checksum, family):
    """The checksum is zero or right, as configured; the source port is of the flow."""
    gw = gw_with(gateway_config("vxlan", outer, vni=100, mac=MAC, udp_checksum=checksum))
    far = wire.sniffer(lab.inet, "eth0")
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    net = {4: IP, 6: IPv6}[family]
    ports, make = {}, {4: IP, 6: IPv6}[outer]
    back = Peer("vxlan", outer, {})
    frame = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
    for flow in range(8):
        # The flow's first packet is a worker's, the later ones XDP's.
        for n in range(3):
            packet = net(src=A.LAN1[family], dst=FAR[family]) / UDP(sport=3000 + flow, dport=2222) / Raw(b"x" * (37 * n + flow))
            wire.sender(lab.lan1, "eth0").send(link / packet)
            # Other flows pass too: the host inside answers unsolicited packets.
            out = far.until(lambda p: UDP in p and p[UDP].dport == 4789 and is_flow(p, 3000 + flow))
            assert out is not None, gw.tail()
            ip, udp = out[make], out[UDP]
            ports.setdefault(flow, set()).add(udp.sport)
            raw = bytes(udp)
            if checksum:
                # Over a right sum in its place the sum is zero (RFC 768).
                total = in4_chksum(17, ip, raw) if outer == 4 else in6_chksum(17, ip, raw)
                assert udp.chksum != 0 and total in (0, 0xFFFF), (flow, n)
            else:
                assert udp.chksum == 0
        inner = net(src=FAR[family], dst=A.LAN1[family]) / UDP(sport=2222, dport=3000 + flow)
        wire.sender(lab.wan, "gw").send(frame / back.says(inner, 0))
    assert all(len(p) == 1 and min(p) >= 49152 for p in ports.values()), ports
    assert len(set.union(*ports.values())) >= 6, ports
