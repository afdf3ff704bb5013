"""NAT for ordinary hosts and programs: out, in by port forwards, hairpin, and the gateway itself."""

import re
import socket
import time

import pytest

from harness.lab import Addresses as A
from harness.nat import LAN2_OTHER, SPARE_EXPRESS, SPARE_WAN, forward, nat_config, receive, seen_as, silent, table, talk
from harness.traffic import http_server, iperf
from harness.waiting import TIMEOUT
from harness.wire import ICMP, IP, UDP, Ether, IPv6, Raw, fragment, marked

pytestmark = pytest.mark.sag

WAN, INET, NARROW = A.GW_WAN[4], A.INET[4], A.NARROW[4]
LAN1, LAN2, POP = A.LAN1[4], A.LAN2[4], A.POP[4]

FORWARDS = (
    forward("web", "tcp", "8080", (LAN1, "80")),
    forward("games", "udp", "7000/7009", (LAN2, "9000/9009")),
    forward("all", "any", (SPARE_WAN, "any"), (LAN2_OTHER, "any")),
)
# Towards the leased line: one LAN with an address that no host has, the other by the port's own.
PRIVATE = (
    table("snat", id="lan-a", cidr_block="192.0.2.0/26", snat_ip=SPARE_EXPRESS),
    table("snat", id="lan-b", cidr_block="192.0.2.64/26", snat_ip=A.GW_EXPRESS[4]),
)
CONFIG = nat_config(*FORWARDS, *PRIVATE)


@pytest.fixture
def gw(gw_changed, hidden):
    return gw_changed(CONFIG)


def sources(frames):
    """Addresses that IPv4 frames come from."""
    packets = (Ether(frame) for frame in frames)
    return {packet[IP].src for packet in packets if IP in packet}


# --- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_tcp_bulk_goes_by_xdp(gw, lab, wire, reverse):
    outside = wire.sniffer(lab.inet, "eth0")
    before, forwarded = gw.status()["fastpath_packets"], sum(p["forwarded"] for p in gw.ports().values())
    output = iperf(lab.lan1, lab.inet, INET, seconds=1, reverse=reverse)
    assert output["mbit"] > 20, output
    fast = gw.status()["fastpath_packets"] - before
    forwarded = sum(p["forwarded"] for p in gw.ports().values()) - forwarded
    assert forwarded > 1000
    assert fast > 0.95 * forwarded, f"{fast} of {forwarded} packets by XDP"
    seen = [outside.raw(0.1) for _ in range(50)]
    assert sources(frame for _, frame in filter(None, seen)) == {WAN}


def test_udp_bulk(gw, lab):
    # The machine has other work at times: one of three runs must pass with at most 1 % loss.
    for _ in range(3):
        output = iperf(lab.lan2, lab.inet, INET, seconds=1, udp_mbit=20)
        assert output["packets"] > 500
        if output["lost"] <= output["packets"] // 100:
            return
    raise AssertionError(output)


def test_udp_keeps_its_port(gw, lab, peers):
    server = peers.udp(lab.inet, INET, 5300)
    for port in (1024, 5301, 40000, 65535):
        client = peers.udp(lab.lan1, port=port)
        assert seen_as(client, server, (INET, 5300)) == (WAN, port)
        # Another destination, the same outside port: the mapping does not depend on it.
        assert seen_as(client, peers.udp(lab.inet, NARROW), peers.made[-1].getsockname()) == (WAN, port)


def test_tcp_keeps_its_port(gw, lab, peers):
    listener = peers.listen(lab.inet, INET, 5310)
    client = peers.connect(lab.lan1, (INET, 5310), source=("0.0.0.0", 45001))
    server, peer = peers.accept(listener)
    assert peer == (WAN, 45001)
    talk(client, server)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.close()
    assert client.recv(1) == b""


