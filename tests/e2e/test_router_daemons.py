"""What is the kernel's goes there: OSPF, BFD, VRRP, DHCPv6, router advertisements, IGMP and MLD, by the daemons that
routers run. XDP forwards meanwhile, in native and in generic mode."""

import contextlib
import json
import signal
import socket
import struct
import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.routers import Bird, Frr, Keepalived, Vrrp, dnsmasq
from harness.waiting import within
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

# Behind the point of presence, announced by OSPF alone.
NET = {4: "203.0.113.192/26", 6: "2001:db8:ef::/64"}
BEHIND = {4: "203.0.113.193", 6: "2001:db8:ef::1"}
PLAIN, VMAC = (51, 53), (52, 54)
VIRTUAL = [
    Vrrp(51, 4, False, ["192.0.2.6/26"]),
    Vrrp(52, 4, True, ["192.0.2.7/26"]),
    Vrrp(53, 6, False, ["fe80::53/64", "2001:db8:1::53/64"]),
    # A router's address may be link-local alone (RFC 5798 5.1.1.2): hosts learn it by router advertisements.
    Vrrp(54, 6, True, ["fe80::54/64"]),
]
ALL = {v.vrid for v in VIRTUAL}


@pytest.fixture(params=["auto", "generic"], scope="module")
def mode(request):
    return request.param


@pytest.fixture
def router(gw_with, accounting, mode):
    """The gateway, with XDP in native or generic mode."""
    gw = gw_with(lab_config(mode=mode))
    if mode == "generic":
        # XDP then sees what the machine itself sends to groups that it has joined, which no device has received.
        accounting.close()
    assert gw.ports()["0"]["xdp_mode"] == ("native" if mode == "auto" else "generic")
    return gw


@contextlib.contextmanager
def forwarding(gateway, lab, dest):
    """A host of the branch sends to `dest` all the while; XDP forwards it."""
    before = gateway.ports()["0"]["fast"]
    ping = lab.lan1.popen(["ping", "-n", "-i", "0.05", "-q", dest])
    try:
        yield
    finally:
        ping.send_signal(signal.SIGINT)
        said = ping.communicate(timeout=5)[0]
    sent, received = (int(said.split(" packets transmitted, ")[0].split()[-1]), int(said.split(" received")[0].split()[-1]))
    assert received >= sent - 2 and sent > 10, said
    # Questions, but for the first ones; answers are another port's.
    assert gateway.ports()["0"]["fast"] - before >= sent - 5


def test_ospf_and_bfd(router, mode, lab, daemons):
    """Adjacencies of both versions become full and BFD is up; what is announced is reached by XDP; BFD notices an end."""
    # On a network with a designated router it takes longer until there are routes.
    kind = "ptp" if mode == "auto" else "broadcast"
    frr = Frr(daemons, lab.gw, "express", kind)
    bird = Bird(daemons, lab.pop, "gw", kind, NET[4], NET[6])
    with forwarding(router, lab, A.INET[4]):
        for proto in ("ospf4", "ospf6"):
            within(15, f"{proto} is full", lambda p=proto: "Full/" in bird.show(f"ospf neighbors {p}"), daemons.tail)
        within(5, "BFD is up", lambda: bird.show("bfd sessions").count("Up") == 2, daemons.tail)
    if mode == "auto":
        what_is_announced_is_reached(router, lab, daemons)
    # Without BFD it would take the dead interval; FRR's BFD needs 0.9 s.
    peers = lambda: {p["peer"]: p["status"] for p in frr.show("bfdd", "bfd peers") or []}
    assert len(peers()) == 2 and set(peers().values()) == {"up"}, peers()
    bird.end(signal.SIGKILL)
    within(2.5, "BFD notices that the neighbor is gone", lambda: "up" not in peers().values(), daemons.tail)
    within(2, "so do routes", lambda: not any(learned(lab, f) for f in (4, 6)), daemons.tail)


def learned(lab, family):
    """The route to the network that OSPF announces."""
    return lab.gw.ip(f"-{family} route show {NET[family]} proto ospf").stdout


def what_is_announced_is_reached(router, lab, daemons):
    for family, bits in ((4, 32), (6, 128)):
        lab.pop.ip(f"addr replace {BEHIND[family]}/{bits} dev lo")
        within(10, f"an IPv{family} route by OSPF", lambda f=family: learned(lab, f), daemons.tail)
        within(3, "it is reached", lambda f=family: lab.lan1.ping(BEHIND[f], count=2) == 2)
    before = router.ports()["0"]["fast"]
    for family in (4, 6):
        assert lab.lan1.ping(BEHIND[family], count=10) == 10
    assert router.ports()["0"]["fast"] - before >= 16


