"""What XDP gives to the kernel: with forwarding switched on there, nothing may pass the gateway's rules by it."""

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.nat import nat_config
from harness.waiting import within
from harness.wire import BOOTP, IP, UDP, Dot1AD, Dot1Q, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

OTHER_MAC = "02:00:00:00:0a:0a"
VIRTUAL_MAC = "00:00:5e:00:01:01"
VIRTUAL = {4: "192.0.2.5", 6: "2001:db8:1::5"}
SUB_PORT = """
[[port]]
name = "0.77"
device = "lan-a"
vlan = 77
role = "lan"
addresses = ["192.0.2.33/28"]
"""

_mark = iter(range(1, 1 << 30))


@pytest.fixture
def kernel_forwards(lab):
    """The kernel of the gateway's machine forwards, as FRR or an administrator may have it."""

    def switch(on):
        keys = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.accept_source_route")
        lab.gw.run(["sysctl", "-q", "-w", *(f"{k}={on}" for k in keys)])

    yield lambda: switch(1)
    switch(0)


@pytest.fixture
def kernel_vlan(lab):
    """The kernel has a device for VLAN 77, if it has VLANs at all."""
    made = lab.gw.ip("link add link lan-a name lan-a.77 type vlan id 77", check=False).returncode == 0
    if made:
        lab.gw.ip("addr add 192.0.2.33/28 dev lan-a.77")
        lab.gw.ip("link set lan-a.77 up")
    yield
    if made:
        lab.gw.ip("link del lan-a.77")


@pytest.fixture
def virtual_router(lab):
    """A macvlan device above the LAN port, as keepalived makes one (`use_vmac`)."""
    lab.gw.ip(f"link add link lan-a name vrrp.1 address {VIRTUAL_MAC} type macvlan mode private")
    lab.gw.ip(f"addr add {VIRTUAL[4]}/32 dev vrrp.1")
    lab.gw.ip(f"addr add {VIRTUAL[6]}/128 dev vrrp.1 nodad")
    lab.gw.ip("link set vrrp.1 up")
    yield
    lab.gw.ip("link del vrrp.1")


def network(family):
    if family == 4:
        return IP(src=A.LAN1[4], dst=A.INET[4])
    return IPv6(src=A.LAN1[6], dst=A.INET[6])


def classes(lab):
    """Frames that look like something else than untagged IP to the gateway, by name."""
    to_us = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    to = lambda mac: Ether(src=lab.lan1.mac("eth0"), dst=mac)
    q, ad = (lambda vid, prio=0: Dot1Q(vlan=vid, prio=prio)), (lambda vid: Dot1AD(vlan=vid))
    return {
        "untagged": to_us,
        "priority tag": to_us / q(0),
        "priority tag with a priority": to_us / q(0, 7),
        "priority tag of 802.1ad": to_us / ad(0),
        "two priority tags": to_us / q(0) / q(0),
        "sub-port behind a priority tag": to_us / q(0) / q(77),
        "priority tag behind a sub-port": to_us / q(77) / q(0),
        "sub-port behind an 802.1ad priority tag": to_us / ad(0) / q(77),
        "sub-port": to_us / q(77),
        "foreign VLAN": to_us / q(99),
        "802.1ad VLAN": to_us / ad(77),
        "QinQ": to_us / q(77) / q(99),
        "another MAC": to(OTHER_MAC),
        "virtual router": to(VIRTUAL_MAC),
        "priority tag, virtual router": to(VIRTUAL_MAC) / q(0),
        "broadcast": to("ff:ff:ff:ff:ff:ff"),
        "multicast": to("01:00:5e:00:00:05"),
    }


@pytest.mark.parametrize(("mode", "settings"), [("auto", "keep"), ("generic", "keep"), ("auto", "router")])
def test_no_frame_class_passes_the_rules(gw_with, lab, wire, kernel_forwards, kernel_vlan, virtual_router, mode, settings):
    """Everything is denied, and the kernel forwards: of no class of frames anything comes out."""
    gw_with(lab_config(extra=SUB_PORT, acl=[{"policy": "accept", "ip_protocol": "icmp"}], acl_default="drop", mode=mode, kernel_settings=settings))
    kernel_forwards()
    out, send = wire.sniffer(lab.wan, "gw"), wire.sender(lab.lan1, "eth0")
    sent = {}
    for name, head in classes(lab).items():
        for family in (4, 6):
            sent[next(_mark)] = (name, family)
            send.send(head / network(family) / UDP(sport=7, dport=7) / Raw(marked(max(sent))))
    escaped = {sent.get(mark_of(f)) for f in out.drain(quiet=0.5)} - {None}
    assert not escaped, sorted(escaped)