def test_same_source_port_of_two_hosts(gw, lab, peers):
    """One keeps it; the other gets a port of the same parity, and below 1024 if it was below."""
    server = peers.udp(lab.inet, INET, 5320)
    for port in (700, 701, 46000, 46001):
        one, other = peers.udp(lab.lan1, port=port), peers.udp(lab.lan2, port=port)
        first, second = seen_as(one, server, (INET, 5320)), seen_as(other, server, (INET, 5320))
        assert first == (WAN, port)
        assert second[0] == WAN and second[1] != port
        assert second[1] % 2 == port % 2
        assert (second[1] < 1024) == (port < 1024), second
        # Answers still reach the right one.
        for peer, sock in ((second, other), (first, one)):
            server.sendto(b"again", peer)
            assert sock.recv(100) == b"again"

    listener = peers.listen(lab.inet, INET, 5321)
    seen = set()
    for ns in (lab.lan1, lab.lan2):
        client = peers.connect(ns, (INET, 5321), source=("0.0.0.0", 46002))
        server, peer = peers.accept(listener)
        seen.add(peer)
        talk(client, server, 20000)
    assert len(seen) == 2 and {address for address, _ in seen} == {WAN}


def test_ping(gw, lab, wire):
    outside = wire.sniffer(lab.inet, "eth0")
    assert lab.lan1.ping(INET, count=10) == 10
    assert lab.lan2.ping(INET, count=10, options=["-s", 1400]) == 10
    assert sources(outside.drain()) == {WAN}
    # The answers of the routers on the path reach the hosts too.
    assert lab.lan1.ping(A.WAN_ROUTER[4], count=3) == 3


def test_pings_with_one_identifier(gw, lab, wire):
    """Two hosts ping with the same identifier: outside there are two."""
    outside = wire.sniffer(lab.wan, "gw")
    inside = [wire.sniffer(ns, "eth0") for ns in (lab.lan1, lab.lan2)]
    for ns, source, dev in ((lab.lan1, LAN1, "lan-a"), (lab.lan2, LAN2, "lan-b")):
        packet = Ether(src=ns.mac("eth0"), dst=lab.gw.mac(dev)) / IP(src=source, dst=INET)
        wire.sender(ns, "eth0").send(packet / ICMP(type=8, id=4711, seq=1) / Raw(marked(1)))
    requests = [Ether(f) for f in outside.drain() if ICMP in Ether(f)]
    ids = [p[ICMP].id for p in requests if p[ICMP].type == 8]
    assert len(ids) == 2 and len(set(ids)) == 2, ids
    assert 4711 in ids
    for sniffer in inside:
        reply = sniffer.until(lambda p: ICMP in p and p[ICMP].type == 0)
        assert reply is not None and reply[ICMP].id == 4711


@pytest.mark.parametrize("method", [[], ["-I"], ["-T", "-p", 80]], ids=["udp", "icmp", "tcp"])
def test_traceroute(gw, lab, method):
    """The routers' errors quote what they saw; the host gets them about its own packets."""
    output = lab.lan1.out(["traceroute", "-n", "-q", 2, "-w", 2, *method, INET])
    hops = re.findall(r"(?m)^\s*\d+\s+(\S+)", output)
    assert hops == [A.GW_LAN_A[4], A.WAN_ROUTER[4], INET], output
    assert "*" not in output


def test_closed_ports_of_the_gateway_are_silent(gw, gw_changed, lab, peers):
    """RFC 5382 REQ-4: a SYN that nobody wants gets no answer, so that a host inside may open the same connection."""
    connect = lambda port: peers.connect(lab.inet, (WAN, port), timeout=0.5)
    before = gw.drops().get(("1", "nat-filtered"), 0)
    with pytest.raises(TimeoutError):
        connect(4321)
    assert gw.drops()[("1", "nat-filtered")] > before
    # A socket of the gateway wants it from the moment on at which it listens.
    listener = peers.listen(lab.gw, "0.0.0.0", 4321)
    connect(4321)
    listener.close()
    gw_changed(nat_config(*FORWARDS, *PRIVATE, table("nat", closed_ports="kernel")))
    with pytest.raises(ConnectionRefusedError):
        connect(4322)


