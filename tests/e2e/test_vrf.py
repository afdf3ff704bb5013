"""VRFs: two LANs with the same networks and the same hosts, which share a line to the Internet."""

import socket

import pytest

from harness.lab import Addresses as A
from harness.nat import forward, nat_config, seen_as, silent, table, talk
from harness.port_counters import restarted

pytestmark = pytest.mark.sag

HOST, OWN = "10.99.0.5", "10.99.0.1"
HOST6, OWN6 = "fd99::5", "fd99::1"
OUTSIDE6 = {"a": "2001:db8:f1::/64", "b": "2001:db8:f2::/64"}
SERVER, WAN = A.INET[4], A.GW_WAN[4]


def leak(vrf):
    """The VRF's way to the Internet: the WAN port, which is in the default VRF."""
    routes = [("0.0.0.0/0", A.WAN_ROUTER[4]), ("::/0", A.WAN_ROUTER[6])]
    return "".join(table("route", vrf=vrf, destination=to, next_hop=via, port="1") for to, via in routes)


def config(first="a"):
    """Port 0 in the VRF `first`, port 3 in b, the others in the default one."""
    names = [first, "b"]
    text = nat_config(
        *(f'\n[[vrf]]\nname = "{name}"\n' for name in names),
        *(leak(name) for name in names),
        *(forward(f"web-{name}", "tcp", f"800{n}", (HOST, "80"), vrf=name) for n, name in enumerate(names)),
        *(
            table("static_nat", id=f"six-{name}", vrf=name, internal="fd99::/64", external=OUTSIDE6[other])
            for name, other in zip(names, OUTSIDE6, strict=True)
        ),
    )
    for device, name in zip(("lan-a", "lan-b"), names, strict=True):
        text = text.replace(f'device = "{device}"\n', f'device = "{device}"\nvrf = "{name}"\n')
    return text


@pytest.fixture(scope="module")
def overlapping(lab, hidden):
    """Hosts of the same address on both LANs, and the gateway's equal addresses."""
    for device, host in (("lan-a", lab.lan1), ("lan-b", lab.lan2)):
        for own, address, length in ((OWN, HOST, 24), (OWN6, HOST6, 64)):
            lab.gw.ip(f"addr add {own}/{length} dev {device}")
            host.ip(f"addr add {address}/{length} dev eth0")
    for outside in OUTSIDE6.values():
        lab.wan.ip(f"-6 route add {outside} via {A.GW_WAN[6]}")
    return lab


@pytest.fixture
def gw(gw_cleared, overlapping):
    return gw_cleared(config())


def hosts(lab):
    return [lab.lan1, lab.lan2]


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_the_same_five_tuple_from_both(gw, lab, peers, kind):
    """Each has a port of its own outside, and its own answers; XDP forwards them."""
    before = gw.status()["fastpath_packets"]
    if kind == "udp":
        server = peers.udp(lab.inet, SERVER, 5600)
        clients = [peers.udp(host, HOST, 5601) for host in hosts(lab)]
        seen = [[seen_as(c, server, (SERVER, 5600), b"%d %d" % (n, i)) for i, c in enumerate(clients)] for n in range(5)]
        ports = seen[0]
        assert all(again == ports for again in seen)
    else:
        listener = peers.listen(lab.inet, SERVER, 5610)
        ports = []
        for host in hosts(lab):
            client = peers.connect(host, (SERVER, 5610), source=(HOST, 5611))
            accepted, peer = peers.accept(listener)
            ports.append(peer)
            talk(client, accepted, 50_000)
    assert {address for address, _ in ports} == {WAN} and len(set(ports)) == 2
    assert gw.status()["fastpath_packets"] >= before + 8
    for name, port in zip("ab", ports, strict=True):
        mine = gw.ctl("sessions", "--vrf", name, "--proto", kind)["sessions"]
        assert [(s["src"], s["nat_sport"], s["vrf"], s["to_vrf"]) for s in mine] == [(HOST, port[1], name, None)]


