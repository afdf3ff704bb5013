"""NAT64: hosts that speak IPv6 and servers that speak IPv4, between real kernels."""

import contextlib
import re
import socket

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, table, talk
from harness.port_counters import restarted

pytestmark = pytest.mark.sag

PREFIX = "2001:db8:64::"
CONFIG = nat_config(table("nat64", id="sixty-four", prefix=f"{PREFIX}/96"))
LAN1, LAN2, WAN, INET, NARROW = A.LAN1[6], A.LAN2[6], A.GW_WAN[4], A.INET[4], A.NARROW[4]


def behind(address):
    """As resolvers write the address (RFC 6052, RFC 5952)."""
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, PREFIX + address))


@pytest.fixture
def gw(gw_cleared, hidden):
    return gw_cleared(CONFIG)


def echoed(client, server, dest, size=4):
    """Sends and answers a datagram of this size; whom the server saw."""
    client.sendto(b"q" * size, dest)
    got, peer = server.recvfrom(65536)
    assert got == b"q" * size
    server.sendto(b"a" * size, peer)
    answer, answerer = client.recvfrom(65536)
    assert answer == b"a" * size and answerer[:2] == dest
    return peer[:2]


def test_tcp_both_small_and_big(gw, lab, peers):
    """A connection, and 4 MB each way; shown as one session with both sides."""
    listener = peers.listen(lab.inet, INET, 6400)
    client = peers.connect(lab.lan1, (behind(INET), 6400), source=(LAN1, 0))
    server, peer = peers.accept(listener)
    assert peer[0] == WAN
    talk(client, server)
    [session] = gw.ctl("sessions", "--nat", "--proto", "tcp", "--limit", "9")["sessions"]
    assert (session["src"], session["dst"], session["dport"]) == (LAN1, behind(INET), 6400)
    assert (session["nat_src"], session["nat_dst"], session["nat_sport"]) == (WAN, INET, peer[1])
    [entry] = [e for e in gw.ctl("nat")["entries"] if e["id"] == "sixty-four"]
    assert (entry["kind"], entry["sessions"], entry["hits"]) == ("nat64", 1, 1)
    [binding] = gw.ctl("nat", "bindings", "--proto", "tcp")["bindings"]
    assert (binding["inside"], binding["outside"]) == (LAN1, WAN)


def test_udp_with_fragments_both_ways(gw, lab, peers):
    server, client = peers.udp(lab.inet, INET, 6410), peers.udp(lab.lan1, LAN1, 6411)
    for size in (4, 1232, 1300, 1452, 4000, 20000):
        assert echoed(client, server, (behind(INET), 6410), size) == (WAN, 6411)
    # Without a checksum, which IPv4 may leave out and IPv6 may not.
    server.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
    for size in (4, 1232):
        assert echoed(client, server, (behind(INET), 6410), size) == (WAN, 6411)


def test_ping_and_routers_on_the_way(gw, lab):
    """Echo of several sizes; traceroute sees the IPv4 routers by the prefix."""
    for size in (56, 1200, 1400):
        lab.lan1.run(["ping", "-6", "-n", "-c2", "-i0.2", "-W2", "-s", size, behind(INET)])
    hops = lab.lan1.run(["traceroute", "-6", "-n", "-q1", "-w2", "-m6", behind(INET)]).stdout
    seen = re.findall(r"^ *\d+ +(\S+)", hops, re.MULTILINE)
    assert seen[0] == A.GW_LAN_A[6] and seen[1] == behind(A.WAN_ROUTER[4]) and seen[-1] == behind(INET), hops


def test_a_narrow_path_is_found(gw, lab, peers):
    """The IPv4 router's 1400 bytes are 1420 of IPv6, and TCP gets through."""
    lab.lan1.ip("-6 route flush cache")
    hops = lab.lan1.run(["tracepath", "-6", "-n", "-m", "6", behind(NARROW)]).stdout
    assert "pmtu 1420" in hops and behind(NARROW) in hops, hops
    listener = peers.listen(lab.inet, NARROW, 6420)
    client = peers.connect(lab.lan1, (behind(NARROW), 6420), source=(LAN1, 0))
    server, _ = peers.accept(listener)
    talk(client, server)