def test_refused_connections_are_reported(gw, lab, peers):
    """An RST, and an ICMP port unreachable about a translated datagram."""
    with pytest.raises(ConnectionRefusedError):
        peers.connect(lab.lan1, (INET, 5399))
    client = peers.udp(lab.lan1)
    client.connect((INET, 5399))
    client.send(b"anyone?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def test_ipv6_is_left_alone(gw, lab, wire):
    outside = wire.sniffer(lab.inet, "eth0")
    assert lab.lan1.ping(A.INET[6], count=5) == 5
    frames = [Ether(f) for f in outside.drain()]
    assert A.LAN1[6] in {p[IPv6].src for p in frames if IPv6 in p}


def test_between_lans_nothing_is_translated(gw, lab, peers):
    server = peers.udp(lab.lan2, LAN2, 5330)
    assert seen_as(peers.udp(lab.lan1, port=5331), server, (LAN2, 5330)) == (LAN1, 5331)


# --- in ------------------------------------------------------------------------------------------


def test_forwarded_tcp_port(gw, lab, peers):
    listener = peers.listen(lab.lan1, LAN1, 80)
    client = peers.connect(lab.inet, (WAN, 8080), source=(INET, 0))
    server, peer = peers.accept(listener)
    assert peer == client.getsockname(), "the client's address is not translated"
    talk(client, server)
    assert client.getpeername() == (WAN, 8080)


def test_forwarded_udp_range(gw, lab, peers):
    for n in (0, 4, 9):
        server = peers.udp(lab.lan2, LAN2, 9000 + n)
        client = peers.udp(lab.inet, INET)
        assert seen_as(client, server, (WAN, 7000 + n)) == client.getsockname()


def test_a_forwarded_host_speaks_first(gw, lab, peers):
    """What the server sends on its own leaves by the port at which it is reached."""
    server, client = peers.udp(lab.lan2, LAN2, 9005), peers.udp(lab.inet, INET)
    assert seen_as(server, client, client.getsockname()) == (WAN, 7005)


@pytest.mark.parametrize("port", [6999, 7010, 8081])
def test_next_to_the_forwards_is_the_box(gw, lab, peers, port):
    """No entry, no mapping: the kernel of the gateway answers, and refuses UDP; a SYN that nobody wants gets no answer."""
    client = peers.udp(lab.inet, INET)
    client.connect((WAN, port))
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)
    with pytest.raises(TimeoutError):
        peers.connect(lab.inet, (WAN, port), source=(INET, 0), timeout=0.3)


def test_a_forwarded_port_without_a_server(gw, lab, peers):
    """The host's own refusals get out: an RST, and an ICMP error that quotes the outside address."""
    with pytest.raises(ConnectionRefusedError):
        peers.connect(lab.inet, (WAN, 8080), source=(INET, 0))
    client = peers.udp(lab.inet, INET)
    client.connect((WAN, 7008))
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def test_a_whole_address(gw, lab, peers, wire):
    """Every protocol and port of an address, and the host's own traffic leaves by it."""
    listener = peers.listen(lab.lan2, LAN2_OTHER, 81)
    client = peers.connect(lab.inet, (SPARE_WAN, 81), source=(INET, 0))
    server, peer = peers.accept(listener)
    assert peer == client.getsockname()
    talk(client, server, 50000)
    udp = peers.udp(lab.lan2, LAN2_OTHER, 53)
    asker = peers.udp(lab.inet, INET)
    assert seen_as(asker, udp, (SPARE_WAN, 53)) == asker.getsockname()
    assert lab.inet.ping(SPARE_WAN, count=5, options=["-I", INET]) == 5
    outside = peers.udp(lab.inet, INET, 5340)
    assert seen_as(peers.udp(lab.lan2, LAN2_OTHER, 5341), outside, (INET, 5340)) == (SPARE_WAN, 5341)
    # A protocol that has no ports: GRE, as the far end sends it.
    caught = wire.sniffer(lab.lan2, "eth0")
    frame = Ether(src=lab.inet.mac("eth0"), dst=lab.wan.mac("inet")) / IP(src=INET, dst=SPARE_WAN, proto=47)
    wire.sender(lab.inet, "eth0").send(frame / Raw(b"\0\0\x88\xb5" + marked(47)))
    assert caught.until(lambda p: IP in p and p[IP].proto == 47 and p[IP].dst == LAN2_OTHER) is not None


# --- hairpin -------------------------------------------------------------------------------------