def masters(ours, theirs):
    """Who has the virtual routers: ours, theirs."""
    return ours.has(), theirs.has()


def test_vrrp(router, lab, daemons, wire):
    """One master at a time: the other router while it speaks, the gateway when it is gone. Then the gateway forwards for the
    virtual router, plain and with an Ethernet address of its own."""
    theirs = Keepalived(daemons, lab.lan1, "eth0", VIRTUAL, 200)
    within(5, "the other router is the master", lambda: theirs.has() == ALL, daemons.tail)
    ours = Keepalived(daemons, lab.gw, "lan-a", VIRTUAL, 100)
    try:
        with forwarding(router, lab, A.INET[6]):
            within(3, "ours has started", lambda: daemons.tail().count("Entering BACKUP STATE") >= 4, daemons.tail)
            # More than twice the time in which a backup takes over that hears nothing.
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert masters(ours, theirs) == (set(), ALL), daemons.tail()
                time.sleep(0.1)
            out, send = wire.sniffer(lab.wan, "gw"), wire.sender(lab.lan1, "eth0")
            assert not forwarded(lab, send, out, VIRTUAL[1].mac, 4, timeout=0.3), "a backup forwards nothing"
            assert not forwarded(lab, send, out, VIRTUAL[3].mac, 6, timeout=0.3), "a backup forwards nothing"
            theirs.end()
            within(2, "the gateway is the master", lambda: ours.has() == ALL, daemons.tail)
            for v in VIRTUAL:
                own = f"{v.addresses[0].split('/')[0]}" + ("%eth0" if v.family == 6 else "")
                within(3, f"{own} answers", lambda o=own: answers(lab, o), daemons.tail)
                mac = v.mac if v.vmac else lab.gw.mac("lan-a")
                within(3, f"v{v.vrid} forwards", lambda v=v, m=mac: forwarded(lab, send, out, m, v.family))
                assert all(forwarded(lab, send, out, mac, v.family) for _ in range(3))
        theirs = Keepalived(daemons, lab.lan1, "eth0", VIRTUAL, 200)
        within(5, "the other router is the master again", lambda: masters(ours, theirs) == (set(), ALL), daemons.tail)
    finally:
        daemons.close()
        within(3, "no address is left", lambda: not (ours.has() | theirs.has()))


def answers(lab, address):
    return lab.lan1.run(["ping", "-n", "-c", "1", "-W", "1", address], check=False).returncode == 0


_mark = iter(range(1, 1 << 30))


def forwarded(lab, send, out, mac, family, timeout=2.0):
    """Whether a packet to this Ethernet address comes out on the other side."""
    mark = next(_mark)
    network = IP(src=A.LAN1[4], dst=A.INET[4]) if family == 4 else IPv6(src=A.LAN1[6], dst=A.INET[6])
    send.send(Ether(src=lab.lan1.mac("eth0"), dst=mac) / network / UDP(sport=4003, dport=7) / Raw(marked(mark)))
    return out.until(lambda p: mark_of(bytes(p)) == mark, timeout=timeout) is not None


SOLICIT, ADVERTISE = 1, 2


def solicit(xid):
    """A SOLICIT of a client (RFC 8415): its identifier, and a question for one address."""
    option = lambda code, data: struct.pack(">HH", code, len(data)) + data
    duid = struct.pack(">HH", 3, 1) + bytes.fromhex("020000000042")
    body = option(1, duid) + option(3, struct.pack(">III", 7, 0, 0)) + option(8, b"\0\0")
    return struct.pack(">I", SOLICIT << 24 | xid) + body


def advertised(ns, dev, xid):
    """Whether a server answers a client of this machine: sent to all servers, answered to the link-local address."""
    with ns.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        index = _ifindex(ns, dev)
        client.bind(("::", 546, 0, index))
        client.settimeout(0.5)
        client.sendto(solicit(xid), ("ff02::1:2", 547, 0, index))
        with contextlib.suppress(TimeoutError):
            while True:
                data, sender = client.recvfrom(2048)
                if struct.unpack(">I", data[:4])[0] == ADVERTISE << 24 | xid:
                    return sender[0].startswith("fe80")
    return False


def _ifindex(ns, dev):
    return json.loads(ns.out(["ip", "-j", "link", "show", dev]))[0]["ifindex"]