def test_the_server_finds_a_narrow_path_to_the_client(gw, lab, peers):
    """The link to the LAN takes 1400 bytes of IPv6, so 1380 of IPv4: the IPv4 server learns it from the gateway."""
    lab.gw.ip("link set lan-a mtu 1400")
    try:
        listener = peers.listen(lab.inet, INET, 6430)
        client = peers.connect(lab.lan1, (behind(INET), 6430), source=(LAN1, 0))
        server, _ = peers.accept(listener)
        # That way alone: what is longer does not come in by the short link.
        server.sendall(b"x" * 40000)
        # MSG_WAITALL waits for nothing where the socket has a time-out.
        left = 40000
        while left:
            data = client.recv(left)
            assert data, f"closed, {left} bytes short"
            left -= len(data)
        assert "mtu 1380" in lab.inet.out(["ip", "route", "get", WAN])
    finally:
        lab.gw.ip("link set lan-a mtu 1500")
        lab.inet.ip("route flush cache")


def test_refusals_come_back(gw, lab, peers):
    """Port unreachable and RST from the IPv4 side; a private address behind the prefix is not the gateway's to reach."""
    client = peers.udp(lab.lan1, LAN1, 6441)
    client.connect((behind(INET), 6442))
    client.send(b"is anybody there")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        peers.connect(lab.lan1, (behind(INET), 6443), source=(LAN1, 0))
    client = peers.udp(lab.lan1, LAN1, 6444)
    client.connect((behind(A.GW_WAN[4]), 22))
    client.send(b"own address")
    with pytest.raises(OSError):
        client.recv(100)
    assert gw.drops()[("0", "nat64-refused")] == 1


def test_hairpin(gw, lab, peers):
    """RFC 6146 section 3.8: by the external address, and by XDP's punts alone."""
    outside = peers.udp(lab.inet, INET, 6450)
    server, client = peers.udp(lab.lan2, LAN2, 6451), peers.udp(lab.lan1, LAN1, 6452)
    assert echoed(server, outside, (behind(INET), 6450)) == (WAN, 6451)
    for _ in range(3):
        assert echoed(client, server, (behind(WAN), 6451)) == (behind(WAN), 6452)


def test_sessions_outlive_the_daemon(gw, lab, peers, accounting):
    """Same port after kill -9, from either side."""
    server, client = peers.udp(lab.inet, INET, 6460), peers.udp(lab.lan1, LAN1, 6461)
    seen = echoed(client, server, (behind(INET), 6460))
    listener = peers.listen(lab.inet, INET, 6462)
    tcp = peers.connect(lab.lan1, (behind(INET), 6462), source=(LAN1, 0))
    accepted, _ = peers.accept(listener)
    talk(tcp, accepted)
    gw.kill()
    restarted(gw, accounting, CONFIG, quiet=False)
    # Workers attach a moment later, and XDP alone does not forward these.
    client.settimeout(0.5)
    for _ in range(10):
        server.sendto(b"after", seen)
        with contextlib.suppress(TimeoutError):
            assert client.recv(100) == b"after"
            break
    else:
        pytest.fail("nothing comes from the IPv4 side any more")
    with contextlib.suppress(TimeoutError):
        while client.recv(100):
            pass
    client.settimeout(3)
    assert echoed(client, server, (behind(INET), 6460)) == seen
    talk(tcp, accepted)
    assert {b["inside"] for b in gw.ctl("nat", "bindings")["bindings"]} == {LAN1}
    # Without NAT64 the sessions end with their next packet.
    gw.reload(nat_config())
    client.sendto(b"nobody", (behind(INET), 6460))
    tcp.close()