def test_hairpin_by_a_forward(gw, lab, peers):
    """A host inside uses the public address of another: both see outside addresses alone."""
    listener = peers.listen(lab.lan1, LAN1, 80)
    client = peers.connect(lab.lan2, (WAN, 8080), source=("0.0.0.0", 47000))
    server, peer = peers.accept(listener)
    assert peer == (WAN, 47000)
    talk(client, server)


def test_hairpin_to_itself(gw, lab, peers):
    listener = peers.listen(lab.lan1, LAN1, 80)
    client = peers.connect(lab.lan1, (WAN, 8080), source=("0.0.0.0", 47001))
    server, peer = peers.accept(listener)
    assert peer == (WAN, 47001)
    talk(client, server, 50000)


def test_hairpin_between_mappings(gw_changed, hidden, lab, peers):
    """Two hosts that know each other's mapped ports, as learned from a rendezvous server."""
    gw = gw_changed(nat_config(filtering="endpoint-independent"))
    meeting = peers.udp(lab.inet, INET, 5350)
    one, other = peers.udp(lab.lan1, port=5351), peers.udp(lab.lan2, port=5351)
    where_one, where_other = (seen_as(s, meeting, (INET, 5350)) for s in (one, other))
    before = gw.ctl("nat")["totals"]["hairpinned"]
    assert seen_as(one, other, where_other) == where_one
    assert seen_as(other, one, where_one) == where_other
    assert gw.ctl("nat")["totals"]["hairpinned"] > before


def test_hairpin_switched_off(gw_changed, hidden, lab, peers):
    """Then the public address is the gateway's own: it refuses, since nobody listens there."""
    gw_changed(nat_config(*FORWARDS, table("nat", hairpin=False)))
    listener = peers.listen(lab.lan1, LAN1, 80, timeout=0.3)
    with pytest.raises(ConnectionRefusedError):
        peers.connect(lab.lan2, (WAN, 8080))
    with pytest.raises(TimeoutError):
        listener.accept()


# --- the leased line -----------------------------------------------------------------------------


def test_private_snat(gw, lab, peers):
    """Towards the leased line each LAN has the address of its entry, towards the Internet the port's."""
    server, outside = peers.udp(lab.pop, POP, 5360), peers.udp(lab.inet, INET, 5360)
    for ns, address in ((lab.lan1, SPARE_EXPRESS), (lab.lan2, A.GW_EXPRESS[4])):
        client = peers.udp(ns, port=5361)
        assert seen_as(client, server, (POP, 5360)) == (address, 5361)
        seen, seen_port = seen_as(client, outside, (INET, 5360))
        assert seen == WAN and seen_port % 2 == 1
        listener = peers.listen(lab.pop, POP, 5362)
        tcp = peers.connect(ns, (POP, 5362), source=("0.0.0.0", 5363))
        accepted, peer = peers.accept(listener)
        assert peer == (address, 5363)
        talk(tcp, accepted, 50000)
        listener.close()
        assert ns.ping(POP, count=3) == 3
    entries = {e["id"]: e for e in gw.ctl("nat")["entries"]}
    assert entries["lan-a"]["hits"] >= 3 and entries["lan-b"]["hits"] >= 3


def test_the_leased_line_reaches_the_branch_untranslated(gw, lab, peers):
    """Source NAT is for sessions from inside; traffic into the branch uses its own addresses."""
    server, client = peers.udp(lab.lan1, LAN1, 5370), peers.udp(lab.pop, POP)
    assert seen_as(client, server, (LAN1, 5370)) == client.getsockname()


# --- the gateway itself --------------------------------------------------------------------------


@pytest.mark.parametrize("address", [WAN, A.GW_LAN_A[4]], ids=["wan-address", "lan-address"])
def test_services_of_the_box(gw, lab, peers, address, tmp_path):
    (tmp_path / "hello").write_text("box")
    asker, source = (lab.inet, INET) if address == WAN else (lab.lan1, LAN1)
    with http_server(lab.gw, address, tmp_path) as url:
        assert asker.out(["curl", "-sS", "--max-time", 5, "--interface", source, url + "hello"]) == "box"
    server, client = peers.udp(lab.gw, address, 5380), peers.udp(asker, source)
    assert seen_as(client, server, (address, 5380)) == client.getsockname()
    assert asker.ping(address, count=5, options=["-I", source]) == 5