def test_priority_tags_are_none(gw_with, lab, wire, kernel_forwards):
    """First packet and followers of a flow go as without the tag: translated, by worker and XDP."""
    gw = gw_with(nat_config())
    kernel_forwards()
    out, send = wire.sniffer(lab.wan, "gw"), wire.sender(lab.lan1, "eth0")
    head = classes(lab)["priority tag"]
    for family in (4, 6):
        for n in range(5):
            mark = next(_mark)
            send.send(head / network(family) / UDP(sport=4001, dport=7) / Raw(marked(mark)))
            got = out.until(lambda p, m=mark: mark_of(bytes(p)) == m)
            assert got is not None, f"IPv{family}, packet {n}"
            assert Dot1Q not in got
            if family == 4:
                assert (got[IP].src, got[IP].ttl) == (A.GW_WAN[4], 63)
            else:
                assert (got[IPv6].src, got[IPv6].hlim) == (A.LAN1[6], 63)
    assert gw.ports()["0"]["fast"] >= 6


def arrives(sniffer, mark):
    return sniffer.until(lambda p: mark_of(bytes(p)) == mark)


def test_a_virtual_router(gw_with, lab, wire, virtual_router):
    """Hosts send to its MAC: the gateway forwards, by worker and XDP; what is for its addresses, the kernel answers."""
    gw = gw_with(nat_config())
    out, send = wire.sniffer(lab.wan, "gw"), wire.sender(lab.lan1, "eth0")
    head = classes(lab)["virtual router"]
    for family in (4, 6):
        for _ in range(5):
            mark = next(_mark)
            send.send(head / network(family) / UDP(sport=4002, dport=7) / Raw(marked(mark)))
            got = arrives(out, mark)
            assert got is not None, f"IPv{family}"
            assert (got[IP].src, got[IP].ttl) == (A.GW_WAN[4], 63) if family == 4 else got[IPv6].hlim == 63
        assert lab.lan1.ping(VIRTUAL[family], count=3) == 3
    assert gw.ports()["0"]["fast"] >= 6
    # The backup of a virtual router has the device and no address: it forwards nothing (RFC 5798 6.4.2).
    for family, bits in ((4, 32), (6, 128)):
        lab.gw.ip(f"addr del {VIRTUAL[family]}/{bits} dev vrrp.1")
    within(3, "the backup forwards nothing", lambda: not send_and_see(send, out, head))


def send_and_see(send, out, head):
    mark = next(_mark)
    send.send(head / network(4) / UDP(sport=4002, dport=7) / Raw(marked(mark)))
    return out.until(lambda p: mark_of(bytes(p)) == mark, timeout=0.3) is not None


@pytest.mark.parametrize("mode", ["auto", "generic"])
def test_dhcp_offers_reach_a_client_whatever_addresses_the_port_has(gw_with, lab, wire, mode):
    """The port has addresses; the offer is unicast to one that it does not have. Others' are judged as all traffic."""
    gw_with(lab_config(mode=mode))
    lab.gw.ip("addr add 169.254.7.7/16 dev wan")
    client, send = wire.sniffer(lab.gw, "wan"), wire.sender(lab.wan, "gw")
    mac = lab.gw.mac("wan")

    def offer(chaddr, mark):
        head = Ether(src=lab.wan.mac("gw"), dst=mac) / IP(src="198.51.100.1", dst="198.51.100.77")
        bootp = BOOTP(op=2, yiaddr="198.51.100.77", chaddr=bytes.fromhex(chaddr.replace(":", "")))
        send.send(head / UDP(sport=67, dport=68) / bootp / Raw(b"\x63\x82\x53\x63" + marked(mark)))

    try:
        others, ours = next(_mark), next(_mark)
        offer(OTHER_MAC, others)
        offer(mac, ours)
        seen = [mark_of(f) for f in client.drain()]
        assert ours in seen and others not in seen, seen
    finally:
        lab.gw.ip("addr del 169.254.7.7/16 dev wan")