def test_pings_and_fragments_and_path_mtu(gw, lab, peers):
    for host in hosts(lab):
        assert host.ping(SERVER, count=3, options=["-I", HOST]) == 3
    server = peers.udp(lab.inet, SERVER, 5620)
    clients = [peers.udp(host, HOST, 5621) for host in hosts(lab)]
    for n, client in enumerate(clients * 2):
        seen_as(client, server, (SERVER, 5620), b"%d" % n * 4000)
    # The provider's router says that 1,400 bytes fit: to the host that has sent too much.
    for host in hosts(lab):
        big = peers.udp(host, HOST, 5622)
        big.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
        big.connect((A.NARROW[4], 9))
        with pytest.raises(OSError):
            for _ in range(50):
                big.send(b"x" * 1460)
                silent(big, 0.05)
        assert big.getsockopt(socket.IPPROTO_IP, 14) == 1400  # IP_MTU
        host.ip("route flush cache")


def test_forwards_to_both(gw, lab, peers):
    for n, host in enumerate(hosts(lab)):
        listener = peers.listen(host, HOST, 80)
        client = peers.connect(lab.inet, (WAN, 8000 + n))
        accepted, peer = peers.accept(listener)
        assert peer[0] == SERVER
        talk(client, accepted, 50_000)


def test_prefixes_of_ipv6(gw, lab, peers):
    """Equal networks inside, each known by another one outside, in both directions."""
    server = peers.udp(lab.inet, A.INET[6], 5630)
    clients = [peers.udp(host, HOST6, 5631) for host in hosts(lab)]
    for n in range(3):
        for client, outside in zip(clients, OUTSIDE6.values(), strict=True):
            client.sendto(b"%d" % n, (A.INET[6], 5630))
            got, peer = server.recvfrom(100)
            assert got == b"%d" % n and peer[0].startswith(outside.split("::")[0])
            server.sendto(b"re", peer[:2])
            assert client.recvfrom(100)[0] == b"re"


def test_nothing_crosses(gw, lab, peers):
    """Neither from LAN to LAN, nor to the gateway's addresses of another VRF, nor by external addresses."""
    assert lab.lan2.ping(A.GW_LAN_B[4], count=1) == 1
    for address in (A.LAN2[4], A.GW_LAN_B[4], A.GW_EXPRESS[4]):
        assert lab.lan1.ping(address, count=1, wait=1) == 0
    peers.listen(lab.lan2, HOST, 80)
    with pytest.raises(OSError):
        peers.connect(lab.lan1, (WAN, 8001), source=(HOST, 0), timeout=0.5)
    # Equal hosts of one VRF and another do not hear each other.
    other = peers.udp(lab.lan2, HOST, 5640)
    peers.udp(lab.lan1, A.LAN1[4], 0).sendto(b"x", (HOST, 5640))
    assert silent(other, 0.2)


def test_a_restart_and_a_port_that_moves(gw, lab, peers, gateway, accounting):
    server = peers.udp(lab.inet, SERVER, 5650)
    clients = [peers.udp(host, HOST, 5651) for host in hosts(lab)]
    ports = [seen_as(c, server, (SERVER, 5650)) for c in clients]
    gateway.kill()
    restarted(gateway, accounting, config())
    assert [seen_as(c, server, (SERVER, 5650)) for c in clients] == ports, "sessions of VRFs outlive the daemon"
    # In another VRF the host is another one; the session of the old one is nobody's.
    gateway.reload(config("c"))
    # Until a worker has looked at the session again, its packets may go by the old action.
    server.sendto(b"late", ports[0])
    while not silent(clients[0], 0.2):
        server.sendto(b"late", ports[0])
    assert seen_as(clients[0], server, (SERVER, 5650)) != ports[0]
    assert seen_as(clients[1], server, (SERVER, 5650)) == ports[1]
    assert [s["vrf"] for s in gateway.ctl("sessions", "--vrf", "c", "--nat")["sessions"]] == ["c"]