def test_the_box_from_inside_by_its_public_address(gw, lab, peers):
    """Management from a LAN: not hairpinned, since there is no entry and no mapping."""
    listener = peers.listen(lab.gw, WAN, 5381)
    client = peers.connect(lab.lan1, (WAN, 5381), source=("0.0.0.0", 5382))
    server, peer = peers.accept(listener)
    assert peer == (LAN1, 5382)
    talk(client, server, 50000)
    assert lab.lan1.ping(WAN, count=3) == 3


def test_connections_of_the_box(gw, lab, peers):
    listener, answerer = peers.listen(lab.inet, INET, 5390), peers.udp(lab.inet, INET, 5390)
    client = peers.connect(lab.gw, (INET, 5390))
    server, peer = peers.accept(listener)
    assert peer == (WAN, client.getsockname()[1])
    talk(client, server, 50000)
    asker = peers.udp(lab.gw)
    assert seen_as(asker, answerer, (INET, 5390)) == (WAN, asker.getsockname()[1])
    assert lab.gw.ping(INET, count=5) == 5


def test_the_box_and_a_host_on_the_same_port(gw, lab, peers):
    """A mapping has the port already: the gateway's own connections still get their answers."""
    listener = peers.listen(lab.inet, INET, 5391)
    inside = peers.connect(lab.lan1, (INET, 5391), source=("0.0.0.0", 5392))
    inside_server, peer = peers.accept(listener)
    assert peer == (WAN, 5392)
    other = peers.listen(lab.inet, NARROW, 5393)
    box = peers.connect(lab.gw, (NARROW, 5393), source=("0.0.0.0", 5392))
    box_server, peer = peers.accept(other)
    assert peer == (WAN, 5392)
    talk(box, box_server, 50000)
    talk(inside, inside_server, 50000)

    far, near = peers.udp(lab.inet, INET, 5394), peers.udp(lab.inet, NARROW, 5395)
    inside, box = peers.udp(lab.lan1, port=5396), peers.udp(lab.gw, port=5396)
    assert seen_as(inside, far, (INET, 5394)) == (WAN, 5396)
    assert seen_as(box, near, (NARROW, 5395)) == (WAN, 5396)
    assert seen_as(inside, far, (INET, 5394)) == (WAN, 5396)


def test_any_on_the_wan_address(gw_changed, hidden, lab, peers):
    """All of the WAN address to one host: pings as well; the gateway keeps its own connections."""
    gw_changed(nat_config(forward("dmz", "any", "any", (LAN1, "any"))))
    listener = peers.listen(lab.lan1, LAN1, 4443)
    client = peers.connect(lab.inet, (WAN, 4443), source=(INET, 0))
    server, peer = peers.accept(listener)
    assert peer == client.getsockname()
    talk(client, server, 50000)
    inside = lab.lan1.snmp()["Icmp.InEchos"]
    assert lab.inet.ping(WAN, count=4, options=["-I", INET]) == 4
    assert lab.lan1.snmp()["Icmp.InEchos"] == inside + 4
    listener = peers.listen(lab.inet, INET, 5397)
    box = peers.connect(lab.gw, (INET, 5397))
    server, _ = peers.accept(listener)
    talk(box, server, 50000)
    asker, answerer = peers.udp(lab.gw), peers.udp(lab.inet, INET)
    assert seen_as(asker, answerer, answerer.getsockname()) == (WAN, asker.getsockname()[1])


# --- sizes ---------------------------------------------------------------------------------------


def forget_mtus(lab):
    for ns in (lab.lan1, lab.lan2, lab.inet, lab.gw):
        ns.ip("route flush cache")