def test_dhcpv6_and_router_advertisements(router, lab, daemons):
    """The gateway's machine as a client of the provider's server, and as the server of the branch."""
    dnsmasq(daemons, lab.wan, "gw", "--dhcp-range=2001:db8:100::1000,2001:db8:100::1fff,64,2m", "--enable-ra")
    dnsmasq(daemons, lab.gw, "lan-a", "--dhcp-range=2001:db8:1::1000,2001:db8:1::1fff,64,2m", "--enable-ra")
    for number, (ns, dev) in enumerate([(lab.gw, "wan"), (lab.lan1, "eth0")], 1):
        within(5, f"{ns.name} is answered", lambda n=ns, d=dev, x=number: advertised(n, d, x), daemons.tail)
    # dnsmasq of the branch hears a host that asks for routers, sent to all of them.
    with lab.lan1.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as host:
        host.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        asked = lambda: daemons.tail().count("RTR-SOLICIT(lan-a)")
        index = _ifindex(lab.lan1, "eth0")
        before = asked()
        host.sendto(struct.pack(">BBHI", 133, 0, 0, 0), ("ff02::2", 0, 0, index))
        within(3, "the question for routers is heard", lambda: asked() > before, daemons.tail)


GROUP = {4: "239.7.7.7", 6: "ff15::77"}


def igmp_query():
    """A general query of IGMPv2: answers are due within 0.1 s (RFC 2236)."""
    body = bytearray(struct.pack(">BBH4s", 0x11, 1, 0, bytes(4)))
    struct.pack_into(">H", body, 2, checksum(body))
    ip = bytearray(struct.pack(">BBHHHBBH4s4sI", 0x46, 0xC0, 32, 0, 0, 1, 2, 0, socket.inet_aton(A.LAN1[4]), socket.inet_aton("224.0.0.1"), 0x94040000))
    struct.pack_into(">H", ip, 10, checksum(ip))
    return bytes.fromhex("01005e000001") + b"%s" + b"\x08\x00" + bytes(ip + body)


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mld_query(src):
    """A general query of MLDv1: answers are due within 0.1 s (RFC 2710)."""
    src, dst = socket.inet_pton(socket.AF_INET6, src), socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = bytearray(struct.pack(">BBHHH16s", 130, 0, 0, 100, 0, bytes(16)))
    struct.pack_into(">H", body, 2, checksum(bytearray(src + dst + struct.pack(">II", len(body), 58)) + body))
    hop_by_hop = bytes.fromhex("3a00050200000100")
    head = struct.pack(">IHBB16s16s", 6 << 28, len(hop_by_hop) + len(body), 0, 1, src, dst)
    return bytes.fromhex("333300000001") + b"%s" + b"\x86\xdd" + head + hop_by_hop + bytes(body)


def test_queries_for_multicast_groups(router, lab, wire):
    """The machine has joined a group of each family, and answers the querier in the querier's version."""
    index = _ifindex(lab.gw, "lan-a")
    link_local = next(
        a["local"] for a in json.loads(lab.lan1.out(["ip", "-j", "-6", "addr", "show", "dev", "eth0"]))[0]["addr_info"] if a["scope"] == "link"
    )
    with lab.gw.socket(socket.AF_INET, socket.SOCK_DGRAM) as four, lab.gw.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        request = struct.pack("=4s4si", socket.inet_aton(GROUP[4]), bytes(4), index)
        four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        group = socket.inet_pton(socket.AF_INET6, GROUP[6])
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=i", index))
        heard, send = wire.sniffer(lab.lan1, "eth0"), wire.sender(lab.lan1, "eth0")
        own = bytes.fromhex(lab.lan1.mac("eth0").replace(":", ""))
        # Reports of IGMPv2 and MLDv1 are sent to the group; those that the kernel sends by itself are of later versions.
        send.send(igmp_query().replace(b"%s", own))
        report = socket.inet_aton(GROUP[4])
        is4 = lambda p: IP in p and p[IP].dst == GROUP[4] and bytes(p)[38:39] == b"\x16" and report in bytes(p)[38:]
        assert heard.until(is4, timeout=5) is not None, "no report of IGMPv2"
        send.send(mld_query(link_local).replace(b"%s", own))
        is6 = lambda p: IPv6 in p and p[IPv6].dst == GROUP[6] and bytes(p)[62:63] == b"\x83"
        assert heard.until(is6, timeout=5) is not None, "no report of MLDv1"