def test_too_big_from_outside(gw, lab):
    """The router's "fragmentation needed" quotes the WAN address; the host inside believes it."""
    forget_mtus(lab)
    output = lab.lan1.run(["ping", "-n", "-M", "do", "-c", 1, "-W", 2, "-s", 1472, NARROW], check=False).stdout
    assert f"From {A.WAN_ROUTER[4]}" in output and "mtu = 1400" in output, output
    assert "1400" in lab.lan1.out(["ip", "route", "get", NARROW])
    assert lab.lan1.ping(NARROW, count=2, options=["-M", "do", "-s", 1372]) == 2
    forget_mtus(lab)
    output = lab.lan1.out(["tracepath", "-n", NARROW])
    assert re.search(r"pmtu 1400", output) and "reached" in output, output


def test_tcp_finds_the_mtu(gw, lab):
    """Bulk towards the narrow link and from it; nothing hangs."""
    forget_mtus(lab)
    assert iperf(lab.lan1, lab.inet, NARROW, seconds=1)["mbit"] > 20
    assert "1400" in lab.lan1.out(["ip", "route", "get", NARROW])
    assert iperf(lab.lan1, lab.inet, NARROW, seconds=1, reverse=True)["mbit"] > 20
    forget_mtus(lab)


def test_too_big_from_the_gateway(gw_changed, hidden, lab, peers):
    """Into a LAN of MTU 1400 by a port forward: the error quotes what the outside host sent."""
    narrow = nat_config(forward("narrow", "tcp", "8088", (LAN2, "88"))).replace(
        'device = "lan-b"\n', 'device = "lan-b"\nmtu = 1400\n'
    )
    gw_changed(narrow)
    forget_mtus(lab)
    listener = peers.listen(lab.lan2, LAN2, 88)
    client = peers.connect(lab.inet, (WAN, 8088), source=(INET, 0))
    server, _ = peers.accept(listener)
    body = bytes(60_000)
    client.sendall(body)
    assert len(receive(server, len(body))) == len(body)
    assert "1400" in lab.inet.out(["ip", "route", "get", WAN, "from", INET])
    forget_mtus(lab)


@pytest.mark.parametrize("size", [1800, 4000, 8000])
def test_fragmented_ping(gw, lab, wire, size):
    outside = wire.sniffer(lab.inet, "eth0")
    assert lab.lan1.ping(INET, count=5, options=["-s", size]) == 5
    assert sources(outside.drain()) == {WAN}


def test_fragmented_udp(gw, lab, peers):
    server = peers.udp(lab.inet, INET, 5400)
    client = peers.udp(lab.lan1, port=5401)
    for size in (1473, 3000, 8000):
        assert seen_as(client, server, (INET, 5400), data=bytes(range(250)) * (size // 250)) == (WAN, 5401)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)], ids=["forth", "back", "mixed"])
def test_fragments_of_two_hosts_with_one_identification(gw, lab, peers, wire, order):
    """Behind one address they are one sender to the server, whose kernel goes by the identification."""
    server = peers.udp(lab.inet, INET, 5403)
    hosts = ((lab.lan1, LAN1, "lan-a"), (lab.lan2, LAN2, "lan-b"))
    sends, pieces = [], []
    for n, (ns, address, port) in enumerate(hosts):
        # A small one first: who is asked for Ethernet addresses keeps few fragments.
        assert seen_as(peers.udp(ns, port=5410 + n), server, (INET, 5403)) == (WAN, 5410 + n)
        payload = bytes([n]) * 3000
        packet = Ether(src=ns.mac("eth0"), dst=lab.gw.mac(port)) / IP(src=address, dst=INET, id=77 + order[0])
        pieces.append(fragment(packet / UDP(sport=5410 + n, dport=5403) / Raw(payload), 1200))
        sends.append(wire.sender(ns, "eth0").send)
    for at in order:
        for send, of_host in zip(sends, pieces):
            send(of_host[at])
    got = dict(reversed(server.recvfrom(4000)) for _ in hosts)
    assert got == {(WAN, 5410 + n): bytes([n]) * 3000 for n in range(2)}


def test_no_identification_comes_twice(gw, lab, peers, wire):
    """Datagrams without DF of two hosts that all have one, to one server, by XDP."""
    server, outside = peers.udp(lab.inet, INET, 5404), wire.sniffer(lab.inet, "eth0")
    frames = []
    for n, (ns, address, port) in enumerate(((lab.lan1, LAN1, "lan-a"), (lab.lan2, LAN2, "lan-b"))):
        seen_as(peers.udp(ns, port=5412 + n), server, (INET, 5404))
        packet = Ether(src=ns.mac("eth0"), dst=lab.gw.mac(port)) / IP(src=address, dst=INET, id=9)
        frames.append((wire.sender(ns, "eth0").send, packet / UDP(sport=5412 + n, dport=5404) / Raw(b"again and again..")))
    before = gw.status()["fastpath_packets"]
    for _ in range(100):
        for send, frame in frames:
            send(frame)
    packets = (Ether(frame) for frame in outside.drain())
    ids = [p[IP].id for p in packets if UDP in p and p[UDP].dport == 5404 and "DF" not in p[IP].flags]
    assert len(ids) == 200 and len(set(ids)) == 200
    assert gw.status()["fastpath_packets"] - before >= 200


def test_fragmented_udp_by_a_forward(gw, lab, peers):
    server, client = peers.udp(lab.lan2, LAN2, 9001), peers.udp(lab.inet, INET)
    assert seen_as(client, server, (WAN, 7001), data=bytes(8000)) == client.getsockname()


def test_fragmented_hairpin(gw, lab, peers):
    server, client = peers.udp(lab.lan2, LAN2, 9002), peers.udp(lab.lan1, port=5402)
    assert seen_as(client, server, (WAN, 7002), data=bytes(5000)) == (WAN, 5402)


def test_connections_of_the_box_keep_their_ports(gw, lab, peers):
    """A host that picks the port of one of the gateway's connections gets another one; both go on."""
    listener, server = peers.listen(lab.inet, INET, 5390), peers.udp(lab.inet, INET, 5391)
    box = peers.connect(lab.gw, (INET, 5390), source=(WAN, 41000))
    accepted, _ = peers.accept(listener)
    asker = peers.udp(lab.gw, WAN, 41001)
    asker.connect((INET, 5391))
    # The kernel announces no new sockets: they are read once a second.
    time.sleep(1.5)
    inside = peers.connect(lab.lan1, (INET, 5390), source=("0.0.0.0", 41000))
    other, peer = peers.accept(listener)
    assert peer[0] == WAN and peer[1] != 41000
    talk(inside, other, 50000)
    talk(box, accepted, 50000)
    seen, port = seen_as(peers.udp(lab.lan1, port=41001), server, (INET, 5391))
    assert seen == WAN and port != 41001
    asker.send(b"box?")
    assert server.recvfrom(10) == (b"box?", (WAN, 41001))
    server.sendto(b"box!", (WAN, 41001))
    assert asker.recv(10) == b"box!"


def test_a_connection_of_the_box_takes_its_port_back(gw, lab, peers):
    """The very tuple of a session that was there before the socket: within two seconds the answers are the box's."""
    server = peers.udp(lab.inet, INET, 5392)
    client = peers.udp(lab.lan1, port=41002)
    assert seen_as(client, server, (INET, 5392)) == (WAN, 41002)
    box = peers.udp(lab.gw, WAN, 41002, timeout=0.2)
    box.connect((INET, 5392))
    until = time.monotonic() + TIMEOUT
    while True:
        server.sendto(b"answer", (WAN, 41002))
        try:
            assert box.recv(10) == b"answer"
            break
        except TimeoutError:
            assert time.monotonic() < until
    while not silent(client, 0.1):
        pass
    seen, port = seen_as(client, server, (INET, 5392))
    assert seen == WAN and port != 41002


def test_a_forward_to_the_box_itself_is_refused(gw, lab, tmp_path):
    """By `check` on the gateway, though its addresses are the kernel's and not in the file."""
    path = tmp_path / "self.toml"
    path.write_text(nat_config(*FORWARDS, forward("self", "tcp", "8443", (A.GW_LAN_A[4], "443"))))
    code, output = gw.foreground("check", "--config", path)
    assert code != 0 and f"dnat self: {A.GW_LAN_A[4]} is an address of the gateway itself" in output
    path.write_text(CONFIG)
    code, output = gw.foreground("check", "--config", path)
    assert code == 0, output
